//! Follows the VMs of `--vm` and the processes of `--pid` while they are traced: a VM that is restarted is another process.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    commands::{args::Targets, privileges},
    host::{process::start_time, roots::Roots, vmm},
    kernel::tracer::Tracer,
};

/// How often processes are looked through.
const EVERY: Duration = Duration::from_secs(2);

/// A thread that follows; dropping this ends it.
pub(crate) struct Following {
    _until_dropped: SyncSender<()>,
}

/// Follows the targets that `tracer` was loaded for, the processes `tgids`; none where everything is traced. Each change is told to
/// `tell` once.
pub(crate) fn follow(
    targets: &Targets,
    tgids: Option<&[u32]>,
    tracer: &mut Tracer,
    tell: impl Fn(&str) + Send + 'static,
) -> Result<Option<Following>> {
    let Some(tgids) = tgids else { return Ok(None) };
    let mut filter = tracer.take_tgid_filter()?;
    let mut followed = Followed::new(Roots::default().proc, &targets.vm, tgids);
    let (until_dropped, dropped) = sync_channel(0);
    let (begun, beginning) = sync_channel(1);
    let work = move || {
        let kept = privileges::of_following();
        let failed = kept.is_err();
        if begun.send(kept).is_err() || failed {
            return;
        }
        while dropped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            for change in followed.look() {
                let done = match change {
                    Change::Started { tgid, .. } => filter.add(tgid),
                    Change::Ended { tgid, .. } => filter.remove(tgid),
                };
                match done {
                    Ok(()) => tell(&change.to_string()),
                    Err(error) => tell(&format!("{change}, but the programs could not be told: {error:#}")),
                }
            }
        }
    };
    std::thread::Builder::new().name("follow".into()).spawn(work).context("start the thread that follows VMs")?;
    // An exporter's filter of system calls is for all threads, and does not allow what this one has just done.
    beginning.recv().context("start the thread that follows VMs")??;
    Ok(Some(Following { _until_dropped: until_dropped }))
}

/// A change of the processes to trace.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// a process of a VM's name or label, which is traced from now on
    Started { tgid: u32, name: String },
    /// a process that was traced has ended; with the name that brings it back, if one does
    Ended { tgid: u32, name: Option<String> },
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Started { tgid, name } => write!(f, "--vm {name}: process {tgid} is traced from now on"),
            Self::Ended { tgid, name: Some(name) } => {
                write!(f, "--vm {name}: process {tgid} has ended; the next one of this name will be traced")
            }
            Self::Ended { tgid, name: None } => {
                write!(f, "process {tgid} has ended, and nothing of it is traced any more")
            }
        }
    }
}

/// The processes that are traced, and the names that select further ones.
struct Followed {
    proc: PathBuf,
    names: Vec<String>,
    traced: BTreeMap<u32, Traced>,
}

/// A process that is traced.
struct Traced {
    /// the name that selected it; none if its number did
    name: Option<String>,
    /// its start in clock ticks since boot, by which it differs from a later process of its number; none where it could not be read
    start_ticks: Option<u64>,
}

impl Traced {
    fn by_name(vm: &vmm::Vm, name: &str) -> Self {
        Self { name: Some(name.to_owned()), start_ticks: Some(vm.process.start_time_ticks) }
    }

    /// Whether the process is gone. One whose VM cannot be seen any more may still run it.
    fn has_ended(&self, proc: &Path, tgid: u32) -> bool {
        match (self.start_ticks, start_time(proc, tgid)) {
            (Some(then), Ok(now)) => then != now,
            _ => !proc.join(tgid.to_string()).exists(),
        }
    }
}

impl Followed {
    fn new(proc: PathBuf, names: &[String], tgids: &[u32]) -> Self {
        let traced = |tgid| Traced { name: None, start_ticks: start_time(&proc, tgid).ok() };
        let traced = tgids.iter().map(|tgid| (*tgid, traced(*tgid))).collect();
        let mut followed = Self { proc, names: names.to_vec(), traced };
        let of_names = followed.of_names();
        followed.traced.extend(of_names.iter().map(|(vm, name)| (vm.process.tgid, Traced::by_name(vm, name))));
        followed
    }

    /// The running VMs of the names, each with the name that selects it.
    fn of_names(&self) -> Vec<(vmm::Vm, String)> {
        if self.names.is_empty() {
            return Vec::new();
        }
        let named = |vm: vmm::Vm| {
            let name = self.names.iter().find(|name| vm.is_called(name))?.clone();
            Some((vm, name))
        };
        vmm::find_vms(&self.proc).vms.into_iter().filter_map(named).collect()
    }

    /// Looks through the processes; returns what has changed since the last look.
    fn look(&mut self) -> Vec<Change> {
        let Self { proc, traced, .. } = self;
        let gone: Vec<_> = traced.extract_if(.., |tgid, traced| traced.has_ended(proc, *tgid)).collect();
        let mut changes: Vec<_> =
            gone.into_iter().map(|(tgid, traced)| Change::Ended { tgid, name: traced.name }).collect();
        for (vm, name) in self.of_names() {
            let tgid = vm.process.tgid;
            if self.traced.insert(tgid, Traced::by_name(&vm, &name)).is_none() {
                changes.push(Change::Started { tgid, name });
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::{process::made_up::add, roots::made_up::Folder};

    /// A process with a VM, as /proc shows it.
    fn vm(host: &Folder, tgid: u32, name: &str) {
        let cmdline = format!("qemu\0-name\0{name}\0");
        add(&host.roots.proc, [tgid, tgid, 1], cmdline.as_bytes(), b"qemu", &["anon_inode:kvm-vm"]);
    }

    fn followed(host: &Folder, names: &[&str], tgids: &[u32]) -> Followed {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        Followed::new(host.roots.proc.clone(), &names, tgids)
    }

    fn lines(changes: Vec<Change>) -> Vec<String> {
        changes.iter().map(Change::to_string).collect()
    }

    #[test]
    fn a_vm_that_is_restarted_is_traced_again_by_its_name_and_said_once() {
        let host = Folder::new();
        vm(&host, 40, "web1");
        vm(&host, 41, "db1");
        let mut followed = followed(&host, &["web1"], &[40]);
        assert_eq!(followed.look(), [], "nothing has changed");
        fs::remove_dir_all(host.roots.proc.join("40")).unwrap();
        vm(&host, 50, "web1");
        assert_eq!(
            lines(followed.look()),
            [
                "--vm web1: process 40 has ended; the next one of this name will be traced",
                "--vm web1: process 50 is traced from now on"
            ]
        );
        assert_eq!(followed.look(), []);
        vm(&host, 51, "web1");
        assert_eq!(lines(followed.look()), ["--vm web1: process 51 is traced from now on"], "names are not unique");
    }

    #[test]
    fn a_vm_that_is_restarted_is_traced_again_by_its_label() {
        let host = Folder::new();
        let start = |tgid: u32| {
            vm(&host, tgid, &format!("incarnation-{tgid}"));
            host.write(&format!("proc/{tgid}/cgroup"), "0::/qemu.slice/101.scope\n");
        };
        start(40);
        let mut followed = followed(&host, &["vmid=101"], &[40]);
        assert_eq!(followed.look(), []);
        fs::remove_dir_all(host.roots.proc.join("40")).unwrap();
        start(50);
        assert_eq!(
            lines(followed.look()),
            [
                "--vm vmid=101: process 40 has ended; the next one of this name will be traced",
                "--vm vmid=101: process 50 is traced from now on"
            ]
        );
    }

    #[test]
    fn a_process_that_was_named_by_its_number_does_not_come_back() {
        let host = Folder::new();
        vm(&host, 40, "web1");
        let mut followed = followed(&host, &[], &[40]);
        fs::remove_dir_all(host.roots.proc.join("40")).unwrap();
        vm(&host, 50, "web1");
        assert_eq!(lines(followed.look()), ["process 40 has ended, and nothing of it is traced any more"]);
        assert_eq!(followed.look(), []);
    }

    #[test]
    fn another_process_of_the_same_number_is_not_traced() {
        let host = Folder::new();
        vm(&host, 40, "web1");
        vm(&host, 41, "db1");
        let mut followed = followed(&host, &["web1"], &[40, 41]);
        for tgid in [40, 41] {
            fs::remove_dir_all(host.roots.proc.join(tgid.to_string())).unwrap();
            vm(&host, tgid, "stranger");
            let stat = format!("{tgid} (qemu) S {}{} 0 0\n", "0 ".repeat(18), 2000);
            host.write(&format!("proc/{tgid}/stat"), stat);
        }
        assert_eq!(
            lines(followed.look()),
            [
                "--vm web1: process 40 has ended; the next one of this name will be traced",
                "process 41 has ended, and nothing of it is traced any more"
            ]
        );
        assert_eq!(followed.look(), []);
    }

    #[test]
    fn a_vm_that_cannot_be_seen_any_more_stays_traced() {
        let host = Folder::new();
        vm(&host, 40, "web1");
        let mut followed = followed(&host, &["web1"], &[40]);
        fs::remove_file(host.roots.proc.join("40/fd/0")).unwrap();
        assert_eq!(followed.look(), []);
    }
}
