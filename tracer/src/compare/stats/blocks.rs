//! Block length: how long adjacent windows stay correlated, and how a run is cut accordingly.

use std::ops::Range;

use crate::{
    compare::windows::Window,
    model::{figures::Figure, histogram::Histogram, number::truncated_usize, series::Series},
};

/// Block length in units of the windows' memory. At 6 the sums of adjacent blocks of an AR(1) process correlate by less than
/// 0.1, whatever its coefficient.
const MEMORIES: f64 = 6.0;

/// ln of the median guest time (entry_to_exit_ns); none without entries.
pub fn log_p50(window: &Window) -> Option<f64> {
    let mut all = Histogram::default();
    window.strata.values().for_each(|s| all.merge(&s[Figure::EntryToExit]));
    all.quantile(0.5).map(|v| (v.max(1) as f64).ln())
}

fn log(value: f64) -> Option<f64> {
    Some(value.ln()).filter(|l| l.is_finite())
}

fn log_rate(window: &Window) -> Option<f64> {
    let entries: f64 = window.strata.values().map(|s| s.entries() as f64).sum();
    log(entries / window.length_ns as f64)
}

fn mean(window: &Window, of: fn(&Series) -> &Histogram) -> Option<f64> {
    let mut all = Histogram::default();
    window.strata.values().for_each(|s| all.merge(of(s)));
    all.mean()
}

/// Measures of a window. The one with the longest memory decides, because one unit serves all figures.
const MEASURES: [fn(&Window) -> Option<f64>; 4] =
    [log_p50, log_rate, |w| mean(w, |s| &s[Figure::ExitToEntry]).and_then(log), |w| mean(w, |s| &s[Figure::PinWrites])];

/// Windows per block: the longest that any measure needs, which is 12 times the sum of its autocorrelations up to the first that noise
/// explains. Each run is measured from its own mean, so that drift makes blocks longer; the bias of short runs is corrected to first
/// order.
pub fn length(a: &[Vec<Window>], b: &[Vec<Window>]) -> usize {
    let of = |measure: fn(&Window) -> Option<f64>| {
        let runs: Vec<Vec<f64>> = a.iter().chain(b).map(|run| run.iter().filter_map(measure).collect()).collect();
        length_of(&runs)
    };
    MEASURES.into_iter().map(of).max().unwrap_or(1)
}

fn length_of(runs: &[Vec<f64>]) -> usize {
    let centred: Vec<Vec<f64>> = runs
        .iter()
        .map(|run| {
            let mean = run.iter().sum::<f64>() / run.len().max(1) as f64;
            run.iter().map(|x| x - mean).collect()
        })
        .collect();
    let n: usize = runs.iter().map(Vec::len).sum();
    let longest = runs.iter().map(Vec::len).max().unwrap_or(0);
    let spread: f64 = centred.iter().flatten().map(|x| x * x).sum();
    // The rounding errors of a constant are not memory.
    let squares: f64 = runs.iter().flatten().map(|x| x * x).sum();
    if spread <= 1e-20 * squares {
        return 1;
    }
    let mut memory = 0.0;
    for lag in 1..longest {
        let products: f64 =
            centred.iter().flat_map(|run| run.iter().zip(run.iter().skip(lag))).map(|(x, y)| x * y).sum();
        let seen = products / spread;
        // Kendall's bias of an estimated autocorrelation, for a run of mean length.
        let r = (seen + (1.0 + 4.0 * seen) * runs.len() as f64 / n as f64).min(0.99);
        if r < 1.0 / (n as f64).sqrt() {
            break;
        }
        memory += r;
    }
    truncated_usize((2.0 * MEMORIES * memory).ceil()).clamp(1, longest.max(1))
}

/// Cuts `count` windows into blocks of at least `length`, as equal as possible; one block if there are fewer windows.
pub fn cut(count: usize, length: usize) -> impl Iterator<Item = Range<usize>> {
    let blocks = (count / length.max(1)).max(1);
    (0..blocks).map(move |i| i * count / blocks..(i + 1) * count / blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::stats::random::Random;

    fn noise(rho: f64, n: usize, seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed);
        let mut x = 0.0;
        (0..n)
            .map(|_| {
                let uniform: f64 =
                    (0..12).map(|_| random.below(1 << 20) as f64 / f64::from(1 << 20)).sum::<f64>() - 6.0;
                x = rho * x + uniform;
                x
            })
            .collect()
    }

    #[test]
    fn blocks_are_as_long_as_windows_stay_correlated() {
        let lengths = [0.0, 0.3, 0.6, 0.8].map(|rho| {
            let mut lengths: Vec<_> =
                (0..99).map(|seed| length_of(&[noise(rho, 120, seed), noise(rho, 120, seed + 999)])).collect();
            lengths.sort_unstable();
            lengths[49]
        });
        assert!(lengths[0] <= 2 && lengths.is_sorted() && (12..=30).contains(&lengths[2]), "{lengths:?}");
        assert_eq!(length_of(&[vec![1.0; 50]]), 1);
        assert_eq!((length_of(&[]), length_of(&[vec![], vec![2.0]])), (1, 1));
        assert!(length_of(&[(0..50).map(f64::from).collect()]) >= 20, "drift is memory");
    }

    #[test]
    fn the_figure_with_the_longest_memory_decides() {
        use tracer_common::Isa;

        use crate::{
            compare::windows::Stratum,
            model::{number::truncated_u64, series::Level},
        };
        let run = |rates: Vec<f64>| -> Vec<Window> {
            let window = |x: f64| {
                let mut window = Window { length_ns: 1_000_000_000, ..Window::default() };
                let stratum = Stratum { level: Level::L1, isa: Isa::Vmx, reason: None, cause: None };
                let series = window.strata.entry(stratum).or_default();
                series[Figure::EntryToExit].record_n(100, truncated_u64(300.0 * (0.1 * x).exp()));
                window
            };
            rates.into_iter().map(window).collect()
        };
        assert!(length(&[run(noise(0.0, 60, 1))], &[run(noise(0.0, 60, 2))]) <= 10);
        assert!(length(&[run(noise(0.95, 60, 1))], &[run(noise(0.95, 60, 2))]) >= 20);
    }

    #[test]
    fn every_window_is_in_one_block() {
        for (count, length, blocks) in [(10, 3, 3), (10, 20, 1), (7, 1, 7), (1, usize::MAX, 1)] {
            let cut: Vec<_> = cut(count, length).collect();
            assert_eq!(cut.len(), blocks);
            assert_eq!(cut.iter().cloned().flatten().collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
        }
    }
}
