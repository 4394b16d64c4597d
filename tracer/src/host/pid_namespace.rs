//! Whether the process ids below /proc are those of the initial PID namespace, by which the programs tell processes apart.

use std::{fs, path::Path};

/// Link of a process in the initial PID namespace: PROC_PID_INIT_INO, 0xEFFFFFFC, in every kernel since Linux 3.8.
const INITIAL: &str = "pid:[4026531836]";
/// How to leave a container's PID namespace.
pub(crate) const FIX: &str = "run it in the host's PID namespace: docker or podman run --pid=host, hostPID: true in a pod, or nsenter -t PID -p \
                              with a process of the host";

/// Whether /proc shows the process ids that the programs report; none where /proc does not tell. In a PID namespace of its own, a process
/// of the same number there is a stranger.
pub(crate) fn shows_host_processes(proc: &Path) -> Option<bool> {
    let namespace = |process: &str| fs::read_link(proc.join(process).join("ns/pid")).ok();
    let is_initial = |link: &Path| link == Path::new(INITIAL);
    // With the host's /proc, process 1 is the host's, whatever namespace this process is in.
    let is_hosts = || namespace("1").is_some_and(|link| is_initial(&link));
    match namespace("self") {
        Some(own) => Some(is_initial(&own) || is_hosts()),
        // In the /proc of a namespace that this process is not in, `self` leads nowhere.
        None => proc.join("self").symlink_metadata().ok().filter(|link| link.is_symlink()).map(|_| is_hosts()),
    }
}

/// This process's id in the initial PID namespace; none where /proc does not tell.
pub(crate) fn this_process(proc: &Path) -> Option<u32> {
    let id = fs::read_link(proc.join("self")).ok()?.to_str()?.parse().ok()?;
    (shows_host_processes(proc) != Some(false)).then_some(id)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn proc(own: &str, of_1: &str) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        for (process, link) in [("self", own), ("1", of_1)] {
            fs::create_dir_all(proc.path().join(process).join("ns")).unwrap();
            symlink(link, proc.path().join(process).join("ns/pid")).unwrap();
        }
        proc
    }

    #[test]
    fn a_proc_of_another_pid_namespace_is_told_by_its_links() {
        let container = "pid:[4026532201]";
        let shows = |own, of_1| shows_host_processes(proc(own, of_1).path());
        assert_eq!(shows(INITIAL, INITIAL), Some(true));
        assert_eq!(shows(container, container), Some(false));
        assert_eq!(shows(container, INITIAL), Some(true), "the host's /proc in a container");
        assert_eq!(shows_host_processes(Path::new("/nonexistent")), None);
        let foreign = proc(INITIAL, container);
        fs::remove_dir_all(foreign.path().join("self")).unwrap();
        assert_eq!(shows_host_processes(foreign.path()), None, "no procfs");
        symlink("nowhere", foreign.path().join("self")).unwrap();
        assert_eq!(shows_host_processes(foreign.path()), Some(false), "a container's /proc on the host");
        assert_eq!(this_process(proc(INITIAL, INITIAL).path()), None, "self is no link");
    }
}
