//! Both sides of a comparison: how much of each was seen.

use super::wording;
use crate::{
    compare::{Comparison, Setting, Side},
    html::{
        Markup, Tile,
        table::{Heading, Table},
        tiles,
    },
    model::figures::{Figure, Unit, human},
    output::grouped,
};

/// vCPUs named in the table of sides.
const MAX_VCPUS: usize = 16;

fn count(n: Option<u64>) -> String {
    n.map_or("n/a".into(), grouped)
}

/// The sizes of both sides, as tiles.
pub(super) fn overview(c: &Comparison) -> Markup {
    let mean = c.rows.iter().find(|r| r.figure == Figure::PinWrites.name() && r.stat == "mean");
    let per_entry = |value: Option<f64>| format!("{} per entry", wording::value(value, Unit::Count));
    let windows = |s: &Side| wording::counted(s.windows as u64, "window");
    let both = |f: &dyn Fn(&Side) -> String| [f(&c.a), f(&c.b)].join(" / ");
    tiles(&[
        Tile {
            name: "observed, A / B",
            value: both(&|s| human(Some(s.length_ns as f64), Unit::Ns)).into(),
            note: both(&windows),
        },
        Tile {
            name: "VM entries, A / B",
            value: [0, 1].map(|side| grouped(wording::entries(c, side))).join(" / ").into(),
            note: String::new(),
        },
        Tile {
            name: "pin writes, A / B",
            value: both(&|s| count(s.pin_writes)).into(),
            note: format!("{} / {}", per_entry(mean.and_then(|r| r.a)), per_entry(mean.and_then(|r| r.b))),
        },
    ])
}

/// Both sides next to each other.
pub(super) fn table(c: &Comparison, setting: &Setting) -> Markup {
    let [a, b] = [0, 1].map(|side| Heading::text(wording::side(side, setting)));
    let mut table = Table::new("sides", "Both sides", vec![Heading::word(""), a, b]);
    let mut add = |name: &str, of: &dyn Fn(&Side) -> String| {
        table.row(vec![name.into(), of(&c.a), of(&c.b)]);
    };
    add("windows", &|s| s.windows.to_string());
    add("length", &|s| human(Some(s.length_ns as f64), Unit::Ns));
    add("entries", &|s| grouped(wording::entries(c, usize::from(std::ptr::eq(s, &c.b)))));
    if c.a.left_out > 0 || c.b.left_out > 0 {
        add("left out: of vCPUs that were absent", &|s| grouped(s.left_out));
    }
    add("dropped", &|s| grouped(s.totals.dropped));
    add("unmatched", &|s| grouped(s.totals.unmatched));
    add("pin writes", &|s| count(s.pin_writes));
    add("timer exits", &|s| wording::timer_exits(s));
    add("vCPUs", &|s| {
        let names: Vec<_> = s.vcpus.iter().take(MAX_VCPUS).map(|(vm, vcpu)| format!("{vm}/{vcpu}")).collect();
        match s.vcpus.len().saturating_sub(MAX_VCPUS) {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    });
    table.render()
}
