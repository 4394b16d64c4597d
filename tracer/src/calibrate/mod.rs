//! `vmentry calibrate`: the VM-entry latency itself, from a guest that stamps the TSC on both sides of every VM entry.
//!
//! One thread, pinned to a CPU, runs the guest and looks at the clocks; the programs on kvm_entry and kvm_exit write the guest's
//! stamps into their records. What is here does the I/O; `mapping`, `sample`, `summary`, `text` and `json` are pure.

mod bench;
pub mod exits;
mod json;
pub mod mapping;
mod measure;
pub mod sample;
pub mod summary;
mod text;

use std::{
    io::Write,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::{sync::mpsc, time::Instant};
use tracer_common::{Isa, Slot};

use crate::{
    commands::{
        args::{CalibrateArgs, Format},
        child::Endings,
        record,
    },
    guest::{GuestHost, kick},
    host::{
        facts::{self, Facts},
        machine::{Host, Roots},
        policy, stopwatch,
    },
    kernel::{
        layout::Layout,
        tracer::{Options, Tracer},
    },
    model::vendor::Vendor,
    output,
};
use bench::{Bench, RING_BYTES, Settings};
use measure::{Measured, Plan};

/// How long a run of the guest may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the thread that runs the guest is kicked when it must stop.
const KICK_EVERY: Duration = Duration::from_millis(10);
/// TSC cycles until the timers of `hlt` and `tsc-deadline`.
const DELTA: u32 = 200_000;
/// How far the guest's TSC frequency may be from the host's: KVM itself knows the host's to some 250 ppm.
const SAME_FREQUENCY: f64 = 1e-3;

/// A calibration: what was measured, and where.
pub struct Calibration {
    /// the host
    pub host: Host,
    /// the CPU that the guest was pinned to
    pub cpu: u32,
    /// samples of each exit that were asked for
    pub samples: u64,
    /// loop instructions between the guest's stamps
    pub work: u32,
    /// the kernel's clock source, e.g. "tsc"
    pub clocksource: String,
    /// what makes the figures worth less
    pub caveats: Vec<String>,
    /// the figures
    pub measured: Measured,
    /// what ended it before it was complete; none where it is complete
    pub stopped: Option<&'static str>,
}

/// What the thread that measures tells.
enum Message {
    /// a run of the guest has ended
    Alive,
    /// what is measured next
    Now(String),
}

/// Calibrates as the arguments say.
pub fn run(args: &CalibrateArgs) -> Result<ExitCode> {
    let facts = facts::gather(false);
    if let Some(errors) = facts::errors(&facts.problems()) {
        bail!("cannot calibrate here:\n{errors}\n  'vmentry check' shows everything");
    }
    let layout = facts.layout.clone().context("no layout, and no error about it")?;
    let clock = Clock::gather();
    if let Some(why) = refusal(&facts.host, &layout, &clock) {
        bail!("cannot calibrate here: {why}");
    }
    let cpu = choose_cpu(args.cpu)?;
    let plan = plan(args, &facts, &layout);
    let stopwatch = stopwatch::start(&facts)?;
    let options = Options {
        stamps: true,
        stopwatch,
        tgids: Some(vec![std::process::id()]),
        ring_bytes: RING_BYTES,
        ..Options::default()
    };
    let tracer = Tracer::load(&layout, &options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
    let (measured, stopped) = runtime.block_on(watched(tracer, plan, cpu, args.work))?;
    let calibration = Calibration {
        caveats: caveats(&facts, &clock),
        host: facts.host,
        cpu,
        samples: args.samples,
        work: args.work,
        clocksource: clock.source,
        measured,
        stopped,
    };
    match args.format {
        Format::Text => output::print(&text::render(&calibration))?,
        Format::Json => output::print(&(serde_json::to_string_pretty(&json::render(&calibration))? + "\n"))?,
    }
    Ok(if stopped.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn plan(args: &CalibrateArgs, facts: &Facts, layout: &Layout) -> Plan {
    let isa = if facts.host.vendor == Some(Vendor::Intel) { Isa::Vmx } else { Isa::Svm };
    let one_policy = match policy::check_switchable() {
        _ if isa != Isa::Vmx => Some("only VMX has pin controls".to_owned()),
        Err(error) => Some(format!("{error:#}")),
        Ok(()) if layout.config.get(Slot::VmcsPin).is_none() => {
            Some("loaded_vmcs.controls_shadow.pin is not in this kernel's BTF: dirty entries cannot be told".into())
        }
        Ok(()) if facts.stopwatch == Some(true) => Some(
            "the stopwatch is on, with which kvm_intel refuses the hard policy: load it with preemption_timer_stopwatch=0".into(),
        ),
        Ok(()) if facts.policy == crate::model::policy::Policy::Off => {
            Some("kvm_intel has preemption_timer=N: neither policy has an effect".into())
        }
        Ok(()) => None,
    };
    let exits = if args.exit.is_empty() { exits::Exit::ALL.to_vec() } else { args.exit.clone() };
    let host = GuestHost::probe(&Roots::default().sys);
    Plan { exits, samples: args.samples, host, isa, policy: facts.policy, one_policy }
}

/// Measures in a thread of its own until that is done or a signal comes; what was measured, and the signal.
async fn watched(tracer: Tracer, plan: Plan, cpu: u32, work: u32) -> Result<(Measured, Option<&'static str>)> {
    // Listening comes first: from here on a signal cannot end this process while a policy waits to be restored.
    let mut endings = Endings::new()?;
    kick::prepare()?;
    let (stop, tid) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (sender, mut messages) = mpsc::unbounded_channel();
    let thread = {
        let (stop, tid) = (Arc::clone(&stop), Arc::clone(&tid));
        let work = move || {
            tid.store(kick::this_thread(), Ordering::Relaxed);
            measure_here(tracer, &plan, cpu, work, &stop, &sender)
        };
        thread::Builder::new().name("vcpu 0".into()).spawn(work).context("start the vCPU's thread")?
    };

    let progress = Progress::new();
    let (mut stopped, mut alive) = (None, Instant::now());
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(Message::Alive) => alive = Instant::now(),
                Some(Message::Now(what)) => progress.show(&what),
                None => break,
            },
            signal = endings.next() => {
                stopped = Some(signal);
                stop.store(true, Ordering::Relaxed);
            }
            () = tokio::time::sleep(if stop.load(Ordering::Relaxed) { KICK_EVERY } else { PATIENCE }) => {
                if alive.elapsed() >= PATIENCE && stopped.is_none() {
                    stopped = Some("a guest that hung");
                    stop.store(true, Ordering::Relaxed);
                }
                if stop.load(Ordering::Relaxed) {
                    kick::send(tid.load(Ordering::Relaxed));
                }
            }
        }
    }
    progress.clear();
    let (measured, result) = thread.join().map_err(|_| anyhow!("the vCPU's thread panicked: please report this"))?;
    match result {
        Err(error) if stopped.is_none() => Err(error),
        // What was complete before is shown all the same.
        _ => Ok((measured, stopped)),
    }
}

/// The thread that measures. Whatever happens, the programs are detached and the policy is restored when it ends.
fn measure_here(
    tracer: Tracer,
    plan: &Plan,
    cpu: u32,
    work: u32,
    stop: &AtomicBool,
    sender: &mpsc::UnboundedSender<Message>,
) -> (Measured, Result<()>) {
    let mut measured = Measured::default();
    // A receiver that is gone has stopped listening, not measuring.
    let tell = |message| drop(sender.send(message));
    let alive = || tell(Message::Alive);
    let say = |what| tell(Message::Now(what));
    let result = (|| {
        pin_to(cpu)?;
        let settings = Settings { work, delta: DELTA, far: 0 };
        let mut bench = Bench::new(tracer, cpu, settings, stop, &alive)?;
        bench.look()?;
        thread::sleep(Duration::from_millis(100));
        bench.look()?;
        let (guest, host) = (f64::from(bench.guest_khz()?), bench.khz().context("compare the clocks")?);
        ensure!(
            (guest / host - 1.0).abs() < SAME_FREQUENCY,
            "the guest's TSC runs at {guest:.0} kHz and the host's at {host:.0} kHz: this KVM scales it, or the host's is not stable"
        );
        bench.set_far(guest);
        measure::all(&mut bench, plan, &mut measured, &say)
    })();
    (measured, result)
}

/// The CPU to pin to: the one asked for, or the last one that this process may run on, as interrupts like the first.
fn choose_cpu(asked: Option<u32>) -> Result<u32> {
    let allowed = allowed_cpus()?;
    match asked {
        Some(cpu) if allowed.contains(&cpu) => Ok(cpu),
        Some(cpu) => {
            let list: Vec<_> = allowed.iter().map(u32::to_string).collect();
            bail!("--cpu {cpu}: this process may run on CPU {} only", list.join(","))
        }
        None => allowed.last().copied().context("this process may run on no CPU"),
    }
}

fn allowed_cpus() -> Result<Vec<u32>> {
    // SAFETY: a set of CPUs is plain bits, for which all zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is of the size that is told.
    let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0;
    if failed {
        return Err(std::io::Error::last_os_error()).context("ask which CPUs this process may run on");
    }
    // SAFETY: the numbers are within the set.
    Ok((0..libc::CPU_SETSIZE as u32).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu as usize, &set) }).collect())
}

/// Pins the calling thread.
fn pin_to(cpu: u32) -> Result<()> {
    // SAFETY: as in allowed_cpus.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the CPU is one of those that allowed_cpus found, so within the set.
    unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    // SAFETY: as in allowed_cpus.
    let failed = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } != 0;
    if failed {
        return Err(std::io::Error::last_os_error()).with_context(|| format!("pin the vCPU's thread to CPU {cpu}"));
    }
    Ok(())
}

/// The host's TSC.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clock {
    /// it runs at one rate in all states of the CPU (CPUID 0x80000007, EDX bit 8)
    invariant: bool,
    /// the kernel's clock source
    source: String,
}

impl Clock {
    fn gather() -> Self {
        let source = Roots::default().sys.join("devices/system/clocksource/clocksource0/current_clocksource");
        Self {
            invariant: has_invariant_tsc(),
            source: std::fs::read_to_string(source).map_or("unknown".into(), |s| s.trim().to_owned()),
        }
    }
}

fn has_invariant_tsc() -> bool {
    use std::arch::x86_64::__cpuid;
    __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & 1 << 8 != 0
}

/// Why no figure of this host could be trusted; none where some can.
fn refusal(host: &Host, layout: &Layout, clock: &Clock) -> Option<String> {
    if !matches!(host.vendor, Some(Vendor::Intel | Vendor::Amd)) {
        return Some(
            "the KVM module is neither kvm_intel nor kvm_amd: there are no kvm_entry and kvm_exit around its VM entries, if it has any"
                .into(),
        );
    }
    if layout.config.get(Slot::GuestR8).is_none() {
        return Some("kvm_vcpu.arch.regs is not in this kernel's BTF: the guest's stamps cannot be read".into());
    }
    // An emulator's times are no times of any CPU anyway: that is said with every figure.
    (!clock.invariant && !host.emulated).then(|| {
        "the TSC is not invariant (CPUID 0x80000007, EDX bit 8): its cycles are no measure of time. Hypervisors hide the bit unless          told otherwise (QEMU: -cpu host,invtsc=on)"
            .into()
    })
}

/// What makes the figures worth less.
fn caveats(facts: &Facts, clock: &Clock) -> Vec<String> {
    let mut caveats = Vec::new();
    if let Some(hypervisor) = facts.host.virtualized.as_ref().filter(|_| !facts.host.emulated) {
        caveats.push(format!(
            "this host is itself a VM (of {hypervisor}): its VM entries and exits contain the outer hypervisor's work, and its TSC may              be scaled by it"
        ));
    }
    if !clock.invariant {
        caveats.push("the TSC is not said to be invariant".into());
    }
    if facts.stopwatch == Some(true) {
        caveats.push(
            "the stopwatch is on: its VMWRITE is in entry latency, its VMREAD, tracepoint and program are in exit latency".into(),
        );
    }
    if clock.source != "tsc" {
        caveats.push(format!(
            "the kernel's clock source is {}, not tsc: CLOCK_MONOTONIC takes longer to read, which the clocks' error contains",
            clock.source
        ));
    }
    caveats
}

/// What is under way, on a terminal.
struct Progress {
    line: bool,
}

impl Progress {
    fn new() -> Self {
        Self { line: record::has_moving_line() }
    }

    fn show(&self, what: &str) {
        if self.line {
            let _ = write!(std::io::stderr(), "\r\x1b[Kcalibrating: {what}. Ctrl-C shows what there is");
        }
    }

    fn clear(&self) {
        if self.line {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::layout::{Companion, ExitArguments};

    fn layout(with_registers: bool) -> Layout {
        let mut config = tracer_common::Config::empty();
        if with_registers {
            config.set(Slot::GuestR8, 64);
        }
        let (exit_arguments, companion) = (ExitArguments::VcpuIsa, Companion::default());
        Layout { config, exit_arguments, missing: vec![], companion, cast: None }
    }

    #[test]
    fn hosts_whose_figures_could_not_be_trusted_are_refused_with_the_reason() {
        let clock = |invariant| Clock { invariant, source: "tsc".into() };
        let intel = Host { vendor: Some(Vendor::Intel), ..Host::default() };
        assert_eq!(refusal(&intel, &layout(true), &clock(true)), None);
        assert!(refusal(&intel, &layout(true), &clock(false)).unwrap().contains("not invariant"));
        assert!(refusal(&intel, &layout(false), &clock(true)).unwrap().contains("arch.regs"));
        let other = Host { vendor: Some(Vendor::Other), ..Host::default() };
        assert!(refusal(&other, &layout(true), &clock(true)).unwrap().contains("neither kvm_intel nor kvm_amd"));
        let emulated = Host { emulated: true, ..intel };
        assert_eq!(refusal(&emulated, &layout(true), &clock(false)), None);
    }

    #[test]
    fn a_cpu_that_is_not_allowed_is_refused_with_those_that_are() {
        let allowed = allowed_cpus().unwrap();
        assert_eq!(choose_cpu(None).unwrap(), *allowed.last().unwrap());
        let error = choose_cpu(Some(1023)).unwrap_err().to_string();
        assert!(error.contains("--cpu 1023") && error.contains(&allowed[0].to_string()), "{error}");
    }

    #[test]
    fn a_pinned_thread_runs_on_its_cpu() {
        let cpu = choose_cpu(None).unwrap();
        let seen = thread::spawn(move || {
            pin_to(cpu).unwrap();
            allowed_cpus().unwrap()
        });
        assert_eq!(seen.join().unwrap(), [cpu]);
    }
}
