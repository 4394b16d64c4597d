//! A comparison as Markdown of GitHub, for mails and pull requests: the answer, a table, the warnings, the method in one line.

use super::wording;
use crate::{
    compare::{Comparison, Row, Setting},
    model::{
        figures::{Unit, human},
        measurement::EMULATED,
    },
    output::{is_deceptive, one_line},
    recording,
};

/// Characters that start markup or links somewhere in a line.
const MARKUP: &str = "\\`*_{}[]~$!";

/// Renders a comparison; ends with a newline.
pub(crate) fn render(c: &Comparison, setting: &Setting) -> String {
    let mut out = format!("### {}\n\n", escaped(&wording::summary(c, setting)));
    if let Some(advice) = wording::advice(c, setting) {
        out += &format!("For a verdict: {}\n\n", escaped(&advice));
    }
    out += &table(c);
    let warnings = warnings(c, setting);
    if !warnings.is_empty() {
        warnings.iter().for_each(|warning| out += &format!("- {}\n", escaped(warning)));
        out.push('\n');
    }
    out + &escaped(&method(c, setting)) + "\n"
}

/// Text that Markdown shows as it is, on one line.
fn escaped(text: &str) -> String {
    let text = one_line(text);
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if is_deceptive(c) || c.is_control() => out.push('\u{fffd}'),
            // An entity, because a reader of the raw text of a table takes a `\|` for the end of the cell.
            '|' => out += "&#124;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            // A space without width, because GitHub reads mentions and references also behind a backslash.
            '@' | '#' if chars.peek().is_some_and(|next| next.is_alphanumeric()) => {
                out.push(c);
                out += "&#8203;";
            }
            c if MARKUP.contains(c) => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

/// The figures with values on both sides, primary ones first; empty if there are none.
fn table(c: &Comparison) -> String {
    let valued = |row: &&Row| wording::has_values(row) && (row.a, row.b) != (Some(0.0), Some(0.0));
    let primary = wording::primary(&c.rows).into_iter().filter(valued);
    let changed = wording::largest_first(c.rows.iter().filter(|r| r.primary.is_none() && wording::is_change(r)));
    let others = c.rows.iter().filter(|r| r.primary.is_none() && !wording::is_change(r)).filter(valued);
    let rows: Vec<_> = primary.chain(changed).chain(others).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut out = "| figure | A | B | change | 95 % CI | verdict |\n|---|---:|---:|---:|---:|---|\n".to_owned();
    for row in rows {
        let title = escaped(&wording::title(row));
        let cells = [
            if row.primary.is_some() { format!("**{title}** (primary)") } else { title },
            escaped(&wording::value(row.a, row.unit)),
            escaped(&wording::value(row.b, row.unit)),
            escaped(&wording::change(row)),
            escaped(&wording::interval(row)),
            escaped(&wording::verdict_of(row)),
        ];
        out += &format!("| {} |\n", cells.join(" | "));
    }
    out.push('\n');
    out
}

/// Everything that a reader must know besides the table.
fn warnings(c: &Comparison, setting: &Setting) -> Vec<String> {
    let mut out = Vec::new();
    out.extend(recording::damage(wording::damaged(setting)).map(|damage| format!("DAMAGED: {damage}")));
    for (name, side) in [("A", &c.a), ("B", &c.b)] {
        out.extend(wording::loss(side).map(|loss| format!("LOST in {name}: {loss}")));
    }
    if wording::is_emulated(setting) {
        out.push(format!("EMULATED: {EMULATED}"));
    }
    out.extend(setting.warnings.iter().map(|warning| format!("WARNING {warning}")));
    let alarms = c.checks.iter().filter(|check| check.alarm);
    out.extend(alarms.map(|check| format!("ALARM {}: {}", check.name, check.text)));
    out.extend(wording::not_tested(c));
    out.extend(wording::clear(c));
    let marked = c.rows.iter().find_map(wording::contradiction);
    out.extend(marked.map(|why| format!("*: {why}")));
    out
}

/// Sides, units, windows and hosts.
fn method(c: &Comparison, setting: &Setting) -> String {
    let side = |at: usize| {
        let side = [&c.a, &c.b][at];
        let length = human(Some(side.length_ns as f64), Unit::Ns);
        let windows = if side.windows == 1 { "window" } else { "windows" };
        format!("{}: {length} in {} {windows}", wording::side(at, setting), side.windows)
    };
    let units = match c.units {
        [a, b] if a == b => format!("{a} {}{} a side", c.unit, if a == 1 { "" } else { "s" }),
        [a, b] => format!("{a} and {b} {}s", c.unit),
    };
    let host = |source: &recording::Provenance| {
        let host = &source.header.host;
        let emulated = if host.emulated { " (EMULATED)" } else { "" };
        format!("{}, Linux {}, {} x {}{emulated}", host.name, host.kernel, host.cpus, host.cpu)
    };
    let mut hosts: Vec<_> = setting.sources.iter().flatten().map(host).collect();
    hosts.dedup();
    let on = if hosts.is_empty() { String::new() } else { format!("; on {}", hosts.join(" and on ")) };
    format!("{}; {}; {units}, 95 % confidence intervals{on}; vmentry {}", side(0), side(1), env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compare::{
            Verdict,
            fixture::{comparison, gated, setting},
        },
        html::tests::HOSTILE,
    };

    #[test]
    fn the_answer_is_a_heading_and_primary_figures_are_the_first_rows() {
        let text = render(&gated(), &setting());
        let lines: Vec<_> = text.lines().collect();
        assert!(
            lines[0].starts_with("### B (hard) is WORSE: primary pin writes per entry +0.410 \\[+0.390, "),
            "{text}"
        );
        assert_eq!(
            lines[1..4],
            ["", "| figure | A | B | change | 95 % CI | verdict |", "|---|---:|---:|---:|---:|---|"]
        );
        assert_eq!(
            lines[4],
            "| **pin writes per entry** (primary) | 0 | 0.410 | +0.410 | \\[+0.390, +0.430\\] | WORSE after 7 rounds |"
        );
        assert!(lines[5].starts_with("| **guest time p50** (primary) | ") && lines[5].ends_with(" | undecided |"));
        assert!(lines[6].ends_with(" | not tested |"), "{text}");
        let rows = comparison().rows.iter().filter(|r| wording::has_values(r)).count();
        assert_eq!(lines.iter().filter(|l| l.starts_with("| ")).count(), 1 + rows, "{text}");
        assert!(text.contains("\n- ALARM carry-over: ") && text.contains("\n- LOST in A: "), "{text}");
        let last = lines.last().unwrap();
        for word in ["10 rounds a side", "20 windows", "on lab, Linux 6.12.117, 2 x Made-up CPU @ 2.4GHz (EMULATED)"] {
            assert!(last.contains(word), "{word}: {last}");
        }
    }

    #[test]
    fn foreign_text_stays_text() {
        let (mut c, mut s) = (comparison(), setting());
        let hostile = format!("{HOSTILE}\n# a `b` | c **d** [e](f) @someone #77\r- g");
        s.names = [hostile.clone(), hostile.clone()];
        s.warnings = vec![hostile.clone()];
        c.checks.iter_mut().for_each(|check| check.text = hostile.clone());
        s.sources.iter_mut().flatten().for_each(|source| source.header.host.name = hostile.clone());
        let text = render(&c, &s);
        let usual = render(&comparison(), &setting());
        assert_eq!(text.lines().count(), usual.lines().count(), "{text}");
        assert!(!text.contains(['<', '\r', '\u{1b}', '\u{202e}']), "{text}");
        assert!(!text.contains("@someone") && !text.contains("#77"), "{text}");
        for (at, _) in text.match_indices('`') {
            assert_eq!(&text[at - 1..at], "\\", "{text}");
        }
        let table = |line: &&str| line.starts_with('|');
        assert!(text.lines().filter(table).all(|line| line.matches('|').count() == 7), "{text}");
        assert!(text.lines().filter(|l| !table(l)).all(|line| !line.contains('|')), "{text}");
    }

    #[test]
    fn without_any_verdict_it_says_what_to_do() {
        let mut c = comparison();
        c.rows.iter_mut().for_each(|r| r.verdict = Verdict::NotEnoughData);
        c.needed = 12;
        let text = render(&c, &setting());
        assert!(text.starts_with("### NOT ENOUGH DATA"), "{text}");
        assert!(text.contains("\nFor a verdict: sudo vmentry ab --rounds 12, or more\n"), "{text}");
        c.rows.clear();
        assert!(!render(&c, &setting()).contains("| figure"));
    }
}
