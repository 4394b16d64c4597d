//! Whether the windows can be compared at all: drift, order, carry-over, the same vCPUs, nothing lost.

use std::collections::BTreeSet;

use super::{
    Arm, Check, Options, Round, Side, Windows,
    stats::{
        blocks::{self, log_p50},
        permutation,
    },
};

/// p below which the reader is told.
const ALARM: f64 = 0.01;
/// Random orders tried.
const ORDERS: u32 = 4_000;
/// Share of entries lost from which the reader is told, whichever side lost them.
const MAX_LOSS: f64 = 0.001;
/// vCPUs named before the rest is counted.
const MAX_NAMES: usize = 5;

/// All checks.
pub fn of(windows: &Windows, sides: [&Side; 2], options: &Options) -> Vec<Check> {
    let mut checks = vec![];
    match windows {
        Windows::Rounds(rounds) => {
            let mut rounds: Vec<&Round> = rounds.iter().collect();
            rounds.sort_by_key(|r| r.a[0].start_unix_ns.min(r.b[0].start_unix_ns));
            // Log medians in the order of time. Each contrast below takes as much from either side, so their difference cancels.
            let places: Vec<[f64; 4]> = rounds.iter().filter_map(|r| places(r)).collect();
            let of_round = |p: &[f64; 4]| p.iter().sum::<f64>() / 4.0;
            checks.push(drift("drift", "rounds", &places.iter().map(of_round).collect::<Vec<_>>(), options));
            checks.push(signed(
                "order",
                "the second half of a round against the first",
                places.iter().map(|p| (p[2] + p[3] - p[0] - p[1]) / 2.0),
                options,
            ));
            // The same side's windows three places apart tell the trend within the round, which must not pass for carry-over.
            checks.push(signed(
                "carry-over",
                "a window after one of the other side against the next, after one of its own",
                places.iter().map(|p| p[1] - p[2] + (p[3] - p[0]) / 3.0),
                options,
            ));
        }
        Windows::Runs { a, b } => {
            let length = blocks::length(a, b);
            for (name, side) in [("drift of A", a), ("drift of B", b)] {
                let mut means = vec![];
                for run in side.iter().filter(|run| !run.is_empty()) {
                    means.extend(blocks::cut(run.len(), length).filter_map(|block| {
                        let values: Vec<f64> = run[block].iter().filter_map(log_p50).collect();
                        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
                    }));
                }
                checks.push(drift(name, "blocks of windows", &means, options));
            }
        }
    }
    checks.push(vcpus(windows, sides));
    checks.push(loss(sides));
    checks
}

fn places(round: &Round) -> Option<[f64; 4]> {
    let [a0, a1, b0, b1] = [&round.a[0], &round.a[1], &round.b[0], &round.b[1]];
    let order = if round.a_first { [a0, b0, b1, a1] } else { [b0, a0, a1, b1] };
    let logs = order.map(log_p50);
    logs.iter().all(Option::is_some).then(|| logs.map(Option::unwrap_or_default))
}

fn percent(log: f64) -> f64 {
    100.0 * log.exp_m1()
}

fn check(name: &'static str, p: Option<f64>, what: &str, effect: Option<f64>) -> Check {
    let text = match (effect, p) {
        (Some(effect), Some(_)) => format!("median entry_to_exit_ns, {what}: {:+.2} %", percent(effect)),
        _ => format!("median entry_to_exit_ns, {what}: too few windows to tell"),
    };
    Check { name, text, p, alarm: p.is_some_and(|p| p < ALARM) }
}

/// A trend over time, by Kendall's rank correlation; its size from the least squares line, from the first to the last.
fn drift(name: &'static str, unit: &str, values: &[f64], options: &Options) -> Check {
    let n = values.len() as f64;
    let (mid, mean) = ((n - 1.0) / 2.0, values.iter().sum::<f64>() / n);
    let products: f64 = values.iter().enumerate().map(|(i, v)| (i as f64 - mid) * (v - mean)).sum();
    let squares: f64 = (0..values.len()).map(|i| (i as f64 - mid).powi(2)).sum();
    let effect = (values.len() > 2).then(|| products / squares * (n - 1.0));
    let p = permutation::trend_p(values, ORDERS, options.seed);
    check(name, p, &format!("last of {} {unit} against the first, along a line", values.len()), effect)
}

fn signed(name: &'static str, what: &str, units: impl Iterator<Item = f64>, options: &Options) -> Check {
    let units: Vec<f64> = units.collect();
    let p = permutation::sign_p(&units, options.permutations, options.seed).filter(|_| units.len() > 1);
    check(name, p, what, (units.len() > 1).then(|| units.iter().sum::<f64>() / units.len() as f64))
}

fn names<'a>(vcpus: impl Iterator<Item = &'a (String, u32)>) -> String {
    let all: Vec<String> = vcpus.map(|(vm, vcpu)| format!("{vm}/{vcpu}")).collect();
    match all.len().saturating_sub(MAX_NAMES) {
        0 => all.join(", "),
        more => format!("{} and {more} more", all[..MAX_NAMES].join(", ")),
    }
}

fn vcpus(windows: &Windows, [a, b]: [&Side; 2]) -> Check {
    let all: BTreeSet<&(String, u32)> = a.vcpus.union(&b.vcpus).collect();
    let missing = |window: &super::Window| all.iter().any(|v| !window.vcpus.contains(v));
    let (partly, count) = match windows {
        Windows::Rounds(rounds) => {
            (rounds.iter().flat_map(|r| r.a.iter().chain(&r.b)).filter(|w| missing(w)).count(), 4 * rounds.len())
        }
        Windows::Runs { a, b } => {
            let all = || a.iter().chain(b).flatten();
            (all().filter(|w| missing(w)).count(), all().count())
        }
    };
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
        found.push(format!("{partly} of {count} windows miss some of {}", names(all.iter().copied())));
    }
    let alarm = !found.is_empty();
    let text = if alarm { found.join("; ") } else { format!("the same {} vCPUs in every window", all.len()) };
    Check { name: "vcpus", text, p: None, alarm }
}

fn loss(sides: [&Side; 2]) -> Check {
    let lost = sides.map(|s| {
        let lost = s.totals.dropped.saturating_add(s.totals.malformed).saturating_add(s.totals.not_kept);
        (lost, lost as f64 / s.totals.entries.max(lost).max(1) as f64)
    });
    let [(a, share_a), (b, share_b)] = lost;
    // Losing twice as much as the other side, and more than a few, selects what is compared.
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
