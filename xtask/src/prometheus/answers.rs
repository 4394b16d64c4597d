//! What Prometheus answers: whether there is something in it, and whether it agrees with a report.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::prometheus::http;

/// Values of a report's histograms are upper bounds of buckets of three digits.
const HDR_ERROR: f64 = 1.001;

/// The largest finite number, or count of a histogram, in a vector or matrix; none where there is none.
pub fn largest(result: &Value) -> Option<f64> {
    let numbers = each(result).filter_map(|(value, histogram)| match (value, histogram) {
        (Some(value), _) => number(&value[1]),
        (_, Some(histogram)) => number(&histogram[1]["count"]),
        _ => None,
    });
    numbers.filter(|number| number.is_finite()).reduce(f64::max)
}

/// Whether it has a histogram with buckets.
pub fn has_buckets(result: &Value) -> bool {
    each(result)
        .any(|(_, histogram)| histogram.is_some_and(|h| h[1]["buckets"].as_array().is_some_and(|b| !b.is_empty())))
}

/// Every sample: a number, or a histogram.
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

/// The values of a vector by VM and exit reason.
fn by_row(port: u16, expr: &str) -> Result<BTreeMap<(String, String), f64>> {
    let data = http::api(port, "query", &[("query", expr)])?;
    let text = |sample: &Value, label: &str| sample["metric"][label].as_str().unwrap_or_default().to_owned();
    let samples = data["result"].as_array().with_context(|| format!("read the answer to {expr}"))?;
    samples
        .iter()
        .map(|sample| {
            let value = number(&sample["value"][1]).with_context(|| format!("read the answer to {expr}"))?;
            Ok(((text(sample, "vm"), text(sample, "exit_reason")), value))
        })
        .collect()
}

/// Fails where a host's series are not what the report of its recording says: counts and sums exactly, of native and classic
/// histograms; percentiles within a bucket.
pub fn agree(native: u16, classic: u16, host: &str, report: &Value) -> Result<()> {
    let totals = &report["totals"];
    for (expr, wanted) in [
        ("sum(vmentry_ring_entries_total{HOST})", &totals["entries"]),
        ("sum(vmentry_ring_delivered_total{HOST})", &totals["delivered"]),
        ("sum(vmentry_ring_dropped_total{HOST})", &totals["dropped"]),
        ("sum(vmentry_pin_writes_total{HOST})", &totals["pin_writes"]),
        ("sum(vmentry_timer_exits_total{HOST, cause=\"deadline\"}) or vector(0)", &totals["timer_exits"]["deadline"]),
        ("sum(vmentry_timer_exits_total{HOST, cause=\"immediate\"}) or vector(0)", &totals["timer_exits"]["immediate"]),
        ("sum(vmentry_timer_exits_total{HOST, cause=\"spurious\"}) or vector(0)", &totals["timer_exits"]["spurious"]),
    ] {
        let expr = expr.replace("HOST", &format!("instance=\"{host}\""));
        for port in [native, classic] {
            let seen = by_row(port, &expr)?.into_values().next();
            ensure!(seen.is_some() && seen == wanted.as_f64(), "{expr}: {seen:?}, the report says {wanted}");
        }
    }
    for figure in ["entry_to_exit", "exit_to_entry"] {
        histograms(native, classic, host, report, figure).with_context(|| format!("{figure} of {host}"))?;
    }
    Ok(())
}

fn histograms(native: u16, classic: u16, host: &str, report: &Value, figure: &str) -> Result<()> {
    let metric = format!("vmentry_{figure}_seconds");
    let host = format!("instance=\"{host}\"");
    let grouped = format!("sum by (vm, exit_reason) ({metric}{{{host}}})");
    let ask = |expr: String| by_row(native, &expr);
    let counts = ask(format!("histogram_count({grouped})"))?;
    let sums = ask(format!("histogram_sum({grouped})"))?;
    let quantiles = ["0.5", "0.9", "0.99"].map(|q| ask(format!("histogram_quantile({q}, {grouped})")));
    let [p50, p90, p99] = quantiles;
    let quantiles = [("p50", p50?), ("p90", p90?), ("p99", p99?)];
    let in_classic = |suffix: &str| by_row(classic, &format!("sum by (vm, exit_reason) ({metric}_{suffix}{{{host}}})"));
    let (classic_counts, classic_sums) = (in_classic("count")?, in_classic("sum")?);
    let classic_buckets =
        by_row(classic, &format!("sum by (vm, exit_reason) ({metric}_bucket{{{host}, le=\"+Inf\"}})"))?;
    let growth = bucket_growth(native, &format!("{metric}{{{host}}}"))?;
    ensure!(growth > 1.0 && growth <= 1.2, "native buckets grow by {growth}");

    let mut rows = 0;
    for row in report["series"].as_array().context("read the report: no series")? {
        let key = (
            row["vm"].as_str().unwrap_or_default().to_owned(),
            row["exit_reason"].as_str().unwrap_or_default().to_owned(),
        );
        let stats = &row[format!("{figure}_ns")];
        let count = stats["count"].as_f64().unwrap_or_default();
        if count == 0.0 {
            continue;
        }
        rows += 1;
        for (kind, counts) in [("native", &counts), ("classic", &classic_counts), ("classic +Inf", &classic_buckets)] {
            ensure!(
                counts.get(&key) == Some(&count),
                "{kind} count of {key:?}: {:?}, the report says {count}",
                counts.get(&key)
            );
        }
        let sum = stats["mean"].as_f64().context("read the report: no mean")? * count / 1e9;
        for (kind, sums) in [("native", &sums), ("classic", &classic_sums)] {
            let seen = sums.get(&key).copied().unwrap_or(f64::NAN);
            // The report's mean has the rounding of a division.
            ensure!((seen / sum - 1.0).abs() < 1e-9, "{kind} sum of {key:?}: {seen}, the report says {sum}");
        }
        for (name, values) in &quantiles {
            let reported = stats[*name].as_f64().context("read the report: no percentile")? / 1e9;
            let seen = values.get(&key).copied().unwrap_or(f64::NAN);
            let ratio = seen / reported;
            ensure!(
                ratio < growth * HDR_ERROR && ratio > 1.0 / (growth * HDR_ERROR),
                "{name} of {key:?}: {seen}, the report says {reported}: further apart than a bucket ({growth})"
            );
        }
    }
    ensure!(rows > 5 && rows == counts.len(), "{rows} rows in the report, {} series", counts.len());
    Ok(())
}

/// By which factor a native bucket's upper bound is above its lower one.
fn bucket_growth(port: u16, expr: &str) -> Result<f64> {
    let data = http::api(port, "query", &[("query", expr)])?;
    let growths = each(&data["result"]).filter_map(|(_, histogram)| {
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
    fn nothing_and_no_number_are_no_answer() {
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
