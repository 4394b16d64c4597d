//! Anytime-valid statistics of an experiment's rounds: a test and an interval that hold whenever the experiment stops, whatever made it
//! stop. They rest on the coin of each round alone, so they need no assumption about distributions, autocorrelation or drift.
//!
//! Without an effect, the coin gives every round's difference b - a its sign: given its size and all rounds before, + and - are
//! equally likely. So exp(s d) / cosh(s d) has mean 1 whatever the scale s that past rounds and this one's size set, and products of such
//! factors are a test martingale (an e-process): the chance that they ever reach 1 / alpha is at most alpha (Ville 1939; Ramdas,
//! Grunwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid inference", 2023, section 2). docs/comparing.md says why
//! this and not group-sequential bounds.

use std::f64::consts::{LN_2, TAU};

use super::random::Random;
use crate::model::number::truncated_usize;

/// Strengths of a bet in units of the median size, and their shares. The first makes six rounds that agree enough for 5 %; the others
/// find smaller effects in more rounds.
const BETS: [(f64, f64); 3] = [(3.0, 0.66), (1.0, 0.2), (0.35, 0.14)];
/// Power of what is promised.
const POWER: f64 = 0.8;
/// Experiments that a promise is simulated with.
const TRIALS: usize = 200;
/// Rounds that are simulated; beyond, the detectable effect shrinks with their root.
const SIMULATED: usize = 128;
/// Steps of a bisection.
const STEPS: u32 = 30;

/// The e-process of one figure: its value after each round is the evidence against "no effect".
#[derive(Clone, Debug, Default)]
struct Evidence {
    /// ln of the wealth of each bet, for b > a and for b < a
    wealth: [[f64; 2]; BETS.len()],
    /// sizes so far, ascending
    sizes: Vec<f64>,
}

impl Evidence {
    /// Takes the difference of the next round; returns ln of the evidence. A round without a difference says nothing.
    fn take(&mut self, difference: f64) -> f64 {
        let size = difference.abs();
        if size > 0.0 {
            let at = self.sizes.partition_point(|s| *s < size);
            self.sizes.insert(at, size);
            let middle = self.sizes.len() / 2;
            let median = if self.sizes.len() % 2 == 1 {
                self.sizes[middle]
            } else {
                f64::midpoint(self.sizes[middle - 1], self.sizes[middle])
            };
            for ((strength, _), wealth) in BETS.iter().zip(&mut self.wealth) {
                let bet = strength * size / median;
                // ln(exp(x) / cosh(x)), without overflow.
                let cosh = bet + (-2.0 * bet).exp().ln_1p() - LN_2;
                let [for_it, against] = [bet - cosh, -bet - cosh];
                let gain = if difference > 0.0 { [for_it, against] } else { [against, for_it] };
                wealth.iter_mut().zip(gain).for_each(|(w, g)| *w += g);
            }
        }
        // Each bet's two directions first, so that swapping the sides changes no digit.
        let bets = BETS.iter().zip(self.wealth).map(|((_, share), [up, down])| ln_sum(up, down) + (share / 2.0).ln());
        bets.fold(f64::NEG_INFINITY, ln_sum)
    }
}

/// ln(exp(a) + exp(b)), without overflow.
fn ln_sum(a: f64, b: f64) -> f64 {
    let (low, high) = (a.min(b), a.max(b));
    high + (low - high).exp().ln_1p()
}

/// ln of the most evidence that there was after any round, against every difference being `shift`.
fn most_evidence(differences: &[f64], shift: f64) -> f64 {
    let mut evidence = Evidence::default();
    let most = differences.iter().map(|d| evidence.take(d - shift)).fold(0.0, f64::max);
    // Rounding is no evidence.
    if most < 1e-9 { 0.0 } else { most }
}

/// Anytime-valid two-sided p of "no effect" from the rounds' differences, in the order of time: 1 / the most evidence so far.
pub(crate) fn p(differences: &[f64]) -> f64 {
    (-most_evidence(differences, 0.0)).exp()
}

/// The number of rounds after which p first was at most `level`; none if it never was.
pub(crate) fn decided_after(differences: &[f64], level: f64) -> Option<usize> {
    let mut evidence = Evidence::default();
    differences.iter().position(|d| evidence.take(*d) >= -level.ln()).map(|at| at + 1)
}

/// The p of rounds that all have the same difference.
pub(crate) fn clearest_p(rounds: usize) -> f64 {
    p(&vec![1.0; rounds])
}

/// Confidence sequence for the effect of a round: all shifts that the evidence never reached 1 / `alpha` against. The chance that it
/// ever misses the effect is at most `alpha`. None if there are too few rounds, or if they contradict every common effect.
pub(crate) fn interval(differences: &[f64], alpha: f64) -> Option<[f64; 2]> {
    let limit = -alpha.ln();
    let is_possible = |shift: f64| most_evidence(differences, shift) < limit;
    let mut sorted = differences.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (&least, &most) = sorted.first().zip(sorted.last())?;
    let width = most - least;
    if width <= 1e-12 * most.abs().max(least.abs()) {
        return (clearest_p(sorted.len()) <= alpha).then_some([least, most]);
    }
    let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
    let inside = [sorted[sorted.len() / 2], mean].into_iter().find(|shift| is_possible(*shift))?;
    let bound = |edge: f64, outwards: f64| {
        let mut steps = (0..10).map(|step| edge + outwards * width * f64::from(1 << step));
        let mut outside = std::iter::once(edge).chain(&mut steps).find(|shift| !is_possible(*shift))?;
        let mut within = inside;
        for _ in 0..STEPS {
            let middle = f64::midpoint(within, outside);
            if is_possible(middle) { within = middle } else { outside = middle }
        }
        Some(outside)
    };
    Some([bound(least, -1.0)?, bound(most, 1.0)?])
}

/// The same simulated experiments for every question: normal differences of standard deviation 1.
fn noise(rounds: usize) -> Vec<Vec<f64>> {
    let mut random = Random::new(0x5e9);
    let mut uniform = || ((random.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (TAU * uniform()).cos();
    (0..TRIALS).map(|_| (0..rounds).map(|_| normal()).collect()).collect()
}

/// Rounds after which each simulated experiment decides at `level`, if the effect is so many standard deviations of a round's
/// difference.
fn decisions(noise: &[Vec<f64>], effect: f64, level: f64) -> impl Iterator<Item = Option<usize>> {
    noise.iter().map(move |one| {
        let shifted: Vec<f64> = one.iter().map(|x| x + effect).collect();
        decided_after(&shifted, level)
    })
}

/// Minimum detectable effect in standard deviations of a round's difference: found at `level` within `rounds` with a power of 80 %.
/// None if so few rounds can decide nothing.
pub(crate) fn detectable(rounds: usize, level: f64) -> Option<f64> {
    if clearest_p(rounds) > level {
        return None;
    }
    let simulated = rounds.min(SIMULATED);
    let noise = noise(simulated);
    let power = |effect: f64| decisions(&noise, effect, level).flatten().count() as f64 / TRIALS as f64;
    let (mut low, mut high) = (0.0, 64.0);
    for _ in 0..12 {
        let middle = f64::midpoint(low, high);
        if power(middle) < POWER { low = middle } else { high = middle }
    }
    Some(high * (simulated as f64 / rounds as f64).sqrt())
}

/// The chance to find an effect of so many standard deviations within `rounds` at `level`.
pub(crate) fn power(effect: f64, rounds: usize, level: f64) -> f64 {
    let simulated = rounds.min(SIMULATED);
    let effect = effect * (rounds as f64 / simulated.max(1) as f64).sqrt();
    decisions(&noise(simulated), effect, level).flatten().count() as f64 / TRIALS as f64
}

/// Rounds within which an effect of so many standard deviations is found at `level` with a power of 80 %; none if that takes more than
/// can be simulated.
pub(crate) fn rounds_for(effect: f64, level: f64) -> Option<usize> {
    let mut after: Vec<_> = decisions(&noise(SIMULATED), effect, level).map(|n| n.unwrap_or(usize::MAX)).collect();
    after.sort_unstable();
    Some(after[truncated_usize((TRIALS - 1) as f64 * POWER)]).filter(|n| *n < usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_rounds_that_agree_decide_and_five_do_not() {
        assert!(clearest_p(5) > 0.05 && clearest_p(6) <= 0.05, "{} {}", clearest_p(5), clearest_p(6));
        assert_eq!(decided_after(&[0.77, 0.8, 0.71, 0.9, 0.75, 0.82, 0.8], 0.05), Some(6));
        assert_eq!(decided_after(&[1.0, -1.0, 1.0, -1.0, 1.0, -1.0], 0.05), None);
        assert!(p(&[]) == 1.0 && p(&[0.0; 9]) == 1.0, "rounds without a difference say nothing");
        assert_eq!(p(&[1.0, 2.0, -0.5, 3.0]), p(&[-1.0, -2.0, 0.5, -3.0]));
    }

    #[test]
    fn the_evidence_has_mean_one_over_all_coins() {
        // Every way in which seven coins can fall, of sizes that differ much: exact, not simulated.
        let sizes: [f64; 7] = [3.0, 0.1, 40.0, 1.0, 1.0, 0.0, 7.0];
        let of = |coins: u32| {
            let mut evidence = Evidence::default();
            let signed = sizes.iter().enumerate().map(|(i, s)| if coins >> i & 1 == 1 { *s } else { -s });
            signed.map(|d| evidence.take(d).exp()).last().unwrap()
        };
        let mean = (0..128).map(of).sum::<f64>() / 128.0;
        assert!((mean - 1.0).abs() < 1e-9, "{mean}");
    }

    #[test]
    fn stopping_at_the_best_moment_alarms_in_at_most_5_percent() {
        // Sizes that grow and have a heavy tail; only the coins are fair.
        let mut random = Random::new(3);
        let mut experiment = || -> Vec<f64> {
            let size = |random: &mut Random, round: u32| f64::from(round + 1) / (random.below(1000) as f64 + 0.5);
            (0..60).map(|round| size(&mut random, round) * if random.coin() { 1.0 } else { -1.0 }).collect()
        };
        let alarms = (0..4000).filter(|_| decided_after(&experiment(), 0.05).is_some()).count();
        assert!((40..=200).contains(&alarms), "{alarms} of 4000");
    }

    #[test]
    fn the_interval_excludes_none_exactly_if_the_test_does_and_shrinks() {
        for one in noise(30).into_iter().take(60) {
            let shifted: Vec<f64> = one.iter().map(|x| x + 0.8).collect();
            let Some([low, high]) = interval(&shifted, 0.05) else { continue };
            assert_eq!(p(&shifted) <= 0.05, low > 0.0 || high < 0.0, "{low} {high}");
            let [early_low, early_high] = interval(&shifted[..10], 0.05).unwrap();
            assert!(high - low <= early_high - early_low + 1e-9);
        }
        assert_eq!(interval(&[2.0; 8], 0.05), Some([2.0, 2.0]));
        assert_eq!(interval(&[2.0; 5], 0.05), None);
        assert_eq!(interval(&[1.0, 3.0, 2.0], 0.05), None);
    }

    #[test]
    fn intervals_contain_the_effect_at_the_worst_moment() {
        let missed = |one: &Vec<f64>| {
            let shifted: Vec<f64> = one.iter().map(|x| x + 5.0).collect();
            // Being possible at the last round means that it was at all rounds before.
            interval(&shifted, 0.05).is_none_or(|[low, high]| low > 5.0 || high < 5.0)
        };
        let missed = noise(40).iter().filter(|one| missed(one)).count();
        assert!(missed as f64 / TRIALS as f64 <= 0.05, "{missed} of {TRIALS}");
    }

    #[test]
    fn what_is_promised_is_what_experiments_find() {
        let effect = detectable(12, 0.05).unwrap();
        assert!((1.0..2.5).contains(&effect), "{effect}");
        assert!((power(effect, 12, 0.05) - POWER).abs() < 0.02);
        assert_eq!(detectable(5, 0.05), None);
        assert!(detectable(48, 0.05).unwrap() < 0.6 * effect, "four times the rounds");
        let rounds = rounds_for(effect, 0.05).unwrap();
        assert!((11..=13).contains(&rounds), "{rounds}");
        assert_eq!(rounds_for(0.01, 0.05), None);
        assert_eq!(rounds_for(1e6, 0.05), Some(6));
    }
}
