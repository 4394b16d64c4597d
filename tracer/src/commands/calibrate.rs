//! `vmentry calibrate`: refuses hosts whose times cannot be trusted, measures on a thread of its own, prints.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::{sync::mpsc, time::Instant};
use tracer_common::{Isa, Slot};

use crate::{
    calibrate::{
        Calibration, Job, RING_BYTES, Update,
        affinity::choose_cpu,
        exits, json,
        measure::{CalibrationPlan, Measured},
        measure_here,
        suitability::{HostClock, caveats, refusal},
        text,
    },
    commands::{
        args::{CalibrateArgs, Format},
        child::{Endings, default_endings},
        progress::ProgressLine,
        session::{runtime, traceable_host},
    },
    guest::{GuestHost, kick},
    host::{facts::Facts, pid_namespace, policy, roots::Roots, stopwatch},
    kernel::{layout::Layout, options::Options, tracer::Tracer},
    model::{policy::Policy, vendor::Vendor},
    output,
};

/// How long a run of the guest may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the guest's thread is kicked when it must stop.
const KICK_EVERY: Duration = Duration::from_millis(10);

/// Calibrates as the arguments say.
pub(super) fn run(args: &CalibrateArgs) -> Result<ExitCode> {
    let (facts, layout) = traceable_host("calibrate", "", false)?;
    let clock = HostClock::gather();
    if let Some(why) = refusal(&facts.host, &layout, &clock) {
        bail!("cannot calibrate here: {why}");
    }
    let Some(this_process) = pid_namespace::this_process(&Roots::default().proc) else {
        bail!(
            "cannot calibrate here: this process is in a PID namespace of its own, so that its entries cannot be told\n  -> {}",
            pid_namespace::FIX
        );
    };
    let cpu = choose_cpu(args.cpu)?;
    let plan = plan(args, &facts, &layout);
    let stopwatch = stopwatch::start(&facts)?;
    let options = Options {
        stamps: true,
        // Every instruction before the VM entry is a part of what is measured.
        phases: false,
        stopwatch,
        tgids: Some(vec![this_process]),
        ring_bytes: RING_BYTES,
        ..Options::default()
    };
    let tracer = Tracer::load(&layout, &options)?;
    let job = Job { plan, cpu, work: args.work };
    let (measured, stopped) = runtime()?.block_on(watched(tracer, job))?;
    // Nothing is left to restore: a signal may end the printing, whoever reads it.
    default_endings();
    let calibration = Calibration {
        caveats: caveats(&facts, &clock),
        host: facts.host,
        cpu,
        samples: args.samples,
        work: args.work,
        clocksource: clock.source,
        measured,
        stopped_by: stopped,
    };
    match args.format() {
        Format::Text => output::print(&text::render(&calibration))?,
        Format::Json => output::print(&(serde_json::to_string_pretty(&json::render(&calibration))? + "\n"))?,
    }
    Ok(if stopped.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn plan(args: &CalibrateArgs, facts: &Facts, layout: &Layout) -> CalibrationPlan {
    let isa = if facts.host.vendor == Some(Vendor::Intel) { Isa::Vmx } else { Isa::Svm };
    let one_policy = match policy::check_switchable() {
        _ if isa != Isa::Vmx => Some("only VMX has pin controls".to_owned()),
        Err(error) => Some(output::one_line(&format!("{error:#}"))),
        Ok(()) if layout.config.get(Slot::VmcsPin).is_none() => Some(
            "loaded_vmcs.controls_shadow.pin is not in this kernel's BTF: dirty entries cannot be recognised".into(),
        ),
        Ok(()) if facts.stopwatch == Some(true) => Some(
            "kvm_intel refuses the hard policy while the stopwatch is on: load it with preemption_timer_stopwatch=0"
                .into(),
        ),
        Ok(()) if facts.policy == Policy::Off => {
            Some("kvm_intel has preemption_timer=N: neither policy has an effect".into())
        }
        Ok(()) => None,
    };
    let exits = if args.exit.is_empty() { exits::Exit::ALL.to_vec() } else { args.exit.clone() };
    let host = GuestHost::probe(&Roots::default().sys);
    CalibrationPlan { exits, samples: args.samples, host, isa, policy: facts.policy, one_policy }
}

/// Measures in a thread of its own until it is done or a signal comes; returns the samples and the signal.
async fn watched(tracer: Tracer, job: Job) -> Result<(Measured, Option<&'static str>)> {
    // Before the first switch: from here on a signal cannot kill this process before it has restored the policy.
    let mut endings = Endings::new()?;
    kick::prepare()?;
    let (stop, tid) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (sender, mut messages) = mpsc::unbounded_channel();
    let thread = {
        let (stop, tid) = (Arc::clone(&stop), Arc::clone(&tid));
        let work = move || {
            tid.store(kick::this_thread(), Ordering::Relaxed);
            measure_here(tracer, &job, &stop, &sender)
        };
        thread::Builder::new().name("vcpu 0".into()).spawn(work).context("start the vCPU's thread")?
    };

    let progress = ProgressLine::new(true);
    let (mut stopped, mut alive) = (None, Instant::now());
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(Update::Alive) => alive = Instant::now(),
                Some(Update::Next(step)) => progress.show(&format!("calibrating: {step}. Ctrl-C shows the results so far")),
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
        // The complete results from before are still shown.
        _ => Ok((measured, stopped)),
    }
}
