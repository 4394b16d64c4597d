//! The parts of a survey: what each runs, how long it may take, and where it cannot be had.

use std::time::{Duration, Instant};

use super::{
    projection,
    reason::Reason,
    recorded,
    run::{Ended, GRACE, run},
    values::{Part, Parts},
};
use crate::{calibrate::suitability::HostClock, commands::child::Endings, host::facts::Facts, say};

/// One of this program's commands. The limits add up to two minutes.
pub(super) struct Step {
    number: u32,
    pub(super) name: &'static str,
    /// what it does, for people
    pub(super) what: &'static str,
    pub(super) arguments: &'static [&'static str],
    about_s: u64,
    limit_s: u64,
}

pub(super) const CHECK: Step = Step {
    number: 1,
    name: "check",
    what: "a guest makes a known number of exits while it is traced",
    arguments: &["check", "--format", "json"],
    about_s: 1,
    limit_s: 10,
};
pub(super) const ERRATUM: Step = Step {
    number: 2,
    name: "erratum",
    what: "a guest arms far timers, which fire early on CPUs with erratum EMR158",
    arguments: &["exercise", "early", "--format", "json"],
    about_s: 1,
    limit_s: 10,
};
pub(super) const OVERHEAD: Step = Step {
    number: 3,
    name: "overhead",
    what: "a guest that does nothing but exit runs alternately untraced and traced",
    arguments: &["check", "--no-proof", "--overhead", "--format", "json"],
    about_s: 5,
    limit_s: 25,
};
pub(super) const CALIBRATE: Step = Step {
    number: 4,
    name: "calibrate",
    what: "a guest stamps the TSC around its exits; with the companion patch, under both timer policies",
    arguments: &["calibrate", "--samples", "5000", "--format", "json"],
    about_s: 15,
    limit_s: 40,
};
pub(super) const RECORDING: Step = Step {
    number: 5,
    name: "recording",
    what: "the running VMs are recorded for 30 s; only numbers are kept",
    arguments: &["record", "-o", "-", "--duration", "30s", "--interval", "10s"],
    about_s: 30,
    limit_s: 35,
};
pub(super) const STEPS: [&Step; 5] = [&CHECK, &ERRATUM, &OVERHEAD, &CALIBRATE, &RECORDING];

impl Step {
    /// Longest that it takes, with the time to end it, s.
    pub(super) fn most_seconds(&self, emulated: bool) -> f64 {
        (self.limit_s * times(emulated) + GRACE.as_secs()) as f64 + 1.0
    }
}

/// Time that an emulated CPU needs, in that of a real one.
const EMULATED_TIMES: u64 = 20;
/// Arguments, and those that an emulated CPU has instead: it makes as many samples in a minute.
const EMULATED_INSTEAD: [(&str, &str); 3] = [("5000", "200"), ("30s", "3s"), ("10s", "1s")];

/// Measures all parts, or those that there was time for before a signal.
pub(super) async fn measure(facts: &Facts, endings: Endings) -> Parts {
    let mut survey = Runner { endings, stopped: false, emulated: facts.host.emulated };
    let guest = Reason::not_to_trace_a_guest(facts);
    let check = survey.part(&CHECK, guest, projection::proof).await;
    // A proof that failed: what follows would see as little.
    let silent = check.measured.as_ref().is_some_and(|proof| !proof.passed).then_some(Reason::Silent);
    let no_probe = (!facts.dev_kvm).then_some(Reason::NoDevKvm);
    let erratum = survey.part(&ERRATUM, no_probe, projection::probe).await;
    let overhead = survey.part(&OVERHEAD, guest.or(silent), projection::overhead).await;
    let no_calibration = guest.or_else(|| Reason::not_to_calibrate(facts, &HostClock::gather())).or(silent);
    let calibrate = survey.part(&CALIBRATE, no_calibration, |bytes| projection::calibration(bytes, facts)).await;
    let no_vms = facts.vms.is_empty().then_some(Reason::NoVms);
    let no_recording = Reason::not_to_trace(facts).or(silent).or(no_vms);
    let recording = survey.part(&RECORDING, no_recording, recorded::recording).await;
    Parts { check, erratum, overhead, calibrate, recording }
}

/// Runs one part after the other.
struct Runner {
    endings: Endings,
    stopped: bool,
    emulated: bool,
}

impl Runner {
    /// Runs a part, or says why not.
    async fn part<T>(
        &mut self,
        step: &Step,
        unavailable: Option<Reason>,
        read: impl FnOnce(&[u8]) -> Result<T, Reason>,
    ) -> Part<T> {
        let Step { number, name, what, about_s, .. } = step;
        let of = STEPS.len();
        if let Some(reason) = self.stopped.then_some(Reason::Cut).or(unavailable) {
            say!("{number}/{of} {name}: n/a: {}", reason.text());
            return Part {
                emulated: self.emulated,
                cut: self.stopped,
                seconds: 0.0,
                measured: None,
                unavailable: Some(reason),
            };
        }
        say!("{number}/{of} {name}: {what}, about {about_s} s");
        let started = Instant::now();
        let (result, cut) = self.run(step, read).await;
        let seconds = (started.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        if let Err(reason) = &result {
            say!("{number}/{of} {name}: n/a: {}", reason.text());
        }
        Part {
            emulated: self.emulated,
            cut,
            seconds,
            unavailable: result.as_ref().err().copied(),
            measured: result.ok(),
        }
    }

    async fn run<T>(
        &mut self,
        step: &Step,
        read: impl FnOnce(&[u8]) -> Result<T, Reason>,
    ) -> (Result<T, Reason>, bool) {
        let limit = step.limit_s * times(self.emulated);
        let arguments: Vec<_> = step.arguments.iter().map(|argument| instead(argument, self.emulated)).collect();
        match run(&arguments, Duration::from_secs(limit), &mut self.endings).await {
            Ok(ran) => {
                self.stopped |= ran.ended == Ended::Signal;
                (judged(read(&ran.output), ran.ended), ran.ended != Ended::Itself)
            }
            Err(error) => {
                say!("{}: {error:#}", step.name);
                (Err(Reason::Failed), false)
            }
        }
    }
}

/// Time that a part may take, in that of a real CPU.
const fn times(emulated: bool) -> u64 {
    if emulated { EMULATED_TIMES } else { 1 }
}

/// The argument that is used.
fn instead(argument: &'static str, emulated: bool) -> &'static str {
    let other = EMULATED_INSTEAD.into_iter().find(|(of, _)| emulated && *of == argument);
    other.map_or(argument, |(_, other)| other)
}

/// The figures, or why there are none: of a part that was ended, its end.
fn judged<T>(figures: Result<T, Reason>, ended: Ended) -> Result<T, Reason> {
    figures.map_err(|reason| match ended {
        Ended::Itself => reason,
        Ended::Signal => Reason::Cut,
        Ended::Late => Reason::TooLong,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_together_take_at_most_two_minutes() {
        assert!(STEPS.iter().map(|step| step.limit_s).sum::<u64>() <= 120);
        assert!(STEPS.iter().all(|step| step.about_s <= step.limit_s));
    }

    #[test]
    fn a_part_that_was_ended_keeps_its_figures_or_says_by_what_it_ended() {
        assert_eq!(judged(Ok(7), Ended::Signal), Ok(7));
        let failed = |ended| judged::<u32>(Err(Reason::Failed), ended);
        assert_eq!(failed(Ended::Itself), Err(Reason::Failed));
        assert_eq!((failed(Ended::Signal), failed(Ended::Late)), (Err(Reason::Cut), Err(Reason::TooLong)));
    }

    #[test]
    fn an_emulated_cpu_makes_fewer_samples_and_a_shorter_recording() {
        let differ =
            |step: &Step| step.arguments.iter().filter(|argument| instead(argument, true) != **argument).count();
        assert_eq!(STEPS.map(differ), [0, 0, 0, 1, 2]);
        assert!(CALIBRATE.arguments.iter().all(|argument| instead(argument, false) == *argument));
    }
}
