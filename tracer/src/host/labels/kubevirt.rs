//! KubeVirt: virt-launcher, in a pod for each VM, has libvirt start QEMU with the name `NAMESPACE_NAME`.

use super::{Found, manager};
use crate::host::{
    cgroup::is_word,
    options::{QEMU, qemu_name},
    process::Process,
};

/// KubeVirt's labels of a VM in a pod, from its command line; none if it is no VM of KubeVirt's.
pub(super) fn labels(process: &Process) -> Option<Found> {
    // virt-launcher's folders: disks, the VNC socket, since KubeVirt 0.55 libvirt's, too.
    let is_launched = process.arguments.iter().any(|argument| argument.contains("/kubevirt"));
    if !process.runs(&QEMU) || !is_launched {
        return None;
    }
    // Names in Kubernetes have no underscore.
    let name = qemu_name(&process.arguments)?;
    let (namespace, vmi) = name.split_once('_')?;
    let are_names = is_word(namespace, "-") && is_word(vmi, "-.");
    are_names.then(|| vec![manager("kubevirt"), ("namespace", namespace.into()), ("vmi", vmi.into())])
}
