//! Values that a shell may complete a command line with.

use std::{collections::HashSet, env, ffi::OsStr, os::unix::fs::PermissionsExt, path::Path};

use clap_complete::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, engine::ValueCompleter,
};

use super::commands;
use crate::{
    commands::topics,
    compare::assemble::statistics,
    export::vm_label::VmLabel,
    host::{roots::Roots, vmm},
    model::{
        exit_reasons,
        figures::{Column, short_names},
    },
    report::Dimension,
};

/// Programs of `PATH` that are offered, at most.
const MOST_PROGRAMS: usize = 1000;

/// The VMs that run here.
pub(super) fn running_vms() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(vmm::words(&Roots::default().proc)))
}

/// The labels of VMs.
pub(super) fn vm_labels() -> ArgValueCompleter {
    list(|| VmLabel::names().map(str::to_owned).collect())
}

/// The commands and the topics of the manual.
pub(super) fn subjects() -> ArgValueCandidates {
    let topics = || topics::all().into_iter().flatten().map(|topic| topic.name);
    ArgValueCandidates::new(move || candidates(commands().into_iter().chain(topics())))
}

/// Columns to sort by.
pub(super) fn columns() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(Column::names().into_iter().chain(short_names()).map(taught)))
}

/// Conditions on figures, to be changed.
pub(super) fn conditions() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(statistics().into_iter().map(|(name, _)| taught(name) + ">+3%")))
}

/// Figures with their statistics.
pub(super) fn figures() -> ArgValueCompleter {
    list(|| statistics().into_iter().map(|(name, _)| taught(name)).collect())
}

/// A column's name as the help has it: "p999" of JSON is p99.9.
fn taught(name: String) -> String {
    name.strip_suffix("p999").map(|begin| format!("{begin}p99.9")).unwrap_or(name)
}

/// Dimensions; behind `=`, values that are known without a recording.
pub(super) fn filters() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let text = current.to_string_lossy();
        let Some((name, values)) = text.split_once('=') else {
            let names = Dimension::ALL.map(|dimension| format!("{}=", dimension.name()));
            return candidates(names.into_iter().filter(|name| name.starts_with(&*text)));
        };
        let known = match Dimension::parse(name) {
            Some(Dimension::Level) => strings(&["L1", "L2"]),
            Some(Dimension::Entry) => strings(&["clean", "dirty"]),
            Some(Dimension::Cause) => strings(&["spurious", "early", "deadline", "immediate"]),
            Some(Dimension::Reason) => exit_reasons::names().map(|name| name.to_string()).collect(),
            _ => vec![],
        };
        candidates(lists(values, &known).map(|value| format!("{name}={value}")))
    })
}

/// When an experiment stops.
pub(super) fn ends() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(["decided", "10m", "20"].map(str::to_owned)))
}

/// Settings that can be switched here: parameters of KVM's modules that can be written, and the settings that have a name.
pub(super) fn settings() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let modules = Roots::default().sys.join("module");
        let of_module = |module: &str| {
            let entries = std::fs::read_dir(modules.join(module).join("parameters")).into_iter().flatten().flatten();
            let is_writable =
                |entry: &std::fs::DirEntry| entry.metadata().is_ok_and(|m| m.permissions().mode() & 0o200 != 0);
            let name = |entry: std::fs::DirEntry| Some(format!("{module}.{}=", entry.file_name().to_str()?));
            entries.filter(is_writable).filter_map(name).collect::<Vec<_>>()
        };
        let parameters = ["kvm", "kvm_intel", "kvm_amd"].into_iter().flat_map(of_module);
        candidates(parameters.chain(["governor=", "thp=", "cgroup:"].map(str::to_owned)))
    })
}

/// Recordings, and folders in which some may be; every file where there is no recording.
pub(super) fn recordings() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let is_recording = |path: &Path| path.extension().is_some_and(|suffix| suffix == "hlog");
        let found = PathCompleter::any().filter(is_recording).complete(current);
        let has_recording = found.iter().any(|candidate| is_recording(Path::new(candidate.get_value())));
        if has_recording { found } else { PathCompleter::file().complete(current) }
    })
}

/// Programs and files: which word of a command it is, the shell does not say.
pub(super) fn command() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let begin = current.to_string_lossy();
        let mut names = Vec::new();
        if !begin.is_empty() && !begin.contains('/') {
            let path = env::var_os("PATH").unwrap_or_default();
            let folders = env::split_paths(&path).filter_map(|folder| std::fs::read_dir(folder).ok());
            let files = folders.flat_map(|folder| folder.flatten());
            names.extend(files.filter_map(|entry| entry.file_name().into_string().ok()));
            names.retain(|name| name.starts_with(&*begin));
            names.sort();
            names.truncate(MOST_PROGRAMS);
        }
        let mut found = candidates(names);
        found.extend(PathCompleter::file().complete(current));
        found
    })
}

/// A list of names with commas, of which none is offered twice. It sees whole lists where clap splits none.
pub(crate) fn list(names: impl Fn() -> Vec<String> + Send + Sync + 'static) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| candidates(lists(&current.to_string_lossy(), &names())))
}

/// What a list that was begun may be.
fn lists(begun: &str, names: &[String]) -> impl Iterator<Item = String> {
    let at = begun.rfind(',').map_or(0, |comma| comma + 1);
    let (given, last) = begun.split_at(at);
    let is_new = |name: &&String| name.starts_with(last) && !given.split(',').any(|given| given == **name);
    names.iter().filter(is_new).map(|name| format!("{given}{name}")).collect::<Vec<_>>().into_iter()
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Where to serve metrics: a socket's path, or the default.
pub(super) fn addresses() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let text = current.to_string_lossy();
        match text.strip_prefix("unix:") {
            Some(path) => {
                let found = PathCompleter::any().complete(OsStr::new(path));
                found.into_iter().map(|candidate| candidate.add_prefix("unix:")).collect()
            }
            None => {
                candidates(strings(&["unix:", "127.0.0.1:9753"]).into_iter().filter(|known| known.starts_with(&*text)))
            }
        }
    })
}

fn candidates(values: impl IntoIterator<Item = String>) -> Vec<CompletionCandidate> {
    // VMX and SVM have names of exit reasons in common.
    let mut seen = HashSet::new();
    values.into_iter().filter(|value| seen.insert(value.clone())).map(CompletionCandidate::new).collect()
}
