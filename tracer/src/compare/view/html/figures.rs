//! The section of figures: the table of every figure, and the comparison with one mix of exits.

use super::wording;
use crate::{
    compare::{Comparison, Row, Setting, Verdict},
    html::{
        Markup, details, heading, join, list, paragraph,
        table::{Heading, Table},
    },
    output::grouped,
};

pub(super) fn section(c: &Comparison, setting: &Setting) -> Markup {
    let valued: Vec<_> = c.rows.iter().filter(|r| r.a.is_some() && r.b.is_some()).collect();
    let is_conclusive = wording::is_conclusive(c);
    let mut out = Vec::new();
    if is_conclusive {
        let others = valued.iter().copied().filter(|r| r.primary.is_none());
        let rows: Vec<_> =
            wording::primary(&c.rows).into_iter().filter(|r| wording::has_values(r)).chain(others).collect();
        out.push(table("figures-table", "Every figure", &rows, setting));
        out.push(legend(c, &valued));
    } else if !valued.is_empty() {
        out.push(plain(c, &valued, setting));
    }
    // Without any verdict, the reason is the same for every figure that has values, and stands on top.
    let with_reasons: Vec<_> = c.rows.iter().filter(|r| is_conclusive || r.a.is_none() || r.b.is_none()).collect();
    let footnotes = wording::footnotes(&with_reasons);
    if !footnotes.is_empty() {
        out.push(heading("Without a verdict or an interval"));
        out.push(list(&footnotes));
    }
    if !c.stratified.is_empty() {
        out.push(with_one_mix(c, setting));
    }
    join(out)
}

/// The words of the table's columns, and its footnote.
fn legend(c: &Comparison, rows: &[&Row]) -> Markup {
    let text = format!(
        "Change: B relative to A in %; absolute where A or B is 0 or about 0. {}; significant is at most {}. MDE: smallest change found \
         with 80 % power. A/A noise: 95th percentile of half-against-half differences within a side.",
        wording::adjusted(c, "Adjusted p"),
        c.alpha
    );
    let ignored =
        (c.ignore_below > 0.0).then(|| format!("Ignored: changed by less than {}.", wording::size(c.ignore_below)));
    let contradiction = rows.iter().find_map(|row| wording::contradiction(row)).map(|why| format!("* {why}."));
    let plan = wording::plan(c).map(|plan| format!("P1, P2 and so on: {plan}."));
    let notes = [Some(text), plan, ignored, contradiction, Some(machine_names(rows))];
    join(notes.into_iter().flatten().map(|t| paragraph(&t)))
}

/// The names of the rows in JSON and `--fail-if`, by an example of each figure.
fn machine_names(rows: &[&Row]) -> String {
    let mut figures: Vec<&str> = Vec::new();
    let mut names = Vec::new();
    for row in rows {
        if !figures.contains(&row.figure) {
            figures.push(row.figure);
            names.push(format!("{} is {}", wording::title(row), wording::name(row)));
        }
    }
    format!("Names in JSON and --fail-if: {}; p99.9 is p999.", names.join(", "))
}

/// Both sides next to each other, without verdicts.
fn plain(c: &Comparison, rows: &[&Row], setting: &Setting) -> Markup {
    let emulated = if wording::is_emulated(setting) { "; times are EMULATED" } else { "" };
    let numbers = ["A", "B", "change", "95 % CI", "values of A", "values of B"].map(Heading::number);
    let columns = [Heading::word("figure")].into_iter().chain(numbers).chain([Heading::word("machine name")]).collect();
    let mut table = Table::new("figures-table", format!("Every figure, without verdicts{emulated}"), columns);
    for row in rows {
        // Too few values for the quantile.
        let class = if wording::is_carried(row) { "" } else { "quiet" };
        let cells = [
            wording::title(row),
            wording::value(row.a, row.unit),
            wording::value(row.b, row.unit),
            wording::change(row),
            wording::interval(row),
            grouped(row.count_a),
            grouped(row.count_b),
            wording::name(row),
        ];
        table.row_of(class, cells);
    }
    let quiet = "Grey: fewer than 10 values beyond the quantile on a side.";
    let quiet = rows.iter().any(|row| !wording::is_carried(row)).then(|| quiet.to_owned());
    let notes = quiet.into_iter().chain(wording::pin_writes(c).map(|text| format!("{text}.")));
    join([table.render()].into_iter().chain(notes.map(|text| paragraph(&text))))
}

fn with_one_mix(c: &Comparison, setting: &Setting) -> Markup {
    let pairs = wording::contradicting(c);
    let covered = wording::share_text(Some(c.mix.covered));
    let agrees = match pairs.is_empty() {
        _ if !wording::is_conclusive(c) => "",
        true => " This comparison agrees with the raw one.",
        false => " This comparison disagrees with the raw one about some figures.",
    };
    let text = format!(
        "Both sides are weighted to the same mix of exit reasons, so that another workload does not count as another cost; this covers \
         {covered} of the entries.{agrees}"
    );
    let mut out = vec![heading("With one mix of exits"), paragraph(&text)];
    if !pairs.is_empty() {
        out.push(disagreements(&pairs));
    }
    let rows: Vec<_> = c.stratified.iter().collect();
    let table = table("stratified-table", "Every figure, both sides weighted to one mix of exits", &rows, setting);
    out.push(details("All figures with one mix of exits", &table));
    join(out)
}

fn disagreements(pairs: &[(&Row, &Row)]) -> Markup {
    let columns = vec![
        Heading::word("figure"),
        Heading::number("change, raw"),
        Heading::number("change, one mix"),
        Heading::number("95 % CI"),
        Heading::number("adjusted p"),
        Heading::word("verdict, raw"),
        Heading::word("verdict, one mix"),
    ];
    let mut table = Table::new("contradicting", "Figures that disagree with one mix of exits", columns);
    for (raw, one) in pairs {
        table.row(vec![
            wording::title(raw),
            wording::change(raw),
            wording::change(one),
            wording::interval(one),
            wording::p_value(one.p_holm),
            wording::verdict(raw.verdict).into(),
            wording::verdict(one.verdict).into(),
        ]);
    }
    table.render()
}

fn table(id: &str, caption: &str, rows: &[&Row], setting: &Setting) -> Markup {
    let emulated = if wording::is_emulated(setting) { "; times are EMULATED" } else { "" };
    let columns = vec![
        Heading::word("figure"),
        Heading::number("A"),
        Heading::number("B"),
        Heading::number("change"),
        Heading::number("95 % CI"),
        Heading::number("adjusted p"),
        Heading::number("MDE"),
        Heading::number("A/A noise"),
        Heading::word("verdict"),
    ];
    let mut table = Table::new(id, format!("{caption}{emulated}"), columns);
    for row in rows {
        let title = wording::title(row);
        let cells = vec![
            wording::place_mark(row).unwrap_or_default() + &title,
            wording::value(row.a, row.unit),
            wording::value(row.b, row.unit),
            wording::change(row),
            wording::interval(row),
            wording::p_value(row.p_holm),
            wording::mde(row),
            wording::noise(row),
            wording::verdict_of(row),
        ];
        let class = match row.verdict {
            Verdict::NotTested => "quiet",
            _ if wording::is_change(row) => "strong",
            _ => "",
        };
        table.row_of(class, cells);
    }
    table.render()
}
