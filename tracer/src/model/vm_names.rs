//! Names of VMs among each other: a VM that shares its name gets what tells it apart.

use std::collections::HashMap;

use crate::model::interval::Vm;

/// The names of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VmName {
    /// among the VMs of its host: NAME\[PROCESS\] if several processes share the name, NAME#NUMBER if its process has several VMs
    pub(crate) on_host: String,
    /// among those of all hosts: NAME@HOST if another host has a VM of that name
    pub(crate) among_hosts: String,
}

/// The names of VMs, by [`Vm::id`]. Sorts, because a host may have started tens of thousands: each must not look at all others.
pub(crate) fn vm_names<'a>(vms: impl IntoIterator<Item = &'a Vm>) -> HashMap<u32, VmName> {
    let process = |vm: &Vm| (vm.tgid, vm.start_ticks);
    let mut vms: Vec<&Vm> = vms.into_iter().collect();
    vms.sort_unstable_by_key(|vm| (&vm.name, &vm.host, process(vm)));
    let mut names = HashMap::with_capacity(vms.len());
    for namesakes in vms.chunk_by(|a, b| a.name == b.name) {
        let on_hosts = differ(namesakes, |vm| &vm.host);
        for on_host in namesakes.chunk_by(|a, b| a.host == b.host) {
            let of_processes = differ(on_host, process);
            for of_process in on_host.chunk_by(|a, b| process(a) == process(b)) {
                for vm in of_process {
                    let process = if of_processes { format!("[{}]", vm.tgid) } else { String::new() };
                    let ordinal = if of_process.len() > 1 { format!("#{}", vm.ordinal) } else { String::new() };
                    let on_host = format!("{}{process}{ordinal}", vm.name);
                    let among_hosts = match &vm.host {
                        Some(host) if on_hosts => format!("{on_host}@{host}"),
                        _ => on_host.clone(),
                    };
                    names.insert(vm.id, VmName { on_host, among_hosts });
                }
            }
        }
    }
    names
}

/// Whether any two of some sorted VMs differ.
fn differ<'a, T: PartialEq>(sorted: &[&'a Vm], of: impl Fn(&'a Vm) -> T) -> bool {
    sorted.first().map(|vm| of(vm)) != sorted.last().map(|vm| of(vm))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(id: u32, name: &str, tgid: u32, ordinal: u32, host: Option<&str>) -> Vm {
        Vm { id, name: name.into(), tgid, start_ticks: 1, ordinal, host: host.map(str::to_owned), ..Vm::default() }
    }

    #[test]
    fn a_name_says_what_tells_its_vm_apart_and_nothing_else() {
        let vms = [
            vm(0, "alone", 1, 0, Some("a")),
            vm(1, "web", 2, 0, Some("a")),
            vm(2, "web", 3, 0, Some("a")),
            vm(3, "web", 3, 1, Some("a")),
            vm(4, "web", 2, 0, Some("b")),
            vm(5, "twins", 4, 0, None),
            vm(6, "twins", 4, 1, None),
        ];
        let names = vm_names(&vms);
        let all: Vec<_> = (0..7).map(|id| names[&id].among_hosts.as_str()).collect();
        assert_eq!(all, ["alone", "web[2]@a", "web[3]#0@a", "web[3]#1@a", "web@b", "twins#0", "twins#1"]);
        assert_eq!(names[&3].on_host, "web[3]#1");
    }
}
