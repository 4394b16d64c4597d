//! The report's rows as CSV by RFC 4180, for spreadsheets; documented in the README's format section.

use super::{Dimension, Report, Row, View};
use crate::model::{
    figures::{Figure, Stat},
    measurement::Latency,
};

/// A header, then one line per row of the view. What is not known is empty, never 0.
pub fn render(report: &Report, view: &View) -> String {
    let dimension = |d: &Dimension| if *d == Dimension::Reason { "exit_reason" } else { d.name() };
    let mut head: Vec<String> = view.by.iter().map(|d| dimension(d).to_owned()).collect();
    head.push("entries".into());
    head.extend(Figure::ALL.into_iter().flat_map(|f| Stat::ALL.map(|s| format!("{}_{}", f.name(), s.name()))));
    head.extend(["lost_share", "emulated", "counted"].map(str::to_owned));
    let mut out = line(&head);
    for row in report.rows(view) {
        out += &line(&cells(report, view, &row));
    }
    out
}

fn cells(report: &Report, view: &View, row: &Row) -> Vec<String> {
    let mut cells: Vec<_> = view.by.iter().map(|&d| text(&report.value(&row.key, d).unwrap_or_default())).collect();
    cells.push(row.series.entries().to_string());
    for figure in Figure::ALL {
        let shown = !figure.is_time() || report.latency() != Latency::Disturbed;
        for stat in Stat::ALL {
            let value = stat.of(&row.series[figure]).filter(|_| shown);
            cells.push(value.map(|v| v.to_string()).unwrap_or_default());
        }
    }
    let t = &report.whole.totals;
    let lost = t.dropped.saturating_add(t.malformed).saturating_add(t.not_kept);
    cells.push((lost as f64 / t.entries.max(1) as f64).to_string());
    cells.push(if report.is_emulated() { "EMULATED".into() } else { String::new() });
    cells.push(report.aggregation().name().into());
    cells
}

/// A name as text: spreadsheets run what begins like a formula, and names come from whoever runs a VM.
fn text(value: &str) -> String {
    let formula = value.trim_start().starts_with(['=', '+', '-', '@']) || value.starts_with(['\t', '\r', '\n']);
    if formula { format!("'{value}") } else { value.to_owned() }
}

fn line(cells: &[String]) -> String {
    let quoted = |cell: &String| {
        if cell.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() }
    };
    cells.iter().map(quoted).collect::<Vec<_>>().join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::tests::{report, view},
        *,
    };

    #[test]
    fn every_row_has_every_column() {
        let csv = render(&report(), &view());
        let lines: Vec<Vec<&str>> = csv.split_terminator("\r\n").map(|l| l.split(',').collect()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0][..4], ["vm", "exit_reason", "entries", "entry_to_exit_ns_min"]);
        assert_eq!(lines[1][..3], ["vm0", "CPUID", "97"]);
        assert!(lines.iter().all(|l| l.len() == 3 + Figure::ALL.len() * Stat::ALL.len() + 3));
        assert_eq!((lines[0].last(), lines[1].last()), (Some(&"counted"), Some(&"records")));
        let at = lines[0].iter().position(|h| *h == "pin_writes_mean").unwrap();
        assert_eq!((lines[1][at], lines[2][at]), ("0", "2"));
    }

    #[test]
    fn what_is_not_known_is_empty() {
        let mut report = report();
        report.sources[0].header.latency = Latency::Disturbed;
        let csv = render(&report, &view());
        let first = csv.lines().nth(1).unwrap();
        assert!(first.starts_with("vm0,CPUID,97,,,,,,,,"), "{first}");
        assert!(first.ends_with(",0,,,,,,,,0.04,,records"), "{first}");
    }

    #[test]
    fn names_are_no_formulas_and_break_no_line() {
        for formula in ["=cmd|'/c calc'!A1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "\r=1"] {
            assert!(text(formula).starts_with('\''), "{formula}");
        }
        assert_eq!(text("web-1"), "web-1");
        let mut report = report();
        let vm = report.whole.vms.get_mut(&0).unwrap();
        Arc::make_mut(vm).name = "=1+1,\"x\"\nvm9".into();
        let csv = render(&report, &view());
        assert!(csv.contains("\"'=1+1,\"\"x\"\"\nvm9\",CPUID,97"), "{csv}");
    }

    #[test]
    fn emulated_times_say_so_in_their_line() {
        let mut report = report();
        assert!(!render(&report, &view()).contains("EMULATED"));
        report.sources[0].header.host.emulated = true;
        assert!(render(&report, &view()).lines().skip(1).all(|l| l.ends_with(",EMULATED,records")));
    }
}
