//! Looks for other tracers on kvm_entry and kvm_exit: each adds its own work to guest and host times.

use std::{collections::BTreeMap, fs, io, path::Path};

use crate::{
    host::{
        open_files::{Descriptors, OpenFiles},
        process::{read_process, text},
        roots::Roots,
    },
    kernel::links,
    model::measurement::OtherTracers,
    output::{MAX_NAME, printable, shown},
};

const TRACEPOINTS: [&str; 2] = ["kvm_entry", "kvm_exit"];

/// Looks at ftrace, at BPF links and, by their command lines, at processes with perf events. To be called while this process has no program
/// attached: another vmentry counts.
pub(crate) fn look(roots: &Roots) -> OtherTracers {
    among(roots, &OpenFiles::read(&roots.proc))
}

/// [`look`] among files that were read already.
pub(super) fn among(roots: &Roots, files: &OpenFiles) -> OtherTracers {
    let mut found = OtherTracers::default();
    match ftrace(&roots.sys) {
        Ok(tracers) => found.names.extend(tracers),
        Err(why) => found.unseen.push(why),
    }
    let holders = Holders::among(&roots.proc, files);
    match links::on(&TRACEPOINTS) {
        Ok(links) => {
            let holder = |link: &links::Link| match holders.of_links.get(&link.id) {
                Some(process) => process.clone(),
                None => format!("BPF program {} (link {})", link.program, link.id),
            };
            found.names.extend(links.iter().map(holder));
        }
        Err(e) => found.unseen.push(format!("BPF links ({e}; needs CAP_SYS_ADMIN)")),
    }
    found.names.extend(holders.of_perf_events);
    OtherTracers::merge([found])
}

/// The ftrace instances whose events, triggers or filters are on the tracepoints, or why they cannot be known.
fn ftrace(sys: &Path) -> Result<Vec<String>, String> {
    let root = ["kernel/tracing", "kernel/debug/tracing"]
        .map(|path| sys.join(path))
        .into_iter()
        .find(|p| p.join("events").exists());
    let root = root.ok_or("ftrace (tracefs is not mounted, or may not be read)")?;
    let mut instances = vec![("ftrace".to_owned(), root.clone())];
    for entry in fs::read_dir(root.join("instances")).into_iter().flatten().flatten() {
        let name = shown(Path::new(&entry.file_name()));
        instances.push((format!("ftrace instance {name}"), entry.path()));
    }
    let mut tracers = Vec::new();
    for (name, folder) in instances {
        for tracepoint in TRACEPOINTS {
            let what = of_event(&folder.join("events/kvm").join(tracepoint)).map_err(|e| format!("{name} ({e})"))?;
            tracers.extend(what.map(|what| format!("{name}: {what}{tracepoint}")));
        }
    }
    Ok(tracers)
}

/// What ftrace does at an event: none where it does nothing, or where kvm is not loaded.
fn of_event(event: &Path) -> io::Result<Option<String>> {
    let read = |file| match text(&event.join(file)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    };
    // Comments explain what triggers there are.
    let triggers = read("trigger")?;
    let trigger = triggers.lines().find(|line| !line.is_empty() && !line.starts_with('#'));
    if let Some(trigger) = trigger {
        let kind = trigger.split(':').next().unwrap_or_default();
        return Ok(Some(format!("trigger '{kind}' on ")));
    }
    // "1", or "0*" where a trigger may enable it.
    let enabled = read("enable")?;
    Ok((enabled.trim() != "0" && !enabled.trim().is_empty()).then(String::new))
}

/// Processes that hold links or perf events, as "COMM (pid N)".
#[derive(Default)]
struct Holders {
    /// by the number of the link
    of_links: BTreeMap<u32, String>,
    /// those whose command line names kvm: the kernel does not tell the tracepoint of a perf event
    of_perf_events: Vec<String>,
}

impl Holders {
    fn among(proc: &Path, files: &OpenFiles) -> Self {
        let mut holders = Self::default();
        files.by_process.iter().for_each(|(&tgid, open)| holders.add(proc, tgid, open));
        holders
    }

    fn add(&mut self, proc: &Path, tgid: u32, open: &Descriptors) {
        if open.links.is_empty() && !open.has_perf_event {
            return;
        }
        let Ok(process) = read_process(proc, tgid) else { return };
        let name = format!("{} (pid {tgid})", printable(&process.comm, MAX_NAME));
        for number in &open.links {
            let about = text(&proc.join(format!("{tgid}/fdinfo/{number}"))).unwrap_or_default();
            let id = about.lines().find_map(|line| line.strip_prefix("link_id:")?.trim().parse().ok());
            self.of_links.extend(id.map(|id: u32| (id, name.clone())));
        }
        if open.has_perf_event && process.arguments.iter().any(|argument| argument.contains("kvm")) {
            self.of_perf_events.push(format!("{name}, by its command line"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{process::made_up::add, roots::made_up::Folder};

    const ENTRY: &str = "sys/kernel/tracing/events/kvm/kvm_entry";

    fn of(host: &Folder) -> Result<Vec<String>, String> {
        ftrace(&host.roots.sys)
    }

    #[test]
    fn ftrace_is_seen_by_its_events_and_triggers_in_every_instance() {
        let host = Folder::new();
        for (file, content) in
            [("enable", "0\n"), ("trigger", "# Available triggers:\n# hist snapshot\n"), ("filter", "none\n")]
        {
            host.write(&format!("{ENTRY}/{file}"), content);
        }
        assert_eq!(of(&host), Ok(vec![]));
        host.write(&format!("{ENTRY}/enable"), "1\n");
        assert_eq!(of(&host), Ok(vec!["ftrace: kvm_entry".into()]));
        host.write(&format!("{ENTRY}/enable"), "0*\n");
        host.write(&format!("{ENTRY}/trigger"), "hist:keys=common_pid:vals=hitcount:sort=hitcount [active]\n");
        host.write("sys/kernel/tracing/instances/mine/events/kvm/kvm_exit/enable", "1\n");
        assert_eq!(
            of(&host),
            Ok(vec!["ftrace: trigger 'hist' on kvm_entry".into(), "ftrace instance mine: kvm_exit".into()])
        );
    }

    #[test]
    fn the_old_place_of_tracefs_counts_and_without_one_nothing_is_known() {
        let host = Folder::new();
        assert!(of(&host).unwrap_err().contains("tracefs is not mounted"));
        host.write("sys/kernel/debug/tracing/events/kvm/kvm_exit/enable", "1\n");
        assert_eq!(of(&host), Ok(vec!["ftrace: kvm_exit".into()]));
        host.write("sys/kernel/tracing/events/enable", "0\n");
        assert_eq!(of(&host), Ok(vec![]), "kvm is not loaded");
    }

    #[test]
    fn processes_are_named_by_their_links_and_perf_events() {
        let folder = tempfile::tempdir().unwrap();
        let proc = folder.path();
        add(proc, [60, 60, 1], b"perf\0kvm\0stat\0", b"perf", &["anon_inode:[perf_event]"]);
        add(proc, [61, 61, 1], b"perf\0top\0", b"perf", &["anon_inode:[perf_event]"]);
        add(proc, [62, 62, 1], b"vmentry\0", b"vmentry", &["/x", "anon_inode:bpf_link"]);
        fs::create_dir(proc.join("62/fdinfo")).unwrap();
        fs::write(proc.join("62/fdinfo/1"), "pos:\t0\nlink_type:\traw_tracepoint\nlink_id:\t17\n").unwrap();
        let holders = Holders::among(proc, &OpenFiles::read(proc));
        assert_eq!(holders.of_perf_events, ["perf (pid 60), by its command line"]);
        assert_eq!(holders.of_links, BTreeMap::from([(17, "vmentry (pid 62)".into())]));
    }
}
