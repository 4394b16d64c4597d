//! Finds a report's VMs by what they are the same by, and their names: in one look-up each, because there may be tens of thousands.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    model::{
        interval::Vm,
        vm_names::{VmName, vm_names},
    },
    recording::Header,
};

/// The VMs of a report.
#[derive(Debug, Default)]
pub(crate) struct VmIndex {
    numbers: HashMap<Identity, u32>,
    /// by host and boot: a number of it
    boots: HashMap<Option<(String, String)>, usize>,
    /// the names, as soon as one is asked for and until another VM comes
    names: OnceCell<HashMap<u32, VmName>>,
}

/// What a VM is the same by in several recordings: boot, process, start of the process, number in it, name.
type Identity = (usize, u32, u64, u32, String);

impl VmIndex {
    /// The number of a VM that another recording of the same host and boot has, else `next`, for a VM that is new.
    pub(super) fn number(&mut self, header: Option<&Header>, vm: &Vm, next: u32) -> u32 {
        let boot = header.map(|header| (header.host.name.clone(), header.host.boot_id.clone()));
        let boots = self.boots.len();
        let boot = *self.boots.entry(boot).or_insert(boots);
        let identity = (boot, vm.tgid, vm.start_ticks, vm.ordinal, vm.name.clone());
        *self.numbers.entry(identity).or_insert_with(|| {
            self.names.take();
            next
        })
    }

    /// The names of one of `vms`, which are all that there are; none if it is not among them.
    pub(super) fn name(&self, vms: &BTreeMap<u32, Arc<Vm>>, id: u32) -> Option<&VmName> {
        self.names.get_or_init(|| vm_names(vms.values().map(Arc::as_ref))).get(&id)
    }
}
