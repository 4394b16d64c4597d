//! Checks of whether the windows can be compared at all: drift, order, carry-over, vCPUs, loss.

use std::collections::BTreeSet;

use super::{
    comparison::{Check, Side},
    stats::{
        blocks::{self, log_p50},
        permutation,
    },
    windows::{Arm, ExperimentRound, Options, Window, Windows},
};

/// p below which a check is an alarm.
const ALARM: f64 = 0.01;
/// Random orders of a trend test.
const ORDERS: u32 = 4_000;
/// Share of lost entries on either side above which the loss is an alarm.
const MAX_LOSS: f64 = 0.001;
/// vCPUs that are named; the others are counted.
const MAX_NAMES: usize = 5;

/// All checks, in the order in which they are shown.
pub(super) fn of(windows: &Windows, sides: [&Side; 2], options: &Options) -> Vec<Check> {
    let mut checks = match windows {
        Windows::Rounds(rounds) => of_rounds(rounds, options),
        Windows::Runs { a, b } => of_runs(a, b, options),
    };
    checks.push(vcpus(windows, sides));
    checks.extend(overlap(sides));
    checks.push(loss(sides));
    checks
}

fn of_rounds(rounds: &[ExperimentRound], options: &Options) -> Vec<Check> {
    let mut rounds: Vec<&ExperimentRound> = rounds.iter().collect();
    rounds.sort_by_key(|r| r.a[0].start_unix_ns.min(r.b[0].start_unix_ns));
    // Log medians in the order of time. Each contrast below takes the same from either side, so that their difference cancels.
    let places: Vec<[f64; 4]> = rounds.iter().filter_map(|r| places(r)).collect();
    let of_round = |p: &[f64; 4]| p.iter().sum::<f64>() / 4.0;
    vec![
        drift("drift", "rounds", &places.iter().map(of_round).collect::<Vec<_>>(), options),
        signed(
            "order",
            "second half of a round against the first",
            places.iter().map(|p| (p[2] + p[3] - p[0] - p[1]) / 2.0),
            options,
        ),
        // The trend within the round, from the same side's windows three places apart, must not count as carry-over.
        signed(
            "carry-over",
            "windows after one of the other side against windows after one of their own",
            places.iter().map(|p| p[1] - p[2] + (p[3] - p[0]) / 3.0),
            options,
        ),
    ]
}

fn of_runs(a: &[Vec<Window>], b: &[Vec<Window>], options: &Options) -> Vec<Check> {
    let length = blocks::length(a, b);
    let mean_of_block = |block: &[Window]| {
        let values: Vec<f64> = block.iter().filter_map(log_p50).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let drift_of = |(name, side): (&'static str, &[Vec<Window>])| {
        let runs = side.iter().filter(|run| !run.is_empty());
        let blocks = runs.flat_map(|run| blocks::cut(run.len(), length).filter_map(|block| mean_of_block(&run[block])));
        drift(name, "blocks of windows", &blocks.collect::<Vec<_>>(), options)
    };
    [("drift of A", a), ("drift of B", b)].map(drift_of).into()
}

/// Log medians of a round's windows in the order of time; none if one has no entries.
fn places(round: &ExperimentRound) -> Option<[f64; 4]> {
    let [a0, a1, b0, b1] = [&round.a[0], &round.a[1], &round.b[0], &round.b[1]];
    let order = if round.a_first { [a0, b0, b1, a1] } else { [b0, a0, a1, b1] };
    let logs = order.map(log_p50);
    logs.iter().all(Option::is_some).then(|| logs.map(Option::unwrap_or_default))
}

fn percent(log: f64) -> f64 {
    100.0 * log.exp_m1()
}

fn check(name: &'static str, p: Option<f64>, subject: &str, effect: Option<f64>) -> Check {
    let text = match (effect, p) {
        (Some(effect), Some(_)) => format!("median guest time, {subject}: {:+.2} %", percent(effect)),
        _ => format!("median guest time, {subject}: too few windows"),
    };
    Check { name, text, p, alarm: p.is_some_and(|p| p < ALARM) }
}

/// A trend over time: p by Kendall's rank correlation, size by the least squares line from the first to the last.
fn drift(name: &'static str, unit: &str, values: &[f64], options: &Options) -> Check {
    let n = values.len() as f64;
    let (mid, mean) = ((n - 1.0) / 2.0, values.iter().sum::<f64>() / n);
    let products: f64 = values.iter().enumerate().map(|(i, v)| (i as f64 - mid) * (v - mean)).sum();
    let squares: f64 = (0..values.len()).map(|i| (i as f64 - mid).powi(2)).sum();
    let effect = (values.len() > 2).then(|| products / squares * (n - 1.0));
    let p = permutation::trend_p(values, ORDERS, options.seed);
    check(name, p, &format!("last of {} {unit} against the first, on the fitted line", values.len()), effect)
}

fn signed(name: &'static str, subject: &str, units: impl Iterator<Item = f64>, options: &Options) -> Check {
    let units: Vec<f64> = units.collect();
    let p = permutation::sign_p(&units, options.permutations, options.seed).filter(|_| units.len() > 1);
    check(name, p, subject, (units.len() > 1).then(|| units.iter().sum::<f64>() / units.len() as f64))
}

/// Names of vCPUs, and the number of those left out.
fn names<'a>(vcpus: impl Iterator<Item = &'a (String, u32)>) -> String {
    let all: Vec<String> = vcpus.map(|(vm, vcpu)| format!("{vm}/{vcpu}")).collect();
    match all.len().saturating_sub(MAX_NAMES) {
        0 => all.join(", "),
        more => format!("{} and {more} more", all[..MAX_NAMES].join(", ")),
    }
}

fn vcpus(windows: &Windows, [a, b]: [&Side; 2]) -> Check {
    let all: BTreeSet<&(String, u32)> = a.vcpus.union(&b.vcpus).collect();
    // vCPUs may come and go between rounds: within a round, both sides have the same.
    let groups: Vec<Vec<&Window>> = match windows {
        Windows::Rounds(rounds) => rounds.iter().map(|r| r.a.iter().chain(&r.b).collect()).collect(),
        Windows::Runs { a, b } => vec![a.iter().chain(b).flatten().collect()],
    };
    let missing = |group: &Vec<&Window>| {
        let there: BTreeSet<&(String, u32)> = group.iter().flat_map(|window| &window.vcpus).collect();
        group.iter().filter(|window| window.vcpus.len() < there.len()).count()
    };
    let (partly, count) = (groups.iter().map(missing).sum::<usize>(), groups.iter().map(Vec::len).sum::<usize>());
    let is_same = groups.iter().flatten().all(|window| window.vcpus.len() == all.len());
    let only = |x: &Side, y: &Side| names(x.vcpus.difference(&y.vcpus));
    let (only_a, only_b) = (only(a, b), only(b, a));
    let mut found = vec![];
    if !only_a.is_empty() {
        found.push(format!("only A has {only_a}"));
    }
    if !only_b.is_empty() {
        found.push(format!("only B has {only_b}"));
    }
    if all.is_empty() {
        found.push("no VM entered".to_owned());
    }
    if found.is_empty() && partly > 0 {
        let names = names(all.iter().copied());
        found.push(if all.len() == 1 {
            format!("vCPU {names} did not run in {partly} of {count} windows")
        } else {
            format!("in {partly} of {count} windows, not all vCPUs ran ({names})")
        });
    }
    let alarm = !found.is_empty();
    let text = match (alarm, is_same) {
        (true, _) => found.join("; "),
        (false, true) => format!("the same {} vCPUs in every window", all.len()),
        (false, false) => format!("the same vCPUs in all windows of each round, of {} in all", all.len()),
    };
    Check { name: "vcpus", text, p: None, alarm }
}

/// Recordings of a side that overlap in time; none if there are no such.
fn overlap(sides: [&Side; 2]) -> Option<Check> {
    let shares = sides.map(Side::covered_share);
    let [a, b] = shares.map(|share| format!("{:.1}", 1.0 / share.max(f64::MIN_POSITIVE)));
    let text = format!(
        "recordings of a side overlap in time, {a} at a time in A and {b} in B: events per second are those of all of them together"
    );
    (shares != [1.0, 1.0]).then(|| Check { name: "overlap", text, p: None, alarm: a != b })
}

fn loss(sides: [&Side; 2]) -> Check {
    let lost = sides.map(|s| {
        let lost = s.totals.dropped.saturating_add(s.totals.malformed).saturating_add(s.totals.not_kept);
        (lost, lost as f64 / s.totals.entries.max(lost).max(1) as f64)
    });
    let [(a, share_a), (b, share_b)] = lost;
    // A side that loses more than twice as much as the other compares a selection.
    let uneven = a.max(b) > 100 && (share_a - share_b).abs() > share_a.min(share_b);
    let alarm = share_a.max(share_b) > MAX_LOSS || uneven;
    let text = if a == 0 && b == 0 {
        "no entry was lost on either side".to_owned()
    } else {
        let of = |arm: Arm, n: u64, share: f64| format!("{arm:?} lost {n} entries ({:.4} %)", 100.0 * share);
        format!("{}, {}", of(Arm::A, a, share_a), of(Arm::B, b, share_b))
    };
    Check { name: "loss", text, p: None, alarm }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{Comparison, compare};

    fn check(there: impl Fn(usize, usize) -> Vec<u32>) -> Check {
        let window = |round, place| {
            let vcpus = there(round, place).into_iter().map(|vcpu| ("vm".to_owned(), vcpu)).collect();
            Window { vcpus, ..Window::default() }
        };
        let round =
            |n| ExperimentRound { a: [window(n, 0), window(n, 3)], b: [window(n, 1), window(n, 2)], a_first: true };
        let options = Options { resamples: 0, ..Options::default() };
        let Comparison { checks, .. } = compare(&Windows::Rounds((0..4).map(round).collect()), &options);
        checks.into_iter().find(|check| check.name == "vcpus").unwrap()
    }

    #[test]
    fn vcpus_may_come_and_go_between_rounds_but_not_within_one() {
        let same = check(|_, _| vec![0, 1]);
        assert_eq!((same.alarm, same.text.as_str()), (false, "the same 2 vCPUs in every window"));
        let came = check(|round, _| if round < 2 { vec![0] } else { vec![0, 1] });
        assert_eq!(
            (came.alarm, came.text.as_str()),
            (false, "the same vCPUs in all windows of each round, of 2 in all")
        );
        let within = check(|round, place| if round == 1 && place == 2 { vec![0] } else { vec![0, 1] });
        assert!(within.alarm && within.text.contains("in 1 of 16 windows, not all vCPUs ran"), "{}", within.text);
        let only_b = check(|_, place| if place == 1 || place == 2 { vec![0, 1] } else { vec![0] });
        assert!(only_b.alarm && only_b.text.contains("only B has vm/1"), "{}", only_b.text);
    }
}
