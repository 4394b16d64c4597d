//! Names of VMs: by the cgroup that root's manager gave the process, else by a table of rules by VMM, over its command line and comm, which
//! the process itself chooses.

use crate::{
    host::{
        cgroup::{Unit, unit},
        options::{QEMU, guest_of_name_option, option, qemu_name},
        process::{Arguments, Process},
    },
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
    Rule { programs: &QEMU, name: qemu_name },
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
        let by_rule =
            RULES.iter().filter(|rule| self.runs(rule.programs)).filter_map(|rule| (rule.name)(&self.arguments));
        // The comm is the same for all VMs of a program.
        let own = by_rule.chain([self.comm.clone()]).find(|name| !name.trim().is_empty());
        let own = own.unwrap_or_else(|| "unnamed".into());
        let name = match unit(&self.cgroup) {
            Some(Unit::Libvirt(machine)) if !machine.may_be_of(&own) => machine.name,
            Some(Unit::Proxmox(number)) => number,
            _ => own,
        };
        output::name(name.trim()).into_owned()
    }
}

fn owned(value: Option<&str>) -> Option<String> {
    value.map(str::to_owned)
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
