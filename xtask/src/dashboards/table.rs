//! All metrics that a query may name: those of the exporter, of Prometheus itself, and of recording rules.

use std::{collections::BTreeMap, process::Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    build,
    dashboards::query::{self, Names},
};

/// Labels that Prometheus adds to every series of a target.
const TARGET: [&str; 2] = ["instance", "job"];

/// Metrics with their labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(BTreeMap<String, Vec<String>>);

/// Returns the exporter's metrics, as it prints them, and those that Prometheus adds for every target.
pub(crate) fn exported() -> Result<Table> {
    let mut cargo = build::cargo(["run", "--quiet", "--package", "vmentry", "--", "export", "--list-metrics"]);
    let output = cargo.stderr(Stdio::inherit()).output().context("run vmentry export --list-metrics")?;
    ensure!(output.status.success(), "vmentry export --list-metrics: {}", output.status);
    let json: Value = serde_json::from_slice(&output.stdout).context("read the table of metrics")?;
    parse(&json)
}

fn parse(json: &Value) -> Result<Table> {
    let mut table = Table::default();
    let metrics = json["metrics"].as_array().context("read the table of metrics: no 'metrics'")?;
    for metric in metrics {
        let name = metric["name"].as_str().context("read the table of metrics: a metric without a name")?;
        let labels: Vec<_> = metric["labels"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        table.add(name, &labels);
    }
    for name in ["up", "scrape_duration_seconds", "scrape_samples_scraped"] {
        table.add(name, &[]);
    }
    Ok(table)
}

impl Table {
    /// Adds a metric; it also has the labels of a target.
    pub(crate) fn add(&mut self, name: &str, labels: &[&str]) {
        self.0.insert(name.to_owned(), labels.iter().chain(&TARGET).map(|&label| label.to_owned()).collect());
    }

    /// Returns a message for each unknown metric or label in a query.
    pub(crate) fn problems(&self, expr: &str) -> Vec<String> {
        let Names { selectors, groupings } = query::names(expr);
        let mut problems = Vec::new();
        let mut known = Vec::new();
        for (metric, labels) in &selectors {
            let Some(has) = self.0.get(metric) else {
                problems.push(format!("no metric {metric}"));
                continue;
            };
            known.extend(has);
            problems.extend(labels.iter().filter(|l| !has.contains(l)).map(|l| format!("{metric} has no label {l}")));
        }
        problems.extend(groupings.iter().filter(|l| !known.contains(l)).map(|l| format!("no metric has label {l}")));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_metric_or_label_is_a_problem() {
        let json = serde_json::json!({"metrics": [{"name": "a_total", "labels": ["vm"]}, {"name": "b", "labels": []}]});
        let table = parse(&json).unwrap();
        assert!(
            table.problems("sum by (vm, instance) (rate(a_total{vm=~\"$vm\", job=\"x\"}[5m])) / on () b").is_empty()
        );
        assert_eq!(table.problems("b{vm=\"x\"}"), ["b has no label vm"]);
        assert_eq!(table.problems("sum by (level) (a_total)"), ["no metric has label level"]);
        assert_eq!(table.problems("c > up"), ["no metric c"]);
        assert!(parse(&Value::Null).is_err());
    }
}
