//! Asks a Prometheus every query of the panels, variables and rules, and checks that each answer has the data it must
//! have.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    dashboards::{
        self,
        grafana::{Dashboard, Kind},
        rules,
    },
    prometheus::{answers, http},
};

/// Four scrapes a second apart, as Grafana computes $__rate_interval.
const RATE_INTERVAL: &str = "4s";
/// Queries that answer only zeros in this test, by the beginnings of their names, each with the reason. Every other
/// query must answer a number above 0.
const ZEROS: [(&str, &str); 5] = [
    ("vmentry-host soft Lost", "this host lost no entry"),
    ("vmentry-host soft Spurious timer exits by VM", "this host had no spurious exit"),
    ("vmentry-host soft Entries not measured", "this host measured every entry; the other one did not"),
    ("vmentry-host soft Folded and expired", "few VMs, none of which ends: the exporter's own tests have thousands"),
    ("vmentry-host hard Folded and expired", "the same"),
];

/// Asks every query at the time `end`, in seconds of CLOCK_REALTIME, and returns their number.
pub(super) fn ask_all(port: u16, end: u64) -> Result<usize> {
    let mut asked = Asked { port, end, count: 0, unanswered: Vec::new(), zeros: Vec::new() };
    for dashboard in dashboards::all() {
        let hosts: &[&str] = if dashboard.uid == "vmentry-host" { &["soft", "hard"] } else { &[".*"] };
        for host in hosts {
            ask_dashboard(&mut asked, &dashboard, host)?;
        }
    }
    ask_rules(&mut asked)?;
    check_answers(&asked)?;
    check_rules_in_prometheus(port)?;
    Ok(asked.count)
}

fn ask_dashboard(asked: &mut Asked, dashboard: &Dashboard, host: &str) -> Result<()> {
    let filled = |expr: &str| {
        let expr = expr.replace("$__rate_interval", RATE_INTERVAL).replace("$__range", "60s");
        expr.replace("$instance", host).replace("$vm", ".*").replace("$exit_reason", ".*")
    };
    for variable in &dashboard.variables {
        let name = format!("{} ${}", dashboard.uid, variable.name);
        asked.values(&name, variable.label, &filled(&variable.series))?;
    }
    for panel in dashboard.panels() {
        for query in &panel.queries {
            let name = format!("{} {host} {} ({})", dashboard.uid, panel.title, query.legend);
            match panel.kind {
                Kind::Table => asked.now(&name, &filled(&query.expr))?,
                Kind::HeatMap => asked.histograms(&name, &filled(&query.expr))?,
                _ => asked.range(&name, &filled(&query.expr))?,
            }
        }
    }
    Ok(())
}

fn ask_rules(asked: &mut Asked) -> Result<()> {
    for recording in rules::RECORDINGS {
        asked.now(recording.name, recording.expr)?;
        asked.now(&format!("{} as recorded", recording.name), recording.name)?;
    }
    for alert in rules::ALERTS {
        // The watched value must exist; promtool's tests check when the alert fires.
        asked.now(alert.name, alert.value)?;
    }
    Ok(())
}

/// Fails if a query has no answer, answers unexpected zeros, or answers more where zeros are expected.
fn check_answers(asked: &Asked) -> Result<()> {
    let Asked { unanswered, zeros, .. } = asked;
    ensure!(unanswered.is_empty(), "{} queries without an answer:\n{}", unanswered.len(), unanswered.join("\n"));
    let is_expected = |query: &&String| ZEROS.iter().any(|(name, _)| query.starts_with(name));
    let unexpected: Vec<_> = zeros.iter().filter(|query| !is_expected(query)).cloned().collect();
    ensure!(unexpected.is_empty(), "{} queries answer zeros:\n{}", unexpected.len(), unexpected.join("\n"));
    for (name, reason) in ZEROS {
        let has_zero = zeros.iter().any(|query| query.starts_with(name));
        ensure!(has_zero, "{name} answers no zero: does '{reason}' still hold?");
    }
    Ok(())
}

/// Checks that Prometheus has evaluated every rule without an error, and that the alert of the host with the hard
/// policy waits for its hour to pass.
fn check_rules_in_prometheus(port: u16) -> Result<()> {
    let rules = http::api(port, "rules", &[])?;
    let groups = rules["groups"].as_array().into_iter().flatten();
    let rules: Vec<_> = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten()).collect();
    ensure!(rules.len() == rules::RECORDINGS.len() + rules::ALERTS.len(), "{} rules are loaded", rules.len());
    for rule in &rules {
        ensure!(rule["health"] == "ok", "rule {}: {} {}", rule["name"], rule["health"], rule["lastError"]);
    }
    let hard = rules.iter().find(|rule| rule["name"] == "VmentryHardPolicyLeftOn").context("find the alert")?;
    let alerts = hard["alerts"].as_array().context("read the alerts")?;
    ensure!(
        alerts.len() == 1 && alerts[0]["state"] == "pending" && alerts[0]["labels"]["instance"] == "hard",
        "alerts of the hard policy: {alerts:?}"
    );
    Ok(())
}

/// A Prometheus and its answers so far.
struct Asked {
    port: u16,
    /// Time of the queries, in seconds of CLOCK_REALTIME.
    end: u64,
    /// Number of queries.
    count: usize,
    /// Queries without an answer: name and expression.
    unanswered: Vec<String>,
    /// Queries that answered zeros only: name and expression.
    zeros: Vec<String>,
}

impl Asked {
    fn note(&mut self, name: &str, expr: &str, largest: Option<f64>) {
        self.count += 1;
        match largest {
            None => self.unanswered.push(format!("{name}: {expr}")),
            Some(number) if number <= 0.0 => self.zeros.push(format!("{name}: {expr}")),
            Some(_) => {}
        }
    }

    /// Asks for the values of a label.
    fn values(&mut self, name: &str, label: &str, series: &str) -> Result<()> {
        let values = http::api(self.port, &format!("label/{label}/values"), &[("match[]", series)])?;
        let count = values.as_array().map_or(0, Vec::len);
        self.note(name, series, (count > 0).then_some(count as f64));
        Ok(())
    }

    /// Asks for the value now.
    fn now(&mut self, name: &str, expr: &str) -> Result<()> {
        let result = http::query(self.port, expr).with_context(|| name.to_owned())?;
        self.note(name, expr, answers::largest(&result));
        Ok(())
    }

    /// Asks for the last 20 s.
    fn range(&mut self, name: &str, expr: &str) -> Result<()> {
        let result = self.matrix(expr).with_context(|| name.to_owned())?;
        self.note(name, expr, answers::largest(&result));
        Ok(())
    }

    /// Asks for the last 20 s, which must have native histograms.
    fn histograms(&mut self, name: &str, expr: &str) -> Result<()> {
        let result = self.matrix(expr).with_context(|| name.to_owned())?;
        self.note(name, expr, answers::largest(&result).filter(|_| answers::has_buckets(&result)));
        Ok(())
    }

    fn matrix(&self, expr: &str) -> Result<Value> {
        let (from, to) = ((self.end - 20).to_string(), self.end.to_string());
        let parameters = [("query", expr), ("start", &from), ("end", &to), ("step", "1")];
        Ok(http::api(self.port, "query_range", &parameters)?["result"].take())
    }
}
