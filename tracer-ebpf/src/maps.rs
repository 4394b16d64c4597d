//! The maps, all of them bounded and BTF-defined.

use aya_ebpf::{
    btf_maps::{ArrayOfMaps, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use tracer_common::{Counters, Flags, Outline, rules::Writes};

/// vCPUs whose state is kept; beyond that the least recently entered one is forgotten.
const MAX_VCPUS: usize = 16384;
/// Entries of a filter.
const MAX_FILTER: usize = 1024;
/// CPUs with a ring; the loader sets the host's number. The inner map is a template: the loader makes the rings.
const MAX_CPUS: usize = 1;
const TEMPLATE_BYTES: usize = 4096;

/// What is remembered of a vCPU between its hooks.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct VcpuState {
    /// previous kvm_exit, 0 for none
    pub exit_ns: u64,
    /// the open round's kvm_entry
    pub entry_ns: u64,
    /// of the open round
    pub exit_to_entry_ns: u64,
    /// address of `struct kvm`
    pub kvm: u64,
    /// how the last round went
    pub previous: Outline,
    /// writes to the controls of vmcs01 and vmcs02 since the last kvm_exit of each
    pub writes: [Writes; 2],
    /// `stat.exits` at the last kvm_entry
    pub exits: u64,
    /// the VMCS of the open round
    pub loaded_vmcs: u64,
    /// KVM's number of the vCPU
    pub vcpu_id: u32,
    /// last look at the shadow, of vmcs01 and vmcs02
    last_pin: [u32; 2],
    /// bit 0 and 1: which of `last_pin` is valid
    pin_seen: u8,
    /// pin-control writes of the open round, by the shadow method
    pub shadow_pin_writes: u8,
    /// flags of the open round
    pub flags: u16,
    /// shadow at the open round's kvm_entry
    pub pin_entry: u32,
    /// the same of the primary execution controls, for the calibration guest
    pub exec_entry: u32,
    /// VM entry and VM exit of the open round by the stopwatch
    pub transition_ns: u32,
    /// 1 between kvm_entry and kvm_exit
    pub open: u8,
    /// 1 when the vCPU's first entry was seen
    pub from_birth: u8,
    /// 1 for a vCPU of a TDX guest
    pub tdx: u8,
    /// 1 until the vCPU's first record was written
    pub is_new: u8,
    /// 1 since the vCPU's first kvm_entry
    pub entered: u8,
    reserved: [u8; 3],
}

impl VcpuState {
    #[inline(always)]
    pub const fn new() -> Self {
        Self {
            exit_ns: 0,
            entry_ns: 0,
            exit_to_entry_ns: 0,
            kvm: 0,
            previous: Outline { exit_reason: 0, flags: Flags::NONE, pin_writes: 0, isa: 0 },
            writes: [Writes(0); 2],
            exits: 0,
            loaded_vmcs: 0,
            vcpu_id: 0,
            last_pin: [0; 2],
            pin_seen: 0,
            shadow_pin_writes: 0,
            flags: 0,
            pin_entry: 0,
            exec_entry: 0,
            transition_ns: 0,
            open: 0,
            from_birth: 0,
            tdx: 0,
            is_new: 0,
            entered: 0,
            reserved: [0; 3],
        }
    }

    /// The shadow at the last look at this level's VMCS.
    #[inline(always)]
    pub fn last_pin(&self, l2: bool) -> Option<u32> {
        if l2 {
            (self.pin_seen & 2 != 0).then_some(self.last_pin[1])
        } else {
            (self.pin_seen & 1 != 0).then_some(self.last_pin[0])
        }
    }

    #[inline(always)]
    pub fn set_last_pin(&mut self, l2: bool, pin: u32) {
        if l2 {
            self.last_pin[1] = pin;
            self.pin_seen |= 2;
        } else {
            self.last_pin[0] = pin;
            self.pin_seen |= 1;
        }
    }
}

/// State by address of `struct kvm_vcpu`.
#[btf_map]
pub static VCPUS: LruHashMap<u64, VcpuState, MAX_VCPUS> = LruHashMap::new();

/// One slot, a value per CPU.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// One ring per CPU, so that producers never contend. The records are [`tracer_common::Event`]s, or all of them
/// [`tracer_common::StampedEvent`]s; the map says `()`, because
/// libbpf refuses a ring buffer whose value has a size.
#[btf_map]
pub static RINGS: ArrayOfMaps<RingBuf<(), TEMPLATE_BYTES>, MAX_CPUS> = ArrayOfMaps::new();

/// VMWRITE sites that can be counted at a time.
pub const MAX_SITES: u32 = 8;

/// How often each VMWRITE site was passed.
#[btf_map]
pub static SITES: PerCpuArray<u64, { MAX_SITES as usize }> = PerCpuArray::new();

/// Thread groups to trace, where Slot::FilterTgid is set.
#[btf_map]
pub static TGIDS: HashMap<u32, u8, MAX_FILTER> = HashMap::new();

/// vCPU numbers to trace, where Slot::FilterVcpu is set.
#[btf_map]
pub static VCPU_IDS: HashMap<u32, u8, MAX_FILTER> = HashMap::new();
