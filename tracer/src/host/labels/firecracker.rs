//! Firecracker's jailer: a chroot, and a cgroup if it is given a value for one, of the VM's id.

use super::{Found, manager};
use crate::host::{cgroup::is_word, options::option, process::Process};

/// The labels of a VM in a cgroup of the jailer's.
pub(super) fn labels(id: String) -> Found {
    vec![manager("firecracker-jailer"), ("jail", id)]
}

/// The jail of a Firecracker in no cgroup that is known, without a manager, from the command line that the jailer gives it: the jailer makes
/// no cgroup unless it is told to, or makes it below a folder of the caller's choice.
pub(super) fn without_cgroup(process: &Process) -> Found {
    let is_jailed = || option(&process.arguments, &["--start-time-us"]).is_some();
    let id = option(&process.arguments, &["--id"]).filter(|id| is_word(id, "-") && is_jailed());
    id.filter(|_| process.runs(&["firecracker"])).map(|id| vec![("jail", id.to_owned())]).unwrap_or_default()
}
