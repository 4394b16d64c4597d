//! The table of VMs, vCPUs and exit reasons.

use std::collections::BTreeMap;

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
        columns::{CHANGE_WIDTH, COLUMNS, Change, Column, Derivation, EXITS, SPARK_RANK},
        node::Node,
        rows::Row,
    },
};

/// Least and greatest width of the first column.
const NAME: (u16, u16) = (20, 44);
/// Lines of the titles.
pub(super) const TITLES: u16 = 2;

/// Columns that fit.
struct Layout {
    name: u16,
    columns: Vec<Place>,
    /// Left end of the sparkline.
    spark: Option<u16>,
}

/// The place of a column.
struct Place {
    /// index into [`COLUMNS`]
    column: usize,
    /// ends, the right one exclusive
    left: u16,
    right: u16,
}

impl Layout {
    /// Takes the columns that have values, by rank, until one finds no room. With the stopwatch, transitions come right after guest time.
    fn of(width: u16, app: &App, rows: &[Row]) -> Self {
        let rank = |c: &Column| match c.of {
            Derivation::Stat(Figure::Transition, _) if app.info.stopwatch => 2,
            _ => c.rank,
        };
        let shown = COLUMNS.iter().enumerate().filter(|(at, _)| app.shows_column(*at));
        let mut ranked: Vec<(u8, Option<usize>)> = shown.map(|(i, c)| (rank(c), Some(i))).collect();
        ranked.push((SPARK_RANK, None));
        ranked.sort_unstable();
        let mut room = width.saturating_sub(NAME.0 + 2);
        let mut widths = BTreeMap::new();
        let mut has_spark = false;
        for (_, column) in ranked {
            let wanted = column.map_or(SPARK, |at| width_in(app, at, rows)) + 2;
            if wanted > room {
                break;
            }
            room -= wanted;
            match column {
                Some(at) => drop(widths.insert(at, wanted - 2)),
                None => has_spark = true,
            }
        }
        let name = (NAME.0 + room).min(NAME.1).min(width.saturating_sub(2));
        let mut end = 1 + name;
        let mut columns = Vec::new();
        for (column, width) in widths {
            let left = end + 2;
            end = left + width;
            columns.push(Place { column, left, right: end });
        }
        Self { name, columns, spark: has_spark.then_some(end + 2) }
    }
}

/// Width of a column: its own, or that of its widest value on the screen; with a baseline, of value and change.
fn width_in(app: &App, at: usize, rows: &[Row]) -> u16 {
    let column = &COLUMNS[at];
    let values = rows.iter().filter_map(|row| row.values.map(|values| values[at]));
    let widest = values.map(|value| width_of(&column.text(value, app.units))).max().unwrap_or(0);
    // The title's arrow, where it sorts.
    let title = width_of(column.title) + u16::from(app.order.column == Some(at));
    let change = if app.baseline.is_some() { CHANGE_WIDTH } else { 0 };
    column.width.max(widest).max(title) + change
}

/// Draws it, and notes its places for the mouse.
pub(super) fn draw(pen: &mut Pen, app: &mut App) {
    app.places = Places::default();
    let titles = match pen.height() {
        0..=2 => 0,
        3..=5 => 1,
        _ => TITLES,
    };
    if pen.height() == 0 || pen.width() == 0 {
        return;
    }
    let height = pen.height() - titles;
    let lines = usize::from(height);
    let lowest_first = (app.selected + 1).saturating_sub(lines);
    app.first = app.first.clamp(lowest_first.min(app.selected), app.selected);
    app.first = app.first.min(app.seen.rows.len().saturating_sub(lines));
    app.prepare_rows(app.first, lines);
    let shown = app.first..app.seen.rows.len().min(app.first + lines);
    let layout = Layout::of(pen.width(), app, &app.seen.rows[shown.clone()]);
    if titles == TITLES {
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
    for (line, at) in shown.enumerate() {
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
    let group = |place: &Place| COLUMNS[place.column].group;
    for columns in layout.columns.chunk_by(|a, b| group(a) == group(b)) {
        let (first, last) = (&columns[0], &columns[columns.len() - 1]);
        let column = &COLUMNS[first.column];
        let fits = width_of(column.group) + 2 <= last.right - first.left;
        if !column.group.is_empty() {
            draw_group(pen, if fits { column.group } else { column.short_group }, first.left, last.right);
        }
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
    let change = if app.baseline.is_some() { CHANGE_WIDTH } else { 0 };
    for &Place { column, left, right } in &layout.columns {
        let (text, style) = title(COLUMNS[column].title, Some(column));
        pen.put_right(right - change, y, &text, style);
        if change > 0 {
            pen.put_right(right, y, p.glyph("Δ", "+/-"), p.quiet());
        }
        places.push((x0 + left, x0 + right + 1, Some(column)));
    }
    if let Some(left) = layout.spark {
        pen.put(left, y, COLUMNS[EXITS].title, p.quiet());
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
    pen.put_middle(x, y, &row.name, (1 + layout.name).saturating_sub(x), style);
    for &Place { column: at, right, .. } in &layout.columns {
        let column = &COLUMNS[at];
        let value = row.values.and_then(|v| v[at]);
        let style = if value.is_none_or(|v| v == 0.0) { p.quiet() } else { p.plain() };
        // A detail has exits and host times alone.
        let is_blank = matches!(row.node, Node::Detail(..)) && !column.is_of_exits();
        let text = if is_blank { String::new() } else { column.text_of_row(value, app.units, &app.info.knowledge) };
        if app.baseline.is_none() {
            pen.put_right(right, y, &text, style);
            continue;
        }
        pen.put_right(right - CHANGE_WIDTH, y, &text, style);
        let change = app.change(row, at);
        let style = match change {
            Change::New => p.higher(),
            Change::By(by) if by >= 0.05 => p.higher(),
            Change::By(by) if by <= -0.05 => p.lower(),
            Change::By(_) | Change::Unknown => p.quiet(),
        };
        pen.put_right(right, y, &change.text(column.kind), style);
    }
    if let (Some(left), Some(spark)) = (layout.spark, &row.spark) {
        chart::spark(&mut pen.part(left, y, SPARK, 1), spark);
    }
}
