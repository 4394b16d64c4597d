//! Kata Containers: a sandbox for each pod, in the pod's cgroup or in Kata's own.

use super::{Found, manager};
use crate::host::{
    cgroup::{Pod, is_word},
    options::{QEMU, option, qemu_name},
    process::Process,
};

/// The folders of sandboxes' sockets, of the runtime in Go and in Rust.
const FOLDERS: [&str; 2] = ["/run/vc/vm/", "/run/kata/"];

/// The labels of a sandbox.
pub(super) fn labels(sandbox: String) -> Found {
    vec![manager("kata"), ("sandbox", sandbox)]
}

/// Kata's labels of a VM in a pod; none if neither the cgroup nor the command line is of Kata.
pub(super) fn in_pod(process: &Process, pod: &Pod) -> Option<Found> {
    let of_cgroup = pod.container.clone().filter(|_| pod.is_of_kata);
    let sandbox = of_cgroup.or_else(|| {
        let of_command_line = of_command_line(process)?;
        // containerd and CRI-O put it into the scope of the sandbox's own container.
        Some(pod.container.clone().unwrap_or(of_command_line))
    });
    sandbox.map(labels)
}

/// The sandbox in the name of QEMU's VM, in the path of a VMM's socket, or of a VMM within the shim.
fn of_command_line(process: &Process) -> Option<String> {
    let arguments = &process.arguments;
    let of_name = || {
        let name = qemu_name(arguments).filter(|_| process.runs(&QEMU))?;
        Some(name.strip_prefix("sandbox-")?.to_owned())
    };
    let of_socket = || {
        let folder = |argument: &str| FOLDERS.iter().find_map(|folder| Some(argument.split_once(folder)?.1.to_owned()));
        let path = arguments.iter().find_map(folder)?;
        path.split('/').next().map(str::to_owned)
    };
    let of_shim = || {
        let id = option(arguments, &["-id", "--id"]).filter(|_| process.runs(&["containerd-shim-kata"]))?;
        Some(id.to_owned())
    };
    of_name().or_else(of_socket).or_else(of_shim).filter(|id| is_word(id, "._-"))
}
