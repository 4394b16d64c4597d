//! `vmentry record`: attaches, collects and writes intervals; detaches on every way out.

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::{
    process::Child,
    sync::mpsc,
    time::{Instant, timeout},
};
use tracer_common::{Isa, in_kernel_series::MAX_IN_KERNEL_SERIES};

use crate::{
    collect::collector::{Attached, Collection},
    commands::{
        args::{RecordArgs, Targets},
        child::{Ended, Endings, GRACE, command_code, end, exit_of, or_end, refuse_unknown, start, stdout_beside},
        following::follow,
        privileges,
        progress::ProgressLine,
        session::{
            command_line, ensure_exact, header, look_again, next_writable, ring_bytes, runtime, say_missing_details,
            selected_tgids, selected_vcpus, traceable_host, watch_module,
        },
        usage::{refuse, refuse_document_name},
        user::User,
    },
    host::{clock::TscMeter, facts::Facts, machine::Host, other_tracers, policy, roots::Roots, stopwatch, vmm},
    html::moment::file_stamp,
    kernel::{
        kvm_module::{self, Change, Watch},
        layout::Layout,
        options::{DEFAULT_RING_BYTES, Options},
        resolve::NO_BTF_FIX,
        tracer::Tracer,
        vmwrite_sites::{self, Site},
    },
    model::{
        accounting::{Accounting, LeftOut},
        figures::{Unit, human},
        interval::Interval,
        measurement::{Aggregation, Latency},
        totals::{Totals, foreign_isa_text},
        vendor::Vendor,
    },
    output::{self, Background, STALLED, Written},
    recording::{End, Header, Writer},
    say,
    trace::{
        plan::{FlightOptions, TracePlan},
        recorder::{EventRecorder, OpenedTrace},
        trigger::Trigger,
    },
};

/// Records as the arguments say.
pub(super) fn run(args: &RecordArgs) -> Result<ExitCode> {
    refuse_document_name(args.output())?;
    let rules = args.rules.read()?;
    let (facts, layout) = traceable_host("record", "", false)?;
    let options = options(args, &facts, &layout)?;
    say_missing_details(&options, &layout.config);
    let command = command_line(&args.run.command, args.run.full_command);
    let mut header = header(&facts, &layout, &options, args.interval, command);
    header.label = args.label.clone();
    header.latency = match (options.exact_writes || args.verify_writes, args.with_latency) {
        (false, _) => Latency::Clean,
        (true, false) => Latency::Disturbed,
        (true, true) => Latency::DisturbedButAsked,
    };
    refuse_unknown(&args.run.command)?;
    let user = args.run.user.as_deref().map(User::find).transpose()?;
    Trigger(args.trigger.clone()).ensure_known(&header.knowledge()).map_err(|refusal| anyhow!(refusal))?;
    let plan = events_plan(args)?;
    // Replaces an old recording only after everything that can be refused was checked.
    let mut tracer = Tracer::load(&layout, &options)?;
    let _following = follow(&args.targets, options.tgids.as_deref(), &mut tracer, output::say_over_progress)?;
    let out = create(args)?;
    let events = plan.map(|plan| OpenedTrace::open(plan, &header)).transpose()?;
    runtime()?.block_on(async {
        let tsc = TscMeter::start();
        let mut endings = Endings::new()?;
        let attached = Attached::new(tracer)?.labelled_by(rules);
        // Before privileges are given up, so that the command has the caller's, and before other threads start, which get what is left.
        let mut child = start(&args.run.command, user, stdout_beside(writes_to_stdout(args)))?;
        let begun = begin(args, &header, attached, out, events);
        let Begun { mut recording, mut collection, events } = or_end(&mut child, begun).await?;
        let policy_before = policy::now(&Roots::default());
        // From here on an error must not return before the collector has detached.
        let ended = recording.pump(&mut endings, child, &mut collection.intervals).await;
        collection.stop();
        let drained = recording.drain(&mut collection.intervals, &ended).await;
        let accounting = collection.join();
        recording.progress.line.clear();
        let reason = ended.as_ref().map_or("an error", |e| e.reason);
        let events = events.map(|e| e.finish(recording.progress.totals.dropped, reason)).transpose();
        let status = recording.finish(ended, drained, accounting, |accounting| End {
            reason: reason.into(),
            accounting,
            tsc_khz: tsc.khz(),
            policy_changed: policy_before != policy::now(&Roots::default()),
            other_tracers: Some(other_tracers::look(&Roots::default())),
        });
        let status = status.await?;
        if events?.is_some_and(|e| e.failed) {
            return Ok(ExitCode::FAILURE);
        }
        Ok(status.map_or(ExitCode::SUCCESS, command_code))
    })
}

/// A recording that has begun.
struct Begun<'a> {
    recording: Recording<'a>,
    collection: Collection,
    events: Option<EventRecorder>,
}

/// Gives up the privileges that an attached recorder does not need, writes the header, and starts to collect.
fn begin<'a>(
    args: &'a RecordArgs,
    header: &Header,
    attached: Attached,
    out: Box<dyn Write + Send>,
    events: Option<OpenedTrace>,
) -> Result<Begun<'a>> {
    let kept = privileges::Recording {
        uses_map: args.verify_writes || args.aggregate == Aggregation::InKernel,
        ends_command: !args.run.command.is_empty(),
    };
    kept.give_up_the_rest()?;
    let (events, sink) = events.map(OpenedTrace::start).transpose()?.unzip();
    let (out, written) = Background::start(out)?;
    let recording = Recording {
        args,
        module: watch_module(&header.host),
        writer: Writer::new(out.clone(), header).with_context(|| format!("write {}", output::shown(args.output())))?,
        out,
        written,
        progress: Progress::new(args.run.command.is_empty(), header.host.vendor),
        left_out: Totals::default(),
    };
    let collection = Collection::start_tapped(attached, Some(args.interval), sink)?;
    Ok(Begun { recording, collection, events })
}

/// Creates the file to write. Where none was named, the last recording is kept: it may be the only one of what was seen.
fn create(args: &RecordArgs) -> Result<Box<dyn Write + Send>> {
    if args.output.is_some() || args.overwrite {
        return output::create(args.output(), args.overwrite);
    }
    output::create_keeping(args.output(), |changed| {
        let since_epoch = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
        file_stamp(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
    })
}

/// Whether standard output is the recording or its trace of single events, which a command's output would damage.
fn writes_to_stdout(args: &RecordArgs) -> bool {
    let is_stdout = |path: &Path| path == Path::new("-");
    is_stdout(args.output()) || args.events.as_deref().is_some_and(is_stdout)
}

/// How the programs are loaded for these arguments; fails if this host cannot do it.
fn options(args: &RecordArgs, facts: &Facts, layout: &Layout) -> Result<Options> {
    let tgids = selected_tgids(&args.targets)?;
    let sites = if args.verify_writes { vmwrite_sites(&facts.host)? } else { Vec::new() };
    if args.exact_writes && !layout.companion.vmcs_write {
        if let Some(without) = &facts.module_without_btf {
            bail!("--exact-writes: {without}, which would tell whether it has the companion patch\n  -> {NO_BTF_FIX}");
        }
        bail!(
            "--exact-writes needs the companion patch, and this kvm_intel has no tracepoint kvm_vmcs_write\n  \
             -> --verify-writes works without it: 'vmentry help pin-controls'"
        );
    }
    let in_kernel = args.aggregate == Aggregation::InKernel;
    if in_kernel && facts.stopwatch == Some(true) {
        say!("--aggregate in-kernel ignores the stopwatch: leave it out to get transition_ns of every entry");
    }
    if in_kernel && args.details.are_wanted() {
        return refuse("--detail: --aggregate in-kernel counts no details: leave one of them out");
    }
    let exact_writes = args.exact_writes || args.verify_writes && layout.companion.vmcs_write;
    Ok(Options {
        exact_writes,
        // Only when asked: a program on a tracepoint of kvm_intel keeps the module from being unloaded.
        timer_exits: layout.companion.timer_exit && (exact_writes || args.verify_writes),
        sites,
        stopwatch: if in_kernel { None } else { stopwatch::start(facts)? },
        aggregation: args.aggregate,
        phases: !args.no_phases,
        detail: args.details.are_wanted(),
        addresses: args.details.have_addresses(),
        extras: args.events.is_some() || args.flight_recorder.is_some(),
        stamps: false,
        ring_bytes: ring_bytes(args.ring_kib)?,
        tgids,
        vcpu_ids: selected_vcpus(&args.targets),
        kernel_log: args.kernel_log,
    })
}

/// The file for single events and when it is written; none if they were not asked for.
fn events_plan(args: &RecordArgs) -> Result<Option<TracePlan>> {
    if args.events.is_none() && args.flight_recorder.is_none() {
        return Ok(None);
    }
    let path = args.events.clone().unwrap_or_else(|| "vmentry.pftrace".into());
    if args.flight_recorder.is_some() && path == Path::new("-") {
        return refuse("--events -: a flight recorder may write several traces: name a file");
    }
    let flight_recorder =
        args.flight_recorder.map(|span| FlightOptions { trigger: Trigger(args.trigger.clone()), span });
    let plan = TracePlan { path, overwrite: args.overwrite, flight_recorder };
    if let Some(file) = plan.files().find(|file| output::is_same_file(file, args.output())) {
        return refuse(format!(
            "--events {}: the recording is written to {}: choose another name",
            output::shown(&plan.path),
            output::shown(&file)
        ));
    }
    plan.check()?;
    Ok(Some(plan))
}

/// The VMWRITEs of the pin controls in the loaded kvm_intel.
fn vmwrite_sites(host: &Host) -> Result<Vec<Site>> {
    let Some(name) = host.vendor.filter(|vendor| *vendor == Vendor::Intel).and_then(Vendor::module) else {
        bail!("--verify-writes: only VMX has pin controls, and kvm_intel is not loaded");
    };
    let build_id = host.build_ids.get(name).map(String::as_str);
    let module = kvm_module::read_loaded(&Roots::default().lib_modules, &host.kernel, name, build_id)
        .context("--verify-writes: find the module's code")?;
    let sites = vmwrite_sites::find(&module, vmwrite_sites::PIN_CONTROLS).context("--verify-writes")?;
    if sites.is_empty() {
        bail!("--verify-writes: no VMWRITE of the pin controls was recognised in kvm_intel: please report the kernel");
    }
    Ok(sites)
}

/// A recording while it is written.
struct Recording<'a> {
    args: &'a RecordArgs,
    module: Option<Watch>,
    writer: Writer<Background>,
    /// what `writer` writes to
    out: Background,
    written: Written,
    progress: Progress,
    /// counts of the intervals that were not written, because the KVM module changed during them
    left_out: Totals,
}

enum Failure {
    /// the command could not be waited for
    Command(anyhow::Error),
    /// the recording could not be written
    Write(anyhow::Error),
}

/// Intervals that were left when the programs were detached.
#[derive(Default)]
struct Drained {
    /// entries of intervals that could not be written
    unwritten: u64,
    /// the first error of writing an interval
    failure: Option<anyhow::Error>,
}

/// How long the output may take for one interval when the recording ends.
const PATIENCE: Duration = Duration::from_secs(5);

impl Recording<'_> {
    /// Writes intervals until something ends the recording; then ends the command.
    async fn pump(
        &mut self,
        endings: &mut Endings,
        mut child: Option<Child>,
        intervals: &mut mpsc::Receiver<Interval>,
    ) -> Result<Ended, Failure> {
        let deadline = self.args.duration.map(|d| Instant::now() + d);
        let reason = loop {
            tokio::select! {
                reason = endings.next() => break reason,
                () = until(deadline) => break "duration",
                status = exit_of(&mut child) => {
                    let status = status.context("wait for the command").map_err(Failure::Command)?;
                    return Ok(Ended { reason: "command", status: Some(status) });
                }
                interval = next_writable(&self.out, intervals) => match interval {
                    Some(interval) => {
                        let added = self.add(&interval);
                        if let Some(reason) = or_end(&mut child, added).await? { break reason }
                    }
                    // The collector has failed; its thread reports why.
                    None => break "collector",
                },
            }
        };
        let status = end(&mut child, GRACE).await;
        // The status of a command that the user interrupted counts; that of a command that --duration ended does not.
        Ok(Ended { reason, status: status.filter(|_| reason != "duration") })
    }

    /// Writes an interval, unless the KVM module changed during it: then returns why the recording must end.
    fn add(&mut self, interval: &Interval) -> Result<Option<&'static str>, Failure> {
        self.progress.line.clear();
        if let Some(reason) = self.module.as_mut().and_then(|m| module_changed(m, !self.args.verify_writes)) {
            self.left_out.merge(&interval.totals);
            return Ok(Some(reason));
        }
        self.progress.add(interval);
        self.writer.write(interval).map_err(Failure::Write)?;
        Ok(None)
    }

    /// Writes the intervals that were on their way when the programs were detached.
    async fn drain(&mut self, intervals: &mut mpsc::Receiver<Interval>, ended: &Result<Ended, Failure>) -> Drained {
        let mut drained = Drained::default();
        let mut replaced = ended.as_ref().is_ok_and(|e| MODULE_REASONS.contains(&e.reason));
        while let Some(interval) = intervals.recv().await {
            let change = self.module.as_mut().and_then(Watch::look);
            replaced |= change == Some(Change::Replaced);
            if replaced {
                self.left_out.merge(&interval.totals);
            } else if ended.is_ok() {
                self.progress.add(&interval);
                if drained.failure.is_none() {
                    // Without room by then, writing fails.
                    let _ = timeout(PATIENCE, self.out.room()).await;
                    drained.failure = self.writer.write(&interval).err();
                }
                if drained.failure.is_some() {
                    drained.unwritten += interval.totals.entries;
                }
            }
        }
        drained
    }

    /// Reports the first error, else prints the summary and writes the last line; returns the command's status.
    async fn finish(
        self,
        ended: Result<Ended, Failure>,
        drained: Drained,
        accounting: Result<Accounting>,
        last_line: impl FnOnce(Accounting) -> End,
    ) -> Result<Option<std::process::ExitStatus>> {
        let mut written = self.written;
        let Totals { entries, delivered, dropped, .. } = self.left_out;
        let left_out = (entries > 0).then_some(LeftOut { entries, delivered, dropped });
        if left_out.is_some() {
            say!("{entries} entries were left out: another build of the KVM module was loaded then");
        }
        let Ended { reason, status } = match ended {
            Ok(ended) => ended,
            Err(Failure::Command(error)) => return Err(error),
            Err(Failure::Write(error)) => return Err(not_written(self.args, &written, error)),
        };
        if let Some(error) = drained.failure {
            let error = error.context(format!("{} entries are missing", drained.unwritten));
            return Err(not_written(self.args, &written, error));
        }
        let accounting = Accounting { left_out, ..accounting? };
        let _ = timeout(PATIENCE, self.out.room()).await;
        let last = self.writer.finish(last_line(accounting.clone()));
        drop(self.out);
        let last = match last {
            Ok(()) => match timeout(PATIENCE, written.wait()).await {
                Ok(ended) => ended.map_err(Into::into),
                Err(_) => Err(anyhow!("the last intervals are missing: {STALLED}")),
            },
            failed => failed,
        };
        last.map_err(|error| not_written(self.args, &written, error))?;
        // Only now, because it says what the file has.
        self.progress.summary(self.args, reason, &accounting);
        ensure_exact(&accounting, &output::shown(self.args.output()))?;
        if MODULE_REASONS.contains(&reason) {
            let whole = look_again("report", self.args.output()).map_or(String::new(), |look| format!(": {look}"));
            bail!("the recording ended early because of {reason}; what was recorded is whole{whole}");
        }
        Ok(status)
    }
}

/// The error of a recording that could not be written, with what of it is in the file.
fn not_written(args: &RecordArgs, written: &Written, error: anyhow::Error) -> anyhow::Error {
    let name = output::shown(args.output());
    let kept = match look_again("report", args.output()) {
        Some(look) if written.has_any() => format!(" (intervals that were written before are whole: {look})"),
        _ if written.has_any() => String::new(),
        Some(_) if args.overwrite => " (nothing was recorded, and the file is as it was)".into(),
        _ => " (nothing was recorded)".into(),
    };
    error.context(format!("write {name}{kept}"))
}

/// Reasons to end a recording before its time.
const MODULE_REASONS: [&str; 2] = [
    "a reloaded KVM module, which lost the probes of --verify-writes",
    "another build of the KVM module, whose layout may differ",
];

/// Says how the vendor's module changed, and returns the reason if the recording must end. The interval in which the change was
/// noticed may hold values read at wrong offsets, and is left out.
fn module_changed(watch: &mut Watch, may_go_on: bool) -> Option<&'static str> {
    match watch.look()? {
        Change::Unloaded => say!("the KVM module was unloaded: no VM can run; the recording goes on"),
        Change::Reloaded if may_go_on => say!("the KVM module is back, the same build; the recording goes on"),
        Change::Reloaded => return Some(MODULE_REASONS[0]),
        Change::Replaced => return Some(MODULE_REASONS[1]),
    }
    None
}

/// Says that nothing was recorded although VMs run: either they did not enter, or this KVM does not fire its tracepoints.
fn warn_of_silence(targets: &Targets) {
    let chosen = selected_tgids(targets).ok().flatten();
    let is_chosen = |vm: &vmm::Vm| chosen.as_ref().is_none_or(|tgids| tgids.contains(&vm.process.tgid));
    let names: Vec<_> =
        vmm::find_vms(&Roots::default().proc).vms.into_iter().filter(is_chosen).map(|vm| vm.name).collect();
    if !names.is_empty() {
        say!(
            "NO ENTRY ARRIVED, although VMs run ({}): 'vmentry check' shows whether kvm's tracepoints fire on this host",
            names.join(", ")
        );
    }
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
    vms: BTreeSet<u32>,
    /// module whose layout the programs read by
    vendor: Option<Vendor>,
    isas: BTreeSet<Isa>,
}

impl Progress {
    /// `alone`: no command writes to the same terminal.
    fn new(alone: bool, vendor: Option<Vendor>) -> Self {
        Self {
            line: ProgressLine::new(alone),
            started: std::time::Instant::now(),
            totals: Totals::default(),
            vms: BTreeSet::new(),
            vendor,
            isas: BTreeSet::new(),
        }
    }

    fn add(&mut self, interval: &Interval) {
        self.totals.merge(&interval.totals);
        self.vms.extend(interval.vms.keys());
        self.isas.extend(interval.series.keys().map(|key| key.isa));
        if self.line.is_shown() {
            let Totals { entries, dropped, .. } = self.totals;
            let rate = human(interval.entries_per_s(interval.totals.entries), Unit::PerSecond);
            self.line.show(&format!(
                "recording {:.0} s: {entries} entries ({rate}/s) of {} VMs, {dropped} dropped. Ctrl-C stops",
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
        if let Some(text) = foreign_isa_text(&self.totals, self.vendor, self.isas.iter().copied()) {
            say!("{text}");
        }
        if entries == 0 {
            warn_of_silence(&args.targets);
        }
        if let Some(evicted) = self.totals.evicted.filter(|n| *n > 0) {
            say!(
                "places for vCPUs' states were too few {evicted} times, so that entries are unmatched: trace fewer VMs (--vm)"
            );
        }
        if dropped > 0 {
            match args.aggregate {
                Aggregation::Records => {
                    let more = ring_bytes(args.ring_kib).unwrap_or(DEFAULT_RING_BYTES) / 1024 * 4;
                    say!("dropped entries are missing from every figure: try --ring-kib {more}");
                }
                Aggregation::InKernel => say!(
                    "dropped entries are missing from every figure: the kernel keeps {MAX_IN_KERNEL_SERIES} series of vCPU and exit reason. Trace \
                     fewer VMs (--vm), or leave out --aggregate in-kernel"
                ),
            }
        }
        if let Some(look) = look_again("report", args.output()) {
            say!("next: {look}");
        }
    }
}
