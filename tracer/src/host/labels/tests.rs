//! Tests on command lines and cgroups of each manager as its project has them, trimmed.

use super::*;
use crate::host::process::Arguments;

/// A process with these arguments, between which a line ends, and this cgroup.
fn process(lines: &str, cgroup: &str) -> Process {
    let cmdline: String = lines.lines().map(|line| line.trim().to_owned() + "\0").collect();
    let arguments = Arguments::of_cmdline(cmdline.as_bytes());
    Process {
        tgid: 1,
        parent: 1,
        uid: None,
        start_time_ticks: 0,
        comm: "comm".into(),
        arguments,
        cgroup: cgroup.into(),
    }
}

/// The labels, as "key=value" in the order of the keys' table.
fn found(lines: &str, cgroup: &str) -> String {
    let labels = labels(&process(lines, cgroup), &LabelRules::default());
    let of = |key| Some(format!("{key}={}", labels.get(key)?));
    crate::model::vm_labels::KEYS.into_iter().filter_map(of).collect::<Vec<_>>().join(" ")
}

/// libvirt, tests/qemuxmlconfdata/smbios.x86_64-latest.args
const LIBVIRT: &str = "/usr/bin/qemu-system-x86_64
    -name
    guest=QEMUGuest1,debug-threads=on
    -S
    -object
    {\"qom-type\":\"secret\",\"id\":\"masterKey0\",\"format\":\"raw\",\"file\":\"/var/lib/libvirt/qemu/domain--1-QEMUGuest1/master-key.aes\"}
    -machine
    pc,usb=off,dump-guest-core=off,memory-backend=pc.ram,acpi=off
    -accel
    tcg
    -uuid
    c7a5fdbd-edaf-9455-926a-d65c16db1809
    -smbios
    type=0,vendor=LENOVO,version=6FET82WW (3.12 )
    -smbios
    type=1,manufacturer=Fedora,product=Virt-Manager,version=0.8.2-3.fc14,serial=32dfcb37-5af1-552b-357c-be8c3aa38310,uuid=c7a5fdbd-edaf-9455-926a-d65c16db1809,sku=1234567890,family=Red Hat
    -smbios
    type=2,manufacturer=Hewlett-Packard,product=0B4Ch,version=D,serial=CZC1065993
    -display
    none";
const LIBVIRT_SCOPE: &str = "0::/machine.slice/machine-qemu\\x2d1\\x2dQEMUGuest1.scope/libvirt/emulator\n";

#[test]
fn libvirts_scope_names_the_manager_and_the_command_line_the_uuid() {
    let uuid = "uuid=c7a5fdbd-edaf-9455-926a-d65c16db1809";
    assert_eq!(found(LIBVIRT, LIBVIRT_SCOPE), format!("manager=libvirt {uuid}"));
    let partition = "0::/machine.slice/machine-prod.slice/machine-qemu\\x2d7\\x2dweb1.scope\n";
    assert_eq!(found(LIBVIRT, partition), format!("manager=libvirt {uuid}"));
    // A user's own session, podman, and systemd-nspawn's machine of a name like libvirt's.
    for cgroup in [
        "0::/user.slice/user-1000.slice/user@1000.service/app.slice/x.scope\n",
        "0::/machine.slice/libpod-4f2a.scope/container\n",
        "0::/machine.slice/machine-web\\x2d1\\x2da.scope\n",
    ] {
        assert_eq!(found(LIBVIRT, cgroup), uuid, "{cgroup}");
        assert_eq!(found(OPENSTACK, cgroup), "uuid=30ad89ac-5906-49ca-8d52-3c6343c598f6", "{cgroup}");
    }
}

/// OpenStack: nova of 16.0.2-9.el7ost, as Red Hat's users print it with ps; the packages for Ubuntu write "OpenStack Nova".
const OPENSTACK: &str = "/usr/libexec/qemu-kvm
    -name
    guest=instance-00000042,debug-threads=on
    -S
    -object
    secret,id=masterKey0,format=raw,file=/var/lib/libvirt/qemu/domain-11-instance-00000042/master-key.aes
    -uuid
    30ad89ac-5906-49ca-8d52-3c6343c598f6
    -smbios
    type=1,manufacturer=Red Hat,product=OpenStack Compute,version=16.0.2-9.el7ost,serial=4c4c4544-004a-5310-804e-b9c04f504d32,uuid=30ad89ac-5906-49ca-8d52-3c6343c598f6,family=Virtual Machine";

#[test]
fn an_instance_of_openstack_is_named_by_libvirts_scope_and_told_by_its_product() {
    let cgroup = "0::/machine.slice/machine-qemu\\x2d11\\x2dinstance\\x2d00000042.scope/libvirt/emulator\n";
    let expected = "manager=openstack uuid=30ad89ac-5906-49ca-8d52-3c6343c598f6 instance=instance-00000042";
    assert_eq!(found(OPENSTACK, cgroup), expected);
    assert_eq!(found(&OPENSTACK.replace("OpenStack Compute", "OpenStack Nova"), cgroup), expected);
    let other = "0::/machine.slice/machine-qemu\\x2d11\\x2dinstance\\x2d00000007.scope\n";
    assert!(found(OPENSTACK, other).ends_with(" instance=instance-00000007"), "the scope's name counts");
    let version_1 =
        "11:cpuset:/machine.slice/machine-qemu\\x2d11\\x2dinstance\\x2d00000042.scope/emulator\n1:name=systemd:/\n";
    assert_eq!(found(OPENSTACK, version_1), expected);
}

/// KubeVirt's user guide, "Privileged debugging on the node".
const KUBEVIRT: &str = "/usr/libexec/qemu-kvm
    -name
    guest=default_vmi-ephemeral,debug-threads=on
    -S
    -object
    {\"qom-type\":\"secret\",\"id\":\"masterKey0\",\"format\":\"raw\",\"file\":\"/var/run/kubevirt-private/libvirt/qemu/lib/domain-1-default_vmi-ephemera/master-key.aes\"}
    -uuid
    b56f06f0-07e9-4fe5-8913-18a14e83a4d1
    -smbios
    type=1,manufacturer=KubeVirt,product=None,uuid=b56f06f0-07e9-4fe5-8913-18a14e83a4d1,family=KubeVirt
    -vnc
    vnc=unix:/var/run/kubevirt-private/3a8f7774-7ec7-4cfb-97ce-581db52ee053/virt-vnc,audiodev=audio1";

#[test]
fn a_vm_of_kubevirt_has_the_uid_of_its_pod_by_either_driver_of_cgroups() {
    let vm = "uuid=b56f06f0-07e9-4fe5-8913-18a14e83a4d1 namespace=default vmi=vmi-ephemeral";
    for (cgroup, uid) in [
        // Kubernetes, pkg/kubelet/cm: cgroup drivers systemd and cgroupfs; a guaranteed pod has no class.
        (
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0b7632a2_a56e_4278_987a_22de18008dbe.slice/\
             crio-0bc5eac79e3ae7a0c2651f14722aa10fa333eb2325c2ca97da33aa284cda81b0.scope/container\n",
            "0b7632a2-a56e-4278-987a-22de18008dbe",
        ),
        (
            "0::/kubepods.slice/kubepods-poddc430cd3_34b7_4ea6_be26_ddfd88d7ddff.slice/cri-containerd-8564.scope\n",
            "dc430cd3-34b7-4ea6-be26-ddfd88d7ddff",
        ),
        (
            "12:pids:/\n4:cpu,cpuacct:/kubepods/burstable/pod1c178021-5860-4495-a1ab-f9ac17877672/4f2a\n",
            "1c178021-5860-4495-a1ab-f9ac17877672",
        ),
        ("0::/kubepods/pod24356d87-3993-4e9a-8d3f-55207af763f9/4f2a", "24356d87-3993-4e9a-8d3f-55207af763f9"),
    ] {
        let (uuid, names) = vm.split_once(' ').unwrap();
        let expected = format!("manager=kubevirt {uuid} {names} pod_uid={uid}");
        assert_eq!(found(KUBEVIRT, cgroup), expected, "{cgroup}");
    }
}

#[test]
fn another_vm_in_a_pod_has_its_uid_alone() {
    let cgroup = "0::/kubepods/burstable/pod1c178021-5860-4495-a1ab-f9ac17877672/4f2a\n";
    let uid = "pod_uid=1c178021-5860-4495-a1ab-f9ac17877672";
    assert_eq!(found("qemu\n-name\nmy_vm", cgroup), uid, "no word of KubeVirt's");
    let no_underscore = KUBEVIRT.replace("default_vmi-ephemeral,", "web1,");
    assert!(found(&no_underscore, cgroup).ends_with(uid) && !found(&no_underscore, cgroup).contains("manager"));
    let hostile = KUBEVIRT.replace("default_vmi", "de\u{1b}fault_vmi");
    assert!(!found(&hostile, cgroup).contains("namespace"));
    assert_eq!(found("crosvm\nrun", "0::/kubepods/burstable/podx\u{202e}/4f2a"), "");
}

/// Kata Containers 2 on a node of Kubernetes, as ps prints it (kata-containers issue 4118).
const KATA: &str = "/opt/kata/bin/qemu-system-x86_64
    -name
    sandbox-39083257ece670d208aa2010c1d25d74490942858af1854c99c6f95c33b9d8d6
    -uuid
    fa535631-81c2-4962-a5ce-095aa5e5b7aa
    -machine
    q35,accel=kvm,kernel_irqchip=on,nvdimm=on
    -qmp
    unix:/run/vc/vm/39083257ece670d208aa2010c1d25d74490942858af1854c99c6f95c33b9d8d6/qmp.sock,server=on,wait=off";

#[test]
fn a_sandbox_of_kata_is_found_in_its_pod_or_in_katas_own_cgroup() {
    let id = "39083257ece670d208aa2010c1d25d74490942858af1854c99c6f95c33b9d8d6";
    let (uid, kata) =
        ("3a864680-ceaf-4acd-83fd-20a4d542b651", "manager=kata uuid=fa535631-81c2-4962-a5ce-095aa5e5b7aa");
    // kata-containers, docs/design/host-cgroups.md, issues 4128 and 11598, src/runtime-rs: gen_overhead_path.
    for cgroup in [
        format!("0::/kubepods/pod{uid}/kata_{id}\n"),
        format!("0::/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{id}.scope\n", uid.replace('-', "_")),
        format!("4:memory:/kubepods/besteffort/pod{uid}/{id}\n"),
    ] {
        assert_eq!(found(KATA, &cgroup), format!("{kata} pod_uid={uid} sandbox={id}"), "{cgroup}");
    }
    for cgroup in [
        format!("4:memory:/kata_overhead/{id}\n1:name=systemd:/system.slice/containerd.service\n"),
        format!("0::/kata-overhead.slice/runtime-rs-{id}.scope\n"),
        format!("11:memory:/kata/default/kata_{id}\n10:hugetlb:/\n"),
    ] {
        assert_eq!(found(KATA, &cgroup), format!("{kata} sandbox={id}"), "{cgroup}");
    }
    assert!(found(KATA, "0::/kubepods/pod3a86/kata_4f2a").ends_with("sandbox=4f2a"), "the cgroup counts");
}

#[test]
fn katas_other_vmms_are_told_by_their_sockets_and_the_shim() {
    let in_pod = |lines| found(lines, "0::/kubepods/pod3a86\n");
    let expected = "manager=kata pod_uid=3a86 sandbox=0a074afb4cc4";
    // kata-containers: kata-deploy with Cloud Hypervisor, runtime-rs, and Dragonball in the shim.
    assert_eq!(in_pod("/opt/kata/bin/cloud-hypervisor\n--api-socket\n/run/vc/vm/0a074afb4cc4/clh-api.sock"), expected);
    assert_eq!(in_pod("/opt/kata/bin/cloud-hypervisor\n--api-socket\n/run/kata/0a074afb4cc4/ch-api.sock"), expected);
    assert_eq!(in_pod("/opt/kata/bin/containerd-shim-kata-v2\n-namespace\nk8s.io\n-id\n0a074afb4cc4"), expected);
    assert_eq!(in_pod("/usr/bin/cloud-hypervisor\n--api-socket\n/run/x/0a074afb4cc4/ch-api.sock"), "pod_uid=3a86");
}

/// Proxmox VE, qemu-server: src/test/cfg2cmd/simple1.conf.cmd
const PROXMOX: &str = "/usr/bin/kvm
    -id
    8006
    -name
    simple
    -no-shutdown
    -chardev
    socket,id=qmp,path=/var/run/qemu-server/8006.qmp,server=on,wait=off
    -pidfile
    /var/run/qemu-server/8006.pid
    -daemonize
    -smbios
    type=1,uuid=7b10d7af-b932-4c66-b2c3-3996152ec465
    -smp
    3,sockets=1,cores=3,maxcpus=3";

#[test]
fn the_scope_of_proxmox_has_the_number_of_the_vm() {
    let uuid = "uuid=7b10d7af-b932-4c66-b2c3-3996152ec465";
    assert_eq!(found(PROXMOX, "0::/qemu.slice/8006.scope\n"), format!("manager=proxmox {uuid} vmid=8006"));
    assert_eq!(found(PROXMOX, "0::/qemu.slice/101.scope\n"), format!("manager=proxmox {uuid} vmid=101"));
    assert_eq!(found(PROXMOX, "0::/qemu.slice/web1.scope\n"), uuid);
}

/// Firecracker, docs/jailer.md
const FIRECRACKER: &str = "./firecracker
    --id=551e7604-e35c-42b3-b825-416853441234
    --start-time-us=1743
    --start-time-cpu-us=912";

#[test]
fn a_jail_is_found_by_its_cgroup_else_without_a_manager_by_what_the_jailer_hands_over() {
    let jail = "jail=551e7604-e35c-42b3-b825-416853441234";
    let of_cgroup = format!("manager=firecracker-jailer {jail}");
    for cgroup in [
        "4:cpuset:/firecracker/551e7604-e35c-42b3-b825-416853441234\n1:name=systemd:/\n",
        "0::/firecracker-v1.12.0-x86_64/551e7604-e35c-42b3-b825-416853441234",
    ] {
        assert_eq!(found(FIRECRACKER, cgroup), of_cgroup, "{cgroup}");
    }
    // src/jailer/src/env.rs of today hands over the values as arguments of their own.
    let today = "/firecracker\n--id\n551e7604-e35c-42b3-b825-416853441234\n--start-time-us\n1743";
    for cgroup in ["0::/all_uvms/external_uvms/551e7604-e35c-42b3-b825-416853441234\n", "0::/\n", ""] {
        assert_eq!(found(FIRECRACKER, cgroup), jail, "{cgroup}");
        assert_eq!(found(today, cgroup), jail, "{cgroup}");
    }
    assert_eq!(found("./firecracker\n--id\n7\n--api-sock\n/tmp/x.sock", ""), "", "without the jailer");
    assert_eq!(found("./other\n--id\n7\n--start-time-us\n1", ""), "");
}

#[test]
fn a_process_that_says_what_a_managers_vm_says_gets_no_label_of_it_without_its_cgroup() {
    let user = "0::/user.slice/user-1000.slice/user@1000.service";
    for vm in [LIBVIRT, OPENSTACK, KUBEVIRT, KATA, PROXMOX] {
        let uuid = found(vm, "");
        assert!(uuid.starts_with("uuid=") && uuid.split(' ').count() == 1, "{uuid}");
        for below in [
            "/machine.slice/machine-qemu\\x2d1\\x2dvictim.scope",
            "/qemu.slice/101.scope",
            "/kubepods/pod3a86/kata_4f2a",
            "/kata_overhead/4f2a",
            "/firecracker/4f2a",
        ] {
            assert_eq!(found(vm, &format!("{user}{below}\n")), uuid, "{below}");
        }
    }
    // Nor in the cgroup of another manager.
    assert_eq!(
        found(KUBEVIRT, "0::/qemu.slice/101.scope"),
        "manager=proxmox uuid=b56f06f0-07e9-4fe5-8913-18a14e83a4d1 vmid=101"
    );
    assert!(
        found(PROXMOX, LIBVIRT_SCOPE).starts_with("manager=libvirt ")
            && !found(PROXMOX, LIBVIRT_SCOPE).contains("vmid")
    );
    assert!(
        found(KATA, LIBVIRT_SCOPE).starts_with("manager=libvirt ") && !found(KATA, LIBVIRT_SCOPE).contains("sandbox")
    );
}

#[test]
fn an_uuid_that_is_none_is_no_label() {
    let of = |uuid: &str| found(&format!("qemu\n-uuid\n{uuid}"), "");
    assert_eq!(of("C7A5FDBD-EDAF-9455-926A-D65C16DB1809"), "uuid=c7a5fdbd-edaf-9455-926a-d65c16db1809");
    for none in [
        "",
        "web1",
        "c7a5fdbdedaf9455926ad65c16db1809",
        "c7a5fdbd-edaf-9455-926a-d65c16db180\u{1b}",
        "c7a5fdbd-edaf-9455-926a-d65c16db1809-",
        "c7a5fdbd-edaf-9455-926a-d65c16db180é",
    ] {
        assert_eq!(of(none), "", "{none:?}");
    }
    assert_eq!(found("crosvm\n-uuid\nc7a5fdbd-edaf-9455-926a-d65c16db1809", ""), "", "QEMU's option");
}

#[test]
fn a_command_line_of_megabytes_and_a_long_name_take_bounded_time_and_space() {
    let scope = "0::/machine.slice/machine-qemu\\x2d11\\x2dx.scope";
    let long = OPENSTACK.replace("instance-00000042", &"x".repeat(4096));
    let vm = process(&long, scope);
    let labels = labels(&vm, &LabelRules::default());
    assert!(labels.get("instance").is_some_and(|name| name.len() <= MOST));
    let huge = "qemu\n".to_owned() + &"-smbios\ntype=1,uuid=x\n".repeat(100_000);
    assert_eq!(found(&huge, ""), "");
}
