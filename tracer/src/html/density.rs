//! Distributions as curves: density along an axis, and cumulative share.

use super::axis::Axis;
use crate::model::{histogram::Histogram, number::truncated_usize};

/// The range of all histograms together; none if all are empty. 0 is drawn at 1, because the axes are logarithmic.
pub(crate) fn range(histograms: &[&Histogram]) -> Option<(f64, f64)> {
    let low = histograms.iter().filter_map(|h| h.min()).min()?;
    let high = histograms.iter().filter_map(|h| h.max()).max()?;
    let (low, high) = ((low as f64).max(1.0), (high as f64).max(1.0));
    // A little room, so that a single value is a peak and not an edge.
    Some((low / 1.05, high * 1.05))
}

/// Share of the values in each of `bins` equal parts of the axis.
pub(crate) fn bins(histogram: &Histogram, axis: &Axis, bins: usize) -> Vec<f64> {
    let mut out = vec![0.0; bins];
    let total = histogram.count().max(1) as f64;
    for (low, width, n) in histogram.buckets() {
        let from = axis.share((low as f64).max(1.0)) * bins as f64;
        let to = axis.share(((low + (width - 1)) as f64 + 1.0).max(1.0)) * bins as f64;
        let (first, last) = (truncated_usize(from).min(bins - 1), truncated_usize(to).min(bins - 1));
        let share = n as f64 / total;
        for (bin, sum) in out.iter_mut().enumerate().take(last + 1).skip(first) {
            // A bucket may be wider than a bin: its values count as evenly spread.
            let overlap = (to.min(bin as f64 + 1.0) - from.max(bin as f64)).max(0.0);
            *sum += if first == last { share } else { share * overlap / (to - from) };
        }
    }
    out
}

/// Corners of the steps over the bins: value and height.
pub(crate) fn stairs(bins: &[f64], axis: &Axis) -> Vec<(f64, f64)> {
    let n = bins.len() as f64;
    let corners = |(at, &height): (usize, &f64)| {
        [(axis.value(at as f64 / n), height), (axis.value((at as f64 + 1.0) / n), height)]
    };
    bins.iter().enumerate().flat_map(corners).collect()
}

/// Points of the cumulative distribution, at most `most`: value, and share of the values up to it. The last share is 1.
pub(crate) fn cdf(histogram: &Histogram, most: usize) -> Vec<(f64, f64)> {
    let total = histogram.count().max(1) as f64;
    // Each step keeps at most two points, also the last, which may be smaller.
    let step = 2.0 / most.saturating_sub(2).max(1) as f64;
    let mut out = Vec::new();
    let (mut seen, mut kept, mut skipped) = (0, 0.0, None);
    for (low, width, n) in histogram.buckets() {
        seen += n;
        let point = ((low + (width - 1)) as f64, seen as f64 / total);
        if point.1 - kept < step && seen < histogram.count() {
            skipped = Some(point);
            continue;
        }
        // The point before a jump is kept, so that the jump is at its place.
        out.extend(skipped.take());
        out.push(point);
        kept = point.1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram() -> Histogram {
        let mut h = Histogram::default();
        (0..10_000).for_each(|n| h.record(500 + n * n));
        h
    }

    #[test]
    fn every_value_is_in_one_bin() {
        let h = histogram();
        let (low, high) = range(&[&h, &Histogram::default()]).unwrap();
        for n in [1, 7, 100] {
            let sum: f64 = bins(&h, &Axis::log(low, high), n).iter().sum();
            assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        }
        assert_eq!(range(&[&Histogram::default()]), None);
        let mut edge = Histogram::default();
        [0, u64::MAX].into_iter().for_each(|v| edge.record(v));
        let (low, high) = range(&[&edge]).unwrap();
        assert!((bins(&edge, &Axis::log(low, high), 50).iter().sum::<f64>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn a_cdf_jumps_at_frequent_values_whatever_rare_ones_are_between() {
        let mut h = Histogram::default();
        h.record_n(100, 500);
        h.record_n(200, 400);
        (0..1000).for_each(|n| h.record(10_000 + 10 * n));
        let points = cdf(&h, 20);
        let share = |value: f64| points.iter().take_while(|p| p.0 <= value).last().map_or(0.0, |p| p.1);
        assert!(points.len() <= 20, "{}", points.len());
        assert_eq!((share(99.0), share(100.0)), (0.0, 500.0 / 1900.0));
        assert_eq!((share(199.0), share(200.0)), (500.0 / 1900.0, 900.0 / 1900.0));
        assert!((share(15_000.0) - 1400.0 / 1900.0).abs() < 0.12, "{}", share(15_000.0));
    }

    #[test]
    fn a_cdf_is_bounded_rises_and_ends_at_one() {
        let points = cdf(&histogram(), 200);
        assert!(points.len() <= 200 && points.len() > 100, "{}", points.len());
        assert!(points.windows(2).all(|p| p[0].0 < p[1].0 && p[0].1 <= p[1].1));
        assert_eq!(points.last().unwrap().1, 1.0);
        assert!(cdf(&Histogram::default(), 200).is_empty());
    }
}
