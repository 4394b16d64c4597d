//! The text with everything: alarms, the answer, every figure, the exit mixes, the distributions, and the method.

use std::fmt::Write as _;

use super::{super::plot, MIN_WIDTH, alarms, align, by_vm, fits, fitted, warnings, wording};
use crate::{
    compare::{Comparison, Distributions, Row, Setting},
    model::figures::{Figure, Unit, human},
    output::{grouped, wrap},
    recording::Provenance,
};

/// Columns that the pictures of distributions take.
const PICTURES: usize = 60;

/// Renders a comparison for a terminal of `width` columns, at least 40.
pub(crate) fn render(c: &Comparison, setting: &Setting, width: usize) -> String {
    let width = width.max(MIN_WIDTH);
    let mut out: String = alarms(c, setting, width).concat();
    out.extend(warnings(c, setting).iter().map(|warning| wrap(warning, "         ", width)));
    if !out.is_empty() {
        out.push('\n');
    }
    out += &sides(c, setting, width);
    out.push('\n');
    out += &wrap(&wording::summary(c, setting), "", width);
    if let Some(advice) = wording::advice(c, setting) {
        out += &wrap(&format!("  -> {advice}"), "     ", width);
    }
    out.push('\n');
    out += &figures(c, setting, width);
    out.extend(wording::footnotes(&c.rows.iter().collect::<Vec<_>>()).iter().map(|note| wrap(note, "  ", width)));
    out += &stratified(c, width);
    out += &by_vm::block(c, width);
    out += &mix(c, width);
    if width >= PICTURES {
        c.distributions.iter().for_each(|d| out += &distribution(d, setting, width));
    } else if !c.distributions.is_empty() {
        let text = format!("distributions: they take {PICTURES} columns; widen the terminal, or use --format html");
        out += &format!("\n{}", wrap(&text, "  ", width));
    }
    out + &method(c, width)
}

fn sides(c: &Comparison, setting: &Setting, width: usize) -> String {
    let mut out = String::new();
    for (at, side) in [&c.a, &c.b].into_iter().enumerate() {
        let pins = side.pin_writes.map_or("n/a".into(), grouped);
        let timer = wording::timer_exits(side);
        let (windows, entries) = (side.windows as u64, wording::entries(c, at));
        let text = format!(
            "{}  {}: {}, {}; {}{}; pin writes {pins}; timer exits: {timer}",
            ["A", "B"][at],
            setting.names[at],
            wording::counted(windows, "window"),
            human(Some(side.length_ns as f64), Unit::Ns),
            wording::counted(entries, "entry"),
            wording::left_out(side).map(|text| format!(" ({text})")).unwrap_or_default()
        );
        out += &wrap(&text, "   ", width);
    }
    let hosts = |side: usize| {
        let mut hosts: Vec<_> = setting.sources[side].iter().map(host).collect();
        hosts.dedup();
        hosts
    };
    let (a, b) = (hosts(0), hosts(1));
    if a == b {
        a.iter().for_each(|h| out += &wrap(&format!("on {h}"), "   ", width));
    } else {
        for (name, hosts) in [("A", a), ("B", b)] {
            hosts.iter().for_each(|h| out += &wrap(&format!("{name} on {h}"), "     ", width));
        }
    }
    if let Some(alternation) = wording::alternation(c, setting) {
        out += &wrap(&alternation, "   ", width);
    }
    out
}

fn host(source: &Provenance) -> String {
    let host = &source.header.host;
    let caveat = host.caveat().map(|c| format!(", {c}")).unwrap_or_default();
    let microcode = host.microcode.as_ref().map(|m| format!(", microcode {m}")).unwrap_or_default();
    format!(
        "{}: Linux {}, {} x {}{microcode}{caveat}; pin writes from {}",
        host.name,
        host.kernel,
        host.cpus,
        host.cpu,
        source.header.pin_writes_source.name()
    )
}

/// Forms of the table, widest first: gap between columns, and verdicts in full.
const VARIANTS: [(usize, bool); 3] = [(2, true), (2, false), (1, false)];

/// Columns of the table's two parts where it does not fit as one: the names are in both.
const MAIN: &[usize] = &[0, 1, 2, 3, 4, 8];
const REST: &[usize] = &[0, 5, 6, 7];

/// The lines with these columns alone; the others are empty.
fn columns_of(lines: &[[String; 9]], columns: &[usize]) -> Vec<[String; 9]> {
    let kept = |line: &[String; 9]| {
        std::array::from_fn(|at| if columns.contains(&at) { line[at].clone() } else { String::new() })
    };
    lines.iter().map(kept).collect()
}

/// The table of figures in the widest form that fits. Rows without a value on both sides are in the footnotes.
fn figures(c: &Comparison, setting: &Setting, width: usize) -> String {
    let emulated = if wording::is_emulated(setting) { " (EMULATED)" } else { "" };
    let shown: Vec<_> = c.rows.iter().filter(|r| r.a.is_some() && r.b.is_some()).collect();
    if shown.is_empty() {
        return String::new();
    }
    let variants = VARIANTS.map(|(gap, long)| align(&lines(&shown, emulated, long), gap, true));
    let mut text = variants.into_iter().find(|text| fits(text, width)).unwrap_or_else(|| {
        let lines = lines(&shown, emulated, false);
        let [first, second] = [MAIN, REST].map(|columns| columns_of(&lines, columns));
        format!("{}\n{}", fitted(&first, true, width), fitted(&second, false, width))
    });
    let legend = format!(
        "95% CI: confidence interval of the change. {}; significant: at most {}. MDE: smallest change found with 80 % power. A/A: A/A \
         noise, the 95th percentile of half-against-half differences within a side. ~: no detectable change. Open: undecided. ?: not \
         enough data, see below.{}",
        wording::adjusted(c, "ADJ. P"),
        c.alpha,
        if c.ignore_below > 0.0 {
            format!(" Ignored: changed by less than {}.", wording::size(c.ignore_below))
        } else {
            String::new()
        }
    );
    text += &wrap(&legend, "", width);
    if let Some(why) = shown.iter().find_map(|row| wording::contradiction(row)) {
        text += &wrap(&format!("* {why}"), "  ", width);
    }
    let plan = wording::plan(c).into_iter().chain(wording::not_tested(c)).chain(wording::clear(c));
    plan.for_each(|line| text += &wrap(&line, "  ", width));
    text
}

/// The cells of the table, with a line above each figure.
fn lines(rows: &[&Row], emulated: &str, long: bool) -> Vec<[String; 9]> {
    let noise = if long { "A/A NOISE" } else { "A/A" };
    let head = ["", "A", "B", "CHANGE", "95% CI", "ADJ. P", "MDE", noise, "VERDICT"];
    let mut lines = vec![head.map(str::to_owned)];
    let mut group = "";
    for row in rows {
        let (figure, part) = row.figure.split_once('.').unwrap_or((row.figure, ""));
        if figure != group {
            group = figure;
            let note = if row.unit == Unit::Ns { emulated } else { "" };
            let heading = Figure::parse(figure).map_or(figure.to_owned(), Figure::heading);
            lines.push([&format!("{heading}{note}"), "", "", "", "", "", "", "", ""].map(str::to_owned));
        }
        let verdict = if long { wording::verdict(row.verdict) } else { wording::word(row.verdict) };
        let mark = wording::contradiction_mark(row);
        lines.push([
            format!("{}{}", wording::place_mark(row).unwrap_or_else(|| "  ".into()), stat_name(part, row.stat)),
            wording::value(row.a, row.unit),
            wording::value(row.b, row.unit),
            wording::change(row),
            wording::interval(row),
            wording::p_value(row.p_holm),
            wording::mde(row),
            wording::noise(row),
            format!("{verdict}{mark}"),
        ]);
    }
    lines
}

fn stat_name(part: &str, stat: &str) -> String {
    let stat = match stat {
        "p999" => "p99.9",
        "per_second" => "/s",
        other => other,
    };
    if part.is_empty() { stat.into() } else { format!("{part} {stat}") }
}

fn stratified(c: &Comparison, width: usize) -> String {
    let pairs = wording::contradicting(c);
    if pairs.is_empty() {
        return String::new();
    }
    let mut lines = vec![["", "RAW", "ONE MIX", "95% CI", "ADJ. P", "VERDICT"].map(str::to_owned)];
    for (raw, one) in pairs {
        lines.push([
            format!("  {}", wording::title(raw)),
            wording::change(raw),
            wording::change(one),
            wording::interval(one),
            wording::p_value(one.p_holm),
            format!("{}, not {}", wording::word(one.verdict), wording::word(raw.verdict)),
        ]);
    }
    let text = format!(
        "With both sides weighted to one mix of exits ({} of the entries), these figures disagree with the raw ones: part of their \
         change comes from the workload, not from the cost of an exit.",
        wording::share_text(Some(c.mix.covered))
    );
    format!("\n{}{}", wrap(&text, "", width), fitted(&lines, true, width))
}

fn mix(c: &Comparison, width: usize) -> String {
    if !wording::mix_differs(c) || c.mix.rows.is_empty() {
        return String::new();
    }
    const TOP: usize = 8;
    let text = format!(
        "The exit mixes differ by {} (total variation, p {}). GUEST: median guest time (entry_to_exit_ns); HOST: median host time \
         (exit_to_entry_ns).",
        wording::share_text(Some(c.mix.distance)),
        wording::p_value(c.mix.p)
    );
    let head = ["", "SHARE A", "B", "GUEST A", "B", "HOST A", "B"].map(str::to_owned);
    let mut lines = vec![head];
    for row in c.mix.rows.iter().take(TOP) {
        let share = |side| wording::share_text(wording::share(c, row.entries[side], side));
        let ns = |v: Option<f64>| human(v, Unit::Ns);
        lines.push([
            format!("  {}", wording::exit_reason(&row.stratum)),
            share(0),
            share(1),
            ns(row.entry_to_exit_p50[0]),
            ns(row.entry_to_exit_p50[1]),
            ns(row.exit_to_entry_p50[0]),
            ns(row.exit_to_entry_p50[1]),
        ]);
    }
    let more = c.mix.rows.len().saturating_sub(TOP);
    let more = if more > 0 { format!("  and {more} more\n") } else { String::new() };
    format!("\n{}{}{more}", wrap(&text, "", width), fitted(&lines, false, width))
}

fn distribution(d: &Distributions, setting: &Setting, width: usize) -> String {
    let emulated = if wording::is_emulated(setting) { ", EMULATED" } else { "" };
    let mut out = format!("\n{}", wrap(&format!("{}{emulated}: {}", d.figure.heading(), d.figure.help()), "", width));
    if d.a.count() == 0 || d.b.count() == 0 {
        let _ = writeln!(out, "n/a: {} values of A, {} of B", d.a.count(), d.b.count());
        return out;
    }
    out += &plot::shifts(d, width);
    out += &plot::cdfs(d, width);
    out
}

fn method(c: &Comparison, width: usize) -> String {
    let mut out = String::from("\nMethod and checks\n");
    let mut lines = c.method.clone();
    for check in c.checks.iter().filter(|k| !k.alarm) {
        let p = check.p.map(|p| format!(" (p {})", wording::p_value(Some(p)))).unwrap_or_default();
        lines.push(format!("{}: {}{p}", check.name, check.text));
    }
    lines.iter().for_each(|l| out += &wrap(&format!("- {l}"), "  ", width));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{
        Verdict,
        fixture::{comparison, gated, setting},
    };

    #[test]
    fn every_figure_has_a_row_or_a_reason() {
        for width in [80, 120] {
            let text = render(&comparison(), &setting(), width);
            let flowing = text.split_whitespace().collect::<Vec<_>>().join(" ");
            for row in comparison().rows {
                let (figure, part) = row.figure.split_once('.').unwrap_or((row.figure, ""));
                let heading = Figure::parse(figure).map_or(figure.to_owned(), Figure::heading);
                let cell = format!("  {} ", stat_name(part, row.stat));
                let shown = match row.verdict {
                    Verdict::NotEnoughData => {
                        flowing.contains(&wording::title(&row)) && flowing.contains(row.why.as_ref().unwrap())
                    }
                    _ => {
                        text.lines().any(|l| l.strip_suffix(" (EMULATED)").unwrap_or(l) == heading)
                            && text.lines().any(|l| l.starts_with(&cell))
                    }
                };
                assert!(shown, "{} in\n{text}", wording::name(&row));
            }
        }
    }

    #[test]
    fn primary_figures_are_marked_and_others_have_their_p_even_if_not_tested() {
        let text = render(&gated(), &setting(), 120);
        let row =
            |start: &str| text.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("{start}: {text}"));
        assert!(row("P1 mean ").ends_with("WORSE") && row("P2 p50 ").ends_with("undecided"), "{text}");
        assert!(row("P3 p50 ").contains(" 0.600 ") && row("P3 p50 ").ends_with("not tested"), "{text}");
        assert!(row("  p99 ").contains(" 0.003 ") && row("  p99 ").ends_with("not tested"), "{text}");
        let flowing = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for said in [
            "P1 pin writes per entry (decided after 7 rounds), P2 guest time p50, P3 host time p50",
            "others: not tested, because the primary guest time p50 is undecided",
            "clear by themselves",
        ] {
            assert!(flowing.contains(said), "{said}: {text}");
        }
        assert!(!render(&comparison(), &setting(), 120).contains("P1"));
    }

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        for (width, c) in [80, 100, 120, 200].into_iter().flat_map(|width| [(width, comparison()), (width, gated())]) {
            let text = render(&c, &setting(), width);
            let widest = text.lines().max_by_key(|l| l.chars().count()).unwrap();
            assert!(widest.chars().count() <= width, "{widest}");
            assert!(text.lines().all(|l| l.trim_end() == l), "no trailing blanks");
        }
    }

    #[test]
    fn alarms_come_before_the_answer() {
        let text = render(&comparison(), &setting(), 80);
        let answer = text.find("B (hard) is WORSE").unwrap();
        for word in ["LOST in A", "LOST in B", "EMULATED", "WARNING", "ALARM    carry-over"] {
            assert!(text.find(word).is_some_and(|at| at < answer), "{word}");
        }
        assert!(text.find("drift").is_some_and(|at| at > answer));
    }

    #[test]
    fn columns_are_below_their_headings() {
        let text = render(&comparison(), &setting(), 120);
        let head = text.lines().find(|l| l.contains("ADJ. P")).unwrap();
        let end = head.find("CHANGE").unwrap() + "CHANGE".len();
        let p50 = text.lines().find(|l| l.starts_with("  p50")).unwrap();
        assert!(p50[..end].ends_with('%'), "{head}\n{p50}");
        assert!(p50.ends_with("better"));
    }

    #[test]
    fn an_empty_comparison_is_a_text_too() {
        let mut empty = comparison();
        empty.rows.clear();
        empty.stratified.clear();
        empty.mix.rows.clear();
        empty.distributions.iter_mut().for_each(|d| (d.a, d.shifts) = Default::default());
        let text = render(&empty, &setting(), 80);
        assert!(text.contains("NOT ENOUGH DATA") && text.contains("n/a: 0 values of A"), "{text}");
    }
}
