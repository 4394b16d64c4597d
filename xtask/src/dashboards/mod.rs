//! `cargo xtask dashboards`: Grafana's dashboards and Prometheus's rules, written from here and checked against the exporter's own
//! table of metrics, so that no query names what is not exported.

mod fleet;
pub mod grafana;
mod host;
mod query;
pub mod rules;
pub mod table;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    build,
    dashboards::{grafana::Dashboard, table::Table},
};

/// Values of the panels that show a policy: the value, its name, its colour.
const POLICIES: &[(u32, &str, &str)] =
    &[(0, "unknown", "text"), (1, "soft", "green"), (2, "hard", "orange"), (3, "off", "blue")];

/// Arguments of `dashboards`.
#[derive(Args)]
pub struct Arguments {
    /// Compare with what is committed instead of replacing it
    #[arg(long)]
    check: bool,
}

/// Writes the files, or compares them.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.check {
        return check();
    }
    consistent(&table::exported()?)?;
    for (path, content) in files()? {
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Fails when a query names what the exporter has not, or a committed file is not what this makes.
pub fn check() -> Result<()> {
    let queries = consistent(&table::exported()?)?;
    for (path, content) in files()? {
        let committed = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        ensure!(committed == content, "{} is old: run 'cargo xtask dashboards' and commit", path.display());
    }
    println!("{queries} queries name exported metrics and labels; the committed files are up to date");
    Ok(())
}

/// The folder of all this.
pub fn folder() -> PathBuf {
    build::root().join("dashboards")
}

/// All dashboards.
pub fn all() -> [Dashboard; 2] {
    [host::dashboard(), fleet::dashboard()]
}

fn files() -> Result<Vec<(PathBuf, String)>> {
    let mut files = vec![(folder().join("prometheus/vmentry.rules.yml"), rules::yaml())];
    for dashboard in all() {
        let text = serde_json::to_string_pretty(&dashboard.json()).context("write a dashboard's JSON")?;
        files.push((folder().join(format!("grafana/{}.json", dashboard.uid)), text + "\n"));
    }
    Ok(files)
}

/// Checks every query and returns how many there are.
fn consistent(table: &Table) -> Result<usize> {
    let mut table = table.clone();
    let mut problems = Vec::new();
    let mut queries = 0;
    for recording in rules::RECORDINGS {
        problems
            .extend(table.problems(recording.expr).into_iter().map(|problem| format!("{}: {problem}", recording.name)));
        table.add(recording.name, recording.labels);
        queries += 1;
    }
    for alert in rules::ALERTS {
        problems.extend(table.problems(&alert.expr()).into_iter().map(|problem| format!("{}: {problem}", alert.name)));
        queries += 1;
    }
    for dashboard in all() {
        let about = |what: &str, problem: String| format!("{}: {what}: {problem}", dashboard.uid);
        for variable in &dashboard.variables {
            let expr = format!("count by ({}) ({})", variable.label, variable.series);
            problems.extend(table.problems(&expr).into_iter().map(|p| about(variable.name, p)));
            queries += 1;
        }
        for panel in dashboard.panels() {
            for query in &panel.queries {
                problems.extend(table.problems(&query.expr).into_iter().map(|p| about(panel.title, p)));
                queries += 1;
            }
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(queries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panel_says_what_it_shows_and_in_which_unit() {
        for dashboard in all() {
            for panel in dashboard.panels() {
                assert!(panel.description.len() > 20, "{}", panel.title);
                assert!(!panel.unit.is_empty() && !panel.queries.is_empty(), "{}", panel.title);
                assert!(panel.queries.iter().all(|q| !q.legend.is_empty()), "{}", panel.title);
                // Grafana's own ids: others are shown as text.
                let units = ["s", "cps", "short", "none", "percentunit", "bytes"];
                assert!(units.contains(&panel.unit), "{}: {}", panel.title, panel.unit);
            }
        }
    }

    #[test]
    fn variables_cascade_and_no_query_uses_one_that_is_not_there() {
        for dashboard in all() {
            let names: Vec<_> = dashboard.variables.iter().map(|v| v.name).collect();
            assert_eq!(names, ["instance", "vm", "exit_reason"]);
            for (index, variable) in dashboard.variables.iter().enumerate() {
                let used: Vec<_> = variables(&variable.series);
                assert_eq!(used, names[..index], "{} offers what those before it leave", variable.name);
            }
            for query in dashboard.panels().flat_map(|p| &p.queries) {
                for name in variables(&query.expr) {
                    assert!(names.contains(&name) || ["__rate_interval", "__range"].contains(&name), "{name}");
                }
                assert!(!query.expr.contains("HOST") && !query.expr.contains("SERIES"), "{}", query.expr);
                assert!(query.expr.contains("$instance"), "{}", query.expr);
            }
            let json = dashboard.json();
            let text = json.to_string();
            assert_eq!(text.matches("\"uid\":").count(), text.matches("\"uid\":\"${datasource}\"").count() + 1);
            assert_eq!(json["templating"]["list"][0]["name"], "datasource");
        }
    }

    fn variables(query: &str) -> Vec<&str> {
        let after = query.split('$').skip(1);
        after
            .map(|rest| &rest[..rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())])
            .collect()
    }

    #[test]
    fn uids_and_titles_are_their_own() {
        let [a, b] = all();
        assert!(a.uid != b.uid && a.title != b.title);
        for dashboard in [a, b] {
            let mut titles: Vec<_> = dashboard.panels().map(|p| p.title).collect();
            titles.sort_unstable();
            assert!(titles.windows(2).all(|pair| pair[0] != pair[1]), "{titles:?}");
        }
    }
}
