//! An experiment while it runs: its windows, and its end on every way out.

use std::{process::ExitStatus, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::process::Child;

use super::{
    guests::{DECIDED, Guests, LAST_VM, Next, ROUNDS, is_own_end, next},
    live::Live,
    progress::{Progress, compare_again},
    recording::Recording,
    setting::Switch,
};
use crate::{
    collect::collector::Collection,
    commands::{
        args::AbArgs,
        child::{Ended, Endings, GRACE, end, exit_of},
        session::ensure_exact,
    },
    compare::schedule,
    host::{pid_namespace, roots::Roots},
    kernel::kvm_module::Watch,
    model::{accounting::Accounting, interval::Interval},
    recording::{End, Experiment, Label},
    say,
};

/// How often the first entry is looked for while a command starts its guest.
const FIRST_ENTRY_EVERY: Duration = Duration::from_millis(200);

/// Waits for a signal or for the command's exit, either of which ends an experiment before its time.
pub(super) async fn interruption(endings: &mut Endings, child: &mut Option<Child>) -> Result<Ended> {
    tokio::select! {
        reason = endings.next() => Ok(Ended { reason, status: None }),
        status = exit_of(child) => Ok(Ended { reason: "command", status: Some(status.context("wait for the command")?) }),
    }
}

/// An experiment while it runs.
pub(super) struct Run<'a> {
    pub(super) args: &'a AbArgs,
    pub(super) experiment: &'a Experiment,
    pub(super) switch: Switch,
    pub(super) module: Option<Watch>,
    pub(super) collection: Collection,
    pub(super) recording: Recording,
    pub(super) progress: Progress<'a>,
    pub(super) live: Live<'a>,
    pub(super) guests: Guests,
}

impl Run<'_> {
    /// Goes through all windows, up to the last VM's end, a round in which no VM entered, or one after which everything is decided; returns
    /// the reason of the end. A guest that the command starts is waited for.
    pub(super) async fn windows(&mut self, is_started_here: bool) -> Result<&'static str> {
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
            // The recording begins with it.
            if interval.totals.entries > 0 {
                return self.recording.write(&interval, None);
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
        self.recording.write(&between, None)?;
        self.progress.sleep(args.window, Duration::ZERO).await;
        let window = self.cut().await?;
        self.switch.ensure(setting)?;
        if self.module.as_mut().and_then(Watch::look).is_some() {
            bail!("the KVM module was unloaded or reloaded during a window, which is left out");
        }
        self.recording.write(&window, Some(label))?;
        self.live.take(&window, label);
        // Only a whole round changes it.
        if label.place + 1 == schedule::PLACES {
            self.progress.standing = self.live.text();
        }
        self.progress.done += 1;
        Ok(window.totals.entries)
    }

    /// Ends the interval that the collector fills.
    async fn cut(&mut self) -> Result<Interval> {
        let interval = self.collection.cut().await.context("the collector ended early")?;
        self.progress.totals.merge(&interval.totals);
        self.guests.see(&interval);
        Ok(interval)
    }

    /// Restores the setting, detaches, ends the command, and writes the recording's end; returns the command's status.
    pub(super) async fn finish(
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
                failure = self.recording.write(&interval, None).err();
            }
        }
        let interrupted = end(&mut child, GRACE).await;
        let accounting = self.collection.join();
        restored?;
        let nothing = self.progress.totals.entries == 0;
        // A window that is done has been written.
        let whole = compare_again(self.args).filter(|_| self.progress.done > 0 && self.recording.has_begun());
        let saved = |e: anyhow::Error| match &whole {
            None => e,
            Some(look) => anyhow!("{e:#}\n  -> the windows before are whole: {look}"),
        };
        let Ended { reason, status } = ended.map_err(saved)?;
        if let Some(error) = failure {
            return Err(saved(error));
        }
        let accounting = accounting?;
        let exact = ensure_exact(&accounting, self.recording.name());
        self.recording.finish(last_line(accounting, reason)).map_err(saved)?;
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
