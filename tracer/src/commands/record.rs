//! `vmentry record`: attach, collect, write, detach on every way out.

use std::{
    io::Write,
    path::Path,
    process::{ExitCode, ExitStatus},
};

use anyhow::{Context, Result, bail};
use tokio::{sync::mpsc, time::Instant};
use tracer_common::in_kernel_series::MAX_IN_KERNEL_SERIES;

use crate::{
    collect::collector::Collection,
    commands::{
        args::RecordArgs,
        child::{Endings, GRACE, command_code, end, exit_of, refuse_unknown, start},
        progress::ProgressLine,
        session::{
            ensure_exact, header, ring_bytes, runtime, selected_tgids, selected_vcpus, traceable_host, watch_module,
        },
    },
    host::{clock::TscMeter, machine::Host, policy, roots::Roots, stopwatch},
    kernel::{
        kvm_module::{self, Change, Watch},
        options::Options,
        tracer::Tracer,
        vmwrite_sites::{self, Site},
    },
    model::{
        accounting::Accounting,
        figures::{Unit, human},
        interval::{Interval, Totals},
        measurement::{Aggregation, Latency},
        vendor::Vendor,
    },
    output,
    recording::{End, Writer},
    say,
    trace::{
        event_sink::EventSink,
        plan::{FlightOptions, TracePlan},
        recorder::EventRecorder,
        trigger::Trigger,
    },
};

/// Records as the arguments say.
pub fn run(args: &RecordArgs) -> Result<ExitCode> {
    let (facts, layout) = traceable_host("record", "", false)?;
    let tgids = selected_tgids(&args.targets)?;
    let sites = if args.verify_writes { sites(&facts.host)? } else { Vec::new() };
    if args.exact_writes && !layout.companion.vmcs_write {
        bail!(
            "--exact-writes needs the companion patch, and this kvm_intel has no tracepoint kvm_vmcs_write\n  \
             -> --verify-writes works without it; patches/README.md says how to build it"
        );
    }
    let in_kernel = args.aggregate == Aggregation::InKernel;
    if in_kernel && facts.stopwatch == Some(true) {
        say!("--aggregate in-kernel has no transition_ns of the stopwatch: leave it out for that");
    }
    let exact_writes = args.exact_writes || args.verify_writes && layout.companion.vmcs_write;
    let options = Options {
        exact_writes,
        // Not by default: a program on a tracepoint of kvm_intel keeps the module from being unloaded.
        timer_exits: layout.companion.timer_exit && (exact_writes || args.verify_writes),
        sites,
        stopwatch: if in_kernel { None } else { stopwatch::start(&facts)? },
        aggregation: args.aggregate,
        details: args.events.is_some() || args.flight_recorder.is_some(),
        stamps: false,
        ring_bytes: ring_bytes(args.ring_kib)?,
        tgids,
        vcpu_ids: selected_vcpus(&args.targets),
        kernel_log: args.kernel_log,
    };
    let mut header = header(&facts, &layout, &options, args.interval);
    header.label = args.label.clone();
    header.latency = match (exact_writes || args.verify_writes, args.with_latency) {
        (false, _) => Latency::Clean,
        (true, false) => Latency::Disturbed,
        (true, true) => Latency::DisturbedButAsked,
    };
    refuse_unknown(&args.command)?;
    let plan = events_plan(args)?;
    // Everything that can be refused has been: only now may an old recording be replaced.
    let tracer = Tracer::load(&layout, &options)?;
    let out = output::create(&args.output, args.overwrite)?;
    let events = plan.map(|plan| EventRecorder::start(plan, &header)).transpose()?;
    let writer = Writer::new(out, &header).with_context(|| format!("write {}", args.output.display()))?;
    let module = watch_module(&header.host);
    runtime()?.block_on(attached(args, module, tracer, writer, events))
}

/// Where single events go; none where they are not asked for.
fn events_plan(args: &RecordArgs) -> Result<Option<TracePlan>> {
    if args.events.is_none() && args.flight_recorder.is_none() {
        return Ok(None);
    }
    let path = args.events.clone().unwrap_or_else(|| "vmentry.pftrace".into());
    if output::is_same_file(&path, &args.output) {
        bail!("--events {0}: the recording is written there: choose another name", path.display());
    }
    let flight_recorder =
        args.flight_recorder.map(|span| FlightOptions { trigger: Trigger(args.trigger.clone()), span });
    let plan = TracePlan { path, overwrite: args.overwrite, flight_recorder };
    plan.check()?;
    Ok(Some(plan))
}

/// The VMWRITEs of the pin controls in the loaded kvm_intel.
fn sites(host: &Host) -> Result<Vec<Site>> {
    if host.vendor != Some(Vendor::Intel) {
        bail!("--verify-writes: only VMX has pin controls, and kvm_intel is not loaded");
    }
    let build_id = host.build_ids.get("kvm_intel").map(String::as_str);
    let module = kvm_module::read_loaded(&Roots::default().lib_modules, &host.kernel, "kvm_intel", build_id)
        .context("--verify-writes: find the module's code")?;
    let sites = vmwrite_sites::find(&module, vmwrite_sites::PIN_CONTROLS).context("--verify-writes")?;
    if sites.is_empty() {
        bail!("--verify-writes: no VMWRITE of the pin controls was recognised in kvm_intel: please report the kernel");
    }
    Ok(sites)
}

async fn attached(
    args: &RecordArgs,
    mut module: Option<Watch>,
    tracer: Tracer,
    mut writer: Writer<Box<dyn Write + Send>>,
    events: Option<(EventRecorder, EventSink)>,
) -> Result<ExitCode> {
    let tsc = TscMeter::start();
    let mut endings = Endings::new()?;
    let (events, sink) = events.unzip();
    let mut collection = Collection::start_tapped(tracer, Some(args.interval), sink)?;
    let before = policy::now(&Roots::default());

    let mut progress = Progress::new(args.command.is_empty());
    // Everything that can fail from here on must first let the collector detach.
    let ended = pump(args, &mut module, &mut endings, &mut collection.intervals, &mut writer, &mut progress).await;
    collection.stop();
    let (mut failure, mut left_out) = (None, 0);
    let mut replaced = ended.as_ref().is_ok_and(|e| MODULE_REASONS.contains(&e.reason));
    while let Some(interval) = collection.intervals.recv().await {
        let change = module.as_mut().and_then(Watch::look);
        replaced |= change == Some(Change::Replaced);
        if replaced {
            left_out += interval.totals.entries;
        } else if ended.is_ok() && failure.is_none() {
            progress.add(&interval);
            failure = writer.write(&interval).err();
        }
    }
    let accounting = collection.join();
    progress.line.clear();
    let why = ended.as_ref().map_or("an error", |e| e.reason);
    let events = events.map(|e| e.finish(progress.totals.dropped, why)).transpose();
    let name = args.output.display();
    let saved =
        |e: anyhow::Error| e.context(format!("write {name} (what was written before is whole: vmentry report {name})"));
    if left_out > 0 {
        say!("{left_out} entries were left out: they were read while another build of the KVM module was loaded");
    }
    let Ended { reason, status } = match ended {
        Ok(ended) => ended,
        Err(Failure::Command(error)) => return Err(error),
        Err(Failure::Write(error)) => return Err(saved(error)),
    };
    if let Some(error) = failure {
        return Err(saved(error));
    }
    let accounting = accounting?;
    progress.summary(args, reason, &accounting);
    let exact = ensure_exact(&accounting, &name.to_string());
    writer
        .finish(End {
            reason: reason.into(),
            accounting,
            tsc_khz: tsc.khz(),
            policy_changed: before != policy::now(&Roots::default()),
        })
        .map_err(saved)?;
    exact?;
    if MODULE_REASONS.contains(&reason) {
        bail!("the recording ended early because of {reason}; what was recorded is whole: vmentry report {name}");
    }
    if events?.is_some_and(|e| e.failed) {
        return Ok(ExitCode::FAILURE);
    }
    Ok(status.map_or(ExitCode::SUCCESS, command_code))
}

struct Ended {
    reason: &'static str,
    status: Option<ExitStatus>,
}

enum Failure {
    /// the command could not be run or waited for
    Command(anyhow::Error),
    /// the recording could not be written
    Write(anyhow::Error),
}

/// Writes intervals until something ends the recording.
async fn pump(
    args: &RecordArgs,
    module: &mut Option<Watch>,
    endings: &mut Endings,
    intervals: &mut mpsc::Receiver<Interval>,
    writer: &mut Writer<Box<dyn Write + Send>>,
    progress: &mut Progress,
) -> Result<Ended, Failure> {
    let mut child = start(&args.command).map_err(Failure::Command)?;
    let deadline = args.duration.map(|d| Instant::now() + d);
    let reason = loop {
        tokio::select! {
            reason = endings.next() => break reason,
            () = until(deadline) => break "duration",
            status = exit_of(&mut child) => {
                let status = status.context("wait for the command").map_err(Failure::Command)?;
                return Ok(Ended { reason: "command", status: Some(status) });
            }
            interval = intervals.recv() => match interval {
                Some(interval) => {
                    progress.line.clear();
                    if let Some(reason) = module.as_mut().and_then(|m| module_changed(m, !args.verify_writes)) {
                        break reason;
                    }
                    progress.add(&interval);
                    writer.write(&interval).map_err(Failure::Write)?;
                }
                // The collector has failed; its thread says why.
                None => break "collector",
            },
        }
    };
    let status = match &mut child {
        Some(child) => end(child, GRACE).await,
        None => None,
    };
    // A command that the user interrupted along with this program tells how it went; one that the time ended does not.
    Ok(Ended { reason, status: status.filter(|_| reason != "duration") })
}

/// Reasons to end a recording before its time.
const MODULE_REASONS: [&str; 2] = [
    "a reloaded KVM module, which lost the probes of --verify-writes",
    "another build of the KVM module, whose layout may differ",
];

/// Says what happened to the vendor's module; the reason to end the recording, if it is one. The interval in which that was
/// noticed may hold what was read at wrong places, and is left out.
fn module_changed(watch: &mut Watch, may_go_on: bool) -> Option<&'static str> {
    match watch.look()? {
        Change::Unloaded => say!("the KVM module was unloaded: no VM can run; the recording goes on"),
        Change::Reloaded if may_go_on => say!("the KVM module is back, the same build; the recording goes on"),
        Change::Reloaded => return Some(MODULE_REASONS[0]),
        Change::Replaced => return Some(MODULE_REASONS[1]),
    }
    None
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Progress and summary of a recording, on standard error.
struct Progress {
    line: ProgressLine,
    started: std::time::Instant,
    totals: Totals,
    vms: std::collections::BTreeSet<u32>,
}

impl Progress {
    /// A line that moves is for terminals, and not where the command writes there too.
    fn new(alone: bool) -> Self {
        Self {
            line: ProgressLine::new(alone),
            started: std::time::Instant::now(),
            totals: Totals::default(),
            vms: std::collections::BTreeSet::new(),
        }
    }

    fn add(&mut self, interval: &Interval) {
        self.totals.merge(&interval.totals);
        self.vms.extend(interval.vms.keys());
        if self.line.is_shown() {
            let Totals { entries, dropped, .. } = self.totals;
            let rate = interval.totals.entries as f64 * 1e9 / interval.length_ns.max(1) as f64;
            self.line.show(&format!(
                "recording {:.0} s: {entries} entries ({rate:.0}/s) of {} VMs, {dropped} dropped. Ctrl-C stops",
                self.started.elapsed().as_secs_f64(),
                self.vms.len(),
            ));
        }
    }

    fn summary(&self, args: &RecordArgs, reason: &str, accounting: &Accounting) {
        let Totals { entries, dropped, .. } = self.totals;
        let time = human(Some(self.started.elapsed().as_nanos() as f64), Unit::Ns);
        say!(
            "recorded {entries} entries of {} VMs in {time} (ended by {reason}), {dropped} dropped{}",
            self.vms.len(),
            if accounting.exact { "" } else { "; COUNTS DISAGREE" },
        );
        if dropped > 0 {
            match args.aggregate {
                Aggregation::Records => {
                    let more = args.ring_kib.saturating_mul(4);
                    say!("dropped entries are missing from every figure: try --ring-kib {more}");
                }
                Aggregation::InKernel => say!(
                    "dropped entries are missing from every figure: the kernel keeps {MAX_IN_KERNEL_SERIES} series of vCPU and exit reason. Trace \
                     fewer VMs (--vm), or leave out --aggregate in-kernel"
                ),
            }
        }
        if args.output != Path::new("-") {
            say!("next: vmentry report {}", args.output.display());
        }
    }
}
