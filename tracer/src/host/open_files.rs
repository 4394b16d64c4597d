//! The open files of all processes that tell VMs and tracers: one walk over /proc/PID/fd.

use std::{collections::BTreeMap, fs, io, path::Path};

use crate::host::process;

/// Most descriptors of a process that are looked at, those of the lowest numbers: a VMM opens its VM early. At 5 us each they take 20 ms.
const MOST: usize = 4096;
/// Most VMs of a process that are kept; see [`Descriptors::vms`].
pub(super) const MOST_VMS: usize = 16;

/// Most processes that are named in a message.
const MOST_IDS: usize = 8;

/// Descriptors of one process.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// of VMs; of more than [`MOST_VMS`], the first and one more
    pub(super) vms: Vec<u32>,
    /// of BPF links
    pub(super) links: Vec<u32>,
    /// one is of a perf event
    pub(super) has_perf_event: bool,
}

/// The open files of all processes.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    /// those that have a VM, a link or a perf event open, by process id
    pub(super) by_process: BTreeMap<u32, Descriptors>,
    /// processes whose descriptors may not be read
    pub(super) denied: Vec<u32>,
    /// processes of whose descriptors only the first [`MOST`] were looked at
    pub(super) cut: Vec<u32>,
}

impl OpenFiles {
    /// Reads them below `proc`, the root of procfs. Processes that end meanwhile are left out.
    pub(super) fn read(proc: &Path) -> Self {
        let mut files = Self::default();
        for tgid in process::ids(proc) {
            match descriptors(&proc.join(tgid.to_string()).join("fd")) {
                Ok((descriptors, is_cut)) => {
                    files.cut.extend(is_cut.then_some(tgid));
                    if descriptors != Descriptors::default() {
                        files.by_process.insert(tgid, descriptors);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => files.denied.push(tgid),
                Err(_) => {}
            }
        }
        files
    }

    /// Why some were not looked at, with the processes; none where all of those that may be read were.
    pub(super) fn cut(&self) -> Option<String> {
        let count = self.cut.len();
        let mut ids: Vec<_> = self.cut.iter().take(MOST_IDS).map(ToString::to_string).collect();
        ids.extend((count > MOST_IDS).then(|| "...".into()));
        (count > 0).then(|| {
            let ids = ids.join(", ");
            format!("{count} processes have more than {MOST} files open, of which the first were looked at (pid {ids})")
        })
    }
}

/// The descriptors in a folder of links, and whether there are more than were looked at.
fn descriptors(folder: &Path) -> io::Result<(Descriptors, bool)> {
    let mut found = Descriptors::default();
    let mut entries = fs::read_dir(folder)?.flatten();
    for entry in entries.by_ref().take(MOST) {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let Some(kind) = target.to_str().and_then(|to| to.strip_prefix("anon_inode:")) else { continue };
        let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match kind.trim_matches(['[', ']']) {
            "kvm-vm" if found.vms.len() <= MOST_VMS => found.vms.push(number),
            "bpf_link" => found.links.push(number),
            "perf_event" => found.has_perf_event = true,
            _ => {}
        }
    }
    Ok((found, entries.next().is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::made_up::add;

    #[test]
    fn one_walk_finds_vms_links_and_perf_events_and_says_where_it_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let proc = folder.path();
        let files = ["/dev/kvm", "anon_inode:kvm-vm", "anon_inode:bpf_link", "anon_inode:[perf_event]"];
        add(proc, [40, 40, 1], b"vmm\0", b"vmm", &files);
        add(proc, [50, 50, 1], b"sh\0", b"sh", &["/tmp/anon_inode:kvm-vm"]);
        add(proc, [60, 60, 1], b"vmm\0", b"vmm", &["anon_inode:kvm-vm"; 40]);
        let found = OpenFiles::read(proc);
        assert_eq!(found.by_process.keys().collect::<Vec<_>>(), [&40, &60]);
        let of_40 = &found.by_process[&40];
        assert_eq!((of_40.vms.as_slice(), of_40.links.as_slice(), of_40.has_perf_event), (&[1][..], &[2][..], true));
        assert_eq!((found.by_process[&60].vms.len(), found.cut()), (MOST_VMS + 1, None));
        add(proc, [70, 70, 1], b"many\0", b"many", &["/dev/null"; MOST + 1]);
        let found = OpenFiles::read(proc);
        assert!(found.cut().unwrap().starts_with("1 processes have more than 4096"));
        assert!(found.cut().unwrap().ends_with("(pid 70)"));
        let many = OpenFiles { cut: (1..=9).collect(), ..OpenFiles::default() };
        assert!(many.cut().unwrap().ends_with("(pid 1, 2, 3, 4, 5, 6, 7, 8, ...)"));
    }
}
