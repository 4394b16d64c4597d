//! Names of VMs, from the command line, cgroup or comm of the process that runs them.

use std::{fs, io, path::Path};

/// Longest name, in characters; longer ones are cut.
const MAX_NAME: usize = 128;
/// Target of the link of an open VM in /proc/PID/fd.
const VM_LINK: &str = "anon_inode:kvm-vm";

/// The properties of a process by which it is named and recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// process id (thread group id)
    pub(crate) tgid: u32,
    /// start in clock ticks (USER_HZ) since boot; with `tgid` it distinguishes a process from a later one
    pub(crate) start_time_ticks: u64,
    /// comm: at most 15 bytes, without the newline
    pub(crate) comm: String,
    /// arguments, the program first; empty for kernel threads
    pub(crate) cmdline: Vec<String>,
    /// contents of /proc/PID/cgroup; empty where it cannot be read
    pub(crate) cgroup: String,
}

/// A process that runs one or more VMs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vm {
    /// the VM's name; not unique
    pub(crate) name: String,
    /// the process
    pub(crate) process: Process,
}

/// The name of the VM that a process with these properties runs: never empty, without control characters.
fn name_from(cmdline: &[String], cgroup: &str, comm: &str) -> String {
    let firecracker_id = || is_firecracker(cmdline, comm).then(|| option(cmdline, &["--id"]))?.map(str::to_owned);
    let candidates = [
        // QEMU, crosvm, kvmtool and others
        option(cmdline, &["-name", "--name"]).and_then(guest_of_name_option),
        firecracker_id(),
        libvirt_vm(cgroup),
        // the same for all VMs of a program
        Some(comm.to_owned()),
    ];
    let names = candidates.into_iter().flatten().map(|name| clean(&name));
    names.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| "unnamed".into())
}

/// Reads a process below `proc`, the root of procfs. `tgid` may be the id of any of its threads.
pub(crate) fn read_process(proc: &Path, tgid: u32) -> io::Result<Process> {
    let status = fs::read_to_string(proc.join(tgid.to_string()).join("status"))?;
    let tgid = tgid_of_status(&status).ok_or_else(|| invalid("status without Tgid"))?;
    let dir = proc.join(tgid.to_string());
    // A program can put any bytes into its comm and arguments.
    let read = |file| Ok::<_, io::Error>(String::from_utf8_lossy(&fs::read(dir.join(file))?).into_owned());
    let stat = read("stat")?;
    let start_time_ticks = start_time_of_stat(&stat).ok_or_else(|| invalid("stat without start time"))?;
    Ok(Process {
        tgid,
        start_time_ticks,
        comm: read("comm")?.trim_end_matches('\n').to_owned(),
        cmdline: split_cmdline(&read("cmdline")?),
        cgroup: read("cgroup").unwrap_or_default(),
    })
}

/// The processes below `proc`, the root of procfs, that have a VM open, by process id.
///
/// Processes whose descriptors may not be read, or that end meanwhile, are left out: without privileges, all of other users.
pub(crate) fn find_vms(proc: &Path) -> Vec<Vm> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let tgids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut vms: Vec<_> = tgids
        .filter(|tgid: &u32| has_vm_open(&proc.join(tgid.to_string())))
        .filter_map(|tgid| {
            let process = read_process(proc, tgid).ok()?;
            Some(Vm { name: process.name(), process })
        })
        .collect();
    vms.sort_by_key(|vm| vm.process.tgid);
    vms
}

impl Process {
    /// The name of the VM that it runs.
    pub(crate) fn name(&self) -> String {
        name_from(&self.cmdline, &self.cgroup, &self.comm)
    }
}

fn has_vm_open(process: &Path) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    descriptors.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == Path::new(VM_LINK)))
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn tgid_of_status(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// Field 22 of /proc/PID/stat. Field 2 is the comm in parentheses, which may hold spaces and parentheses itself.
fn start_time_of_stat(stat: &str) -> Option<u64> {
    let (_, from_field_3) = stat.rsplit_once(')')?;
    from_field_3.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

fn split_cmdline(cmdline: &str) -> Vec<String> {
    let arguments = cmdline.strip_suffix('\0').unwrap_or(cmdline);
    if arguments.is_empty() { Vec::new() } else { arguments.split('\0').map(str::to_owned).collect() }
}

/// The value of the last of these options: the next argument, or the text after `=` in the same one.
fn option<'a>(cmdline: &'a [String], names: &[&str]) -> Option<&'a str> {
    let arguments = cmdline.get(1..)?;
    arguments.iter().enumerate().rev().find_map(|(i, argument)| {
        names.iter().find_map(|name| match argument.strip_prefix(name)? {
            "" => arguments.get(i + 1).map(String::as_str),
            rest => rest.strip_prefix('='),
        })
    })
}

/// The guest's name in QEMU's `-name`: `web1`, `web1,debug-threads=on` or `debug-threads=on,guest=web1`. Two commas stand for one
/// that belongs to the name.
fn guest_of_name_option(value: &str) -> Option<String> {
    // A control character stands for a doubled comma while the rest is split; `clean` would remove it from a name anyway.
    let value = value.replace(",,", "\0");
    let mut properties = value.split(',').enumerate();
    let guest = properties.find_map(|(i, property)| match property.split_once('=') {
        Some(("guest", name)) => Some(name),
        None if i == 0 => Some(property),
        _ => None,
    })?;
    Some(guest.replace('\0', ","))
}

fn is_firecracker(cmdline: &[String], comm: &str) -> bool {
    let program = cmdline.first().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    program.starts_with("firecracker") || comm == "firecracker"
}

/// The VM in a cgroup of libvirt: `machine-qemu\x2d1\x2dweb1.scope` is VM `web1`, whose running id is 1.
fn libvirt_vm(cgroup: &str) -> Option<String> {
    let parts = cgroup.lines().flat_map(|line| line.split('/'));
    parts.filter_map(|part| part.strip_prefix("machine-")?.strip_suffix(".scope")).find_map(|unit| {
        // The driver's name comes before the id; with the user's name before it in a user's own session.
        let machine = unescape_unit(unit);
        let mut words = machine.split('-');
        words.next()?;
        words.find(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()))?;
        let name: Vec<_> = words.collect();
        (!name.is_empty()).then(|| name.join("-"))
    })
}

/// Undoes systemd's escaping of unit names: `\x2d` is a hyphen.
fn unescape_unit(unit: &str) -> String {
    let mut bytes = Vec::with_capacity(unit.len());
    let mut rest = unit;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend(before.bytes());
        let byte = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        rest = match byte {
            Some(byte) => {
                bytes.push(byte);
                &after[2..]
            }
            None => {
                bytes.extend(b"\\x");
                after
            }
        };
    }
    bytes.extend(rest.bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The name without control characters and cut to [`MAX_NAME`]: fit for a terminal, a table and a label.
fn clean(name: &str) -> String {
    let printable = name.trim().chars().filter(|c| !c.is_control());
    printable.take(MAX_NAME).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::symlink,
        path::PathBuf,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::*;

    fn arguments(cmdline: &[&str]) -> Vec<String> {
        cmdline.iter().map(|&argument| argument.to_owned()).collect()
    }

    fn name(cmdline: &[&str], cgroup: &str, comm: &str) -> String {
        name_from(&arguments(cmdline), cgroup, comm)
    }

    fn qemu_name(value: &str) -> String {
        name(&["/usr/bin/qemu-system-x86_64", "-name", value, "-m", "512"], "", "qemu-system-x86")
    }

    #[test]
    fn qemu_vms_are_named_by_their_name_option() {
        assert_eq!(qemu_name("web1"), "web1");
        assert_eq!(qemu_name("guest=web1,debug-threads=on"), "web1");
        assert_eq!(qemu_name("debug-threads=on,guest=web1"), "web1");
        assert_eq!(qemu_name("web1,process=qemu-web1"), "web1");
        assert_eq!(qemu_name("guest=a,,b=c,debug-threads=on"), "a,b=c");
        for argument in ["-name=web2", "--name=web2", "-name=guest=web2"] {
            assert_eq!(name(&["qemu", argument], "", "x"), "web2");
        }
    }

    #[test]
    fn a_name_option_without_a_guest_falls_back_to_the_comm() {
        let fallen_back = "qemu";
        assert_eq!(name(&["qemu", "-name", "debug-threads=on"], "", "qemu"), fallen_back);
        assert_eq!(name(&["qemu", "-name"], "", "qemu"), fallen_back);
        assert_eq!(name(&["qemu", "-namespace", "x"], "", "qemu"), fallen_back);
        assert_eq!(name(&["-name", "x"], "", "qemu"), fallen_back, "the program is no option");
    }

    #[test]
    fn the_last_name_option_counts() {
        assert_eq!(name(&["qemu", "-name", "a", "-name", "b"], "", "x"), "b");
    }

    #[test]
    fn only_firecracker_is_named_by_id() {
        let id = "vm-7";
        assert_eq!(name(&["/firecracker", "--id", "vm-7"], "", "fc_api"), id);
        assert_eq!(name(&["./fc", "--id=vm-7"], "", "firecracker"), id);
        assert_eq!(name(&["./other", "--id", "vm-7"], "", "other"), "other");
    }

    #[test]
    fn libvirt_vms_are_named_by_their_scope_without_driver_and_id() {
        let in_scope = |scope: &str| {
            let cgroup = format!("0::/machine.slice/{scope}/libvirt/emulator\n");
            name(&["qemu"], &cgroup, "qemu")
        };
        assert_eq!(in_scope(r"machine-qemu\x2d1\x2dweb1.scope"), "web1");
        assert_eq!(in_scope(r"machine-qemu\x2d12\x2dweb\x2d1\x2da.scope"), "web-1-a");
        assert_eq!(in_scope(r"machine-alice\x2dqemu\x2d3\x2ddb.scope"), "db");
        assert_eq!(in_scope("machine-container.scope"), "qemu");
        assert_eq!(in_scope(r"machine-qemu\x2d1.scope"), "qemu");
    }

    #[test]
    fn a_scope_is_found_in_any_line_of_cgroup_version_1() {
        let cgroup = "12:cpu:/\n3:memory:/machine.slice/machine-qemu\\x2d2\\x2ddb.scope\n";
        assert_eq!(name(&[], cgroup, "qemu"), "db");
    }

    #[test]
    fn broken_escapes_are_left_as_they_are() {
        assert_eq!(unescape_unit(r"a\x2db\x2"), r"a-b\x2");
        assert_eq!(unescape_unit(r"\xzz\x41"), r"\xzzA");
        assert_eq!(unescape_unit("\\x\u{e4}"), "\\x\u{e4}");
    }

    #[test]
    fn names_have_no_control_characters_and_a_longest_length() {
        assert_eq!(qemu_name("we\x1b[31mb\n1"), "we[31mb1");
        assert_eq!(qemu_name(&"\u{e4}".repeat(500)).chars().count(), 128);
        assert_eq!(name(&["qemu", "-name", "\x07 \n"], "", "qemu"), "qemu");
        assert_eq!(name(&[], "", ""), "unnamed");
    }

    /// A made-up /proc, removed at the end.
    struct Proc(PathBuf);

    impl Proc {
        fn new() -> Self {
            static NUMBER: AtomicU32 = AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let root = std::env::temp_dir().join(format!("vmentry-proc-{}-{number}", std::process::id()));
            fs::create_dir_all(&root).unwrap();
            Self(root)
        }

        fn add(&self, id: u32, tgid: u32, cmdline: &str, links: &[&str]) {
            let dir = self.0.join(id.to_string());
            fs::create_dir_all(dir.join("fd")).unwrap();
            fs::write(dir.join("status"), format!("Name:\tx\nTgid:\t{tgid}\nPid:\t{id}\n")).unwrap();
            let zeros = "0 ".repeat(18);
            fs::write(dir.join("stat"), format!("{id} (a) b) S {zeros}{} 0 0\n", 1000 + id)).unwrap();
            fs::write(dir.join("comm"), "a) b\n").unwrap();
            fs::write(dir.join("cmdline"), cmdline).unwrap();
            for (number, link) in links.iter().enumerate() {
                symlink(link, dir.join("fd").join(number.to_string())).unwrap();
            }
        }
    }

    impl Drop for Proc {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_process_is_read_with_its_start_time_whatever_its_comm() {
        let proc = Proc::new();
        proc.add(40, 40, "qemu\0-name\0web1\0\0", &[]);
        let process = read_process(&proc.0, 40).unwrap();
        assert_eq!(process.start_time_ticks, 1040);
        assert_eq!(process.comm, "a) b");
        assert_eq!(process.cmdline, ["qemu", "-name", "web1", ""]);
        assert_eq!(process.cgroup, "", "no cgroup file is no error");
        assert_eq!(process.name(), "web1");
    }

    #[test]
    fn a_thread_leads_to_its_process() {
        let proc = Proc::new();
        proc.add(40, 40, "qemu\0-name\0web1\0", &[]);
        proc.add(43, 40, "", &[]);
        assert_eq!(read_process(&proc.0, 43).unwrap(), read_process(&proc.0, 40).unwrap());
        assert_eq!(read_process(&proc.0, 43).unwrap().name(), "web1");
    }

    #[test]
    fn processes_with_an_open_vm_are_found_by_ascending_id() {
        let proc = Proc::new();
        proc.add(500, 500, "qemu\0-name\0b\0", &["/dev/kvm", VM_LINK, "anon_inode:kvm-vcpu:0"]);
        proc.add(60, 60, "qemu\0-name\0a\0", &[VM_LINK]);
        proc.add(70, 70, "monitor\0", &["/dev/kvm", "/tmp/anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0"]);
        fs::create_dir(proc.0.join("sys")).unwrap();
        let found: Vec<_> = find_vms(&proc.0).into_iter().map(|vm| (vm.name, vm.process.tgid)).collect();
        assert_eq!(found, [("a".to_owned(), 60), ("b".to_owned(), 500)]);
    }

    #[test]
    fn without_proc_no_vm_is_found() {
        assert_eq!(find_vms(Path::new("/nonexistent")), []);
    }

    #[test]
    fn kernel_threads_have_no_arguments() {
        assert_eq!(split_cmdline(""), Vec::<String>::new());
    }

    #[test]
    fn this_process_reads_itself() {
        let this = read_process(Path::new("/proc"), std::process::id()).unwrap();
        assert_eq!(this.tgid, std::process::id());
        assert!(this.start_time_ticks > 0);
    }
}
