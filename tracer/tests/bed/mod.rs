//! A test bed on the running kernel: the loaded programs, and map values in which simulated vCPUs are laid out.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "test code: an error is a failure, and only tests and benches import it"
)]
#![allow(dead_code, reason = "each test and bench that includes this file uses a part of it")]

pub mod busy;

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr::NonNull,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, MapInfo},
    programs::{ProgramInfo, RawTracePoint, RawTracePointRunOptions, TestRun},
};
use tracer_common::{
    Config, Counters, Event, Slot,
    state::{MAX_STATES, VcpuState, set_of},
};
use vmentry::kernel::{
    btf::Btf,
    layout::{Cast, ExitArguments, Layout},
    options::Options,
    tracer::Tracer,
};

pub static TESTBED: &[u8] = aya::include_bytes_aligned!(concat!(env!("VMENTRY_BPF_DIR"), "/testbed.bpf.o"));
pub const ARENA: usize = 32768;

// Offsets of the simulated kernel, from the beginning of a vCPU. None is as in a real kernel.
pub const VCPU: usize = 1024;
pub const KVM: usize = 8;
pub const ID: usize = 16;
pub const EXITS: usize = 24;
pub const GUEST_MODE: usize = 32;
pub const REASON: usize = 40;
pub const LOADED_VMCS: usize = 48;
pub const VMCB: usize = 56;
pub const VMCB01: usize = 200;
pub const DEADLINE: usize = 72;
pub const HALT_POLL_SUCCESS: usize = 80;
pub const HALT_POLL_FAIL: usize = 88;
pub const HALT_WAIT: usize = 96;
pub const REGS_AVAIL: usize = 104;
pub const QUALIFICATION: usize = 112;
pub const INTERRUPTION: usize = 120;
pub const FAULTS: usize = 384;
pub const VMCS01: usize = 128;
pub const VMCS02: usize = 256;
pub const PIN: usize = 8;
pub const SOFT: usize = 16;
pub const EXEC: usize = 24;
pub const EXIT_CODE: usize = 440;
pub const EXIT_INFO_1: usize = 448;
pub const REGISTERS: usize = 512;
pub const VM_TYPE: usize = 4;
/// In a `struct kvm`.
pub const HYPERV_GUEST: usize = 64;
/// A `struct kvm`, from the beginning of the arena.
pub const KVM_AT: usize = 16384;

/// Runs a program in the test's own thread, on its current CPU. On any other CPU, the current task may be any.
pub const HERE: u32 = u32::MAX;

pub const VMX: u64 = 1;
pub const SVM: u64 = 2;

pub fn config() -> Config {
    let mut c = Config::empty();
    for (slot, at) in [
        (Slot::VcpuKvm, KVM),
        (Slot::VcpuId, ID),
        (Slot::StatExits, EXITS),
        (Slot::StatGuestMode, GUEST_MODE),
        (Slot::KvmVmType, VM_TYPE),
        (Slot::VmxExitReason, REASON),
        (Slot::VmxLoadedVmcs, LOADED_VMCS),
        (Slot::VmxVmcs01, VMCS01),
        (Slot::VmcsPin, PIN),
        (Slot::VmcsSoftDisabled, SOFT),
        (Slot::VmxDeadlineTsc, DEADLINE),
        (Slot::SvmVmcb, VMCB),
        (Slot::VmcbExitCode, EXIT_CODE),
        (Slot::EntryHasImmediate, 1),
    ] {
        c.set(slot, at as i32);
    }
    c
}

/// Bits of [`REGS_AVAIL`], as Linux 6.12 numbers them.
pub const QUALIFICATION_READ: u32 = 23;
pub const INTERRUPTION_READ: u32 = 24;

/// As [`config`], with the fields that tell the parts of the host time. The delay is that of the running kernel's tasks, because the programs
/// look at the thread that runs them.
pub fn config_of_host_time() -> Config {
    let kernel = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
    let kernel = Btf::parse(&kernel, None).unwrap();
    let [delay, runs] =
        ["sched_info.run_delay", "sched_info.pcount"].map(|path| kernel.field("task_struct", path).unwrap());
    let mut c = config();
    c.set(Slot::HaltPollSuccess, HALT_POLL_SUCCESS as i32);
    c.set(Slot::HaltPollFail, HALT_POLL_FAIL as i32);
    c.set(Slot::HaltWait, HALT_WAIT as i32);
    c.set(Slot::RunDelay, delay.offset);
    c.set(Slot::RunCount, runs.offset);
    c
}

/// As [`config`], with the fields that tell what an exit was about.
pub fn config_of_details() -> Config {
    let mut c = config();
    for (slot, at) in [
        (Slot::GuestRegs, REGISTERS),
        (Slot::QualificationRead, 8 * REGS_AVAIL + QUALIFICATION_READ as usize),
        (Slot::InterruptionRead, 8 * REGS_AVAIL + INTERRUPTION_READ as usize),
        (Slot::VmxQualification, QUALIFICATION),
        (Slot::VmxInterruption, INTERRUPTION),
        (Slot::VmcbExitInfo1, EXIT_INFO_1),
        (Slot::FaultsFixed, FAULTS),
        (Slot::FaultsFast, FAULTS + 8),
        (Slot::FaultsSpurious, FAULTS + 16),
        (Slot::FaultsEmulated, FAULTS + 24),
        (Slot::HypervGuest, HYPERV_GUEST),
    ] {
        c.set(slot, at as i32);
    }
    c
}

/// `bpf_rdonly_cast` of the running kernel.
pub fn cast() -> Option<Cast> {
    let kernel = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
    Cast::find(&Btf::parse(&kernel, None).unwrap())
}

/// Kernel memory for programs to read: the object that it belongs to, the memory, and its address.
pub fn arena() -> (Ebpf, Array<MapData, [u8; ARENA]>, u64) {
    let mut testbed = EbpfLoader::new().btf(None).load(TESTBED).unwrap();
    let locate: &mut RawTracePoint = testbed.program_mut("locate").unwrap().try_into().unwrap();
    locate.load().unwrap();
    locate.test_run(RawTracePointRunOptions::new()).unwrap();
    let address: Array<_, u64> = testbed.map("ADDRESS").unwrap().try_into().unwrap();
    let address = address.get(&0, 0).unwrap();
    assert_ne!(address, 0);
    let arena = testbed.take_map("ARENA").unwrap().try_into().unwrap();
    (testbed, arena, address)
}

/// The programs, and kernel memory for them to read.
pub struct Bed {
    pub tracer: Tracer,
    pub exit_program: &'static str,
    /// keeps the maps alive; also has the floors of benches
    pub testbed: Ebpf,
    pub arena: Array<MapData, [u8; ARENA]>,
    pub memory: Box<[u8; ARENA]>,
    pub address: u64,
}

impl Bed {
    pub fn new(config: Config, options: Options) -> Self {
        Self::with(config, options, ExitArguments::VcpuIsa)
    }

    pub fn with(config: Config, options: Options, exit_arguments: ExitArguments) -> Self {
        Self::reading(config, options, exit_arguments, cast())
    }

    /// With or without loads from kernel memory by the programs themselves (`cast`).
    pub fn reading(config: Config, options: Options, exit_arguments: ExitArguments, cast: Option<Cast>) -> Self {
        let layout = Layout {
            config,
            exit_arguments,
            missing: vec![],
            companion: Default::default(),
            userspace_exit: true,
            mmio: true,
            fast_mmio: true,
            cast,
        };
        let tracer = Tracer::load(&layout, &options).unwrap();
        assert_eq!(tracer.reads_directly(), cast.is_some());
        let (testbed, arena, address) = arena();
        let exit_program = if exit_arguments == ExitArguments::VcpuIsa { "kvm_exit" } else { "kvm_exit_5_15" };
        let mut bed = Self { tracer, exit_program, testbed, arena, memory: Box::new([0; ARENA]), address };
        for n in 0..4 {
            bed.set(n, KVM, bed.address + KVM_AT as u64);
            bed.set(n, ID, n as u64);
            bed.enter_level(n, 1);
        }
        bed
    }

    pub fn at(&self, vcpu: usize) -> u64 {
        self.address + (vcpu * VCPU) as u64
    }

    /// Writes eight bytes into a vCPU.
    pub fn set(&mut self, vcpu: usize, field: usize, value: u64) {
        let at = vcpu * VCPU + field;
        self.memory[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }

    pub fn enter_level(&mut self, vcpu: usize, level: u8) {
        let vmcs = if level == 1 { VMCS01 } else { VMCS02 };
        self.set(vcpu, LOADED_VMCS, self.at(vcpu) + vmcs as u64);
    }

    pub fn run(&mut self, program: &str, cpu: u32, args: &[u64]) {
        self.arena.set(0, *self.memory, 0).unwrap();
        let mut options = RawTracePointRunOptions::new();
        options.args[..args.len()].copy_from_slice(args);
        options.cpu = (cpu != HERE).then_some(cpu);
        self.tracer.program(program).unwrap().test_run(options).unwrap();
    }

    pub fn entry(&mut self, vcpu: usize, cpu: u32, immediate: bool) {
        self.run("kvm_entry", cpu, &[self.at(vcpu), immediate.into()]);
    }

    /// The companion patch's event of a VMWRITE to a control.
    pub fn write(&mut self, vcpu: usize, field: u64, vmcs02: bool) {
        self.run("kvm_vmcs_write", HERE, &[self.at(vcpu), field, 0, 1, vmcs02.into()]);
    }

    /// The stopwatch's event between VM-exit and kvm_exit, in TSC cycles.
    pub fn guest_time(&mut self, vcpu: usize, total: u64, guest: u64) {
        self.run("kvm_guest_time", HERE, &[self.at(vcpu), total, guest]);
    }

    /// kvm_exit, after which KVM counts the exit.
    pub fn exit(&mut self, vcpu: usize, cpu: u32, isa: u64, reason: u32) {
        self.set(vcpu, REASON, reason.into());
        self.run(self.exit_program, cpu, &[self.at(vcpu), isa]);
        let at = vcpu * VCPU + EXITS;
        let exits = u64::from_ne_bytes(self.memory[at..at + 8].try_into().unwrap());
        self.set(vcpu, EXITS, exits + 1);
    }

    pub fn round(&mut self, vcpu: usize, reason: u32) -> Event {
        self.entry(vcpu, HERE, false);
        self.exit(vcpu, HERE, VMX, reason);
        self.one_event()
    }

    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for ring in self.tracer.rings() {
            ring.drain(usize::MAX, |bytes| events.push(Event::decode(bytes).expect("a well-formed event")));
        }
        events
    }

    /// As [`Self::events`], where a record may be undecodable.
    pub fn events_that_decode(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for ring in self.tracer.rings() {
            ring.drain(usize::MAX, |bytes| events.extend(Event::decode(bytes)));
        }
        events
    }

    pub fn one_event(&mut self) -> Event {
        let events = self.events();
        assert_eq!(events.len(), 1);
        events[0]
    }

    /// A program, for a thread of its own that runs it.
    pub fn program(&mut self, name: &'static str) -> RawTracePoint {
        RawTracePoint::from_program_info(self.info(name), name.into()).unwrap()
    }

    fn info(&mut self, name: &str) -> ProgramInfo {
        self.tracer.program(name).unwrap().info().unwrap()
    }

    /// The states that the programs keep, writable.
    pub fn states(&mut self) -> Mapped<[VcpuState; MAX_STATES]> {
        let maps = self.info("kvm_entry").map_ids().unwrap().unwrap();
        let maps = maps.into_iter().map(|id| MapInfo::from_id(id).unwrap());
        let states = maps.into_iter().find(|map| map.name_as_str() == Some("STATES")).unwrap();
        Mapped::new(states.fd().unwrap().as_fd())
    }

    /// Simulated vCPUs in one set of states, this many.
    pub fn crowd(&mut self, vcpus: usize) -> Crowd {
        let (memory, base) = self.crowds_memory();
        let in_one_set = (0..CROWD).step_by(CROWDED).filter(|at| set_of(base + *at as u64) == set_of(base));
        let crowd = Crowd { memory, base, offsets: in_one_set.take(vcpus).collect() };
        assert_eq!(crowd.offsets.len(), vcpus);
        for n in 0..vcpus {
            // A VM of its own each, of which only the type is read: 0.
            crowd.set(n, KVM, crowd.at(n));
            crowd.set(n, ID, n as u64);
            crowd.set(n, EXITS, 5);
            crowd.set(n, REASON, Crowd::reason(n).into());
        }
        crowd
    }

    /// Simulated vCPUs with a VMCS each, this many.
    pub fn vcpus_in_mapped_memory(&mut self, vcpus: usize) -> Crowd {
        let (memory, base) = self.crowds_memory();
        let crowd = Crowd { memory, base, offsets: (0..vcpus).map(|n| n * VCPU).collect() };
        for n in 0..vcpus {
            crowd.set(n, KVM, crowd.at(n));
            crowd.set(n, ID, n as u64);
            crowd.set(n, LOADED_VMCS, crowd.at(n) + VMCS01 as u64);
        }
        crowd
    }

    /// Simulated vCPUs of a cache line each, this many: without a VMCS.
    pub fn vcpus_of_a_cache_line(&mut self, vcpus: usize) -> Crowd {
        let (memory, base) = self.crowds_memory();
        Crowd { memory, base, offsets: (0..vcpus).map(|n| n * CROWDED).collect() }
    }

    fn crowds_memory(&mut self) -> (Mapped<[u8; CROWD]>, u64) {
        let address: Array<_, u64> = self.testbed.map("ADDRESS").unwrap().try_into().unwrap();
        let base = address.get(&1, 0).unwrap();
        let Some(Map::Array(map)) = self.testbed.map("CROWD") else { panic!("CROWD is an array") };
        (Mapped::new(map.fd().as_fd()), base)
    }

    /// Counters of all CPUs together.
    pub fn counters(&self) -> Counters {
        self.tracer.counters().iter().fold(Counters::default(), |a, b| Counters {
            rounds: a.rounds + b.rounds,
            dropped: a.dropped + b.dropped,
            unmatched_entries: a.unmatched_entries + b.unmatched_entries,
            unmatched_exits: a.unmatched_exits + b.unmatched_exits,
            td_entries: a.td_entries + b.td_entries,
            no_state: a.no_state + b.no_state,
            evicted: a.evicted + b.evicted,
            stopwatch_excesses: a.stopwatch_excesses + b.stopwatch_excesses,
            inexact_phases: a.inexact_phases + b.inexact_phases,
            traced_early_exits: a.traced_early_exits + b.traced_early_exits,
            traced_timer_exits: std::array::from_fn(|i| a.traced_timer_exits[i] + b.traced_timer_exits[i]),
            // For the programs themselves.
            ..Counters::default()
        })
    }
}

/// Bytes of the crowd's memory, and of each vCPU in one set.
const CROWD: usize = 3 << 20;
const CROWDED: usize = 64;

/// Simulated vCPUs in memory that user space maps, so that threads can run them at the same time. Each has a VM of its own.
pub struct Crowd {
    memory: Mapped<[u8; CROWD]>,
    base: u64,
    /// of each vCPU, from the beginning of the memory
    offsets: Vec<usize>,
}

impl Crowd {
    /// Exit reason of a vCPU of one set.
    pub fn reason(vcpu: usize) -> u32 {
        1000 + vcpu as u32
    }

    /// Address of a vCPU, and of its `struct kvm`.
    pub fn at(&self, vcpu: usize) -> u64 {
        self.base + self.offsets[vcpu] as u64
    }

    /// Writes eight bytes into a vCPU.
    pub fn set(&self, vcpu: usize, field: usize, value: u64) {
        let at = self.offsets[vcpu] + field;
        // SAFETY: inside the mapping and aligned. Programs may read at the same time, and get the old or the new word.
        unsafe { self.memory.as_ptr().cast::<u8>().add(at).cast::<u64>().write_volatile(value) };
    }
}

/// A map's only value in memory, which programs may access at any time.
pub struct Mapped<T>(NonNull<T>);

// SAFETY: an address, valid in every thread; who accesses the memory argues for it.
unsafe impl<T> Sync for Mapped<T> {}

impl<T> Mapped<T> {
    fn new(map: BorrowedFd<'_>) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), size_of::<T>(), protection, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self(NonNull::new(at.cast()).unwrap())
    }

    pub fn as_ptr(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this length, and nobody else has its address.
        unsafe { libc::munmap(self.0.as_ptr().cast(), size_of::<T>()) };
    }
}

/// Pins this thread to a CPU.
pub fn pin_to(cpu: usize) {
    // SAFETY: a set of CPUs is a bit mask, for which all zeros is valid.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: CPU_SET indexes an array with a bounds check, so that it writes inside the set or panics.
    unsafe { libc::CPU_SET(cpu, &mut cpus) };
    // SAFETY: the length is that of `cpus`, so that the kernel reads only the set, which outlives the call.
    assert_eq!(unsafe { libc::sched_setaffinity(0, size_of_val(&cpus), &cpus) }, 0);
}
