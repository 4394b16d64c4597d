//! The report's rows as CSV by RFC 4180, for spreadsheets; documented in the README's format section.

use anyhow::Result;
use csv::{Terminator, WriterBuilder};

use super::{Dimension, Report, Row, View};
use crate::model::figures::{Figure, Stat};

/// A line of titles, then one line per row of the view. Unknown values are empty, never 0.
pub(crate) fn render(report: &Report, view: &View) -> Result<String> {
    let mut out = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new());
    out.write_record(titles(view))?;
    let lost = report.lost() as f64 / report.whole.totals.entries.max(1) as f64;
    let emulated = if report.is_emulated() { "EMULATED" } else { "" };
    let of_all = [lost.to_string(), emulated.into(), report.aggregation().name().into()];
    for row in report.rows(view) {
        out.write_record(cells(report, view, &row).iter().chain(&of_all))?;
    }
    Ok(String::from_utf8(out.into_inner()?)?)
}

fn titles(view: &View) -> Vec<String> {
    let dimension = |d: &Dimension| if *d == Dimension::Reason { "exit_reason" } else { d.name() };
    let mut titles: Vec<String> = view.by.iter().map(|d| dimension(d).to_owned()).collect();
    titles.extend(["entries", "observed_ns", "entries_per_second"].map(str::to_owned));
    titles.extend(Figure::ALL.into_iter().flat_map(|f| Stat::ALL.map(|s| format!("{}_{}", f.name(), s.name()))));
    titles.extend(["lost_share", "emulated", "counted"].map(str::to_owned));
    titles
}

fn cells(report: &Report, view: &View, row: &Row) -> Vec<String> {
    let name = |&d: &Dimension| without_formula(report.value(&row.key, d).unwrap_or_default());
    let mut cells: Vec<_> = view.by.iter().map(name).collect();
    cells.extend([row.series.entries().to_string(), row.observed_ns.to_string()]);
    cells.push(row.rate(row.series.entries()).map(|rate| rate.to_string()).unwrap_or_default());
    for figure in Figure::ALL {
        for stat in Stat::ALL {
            let value = stat.of(&row.series[figure]);
            cells.push(value.map(|v| v.to_string()).unwrap_or_default());
        }
    }
    cells
}

/// A name that no spreadsheet runs as a formula: names come from whoever runs a VM.
fn without_formula(name: String) -> String {
    let is_formula = name.trim_start().starts_with(['=', '+', '-', '@']) || name.starts_with(['\t', '\r', '\n']);
    if is_formula { format!("'{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::tests::{report, view},
        *,
    };
    use crate::model::measurement::Latency;

    #[test]
    fn every_row_has_every_column() {
        let csv = render(&report(), &view()).unwrap();
        let lines: Vec<Vec<&str>> = csv.split_terminator("\r\n").map(|l| l.split(',').collect()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0][..4], ["vm", "exit_reason", "entries", "observed_ns"]);
        assert_eq!(lines[1][..5], ["vm0", "CPUID", "97", "2000000000", "48.5"]);
        assert!(lines.iter().all(|l| l.len() == 5 + Figure::ALL.len() * Stat::ALL.len() + 3));
        assert_eq!((lines[0].last(), lines[1].last()), (Some(&"counted"), Some(&"records")));
        let at = lines[0].iter().position(|h| *h == "pin_writes_mean").unwrap();
        assert_eq!((lines[1][at], lines[2][at]), ("0", "2"));
    }

    #[test]
    fn unknown_values_are_empty() {
        let mut report = report();
        report.sources[0].header.latency = Latency::Disturbed;
        let csv = render(&report, &view()).unwrap();
        let first = csv.lines().nth(1).unwrap();
        assert!(first.starts_with("vm0,CPUID,97,2000000000,48.5,,,,,,,,"), "{first}");
        assert!(first.ends_with(",0,,,,,,,,0.04,,records"), "{first}");
    }

    #[test]
    fn no_name_becomes_a_formula_or_breaks_a_line() {
        for formula in ["=cmd|'/c calc'!A1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "\r=1"] {
            assert!(without_formula(formula.into()).starts_with('\''), "{formula}");
        }
        assert_eq!(without_formula("web-1".into()), "web-1");
        let mut report = report();
        let vm = report.whole.vms.get_mut(&0).unwrap();
        Arc::make_mut(vm).name = "=1+1,\"x\"\nvm9".into();
        let csv = render(&report, &view()).unwrap();
        assert!(csv.contains("\"'=1+1,\"\"x\"\"\nvm9\",CPUID,97"), "{csv}");
    }

    #[test]
    fn every_line_of_an_emulated_host_says_so() {
        let mut report = report();
        assert!(!render(&report, &view()).unwrap().contains("EMULATED"));
        report.sources[0].header.host.emulated = true;
        assert!(render(&report, &view()).unwrap().lines().skip(1).all(|l| l.ends_with(",EMULATED,records")));
    }
}
