//! The report's rows as CSV by RFC 4180, for spreadsheets; docs/formats.md has the columns.

use super::{Dimension, Report, Row, Rows, View};
use crate::model::{
    budget::Phase,
    figures::{Figure, Stat},
};

/// The times that have a sum.
const SUMMED: [Figure; 2] = [Figure::EntryToExit, Figure::ExitToEntry];

/// A line of titles, then one line per row of the view. Unknown values are empty, never 0.
pub(crate) fn render(report: &Report, view: &View) -> String {
    let lost = report.lost() as f64 / report.whole.totals.entries.max(1) as f64;
    let emulated = if report.is_emulated() { "EMULATED" } else { "" };
    let of_all = [lost.to_string(), emulated.into(), report.aggregation().name().into()];
    let Rows { each, total, .. } = report.all_rows(view);
    let rows = each.iter().take(view.top.unwrap_or(usize::MAX));
    let rows = rows.map(|row| [&cells(report, view, row)[..], &of_all, &sums(row, &total)].concat());
    let lines = std::iter::once(titles(view)).chain(rows);
    lines.map(|cells| cells.join(",") + "\r\n").collect()
}

fn titles(view: &View) -> Vec<String> {
    let dimension = |d: &Dimension| if *d == Dimension::Reason { "exit_reason" } else { d.name() };
    let mut titles: Vec<String> = view.by.iter().map(|d| dimension(d).to_owned()).collect();
    titles.extend(["entries", "observed_ns", "entries_per_second"].map(str::to_owned));
    titles.extend(Figure::ALL.into_iter().flat_map(|f| Stat::ALL.map(|s| format!("{}_{}", f.name(), s.name()))));
    titles.extend(["lost_share", "emulated", "counted", "exit_share", "host_time_share"].map(str::to_owned));
    titles.extend(SUMMED.map(|figure| format!("{}_sum", figure.name())));
    titles.extend(Phase::ALL.map(|phase| format!("{}_ns", phase.name())));
    titles.push("exits".into());
    titles
}

fn cells(report: &Report, view: &View, row: &Row) -> Vec<String> {
    let value = |&d: &Dimension| match (d, report.value(&row.key, d)) {
        (Dimension::Host | Dimension::Vm | Dimension::Detail, Some(name)) => quote(&name),
        (_, value) => value.unwrap_or_default(),
    };
    let mut cells: Vec<_> = view.by.iter().map(value).collect();
    let entries = row.entries.map(|n| n.to_string()).unwrap_or_default();
    cells.extend([entries, row.observed_ns.to_string()]);
    cells.push(row.entries.and_then(|n| row.rate(n)).map(|rate| rate.to_string()).unwrap_or_default());
    for figure in Figure::ALL {
        for stat in Stat::ALL {
            let value = stat.of(&row.series[figure]);
            cells.push(value.map(|v| v.to_string()).unwrap_or_default());
        }
    }
    cells
}

/// Shares of all rows, sums, parts of the host time, and exits.
fn sums(row: &Row, total: &Row) -> Vec<String> {
    let shares = [row.exit_share(total), row.host_time_share(total)].map(|share| share.map(|share| share.to_string()));
    let sums = SUMMED.map(|figure| row.sum_ns(figure).map(|sum| sum.to_string()));
    let phases = Phase::ALL.map(|phase| row.series.host_ns().and(row.series.phase(phase)).map(|ns| ns.to_string()));
    let all = shares.into_iter().chain(sums).chain(phases).map(Option::unwrap_or_default);
    all.chain(std::iter::once(row.exits.to_string())).collect()
}

/// A name as one cell that no spreadsheet runs as a formula, also where semicolons or tabs separate cells: names come from whoever runs a VM.
fn quote(name: &str) -> String {
    // Spreadsheets take the full-width forms for the same signs.
    let signs = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];
    let text = if name.trim_start().starts_with(signs) { "'" } else { "" };
    format!("\"{text}{}\"", name.replace('"', "\"\""))
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
        let csv = render(&report(), &view());
        let lines: Vec<Vec<&str>> = csv.split_terminator("\r\n").map(|l| l.split(',').collect()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0][..4], ["vm", "exit_reason", "entries", "observed_ns"]);
        assert_eq!(lines[1][..5], ["\"vm0\"", "CPUID", "97", "2000000000", "48.5"]);
        assert!(lines.iter().all(|l| l.len() == 5 + Figure::ALL.len() * Stat::ALL.len() + 8 + Phase::ALL.len()));
        let cell = |line: usize, title: &str| lines[line][lines[0].iter().position(|h| *h == title).unwrap()];
        assert_eq!(cell(1, "counted"), "records");
        assert_eq!((cell(1, "pin_writes_mean"), cell(2, "pin_writes_mean")), ("0", "2"));
        assert_eq!(cell(1, "exit_share"), (97.0 / 120.0).to_string());
        let [share, all] = ["host_time_share", "exit_to_entry_ns_sum"]
            .map(|title| [1, 2].map(|line| cell(line, title).parse::<f64>().unwrap()));
        assert!((share[0] + share[1] - 1.0).abs() < 1e-9 && (share[0] - all[0] / (all[0] + all[1])).abs() < 1e-9);
    }

    #[test]
    fn unknown_values_are_empty() {
        let mut report = report();
        report.sources[0].header.latency = Latency::Disturbed;
        let csv = render(&report, &view());
        let first = csv.lines().nth(1).unwrap();
        assert!(first.starts_with("\"vm0\",CPUID,97,2000000000,48.5,,,,,,,,"), "{first}");
        let end = format!(",0{}0.04,,records,{},,,,,,,,,97", ",".repeat(1 + 3 * Stat::ALL.len()), 97.0 / 120.0);
        assert!(first.ends_with(&end), "{first}");
    }

    #[test]
    fn no_name_becomes_a_formula_or_more_than_a_cell_whatever_separates_cells() {
        for formula in
            ["=cmd|'/c calc'!A1", "+1", "-1", "@SUM(A1)", "  =1", "\u{ff1d}1+1", "\u{ff0b}1", "\u{ff0d}1", "\u{ff20}a"]
        {
            assert_eq!(quote(formula), format!("\"'{formula}\""));
        }
        assert_eq!(quote("web-1"), "\"web-1\"");
        for name in ["x;=1+1", "a,\"b\",c", "a\"\"", "\";=1", "a\t=1\n2"] {
            let mut report = report();
            let vm = report.whole.vms.get_mut(&0).unwrap();
            Arc::make_mut(vm).name = name.into();
            let csv = render(&report, &view());
            for delimiter in [b',', b';', b'\t'] {
                let mut reader =
                    csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(csv.as_bytes());
                let rows: Vec<_> = reader.records().map(|row| row.unwrap()).collect();
                assert_eq!(rows.len(), 2);
                let first = &rows[0][0];
                assert!(if delimiter == b',' { first == name } else { first.starts_with(name) }, "{name:?}: {first:?}");
            }
        }
    }

    #[test]
    fn every_line_of_an_emulated_host_says_so() {
        let mut report = report();
        assert!(!render(&report, &view()).contains("EMULATED"));
        report.sources[0].header.host.emulated = true;
        assert!(render(&report, &view()).lines().skip(1).all(|l| l.contains(",EMULATED,records,")));
    }
}
