//! The default text: the answer, the figures that changed, one line about the others, and what to do next.

use super::{
    MIN_WIDTH, Page, alarms, fitted,
    others::{others, unknown},
    warnings,
    wording::{self, counted},
};
use crate::{
    compare::{Comparison, Row, Setting},
    model::figures::{Unit, human},
    output::wrap,
};

/// Rows of the table at most.
const MOST_ROWS: usize = 10;
/// Rows of others at least, however many figures are primary.
const FEWEST_ROWS: usize = 3;
/// Statistics of the plain table: those that most readers ask for.
const PLAIN_STATS: [&str; 5] = ["p50", "p99", "mean", "per_second", "share"];

/// Renders a comparison in `width` columns, at least 40. On a terminal, warnings are lines that it cuts.
pub(crate) fn render(c: &Comparison, setting: &Setting, width: usize, is_terminal: bool) -> String {
    let page = Page { width: width.max(MIN_WIDTH), cuts: is_terminal };
    let width = page.width;
    let line = |text: &String| page.line(text);
    let mut out: String = alarms(c, setting, width).concat();
    out.extend(warnings(c, setting).iter().map(line));
    out.extend(sides(c, setting).iter().map(line));
    out += &format!("\n{}", wrap(&wording::summary(c, setting), "", width));
    if let Some(advice) = wording::advice(c, setting) {
        out += &wrap(&format!("  -> {advice}"), "     ", width);
    }
    out.push('\n');
    if wording::is_conclusive(c) {
        out += &changed(c, page);
        out += &others(c, page).concat();
    } else {
        out += &plain(c, width);
        out.extend(wording::pin_writes(c).iter().map(line));
        out.extend(wording::clear(c).iter().map(|text| page.text(text)));
        out.extend(unknown(c).iter().map(line));
    }
    out.extend(wording::by_vm::differing_vms(c).iter().map(line));
    out.extend(mix(c).iter().map(|text| page.text(text)));
    out + &page.text("everything else: vmentry compare --method, or --format html")
}

/// A line of each side, and one of what they have in common.
fn sides(c: &Comparison, setting: &Setting) -> Vec<String> {
    let side = |at: usize| {
        let side = [&c.a, &c.b][at];
        let (windows, entries) = (counted(side.windows as u64, "window"), counted(wording::entries(c, at), "entry"));
        let length = human(Some(side.length_ns as f64), Unit::Ns);
        let pins = |n| format!("; {}", counted(n, "pin write"));
        let pins = side.pin_writes.map(pins).unwrap_or_default();
        let name = &setting.names[at];
        format!("{}  {name}: {length} in {windows}; {entries}{pins}", ["A", "B"][at])
    };
    let hosts = setting.sources.iter().flatten().map(|source| {
        let host = &source.header.host;
        format!("{}: Linux {}, {} x {}", host.name, host.kernel, host.cpus, host.cpu)
    });
    let mut hosts: Vec<_> = hosts.collect();
    hosts.dedup();
    let more = if hosts.len() > 2 { format!(", and {} more", hosts.len() - 1) } else { String::new() };
    let mut out = vec![side(0), side(1)];
    out.extend(match hosts.as_slice() {
        [a, b] => vec![format!("A on {a}"), format!("B on {b}")],
        [first, ..] => vec![format!("on {first}{more}")],
        [] => vec![],
    });
    out
}

/// The primary figures in their order, whatever is known of them, and the others that changed, largest change first; with a line for
/// each footnote.
fn changed(c: &Comparison, page: Page) -> String {
    let primary: Vec<_> = wording::primary(&c.rows).into_iter().filter(|r| wording::has_values(r)).collect();
    let changed = wording::largest_first(c.rows.iter().filter(|r| r.primary.is_none() && wording::is_change(r)));
    if primary.is_empty() && changed.is_empty() {
        return String::new();
    }
    let most = MOST_ROWS.saturating_sub(primary.len()).max(FEWEST_ROWS);
    let (shown, more) = changed.split_at(changed.len().min(most));
    let name = if primary.is_empty() { "" } else { "PRIMARY" };
    let mut lines = vec![[name, "A", "B", "CHANGE", "95% CI", "ADJ. P", "VERDICT"].map(str::to_owned)];
    lines.extend(primary.iter().map(|row| line(row)));
    if !primary.is_empty() && !shown.is_empty() {
        lines.push(["OTHERS", "", "", "", "", "", ""].map(str::to_owned));
    }
    lines.extend(shown.iter().map(|row| line(row)));
    let mut out = fitted(&lines, true, page.width);
    let shown = [&primary, shown].concat();
    if let Some(why) = shown.iter().find_map(|row| wording::contradiction(row)) {
        out += &page.text(&format!("* {why}"));
    }
    if !more.is_empty() {
        out += &format!("{} more changed, by less\n", more.len());
    }
    out.extend(wording::refusals(&shown).iter().map(|text| page.line(text)));
    out
}

/// A row of the table.
fn line(row: &Row) -> [String; 7] {
    let mark = wording::contradiction_mark(row);
    [
        wording::title(row),
        wording::value(row.a, row.unit),
        wording::value(row.b, row.unit),
        wording::change(row),
        wording::interval(row),
        wording::p_value(row.p_holm),
        format!("{}{mark}", wording::word(row.verdict)),
    ]
}

/// Both sides next to each other, without verdicts: the statistics that the counts carry.
fn plain(c: &Comparison, width: usize) -> String {
    let has_figure = |r: &&Row| r.a.is_some() && r.b.is_some() && (r.a, r.b) != (Some(0.0), Some(0.0));
    let is_plain = |r: &&Row| r.primary.is_none() && PLAIN_STATS.contains(&r.stat) && wording::is_carried(r);
    let primary = wording::primary(&c.rows).into_iter().filter(has_figure);
    let rows: Vec<_> = primary.chain(c.rows.iter().filter(has_figure).filter(is_plain)).collect();
    if rows.is_empty() {
        return String::new();
    }
    let has_intervals = rows.iter().any(|r| wording::interval(r) != "n/a");
    let mut lines = vec![["", "A", "B", "CHANGE", if has_intervals { "95% CI" } else { "" }].map(str::to_owned)];
    for row in rows {
        lines.push([
            wording::title(row),
            wording::value(row.a, row.unit),
            wording::value(row.b, row.unit),
            wording::change(row),
            if has_intervals { wording::interval(row) } else { String::new() },
        ]);
    }
    fitted(&lines, false, width)
}

/// How much the exit mixes differ, and the figures that one mix of exits judges otherwise; none if neither.
fn mix(c: &Comparison) -> Option<String> {
    let pairs = wording::contradicting(c);
    if !wording::mix_differs(c) && pairs.is_empty() {
        return None;
    }
    let p = c.mix.p.filter(|_| wording::is_conclusive(c)).map(|p| format!(", p {}", wording::p_value(Some(p))));
    let distance = wording::share_text(Some(c.mix.distance));
    let otherwise: Vec<_> =
        pairs.iter().map(|(_, one)| format!("{} {}", wording::title(one), wording::verdict(one.verdict))).collect();
    let otherwise =
        if otherwise.is_empty() { String::new() } else { format!("; with one mix: {}", otherwise.join(", ")) };
    Some(format!("the exit mixes differ by {distance} (total variation{}){otherwise}", p.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{
        Estimate, Verdict,
        fixture::{comparison, gated, setting},
    };

    /// The comparison as if each side were one block.
    fn one_block() -> Comparison {
        let mut c = comparison();
        c.rows.iter_mut().for_each(|row| {
            row.verdict = Verdict::NotEnoughData;
            (row.p, row.p_holm, row.detectable, row.noise) = (None, None, None, None);
            for estimate in [&mut row.difference, &mut row.ratio].into_iter().flatten() {
                (estimate.low, estimate.high) = (None, None);
            }
        });
        (c.unit, c.units, c.needed) = ("block", [1, 1], 6);
        c.a.pin_writes = Some(1);
        let at = c.rows.iter().position(|r| r.figure == "pin_writes").unwrap();
        let pins = &mut c.rows[at];
        (pins.a, pins.count_a) = (Some(1.0 / 52_127.0), 52_127);
        pins.ratio = Some(Estimate { value: 21_000.0, low: None, high: None });
        c
    }

    #[test]
    fn the_answer_takes_some_fifteen_lines_besides_the_alarms() {
        let is_said = |line: &&str| {
            !line.is_empty() && !["LOST", "EMULATED", "WARNING", "ALARM"].iter().any(|word| line.starts_with(word))
        };
        for c in [comparison(), one_block()] {
            let text = render(&c, &setting(), 100, true);
            let lines = text.lines().filter(is_said).count();
            assert!((12..=20).contains(&lines), "{lines}\n{text}");
        }
    }

    #[test]
    fn only_what_changed_has_a_row_and_the_others_are_counted() {
        let c = comparison();
        let text = render(&c, &setting(), 100, true);
        for row in c.rows.iter().filter(|r| r.a.is_some()) {
            let has_row = text.lines().any(|l| l.starts_with(&format!("{}  ", wording::title(row))));
            assert_eq!(has_row, wording::is_change(row), "{} in\n{text}", wording::title(row));
        }
        let same = c.rows.iter().filter(|r| r.verdict == Verdict::NoDetectableChange).count();
        assert!(
            text.contains(&format!("\n{same} others: no detectable change\nMDE of guest time p90: 1.7%\n")),
            "{text}"
        );
        assert!(text.contains("\nguest time max n/a: a maximum has no valid interval\n"), "{text}");
    }

    #[test]
    fn primary_figures_are_on_top_whatever_their_verdict() {
        let c = gated();
        let text = render(&c, &setting(), 80, true);
        let rows: Vec<_> = text.lines().skip_while(|l| !l.starts_with("PRIMARY ")).take(4).collect();
        for (row, (start, end)) in rows.iter().skip(1).zip([
            ("pin writes per entry ", "WORSE"),
            ("guest time p50 ", "[-2.1, +3.0]%   0.400  open"),
            ("host time p50 ", "0.600  untested"),
        ]) {
            assert!(row.starts_with(start) && row.ends_with(end), "{text}");
        }
        assert!(!text.contains("\nOTHERS\n"), "nothing else was tested: {text}");
        let said = [
            " others: not tested, because the primary guest time p50 is undecided\n",
            "clear by themselves, but outside of the plan: guest time p99 +17.8%",
            "\nMDE of guest time p50: 1.1%\n",
        ];
        assert!(said.iter().all(|said| text.contains(said)), "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    }

    #[test]
    fn others_that_changed_are_below_the_primary_ones() {
        let mut c = comparison();
        c.rows[5].primary = Some(0);
        let text = render(&c, &setting(), 80, true);
        let order = ["PRIMARY ", "host time p50 ", "OTHERS\n", "pin writes per entry ", "guest time p99 "];
        let places: Vec<_> = order.iter().map(|word| text.find(&format!("\n{word}")).unwrap()).collect();
        assert!(places.is_sorted(), "{text}");
        let same = c.rows.iter().filter(|r| r.verdict == Verdict::NoDetectableChange).count() - 1;
        assert!(text.contains(&format!("\n{same} others: no detectable change")), "it is in the table: {text}");
    }

    #[test]
    fn a_primary_figure_without_a_verdict_has_its_reason_in_one_line() {
        let mut c = gated();
        let pins = c.rows.iter_mut().find(|r| r.figure == "pin_writes").unwrap();
        (pins.verdict, pins.why) = (Verdict::NotEnoughData, Some("5 rounds of a side; 6 are needed".into()));
        let text = render(&c, &setting(), 80, true);
        assert!(text.contains("\npin writes per entry: 5 rounds of a side; 6 are needed\n"), "{text}");
    }

    #[test]
    fn the_largest_change_is_the_first_row() {
        let text = render(&comparison(), &setting(), 100, true);
        let rows: Vec<_> = text.lines().skip_while(|l| !l.contains("ADJ. P")).skip(1).take(4).collect();
        let titles = ["pin writes per entry", "guest time p99", "entries/s", "guest time p50"];
        assert!(rows.iter().zip(titles).all(|(row, title)| row.starts_with(title)), "{text}");
    }

    #[test]
    fn more_changes_than_rows_are_counted() {
        let mut c = comparison();
        c.rows.iter_mut().filter(|r| r.a.is_some()).for_each(|r| r.verdict = Verdict::Worse);
        let changed = c.rows.iter().filter(|r| r.a.is_some()).count();
        let text = render(&c, &setting(), 100, true);
        assert!(
            changed > MOST_ROWS && text.contains(&format!("\n{} more changed, by less\n", changed - MOST_ROWS)),
            "{text}"
        );
    }

    #[test]
    fn a_contradicted_verdict_has_a_mark_and_a_line() {
        let mut c = comparison();
        assert!(!render(&c, &setting(), 100, true).contains('*'));
        c.rows[2].ratio = Some(Estimate { value: 1.2, low: Some(0.6), high: Some(2.3) });
        let text = render(&c, &setting(), 100, true);
        assert!(text.lines().any(|l| l.starts_with("guest time p99 ") && l.ends_with("WORSE*")), "{text}");
        assert!(text.contains("\n* the test finds a change, but the 95% CI includes no change"), "{text}");
    }

    #[test]
    fn without_verdicts_both_sides_are_shown_with_their_counts() {
        let text = render(&one_block(), &setting(), 100, true);
        assert!(!text.contains("VERDICT") && !text.contains("ADJ. P") && !text.contains("95% CI"), "{text}");
        assert!(text.contains("\n  -> record about "), "{text}");
        let pins = text.lines().find(|l| l.starts_with("pin writes per entry")).unwrap();
        assert_eq!(pins.split_whitespace().skip(4).collect::<Vec<_>>(), ["0.000019", "0.410", "+0.410"], "{text}");
        assert!(text.contains("\npin writes: 1 in 52,127 entries of A, 16,400 in 40,000 of B\n"), "{text}");
        assert_eq!(text.matches("NOT ENOUGH DATA").count(), 1, "{text}");
        assert!(!text.contains("not enough data"), "{text}");
    }

    #[test]
    fn intervals_that_can_be_had_are_shown_without_verdicts() {
        let mut c = one_block();
        (c.units, c.needed, c.rows[0].ratio) = ([7, 7], 9, comparison().rows[0].ratio);
        let text = render(&c, &setting(), 100, true);
        assert!(text.contains("95% CI") && text.contains("[-3.9, -2.3]%"), "{text}");
    }

    #[test]
    fn percentiles_that_the_counts_do_not_carry_are_left_out() {
        let mut c = one_block();
        c.rows.iter_mut().for_each(|r| r.count_b = 999);
        let text = render(&c, &setting(), 100, true);
        assert!(text.contains("\nguest time p50 ") && !text.contains("time p99"), "{text}");
    }

    #[test]
    fn every_warning_is_one_line_and_comes_before_the_answer() {
        let mut s = setting();
        s.warnings.push("kernel differs between the sides: ".to_owned() + &"long ".repeat(60));
        let text = render(&comparison(), &s, 80, true);
        let answer = text.find("B (hard) is WORSE").unwrap();
        for word in ["LOST in A", "LOST in B", "EMULATED", "WARNING  a vCPU", "WARNING  kernel", "ALARM    carry-over"]
        {
            assert!(text.find(word).is_some_and(|at| at < answer), "{word}");
        }
        assert!(text.lines().any(|l| l.starts_with("WARNING  kernel") && l.ends_with('\u{2026}')), "{text}");
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
    }

    #[test]
    fn an_empty_comparison_is_a_text_too() {
        let mut empty = comparison();
        empty.rows.clear();
        empty.stratified.clear();
        empty.mix.rows.clear();
        let text = render(&empty, &setting(), 80, true);
        assert!(text.contains("NOT ENOUGH DATA") && text.contains("both sides have no entries"), "{text}");
    }
}
