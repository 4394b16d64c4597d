//! What the loader tells the programs: where the fields are and what to leave out.

/// The helper that the programs call where they mean `bpf_rdonly_cast`, a function whose number only the running kernel knows. There is
/// no such helper: the loader puts the kernel's number in, or leaves [`Slot::CastType`] absent, so that no call is reached.
pub const CAST_HELPER: u32 = 0x7fff_0001;

/// A slot's place in the programs is the constant `PLACE + slot`, for which the loader puts the value in: a global would be a load more,
/// of what the verifier knows anyway, each time. Negative, so that all slots are absent in an object that no loader has touched.
pub const PLACE: u64 = 0xf66d_656e_7472_7900;

/// In [`Slot::Filter`]: only the thread groups of map TGIDS are traced.
pub const FILTER_TGIDS: i64 = 1;
/// In [`Slot::Filter`]: only the vCPU numbers of map VCPU_IDS are traced.
pub const FILTER_VCPUS: i64 = 2;

/// An array's place in the programs is the constant `REGION + region`, for which the loader puts the address of its map's only value in:
/// a look-up, even where the kernel makes code of it, takes ten instructions and an index on the stack.
pub const REGION: u64 = 0xf66d_656e_7472_7a00;

/// An array that the programs and user space share: the only value of a map, and long as the loader says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Region {
    /// [`VcpuState`](crate::state::VcpuState)s, in sets
    States,
    /// [`Counters`](crate::Counters) by CPU
    Counters,
    /// the rings: so many records a CPU, which only that CPU writes, in the order of CPUs. A record is the beginning of an event, a whole
    /// one, or a stamped one for the calibration guest; it is there when its number, written last, is higher than those before it. (A BPF
    /// ring buffer takes a lock and four times the instructions a record.)
    Records,
    /// records that user space has taken out of each CPU's ring, a cache line apart
    Taken,
    /// [`Tally`](crate::in_kernel_series::Tally)s, where series are counted here: in sets of places. A vCPU counts alone in its own; nothing is ever
    /// removed
    Tallies,
}

impl Region {
    /// Every region.
    pub const ALL: [Region; 5] = [Region::States, Region::Counters, Region::Records, Region::Taken, Region::Tallies];

    /// Elements of the array in an object that no loader has touched: the loader knows the array in the object's BTF by it, and puts
    /// another length there.
    #[must_use]
    pub const fn length(self) -> usize {
        4097 + self as usize
    }
}

/// A word of [`Region::Taken`]: a cache line of its own, for user space writes it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Taken {
    /// records
    pub records: u64,
    unused: [u64; 7],
}

/// Value of an absent slot. A value that counts is never negative.
pub const ABSENT: i64 = -1;

macro_rules! slots {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// One value. Offsets are bytes; those marked "of the vcpu" count from `struct kvm_vcpu`, wherever
        /// that lies in the vendor's structure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Slot { $($(#[$doc])* $name,)+ }

        impl Slot {
            /// Every slot, in the order of their values.
            pub const ALL: &'static [Slot] = &[$(Slot::$name,)+];
        }
    };
}

slots! {
    /// `kvm_vcpu.kvm`, pointer
    VcpuKvm,
    /// `kvm_vcpu.vcpu_id`, i32
    VcpuId,
    /// `kvm_vcpu.stat.exits`, u64: 0 until the vCPU's first exit
    StatExits,
    /// `kvm_vcpu.stat.guest_mode`, u64: not 0 while L2 runs
    StatGuestMode,
    /// `kvm.arch.vm_type`, u8 is enough (little endian); absent before Linux 6.8
    KvmVmType,
    /// of the vcpu: `vcpu_vmx.exit_reason.full` (or `.vt.exit_reason.full` since 6.16), u32
    VmxExitReason,
    /// of the vcpu: `vcpu_vmx.loaded_vmcs`, pointer
    VmxLoadedVmcs,
    /// of the vcpu: `vcpu_vmx.vmcs01`, the structure itself
    VmxVmcs01,
    /// of the vcpu: `vcpu_vmx.req_immediate_exit`, bool; gone when kvm_entry got its second argument
    VmxReqImmediate,
    /// of `loaded_vmcs`: `controls_shadow.pin`, u32
    VmcsPin,
    /// of `loaded_vmcs`: `hv_timer_soft_disabled`, bool; absent before Linux 5.3
    VmcsSoftDisabled,
    /// of the vcpu: `vcpu_svm.vmcb`, pointer
    SvmVmcb,
    /// of the vmcb: `control.exit_code`, low 32 bits
    VmcbExitCode,
    /// 1 where kvm_entry's second argument is `force_immediate_exit`
    EntryHasImmediate,
    /// 1 where the program on kvm_vmcs_write is attached: it tells every write to a control
    ExactWrites,
    /// `kvm_vcpu.arch.regs[8]`, the guest's R8 and the registers after it, u64 each; set for the calibration guest only, whose
    /// records have its stamps
    GuestR8,
    /// of `loaded_vmcs`: `controls_shadow.exec`, u32
    VmcsExec,
    /// ns per TSC cycle times 2^22 ([`tsc_to_ns`](crate::rules::tsc_to_ns)), where the program on kvm_guest_time is attached
    TscToNs,
    /// [`FILTER_TGIDS`] and [`FILTER_VCPUS`], or 0; absent in an object that no loader has touched, whose programs do nothing
    Filter,
    /// user space is woken each time so many rounds were closed on a CPU
    WakeEvery,
    /// a power of two: records of one CPU's ring
    RingRecords,
    /// bytes of a record
    RecordBytes,
    /// 1 where records are whole events: with the calibration guest's registers, too, where [`Slot::GuestR8`] is set
    Details,
    /// 1 to count in TALLIES instead of writing records
    InKernel,
    /// CPUs that there may be
    Cpus,
    /// CPUs that have a ring; on others, which came online later, every round is dropped
    RingCpus,
    /// BTF id of a structure that begins with a 64-bit integer, where `bpf_rdonly_cast` can be called (Linux 6.2): the programs then load
    /// from kernel memory themselves, and a load that faults gives 0
    CastType,
}

/// Number of slots.
pub const SLOTS: usize = Slot::ALL.len();

/// All values. A slot that was not set is [`ABSENT`]: what depends on it is n/a.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config(pub [i64; SLOTS]);

impl Config {
    /// A configuration that reads nothing and wakes user space at every record.
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

    /// A slot's value, or none where it is absent.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<i64> {
        let value = self.0[slot as usize];
        (value >= 0).then_some(value)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::empty()
    }
}
