//! Names of VMs: a table of rules by VMM, over the command line, cgroup and comm of the process that runs them.

use crate::host::process::{Arguments, Process, clean};

/// How a VMM's command line names its VM.
struct Rule {
    /// beginnings of the program's file name, or of its comm
    programs: &'static [&'static str],
    /// the name in these arguments, the program first
    name: fn(&Arguments) -> Option<String>,
}

/// The first rule whose program runs and whose name is there counts.
const RULES: &[Rule] = &[
    Rule { programs: &["qemu", "kvm"], name: qemu },
    // Kata Containers run one in the folder of each sandbox.
    Rule { programs: &["cloud-hypervisor"], name: |arguments| of_socket(option(arguments, &["--api-socket"])?) },
    Rule { programs: &["firecracker"], name: |arguments| owned(option(arguments, &["--id"])) },
    Rule {
        programs: &["VBoxHeadless", "VirtualBox"],
        name: |arguments| owned(option(arguments, &["--comment", "--startvm"])),
    },
    // `runsc boot OPTIONS SANDBOX`, with a descriptive program name.
    Rule {
        programs: &["runsc"],
        name: |arguments| owned(arguments.iter().find(|&a| a == "boot").and(arguments.last())),
    },
    // Kata Containers with a VMM inside of the shim.
    Rule { programs: &["containerd-shim-kata"], name: |arguments| owned(option(arguments, &["-id", "--id"])) },
    Rule { programs: &["lkvm", "kvmtool"], name: |arguments| owned(option(arguments, &["--name", "-n"])) },
    // crosvm, StratoVirt and others.
    Rule { programs: &[""], name: |arguments| option(arguments, &["--name", "-name"]).and_then(guest_of_name_option) },
];

impl Process {
    /// The name of the VM that it runs: never empty, without control characters, not unique.
    pub(crate) fn name(&self) -> String {
        let program = self.arguments.iter().next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let is_of = |rule: &&Rule| rule.programs.iter().any(|p| program.starts_with(p) || self.comm.starts_with(p));
        let by_rule = RULES.iter().filter(is_of).filter_map(|rule| (rule.name)(&self.arguments));
        // The comm is the same for all VMs of a program.
        let names = by_rule.chain(libvirt_vm(&self.cgroup)).chain([self.comm.clone()]);
        names.map(|name| clean(&name)).find(|name| !name.is_empty()).unwrap_or_else(|| "unnamed".into())
    }
}

fn owned(value: Option<&str>) -> Option<String> {
    value.map(str::to_owned)
}

/// The values of these options, the last first: the next argument, or the text after `=` in the same one.
fn values<'a>(arguments: &'a Arguments, names: &'static [&'static str]) -> impl Iterator<Item = &'a str> {
    let following = arguments.iter().skip(2).map(Some).chain([None]);
    let pairs: Vec<_> = arguments.iter().skip(1).zip(following).collect();
    pairs.into_iter().rev().filter_map(move |(argument, next)| {
        names.iter().find_map(|name| match argument.strip_prefix(name)? {
            "" => next,
            rest => rest.strip_prefix('='),
        })
    })
}

/// The last value of the first of these options that is there.
fn option<'a>(arguments: &'a Arguments, names: &'static [&'static str]) -> Option<&'a str> {
    names.chunks(1).find_map(|name| values(arguments, name).next())
}

/// QEMU merges its `-name` options; the last one with a guest names it.
fn qemu(arguments: &Arguments) -> Option<String> {
    values(arguments, &["-name", "--name"]).find_map(guest_of_name_option)
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

/// The name in a socket's path, `path=/run/web1.sock` or `/run/web1/api.sock`: of the file, or of its folder where VMMs and managers give
/// every VM's socket the same name.
fn of_socket(value: &str) -> Option<String> {
    const USUAL: [&str; 6] = ["api", "ch", "ch-api", "clh-api", "cloud-hypervisor", "socket"];
    let path = value.split(',').find_map(|part| match part.split_once('=') {
        Some(("path", path)) => Some(path),
        Some(_) => None,
        None => Some(part),
    })?;
    let mut parts = path.rsplit('/');
    let file = parts.next()?;
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    if USUAL.contains(&stem) { parts.next().map(str::to_owned) } else { Some(stem.to_owned()) }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn name(cmdline: &[&str], cgroup: &str, comm: &str) -> String {
        let arguments = Arguments::of_cmdline(cmdline.iter().flat_map(|a| [a, "\0"]).collect::<String>().as_bytes());
        Process {
            tgid: 1,
            parent: 1,
            uid: None,
            start_time_ticks: 0,
            comm: comm.into(),
            arguments,
            cgroup: cgroup.into(),
        }
        .name()
    }

    fn of_line(line: &str) -> String {
        name(&line.split(' ').collect::<Vec<_>>(), "", "comm")
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
    fn qemus_name_options_are_merged_and_the_last_guest_counts() {
        assert_eq!(of_line("qemu-kvm -name a -name debug-threads=on"), "a");
        assert_eq!(of_line("qemu-kvm -name debug-threads=on -name guest=a"), "a");
        assert_eq!(of_line("qemu-kvm -name a -name b"), "b");
    }

    #[test]
    fn each_vmm_names_its_vm_in_its_own_way() {
        for (line, expected) in [
            ("/usr/bin/cloud-hypervisor --api-socket /run/web1.sock --kernel x", "web1"),
            ("cloud-hypervisor --api-socket path=/run/web1/ch.sock --cpus boot=1", "web1"),
            ("cloud-hypervisor --api-socket=fd=3,path=/tmp/db.socket", "db"),
            ("/opt/kata/bin/cloud-hypervisor --api-socket /run/vc/vm/4f2a/clh-api.sock", "4f2a"),
            ("cloud-hypervisor --api-socket fd=3", "comm"),
            ("/usr/lib/virtualbox/VBoxHeadless --comment web1 --startvm 5e0c-uuid --vrde config", "web1"),
            ("/usr/lib/virtualbox/VirtualBoxVM --startvm 5e0c-uuid", "5e0c-uuid"),
            ("runsc-sandbox --root=/run/runsc --platform=kvm boot --bundle=/run/b --io-fds=5 4f2a", "4f2a"),
            ("runsc-gofer --root=/run/runsc gofer --bundle=/run/b", "comm"),
            ("/usr/bin/containerd-shim-kata-v2 -namespace k8s.io -id 4f2a -address x", "4f2a"),
            ("qemu-system-x86_64 -name sandbox-4f2a,debug-threads=on", "sandbox-4f2a"),
            ("lkvm run -n web1 -c 2", "web1"),
            ("/usr/bin/lkvm run --name web1", "web1"),
            ("/firecracker --id vm-7 --api-sock /run/x.sock", "vm-7"),
            ("./firecracker-v1.7 --id=vm-7", "vm-7"),
            ("crosvm run --name web1 bzImage", "web1"),
            ("stratovirt -name web1 -machine microvm", "web1"),
        ] {
            assert_eq!(of_line(line), expected, "{line}");
        }
    }

    #[test]
    fn options_of_one_vmm_are_none_of_another() {
        assert_eq!(of_line("./other --id vm-7"), "comm");
        assert_eq!(of_line("./other -n vm-7"), "comm");
        assert_eq!(of_line("./other --comment vm-7"), "comm");
        assert_eq!(name(&["./fc", "--id=vm-7"], "", "firecracker"), "vm-7", "by its comm");
    }

    #[test]
    fn a_name_option_without_a_guest_falls_back_to_the_comm() {
        assert_eq!(name(&["qemu", "-name", "debug-threads=on"], "", "qemu"), "qemu");
        assert_eq!(name(&["qemu", "-name"], "", "qemu"), "qemu");
        assert_eq!(name(&["qemu", "-namespace", "x"], "", "qemu"), "qemu");
        assert_eq!(name(&["-name", "x"], "", "qemu"), "qemu", "the program is no option");
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
        assert_eq!(qemu_name(&"\u{e4}".repeat(500)), "\u{e4}".repeat(128));
        assert_eq!(qemu_name(&"\u{20ac}".repeat(500)), "\u{20ac}".repeat(85), "within 256 bytes");
        assert_eq!(name(&["qemu", "-name", "\x07 \n"], "", "qemu"), "qemu");
        assert_eq!(name(&[], "", ""), "unnamed");
    }
}
