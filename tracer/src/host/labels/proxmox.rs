//! Proxmox VE: the scope has the number of the VM.

use super::{Found, manager};

/// The labels of the VM with this number.
pub(super) fn labels(number: String) -> Found {
    vec![manager("proxmox"), ("vmid", number)]
}
