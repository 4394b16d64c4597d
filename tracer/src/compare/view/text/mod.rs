//! A comparison as text: what changed, in some fifteen lines; or everything; or as Markdown.

mod by_vm;
mod full;
mod others;
mod short;
mod verdicts;

pub(crate) use self::{full::render as full, short::render as short, verdicts::painted};
pub(crate) use super::markdown::render as markdown;
use super::wording;
use crate::{
    compare::{Comparison, Setting},
    html::chart::shortened,
    model::measurement::EMULATED,
    output::wrap,
    recording,
};

/// Columns that both views need at least.
const MIN_WIDTH: usize = 40;

/// Everything that the reader must know before any figure.
fn alarms(c: &Comparison, setting: &Setting, width: usize) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(damage) = recording::damage(wording::damaged(setting)) {
        out.push(wrap(&format!("DAMAGED: {damage}"), "         ", width));
    }
    for (name, side) in [("A", &c.a), ("B", &c.b)] {
        if let Some(loss) = wording::loss(side) {
            out.push(wrap(&format!("LOST in {name}: {loss}"), "         ", width));
        }
    }
    if wording::is_emulated(setting) {
        out.push(wrap(&format!("EMULATED: {}", EMULATED), "         ", width));
    }
    out
}

/// Differences besides the compared one, and the checks that failed.
fn warnings(c: &Comparison, setting: &Setting) -> Vec<String> {
    let mut out: Vec<_> = setting.warnings.iter().map(|warning| format!("WARNING  {warning}")).collect();
    for check in c.checks.iter().filter(|k| k.alarm) {
        let p = check.p.map(|p| format!(" (p {})", wording::p_value(Some(p)))).unwrap_or_default();
        out.push(format!("ALARM    {}: {}{p}", check.name, check.text));
    }
    out
}

/// Aligns columns: the first to the left, also the last if it is `words`; the others to the right.
fn align<const N: usize>(lines: &[[String; N]], gap: usize, words: bool) -> String {
    let is_group = |line: &[String; N]| line[1..].iter().all(String::is_empty);
    let width = |c: usize| {
        let cells = lines.iter().filter(|l| c > 0 || !is_group(l)).map(|l| l[c].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for line in lines {
        let mut text = String::new();
        for (c, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[c].saturating_sub(cell.chars().count()));
            // An empty column has no gap either.
            let space = if c == 0 || widths[c] == 0 { String::new() } else { " ".repeat(gap) };
            text += &if c == 0 || words && c == N - 1 {
                format!("{space}{cell}{pad}")
            } else {
                format!("{space}{pad}{cell}")
            };
        }
        out += text.trim_end();
        out.push('\n');
    }
    out
}

/// The table with wide gaps; with narrow ones if it does not fit; then with the first column on lines of its own; or else as a list.
fn fitted<const N: usize>(lines: &[[String; N]], words: bool, width: usize) -> String {
    let tables = [
        |l: &[_], words| align(l, 2, words),
        |l: &[_], words| align(l, 1, words),
        |l: &[_], words| align(&first_above(l), 1, words),
    ];
    let mut texts = tables.iter().map(|table| table(lines, words));
    texts.find(|text| fits(text, width)).unwrap_or_else(|| listed(lines, words, width))
}

/// The cells of each line behind their headings, without columns: for a terminal that is too narrow for any. A last cell of words needs no
/// heading.
fn listed<const N: usize>(lines: &[[String; N]], words: bool, width: usize) -> String {
    let Some((headings, rows)) = lines.split_first() else { return String::new() };
    let mut out = wrap(&headings[0], "  ", width);
    for row in rows {
        out += &wrap(&row[0], "  ", width);
        let is_word = |at: usize| words && at == N - 1;
        let cells = (1..N).filter(|at| !row[*at].is_empty() && !is_word(*at));
        let mut text = cells.map(|at| format!("{} {}", headings[at], row[at])).collect::<Vec<_>>().join(", ");
        if is_word(N - 1) && !row[N - 1].is_empty() {
            text += &format!(" {}", row[N - 1]);
        }
        if !text.is_empty() {
            out += &wrap(&format!("  {text}"), "  ", width);
        }
    }
    out
}

fn fits(text: &str, width: usize) -> bool {
    text.lines().all(|line| line.chars().count() <= width)
}

/// The table with the first column above the others, which are indented.
fn first_above<const N: usize>(lines: &[[String; N]]) -> Vec<[String; N]> {
    let empty = || std::array::from_fn(|_| String::new());
    let apart = |line: &[String; N]| {
        let (mut name, mut rest) = (empty(), line.clone());
        name[0] = std::mem::replace(&mut rest[0], "  ".into());
        let is_group = rest[1..].iter().all(String::is_empty);
        let name = (!name[0].is_empty()).then_some(name);
        name.into_iter().chain((!is_group).then_some(rest))
    };
    lines.iter().flat_map(apart).collect()
}

/// A page of text.
#[derive(Clone, Copy)]
struct Page {
    /// columns
    width: usize,
    /// long lines that say little at their end are cut: on a terminal, where the answer must stay in sight
    cuts: bool,
}

impl Page {
    /// A text in as many lines as it takes.
    fn text(self, text: &str) -> String {
        wrap(text, "  ", self.width)
    }

    /// One line, cut on a terminal.
    fn line(self, text: &str) -> String {
        if self.cuts { shortened(text, self.width) + "\n" } else { self.text(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::{by_vm, comparison, gated, setting};

    #[test]
    fn no_line_of_any_text_is_wider_than_it_may_be() {
        let mut many = Comparison { by_vm: by_vm(), ..gated() };
        let row = many.rows.iter_mut().find(|r| r.primary == Some(1)).unwrap();
        // As wide as values become.
        (row.a, row.b) = (Some(123_456_789_012.0), Some(123_456_789_012.0));
        let mut setting = setting();
        setting.warnings.push("kernel differs between the sides: ".to_owned() + &"long ".repeat(60));
        for c in [comparison(), gated(), many] {
            for width in [40, 45, 50, 59, 60, 70, 80, 100, 120] {
                let texts =
                    [full(&c, &setting, width), short(&c, &setting, width, true), short(&c, &setting, width, false)];
                for text in texts {
                    let long: Vec<_> = text.lines().filter(|line| line.chars().count() > width).collect();
                    assert!(long.is_empty(), "{width}: {long:#?} in\n{text}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_cut_but_on_a_terminal() {
        let mut setting = setting();
        setting.warnings.push("kernel differs: ".to_owned() + &"long ".repeat(60) + "end");
        let [terminal, file] = [true, false].map(|cuts| short(&comparison(), &setting, 80, cuts));
        assert!(terminal.contains('\u{2026}') && !terminal.contains(" end\n"), "{terminal}");
        assert!(!file.contains('\u{2026}') && file.contains(" end\n"), "{file}");
    }

    #[test]
    fn a_table_that_does_not_fit_has_its_names_on_lines_of_their_own() {
        let lines = [["", "A", "B"], ["guest time p50", "1.00us", "12.0us"], ["OTHERS", "", ""], ["x", "5ns", "1ns"]];
        let lines = lines.map(|line| line.map(str::to_owned));
        assert_eq!(fitted(&lines, false, 30).lines().next(), Some("                     A       B"));
        let narrow = "        A      B\nguest time p50\n   1.00us 12.0us\nOTHERS\nx\n      5ns    1ns\n";
        assert_eq!(fitted(&lines, false, 20), narrow);
    }

    #[test]
    fn a_terminal_that_is_too_narrow_for_any_column_gets_a_list() {
        let lines =
            [["PRIMARY", "A", "CHANGE", "VERDICT"], ["time p50", "1.00us", "+12.0%", "WORSE"], ["OTHERS", "", "", ""]];
        let lines = lines.map(|line| line.map(str::to_owned));
        assert_eq!(fitted(&lines, true, 16), "PRIMARY\ntime p50\n  A 1.00us,\n  CHANGE +12.0%\n  WORSE\nOTHERS\n");
    }
}
