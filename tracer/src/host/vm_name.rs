//! Names of VMs: by the cgroup that root's manager gave the process, else by a table of rules by VMM, over its command line and comm, which
//! the process itself chooses.

use crate::{
    host::process::{Arguments, Process},
    output,
};

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
    /// The name of the VM that it runs: never empty, printable, not unique.
    pub(crate) fn name(&self) -> String {
        let program = self.arguments.iter().next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        let is_of = |rule: &&Rule| rule.programs.iter().any(|p| program.starts_with(p) || self.comm.starts_with(p));
        let by_rule = RULES.iter().filter(is_of).filter_map(|rule| (rule.name)(&self.arguments));
        // The comm is the same for all VMs of a program.
        let own = by_rule.chain([self.comm.clone()]).find(|name| !name.trim().is_empty());
        let own = own.unwrap_or_else(|| "unnamed".into());
        let name = match of_cgroup(&self.cgroup) {
            Some(unit) if !unit.may_be_of(&own) => unit.name,
            _ => own,
        };
        output::name(name.trim()).into_owned()
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

/// QEMU merges its `-name` options; the last guest in them names the VM.
fn qemu(arguments: &Arguments) -> Option<String> {
    values(arguments, &["-name", "--name"]).find_map(guest_of_name_option)
}

/// The last guest in QEMU's `-name`: `web1`, `web1,debug-threads=on` or `debug-threads=on,guest=web1`. Two commas stand for one that belongs
/// to the name. None in an empty one, but an empty name in `guest=`.
fn guest_of_name_option(value: &str) -> Option<String> {
    // NUL, which no argument has, stands for a doubled comma while the rest is split.
    let value = value.replace(",,", "\0");
    let properties = value.split(',').enumerate();
    let guests = properties.filter_map(|(i, property)| match property.split_once('=') {
        Some(("guest", name)) => Some(name),
        None if i == 0 && !property.is_empty() => Some(property),
        _ => None,
    });
    Some(guests.last()?.replace('\0', ","))
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

/// Characters of a machine's name, with libvirt's driver and the VM's id, at most.
const MACHINE_NAME: usize = 64;

/// A VM's name in its cgroup.
struct UnitName {
    name: String,
    /// characters that libvirt had for the name: 64, less those of its driver and the VM's id
    room: usize,
}

impl UnitName {
    /// Whether libvirt makes this of a VM's name: it leaves out all but ASCII letters, digits, and single dots and hyphens between them
    /// (virDomainDriverGenerateMachineName).
    fn may_be_of(&self, name: &str) -> bool {
        let mut made = String::new();
        let mut after_sign = true;
        for c in name.chars() {
            if made.len() >= self.room {
                break;
            }
            let is_sign = matches!(c, '.' | '-');
            if c.is_ascii_alphanumeric() || is_sign && !after_sign {
                made.push(c);
            }
            after_sign = is_sign;
        }
        made.trim_end_matches(['.', '-']) == self.name
    }
}

/// The name that a manager which runs as root gave the VM by its unit: the scope that is directly below the system's slice for VMs. Further
/// down, and below user.slice, users name cgroups as they like.
fn of_cgroup(cgroup: &str) -> Option<UnitName> {
    // "0::/machine.slice/machine-qemu\x2d1\x2dweb1.scope/libvirt/emulator", or a line for each controller of version 1.
    cgroup.lines().filter_map(|line| line.splitn(3, ':').nth(2)?.strip_prefix('/')).find_map(|path| {
        let mut units = path.split('/');
        match units.next()? {
            // libvirt's partitions are slices within it.
            "machine.slice" => {
                let unit = units.find(|unit| !(unit.starts_with("machine-") && unit.ends_with(".slice")))?;
                libvirt_vm(unit.strip_prefix("machine-")?.strip_suffix(".scope")?)
            }
            // Proxmox VE: the VM's number, by which its tools know it.
            "qemu.slice" => {
                let number = units.next()?.strip_suffix(".scope")?;
                let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
                is_number.then(|| UnitName { name: number.to_owned(), room: usize::MAX })
            }
            _ => None,
        }
    })
}

/// The VM in a scope of libvirt: `qemu\x2d1\x2dweb1` is VM `web1`, whose running id is 1.
fn libvirt_vm(scope: &str) -> Option<UnitName> {
    // The driver's name comes before the id; with the user's name before it in a user's own session.
    let machine = unescape_unit(scope);
    let mut words = machine.split('-');
    words.next()?;
    words.find(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()))?;
    let name: Vec<_> = words.collect();
    // Dots and hyphens at the end were left out.
    let name = name.join("-");
    let room = MACHINE_NAME.saturating_sub(machine.len() - name.len());
    (!name.is_empty()).then_some(UnitName { name, room })
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
        // As QEMU 7.2 answers query-name.
        assert_eq!(of_line("qemu-kvm -name guest=a,guest=b"), "b");
        assert_eq!(of_line("qemu-kvm -name a,guest=b"), "b");
        assert_eq!(name(&["qemu-kvm", "-name", "a", "-name", ""], "", "comm"), "a");
        assert_eq!(of_line("qemu-kvm -name a -name guest="), "comm");
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
    fn a_process_cannot_choose_another_name_than_roots_manager() {
        let claims = |cgroup: &str| name(&["qemu", "-name", "victim"], cgroup, "victim");
        for (cgroup, expected) in [
            (r"0::/machine.slice/machine-qemu\x2d1\x2dweb1.scope/libvirt/emulator", "web1"),
            (r"0::/machine.slice/machine-prod.slice/machine-qemu\x2d7\x2dweb1.scope", "web1"),
            ("0::/qemu.slice/100.scope", "100"),
            ("0::/qemu.slice/web1.scope", "victim"),
            // Managers that give no name: podman, kubevirt, a service.
            ("0::/machine.slice/libpod-4f2a.scope/container", "victim"),
            ("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-4f2a.scope", "victim"),
            ("0::/system.slice/vm@web1.service", "victim"),
        ] {
            assert_eq!(claims(cgroup), expected, "{cgroup}");
        }
    }

    #[test]
    fn characters_that_libvirt_leaves_out_of_a_scope_are_in_the_name() {
        let named = |guest: &str, scope: &str| {
            name(&["qemu", "-name", guest], &format!("0::/machine.slice/machine-{scope}.scope\n"), "qemu")
        };
        assert_eq!(named("guest=vm_web 1.ä,debug-threads=on", r"qemu\x2d1\x2dvmweb1"), "vm_web 1.ä");
        let long = "customer_production_database_server_in_frankfurt_number_0123456789";
        let cut = r"qemu\x2d1\x2dcustomerproductiondatabaseserverinfrankfurtnumber01234567";
        assert_eq!(named(long, cut), long);
        assert_eq!(named("customer_production", cut), "customerproductiondatabaseserverinfrankfurtnumber01234567");
        for claimed in ["web12", "web-1", "we.b1", "web1-x", "web"] {
            assert_eq!(named(claimed, r"qemu\x2d1\x2dweb1"), "web1");
        }
        assert_eq!(named("-web--1.", r"qemu\x2d1\x2dweb\x2d1"), "-web--1.");
    }

    #[test]
    fn cgroups_that_users_may_name_give_no_name() {
        let in_cgroup = |cgroup: &str| name(&["qemu", "-name", "own"], cgroup, "qemu");
        let scope = r"machine-qemu\x2d1\x2dvictim.scope";
        for folder in [
            "/user.slice/user-1000.slice/user@1000.service",
            "/user.slice/user-1000.slice/user@1000.service/machine.slice",
            "/machine.slice/libpod-4f2a.scope",
            "/machine.slice/libpod-4f2a.scope/machine.slice",
            "/machine.slice/machine-web.scope/payload",
            "/machine.slice/machine-a.slice/b.slice",
            "/lxc.payload.c1/machine.slice",
            // Of a PID of another cgroup namespace.
            "/../machine.slice",
            "",
        ] {
            assert_eq!(in_cgroup(&format!("0::{folder}/{scope}\n")), "own", "{folder}");
        }
        assert_eq!(in_cgroup("0::/machine.slice:/machine.slice\n1:name=a:b:/x\nmachine.slice\n"), "own");
    }

    #[test]
    fn broken_escapes_are_left_as_they_are() {
        assert_eq!(unescape_unit(r"a\x2db\x2"), r"a-b\x2");
        assert_eq!(unescape_unit(r"\xzz\x41"), r"\xzzA");
        assert_eq!(unescape_unit("\\x\u{e4}"), "\\x\u{e4}");
    }

    #[test]
    fn names_are_printable_and_have_a_longest_length() {
        let odd = qemu_name("we\x1b[31mb\n1\u{202e}");
        assert!(odd.starts_with("we\u{fffd}[31mb\u{fffd}1\u{fffd}~"), "{odd}");
        let long = qemu_name(&"\u{e4}".repeat(500));
        assert!(long.len() <= output::MAX_NAME && long.starts_with("\u{e4}\u{e4}"), "{long}");
        assert_ne!(long, qemu_name(&"\u{e4}".repeat(501)), "different names stay different");
        assert_eq!(name(&["qemu", "-name", " \n"], "", "qemu"), "qemu");
        assert_eq!(name(&[], "", ""), "unnamed");
    }
}
