//! Names and numbers the VMs that entries belong to, by their process and their `struct kvm`.

use std::{path::PathBuf, sync::Arc};

use rustc_hash::FxHashMap;

use crate::{
    host::{pid_namespace::shows_host_processes, process::read_process, roots::Roots},
    model::interval::{MAX_VMS, Vm},
};

/// Slots of VMs that are found without a hash map, as a power of two.
const RECENT_BITS: u32 = 5;
/// A VM's identity: the process and the address of its `struct kvm`.
type Identity = (u32, u64);

/// The VMs so far.
pub(super) struct Vms {
    proc: PathBuf,
    /// processes below `proc` are those that the programs report
    are_named: bool,
    /// found last, by some bits of the address; no process has number 0
    recent: [(Identity, Arc<Vm>); 1 << RECENT_BITS],
    by_identity: FxHashMap<Identity, Arc<Vm>>,
    next: u32,
}

impl Vms {
    /// Without any VM. Processes are read from procfs below `roots`.
    pub(super) fn new(roots: &Roots) -> Self {
        let are_named = shows_host_processes(&roots.proc) != Some(false);
        Self {
            proc: roots.proc.clone(),
            are_named,
            recent: Default::default(),
            by_identity: FxHashMap::default(),
            next: 0,
        }
    }

    /// The VM of an entry; a new one is named after its process.
    pub(super) fn get(&mut self, tgid: u32, kvm: u64) -> &Arc<Vm> {
        let at = recent_slot(kvm);
        if self.recent[at].0 != (tgid, kvm) {
            self.recent[at] = ((tgid, kvm), self.find(tgid, kvm));
        }
        &self.recent[at].1
    }

    fn find(&mut self, tgid: u32, kvm: u64) -> Arc<Vm> {
        if let Some(vm) = self.by_identity.get(&(tgid, kvm)) {
            return Arc::clone(vm);
        }
        if self.by_identity.len() >= MAX_VMS {
            self.by_identity.clear();
        }
        // Its number among the VMs of its process.
        let of_process = self.by_identity.keys().filter(|k| k.0 == tgid).count();
        let ordinal = u32::try_from(of_process).unwrap_or(u32::MAX);
        let (name, start_ticks) = match read_process(&self.proc, tgid) {
            // The process of this id in another PID namespace is a stranger.
            _ if !self.are_named => (format!("tgid {tgid}"), 0),
            Ok(process) => (process.name(), process.start_time_ticks),
            Err(_) => (format!("pid-{tgid}"), 0),
        };
        let vm = Arc::new(Vm { id: self.next, name, tgid, start_ticks, ordinal, host: None });
        self.next += 1;
        self.by_identity.insert((tgid, kvm), Arc::clone(&vm));
        vm
    }
}

/// A slot of `recent`: the highest bits of a product, which depend on all bits of the address.
fn recent_slot(kvm: u64) -> usize {
    let [.., highest] = kvm.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    usize::from(highest >> (u8::BITS - RECENT_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::roots::made_up::Folder;

    fn process(host: &Folder, tgid: u32, cmdline: &str) {
        let zeros = "0 ".repeat(18);
        host.write(&format!("proc/{tgid}/status"), format!("Tgid:\t{tgid}\n"));
        host.write(&format!("proc/{tgid}/stat"), format!("{tgid} (vmm) S {zeros}77 0\n"));
        host.write(&format!("proc/{tgid}/comm"), "vmm\n");
        host.write(&format!("proc/{tgid}/cmdline"), cmdline);
    }

    #[test]
    fn a_vm_is_named_after_its_process_and_numbered_once() {
        let host = Folder::new();
        process(&host, 40, "qemu\0-name\0web1\0");
        let mut vms = Vms::new(&host.roots);
        let first = Arc::clone(vms.get(40, 0x1000));
        assert_eq!((first.id, first.name.as_str(), first.start_ticks, first.ordinal), (0, "web1", 77, 0));
        let second = Arc::clone(vms.get(40, 0x2000));
        assert_eq!((second.id, second.ordinal), (1, 1), "another VM of the same process");
        assert_eq!(vms.get(50, 0x1000).name, "pid-50", "the process is gone");
        assert_eq!((vms.get(40, 0x1000).id, vms.get(40, 0x2000).id, vms.get(50, 0x1000).id), (0, 1, 2));
    }

    #[test]
    fn a_stranger_in_another_pid_namespace_gives_no_name() {
        let host = Folder::new();
        process(&host, 40, "qemu\0-name\0web1\0");
        host.link("proc/self/ns/pid", "pid:[4026532201]");
        let vm = Arc::clone(Vms::new(&host.roots).get(40, 0x1000));
        assert_eq!((vm.name.as_str(), vm.start_ticks), ("tgid 40", 0));
    }

    #[test]
    fn more_vms_than_recent_slots_keep_their_numbers() {
        let mut vms = Vms::new(&Folder::new().roots);
        for _ in 0..2 {
            for n in 0..200 {
                assert_eq!(u64::from(vms.get(1, n << 12).id), n);
            }
        }
    }
}
