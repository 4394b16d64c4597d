//! Names of virtual machines: what the process that runs one calls it, from its command line, cgroup or comm.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

/// Longest name, in characters; longer ones are cut.
const MAX_NAME: usize = 128;
/// What an open VM looks like in /proc/PID/fd.
const VM_LINK: &str = "anon_inode:kvm-vm";

/// Where the name of a virtual machine comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NameSource {
    /// `-name` or `--name` of QEMU, crosvm, kvmtool and others.
    NameOption,
    /// `--id` of Firecracker.
    FirecrackerId,
    /// The scope that libvirt makes for a machine.
    LibvirtScope,
    /// The process's comm, which machines of the same program share.
    Comm,
    /// Nothing is known but the process id: the process is gone or may not be read.
    Tgid,
}

/// A process, as far as it is needed to name and to recognise it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Process id (thread group id).
    pub tgid: u32,
    /// When it started, in clock ticks (USER_HZ) since boot. With `tgid` it tells a process from a later one.
    pub start_time_ticks: u64,
    /// Its comm: at most 15 bytes, without the newline.
    pub comm: String,
    /// Its arguments, the program first; empty for kernel threads.
    pub cmdline: Vec<String>,
    /// /proc/PID/cgroup as it is; empty where it cannot be read.
    pub cgroup: String,
}

/// A process that runs one or more virtual machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// The machine's name; not unique.
    pub name: String,
    /// Where the name comes from.
    pub source: NameSource,
    /// The process.
    pub process: Process,
}

/// The name of the machine that a process with these properties runs: never empty, without control characters.
pub fn name_from(cmdline: &[String], cgroup: &str, comm: &str) -> (String, NameSource) {
    let firecracker_id = || is_firecracker(cmdline, comm).then(|| option(cmdline, &["--id"]))?.map(str::to_owned);
    let candidates = [
        (option(cmdline, &["-name", "--name"]).and_then(guest_of_name_option), NameSource::NameOption),
        (firecracker_id(), NameSource::FirecrackerId),
        (libvirt_machine(cgroup), NameSource::LibvirtScope),
        (Some(comm.to_owned()), NameSource::Comm),
    ];
    candidates
        .into_iter()
        .filter_map(|(name, source)| Some((clean(&name?), source)))
        .find(|(name, _)| !name.is_empty())
        .unwrap_or_else(|| ("unnamed".into(), NameSource::Comm))
}

/// Reads a process below `proc_root`, usually /proc. `tgid` may be any of its threads' ids.
pub fn read_process(proc_root: &Path, tgid: u32) -> io::Result<Process> {
    let status = fs::read_to_string(proc_root.join(tgid.to_string()).join("status"))?;
    let tgid = tgid_of_status(&status).ok_or_else(|| invalid("status without Tgid"))?;
    let dir = proc_root.join(tgid.to_string());
    // The program can put any bytes into comm and arguments.
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

/// The name of the machine that a process runs, for any id of a process or thread.
pub fn name_of(tgid: u32) -> (String, NameSource) {
    name_below(Path::new("/proc"), tgid)
}

/// The processes below `proc_root`, usually /proc, that have a virtual machine open, by process id.
///
/// Those whose descriptors may not be read, or that end meanwhile, are left out: without privileges that is all of other
/// users' machines.
pub fn find_vms(proc_root: &Path) -> Vec<Vm> {
    let entries = fs::read_dir(proc_root).into_iter().flatten().flatten();
    let tgids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut vms: Vec<_> = tgids
        .filter(|tgid: &u32| has_vm_open(&proc_root.join(tgid.to_string())))
        .filter_map(|tgid| {
            let process = read_process(proc_root, tgid).ok()?;
            let (name, source) = process.name();
            Some(Vm { name, source, process })
        })
        .collect();
    vms.sort_by_key(|vm| vm.process.tgid);
    vms
}

impl Process {
    /// The name of the machine that it runs.
    pub fn name(&self) -> (String, NameSource) {
        name_from(&self.cmdline, &self.cgroup, &self.comm)
    }
}

fn name_below(proc_root: &Path, tgid: u32) -> (String, NameSource) {
    match read_process(proc_root, tgid) {
        Ok(process) => process.name(),
        Err(_) => (format!("tgid {tgid}"), NameSource::Tgid),
    }
}

fn has_vm_open(process: &Path) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    descriptors.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == Path::new(VM_LINK)))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
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

/// The value of the last of these options: the next argument, or what follows `=` in the same one.
fn option<'a>(cmdline: &'a [String], names: &[&str]) -> Option<&'a str> {
    let arguments = cmdline.get(1..)?;
    arguments.iter().enumerate().rev().find_map(|(i, argument)| {
        names.iter().find_map(|name| match argument.strip_prefix(name)? {
            "" => arguments.get(i + 1).map(String::as_str),
            rest => rest.strip_prefix('='),
        })
    })
}

/// The guest's name in QEMU's `-name`: `web1`, `web1,debug-threads=on` or `debug-threads=on,guest=web1`, where two commas
/// stand for one that belongs to the name.
fn guest_of_name_option(value: &str) -> Option<String> {
    // A control character, which no name keeps, holds the place of a doubled comma while the rest is split.
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

/// The machine in a cgroup of libvirt: `machine-qemu\x2d1\x2dweb1.scope` means the machine `web1`, whose running id is 1.
fn libvirt_machine(cgroup: &str) -> Option<String> {
    let parts = cgroup.lines().flat_map(|line| line.split('/'));
    parts.filter_map(|part| part.strip_prefix("machine-")?.strip_suffix(".scope")).find_map(|unit| {
        // The driver's name (for users' own sessions more) comes before the id.
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

/// A name fit for a terminal, a table and a label.
fn clean(name: &str) -> String {
    let printable = name.trim().chars().filter(|c| !c.is_control());
    printable.take(MAX_NAME).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn arguments(cmdline: &[&str]) -> Vec<String> {
        cmdline.iter().map(|&argument| argument.to_owned()).collect()
    }

    fn name(cmdline: &[&str], cgroup: &str, comm: &str) -> (String, NameSource) {
        name_from(&arguments(cmdline), cgroup, comm)
    }

    fn qemu_name(value: &str) -> String {
        name(&["/usr/bin/qemu-system-x86_64", "-name", value, "-m", "512"], "", "qemu-system-x86").0
    }

    #[test]
    fn qemu_machines_are_called_as_their_name_option_says() {
        assert_eq!(qemu_name("web1"), "web1");
        assert_eq!(qemu_name("guest=web1,debug-threads=on"), "web1");
        assert_eq!(qemu_name("debug-threads=on,guest=web1"), "web1");
        assert_eq!(qemu_name("web1,process=qemu-web1"), "web1");
        assert_eq!(qemu_name("guest=a,,b=c,debug-threads=on"), "a,b=c");
        for argument in ["-name=web2", "--name=web2", "-name=guest=web2"] {
            assert_eq!(name(&["qemu", argument], "", "x"), ("web2".into(), NameSource::NameOption));
        }
    }

    #[test]
    fn a_name_option_without_a_guest_falls_back_to_the_comm() {
        let fallen_back = ("qemu".to_owned(), NameSource::Comm);
        assert_eq!(name(&["qemu", "-name", "debug-threads=on"], "", "qemu"), fallen_back);
        assert_eq!(name(&["qemu", "-name"], "", "qemu"), fallen_back);
        assert_eq!(name(&["qemu", "-namespace", "x"], "", "qemu"), fallen_back);
        assert_eq!(name(&["-name", "x"], "", "qemu"), fallen_back, "the program is no option");
    }

    #[test]
    fn the_last_name_option_counts() {
        assert_eq!(name(&["qemu", "-name", "a", "-name", "b"], "", "x").0, "b");
    }

    #[test]
    fn only_firecracker_is_named_by_id() {
        let id = ("vm-7".to_owned(), NameSource::FirecrackerId);
        assert_eq!(name(&["/firecracker", "--id", "vm-7"], "", "fc_api"), id);
        assert_eq!(name(&["./fc", "--id=vm-7"], "", "firecracker"), id);
        assert_eq!(name(&["./other", "--id", "vm-7"], "", "other").1, NameSource::Comm);
    }

    #[test]
    fn libvirt_machines_are_named_by_their_scope_without_driver_and_id() {
        let in_scope = |scope: &str| {
            let cgroup = format!("0::/machine.slice/{scope}/libvirt/emulator\n");
            name(&["qemu"], &cgroup, "qemu")
        };
        let scope = |name: &str| (name.to_owned(), NameSource::LibvirtScope);
        assert_eq!(in_scope(r"machine-qemu\x2d1\x2dweb1.scope"), scope("web1"));
        assert_eq!(in_scope(r"machine-qemu\x2d12\x2dweb\x2d1\x2da.scope"), scope("web-1-a"));
        assert_eq!(in_scope(r"machine-alice\x2dqemu\x2d3\x2ddb.scope"), scope("db"));
        assert_eq!(in_scope("machine-container.scope").1, NameSource::Comm);
        assert_eq!(in_scope(r"machine-qemu\x2d1.scope").1, NameSource::Comm);
    }

    #[test]
    fn a_scope_is_found_in_any_line_of_cgroup_version_1() {
        let cgroup = "12:cpu:/\n3:memory:/machine.slice/machine-qemu\\x2d2\\x2ddb.scope\n";
        assert_eq!(name(&[], cgroup, "qemu").0, "db");
    }

    #[test]
    fn broken_escapes_are_left_as_they_are() {
        assert_eq!(unescape_unit(r"a\x2db\x2"), r"a-b\x2");
        assert_eq!(unescape_unit(r"\xzz\x41"), r"\xzzA");
        assert_eq!(unescape_unit("\\x\u{e4}"), "\\x\u{e4}");
    }

    #[test]
    fn names_have_no_control_characters_and_an_end() {
        assert_eq!(qemu_name("we\x1b[31mb\n1"), "we[31mb1");
        assert_eq!(qemu_name(&"\u{e4}".repeat(500)).chars().count(), 128);
        assert_eq!(name(&["qemu", "-name", "\x07 \n"], "", "qemu"), ("qemu".into(), NameSource::Comm));
        assert_eq!(name(&[], "", "").0, "unnamed");
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
        assert_eq!(process.name().0, "web1");
    }

    #[test]
    fn a_thread_leads_to_its_process() {
        let proc = Proc::new();
        proc.add(40, 40, "qemu\0-name\0web1\0", &[]);
        proc.add(43, 40, "", &[]);
        assert_eq!(read_process(&proc.0, 43).unwrap(), read_process(&proc.0, 40).unwrap());
        assert_eq!(name_below(&proc.0, 43).0, "web1");
    }

    #[test]
    fn a_process_that_is_gone_is_named_by_its_id() {
        let proc = Proc::new();
        assert_eq!(name_below(&proc.0, 40), ("tgid 40".into(), NameSource::Tgid));
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
    fn no_proc_has_no_machines() {
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
        assert_ne!(name_of(this.tgid).1, NameSource::Tgid);
    }
}
