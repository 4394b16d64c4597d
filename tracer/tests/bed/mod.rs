//! A test bed on the running kernel: the loaded programs, and a map value in which made-up vCPUs live.

#![allow(clippy::unwrap_used, dead_code, missing_docs)]

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData},
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun},
};
use tracer_common::{Config, Counters, Event, Slot};
use vmentry::kernel::{
    btf::Btf,
    layout::{Cast, ExitArguments, Layout},
    options::Options,
    tracer::Tracer,
};

pub static TESTBED: &[u8] = aya::include_bytes_aligned!(concat!(env!("VMENTRY_BPF_DIR"), "/testbed.bpf.o"));
pub const ARENA: usize = 32768;

// Where the made-up kernel keeps things, from the beginning of a vCPU. Nothing is where a real kernel has it.
pub const VCPU: usize = 1024;
pub const KVM: usize = 8;
pub const ID: usize = 16;
pub const EXITS: usize = 24;
pub const GUEST_MODE: usize = 32;
pub const REASON: usize = 40;
pub const LOADED_VMCS: usize = 48;
pub const VMCB: usize = 56;
pub const VMCS01: usize = 128;
pub const VMCS02: usize = 256;
pub const PIN: usize = 8;
pub const SOFT: usize = 16;
pub const EXEC: usize = 24;
pub const EXIT_CODE: usize = 400;
pub const REGISTERS: usize = 512;
pub const VM_TYPE: usize = 4;
/// A `struct kvm`, from the beginning of the arena.
pub const KVM_AT: usize = 16384;

/// Run in the test's own thread, on whatever CPU that is. On a CPU asked for, the task at hand is any.
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
        (Slot::SvmVmcb, VMCB),
        (Slot::VmcbExitCode, EXIT_CODE),
        (Slot::EntryHasImmediate, 1),
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

/// The programs, and kernel memory for them to look at.
pub struct Bed {
    pub tracer: Tracer,
    pub exit_program: &'static str,
    /// keeps the arena's map alive; it has the floors of benches, too
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

    /// With or without loads from kernel memory by the programs themselves.
    pub fn reading(config: Config, options: Options, exit_arguments: ExitArguments, cast: Option<Cast>) -> Self {
        let layout = Layout { config, exit_arguments, missing: vec![], companion: Default::default(), cast };
        let tracer = Tracer::load(&layout, &options).unwrap();
        assert_eq!(tracer.reads_directly(), cast.is_some());
        let mut testbed = EbpfLoader::new().btf(None).load(TESTBED).unwrap();
        let locate: &mut RawTracePoint = testbed.program_mut("locate").unwrap().try_into().unwrap();
        locate.load().unwrap();
        locate.test_run(RawTracePointRunOptions::new()).unwrap();
        let address: Array<_, u64> = testbed.map("ADDRESS").unwrap().try_into().unwrap();
        let address = address.get(&0, 0).unwrap();
        assert_ne!(address, 0);
        let arena = testbed.take_map("ARENA").unwrap().try_into().unwrap();
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

    /// What the companion patch tells of a VMWRITE to a control.
    pub fn write(&mut self, vcpu: usize, field: u64, vmcs02: bool) {
        self.run("kvm_vmcs_write", HERE, &[self.at(vcpu), field, 0, 1, vmcs02.into()]);
    }

    /// What the companion patch's stopwatch tells between VM exit and kvm_exit, TSC cycles.
    pub fn guest_time(&mut self, vcpu: usize, total: u64, guest: u64) {
        self.run("kvm_guest_time", HERE, &[self.at(vcpu), total, guest]);
    }

    /// kvm_exit, and what KVM does next: it counts the exit.
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

    pub fn one_event(&mut self) -> Event {
        let events = self.events();
        assert_eq!(events.len(), 1);
        events[0]
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
            traced_timer_exits: std::array::from_fn(|i| a.traced_timer_exits[i] + b.traced_timer_exits[i]),
            ..Counters::default()
        })
    }
}
