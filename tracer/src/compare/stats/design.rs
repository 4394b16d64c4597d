//! The design of the permutation test: the units of both sides, and every assignment of A and B to them that was as likely as the
//! actual one.

use super::{blocks, random::Random, resample::MIN_UNITS, sequential};
use crate::{
    compare::windows::{Arm, ExperimentRound, Options, Window, Windows},
    model::number::truncated_u64,
};

/// Rounds up to which every swap is tried: 2^13 distinct ones.
const MAX_FLIPPED: usize = 14;
/// Choices of A's blocks up to which every one is tried.
const MAX_CHOICES: f64 = 16_384.0;
/// Runs of each side from which the run is the unit.
const MIN_RUNS: usize = 4;

/// Most units that are ever said to be needed.
const MOST_NEEDED: usize = 30;

/// How parts form units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Design {
    /// number of rounds; parts 2r and 2r + 1 are A's and B's of round r, and each round's labels were drawn independently
    Rounds(usize),
    /// A's blocks, followed by B's
    Blocks {
        /// number of A's blocks
        a: usize,
        /// number of B's blocks
        b: usize,
    },
}

/// The windows in order, and the units that they form.
pub(crate) struct Units<'a> {
    /// how parts form units
    pub design: Design,
    /// name of a unit
    pub unit: &'static str,
    /// all windows: A, A, B, B of each round; or A's runs, followed by B's
    pub windows: Vec<&'a Window>,
    /// side of each window
    pub arms: Vec<Arm>,
    /// indices of each part's windows
    pub parts: Vec<Vec<usize>>,
    /// description of the units for the reader
    pub method: Vec<String>,
}

impl<'a> Units<'a> {
    /// Forms the units; rounds are in the order of time.
    pub(crate) fn of(windows: &'a Windows) -> Self {
        match windows {
            Windows::Rounds(rounds) => Self::of_rounds(rounds),
            Windows::Runs { a, b } => Self::of_runs(a, b),
        }
    }

    fn of_rounds(rounds: &'a [ExperimentRound]) -> Self {
        let mut rounds: Vec<&ExperimentRound> = rounds.iter().collect();
        rounds.sort_by_key(|r| r.a[0].start_unix_ns.min(r.b[0].start_unix_ns));
        let windows = rounds.iter().flat_map(|r| r.a.iter().chain(&r.b)).collect();
        let method = vec![format!(
            "{} rounds of two windows of either side, in the random order ABBA or BAAB; the unit of all statistics is the round, \
             because adjacent windows are correlated",
            rounds.len()
        )];
        Self {
            design: Design::Rounds(rounds.len()),
            unit: "round",
            windows,
            arms: [Arm::A, Arm::A, Arm::B, Arm::B].repeat(rounds.len()),
            parts: (0..2 * rounds.len()).map(|p| vec![2 * p, 2 * p + 1]).collect(),
            method,
        }
    }

    fn of_runs(a: &'a [Vec<Window>], b: &'a [Vec<Window>]) -> Self {
        let mut method = vec![
            "the recordings were made one after the other and nothing was randomised: a difference may come from anything else that \
             changed between them"
                .to_owned(),
        ];
        let runs = |side: &[Vec<Window>]| side.iter().filter(|run| !run.is_empty()).count();
        let by_run = runs(a) >= MIN_RUNS && runs(b) >= MIN_RUNS;
        let length = if by_run { usize::MAX } else { blocks::length(a, b) };
        if by_run {
            method.push(format!(
                "the unit of all statistics is the recording, {} of A and {} of B, because the windows of one recording are \
                 correlated",
                runs(a),
                runs(b)
            ));
        } else {
            method.push(format!(
                "the unit of all statistics is a block of {length} adjacent windows, as long as these are correlated; variation between \
                 recordings of the same setting is not known from fewer than {MIN_RUNS} a side"
            ));
        }
        let (mut windows, mut arms, mut parts) = (vec![], vec![], vec![]);
        let mut counts = [0; 2];
        for (side, arm, count) in [(a, Arm::A, 0), (b, Arm::B, 1)] {
            for run in side.iter().filter(|run| !run.is_empty()) {
                for block in blocks::cut(run.len(), length) {
                    parts.push(block.map(|w| windows.len() + w).collect());
                    counts[count] += 1;
                }
                windows.extend(run);
                arms.extend(run.iter().map(|_| arm));
            }
        }
        let unit = if by_run { "recording" } else { "block" };
        Self { design: Design::Blocks { a: counts[0], b: counts[1] }, unit, windows, arms, parts, method }
    }
}

/// Number of ways to choose `a` of `a + b` units.
fn choices(a: usize, b: usize) -> f64 {
    (1..=a.min(b)).map(|i| (a.max(b) + i) as f64 / i as f64).product::<f64>().round()
}

impl Design {
    /// Number of units of A and of B.
    pub(crate) fn units(self) -> [usize; 2] {
        match self {
            Self::Rounds(n) => [n, n],
            Self::Blocks { a, b } => [a, b],
        }
    }

    /// Name of the units, plural.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Rounds(_) => "rounds",
            Self::Blocks { .. } => "blocks or recordings",
        }
    }

    /// Whether a part is A's.
    pub(crate) fn is_a(self, part: usize) -> bool {
        match self {
            Self::Rounds(_) => part.is_multiple_of(2),
            Self::Blocks { a, .. } => part < a,
        }
    }

    /// Number of parts.
    pub(crate) fn parts(self) -> usize {
        self.units().into_iter().sum()
    }

    /// Number of labellings that may give different results; none if only some are drawn.
    pub(crate) fn all_labellings(self) -> Option<f64> {
        match self {
            // Swapping all labels gives the same |b - a| again.
            Self::Rounds(n) => (1..=MAX_FLIPPED).contains(&n).then(|| (n as f64 - 1.0).exp2()),
            Self::Blocks { a, b } => Some(choices(a, b)).filter(|&n| a > 0 && b > 0 && a + b < 64 && n <= MAX_CHOICES),
        }
    }

    /// The lowest p that the test can give: of an experiment's rounds, all of which must agree; or of the permutation test.
    pub(crate) fn least_p(self, permutations: u32) -> f64 {
        let drawn = 1.0 / (f64::from(permutations) + 1.0);
        let clearest = |a, b| if a == b { 2.0 } else { 1.0 } / choices(a, b);
        match (self, self.all_labellings()) {
            (_, _) if self.units().contains(&0) => 1.0,
            // Each round at most doubles the evidence, and either direction has half of it at first.
            (Self::Rounds(n), _) => 2f64.powf(1.0 - n as f64),
            (Self::Blocks { a, b }, Some(_)) => clearest(a, b),
            // More draws than there are choices add nothing.
            (Self::Blocks { a, b }, None) => drawn.max(clearest(a, b)),
        }
    }

    /// Units of each side from which each of `tests` figures that are tested at once can get a verdict, whatever the others do;
    /// [`MIN_UNITS`] at least, and [`MOST_NEEDED`] if there are none.
    pub(crate) fn needed(self, tests: usize, options: &Options) -> usize {
        let level = options.alpha / tests.max(1) as f64;
        let least_p = |n| match self {
            Self::Rounds(_) => sequential::clearest_p(n),
            Self::Blocks { .. } => Self::Blocks { a: n, b: n }.least_p(options.permutations),
        };
        (MIN_UNITS..MOST_NEEDED).find(|&n| least_p(n) <= level).unwrap_or(MOST_NEEDED)
    }

    /// Calls `look` with every labelling, `true` for A, the actual one first; or with the actual one and `permutations` random ones.
    pub(crate) fn labellings(self, permutations: u32, seed: u64, mut look: impl FnMut(&[bool])) {
        let mut labels: Vec<bool> = (0..self.parts()).map(|p| self.is_a(p)).collect();
        if self.units().contains(&0) {
            return;
        }
        look(&labels);
        match (self, self.all_labellings()) {
            (Self::Rounds(_), Some(all)) => every_swap(&mut labels, all, look),
            (Self::Blocks { a, b }, Some(_)) => every_choice(&mut labels, a, b, look),
            (Self::Rounds(n), None) => {
                let mut random = Random::new(seed);
                for _ in 0..permutations {
                    (0..n).filter(|_| random.coin()).for_each(|round| labels.swap(2 * round, 2 * round + 1));
                    look(&labels);
                }
            }
            (Self::Blocks { .. }, None) => {
                let mut random = Random::new(seed);
                for _ in 0..permutations {
                    random.shuffle(&mut labels);
                    look(&labels);
                }
            }
        }
    }
}

/// Swaps the sides within rounds in every way, but for mirrors.
fn every_swap(labels: &mut [bool], all: f64, mut look: impl FnMut(&[bool])) {
    // Gray code: one round changes at a time. The last round never does, because that would mirror another labelling.
    for step in 1..truncated_u64(all) {
        let round = step.trailing_zeros() as usize;
        labels.swap(2 * round, 2 * round + 1);
        look(labels);
    }
}

/// Chooses A's blocks in every way but the actual one.
fn every_choice(labels: &mut [bool], a: usize, b: usize, mut look: impl FnMut(&[bool])) {
    // Gosper's hack: the next number with as many bits. The lowest is the actual labelling.
    let mut set = (1u64 << a) - 1;
    loop {
        let lowest = set & set.wrapping_neg();
        let ripple = set + lowest;
        set = ripple | (((set ^ ripple) >> 2) / lowest);
        if set >> (a + b) != 0 {
            return;
        }
        labels.iter_mut().enumerate().for_each(|(p, l)| *l = set >> p & 1 == 1);
        look(labels);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all(design: Design) -> Vec<Vec<bool>> {
        let mut seen = vec![];
        design.labellings(500, 1, |l| seen.push(l.to_vec()));
        seen
    }

    #[test]
    fn every_swap_of_few_rounds_is_tried_once_but_for_its_mirror() {
        let seen = all(Design::Rounds(5));
        let with_mirrors: BTreeSet<Vec<bool>> =
            seen.iter().flat_map(|l| [l.clone(), l.iter().map(|x| !x).collect()]).collect();
        assert_eq!((seen.len(), with_mirrors.len()), (16, 32));
        assert!(with_mirrors.iter().all(|l| l.chunks(2).all(|pair| pair[0] != pair[1])));
    }

    #[test]
    fn every_choice_of_few_blocks_is_tried_once() {
        let seen = all(Design::Blocks { a: 3, b: 4 });
        assert_eq!(seen.len(), 35);
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 35);
        assert!(seen.iter().all(|l| l.iter().filter(|x| **x).count() == 3));
        assert_eq!(seen[0], [true, true, true, false, false, false, false]);
    }

    #[test]
    fn many_units_are_labelled_at_random() {
        assert_eq!(all(Design::Rounds(40)).len(), 501);
        let blocks = all(Design::Blocks { a: 30, b: 20 });
        assert!(blocks.len() == 501 && blocks.iter().all(|l| l.iter().filter(|x| **x).count() == 30));
    }

    #[test]
    fn the_units_that_are_needed_can_pass_holms_first_step() {
        let options = Options::default();
        let rounds = Design::Rounds(3);
        assert_eq!([1, 17, 25, 26].map(|tests| rounds.needed(tests, &options)), [6, 10, 11, 11]);
        let blocks = Design::Blocks { a: 1, b: 40 };
        assert_eq!([0, 17, 23, 24].map(|tests| blocks.needed(tests, &options)), [6, 6, 6, 7]);
        assert_eq!(blocks.needed(17, &Options { permutations: 10, ..options }), 6);
        assert_eq!(rounds.needed(17, &Options { alpha: 0.0, ..Options::default() }), MOST_NEEDED);
    }

    #[test]
    fn the_least_p_is_that_of_the_clearest_labelling() {
        assert_eq!(Design::Rounds(12).least_p(1), 1.0 / 2048.0);
        assert_eq!(Design::Blocks { a: 6, b: 6 }.least_p(1), 2.0 / 924.0);
        assert_eq!(Design::Blocks { a: 3, b: 4 }.least_p(1), 1.0 / 35.0);
        assert_eq!((Design::Rounds(0).least_p(9), Design::Blocks { a: 0, b: 4 }.least_p(9)), (1.0, 1.0));
        assert_eq!(Design::Rounds(1).least_p(9), 1.0);
        assert_eq!(Design::Blocks { a: 97, b: 1 }.least_p(10_000), 1.0 / 98.0);
    }
}
