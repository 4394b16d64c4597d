//! The table of VMs, vCPUs and exit reasons.

use ratatui::layout::Rect;

use super::{
    chart,
    pen::{Pen, cells, width_of},
};
use crate::{
    model::figures::Figure,
    tui::{
        App,
        app::{Places, SPARK},
        columns::{COLUMNS, Column, Derivation, SPARK_RANK, change_text},
        rows::Row,
    },
};

/// Least and greatest width of the first column.
const NAME: (u16, u16) = (14, 44);

/// Columns that fit.
struct Layout {
    name: u16,
    /// Index and right end of each column.
    columns: Vec<(usize, u16)>,
    /// Left end of the sparkline.
    spark: Option<u16>,
}

impl Layout {
    /// Takes columns by rank until one finds no room. With the stopwatch, transitions come right after guest time.
    fn of(width: u16, stopwatch: bool) -> Self {
        let rank =
            |c: &Column| if stopwatch && matches!(c.of, Derivation::Stat(Figure::Transition, _)) { 2 } else { c.rank };
        let mut ranked: Vec<(u8, Option<usize>)> =
            COLUMNS.iter().enumerate().map(|(i, c)| (rank(c), Some(i))).collect();
        ranked.push((SPARK_RANK, None));
        ranked.sort_unstable();
        let mut room = width.saturating_sub(NAME.0 + 2);
        let mut shown = Vec::new();
        for (_, column) in ranked {
            let wanted = column.map_or(SPARK, |c| COLUMNS[c].width) + 2;
            if wanted > room {
                break;
            }
            room -= wanted;
            shown.push(column);
        }
        let name = (NAME.0 + room).min(NAME.1).min(width.saturating_sub(2));
        let mut right = 1 + name;
        let mut columns = Vec::new();
        for (at, column) in COLUMNS.iter().enumerate().filter(|(at, _)| shown.contains(&Some(*at))) {
            right += 2 + column.width;
            columns.push((at, right));
        }
        Self { name, columns, spark: shown.contains(&None).then_some(right + 2) }
    }
}

/// Draws it, and notes its places for the mouse.
pub(super) fn draw(pen: &mut Pen, app: &mut App) {
    app.places = Places::default();
    let titles = match pen.height() {
        0..=2 => 0,
        3..=5 => 1,
        _ => 2,
    };
    if pen.height() == 0 || pen.width() == 0 {
        return;
    }
    let layout = Layout::of(pen.width(), app.info.stopwatch);
    let height = pen.height() - titles;
    if titles == 2 {
        draw_groups(pen, app, &layout);
    }
    if titles > 0 {
        draw_titles(pen, app, &layout, titles - 1);
    }
    let area = pen.area();
    app.places.rows = Rect { y: area.y + titles, height, ..area };
    app.places.title_line = area.y + titles.saturating_sub(1);
    if app.seen.rows.is_empty() {
        let text = match (app.seen.slices.is_empty(), app.filter.is_empty()) {
            (true, _) => "waiting for the first interval",
            (false, true) => "no VM entry in this window",
            (false, false) => "no VM, vCPU or exit reason matches the filter",
        };
        pen.put(2, titles + u16::from(height > 2), text, pen.palette.quiet());
        return;
    }
    let lines = usize::from(height);
    let lowest_first = (app.selected + 1).saturating_sub(lines);
    app.first = app.first.clamp(lowest_first, app.selected).min(app.seen.rows.len().saturating_sub(lines));
    app.prepare_rows(app.first, lines);
    for (line, at) in (app.first..app.seen.rows.len()).take(lines).enumerate() {
        let y = titles + cells(line);
        draw_row(pen, app, &layout, y, &app.seen.rows[at]);
        if at == app.selected {
            pen.paint(0, y, area.width, pen.palette.selected());
        }
    }
}

fn draw_groups(pen: &mut Pen, app: &App, layout: &Layout) {
    let p = pen.palette;
    if !app.seen.rows.is_empty() {
        pen.put_within(1, 0, &format!("{} of {}", app.selected + 1, app.seen.rows.len()), layout.name, p.quiet());
    }
    let mut done = 0;
    while let Some((at, right)) = layout.columns.get(done) {
        let (group, short) = (COLUMNS[*at].group, COLUMNS[*at].short_group);
        let many = layout.columns[done..].iter().take_while(|(at, _)| COLUMNS[*at].group == group).count();
        let left = right - COLUMNS[*at].width;
        let end = layout.columns[done + many - 1].1;
        if !group.is_empty() {
            draw_group(pen, if width_of(group) + 2 > end - left { short } else { group }, left, end);
        }
        done += many;
    }
}

/// A title centred over its columns, on a line that joins them.
fn draw_group(pen: &mut Pen, group: &str, left: u16, end: u16) {
    let quiet = pen.palette.quiet();
    let (width, name) = (end - left, width_of(group));
    if name + 2 > width {
        pen.put_right(end, 0, group, quiet);
        return;
    }
    let line = pen.palette.glyph("─", "-");
    pen.fill(left..end, 0, line, quiet);
    pen.put(left + (width - name - 2) / 2, 0, &format!(" {group} "), quiet);
}

fn draw_titles(pen: &mut Pen, app: &mut App, layout: &Layout, y: u16) {
    let p = pen.palette;
    let arrow = if app.order.ascending { p.glyph("▴", "^") } else { p.glyph("▾", "v") };
    let title = |text: &str, column: Option<usize>| match app.order.column == column {
        true => (format!("{arrow}{text}"), p.accent()),
        false => (text.to_owned(), p.quiet()),
    };
    let (text, style) = title(app.group.title(), None);
    pen.put_within(1, y, &text, layout.name, style);
    let x0 = pen.area().x;
    let mut places = vec![(x0, x0 + 1 + layout.name, None)];
    for &(at, right) in &layout.columns {
        let (text, style) = title(COLUMNS[at].title, Some(at));
        pen.put_right(right, y, &text, style);
        places.push((x0 + right - COLUMNS[at].width, x0 + right + 1, Some(at)));
    }
    if let Some(left) = layout.spark {
        pen.put(left, y, "ENTRIES/S", p.quiet());
    }
    app.places.titles = places;
}

fn draw_row(pen: &mut Pen, app: &App, layout: &Layout, y: u16, row: &Row) {
    let p = pen.palette;
    let mark = match row.unfolded {
        Some(true) => p.glyph("▾ ", "- "),
        Some(false) => p.glyph("▸ ", "+ "),
        None => "  ",
    };
    let indent = 1 + 2 * row.depth;
    let x = pen.put(indent, y, mark, p.quiet());
    let style = if row.depth == 0 { p.strong() } else { p.plain() };
    pen.put_cut(x, y, &row.name, (1 + layout.name).saturating_sub(x), style);
    for &(at, right) in &layout.columns {
        let column = &COLUMNS[at];
        let value = row.values.and_then(|v| v[at]);
        if app.baseline.is_some() {
            let change = app.change(row, at);
            let style = match change {
                Some(c) if c >= 0.05 => p.higher(),
                Some(c) if c <= -0.05 => p.lower(),
                _ => p.quiet(),
            };
            pen.put_right(right, y, &change_text(change), style);
        } else {
            let style = if value.is_none_or(|v| v == 0.0) { p.quiet() } else { p.plain() };
            pen.put_right(right, y, &column.text(value, app.units), style);
        }
    }
    if let (Some(left), Some(spark)) = (layout.spark, &row.spark) {
        chart::spark(&mut pen.part(left, y, SPARK, 1), spark);
    }
}
