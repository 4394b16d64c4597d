//! VMs made up by a process of their own: it holds a KVM VM where /dev/kvm is usable, and runs the programs of a running vmentry with
//! vCPUs that it lays out in kernel memory.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio, exit},
    thread::sleep,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::{RawTracePoint, RawTracePointRunOptions, TestRun, loaded_programs},
};
use kvm_ioctls::{Kvm, VmFd};
use serde::{Deserialize, Serialize};

use super::{
    bed::{self, ARENA, KVM_AT, SVM, VCPU, VMX},
    btf::REQUESTS_IMMEDIATE,
    kernel_objects,
};

/// The environment variable that makes this executable a VM; its value is the comm, in hexadecimal digits.
const ROLE: &str = "VMENTRY_MADE_UP_VM";

/// Rounds of one vCPU, and what a program can read during them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rounds {
    pub count: u32,
    /// exit reason (VMX) or exit code (SVM)
    pub reason: u32,
    /// [`VMX`] or [`SVM`]
    pub isa: u64,
    /// 1, or 2 for a nested guest
    pub level: u8,
    pub vcpu: usize,
    /// the pin controls change before the first so many entries
    pub pin_writes: u32,
    /// every entry is forced to exit immediately
    pub immediate: bool,
    /// the preemption timer is soft-disabled
    pub soft_disabled: bool,
    /// the timer's deadline lies so many us ahead of each entry, behind it where this is negative; none for no deadline
    pub deadline_us: Option<i64>,
    /// the CPU that the vCPU runs on; none for any
    pub cpu: Option<u32>,
    pub pause_us: u64,
    /// so many VMs make these rounds, one after the other, each in a process that then ends; their vCPUs have the same address. None: this VM
    pub new_vms: Option<u32>,
}

/// Exit reason of CPUID on VMX.
pub const CPUID: u32 = 10;
/// Exit reason of the VMX-preemption timer.
pub const PREEMPTION_TIMER: u32 = 52;
/// Exit code of CPUID on SVM.
pub const SVM_CPUID: u32 = 0x72;

impl Rounds {
    /// CPUID exits of vCPU 0 on VMX.
    pub fn vmx(count: u32) -> Self {
        Self {
            count,
            reason: CPUID,
            isa: VMX,
            level: 1,
            vcpu: 0,
            pin_writes: 0,
            immediate: false,
            soft_disabled: false,
            deadline_us: None,
            cpu: None,
            pause_us: 0,
            new_vms: None,
        }
    }

    /// CPUID exits of vCPU 0 on SVM.
    pub fn svm(count: u32) -> Self {
        Self { reason: SVM_CPUID, isa: SVM, ..Self::vmx(count) }
    }
}

/// A line to the VM's process: rounds, and the processes of vmentry that trace them.
#[derive(Serialize, Deserialize)]
struct Task {
    rounds: Rounds,
    tracers: Vec<u32>,
}

/// A running VM, killed at the end.
pub struct Vm {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// /dev/kvm is usable here, so that the process can be recognised as a VM
    pub holds_kvm: bool,
}

impl Vm {
    /// A VM named web1, as QEMU names it.
    pub fn start() -> Self {
        Self::with(b"qemu-system-x86", &["qemu-system-x86_64", "-name", "web1"])
    }

    /// A VM whose process has this comm and command line.
    pub fn with(comm: &[u8], command_line: &[&str]) -> Self {
        let hexadecimal: String = comm.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg0(command_line[0]).args(&command_line[1..]).env(ROLE, hexadecimal);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let holds_kvm = read(&mut output);
        Self { child, input, output, holds_kvm }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Begins rounds that these processes of vmentry trace.
    pub fn begin(&mut self, tracers: &[u32], rounds: &Rounds) {
        let task = Task { rounds: rounds.clone(), tracers: tracers.to_vec() };
        writeln!(self.input, "{}", serde_json::to_string(&task).unwrap()).unwrap();
    }

    /// Waits for the end of the rounds that were begun.
    pub fn end(&mut self) {
        read::<()>(&mut self.output);
    }

    /// Makes rounds that these processes of vmentry trace.
    pub fn run(&mut self, tracers: &[u32], rounds: &Rounds) {
        self.begin(tracers, rounds);
        self.end();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read<T: for<'a> Deserialize<'a>>(output: &mut impl BufRead) -> T {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("the VM's process has failed: {e}: {line:?}"))
}

/// Runs before `main`, where the test harness would refuse a VMM's command line.
#[used]
#[unsafe(link_section = ".init_array")]
static BECOME_A_VM: extern "C" fn() = become_a_vm;

extern "C" fn become_a_vm() {
    let Some(comm) = std::env::var_os(ROLE) else { return };
    let comm = comm.into_string().unwrap();
    let digits = (0..comm.len()).step_by(2).map(|at| u8::from_str_radix(&comm[at..at + 2], 16).unwrap());
    let comm: Vec<u8> = digits.chain([0]).collect();
    // SAFETY: the name ends with a zero byte; the kernel copies at most 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, comm.as_ptr()) };
    let mut machine = Machine::new();
    println!("{}", machine.vm.is_some());
    for line in std::io::stdin().lines() {
        machine.work(&serde_json::from_str(&line.unwrap()).unwrap());
        println!("null");
    }
    exit(0);
}

/// The VM as its process sees it.
struct Machine {
    /// the file by which the process is recognised as a VM; none where /dev/kvm is not usable
    vm: Option<VmFd>,
    /// keeps the memory alive
    _memory_owner: Ebpf,
    arena: Array<MapData, [u8; ARENA]>,
    memory: Box<[u8; ARENA]>,
    address: u64,
    /// by process of vmentry
    programs: HashMap<u32, Programs>,
    tsc_mhz: Option<i64>,
}

/// The programs of one vmentry.
struct Programs {
    entry: RawTracePoint,
    exit: RawTracePoint,
}

impl Programs {
    fn of(vmentry: u32) -> Self {
        let ids = kernel_objects::held_by(vmentry).programs;
        let program = |name: &str| {
            let mut loaded = loaded_programs().flatten().filter(|p| ids.contains(&p.id()));
            // The name of one that is compiled for some options has an ending.
            let info = loaded.find(|p| p.name_as_str().is_some_and(|loaded| loaded.starts_with(name)));
            let info = info.unwrap_or_else(|| panic!("process {vmentry} has no program {name}"));
            RawTracePoint::from_program_info(info, name.to_owned().into()).unwrap()
        };
        Self { entry: program("kvm_entry"), exit: program("kvm_exit") }
    }
}

fn run(program: &RawTracePoint, arguments: [u64; 2]) {
    let mut options = RawTracePointRunOptions::new();
    options.args[..2].copy_from_slice(&arguments);
    program.test_run(options).unwrap();
}

impl Machine {
    fn new() -> Self {
        let (memory_owner, arena, address) = bed::arena();
        let mut machine = Self {
            vm: Kvm::new().and_then(|kvm| kvm.create_vm()).ok(),
            _memory_owner: memory_owner,
            arena,
            memory: Box::new([0; ARENA]),
            address,
            programs: HashMap::new(),
            tsc_mhz: None,
        };
        for vcpu in 0..KVM_AT / VCPU {
            let at = machine.at(vcpu);
            machine.set(vcpu, bed::KVM, machine.address + KVM_AT as u64);
            machine.set(vcpu, bed::ID, vcpu as u64);
            machine.set(vcpu, bed::VMCB, at);
            machine.set(vcpu, bed::VMCB01, at);
        }
        machine
    }

    /// The TSC's frequency, measured once: cycles per us.
    fn tsc_mhz(&mut self) -> i64 {
        *self.tsc_mhz.get_or_insert_with(|| {
            let (start, since) = (tsc(), Instant::now());
            sleep(Duration::from_millis(50));
            let cycles = u128::from(tsc() - start);
            i64::try_from(cycles * 1000 / since.elapsed().as_nanos()).unwrap()
        })
    }

    fn at(&self, vcpu: usize) -> u64 {
        self.address + (vcpu * VCPU) as u64
    }

    fn get(&self, vcpu: usize, field: usize) -> u64 {
        let at = vcpu * VCPU + field;
        u64::from_ne_bytes(self.memory[at..at + 8].try_into().unwrap())
    }

    fn set(&mut self, vcpu: usize, field: usize, value: u64) {
        let at = vcpu * VCPU + field;
        self.memory[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }

    fn work(&mut self, task: &Task) {
        let Task { rounds, tracers } = task;
        if let Some(cpu) = rounds.cpu {
            stay_on(cpu);
        }
        for tracer in tracers {
            self.programs.entry(*tracer).or_insert_with(|| Programs::of(*tracer));
        }
        let Some(vms) = rounds.new_vms else { return self.make(task) };
        for _ in 0..vms {
            // SAFETY: this process has one thread, so that its copy finds no lock taken by another.
            let copy = unsafe { libc::fork() };
            assert!(copy >= 0, "{}", std::io::Error::last_os_error());
            if copy == 0 {
                self.set(rounds.vcpu, bed::EXITS, 0);
                self.make(task);
                exit(0);
            }
            let mut status = 0;
            // SAFETY: the process is this one's child, and `status` a valid place.
            assert_eq!(unsafe { libc::waitpid(copy, &raw mut status, 0) }, copy);
            assert_eq!(status, 0);
        }
    }

    fn make(&mut self, task: &Task) {
        let Task { rounds, tracers } = task;
        let vcpu = rounds.vcpu;
        let at = self.at(vcpu);
        let vmcs = if rounds.level == 1 { bed::VMCS01 } else { bed::VMCS02 };
        self.set(vcpu, bed::LOADED_VMCS, at + vmcs as u64);
        self.set(vcpu, vmcs + bed::SOFT, rounds.soft_disabled.into());
        self.set(vcpu, bed::GUEST_MODE, (rounds.level == 2).into());
        self.set(vcpu, REQUESTS_IMMEDIATE, rounds.immediate.into());
        let reason = if rounds.isa == VMX { bed::REASON } else { bed::EXIT_CODE };
        self.set(vcpu, reason, rounds.reason.into());
        for n in 0..rounds.count {
            if n < rounds.pin_writes {
                self.set(vcpu, vmcs + bed::PIN, self.get(vcpu, vmcs + bed::PIN) ^ 0x40);
            }
            let ahead = rounds.deadline_us.map(|us| us * self.tsc_mhz());
            self.set(vcpu, bed::DEADLINE, ahead.map_or(u64::MAX, |cycles| tsc().wrapping_add_signed(cycles)));
            self.arena.set(0, *self.memory, 0).unwrap();
            for tracer in tracers {
                run(&self.programs[tracer].entry, [at, rounds.immediate.into()]);
            }
            for tracer in tracers {
                run(&self.programs[tracer].exit, [at, rounds.isa]);
            }
            self.set(vcpu, bed::EXITS, self.get(vcpu, bed::EXITS) + 1);
            if rounds.pause_us > 0 {
                sleep(Duration::from_micros(rounds.pause_us));
            }
        }
    }
}

fn tsc() -> u64 {
    // SAFETY: RDTSC accesses no memory, and every x86-64 CPU has it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Moves this thread to a CPU for good.
fn stay_on(cpu: u32) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu as usize);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}
