//! Places of vCPUs' states, with the real programs: vCPUs that are quiet while others come and go.

use std::{collections::HashSet, ops::Range};

use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun};
use tracer_common::state::{MAX_STATES, VcpuState};
use vmentry::kernel::options::Options;

use super::{
    bed::*,
    cost::{Times, row},
    host::{CHURN, VCPUS},
};

/// vCPUs that make no exit from the first second to the last.
const QUIET: usize = 41;
const VCPUS_OF_A_VM: usize = 8;
/// vCPUs that begin in a second.
const NEW: usize = CHURN as usize * VCPUS_OF_A_VM;
/// Seconds after which it is known that a process has ended.
const KNOWN_AFTER: usize = 2;
/// vCPUs that have an address, a multiple of those that begin in a second.
const ADDRESSES: usize = VCPUS as usize + 560 * NEW;

/// The programs, and the vCPUs that they are called with.
struct Machine {
    bed: Bed,
    crowd: Crowd,
    programs: [RawTracePoint; 2],
    exits: Vec<u64>,
}

impl Machine {
    fn new() -> Self {
        let mut bed = Bed::new(config(), Options::default());
        let crowd = bed.vcpus_of_a_cache_line(ADDRESSES);
        for vcpu in 0..ADDRESSES {
            crowd.set(vcpu, KVM, crowd.at(vcpu - vcpu % VCPUS_OF_A_VM));
            crowd.set(vcpu, ID, (vcpu % VCPUS_OF_A_VM) as u64);
            crowd.set(vcpu, REASON, 10);
        }
        let programs = ["kvm_entry", "kvm_exit"].map(|name| bed.program(name));
        Self { bed, crowd, programs, exits: vec![0; ADDRESSES] }
    }

    fn call(&self, program: usize, vcpu: usize) {
        let mut options = RawTracePointRunOptions::new();
        options.args[..2].copy_from_slice(&[self.crowd.at(vcpu), if program == 0 { 0 } else { VMX }]);
        self.programs[program].test_run(options).unwrap();
    }

    fn enter(&mut self, vcpu: usize) {
        self.call(0, vcpu);
    }

    /// kvm_exit, after which KVM counts the exit.
    fn exit(&mut self, vcpu: usize) {
        self.call(1, vcpu);
        self.exits[vcpu] += 1;
        self.crowd.set(vcpu, EXITS, self.exits[vcpu]);
    }

    /// vCPUs of VMs that begin, make some rounds, and end: others may have had their addresses before.
    fn live(&mut self, vcpus: Range<usize>) {
        for vcpu in vcpus {
            self.exits[vcpu] = 0;
            self.crowd.set(vcpu, EXITS, 0);
            for _ in 0..3 {
                self.enter(vcpu);
                self.exit(vcpu);
            }
        }
    }
}

/// Prints how many states of living vCPUs were lost in so many seconds, without and with those of ended VMs being freed.
pub fn run(seconds: usize) {
    let living = VCPUS as usize;
    row("states: memory", format!("{:.1}", (MAX_STATES * VcpuState::SIZE) as f64 / 1e6), "MB", "16 384 vCPUs, always");
    for frees in [false, true] {
        let mut machine = Machine::new();
        for vcpu in 0..living {
            machine.enter(vcpu);
            // Those that are quiet stay in the guest.
            if vcpu >= QUIET {
                machine.exit(vcpu);
            }
        }
        let mut times = Times::default();
        let new = |second: usize| living + second * NEW % (ADDRESSES - living);
        for second in 0..seconds {
            // Each of the others makes a round a minute.
            for vcpu in (QUIET..living).filter(|vcpu| vcpu % 60 == second % 60) {
                machine.enter(vcpu);
                machine.exit(vcpu);
            }
            machine.live(new(second)..new(second) + NEW);
            if let Some(known) = second.checked_sub(KNOWN_AFTER).filter(|_| frees) {
                let gone: HashSet<u64> = (new(known)..new(known) + NEW).map(|vcpu| machine.crowd.at(vcpu)).collect();
                times.of(|| machine.bed.tracer.free_states(|_, kvm| gone.contains(&kvm)));
            }
            machine.bed.events();
        }
        let before = machine.bed.counters();
        (0..QUIET).for_each(|vcpu| machine.exit(vcpu));
        let lost = machine.bed.counters().unmatched_exits - before.unmatched_exits;
        let how = if frees { "those of ended VMs freed" } else { "none freed, as before" };
        let condition = format!("{NEW} new vCPUs/s for {seconds} s beside {living}, {how}");
        row("states: evicted", before.evicted, "states", &condition);
        row(
            "states: lost of quiet vCPUs",
            format!("{lost} of {QUIET}"),
            "vCPUs",
            &format!("without an exit for {seconds} s"),
        );
        if frees {
            row("states: time to free", times.shown(), "ms/interval", "one look at all places where a VM ended");
        }
    }
}
