//! Makes long recordings from the fixture of the tests by repetition, with another host, policy or problems.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

/// The differences of a made recording from the fixture.
pub(super) struct Variant {
    /// Name of the host.
    pub(super) host: &'static str,
    /// Its policy, as in the recording's header.
    pub(super) policy: &'static str,
    /// Whether deadline exits become spurious and early in turn, and each interval has a lost entry and one of each other problem.
    pub(super) has_problems: bool,
}

/// Delivered entries of an interval with problems that are in no series: one undecodable, one over the limit of series.
const IN_NO_SERIES: u64 = 2;

/// Returns a recording with the fixture's only interval repeated.
pub(super) fn repeat(fixture: &str, times: u64, variant: &Variant) -> Result<String> {
    let mut lines = fixture.lines();
    let mut header: Value = json(lines.next().context("read the fixture: it is empty")?)?;
    header["host"]["name"] = variant.host.into();
    header["policy"] = variant.policy.into();
    // The first version that tells early timer exits.
    header["version"] = 3.into();
    // Made-up sums of times: those of in-kernel recordings are not held against their distributions.
    header["phases"] = true.into();
    header["aggregation"] = "in-kernel".into();
    let mut out = format!("#{header}\n");
    let (mut interval, mut rest) = (Vec::new(), Vec::new());
    for line in lines {
        match line {
            _ if line.starts_with("Tag=") || line.starts_with("#{\"interval\"") => interval.push(line),
            _ if line.starts_with("#{\"end\"") => rest.push(line),
            _ => out = out + line + "\n",
        }
    }
    let tags: BTreeSet<_> =
        interval.iter().filter_map(|line| line.split_once(";figure=")).map(|(tag, _)| tag).collect();
    for number in 0..times {
        for line in &interval {
            let line = if line.starts_with('#') {
                counts(line, number, variant, tags.len())?
            } else {
                histogram(line, number, variant)?
            };
            out = out + &line + "\n";
        }
    }
    for line in rest {
        let mut end = json(line)?;
        for cpu in end["end"]["accounting"]["cpus"].as_array_mut().into_iter().flatten() {
            let (entries, delivered) = (number(&cpu["entries"])?, number(&cpu["delivered"])?);
            let lost = u64::from(variant.has_problems);
            cpu["entries"] = ((entries + lost + lost * IN_NO_SERIES) * times).into();
            cpu["delivered"] = ((delivered + lost * IN_NO_SERIES) * times).into();
            cpu["dropped"] = (lost * times).into();
        }
        out = out + &format!("#{end}\n");
    }
    Ok(out)
}

fn json(line: &str) -> Result<Value> {
    serde_json::from_str(line.trim_start_matches('#')).context("read the fixture")
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().context("read the fixture: no number")
}

/// Sums of a series' times, ns: guest, host, and of that user, polled, idle and steal.
const TIMES: [u64; 6] = [1_000_000, 2_000_000, 200_000, 100_000, 300_000, 400_000];

/// Changes the comment line with an interval's counts, and adds the sums of the times of so many series.
fn counts(line: &str, times: u64, variant: &Variant, series: usize) -> Result<String> {
    let mut counts = json(line)?;
    let interval = &mut counts["interval"];
    let (start, length) = (number(&interval["start_ns"])?, number(&interval["length_ns"])?);
    interval["start_ns"] = (start + times * length).into();
    interval["times"] = vec![TIMES.to_vec(); series].into();
    if variant.has_problems {
        let totals = &mut interval["totals"];
        let (entries, delivered) = (number(&totals["entries"])?, number(&totals["delivered"])?);
        totals["entries"] = (entries + 1 + IN_NO_SERIES).into();
        totals["delivered"] = (delivered + IN_NO_SERIES).into();
        for total in ["dropped", "unmatched", "malformed", "not_kept", "td_entries"] {
            interval["totals"][total] = 1.into();
        }
    }
    Ok(format!("#{counts}"))
}

/// Changes a histogram's line, `Tag=...,START,LENGTH,MAX,HIST`, with times in seconds.
fn histogram(line: &str, times: u64, variant: &Variant) -> Result<String> {
    let mut fields: Vec<_> = line.splitn(5, ',').map(str::to_owned).collect();
    let [tag, start, length, ..] = &mut fields[..] else { anyhow::bail!("read the fixture: {line}") };
    let seconds = |text: &str| text.parse::<f64>().context("read the fixture's times");
    *start = format!("{:.3}", seconds(start)? + times as f64 * seconds(length)?);
    if variant.has_problems {
        let cause = if times.is_multiple_of(2) { "cause=spurious" } else { "cause=early" };
        *tag = tag.replace("cause=deadline", cause);
    }
    Ok(fields.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_intervals_keep_entries_equal_to_delivered_plus_dropped() {
        let fixture = include_str!("../../../tracer/tests/data/lab.hlog");
        let once = repeat(fixture, 1, &Variant { host: "lab", policy: "soft", has_problems: false }).unwrap();
        let thrice = repeat(fixture, 3, &Variant { host: "b", policy: "hard", has_problems: true }).unwrap();
        assert_eq!(once.lines().count(), fixture.lines().count());
        let tags = |text: &str| text.lines().filter(|l| l.starts_with("Tag=")).count();
        assert_eq!(tags(&thrice), 3 * tags(fixture));
        let end = json(thrice.lines().last().unwrap()).unwrap();
        let cpu = &end["end"]["accounting"]["cpus"][0];
        assert_eq!(cpu["entries"], 3 * 275);
        assert_eq!(cpu["dropped"], 3);
        let has = |cause: &str| thrice.contains(&format!("cause={cause}"));
        assert_eq!(["spurious", "early", "deadline"].map(has), [true, true, false]);
    }
}
