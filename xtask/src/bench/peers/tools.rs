//! The tools that are compared, and their files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    bench::bcc,
    build,
    debian::{self, Need},
    lab::Machine,
};

/// A tool to measure.
pub(super) struct Tool {
    /// Name in the script and on the command line.
    pub(super) name: &'static str,
    /// Name in the table.
    pub(super) title: &'static str,
    /// Its program and Debian package; none if the machine has it anyway.
    pub(super) need: Option<Need>,
}

pub(super) const TOOLS: [Tool; 16] = [
    Tool { name: "record", title: "vmentry record", need: None },
    Tool { name: "record_no_phases", title: "vmentry record --no-phases", need: None },
    Tool { name: "record_detail", title: "vmentry record --detail", need: None },
    Tool { name: "in_kernel", title: "vmentry record --aggregate in-kernel", need: None },
    Tool { name: "in_kernel_no_phases", title: "vmentry record --aggregate in-kernel --no-phases", need: None },
    Tool { name: "live", title: "vmentry live", need: None },
    Tool { name: "ftrace_hist", title: "ftrace hist trigger, count by reason", need: None },
    Tool { name: "ftrace_buffer", title: "ftrace buffer, no reader", need: None },
    Tool { name: "perf_stat", title: "perf stat, 2 tracepoints", need: Some(("perf", "linux-perf")) },
    Tool { name: "perf_kvm", title: "perf kvm stat record", need: Some(("perf", "linux-perf")) },
    Tool { name: "trace_cmd", title: "trace-cmd record", need: Some(("trace-cmd", "trace-cmd")) },
    Tool { name: "bcc_kvmexit", title: "bcc kvmexit, edited to run on AMD (counts)", need: Some(BCC) },
    Tool { name: "bcc_histogram", title: "bcc, exit to entry, no reason", need: Some(BCC) },
    Tool { name: "bpftrace_count", title: "bpftrace, count by reason", need: Some(BPFTRACE) },
    Tool { name: "bpftrace_guest", title: "bpftrace, entry to exit by reason", need: Some(BPFTRACE) },
    Tool { name: "bpftrace_host", title: "bpftrace, exit to entry by reason", need: Some(BPFTRACE) },
];

const BPFTRACE: Need = ("bpftrace", "bpftrace");
const BCC: Need = ("kvmexit-bpfcc", "bpfcc-tools");

/// Returns the tools with these names, or all of them.
pub(super) fn select(names: &[String]) -> Result<Vec<&'static Tool>> {
    let known = TOOLS.map(|tool| tool.name).join(", ");
    let is_known = |name: &String| TOOLS.iter().any(|tool| tool.name == name);
    ensure!(names.iter().all(is_known), "select --tool {}: known tools are {known}", names.join(","));
    Ok(TOOLS.iter().filter(|tool| names.is_empty() || names.iter().any(|name| name == tool.name)).collect())
}

/// Returns a program and the libraries that it needs, all for one folder of the lab's machine.
pub(super) fn with_libraries(need: Need) -> Result<Vec<PathBuf>> {
    let (program, package) = need;
    if need == BCC {
        let kernel = debian::newest_kernel(Machine::default().kernel)?.package;
        return Ok(vec![bcc::archive(&kernel)?, build::root().join("lab/scripts/bcc_histogram.py")]);
    }
    debian::install(&[need])?;
    let path =
        ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(program)).into_iter().find(|path| path.exists());
    let path = path.with_context(|| format!("find {program} of package {package}"))?;
    // Debian's perf is a script that runs the perf of the running kernel.
    let path = if program == "perf" { versioned_perf().unwrap_or(path) } else { path };
    let libraries = bcc::libraries(&path)?;
    Ok([vec![named(&path, program)?], libraries].concat())
}

/// Returns the newest perf of a kernel version that is installed.
fn versioned_perf() -> Option<PathBuf> {
    let found = fs::read_dir("/usr/bin").ok()?.flatten().map(|entry| entry.path());
    found.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("perf_"))).max()
}

/// Copies a program under the name that the script calls, and returns the path of the copy.
fn named(path: &Path, name: &str) -> Result<PathBuf> {
    let folder = build::target_dir().join("lab/tools");
    fs::create_dir_all(&folder).with_context(|| format!("create folder {}", folder.display()))?;
    let to = folder.join(name);
    fs::copy(path, &to).with_context(|| format!("copy {} to {}", path.display(), to.display()))?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_selected_by_name_and_an_unknown_one_is_an_error() {
        let names = |names: &[&str]| select(&names.iter().map(|&name| name.into()).collect::<Vec<_>>());
        assert_eq!(names(&[]).unwrap().len(), TOOLS.len());
        let selected: Vec<_> = names(&["live", "record"]).unwrap().iter().map(|tool| tool.name).collect();
        assert_eq!(selected, ["record", "live"]);
        assert!(names(&["strace"]).is_err());
    }
}
