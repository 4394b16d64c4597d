//! The constants that the loader patches into the programs: offsets of kernel fields, filters, sizes, and the addresses of the regions.

use crate::Isa;

/// Placeholder of the helper number that programs call for `bpf_rdonly_cast`, a kernel function whose BTF id only the running kernel
/// knows. The loader turns the call into one of that function, or leaves [`Slot::CastType`] absent, so that no call is reached.
pub const CAST_HELPER: u32 = 0x7fff_0001;

/// Placeholder of a slot: the programs load the constant `PLACE + slot`, which the loader replaces by the slot's value. A constant, because
/// a global would cost another load each time. Negative, so that all slots are absent in an object that no loader has patched.
pub const PLACE: u64 = 0xf66d_656e_7472_7900;

/// Bit of [`Slot::Filter`]: trace only the thread groups of map TGIDS.
pub const FILTER_TGIDS: i64 = 1;
/// Bit of [`Slot::Filter`]: trace only the vCPU numbers of map VCPU_IDS.
pub const FILTER_VCPUS: i64 = 2;

/// VMWRITE sites that can be counted at the same time: the object has one kprobe program for each.
pub const MAX_SITES: usize = 8;

/// Placeholder of a region: the programs load the constant `REGION + region`, which the loader replaces by the address of the map's only
/// value. A map look-up would cost ten instructions, even where the kernel inlines it.
pub const REGION: u64 = 0xf66d_656e_7472_7a00;

/// An array that the programs and user space share: the only value of its map, with a length that the loader chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Region {
    /// [`VcpuState`](crate::state::VcpuState)s, in sets
    States,
    /// [`Counters`](crate::Counters), by CPU
    Counters,
    /// the rings, in the order of CPUs: equally many records each, which only that CPU writes. A record is short, whole or stamped. It is
    /// complete when its number, written last, is higher than the one before it. (A BPF ring buffer takes a lock and four times the
    /// instructions per record.)
    Records,
    /// by CPU, the records that user space has taken out of the ring; a cache line each
    Taken,
    /// [`SeriesCounts`](crate::in_kernel_series::SeriesCounts), in sets of places; user space takes places back
    Series,
    /// two [`ClockBase`](crate::clock::ClockBase)s, of which the later one is in force; user space renews the other one
    Clock,
}

impl Region {
    /// Every region.
    pub const ALL: [Region; 6] =
        [Region::States, Region::Counters, Region::Records, Region::Taken, Region::Series, Region::Clock];

    /// Elements of the array in an object that no loader has patched. The loader finds the array in the object's BTF by this length and
    /// replaces it by the length that it wants.
    #[must_use]
    pub const fn length(self) -> usize {
        4097 + self as usize
    }
}

/// An element of [`Region::Taken`]: a cache line of its own, because user space writes it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Taken {
    /// records
    pub records: u64,
    unused: [u64; 7],
}

/// Value of an absent slot. Other values are never negative.
pub const ABSENT: i64 = -1;

macro_rules! slots {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// A patched constant. Offsets are in bytes. Offsets "of the vcpu" are relative to `struct kvm_vcpu`, which may lie anywhere in
        /// the vendor's structure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Slot { $($(#[$doc])* $name,)+ }

        impl Slot {
            /// Every slot, in the order of their numbers.
            const ALL: &'static [Slot] = &[$(Slot::$name,)+];
        }
    };
}

slots! {
    /// [`Isa`] of the vendor whose fields are read, as a number; absent where none are. At a kvm_exit of another instruction set, the
    /// vCPU is not the vendor's structure: nothing read from it holds
    LayoutIsa,
    /// `kvm_vcpu.kvm`, pointer
    VcpuKvm,
    /// `kvm_vcpu.vcpu_id`, i32
    VcpuId,
    /// `kvm_vcpu.stat.exits`, u64: 0 until the vCPU's first exit
    StatExits,
    /// `kvm_vcpu.stat.guest_mode`, u64: not 0 while L2 runs
    StatGuestMode,
    /// `kvm.arch.vm_type`, its low byte; absent before Linux 6.8
    KvmVmType,
    /// of the vcpu: `vcpu_vmx.exit_reason.full` (or `.vt.exit_reason.full` since 6.16), u32
    VmxExitReason,
    /// of the vcpu: `vcpu_vmx.loaded_vmcs`, pointer
    VmxLoadedVmcs,
    /// of the vcpu: `vcpu_vmx.vmcs01`, the structure itself
    VmxVmcs01,
    /// of the vcpu: `vcpu_vmx.req_immediate_exit`, bool; absent since kvm_entry has a second argument
    VmxReqImmediate,
    /// of `loaded_vmcs`: `controls_shadow.pin`, u32
    VmcsPin,
    /// of `loaded_vmcs`: `hv_timer_soft_disabled`, bool; absent before Linux 5.3
    VmcsSoftDisabled,
    /// of the vcpu: `vcpu_vmx.hv_deadline_tsc`, u64: host TSC at which the timer is to expire, -1 while it has no deadline
    VmxDeadlineTsc,
    /// of the vcpu: `vcpu_svm.vmcb`, pointer
    SvmVmcb,
    /// of the vcpu: `vcpu_svm.vmcb01.ptr`, pointer: L1 runs on this vmcb as long as the vCPU lives; absent before Linux 5.13
    SvmVmcb01,
    /// of the vmcb: `control.exit_code`, low 32 bits
    VmcbExitCode,
    /// of the vmcb: `control.exit_info_1`, u64
    VmcbExitInfo1,
    /// 1 where host time is split into its parts
    Phases,
    /// `kvm_vcpu.stat.generic.halt_poll_success_ns`, u64; absent before Linux 5.14
    HaltPollSuccess,
    /// `kvm_vcpu.stat.generic.halt_poll_fail_ns`, u64; absent before Linux 5.14
    HaltPollFail,
    /// `kvm_vcpu.stat.generic.halt_wait_ns`, u64; absent before Linux 5.15
    HaltWait,
    /// `task_struct.sched_info.run_delay`, u64
    RunDelay,
    /// `task_struct.sched_info.pcount`, u64: how often the thread was given a CPU; absent without [`Slot::RunDelay`]
    RunCount,
    /// 1 where exits are looked at beyond their reasons
    Detail,
    /// `kvm_vcpu.arch.regs`: the guest's RAX, RCX and the other registers, u64 each
    GuestRegs,
    /// bit from the beginning of the vcpu that is set once KVM has read the exit qualification of this exit: `VCPU_EXREG_EXIT_INFO_1` of
    /// `arch.regs_avail`
    QualificationRead,
    /// the same of the interruption information: `VCPU_EXREG_EXIT_INFO_2`
    InterruptionRead,
    /// of the vcpu: `vcpu_vmx.exit_qualification` (or `.vt.exit_qualification` since 6.16), u64
    VmxQualification,
    /// of the vcpu: `vcpu_vmx.exit_intr_info` (or `.vt.exit_intr_info` since 6.16), u32
    VmxInterruption,
    /// `kvm_vcpu.stat.pf_fixed`, u64
    FaultsFixed,
    /// `kvm_vcpu.stat.pf_fast`, u64; absent before Linux 5.19
    FaultsFast,
    /// `kvm_vcpu.stat.pf_spurious`, u64; absent before Linux 5.19
    FaultsSpurious,
    /// `kvm_vcpu.stat.pf_emulate`, u64; absent before Linux 5.19
    FaultsEmulated,
    /// `kvm.arch.hyperv.hv_guest_os_id`, u64: not 0 while the guest calls Hyper-V's hypercalls
    HypervGuest,
    /// 1 where kvm_entry's second argument is `force_immediate_exit`
    EntryHasImmediate,
    /// 1 where kvm_preemption_timer_exit has a fourth argument: TSC cycles since the deadline, signed
    TimerExitHasLate,
    /// 1 where the program on kvm_vmcs_write is attached, which counts every write to a control
    ExactWrites,
    /// `kvm_vcpu.arch.regs[8]`: the guest's R8 and the registers after it, u64 each. Set for the calibration guest only, whose records
    /// have its stamps
    GuestR8,
    /// of `loaded_vmcs`: `controls_shadow.exec`, u32
    VmcsExec,
    /// [`tsc_to_ns_factor`](crate::rules::tsc_to_ns_factor) of the TSC; absent unless the program on kvm_guest_time is attached
    TscToNs,
    /// [`FILTER_TGIDS`], [`FILTER_VCPUS`], both or 0. Absent in an object that no loader has patched: its programs do nothing
    Filter,
    /// rounds of a CPU after which user space is woken
    WakeEvery,
    /// records of one CPU's ring, a power of two
    RingRecords,
    /// bytes of a record
    RecordBytes,
    /// 1 where records are whole, and stamped where [`Slot::GuestR8`] is set, too
    Extras,
    /// 1 to count in SERIES instead of writing records
    InKernel,
    /// one more than the highest number of a possible CPU: each has counters and a ring
    Cpus,
    /// BTF id of a structure that begins with a 64-bit integer; absent where `bpf_rdonly_cast` cannot be called (before Linux 6.2). With
    /// it the programs load from kernel memory themselves; a load that faults returns 0
    CastType,
}

/// Number of slots.
const SLOTS: usize = Slot::ALL.len();

/// Values of all slots. A slot that was not set is [`ABSENT`]: figures that depend on it are n/a.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config(pub [i64; SLOTS]);

impl Config {
    /// A configuration that reads no kernel memory and wakes user space at every record.
    #[must_use]
    pub const fn empty() -> Self {
        let mut words = [ABSENT; SLOTS];
        words[Slot::WakeEvery as usize] = 1;
        words[Slot::RingRecords as usize] = 1;
        Self(words)
    }

    /// Sets a slot.
    pub fn set(&mut self, slot: Slot, value: impl Into<i64>) {
        self.0[slot as usize] = value.into();
    }

    /// Instruction set of the vendor whose fields are read; none where none are.
    #[must_use]
    pub fn layout_isa(&self) -> Option<Isa> {
        self.get(Slot::LayoutIsa).and_then(|raw| Isa::ALL.into_iter().find(|isa| *isa as i64 == raw))
    }

    /// A slot's value, or none where it is absent.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<i64> {
        let value = self.0[slot as usize];
        (value >= 0).then_some(value)
    }
}
