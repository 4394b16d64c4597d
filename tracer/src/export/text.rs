//! Families as text: OpenMetrics 1.0.0, and Prometheus's classic text format (0.0.4), which node_exporter also reads. By hand, because
//! the prometheus-client crate writes no classic text.

use std::{borrow::Cow, fmt::Write as _};

use super::{
    distribution::{BOUNDS, Distribution},
    family::{Family, Sample, Value},
};
use crate::export::metrics::MetricKind;

/// The text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// OpenMetrics 1.0.0
    OpenMetrics,
    /// Prometheus 0.0.4
    Classic,
}

/// Encodes all families.
pub(crate) fn encode(families: &[Family<'_>], dialect: Dialect) -> String {
    let mut out = String::new();
    for family in families {
        head(&mut out, family, dialect);
        for sample in &family.samples {
            match sample.value {
                Value::Histogram(distribution) => histogram(&mut out, family.metric.name, sample, distribution),
                Value::Count(n) => line(&mut out, [family.metric.name, ""], &sample.labels, n),
                Value::Number(n) => line(&mut out, [family.metric.name, ""], &sample.labels, n),
            }
            // Only OpenMetrics has creation times; elsewhere they would be series of their own.
            if let Some(ns) = sample.created_ns.filter(|_| dialect == Dialect::OpenMetrics) {
                line(&mut out, [stem(family), "_created"], &sample.labels, Seconds(ns));
            }
        }
    }
    if dialect == Dialect::OpenMetrics {
        out += "# EOF\n";
    }
    out
}

/// The family's name, without the suffix that OpenMetrics adds to its samples.
fn stem<'a>(family: &Family<'a>) -> &'static str {
    let name = family.metric.name;
    name.strip_suffix("_total").or_else(|| name.strip_suffix("_info")).unwrap_or(name)
}

fn head(out: &mut String, family: &Family<'_>, dialect: Dialect) {
    let metric = family.metric;
    let (name, kind) = match (dialect, metric.kind) {
        (Dialect::OpenMetrics, kind) => (stem(family), kind),
        (Dialect::Classic, MetricKind::Info) => (metric.name, MetricKind::Gauge),
        (Dialect::Classic, kind) => (metric.name, kind),
    };
    let _ = writeln!(out, "# TYPE {name} {}", kind.name());
    if dialect == Dialect::OpenMetrics && !metric.unit.is_empty() {
        let _ = writeln!(out, "# UNIT {name} {}", metric.unit);
    }
    let _ = write!(out, "# HELP {name} ");
    escape(out, metric.help, dialect == Dialect::OpenMetrics);
    out.push('\n');
}

fn histogram(out: &mut String, name: &str, sample: &Sample<'_>, distribution: &Distribution) {
    let labels = &sample.labels;
    let buckets = BOUNDS.iter().map(|(_, bound)| *bound).zip(distribution.cumulative());
    for (bound, count) in buckets.chain([("+Inf", distribution.count())]) {
        let le = [("le", bound.into())];
        line(out, [name, "_bucket"], labels.iter().chain(&le), count);
    }
    line(out, [name, "_sum"], labels, distribution.sum_s());
    line(out, [name, "_count"], labels, distribution.count());
}

/// Writes a sample; its name is in two parts.
fn line<'a>(
    out: &mut String,
    name: [&str; 2],
    labels: impl IntoIterator<Item = &'a (&'a str, Cow<'a, str>)>,
    value: impl std::fmt::Display,
) {
    name.into_iter().for_each(|part| out.push_str(part));
    let mut open = '{';
    for (name, label) in labels {
        out.push(open);
        open = ',';
        out.push_str(name);
        out.push_str("=\"");
        escape(out, label, true);
        out.push('"');
    }
    if open == ',' {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

/// Escapes newlines and backslashes, and also quotes if they would end a string.
fn escape(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

/// ns as decimal seconds, exactly.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{distribution::tests::of, metrics};

    fn sample<'a>(vm: &'a str, value: Value<'a>) -> Sample<'a> {
        Sample { labels: vec![("vm", vm.into())], value, created_ns: Some(1_700_000_000_250_000_000) }
    }

    #[test]
    fn a_counter_follows_both_dialects() {
        let family = Family { metric: &metrics::PIN_WRITES, samples: vec![sample("web", Value::Count(u64::MAX))] };
        let help = metrics::PIN_WRITES.help;
        assert_eq!(
            encode(std::slice::from_ref(&family), Dialect::OpenMetrics),
            format!(
                "# TYPE vmentry_pin_writes counter\n# HELP vmentry_pin_writes {help}\n\
                 vmentry_pin_writes_total{{vm=\"web\"}} 18446744073709551615\n\
                 vmentry_pin_writes_created{{vm=\"web\"}} 1700000000.250000000\n# EOF\n"
            )
        );
        assert_eq!(
            encode(&[family], Dialect::Classic),
            format!(
                "# TYPE vmentry_pin_writes_total counter\n# HELP vmentry_pin_writes_total {help}\n\
                 vmentry_pin_writes_total{{vm=\"web\"}} 18446744073709551615\n"
            )
        );
    }

    #[test]
    fn a_histogram_has_every_bound_its_sum_and_its_count() {
        let distribution = of(&[100, 150, 1_000, 20_000_000_000]);
        let samples = vec![sample("web", Value::Histogram(&distribution))];
        let text = encode(&[Family { metric: &metrics::ENTRY_TO_EXIT, samples }], Dialect::OpenMetrics);
        assert!(text.contains("# UNIT vmentry_entry_to_exit_seconds seconds\n"), "{text}");
        let buckets: Vec<_> = text.lines().filter(|l| l.contains("_bucket{")).collect();
        assert_eq!(buckets.len(), BOUNDS.len() + 1);
        assert_eq!(buckets[0], "vmentry_entry_to_exit_seconds_bucket{vm=\"web\",le=\"1e-07\"} 1");
        assert_eq!(buckets[25], "vmentry_entry_to_exit_seconds_bucket{vm=\"web\",le=\"+Inf\"} 4");
        assert!(buckets[24].ends_with("le=\"10.0\"} 3"), "{}", buckets[24]);
        assert!(
            text.contains("_count{vm=\"web\"} 4\n") && text.contains("_created{vm=\"web\"} 1700000000.25"),
            "{text}"
        );
    }

    #[test]
    fn a_hostile_name_stays_within_its_quotes() {
        let name = "a\"} 1\nevil{x=\"\\";
        let family = Family { metric: &metrics::ENTRIES, samples: vec![sample(name, Value::Count(1))] };
        let text = encode(&[family], Dialect::Classic);
        assert_eq!(text.lines().count(), 3);
        assert_eq!(text.lines().last(), Some(r#"vmentry_entries_total{vm="a\"} 1\nevil{x=\"\\"} 1"#));
    }
}
