//! libvirt: the scope says that it started the VM; the UUID, which is QEMU's own, is on the command line.

use super::{Found, manager};
use crate::host::cgroup::Machine;

/// Whether a scope is of one of libvirt's drivers for KVM. systemd-nspawn's machine may have a name like that of a VM of libvirt's.
pub(super) fn made(machine: &Machine) -> bool {
    matches!(machine.driver.as_str(), "qemu" | "ch")
}

/// libvirt's labels.
pub(super) fn labels() -> Found {
    vec![manager("libvirt")]
}
