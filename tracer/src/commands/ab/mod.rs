//! `vmentry ab`: alternates a setting of the host while its VMs run, records every window, restores the setting on every way out,
//! and compares.

mod guests;
mod live;
mod plan;
mod restore;
mod setting;

use std::{
    io::Write,
    path::Path,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::{process::Child, time::Instant};

use crate::{
    collect::collector::{Attached, Collection},
    commands::{
        args::AbArgs,
        child::{
            Ended, Endings, GRACE, command_code, default_endings, end, exit_of, or_end, refuse_unknown, start,
            stdout_beside,
        },
        comparison,
        following::follow,
        privileges,
        progress::ProgressLine,
        session::{
            command_line, ensure_exact, header, look_again, nanoseconds, ring_bytes, runtime, selected_tgids,
            selected_vcpus, traceable_host, watch_module,
        },
        usage::refuse,
        user::User,
    },
    compare::schedule,
    host::{clock::TscMeter, facts::RunningVm, other_tracers, pid_namespace, roots::Roots, stopwatch},
    kernel::{kvm_module::Watch, options::Options, tracer::Tracer},
    model::{accounting::Accounting, interval::Interval, totals::Totals},
    output,
    recording::{End, Experiment, Header, Label, Writer},
    say,
};
use guests::{DECIDED, Guests, LAST_VM, Next, ROUNDS, is_own_end, next};
use live::Live;
use plan::Plan;
use setting::{Switch, ensure_switchable, runs_commands, settings};

/// How often the first entry is looked for while a command starts its guest.
const FIRST_ENTRY_EVERY: Duration = Duration::from_millis(200);

/// Runs the experiment and compares.
pub(super) fn run(args: &AbArgs) -> Result<ExitCode> {
    if args.output == Path::new("-") {
        return refuse("-o -: standard output is for the comparison: name a file");
    }
    if args.restore == Some(None) {
        return restore::run(args);
    }
    let (arms, switches) = settings(args)?;
    let plan = Plan::of(args)?;
    let (facts, layout) = traceable_host("record", "", false)?;
    ensure_switchable(args)?;
    refuse_unknown(&args.command)?;
    let user = args.user.as_deref().map(User::find).transpose()?;
    let tgids = selected_tgids(&args.targets)?;
    if args.command.is_empty() {
        let may_be_more = facts.vms_unseen.is_some() || facts.shows_host_processes == Some(false);
        ensure_vm(&facts.vms, may_be_more, tgids.as_deref())?;
    }
    let options = Options {
        ring_bytes: ring_bytes(args.ring_kib),
        tgids,
        vcpu_ids: selected_vcpus(&args.targets),
        stopwatch: stopwatch::start(&facts)?,
        ..Options::default()
    };
    let experiment = Experiment {
        arms,
        switches,
        window_ns: nanoseconds(args.window),
        washout_ns: nanoseconds(args.washout),
        rounds: plan.rounds,
        seed: args.seed.unwrap_or_else(seed_of_now),
        primary: plan.primary.clone(),
    };
    let command = command_line(&args.command, args.full_command);
    let mut header = header(&facts, &layout, &options, args.window, command);
    header.label = args.label.clone();
    header.experiment = Some(experiment.clone());
    if !args.no_compare {
        let sized = plan.sized(args)?;
        say!("{}", plan.design(args.warmup));
        sized.into_iter().for_each(|text| say!("{text}"));
    }
    let mut tracer = Tracer::load(&layout, &options)?;
    let _following = follow(&args.targets, options.tgids.as_deref(), &mut tracer, output::say_over_progress)?;
    let code = runtime()?.block_on(attached(args, &plan, &header, &experiment, tracer, user))?;
    default_endings();
    if !args.no_compare {
        comparison::print_experiment(&args.output, args.format(), args.ignore_below)?;
    }
    Ok(code)
}

/// Fails if no VM runs that the experiment could be about. Where some may not be seen, the first round shows it.
fn ensure_vm(seen: &[RunningVm], may_be_more: bool, tgids: Option<&[u32]>) -> Result<()> {
    let is_meant = |vm: &RunningVm| tgids.is_none_or(|tgids| tgids.contains(&vm.tgid));
    let none = if tgids.is_some() { "none of these processes runs a VM" } else { "no VM is running" };
    ensure!(
        may_be_more || seen.iter().any(is_meant),
        "{none}: an experiment compares what VMs do under each setting\n  -> start a guest first, or let the command start one: \
         vmentry ab ... -- COMMAND"
    );
    Ok(())
}

/// A seed from the clock: it only has to differ from the last one.
fn seed_of_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_micros()) + now.as_secs() % 1000 * 1_000_000
}

async fn attached(
    args: &AbArgs,
    plan: &Plan,
    header: &Header,
    experiment: &Experiment,
    tracer: Tracer,
    user: Option<User>,
) -> Result<ExitCode> {
    let tsc = TscMeter::start();
    // Before the first switch: from here on a signal cannot kill this process between switching and restoring.
    let mut endings = Endings::new()?;
    let module = watch_module(&header.host);
    let name = output::shown(&args.output);
    let out = output::create(&args.output, args.overwrite)?;
    let writer = Writer::new(out, header).with_context(|| format!("write {name}"))?;
    let first = schedule::windows(experiment.seed, 1).next().map_or(0, |l| usize::from(l.arm));
    let switch = Switch::new(args, &experiment.switches, first, &mut endings).await?;
    let attached = Attached::new(tracer)?;
    // Before privileges are given up, so that the command has the caller's.
    let mut child = start(&args.command, user, stdout_beside(!args.no_compare))?;
    let collection = confined(args).and_then(|()| Collection::start(attached, None));
    let collection = or_end(&mut child, collection).await?;
    let progress = Progress::new(experiment, args.command.is_empty());
    let guests = Guests::default();
    let mut run = Run { args, experiment, switch, module, collection, writer, progress, live: Live::new(plan), guests };
    // From here on an error must not return before the setting is restored and the collector has detached.
    let is_started_here = child.is_some();
    let ended = tokio::select! {
        biased;
        ended = interruption(&mut endings, &mut child) => ended,
        done = run.windows(is_started_here) => done.map(|reason| Ended { reason, status: None }),
    };
    let last_line = |accounting, reason: &str| End {
        reason: reason.into(),
        accounting,
        tsc_khz: tsc.khz(),
        policy_changed: false,
        other_tracers: Some(other_tracers::look(&Roots::default())),
    };
    let status = run.finish(ended, child, &mut endings, last_line).await?;
    Ok(status.map_or(ExitCode::SUCCESS, command_code))
}

/// Gives up what the rest of an experiment does not need; nothing where it runs the user's commands to switch, which have the caller's rights.
fn confined(args: &AbArgs) -> Result<()> {
    if runs_commands(args) {
        return Ok(());
    }
    kept(args).give_up_the_rest()
}

/// The privileges that an experiment keeps unless it runs commands.
fn kept(args: &AbArgs) -> privileges::Recording {
    privileges::Recording { uses_map: false, ends_command: !args.command.is_empty() }
}

/// Waits for a signal or for the command's exit, either of which ends an experiment before its time.
async fn interruption(endings: &mut Endings, child: &mut Option<Child>) -> Result<Ended> {
    tokio::select! {
        reason = endings.next() => Ok(Ended { reason, status: None }),
        status = exit_of(child) => Ok(Ended { reason: "command", status: Some(status.context("wait for the command")?) }),
    }
}

/// An experiment while it runs.
struct Run<'a> {
    args: &'a AbArgs,
    experiment: &'a Experiment,
    switch: Switch,
    module: Option<Watch>,
    collection: Collection,
    writer: Writer<Box<dyn Write + Send>>,
    progress: Progress<'a>,
    live: Live<'a>,
    guests: Guests,
}

impl Run<'_> {
    /// Goes through all windows, up to the last VM's end, a round in which no VM entered, or one after which everything is decided; returns
    /// the reason of the end. A guest that the command starts is waited for.
    async fn windows(&mut self, is_started_here: bool) -> Result<&'static str> {
        if is_started_here {
            self.first_entry().await?;
        }
        // A command may start another VM after this one, and ends the experiment with its own end. The numbers of processes of another
        // PID namespace say nothing here.
        let sees_ends = !is_started_here && pid_namespace::shows_host_processes(&Roots::default().proc) != Some(false);
        let (mut of_round, mut earlier) = (0, false);
        for label in schedule::windows(self.experiment.seed, self.experiment.rounds) {
            let entries = self.window(label).await?;
            of_round += entries;
            let is_last = label.place + 1 == schedule::PLACES;
            let is_any_alive = || !sees_ends || self.guests.is_any_alive();
            match next(entries, is_last.then_some(of_round), earlier, is_any_alive) {
                Next::GoOn => {}
                Next::End(reason) => return Ok(reason),
                Next::NoVm => bail!(
                    "no VM entered in round {}: does the guest run, and is it one of those that are traced?",
                    label.round + 1
                ),
            }
            if is_last {
                earlier |= of_round > 0;
                of_round = 0;
                if self.live.ends_with_round(&self.progress.line, label.round + 1) {
                    return Ok(DECIDED);
                }
            }
        }
        Ok(ROUNDS)
    }

    /// Waits until a traced VM enters.
    async fn first_entry(&mut self) -> Result<()> {
        let mut is_first = true;
        loop {
            let interval = self.cut().await?;
            self.write(&interval, None)?;
            if interval.totals.entries > 0 {
                return Ok(());
            }
            if std::mem::take(&mut is_first) {
                say!("waiting for the first VM entry");
            }
            tokio::time::sleep(FIRST_ENTRY_EVERY).await;
        }
    }

    /// Switches, waits for the washout, records the window; returns its entries.
    async fn window(&mut self, label: Label) -> Result<u64> {
        let args = self.args;
        let setting = &self.experiment.switches[usize::from(label.arm)];
        // Also if it is in force already: switching must disturb both settings alike.
        self.switch.to(setting).await?;
        let warmup = if label.round == 0 && label.place == 0 { args.warmup } else { Duration::ZERO };
        self.progress.window = Some(label);
        self.progress.sleep(warmup + args.washout, args.window).await;
        let between = self.cut().await?;
        self.write(&between, None)?;
        self.progress.sleep(args.window, Duration::ZERO).await;
        let window = self.cut().await?;
        self.switch.ensure(setting)?;
        if self.module.as_mut().and_then(Watch::look).is_some() {
            bail!("the KVM module was unloaded or reloaded during a window, which is left out");
        }
        self.write(&window, Some(label))?;
        self.live.take(&window, label);
        // Only a whole round changes it.
        if label.place + 1 == schedule::PLACES {
            self.progress.standing = self.live.text();
        }
        self.progress.done += 1;
        Ok(window.totals.entries)
    }

    /// Writes an interval: that of a window, or one between windows.
    fn write(&mut self, interval: &Interval, window: Option<Label>) -> Result<()> {
        let written = self.writer.write_window(interval, window);
        written.with_context(|| format!("write {}", output::shown(&self.args.output)))
    }

    /// Ends the interval that the collector fills.
    async fn cut(&mut self) -> Result<Interval> {
        let interval = self.collection.cut().await.context("the collector ended early")?;
        self.progress.totals.merge(&interval.totals);
        self.guests.see(&interval);
        Ok(interval)
    }

    /// Restores the setting, detaches, ends the command, and writes the recording's end; returns the command's status.
    async fn finish(
        mut self,
        ended: Result<Ended>,
        mut child: Option<Child>,
        endings: &mut Endings,
        last_line: impl FnOnce(Accounting, &str) -> End,
    ) -> Result<Option<ExitStatus>> {
        let restored = self.switch.restore(endings).await;
        self.progress.line.clear();
        self.collection.stop();
        let mut failure = None;
        while let Some(interval) = self.collection.intervals.recv().await {
            self.progress.totals.merge(&interval.totals);
            // The rest of a window that did not end is written as an interval between windows.
            if ended.is_ok() && failure.is_none() {
                failure = self.writer.write(&interval).err();
            }
        }
        let interrupted = end(&mut child, GRACE).await;
        let accounting = self.collection.join();
        restored?;
        let name = output::shown(&self.args.output);
        let nothing = self.progress.totals.entries == 0;
        // A window that is done has been written.
        let whole = look_again("compare", &self.args.output).filter(|_| self.progress.done > 0);
        let saved = |e: anyhow::Error| match &whole {
            None => e,
            Some(look) => anyhow!("{e:#}\n  -> the windows before are whole: {look}"),
        };
        let Ended { reason, status } = ended.map_err(saved)?;
        if let Some(error) = failure {
            return Err(saved(error.context(format!("write {name}"))));
        }
        let accounting = accounting?;
        let exact = ensure_exact(&accounting, &name.to_string());
        self.writer.finish(last_line(accounting, reason)).with_context(|| format!("write {name}")).map_err(saved)?;
        exact?;
        ensure!(!nothing, "no VM entered until the experiment was ended by {reason}: there is nothing to compare");
        ensure!(
            reason != LAST_VM || self.progress.whole_rounds() > 0,
            "the last VM ended in the first round: there is nothing to compare\n  -> keep a guest running for several rounds, or make \
             them shorter, now {} s: --window",
            schedule::time_left(0, 1, self.args.window, self.args.washout).as_secs()
        );
        self.progress.summary(self.args, reason);
        // The status of a command that was ended because nothing is left to record does not count.
        Ok(status.or(interrupted.filter(|_| !is_own_end(reason))))
    }
}

/// "1 whole round of 12, 6 windows".
fn rounds_text(whole: u32, of: u32, windows: u32) -> String {
    let rounds = if whole == 1 { "round" } else { "rounds" };
    let windows =
        if windows == whole * u32::from(schedule::PLACES) { String::new() } else { format!(", {windows} windows") };
    format!("{whole} whole {rounds} of {of}{windows}")
}

/// Progress and summary of an experiment, on standard error.
struct Progress<'a> {
    experiment: &'a Experiment,
    line: ProgressLine,
    totals: Totals,
    window: Option<Label>,
    /// whole windows
    done: u32,
    /// how far the primary figures are
    standing: String,
}

impl<'a> Progress<'a> {
    /// `alone`: no command writes to the same terminal.
    fn new(experiment: &'a Experiment, alone: bool) -> Self {
        let line = ProgressLine::new(alone);
        Self { experiment, line, totals: Totals::default(), window: None, done: 0, standing: String::new() }
    }

    /// Sleeps, and shows the progress every second. `then` is the rest of the window after that.
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
            "round {} of {rounds}, {} ({}): {} entries, {} dropped; {} s left.{} Ctrl-C compares the rounds so far",
            window.round + 1,
            ["A", "B"][arm],
            arms[arm],
            self.totals.entries,
            self.totals.dropped,
            left.as_secs(),
            self.standing,
        ));
    }

    /// Rounds of which every window is recorded.
    fn whole_rounds(&self) -> u32 {
        self.done / u32::from(schedule::PLACES)
    }

    fn summary(&self, args: &AbArgs, reason: &str) {
        let Totals { entries, dropped, .. } = self.totals;
        say!(
            "recorded {}; {entries} entries, {dropped} dropped (ended by {reason}); seed {}",
            rounds_text(self.whole_rounds(), self.experiment.rounds, self.done),
            self.experiment.seed
        );
        if let Some(look) = look_again("compare", &args.output) {
            say!("compare again: {look}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_how_many_rounds_are_whole() {
        assert_eq!(rounds_text(12, 12, 48), "12 whole rounds of 12");
        assert_eq!(rounds_text(1, 12, 6), "1 whole round of 12, 6 windows");
    }

    #[test]
    fn an_experiment_without_a_vm_is_refused_with_the_fix_unless_some_may_not_be_seen() {
        let web = [RunningVm { name: "web1".into(), tgid: 7 }];
        assert!(ensure_vm(&web, false, None).is_ok() && ensure_vm(&web, false, Some(&[5, 7])).is_ok());
        let refused = |seen: &[RunningVm], tgids| ensure_vm(seen, false, tgids).unwrap_err().to_string();
        assert!(refused(&[], None).starts_with("no VM is running: ") && refused(&[], None).contains("-- COMMAND"));
        assert!(refused(&web, Some(&[5])).starts_with("none of these processes runs a VM: "));
        assert!(ensure_vm(&[], true, None).is_ok());
    }
}
