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
