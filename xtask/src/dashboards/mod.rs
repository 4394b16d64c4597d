//! `cargo xtask dashboards`: writes Grafana's dashboards and Prometheus's rules, and checks that their queries name
//! only metrics and labels in the exporter's own table.

mod expressions;
mod fleet;
pub(crate) mod grafana;
mod host;
mod panels;
mod query;
pub(crate) mod rules;
pub(crate) mod table;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    build,
    dashboards::{grafana::Dashboard, table::Table},
};

/// Values of panels that show a policy: number, name, colour.
const POLICIES: &[(u32, &str, &str)] =
    &[(0, "unknown", "text"), (1, "soft", "green"), (2, "hard", "orange"), (3, "off", "blue")];

/// Arguments of `dashboards`.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Compare with the committed files instead of replacing them
    #[arg(long)]
    check: bool,
}

/// Writes the files, or compares them with the committed ones.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
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

/// Fails if a query names a metric or label that the exporter does not have, or a committed file is out of date.
pub(crate) fn check() -> Result<()> {
    let queries = consistent(&table::exported()?)?;
    for (path, content) in files()? {
        let committed = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        ensure!(
            committed == content,
            "compare {}: out of date: run 'cargo xtask dashboards' and commit",
            path.display()
        );
    }
    println!("{queries} queries name exported metrics and labels; the committed files are up to date");
    Ok(())
}

/// The folder of the files.
pub(crate) fn folder() -> PathBuf {
    build::root().join("dashboards")
}

/// All dashboards.
pub(crate) fn all() -> [Dashboard; 2] {
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

/// Checks every query and returns their number.
fn consistent(table: &Table) -> Result<usize> {
    let mut table = table.clone();
    let mut problems = Vec::new();
    let mut queries = 0;
    let mut check = |table: &Table, name: &str, expr: &str| {
        problems.extend(table.problems(expr).into_iter().map(|problem| format!("{name}: {problem}")));
        queries += 1;
    };
    for recording in rules::RECORDINGS {
        check(&table, recording.name, recording.expr);
        table.add(recording.name, recording.labels);
    }
    for alert in rules::ALERTS {
        check(&table, alert.name, &alert.expr());
    }
    for dashboard in all() {
        for variable in &dashboard.variables {
            let expr = format!("count by ({}) ({})", variable.label, variable.series);
            check(&table, &format!("{}: {}", dashboard.uid, variable.name), &expr);
        }
        for panel in dashboard.panels() {
            for query in &panel.queries {
                check(&table, &format!("{}: {}", dashboard.uid, panel.title), &query.expr);
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
    fn every_panel_has_a_description_a_unit_and_legends() {
        for dashboard in all() {
            for panel in dashboard.panels() {
                assert!(panel.description.len() > 20, "{}", panel.title);
                assert!(!panel.unit.is_empty() && !panel.queries.is_empty(), "{}", panel.title);
                assert!(panel.queries.iter().all(|q| !q.legend.is_empty()), "{}", panel.title);
                // Grafana's own ids; it would show others as text.
                let units = ["s", "cps", "short", "none", "percentunit", "bytes"];
                assert!(units.contains(&panel.unit), "{}: {}", panel.title, panel.unit);
            }
        }
    }

    #[test]
    fn each_variable_uses_only_those_before_it_and_each_query_only_known_ones() {
        for dashboard in all() {
            let names: Vec<_> = dashboard.variables.iter().map(|v| v.name).collect();
            assert_eq!(names, ["instance", "vm", "exit_reason"]);
            for (index, variable) in dashboard.variables.iter().enumerate() {
                let used: Vec<_> = variables(&variable.series);
                assert_eq!(used, names[..index], "{} uses all variables before it", variable.name);
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
    fn uids_and_titles_are_unique() {
        let [a, b] = all();
        assert!(a.uid != b.uid && a.title != b.title);
        for dashboard in [a, b] {
            let mut titles: Vec<_> = dashboard.panels().map(|p| p.title).collect();
            titles.sort_unstable();
            assert!(titles.windows(2).all(|pair| pair[0] != pair[1]), "{titles:?}");
        }
    }
}
