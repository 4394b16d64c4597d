//! Reads answers of Prometheus, and compares them with reports.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::prometheus::http;

/// Error of a report's percentiles, which are upper bounds of buckets with three significant digits.
const HDR_ERROR: f64 = 1.001;

/// Returns the largest finite number, or count of a histogram, in a vector or matrix; none if there is none.
pub(super) fn largest(result: &Value) -> Option<f64> {
    let numbers = each(result).filter_map(|(value, histogram)| match (value, histogram) {
        (Some(value), _) => number(&value[1]),
        (_, Some(histogram)) => number(&histogram[1]["count"]),
        _ => None,
    });
    numbers.filter(|number| number.is_finite()).reduce(f64::max)
}

/// Whether a vector or matrix has a histogram with buckets.
pub(super) fn has_buckets(result: &Value) -> bool {
    each(result)
        .any(|(_, histogram)| histogram.is_some_and(|h| h[1]["buckets"].as_array().is_some_and(|b| !b.is_empty())))
}

/// Every sample of a vector or matrix: either a number or a histogram.
fn each(result: &Value) -> impl Iterator<Item = (Option<&Value>, Option<&Value>)> {
    let series = || result.as_array().into_iter().flatten();
    let many = |name: &'static str| series().flat_map(move |s| s[name].as_array().into_iter().flatten());
    let one = |name: &'static str| series().filter_map(move |s| s.get(name));
    let numbers = many("values").chain(one("value")).map(|v| (Some(v), None));
    numbers.chain(many("histograms").chain(one("histogram")).map(|h| (None, Some(h))))
}

fn number(value: &Value) -> Option<f64> {
    value.as_str()?.parse().ok()
}

/// A row of a report or a series of an answer: VM and exit reason.
type Key = (String, String);

/// Asks for a vector and returns its values by VM and exit reason.
fn by_row(port: u16, expr: &str) -> Result<BTreeMap<Key, f64>> {
    let result = http::query(port, expr)?;
    let text = |sample: &Value, label: &str| sample["metric"][label].as_str().unwrap_or_default().to_owned();
    let samples = result.as_array().with_context(|| format!("read the answer to {expr}"))?;
    samples
        .iter()
        .map(|sample| {
            let value = number(&sample["value"][1]).with_context(|| format!("read the answer to {expr}"))?;
            Ok(((text(sample, "vm"), text(sample, "exit_reason")), value))
        })
        .collect()
}

/// Fails if a host's series differ from the report of its recording: counts and sums of native and classic histograms
/// must be equal, percentiles must lie within a bucket.
pub(super) fn compare(native: u16, classic: u16, host: &str, report: &Value) -> Result<()> {
    let totals = &report["totals"];
    for (expr, wanted) in [
        ("sum(vmentry_ring_entries_total{HOST})", &totals["entries"]),
        ("sum(vmentry_ring_delivered_total{HOST})", &totals["delivered"]),
        ("sum(vmentry_ring_dropped_total{HOST})", &totals["dropped"]),
        ("sum(vmentry_pin_writes_total{HOST})", &totals["pin_writes"]),
        ("sum(vmentry_timer_exits_total{HOST, cause=\"deadline\"}) or vector(0)", &totals["timer_exits"]["deadline"]),
        ("sum(vmentry_timer_exits_total{HOST, cause=\"immediate\"}) or vector(0)", &totals["timer_exits"]["immediate"]),
        ("sum(vmentry_timer_exits_total{HOST, cause=\"spurious\"}) or vector(0)", &totals["timer_exits"]["spurious"]),
        ("sum(vmentry_timer_exits_total{HOST, cause=\"early\"}) or vector(0)", &totals["timer_exits"]["early"]),
    ] {
        let expr = expr.replace("HOST", &format!("instance=\"{host}\""));
        for port in [native, classic] {
            let answer = by_row(port, &expr)?.into_values().next();
            ensure!(answer.is_some() && answer == wanted.as_f64(), "{expr}: {answer:?}, the report has {wanted}");
        }
    }
    for figure in ["entry_to_exit", "exit_to_entry"] {
        let histograms = Histograms::ask(native, classic, host, figure);
        let compared = histograms.and_then(|histograms| compare_rows(&histograms, report, figure));
        compared.with_context(|| format!("compare {figure} of {host}"))?;
    }
    Ok(())
}

/// A figure of a host in both kinds of histograms. Times are in seconds.
struct Histograms {
    /// Counts, each with its source.
    counts: [(&'static str, BTreeMap<Key, f64>); 3],
    /// Sums, each with its source.
    sums: [(&'static str, BTreeMap<Key, f64>); 2],
    /// Percentiles of the native histograms, by their names in a report.
    percentiles: [(&'static str, BTreeMap<Key, f64>); 3],
    /// Ratio of a native bucket's upper bound to its lower one.
    growth: f64,
}

impl Histograms {
    fn ask(native: u16, classic: u16, host: &str, figure: &str) -> Result<Histograms> {
        let metric = format!("vmentry_{figure}_seconds");
        let host = format!("instance=\"{host}\"");
        let grouped = format!("sum by (vm, exit_reason) ({metric}{{{host}}})");
        let in_native = |function: &str| by_row(native, &format!("histogram_{function}{grouped})"));
        let in_classic = |suffix: &str, more: &str| {
            by_row(classic, &format!("sum by (vm, exit_reason) ({metric}_{suffix}{{{host}{more}}})"))
        };
        let growth = bucket_growth(native, &format!("{metric}{{{host}}}"))?;
        ensure!(growth > 1.0 && growth <= 1.2, "native buckets grow by {growth}");
        Ok(Histograms {
            counts: [
                ("native", in_native("count(")?),
                ("classic", in_classic("count", "")?),
                ("classic +Inf", in_classic("bucket", ", le=\"+Inf\"")?),
            ],
            sums: [("native", in_native("sum(")?), ("classic", in_classic("sum", "")?)],
            percentiles: [
                ("p50", in_native("quantile(0.5, ")?),
                ("p90", in_native("quantile(0.9, ")?),
                ("p99", in_native("quantile(0.99, ")?),
            ],
            growth,
        })
    }
}

fn compare_rows(histograms: &Histograms, report: &Value, figure: &str) -> Result<()> {
    let mut rows = 0;
    for row in report["series"].as_array().context("read the report: no series")? {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let stats = &row[format!("{figure}_ns")];
        if stats["count"].as_f64().unwrap_or_default() > 0.0 {
            rows += 1;
            compare_row(histograms, &(text("vm"), text("exit_reason")), stats)?;
        }
    }
    let series = histograms.counts[0].1.len();
    ensure!(rows > 5 && rows == series, "{rows} rows in the report, {series} series");
    Ok(())
}

fn compare_row(histograms: &Histograms, key: &Key, stats: &Value) -> Result<()> {
    let Histograms { counts, sums, percentiles, growth } = histograms;
    let count = stats["count"].as_f64().unwrap_or_default();
    for (source, counts) in counts {
        let answer = counts.get(key);
        ensure!(answer == Some(&count), "{source} count of {key:?}: {answer:?}, the report has {count}");
    }
    let sum = stats["sum"].as_f64().context("read the report: no sum")? / 1e9;
    for (source, sums) in sums {
        let answer = sums.get(key).copied().unwrap_or(f64::NAN);
        // Seconds are rounded by a division.
        ensure!((answer / sum - 1.0).abs() < 1e-9, "{source} sum of {key:?}: {answer}, the report has {sum}");
    }
    for (name, values) in percentiles {
        let reported = stats[*name].as_f64().context("read the report: no percentile")? / 1e9;
        let answer = values.get(key).copied().unwrap_or(f64::NAN);
        let ratio = answer / reported;
        ensure!(
            ratio < growth * HDR_ERROR && ratio > 1.0 / (growth * HDR_ERROR),
            "{name} of {key:?}: {answer}, the report has {reported}: they differ by more than a bucket ({growth})"
        );
    }
    Ok(())
}

/// Returns the largest ratio of a native bucket's upper bound to its lower one.
fn bucket_growth(port: u16, expr: &str) -> Result<f64> {
    let result = http::query(port, expr)?;
    let growths = each(&result).filter_map(|(_, histogram)| {
        let buckets = histogram?[1]["buckets"].as_array()?;
        buckets.iter().filter_map(|b| Some(number(&b[2])? / number(&b[1])?)).filter(|g| g.is_finite()).reduce(f64::max)
    });
    growths.reduce(f64::max).with_context(|| format!("find native buckets in {expr}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_needs_a_finite_number_or_a_histogram() {
        assert_eq!(largest(&json!([])), None);
        assert_eq!(largest(&json!([{"metric": {}, "values": [[1, "NaN"], [2, "+Inf"]]}])), None);
        assert_eq!(largest(&json!([{"metric": {}, "values": [[1, "NaN"], [2, "0"]]}])), Some(0.0));
        assert_eq!(largest(&json!([{"metric": {}, "value": [1, "3"]}])), Some(3.0));
        let histogram =
            json!([{"metric": {}, "histogram": [1, {"count": "2", "sum": "3", "buckets": [[0, "1", "2", "2"]]}]}]);
        assert!(largest(&histogram) == Some(2.0) && has_buckets(&histogram));
        assert!(!has_buckets(&json!([{"metric": {}, "values": [[1, "1"]]}])));
    }
}
