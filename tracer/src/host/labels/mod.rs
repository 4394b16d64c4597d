//! Labels of VMs: what their managers know them by. The cgroup says which manager started the VM, as only root makes it; then that manager's
//! file says what cgroup and command line tell. A process without the cgroup of a manager gets none of its labels: whoever starts a VMM
//! chooses the command line.

mod firecracker;
mod kata;
mod kubevirt;
mod libvirt;
mod openstack;
mod proxmox;
pub mod rules;

use crate::{
    host::{
        cgroup::{Unit, unit},
        labels::rules::LabelRules,
        options::{QEMU, option, smbios_system},
        process::Process,
    },
    model::vm_labels::VmLabels,
    output::printable,
};

/// Bytes of a label's value at most; the rest is cut.
const MOST: usize = 128;

/// The labels that a manager gives a VM, with their keys.
type Found = Vec<(&'static str, String)>;

/// The labels of the VMs of a process. Those of the rules count where no manager gives one.
pub(crate) fn labels(process: &Process, rules: &LabelRules) -> VmLabels {
    let found = match unit(&process.cgroup) {
        Some(Unit::Libvirt(machine)) if libvirt::made(&machine) => {
            openstack::labels(process).unwrap_or_else(libvirt::labels)
        }
        Some(Unit::Proxmox(number)) => proxmox::labels(number),
        Some(Unit::Kata(sandbox)) => kata::labels(sandbox),
        Some(Unit::Pod(pod)) => {
            let vm = kata::in_pod(process, &pod).or_else(|| kubevirt::labels(process));
            [vec![("pod_uid", pod.uid)], vm.unwrap_or_default()].concat()
        }
        Some(Unit::Jail(id)) => firecracker::labels(id),
        Some(Unit::Libvirt(_)) | None => firecracker::without_cgroup(process),
    };
    let mut labels = VmLabels::default();
    let uuid = uuid(process).map(|uuid| ("uuid", uuid));
    for (key, value) in found.into_iter().chain(uuid) {
        labels.add(key, bounded(&value));
    }
    for (key, value) in rules.labels(process) {
        labels.add(key, bounded(&value));
    }
    labels
}

fn manager(name: &str) -> (&'static str, String) {
    ("manager", name.to_owned())
}

/// The UUID that QEMU gives its guest, in lower case; none if it is no UUID.
fn uuid(process: &Process) -> Option<String> {
    if !process.runs(&QEMU) {
        return None;
    }
    let given = option(&process.arguments, &["-uuid", "--uuid"]).map(str::to_owned);
    let uuid = given.or_else(|| smbios_system(&process.arguments, "uuid"))?.to_ascii_lowercase();
    let is_place = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    (uuid.len() == 36 && uuid.bytes().enumerate().all(is_place)).then_some(uuid)
}

/// A value that fits into a label.
fn bounded(value: &str) -> String {
    printable(value.trim(), MOST).into_owned()
}

#[cfg(test)]
mod tests;
