//! An event together with the VM that it belongs to.

use std::{collections::BTreeMap, sync::Arc};

use tracer_common::Event;

use crate::model::interval::Vm;

/// One event of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmEvent {
    /// [`Vm::id`]
    pub vm: u32,
    /// the event
    pub event: Event,
}

/// VMs by [`Vm::id`].
pub type Vms = BTreeMap<u32, Arc<Vm>>;

#[cfg(test)]
pub(super) mod tests {
    //! Made-up events for the tests of this room.

    use super::*;
    use crate::model::interval::tests::event;

    /// An event with this kvm_exit, ns.
    pub(in crate::trace) fn at(exit_ns: u64) -> VmEvent {
        VmEvent { vm: 0, event: Event { exit_ns, entry_ns: exit_ns, ..event(0, 10, 0, 0) } }
    }

    /// Returns the times of kvm_exit.
    pub(in crate::trace) fn times(events: &[VmEvent]) -> Vec<u64> {
        events.iter().map(|e| e.event.exit_ns).collect()
    }
}
