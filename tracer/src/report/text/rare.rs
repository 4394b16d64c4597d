//! The figures that few entries have: a line each below the table, or why there is no value.

use super::ColumnSet;
use crate::{
    model::figures::{Figure, Stat, human},
    output::grouped,
    report::{Report, Row, notes},
};

/// A line for each of the figures that the columns do not show. What the filters leave out is no absence.
pub(super) fn render(report: &Report, total: &Row, columns: ColumnSet, has_columns: impl Fn(Figure) -> bool) -> String {
    let is_asked = matches!(columns, ColumnSet::Timer | ColumnSet::All);
    let mut out = String::new();
    for figure in Figure::ALL.into_iter().filter(|figure| figure.is_rare()) {
        let values = &total.series[figure];
        let line = match notes::why_empty(report, figure, std::slice::from_ref(total)) {
            None if has_columns(figure) => continue,
            None => {
                let stats = [Stat::Min, Stat::P50, Stat::P99, Stat::Max].into_iter();
                let stats = stats.filter(|stat| stat.is_carried(values.count()));
                let stats: Vec<_> =
                    stats.map(|stat| format!("{} {}", stat.name(), human(stat.of(values), figure.unit()))).collect();
                let what = if values.count() == 1 { "value" } else { "values" };
                let hint = if is_asked { "" } else { " (--columns timer)" };
                format!("{} {what}, {}{hint}", grouped(values.count()), stats.join(", "))
            }
            Some(_) if notes::is_left_out(report, figure) => continue,
            // Where nobody asked and nothing was recorded, there is nothing to say.
            Some(_) if !is_asked && report.values(figure, |_| true).map_or(true, |all| all.count() == 0) => continue,
            Some(why) => format!("n/a: {why}"),
        };
        out += &format!("{}: {line}\n", figure.heading());
    }
    out
}
