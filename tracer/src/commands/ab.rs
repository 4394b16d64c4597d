//! `vmentry ab`: switches the host between two settings by turns while its VMs run, records every window, restores the setting on
//! every way out, and compares.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use tokio::{process::Child, time::Instant};

use crate::{
    collect::collector::Collection,
    commands::{
        args::AbArgs,
        child::{Endings, GRACE, command_code, default_endings, end, exit_of, refuse_unknown, start},
        compare,
        progress::ProgressLine,
        session::{
            ensure_exact, header, ring_bytes, runtime, selected_tgids, selected_vcpus, traceable_host, watch_module,
        },
    },
    compare::schedule,
    host::{
        clock::TscMeter,
        policy::{self, Restore},
        roots::Roots,
        stopwatch,
    },
    kernel::{kvm_module::Watch, options::Options, tracer::Tracer},
    model::{
        interval::{Interval, Totals},
        policy::Policy,
    },
    output,
    recording::{End, Experiment, Header, Label, Writer},
    say,
};

/// How long a command that switches may take.
const SWITCH_TIME: Duration = Duration::from_secs(30);

/// Runs the experiment and compares.
pub fn run(args: &AbArgs) -> Result<ExitCode> {
    if args.output == Path::new("-") {
        bail!("-o -: standard output is for the comparison: name a file");
    }
    let (facts, layout) = traceable_host("record", "", false)?;
    let (arms, switches) = settings(args)?;
    refuse_unknown(&args.command)?;
    let options = Options {
        ring_bytes: ring_bytes(args.ring_kib)?,
        tgids: selected_tgids(&args.targets)?,
        vcpu_ids: selected_vcpus(&args.targets),
        stopwatch: stopwatch::start(&facts)?,
        ..Options::default()
    };
    let seed = args.seed.unwrap_or_else(seed_of_now);
    let mut header = header(&facts, &layout, &options, args.window);
    header.label = args.label.clone();
    let experiment = Experiment {
        arms,
        switches,
        window_ns: args.window.as_nanos() as u64,
        washout_ns: args.washout.as_nanos() as u64,
        rounds: args.rounds,
        seed,
    };
    header.experiment = Some(experiment.clone());
    let tracer = Tracer::load(&layout, &options)?;
    let runtime = runtime()?;
    let code = runtime.block_on(attached(args, &header, &experiment, tracer))?;
    default_endings();
    if !args.no_compare {
        compare::print(&args.output, args.format)?;
    }
    Ok(code)
}

/// Names of the two settings, and what switches to each.
fn settings(args: &AbArgs) -> Result<([String; 2], [String; 2])> {
    if let [a, b] = args.arm.as_slice() {
        return Ok(([a.name.clone(), b.name.clone()], [a.command.clone(), b.command.clone()]));
    }
    if !args.arm.is_empty() {
        bail!("--arm: two are compared, and {} was given: --arm 'A=COMMAND' --arm 'B=COMMAND'", args.arm.len());
    }
    let [a, b] = args.policies.as_slice() else {
        bail!("--policies {}: two are compared, e.g. soft,hard", args.policies.join(","));
    };
    policy::check_switchable()
        .context("--policies (other settings can be compared by --arm 'A=COMMAND' --arm 'B=COMMAND')")?;
    let names = [a.clone(), b.clone()];
    Ok((names.clone(), names))
}

/// From the clock: a seed only has to differ from the last one's.
fn seed_of_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_micros()) + now.as_secs() % 1000 * 1_000_000
}

/// What switches between the settings, and restores what was before when it is dropped.
enum Switch {
    Policy(Restore),
    Commands(Commands),
}

/// Settings that the user's commands switch between. What was before cannot be asked for: A's is taken unless the user says.
struct Commands {
    restore: String,
    done: bool,
}

impl Switch {
    /// Switches to a setting for the first time.
    fn new(args: &AbArgs, to: &str) -> Result<Self> {
        let Some(first) = args.arm.first() else { return Ok(Self::Policy(Restore::after(named_policy(to)?)?)) };
        let restore = args.restore.clone().unwrap_or_else(|| first.command.clone());
        let switch = Self::Commands(Commands { restore, done: false });
        switch.to(to)?;
        Ok(switch)
    }

    fn to(&self, to: &str) -> Result<()> {
        match self {
            Self::Policy(restore) => restore.switch(named_policy(to)?),
            Self::Commands(_) => {
                shell(to).context("--arm: nothing can be compared under a setting that cannot be made")
            }
        }
    }

    /// Whether the setting is still the one that was switched to; a command cannot be asked.
    fn is(&self, setting: &str) -> bool {
        match self {
            Self::Policy(_) => policy::now(&Roots::default()).is_none_or(|now| now.name() == setting),
            Self::Commands(_) => true,
        }
    }

    fn restore(self) -> Result<()> {
        match self {
            Self::Policy(restore) => restore.restore(),
            Self::Commands(mut commands) => commands.restore(),
        }
    }
}

/// The policy of a setting's name.
fn named_policy(name: &str) -> Result<Policy> {
    Policy::parse(name).with_context(|| format!("--policies {name}: is neither soft nor hard"))
}

impl Commands {
    fn restore(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(());
        }
        shell(&self.restore).context("THE SETTING WAS NOT RESTORED: do it by hand")
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            say!("vmentry: {error:#}");
        }
    }
}

/// Runs a command of the user's, out of reach of the terminal's Ctrl-C and without a look at signals: a switch is made whole, or
/// the next one could come before its end. What it prints must not come between the lines of the comparison.
fn shell(command: &str) -> Result<()> {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(std::io::stderr()).process_group(0);
    let mut child = shell.spawn().with_context(|| format!("run sh -c '{command}'"))?;
    let started = std::time::Instant::now();
    loop {
        match child.try_wait().with_context(|| format!("wait for '{command}'"))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("'{command}' failed ({status})"),
            None if started.elapsed() > SWITCH_TIME => {
                // SAFETY: the group is the child's own, and the child has not been waited for, so that the number is still its own.
                unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
                let _ = child.wait();
                bail!("'{command}' did not end within {} s", SWITCH_TIME.as_secs());
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

async fn attached(args: &AbArgs, header: &Header, experiment: &Experiment, tracer: Tracer) -> Result<ExitCode> {
    let tsc = TscMeter::start();
    // Listening comes first: from here on a signal cannot end this process between switching and restoring.
    let mut endings = Endings::new()?;
    let mut module = watch_module(&header.host);
    output::refuse_existing(&args.output, args.overwrite)?;
    let first = schedule::windows(experiment.seed, 1).next().map_or(0, |l| usize::from(l.arm));
    let switch = Switch::new(args, &experiment.switches[first])?;
    // The setting is one that can be made: only now may an old recording be replaced.
    let name = args.output.display();
    let out = output::create(&args.output, args.overwrite)?;
    let mut writer = Writer::new(out, header).with_context(|| format!("write {name}"))?;
    let mut collection = Collection::start(tracer, None)?;
    let mut child = start(&args.command)?;
    let mut progress = Progress::new(experiment, args.command.is_empty());
    // Everything that can fail from here on must first restore the setting and let the collector detach.
    let ended = tokio::select! {
        biased;
        ended = interruption(&mut endings, &mut child) => ended,
        done = windows(args, experiment, &switch, &mut module, &mut collection, &mut writer, &mut progress) => {
            done.map(|()| Ended { reason: "rounds", status: None })
        }
    };
    let restored = switch.restore();
    progress.line.clear();
    collection.stop();
    let mut failure = None;
    while let Some(interval) = collection.intervals.recv().await {
        progress.totals.merge(&interval.totals);
        // What is left of a window that did not end is no window.
        if ended.is_ok() && failure.is_none() {
            failure = writer.write(&interval).err();
        }
    }
    if let Some(child) = &mut child {
        end(child, GRACE).await;
    }
    let accounting = collection.join();
    restored?;
    let saved = |e: anyhow::Error| anyhow!("{e:#}\n  -> the windows before are whole: vmentry compare {name}");
    let Ended { reason, status } = ended.map_err(saved)?;
    if let Some(error) = failure {
        return Err(saved(error.context(format!("write {name}"))));
    }
    let accounting = accounting?;
    let exact = ensure_exact(&accounting, &name.to_string());
    let end = End { reason: reason.into(), accounting, tsc_khz: tsc.khz(), policy_changed: false };
    writer.finish(end).with_context(|| format!("write {name}")).map_err(saved)?;
    progress.summary(args, reason);
    exact?;
    Ok(status.map_or(ExitCode::SUCCESS, command_code))
}

struct Ended {
    reason: &'static str,
    status: Option<ExitStatus>,
}

/// What ends an experiment before its time.
async fn interruption(endings: &mut Endings, child: &mut Option<Child>) -> Result<Ended> {
    tokio::select! {
        reason = endings.next() => Ok(Ended { reason, status: None }),
        status = exit_of(child) => Ok(Ended { reason: "command", status: Some(status.context("wait for the command")?) }),
    }
}

/// Goes through all windows.
async fn windows(
    args: &AbArgs,
    experiment: &Experiment,
    switch: &Switch,
    module: &mut Option<Watch>,
    collection: &mut Collection,
    writer: &mut Writer<Box<dyn Write + Send>>,
    progress: &mut Progress<'_>,
) -> Result<()> {
    for label in schedule::windows(experiment.seed, experiment.rounds) {
        let setting = &experiment.switches[usize::from(label.arm)];
        // Also where it is in force already: both settings are to be disturbed alike.
        switch.to(setting)?;
        let warmup = if label.round == 0 && label.place == 0 { args.warmup } else { Duration::ZERO };
        progress.now(label);
        progress.sleep(warmup + args.washout, args.window).await;
        let between = cut(collection).await?;
        progress.totals.merge(&between.totals);
        writer.write(&between)?;
        progress.sleep(args.window, Duration::ZERO).await;
        let window = cut(collection).await?;
        progress.totals.merge(&window.totals);
        if !switch.is(setting) {
            bail!("the policy is no longer {setting}: something else switched it during a window, which is left out");
        }
        if module.as_mut().and_then(Watch::look).is_some() {
            bail!("the KVM module was unloaded or reloaded during a window, which is left out");
        }
        writer.write_window(&window, Some(label))?;
        progress.done += 1;
    }
    Ok(())
}

async fn cut(collection: &mut Collection) -> Result<Interval> {
    collection.cut().await.context("the collector ended early")
}

/// What is said on standard error while and after the experiment.
struct Progress<'a> {
    experiment: &'a Experiment,
    line: ProgressLine,
    totals: Totals,
    window: Option<Label>,
    done: u32,
}

impl<'a> Progress<'a> {
    /// A line that moves is for terminals, and not where the command writes there too.
    fn new(experiment: &'a Experiment, alone: bool) -> Self {
        Self { experiment, line: ProgressLine::new(alone), totals: Totals::default(), window: None, done: 0 }
    }

    fn now(&mut self, window: Label) {
        self.window = Some(window);
    }

    /// Sleeps, and says every second where the experiment is. `then` is what remains of the window after that.
    async fn sleep(&self, time: Duration, then: Duration) {
        let until = Instant::now() + time;
        loop {
            self.show(until.saturating_duration_since(Instant::now()) + then);
            let now = Instant::now();
            if now >= until {
                return;
            }
            tokio::time::sleep_until(until.min(now + Duration::from_secs(1))).await;
        }
    }

    fn show(&self, of_window: Duration) {
        let (true, Some(window)) = (self.line.is_shown(), self.window) else { return };
        let Experiment { arms, window_ns, washout_ns, rounds, .. } = self.experiment;
        let left = of_window
            + schedule::time_left(
                self.done + 1,
                *rounds,
                Duration::from_nanos(*window_ns),
                Duration::from_nanos(*washout_ns),
            );
        let arm = usize::from(window.arm);
        self.line.show(&format!(
            "round {} of {rounds}, {} ({}): {} entries, {} dropped; {} s left. Ctrl-C compares what there is",
            window.round + 1,
            ["A", "B"][arm],
            arms[arm],
            self.totals.entries,
            self.totals.dropped,
            left.as_secs(),
        ));
    }

    fn summary(&self, args: &AbArgs, reason: &str) {
        let Totals { entries, dropped, .. } = self.totals;
        let windows = self.experiment.rounds * u32::from(schedule::PLACES);
        say!(
            "recorded {} of {windows} windows, {entries} entries, {dropped} dropped (ended by {reason}); seed {}",
            self.done,
            self.experiment.seed
        );
        let name = args.output.display();
        say!("compare again: vmentry compare {name}");
    }
}
