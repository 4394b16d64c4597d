//! The running VMs: processes that have a VM of KVM open.

use std::{collections::BTreeMap, path::Path};

use crate::host::{
    open_files::{MOST_VMS, OpenFiles},
    process::{self, Process, read_process},
};
use crate::{
    host::labels::{self, rules::LabelRules},
    model::vm_labels::KEYS,
};

/// Ancestors that are looked at, so that a walk ends.
const MAX_ANCESTORS: usize = 64;

/// A process that runs one or more VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vm {
    /// the VM's name; not unique
    pub(crate) name: String,
    /// the process
    pub(crate) process: Process,
}

impl Vm {
    /// Whether `--vm` selects it by this word: its name, or a label of its manager's as LABEL=VALUE.
    pub(crate) fn is_called(&self, word: &str) -> bool {
        let has = |(key, value): (&str, &str)| {
            let labels = labels::labels(&self.process, &LabelRules::default());
            // UUIDs are written in either case.
            labels.get(key).is_some_and(|known| known == value || key == "uuid" && known.eq_ignore_ascii_case(value))
        };
        self.name == word || word.split_once('=').filter(|(key, _)| KEYS.contains(key)).is_some_and(has)
    }
}

/// The VMs that were found, and whether there may be others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Running {
    /// by process id
    pub(crate) vms: Vec<Vm>,
    /// why other processes may run VMs, too, with the fix; none where all could be looked at
    pub(crate) unseen: Option<String>,
}

/// The processes below `proc`, the root of procfs, that have a VM open. Those that end meanwhile are left out, and those that only hold a
/// VM of an ancestor's, as the device processes of crosvm do.
pub(crate) fn find_vms(proc: &Path) -> Running {
    among(proc, &OpenFiles::read(proc))
}

/// Words that name the running VMs: their names, or process ids where a shell would see more in the name than a word, since whoever starts
/// a VM chooses its name.
pub(crate) fn words(proc: &Path) -> Vec<String> {
    find_vms(proc).vms.iter().map(|vm| word(&vm.name, vm.process.tgid)).collect()
}

fn word(name: &str, tgid: u32) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:@+-".contains(c);
    let is_word = !name.is_empty() && !name.starts_with('-') && name.chars().all(is_plain);
    if is_word { name.into() } else { tgid.to_string() }
}

/// [`find_vms`] among files that were read already.
pub(super) fn among(proc: &Path, files: &OpenFiles) -> Running {
    let with_vm = files.by_process.iter().filter(|(_, open)| !open.vms.is_empty());
    let holder = |process, fds: &[u32]| Holder { process, fds: fds.to_vec() };
    let holders: BTreeMap<_, _> =
        with_vm.filter_map(|(&tgid, open)| Some((tgid, holder(read_process(proc, tgid).ok()?, &open.vms)))).collect();
    let owns = |holder: &&Holder| {
        !ancestors(proc, &holder.process).any(|id| holders.get(&id).is_some_and(|a| holder.inherits(a)))
    };
    let vms = holders.values().filter(owns).map(|h| Vm { name: h.process.name(), process: h.process.clone() });
    Running { vms: vms.collect(), unseen: unseen(proc, files) }
}

/// A process with open VMs.
struct Holder {
    process: Process,
    /// its descriptors of VMs
    fds: Vec<u32>,
}

impl Holder {
    /// Whether each of its VMs is one of the ancestor's. Where the kernel cannot compare descriptors, it is taken to be. More than a few VMs
    /// are taken to be its own.
    fn inherits(&self, ancestor: &Holder) -> bool {
        let pids = (self.process.tgid, ancestor.process.tgid);
        self.fds.len() <= MOST_VMS
            && self.fds.iter().all(|&fd| {
                ancestor.fds.iter().any(|&of_ancestor| is_same_file(pids, (fd, of_ancestor)).unwrap_or(true))
            })
    }
}

/// Whether two descriptors of two processes are of one open file: kcmp(2). None where the kernel does not say.
fn is_same_file((a, b): (u32, u32), (fd_a, fd_b): (u32, u32)) -> Option<bool> {
    const KCMP_FILE: u32 = 0;
    // SAFETY: kcmp takes five integers and no address.
    let order =
        unsafe { libc::syscall(libc::SYS_kcmp, a, b, KCMP_FILE, libc::c_ulong::from(fd_a), libc::c_ulong::from(fd_b)) };
    (order >= 0).then_some(order == 0)
}

/// Process ids of the parent, its parent, and so on.
fn ancestors<'a>(proc: &'a Path, process: &Process) -> impl Iterator<Item = u32> + 'a {
    let parent_of = |id: &u32| process::parent(proc, *id);
    std::iter::successors(Some(process.parent), parent_of).take_while(|&id| id > 1).take(MAX_ANCESTORS)
}

fn unseen(proc: &Path, files: &OpenFiles) -> Option<String> {
    // A kernel thread has no arguments, and no files.
    let is_program = |tgid: &&u32| read_process(proc, **tgid).is_ok_and(|process| !process.arguments.is_empty());
    let denied = files.denied.iter().filter(is_program).count();
    if denied > 0 {
        return Some(format!(
            "open files of {denied} processes may not be read, so that not all VMs are seen: run as root, or grant CAP_SYS_PTRACE"
        ));
    }
    // Process 1 is there in every PID namespace.
    if proc.join("self").exists() && !proc.join("1").exists() {
        return Some("/proc hides other users' processes (hidepid): run as root, or grant CAP_SYS_PTRACE".into());
    }
    files.cut()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::process::made_up::add;

    const VM_LINK: &str = "anon_inode:kvm-vm";

    fn found(proc: &Path) -> Vec<(String, u32)> {
        find_vms(proc).vms.into_iter().map(|vm| (vm.name, vm.process.tgid)).collect()
    }

    #[test]
    fn a_name_that_a_shell_would_run_is_no_word() {
        for plain in ["web1", "a.b-c_d:e@f+g"] {
            assert_eq!(word(plain, 7), plain);
        }
        for hostile in ["", "-o", "a b", "$(reboot)", "a;b", "`x`", "a\nb", "*", "\u{e4}", "'", "\u{202e}x"] {
            assert_eq!(word(hostile, 7), "7", "{hostile:?}");
        }
    }

    #[test]
    fn processes_with_an_open_vm_are_found_by_ascending_id() {
        let folder = tempfile::tempdir().unwrap();
        let proc = folder.path();
        add(proc, [500, 500, 1], b"qemu\0-name\0b\0", b"qemu", &["/dev/kvm", VM_LINK, "anon_inode:kvm-vcpu:0"]);
        add(proc, [60, 60, 1], b"qemu\0-name\0a\0", b"qemu", &[VM_LINK]);
        add(
            proc,
            [70, 70, 1],
            b"monitor\0",
            b"monitor",
            &["/dev/kvm", "/tmp/anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0"],
        );
        add(proc, [80, 80, 1], b"vmm\0", b"vm-\xc3", &[VM_LINK]);
        fs::create_dir(proc.join("sys")).unwrap();
        assert_eq!(found(proc), [("a".to_owned(), 60), ("vm-\u{fffd}".to_owned(), 80), ("b".to_owned(), 500)]);
        assert_eq!(find_vms(proc).unseen, None);
    }

    #[test]
    fn a_vm_is_called_by_its_name_or_by_a_label_of_its_managers() {
        let folder = tempfile::tempdir().unwrap();
        let proc = folder.path();
        let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        let cmdline = format!("qemu-system-x86_64\0-name\0guest=a=b\0-uuid\0{uuid}\0");
        add(proc, [60, 60, 1], cmdline.as_bytes(), b"qemu-system-x86", &[VM_LINK]);
        let vm = find_vms(proc).vms.remove(0);
        for word in ["a=b", &format!("uuid={uuid}"), &format!("uuid={}", uuid.to_uppercase())] {
            assert!(vm.is_called(word), "{word}");
        }
        for word in ["a", "uuid=", &uuid[..8], "uuid=6ba7b810", "vmid=60", "name=a=b", "pid=60"] {
            assert!(!vm.is_called(word), "{word}");
        }
    }

    #[test]
    fn without_proc_no_vm_is_found() {
        assert_eq!(find_vms(Path::new("/nonexistent")), Running::default());
    }

    #[test]
    fn what_may_not_be_looked_at_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let proc = folder.path();
        add(proc, [40, 40, 1], b"qemu\0", b"qemu", &[]);
        add(proc, [50, 50, 1], b"", b"kthreadd", &[]);
        let denied = OpenFiles { denied: vec![40, 50], ..OpenFiles::default() };
        assert!(unseen(proc, &denied).unwrap().contains("of 1 processes"), "and CAP_SYS_PTRACE");
        fs::create_dir(proc.join("self")).unwrap();
        assert!(unseen(proc, &OpenFiles::default()).unwrap().contains("hidepid"));
        fs::create_dir(proc.join("1")).unwrap();
        assert_eq!(unseen(proc, &OpenFiles::default()), None);
        assert!(
            unseen(proc, &OpenFiles { cut: vec![7, 8, 9], ..OpenFiles::default() }).unwrap().starts_with("3 processes")
        );
    }

    #[test]
    fn descriptors_of_one_open_file_are_recognised() {
        use std::os::fd::AsRawFd;
        let me = std::process::id();
        let (a, other) = (fs::File::open("/dev/null").unwrap(), fs::File::open("/dev/null").unwrap());
        let fd = |file: &fs::File| u32::try_from(file.as_raw_fd()).unwrap();
        let copy = a.try_clone().unwrap();
        let Some(same) = is_same_file((me, me), (fd(&a), fd(&copy))) else {
            eprintln!("SKIPPED: this kernel has no kcmp");
            return;
        };
        assert!(same);
        assert_eq!(is_same_file((me, me), (fd(&a), fd(&other))), Some(false));
    }

    #[test]
    fn a_process_that_only_holds_an_ancestors_vm_is_no_vm() {
        // Process ids that cannot exist: the kernel cannot compare their descriptors.
        let [main, device, jailed, other] = [5_000_001, 5_000_002, 5_000_003, 5_000_004];
        let folder = tempfile::tempdir().unwrap();
        let proc = folder.path();
        let cmdline = b"crosvm\0run\0--name\0web1\0";
        add(proc, [main, main, 1], cmdline, b"crosvm", &[VM_LINK]);
        add(proc, [device, device, main], cmdline, b"pcivirtio-block", &[VM_LINK]);
        add(proc, [jailed, jailed, device], cmdline, b"pcivirtio-net", &[VM_LINK]);
        add(proc, [other, other, 1], cmdline, b"crosvm", &[VM_LINK]);
        assert_eq!(found(proc), [("web1".to_owned(), main), ("web1".to_owned(), other)]);
    }
}
