//! A comparison as text, without colours: what changed, in some fifteen lines; or everything; or as Markdown.

mod by_vm;
mod full;
mod others;
mod short;

pub(crate) use self::{full::render as full, short::render as short};
pub(crate) use super::markdown::render as markdown;
use super::wording;
use crate::{
    compare::{Comparison, Setting},
    model::measurement::EMULATED,
    output::wrap,
    recording,
};

/// Columns that both views need at least.
const MIN_WIDTH: usize = 60;

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

/// The table with wide gaps, or with narrow ones if it does not fit.
fn fitted<const N: usize>(lines: &[[String; N]], words: bool, width: usize) -> String {
    let wide = align(lines, 2, words);
    if wide.lines().all(|l| l.chars().count() <= width) { wide } else { align(lines, 1, words) }
}
