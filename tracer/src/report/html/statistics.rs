//! Every statistic of every figure, as tables.

use super::{
    super::{Dimension, Report, Row, View, notes},
    counted,
    exits::value,
};
use crate::{
    html::{
        Markup, heading, join, paragraph,
        table::{Cell, Heading, Table},
    },
    model::figures::{Figure, Stat, Unit, human},
    output::grouped,
};

/// Tables of every statistic, one a figure; those without a value other than 0 are left out.
pub(super) fn figures(report: &Report, view: &View) -> Markup {
    let rows = report.rows(view);
    if rows.is_empty() {
        let passed =
            if report.whole.totals.delivered > 0 { "pass the filters" } else { "were recorded: did a VM run?" };
        return paragraph(&format!("No entries {passed}"));
    }
    let mut out = Vec::new();
    if !view.filters.is_empty() {
        let filters: Vec<_> = view.filters.iter().map(ToString::to_string).collect();
        out.push(paragraph(&format!("Only entries with {}.", filters.join(" and "))));
    }
    for figure in Figure::ALL {
        if figure == Figure::PinWrites && rows.iter().all(|row| row.series[figure].max().unwrap_or(0) == 0) {
            let known: u64 = rows.iter().map(|row| row.series[figure].count()).sum();
            out.extend(
                (known > 0).then(|| paragraph(&format!("{}: none in {} entries.", figure.heading(), grouped(known)))),
            );
            if known > 0 {
                continue;
            }
        }
        out.push(heading(&figure.heading()));
        let why = notes::why_empty(report, figure, &rows);
        out.extend(why.as_ref().map(|why| paragraph(&format!("n/a: {why}"))));
        // Entries are counted also where their times are not shown.
        if why.is_none() || figure == Figure::EntryToExit {
            out.push(rows_table(report, view, figure, &rows));
        }
    }
    join(out)
}

fn rows_table(report: &Report, view: &View, figure: Figure, rows: &[Row]) -> Markup {
    let name = |d: &Dimension| Heading::word(if *d == Dimension::Reason { "exit reason" } else { d.name() });
    let mut columns: Vec<_> = view.by.iter().map(name).collect();
    if columns.is_empty() {
        columns.push(Heading::word(""));
    }
    columns.extend([counted(figure), "/s"].map(Heading::number));
    columns.extend(Stat::ALL.map(|s| Heading::number(s.title().to_lowercase())));
    let emulated = if report.is_emulated() && figure.is_time() { "; EMULATED" } else { "" };
    let caption = format!("{}: {}{emulated}", figure.heading(), figure.help());
    let mut table = Table::new(format!("rows-{}", figure.name()), caption, columns);
    let knowledge = report.knowledge();
    for row in rows {
        let histogram = &row.series[figure];
        let count = if figure == Figure::EntryToExit { row.series.entries() } else { histogram.count() };
        let group = if row.group.is_empty() { vec!["all".into()] } else { row.group.clone() };
        let mut cells: Vec<Cell> = group.into_iter().map(Cell::from).collect();
        cells.extend([grouped(count).into(), human(row.rate(count), Unit::PerSecond).into()]);
        let stat = |s: Stat| match knowledge.figure(figure) {
            Ok(()) => value(s, histogram, figure.unit()),
            Err(why) => Cell::from(Err::<String, _>(why.clone())),
        };
        cells.extend(Stat::ALL.map(stat));
        table.row(cells);
    }
    table.render()
}
