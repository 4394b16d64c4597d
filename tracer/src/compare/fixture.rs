//! A synthetic comparison for tests, from a seeded generator.

use std::collections::{BTreeMap, BTreeSet};

use tracer_common::{Isa, rules::TimerCause};

use super::*;
use crate::{
    model::{
        figures::{Figure, Unit},
        histogram::Histogram,
        number::truncated_u64,
        series::Level,
        totals::Totals,
    },
    recording::{Experiment, Provenance, tests::header},
};

struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A time with two modes and a heavy tail, ns.
    fn latency(&mut self, scale: f64) -> u64 {
        let normal = (0..12).map(|_| self.next()).sum::<f64>() - 6.0;
        let center = if self.next() < 0.7 { 1_800.0 } else { 9_000.0 };
        let tail = if self.next() < 0.01 { 1.0 / (self.next() + 0.01) } else { 1.0 };
        truncated_u64(center * scale * (normal * 0.12).exp() * tail)
    }
}

fn histogram(seed: u64, n: usize, scale: f64) -> Histogram {
    let (mut random, mut out) = (Random(seed), Histogram::default());
    (0..n).for_each(|_| out.record(random.latency(scale)));
    out
}

fn around(value: f64, half: f64) -> Option<Estimate> {
    Some(Estimate { value, low: Some(value - half), high: Some(value + half) })
}

fn row(figure: &'static str, stat: &'static str, unit: Unit, a: f64, b: f64, half: f64, verdict: Verdict) -> Row {
    let changed = matches!(verdict, Verdict::Better | Verdict::Worse | Verdict::Changed);
    Row {
        figure,
        stat,
        unit,
        better: if unit == Unit::PerSecond { Better::Neither } else { Better::Lower },
        a: Some(a),
        b: Some(b),
        count_a: 40_000,
        count_b: 40_000,
        difference: around(b - a, half * if a > 0.0 { a } else { 1.0 }),
        ratio: (a > 0.0).then(|| around(b / a, half)).flatten(),
        p: Some(if changed { 0.0002 } else { 0.31 }),
        p_holm: Some(if changed { 0.0034 } else { 1.0 }),
        detectable: Some(half * 1.4 * if a > 0.0 { a } else { 1.0 }),
        noise: (a > 0.0).then_some(half * 0.8),
        primary: None,
        decided_after: None,
        verdict,
        why: None,
    }
}

fn unknown(figure: &'static str, stat: &'static str, unit: Unit, why: &str) -> Row {
    Row {
        a: None,
        b: None,
        difference: None,
        ratio: None,
        p: None,
        p_holm: None,
        detectable: None,
        noise: None,
        why: Some(why.into()),
        ..row(figure, stat, unit, 1.0, 1.0, 0.1, Verdict::NotEnoughData)
    }
}

fn distribution(figure: Figure, seed: u64, scale: f64) -> Distributions {
    let (a, b) = (histogram(seed, 40_000, 1.0), histogram(seed + 1, 40_000, scale));
    let quantiles = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999];
    let shifts = quantiles.map(|q| {
        let of = |h: &Histogram| h.quantile(q).unwrap() as f64;
        let difference = of(&b) - of(&a);
        Shift { quantile: q, a: of(&a), difference: around(difference, of(&a) * 0.02 / (1.03 - q).sqrt()).unwrap() }
    });
    Distributions { figure, a, b, shifts: shifts.to_vec() }
}

fn stratum(reason: u32, cause: Option<TimerCause>) -> Stratum {
    Stratum { level: Level::L1, isa: Isa::Vmx, reason: Some(reason), cause }
}

fn side(pin_writes: u64) -> Side {
    let totals = Totals { entries: 40_003, delivered: 40_000, dropped: 3, unmatched: 2, ..Totals::default() };
    Side {
        windows: 20,
        length_ns: 100_000_000_000,
        recorded_ns: 100_000_000_000,
        totals,
        pin_writes: Some(pin_writes),
        timer_exits: BTreeMap::from([(TimerCause::Deadline, Ok(8000)), (TimerCause::Spurious, Ok(3))]),
        vcpus: BTreeSet::from([("web1".into(), 0), ("web1".into(), 1)]),
        left_out: 0,
    }
}

/// Twenty windows of either side: pin writes and the tail are worse, the median is better, the rest has not changed.
pub(crate) fn comparison() -> Comparison {
    use Verdict::NoDetectableChange as Same;
    let rows = rows();
    let mut stratified = rows[..8].to_vec();
    stratified[2] = row("entry_to_exit_ns", "p99", Unit::Ns, 15_200.0, 15_650.0, 0.04, Same);
    Comparison {
        a: side(0),
        b: side(16_400),
        method: vec![
            "blocks are rounds of four windows; 10 rounds were resampled 2000 times, studentised".into(),
            "every relabelling of the 10 rounds was tried: 1024".into(),
        ],
        seed: 42,
        alpha: 0.05,
        ignore_below: 0.0,
        unit: "round",
        units: [10, 10],
        needed: 10,
        least_p: 0.00195,
        rows,
        stratified,
        mix: mix(),
        distributions: vec![distribution(Figure::EntryToExit, 5, 1.12), distribution(Figure::ExitToEntry, 11, 1.0)],
        timeline: timeline(),
        checks: vec![
            Check { name: "drift", text: "A's p50 drifts by -0.1 % per round".into(), p: Some(0.62), alarm: false },
            Check {
                name: "carry-over",
                text: "the first window after a switch differs from the second by 3.1 %".into(),
                p: Some(0.003),
                alarm: true,
            },
        ],
        by_vm: ByVm::default(),
    }
}

/// Guest time that differs between VMs, one of which was there for few rounds, and pin-control writes that do not.
pub(crate) fn by_vm() -> ByVm {
    let vm = |name: &str, a: f64, b: f64, half: f64| VmEffect {
        vm: name.into(),
        rounds: 12,
        a,
        b,
        change: around(if a > 0.0 { b / a } else { b - a }, half).unwrap(),
    };
    let mut gone = vm("gone", 1000.0, 1030.0, 1.0);
    (gone.rounds, gone.change) = (3, Estimate { value: 1.03, low: None, high: None });
    let all = |a, change, tau, i_squared| Some(Combined { vms: 2, a, change, tau, i_squared });
    ByVm {
        figures: vec![
            FigureByVm {
                figure: "entry_to_exit_ns",
                stat: "p50",
                unit: Unit::Ns,
                is_ratio: true,
                vms: vec![vm("web1", 1000.0, 1120.0, 0.02), vm("db", 2000.0, 1980.0, 0.015), gone],
                all: all(1000.0, around(1.055, 0.9).unwrap(), 0.122, 0.97),
            },
            FigureByVm {
                figure: "pin_writes",
                stat: "mean",
                unit: Unit::Count,
                is_ratio: false,
                vms: vec![vm("web1", 0.0, 0.41, 0.01), vm("db", 0.0, 0.42, 0.02)],
                all: all(0.0, around(0.412, 0.02).unwrap(), 0.0, 0.0),
            },
        ],
        more: 2,
    }
}

/// The same with primary figures: pin writes were decided after seven rounds, the median guest time is undecided, and all behind it was
/// not tested.
pub(crate) fn gated() -> Comparison {
    let mut c = comparison();
    let primary = [("pin_writes", "mean"), ("entry_to_exit_ns", "p50"), ("exit_to_entry_ns", "p50")];
    for row in &mut c.rows {
        row.primary = primary.iter().position(|name| *name == (row.figure, row.stat));
        if row.primary != Some(0) && row.p.is_some() {
            row.verdict = Verdict::NotTested;
        }
        match row.primary {
            Some(0) => (row.p_holm, row.decided_after) = (row.p, Some(7)),
            Some(1) => {
                let [a, low, high] = [1850.0, -0.021, 0.03];
                row.b = Some(a * 1.004);
                row.difference = Some(Estimate { value: a * 0.004, low: Some(a * low), high: Some(a * high) });
                row.ratio = Some(Estimate { value: 1.004, low: Some(1.0 + low), high: Some(1.0 + high) });
                (row.p, row.p_holm, row.verdict) = (Some(0.4), Some(0.4), Verdict::Undecided);
            }
            Some(_) => (row.p, row.p_holm) = (Some(0.6), Some(0.6)),
            None => {}
        }
    }
    c
}

fn rows() -> Vec<Row> {
    use Verdict::{Better, Changed, NoDetectableChange as Same, Worse};
    let mut rows = vec![
        row("entry_to_exit_ns", "p50", Unit::Ns, 1850.0, 1792.0, 0.008, Better),
        row("entry_to_exit_ns", "p90", Unit::Ns, 9800.0, 9850.0, 0.012, Same),
        row("entry_to_exit_ns", "p99", Unit::Ns, 15_200.0, 17_900.0, 0.041, Worse),
        row("entry_to_exit_ns", "p999", Unit::Ns, 152_000.0, 171_000.0, 0.22, Same),
        unknown("entry_to_exit_ns", "max", Unit::Ns, "a maximum has no valid interval"),
        row("exit_to_entry_ns", "p50", Unit::Ns, 2100.0, 2096.0, 0.006, Same),
        row("exit_to_entry_ns", "p90", Unit::Ns, 9100.0, 9140.0, 0.011, Same),
        row("exit_to_entry_ns", "p99", Unit::Ns, 16_400.0, 16_550.0, 0.03, Same),
        row("pin_writes", "mean", Unit::Count, 0.0, 0.41, 0.02, Worse),
        row("timer_exits.deadline", "per_second", Unit::PerSecond, 80.1, 80.3, 0.013, Same),
        row("timer_exits.spurious", "per_second", Unit::PerSecond, 0.03, 0.01, 0.9, Same),
        unknown("timer_exits.immediate", "per_second", Unit::PerSecond, "none on either side"),
        row("entries", "per_second", Unit::PerSecond, 400.0, 371.0, 0.02, Changed),
    ];
    rows[8].detectable = Some(0.003);
    rows
}

fn mix() -> Mix {
    let row = |reason, cause, entries: [u64; 2]| MixRow {
        stratum: stratum(reason, cause),
        entries,
        entry_to_exit_p50: [(entries[0] > 0).then_some(1800.0), (entries[1] > 0).then_some(1810.0)],
        exit_to_entry_p50: [(entries[0] > 0).then_some(2100.0), (entries[1] > 0).then_some(2090.0)],
    };
    let rows = vec![
        row(10, None, [24_000, 21_000]),
        row(52, Some(TimerCause::Deadline), [8000, 8000]),
        row(12, None, [7997, 10_997]),
        row(52, Some(TimerCause::Spurious), [3, 0]),
    ];
    Mix { rows, distance: 0.075, p: Some(0.004), covered: 0.9999 }
}

fn timeline() -> Vec<Point> {
    let mut random = Random(99);
    let point = |n: u64| {
        let arm = if matches!(n % 4, 0 | 3) ^ (n % 8 > 3) { Arm::A } else { Arm::B };
        let (scale, pins) = if arm == Arm::A { (1.0, 0.0) } else { (0.97, 0.41) };
        Point {
            arm,
            start_unix_ns: 1_700_000_000_000_000_000 + n * 5_500_000_000,
            length_ns: 5_000_000_000,
            entries: 1900 + truncated_u64(random.next() * 200.0),
            entry_to_exit: Some([1850.0 * scale + random.next() * 40.0, 15_200.0 / scale + random.next() * 2000.0]),
            pin_writes: Some(pins + random.next() * 0.02 * pins),
        }
    };
    (0..40).map(point).collect()
}

/// An emulated experiment of soft against hard.
pub(crate) fn setting() -> Setting {
    let mut header = header();
    header.host.name = "lab".into();
    header.host.kernel = "6.12.117".into();
    header.host.cpu = "Made-up CPU @ 2.4GHz".into();
    header.host.cpus = 2;
    header.host.emulated = true;
    let experiment = Experiment {
        arms: ["soft".into(), "hard".into()],
        switches: ["soft".into(), "hard".into()],
        window_ns: 5_000_000_000,
        washout_ns: 500_000_000,
        rounds: 10,
        seed: 7,
        primary: vec![],
    };
    header.experiment = Some(experiment.clone());
    let mut source = Provenance::unread("ab.hlog".into(), header);
    (source.intervals, source.length_ns) = (40, 200_000_000_000);
    Setting {
        names: ["soft".into(), "hard".into()],
        sources: [vec![source.clone()], vec![source]],
        experiment: Some(experiment),
        warnings: vec!["a vCPU was seen on one side only: web1/1".into()],
    }
}
