//! Finds what speaks against a row of docs/hosts.md in a survey that somebody sent: what is not whole, contradicts itself, or may be a name.

mod calibrate;
mod check;
mod erratum;
mod host;
mod overhead;
mod read;
mod recording;

use super::{
    parts::{CALIBRATE, CHECK, ERRATUM, OVERHEAD, RECORDING, Step},
    reason::Reason,
    values::{Distribution, Host, Part, Parts, Percentiles, Survey},
};
use crate::output::printable;
pub(super) use read::read;

/// What was found in a survey.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// what speaks against a row; empty for a good survey
    pub(super) faults: Vec<String>,
    /// what is odd, or is for people to look at; none speaks against a row
    pub(super) remarks: Vec<String>,
}

/// Judges a survey. `today` is a day in UTC, e.g. "2026-11-27".
pub(super) fn judge(survey: &Survey, today: &str) -> Findings {
    let mut findings = Findings::default();
    let Survey { host, parts, .. } = survey;
    findings.whole(survey, today);
    findings.host(host);
    findings.between(parts);
    findings.part(&CHECK, host, &parts.check, Findings::proof);
    findings.part(&ERRATUM, host, &parts.erratum, |findings, probe| findings.probe(host, probe));
    findings.part(&OVERHEAD, host, &parts.overhead, Findings::overhead);
    findings.part(&CALIBRATE, host, &parts.calibrate, |findings, calibration| findings.calibration(host, calibration));
    findings.part(&RECORDING, host, &parts.recording, |findings, recording| findings.recording(host, recording));
    if let Some(recording) = &parts.recording.measured {
        let seconds = parts.recording.seconds;
        let is_within = recording.length_s <= seconds + 1.0;
        findings
            .unless(is_within, format!("recording.length_s {} is more than its seconds {seconds}", recording.length_s));
    }
    findings
}

/// Values of one kind: those that are known, in ns or as counts.
struct Spread {
    count: u64,
    floor: Option<f64>,
    p50: f64,
    p90: Option<f64>,
    p99: f64,
    max: Option<f64>,
    mean: f64,
}

impl From<&Distribution> for Spread {
    fn from(d: &Distribution) -> Self {
        let Distribution { count, floor, p50, p90, p99, max, mean } = *d;
        Self { count, floor: Some(floor), p50, p90: Some(p90), p99, max: Some(max), mean }
    }
}

impl From<&Percentiles> for Spread {
    fn from(p: &Percentiles) -> Self {
        let Percentiles { count, p50, p99, mean } = *p;
        Self { count, floor: None, p50, p90: None, p99, max: None, mean }
    }
}

/// How much the shares that a file has may differ from those that follow from its counts.
const SHARE_ERROR: f64 = 0.01;
/// A percentile of a histogram is the upper end of a bucket, and a mean is not.
const BUCKET: f64 = 0.05;

impl Findings {
    fn unless(&mut self, is_right: bool, fault: impl Into<String>) {
        if !is_right {
            self.faults.push(fault.into());
        }
    }

    fn remark_unless(&mut self, is_usual: bool, remark: impl Into<String>) {
        if !is_usual {
            self.remarks.push(remark.into());
        }
    }

    /// A text that must be of a closed form. `form` says of which.
    fn text(&mut self, is_right: bool, of: &str, text: &str, form: &str) {
        self.unless(
            is_right,
            format!("{of} may hold a name, a path or an id: '{}' is not {form}", printable(text, 60)),
        );
    }

    fn whole(&mut self, survey: &Survey, today: &str) {
        let parts = &survey.parts;
        self.unless(!survey.host.emulated, "the CPU is emulated: its times say nothing about real hardware");
        self.unless(
            !survey.cut && !parts.is_cut(),
            "it was ended before its parts were done: run it again, to its end",
        );
        self.unless(survey.cut == parts.is_cut(), "cut and the cut of the parts disagree");
        self.unless(parts.has_figures(), "nothing was measured");
        self.unless(is_version(&survey.tool), "tool is not 'vmentry' and a version");
        let day = &survey.day;
        let is_day = host::is_day(day) && (FIRST_DAY..=today).contains(&day.as_str());
        self.unless(is_day, format!("day is not a date from {FIRST_DAY} to today, {today}: '{}'", printable(day, 20)));
    }

    /// Reasons that one part has and figures of another that cannot be with it.
    fn between(&mut self, parts: &Parts) {
        let Parts { check, erratum, overhead, calibrate, recording } = parts;
        let traced = [
            ("check", check.unavailable, check.measured.is_some()),
            ("overhead", overhead.unavailable, overhead.measured.is_some()),
            ("calibrate", calibrate.unavailable, calibrate.measured.is_some()),
            ("recording", recording.unavailable, recording.measured.is_some()),
        ];
        let fails = check.measured.as_ref().is_some_and(|proof| !proof.passed);
        let all = traced.into_iter().chain([("erratum", erratum.unavailable, erratum.measured.is_some())]);
        for (part, reason, _) in all.clone() {
            let Some(reason) = reason else { continue };
            for (other, _, _) in all.clone().filter(|(other, _, is)| *is && excludes(reason, other)) {
                let reason = reason.text();
                self.unless(
                    false,
                    format!("{part} is n/a for a reason that {other} cannot have been measured with: {reason}"),
                );
            }
            let is_silent = reason == Reason::Silent;
            self.unless(
                !is_silent || fails,
                format!("{part} is n/a as after a check that failed, and check did not fail"),
            );
        }
    }

    fn part<T>(&mut self, step: &Step, host: &Host, part: &Part<T>, judge: impl FnOnce(&mut Self, &T)) {
        let name = step.name;
        let has_one = part.measured.is_some() != part.unavailable.is_some();
        self.unless(has_one, format!("{name} has figures and a reason why not, or neither"));
        self.unless(
            part.emulated == host.emulated,
            format!("{name} and the host disagree on whether the CPU is emulated"),
        );
        let most = step.most_seconds(host.emulated);
        let is_time = (0.0..=most).contains(&part.seconds);
        self.unless(is_time, format!("{name}.seconds is not within 0 to {most}: {}", part.seconds));
        if let Some(measured) = &part.measured {
            judge(self, measured);
        }
    }

    /// One rule for every distribution: values that rise, a mean within them, and at least one value. `most` bounds all values.
    fn spread(&mut self, of: &str, spread: impl Into<Spread>, most: Option<f64>) {
        let Spread { count, floor, p50, p90, p99, max, mean } = spread.into();
        let (floor, max) = (floor.unwrap_or(0.0), max.or(most));
        self.rising(of, [Some(0.0), Some(floor), Some(p50), p90, Some(p99), max]);
        self.rising(of, [Some(floor), Some(mean), max]);
        // Half of the values are no less than the median, and all but one in a hundred no more than p99.
        let least = p50 / 2.0 * (1.0 - BUCKET);
        let most = max.map(|max| (p99 + max / 100.0) * (1.0 + BUCKET));
        let is_mean = least <= mean && most.is_none_or(|most| mean <= most);
        self.unless(is_mean, format!("{of}: the mean {mean} cannot be of values with p50 {p50} and p99 {p99}"));
        self.unless(count > 0, format!("{of}: a distribution of no values"));
    }

    /// Values that must not fall, but for what rounding does. A value that is not known is none.
    fn rising(&mut self, of: &str, values: impl IntoIterator<Item = Option<f64>>) {
        let values: Vec<f64> = values.into_iter().flatten().collect();
        let is_rising = values.windows(2).all(|pair| pair[0] <= pair[1] + 1e-6 * pair[1].abs());
        self.unless(is_rising, format!("{of}: least, median, percentiles and most are not in order"));
    }

    /// Shares, each within 0 to 1, that together are the whole if all are known.
    fn shares(&mut self, of: &str, shares: impl Iterator<Item = Option<f64>>) {
        let shares: Vec<_> = shares.collect();
        let known: Vec<f64> = shares.iter().flatten().copied().collect();
        let sum: f64 = known.iter().sum();
        let is_whole = known.is_empty() || (sum - 1.0).abs() <= SHARE_ERROR;
        let is_right = known.iter().all(|share| (0.0..=1.0).contains(share)) && is_whole;
        self.unless(is_right, format!("{of} are not shares that add up to 1: they add up to {sum}"));
    }
}

/// The first day of a version that made surveys.
const FIRST_DAY: &str = "2026-11-01";

/// Whether a part of this name cannot have figures on a host where another part has this reason.
fn excludes(reason: Reason, part: &str) -> bool {
    match reason {
        Reason::NotPrivileged | Reason::NoKvmModule | Reason::NoBtf | Reason::CannotTrace => part != "erratum",
        Reason::Silent => ["overhead", "calibrate", "recording"].contains(&part),
        Reason::NoDevKvm => part != "recording",
        Reason::PidNamespace => ["check", "overhead", "calibrate"].contains(&part),
        _ => false,
    }
}

/// Whoever wrote the file chose the counts.
fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// "vmentry 0.1.0"
fn is_version(tool: &str) -> bool {
    let version = tool.strip_prefix("vmentry ").map(|version| version.split('.').collect::<Vec<_>>());
    version.is_some_and(|parts| parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok()))
}

#[cfg(test)]
mod tests;
