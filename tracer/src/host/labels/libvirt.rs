//! libvirt: the scope says that it started the VM; the UUID, which is QEMU's own, is on the command line.

use super::{Found, manager};
use crate::host::cgroup::Machine;

/// libvirt's labels. Other programs name their scopes as it does, but have no driver of these names.
pub(super) fn labels(machine: &Machine) -> Found {
    if matches!(machine.driver.as_str(), "qemu" | "ch") { vec![manager("libvirt")] } else { Vec::new() }
}
