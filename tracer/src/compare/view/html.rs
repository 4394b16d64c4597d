//! A comparison as one page: the answer, what it rests on, how large the differences are, where in the distribution they lie, and
//! what else differed.

use super::wording;
use crate::{
    compare::{Arm, Check, Comparison, Distributions, Point, Row, Setting, Shift, Side, Verdict},
    html::{
        Kind, Section,
        axis::Axis,
        callout,
        chart::{Chart, Look, dot},
        density, details, environment, grid, heading, list, moment, page, paragraph,
        table::{Column, Table},
        tiles,
    },
    model::figures::{Unit, human},
};

const BINS: usize = 90;

impl From<Arm> for Look {
    fn from(arm: Arm) -> Self {
        match arm {
            Arm::A => Self::A,
            Arm::B => Self::B,
        }
    }
}

/// Renders a comparison as a self-contained HTML page.
pub fn render(c: &Comparison, setting: &Setting) -> String {
    let title = format!("{} against {}", wording::side(1, setting), wording::side(0, setting));
    let emulated = if wording::is_emulated(setting) { "EMULATED \u{b7} " } else { "" };
    let hosts: std::collections::BTreeSet<_> = setting
        .sources
        .iter()
        .flatten()
        .map(|s| format!("{}, Linux {}", s.header.host.name, s.header.host.kernel))
        .collect();
    let hosts = hosts.into_iter().collect::<Vec<_>>().join("; ");
    let sections = [
        Section { id: "verdict", title: "Verdict", body: verdict(c, setting) },
        Section { id: "figures", title: "Figures", body: figures(c, setting) },
        Section { id: "distributions", title: "Distributions", body: distributions(c, setting) },
        Section { id: "time", title: "Window by window", body: timeline(c, setting) },
        Section { id: "mix", title: "Exit reasons", body: mix(c) },
        Section { id: "checks", title: "Checks", body: checks(&c.checks) },
        Section { id: "environment", title: "Environment", body: environment(setting) },
        Section { id: "method", title: "Method", body: method(c) },
    ];
    page(&format!("VM entries: {title}"), &format!("{emulated}{hosts}"), &sections)
}

fn verdict(c: &Comparison, setting: &Setting) -> String {
    let mut out = callout(Kind::Answer, "", &wording::summary(c, setting));
    for (name, side) in [("A", &c.a), ("B", &c.b)] {
        if let Some(loss) = wording::loss(side) {
            out += &callout(Kind::Alarm, &format!("LOST in {name}:"), &loss);
        }
    }
    if wording::is_emulated(setting) {
        let text = "the CPU was emulated in software; counts are right, times are no times of any CPU";
        out += &callout(Kind::Alarm, "EMULATED", text);
    }
    for warning in &setting.warnings {
        out += &callout(Kind::Alarm, "WARNING", warning);
    }
    for check in c.checks.iter().filter(|k| k.alarm) {
        out += &callout(Kind::Alarm, &format!("ALARM {}:", check.name), &check.text);
    }
    let count = |n: Option<u64>| n.map_or("n/a".into(), |n| n.to_string());
    let mean = c.rows.iter().find(|r| r.figure == "pin_writes" && r.stat == "mean");
    let per_entry = |value: Option<f64>| format!("{} per entry", human(value, Unit::Count));
    let per_entry = format!("{} / {}", per_entry(mean.and_then(|r| r.a)), per_entry(mean.and_then(|r| r.b)));
    let entries = [0, 1].map(|side| wording::entries(c, side).to_string());
    let of = |n: usize| if n == 1 { "1 window".to_owned() } else { format!("{n} windows") };
    let both = |f: &dyn Fn(&Side) -> String| [f(&c.a), f(&c.b)].join(" / ");
    out += &tiles(&[
        ("observed, A / B", both(&|s| human(Some(s.length_ns as f64), Unit::Ns)), both(&|s| of(s.windows))),
        ("VM entries, A / B", entries.join(" / "), String::new()),
        ("pin writes, A / B", both(&|s| count(s.pin_writes)), per_entry),
    ]);
    let columns =
        vec![Column::word(""), Column::text(wording::side(0, setting)), Column::text(wording::side(1, setting))];
    let mut table = Table::new("sides", "What was compared", columns);
    let mut add = |what: &str, of: &dyn Fn(&Side) -> String| {
        table.row(vec![what.into(), of(&c.a), of(&c.b)]);
    };
    add("windows", &|s| s.windows.to_string());
    add("length", &|s| human(Some(s.length_ns as f64), Unit::Ns));
    add("entries", &|s| entries[usize::from(std::ptr::eq(s, &c.b))].clone());
    add("dropped", &|s| s.totals.dropped.to_string());
    add("unmatched", &|s| s.totals.unmatched.to_string());
    add("pin writes", &|s| count(s.pin_writes));
    add("timer exits", &|s| wording::timer_exits(c, s));
    add("vCPUs", &|s| {
        let most = 16;
        let names: Vec<_> = s.vcpus.iter().take(most).map(|(vm, vcpu)| format!("{vm}/{vcpu}")).collect();
        let more = s.vcpus.len().saturating_sub(most);
        names.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
    });
    out += &table.render();
    if let (Some(turns), Some(e)) = (wording::turns(c, setting), &setting.experiment) {
        let text = format!("Windows {turns}. A is switched to by '{}', B by '{}'.", e.switches[0], e.switches[1]);
        out += &paragraph(&text);
    }
    out
}

fn figures(c: &Comparison, setting: &Setting) -> String {
    let (told, untold): (Vec<_>, Vec<_>) = c.rows.iter().partition(|r| r.verdict != Verdict::NotEnoughData);
    let valued: Vec<_> = c.rows.iter().filter(|r| r.a.is_some() && r.b.is_some()).collect();
    let mut out = if told.is_empty() { paragraph("No figure has enough data.") } else { forest(c, &told, setting) };
    if !valued.is_empty() {
        out += &table("figures-table", "Every figure", &valued, setting);
    }
    out += &paragraph(&format!(
        "Change: B against A, in % where A is something, else the difference. Would have been seen: the smallest change that such an \
         experiment finds in 4 of 5 times. Noise: what 19 of 20 halves of a side differ from its other half, at most. p: the chance of such a change where there is none, \
         corrected for all figures (Holm); beyond chance is at most {}.",
        c.alpha
    ));
    if !untold.is_empty() {
        let columns = vec![Column::word("figure"), Column::number("A"), Column::number("B"), Column::text("why")];
        let mut table = Table::new("untold", "Figures that these windows cannot tell", columns);
        for row in untold {
            let why = row.why.clone().unwrap_or_else(|| "no reason given".into());
            table.row_of(
                "quiet",
                vec![wording::name(row), wording::value(row.a, row.unit), wording::value(row.b, row.unit), why],
            );
        }
        out += &heading("Not enough data");
        out += &table.render();
    }
    let pairs = wording::contradicting(c);
    if !c.stratified.is_empty() {
        out += &heading("With one mix of exits");
        let covered = wording::share_text(Some(c.mix.covered));
        let says =
            if pairs.is_empty() { "says the same as the raw one" } else { "says something else about some figures" };
        out += &paragraph(&format!(
            "Both sides weighted to the same mix of exit reasons, so that another workload is not read as another cost; {covered} of the \
             entries take part. This comparison {says}."
        ));
    }
    if !pairs.is_empty() {
        let columns = vec![
            Column::word("figure"),
            Column::number("change, raw"),
            Column::number("change, one mix"),
            Column::number("95 % interval"),
            Column::number("p (Holm)"),
            Column::word("verdict, raw"),
            Column::word("verdict, one mix"),
        ];
        let mut table = Table::new("contradicting", "Figures of which one mix of exits says something else", columns);
        for (raw, one) in pairs {
            table.row(vec![
                wording::name(raw),
                wording::change(raw),
                wording::change(one),
                wording::interval(one),
                wording::chance(one.p_holm),
                wording::verdict(raw.verdict).into(),
                wording::verdict(one.verdict).into(),
            ]);
        }
        out += &table.render();
    }
    if !c.stratified.is_empty() {
        let rows: Vec<_> = c.stratified.iter().collect();
        let table = table("stratified-table", "Every figure, both sides weighted to one mix of exits", &rows, setting);
        out += &details("All figures with one mix of exits", &table);
    }
    out
}

fn table(id: &str, caption: &str, rows: &[&Row], setting: &Setting) -> String {
    let emulated = if wording::is_emulated(setting) { "; times are EMULATED" } else { "" };
    let columns = vec![
        Column::word("figure"),
        Column::number("A"),
        Column::number("B"),
        Column::number("change"),
        Column::number("95 % interval"),
        Column::number("p (Holm)"),
        Column::number("would have been seen"),
        Column::number("noise"),
        Column::word("verdict"),
    ];
    let mut table = Table::new(id, format!("{caption}{emulated}"), columns);
    for row in rows {
        let cells = vec![
            wording::name(row),
            wording::value(row.a, row.unit),
            wording::value(row.b, row.unit),
            wording::change(row),
            wording::interval(row),
            wording::chance(row.p_holm),
            wording::detectable(row),
            wording::noise(row),
            wording::verdict(row.verdict).into(),
        ];
        table.row_of(if wording::is_change(row) { "strong" } else { "" }, cells);
    }
    table.render()
}

/// Ratios with their intervals, one below the other, and the band in which a side differs from itself.
fn forest(c: &Comparison, rows: &[&Row], setting: &Setting) -> String {
    const STEP: f64 = 27.0;
    let rows: Vec<(&Row, f64)> = rows.iter().filter_map(|r| Some((*r, r.ratio?.value))).filter(|r| r.1 > 0.0).collect();
    if rows.is_empty() {
        return String::new();
    }
    // An interval that reaches far out says no more than that it does: it is cut, so that the others can be seen.
    let log = |v: f64| if v > 0.0 && v.is_finite() { v.ln().abs() } else { 0.0 };
    let mut reaches: Vec<_> = rows
        .iter()
        .map(|(r, value)| r.ratio.iter().flat_map(|e| [e.low, e.high]).flatten().map(log).fold(log(*value), f64::max))
        .collect();
    reaches.sort_by(|a, b| b.total_cmp(a));
    let changed = rows.iter().filter(|(r, _)| wording::is_change(r)).map(|r| log(r.1)).fold(0.01, f64::max);
    let reach = reaches.get(1).or(reaches.first()).copied().unwrap_or(0.0).max(changed) * 1.15;
    let axis = Axis::log((-reach).exp(), reach.exp());
    let emulated = if wording::is_emulated(setting) { " (EMULATED)" } else { "" };
    let title = format!("B / A with 95 % intervals{emulated}");
    let labels = rows.iter().map(|(r, _)| wording::name(r)).collect();
    let x_title = "B / A, logarithmic; 0: alike; grey: a side against itself; filled: beyond chance";
    let axis_of = (axis, Unit::Count, x_title);
    let mut chart = Chart::rows("forest", &title, axis_of, labels, STEP, [216.0, 176.0])
        .label_x(|v| wording::percent(v - 1.0).replace(".0%", "%"));
    chart.mark(1.0, "zero");
    let mut words = Vec::new();
    for (at, (row, value)) in rows.iter().enumerate() {
        let y = chart.row(at);
        if let Some(noise) = row.noise {
            let (from, to) = (chart.x(1.0 / (1.0 + noise)), chart.x(1.0 + noise));
            let (top, width, height) = (y - STEP / 2.0 + 2.0, to - from, STEP - 4.0);
            let rect = format!("x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"");
            chart.draw(&format!("<rect class=\"noise\" {rect}/>"));
        }
        let changed = wording::is_change(row);
        if let Some((low, high)) = row.ratio.and_then(|e| Some((e.low?, e.high?))) {
            let (from, to) = (chart.x(low), chart.x(high));
            // An end that is cut off is an arrow.
            let end = |x: f64, value: f64, inwards: f64| {
                let is_shown = value > 0.0 && (0.001..=0.999).contains(&axis.share(value));
                let (top, tip) = (y - 4.0, x + inwards);
                if is_shown {
                    format!("M{x:.1} {top:.1}v8")
                } else {
                    format!("M{tip:.1} {top:.1}L{x:.1} {y:.1}l{inwards} 4")
                }
            };
            let ends = end(from, low, 5.0) + &end(to, high, -5.0);
            let class = if changed { "interval" } else { "interval quiet" };
            chart.draw(&format!("<path class=\"{class}\" d=\"M{from:.1} {y:.1}H{to:.1}{ends}\"/>"));
        }
        let x = chart.x(*value);
        let class = if changed { "dot neutral" } else { "dot open" };
        if log(*value) <= reach {
            chart.draw(&format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>"));
        }
        let text = format!("{}  {}", wording::change(row), wording::verdict(row.verdict));
        let right = chart.x(reach.exp()) + 10.0;
        let class = if changed { "strong" } else { "tick" };
        let said = if row.verdict == Verdict::NoDetectableChange {
            format!("{}  ~", wording::change(row))
        } else {
            text.clone()
        };
        chart.text(right, y + 4.5, class, &said);
        words.push(format!("{} {text}", wording::name(row)));
    }
    let left_out = c.rows.iter().filter(|r| r.verdict != Verdict::NotEnoughData).count() - rows.len();
    let note = if left_out == 0 {
        String::new()
    } else {
        paragraph("Figures where A is 0 have no ratio and are only in the table. ~: no detectable change.")
    };
    chart.describe(format!("{title}: {}.", words.join("; "))).render() + &note
}

fn distributions(c: &Comparison, setting: &Setting) -> String {
    let mut out = String::new();
    for d in &c.distributions {
        out += &heading(&d.figure.heading());
        out += &paragraph(d.figure.help());
        if d.a.count() == 0 || d.b.count() == 0 {
            out += &paragraph(&format!("n/a: {} values of A, {} of B.", d.a.count(), d.b.count()));
            continue;
        }
        out += &grid(&[densities(d, setting), cdfs(d, setting), shifts(d, setting), quantiles(d, setting)]);
    }
    if out.is_empty() { paragraph("n/a: latencies cannot be compared here.") } else { out }
}

fn emulated(d: &Distributions, setting: &Setting) -> String {
    format!("{}{}", d.figure.title(), if wording::is_emulated(setting) { " (EMULATED)" } else { "" })
}

fn legend(chart: &mut Chart, setting: &Setting) {
    chart.legend(Look::A, &wording::side(0, setting));
    chart.legend(Look::B, &wording::side(1, setting));
}

/// The axis on which nearly all values lie: the last thousandth may be far away.
fn near(d: &Distributions) -> Option<Axis> {
    let (low, high) = density::range(&[&d.a, &d.b])?;
    let near = [&d.a, &d.b].iter().filter_map(|h| h.quantile(0.999)).max().map_or(high, |v| v as f64 * 1.1);
    Some(Axis::log(low, near.max(low * 1.1)))
}

fn densities(d: &Distributions, setting: &Setting) -> String {
    let Some(axis) = near(d) else { return String::new() };
    let both = [&d.a, &d.b].map(|h| density::bins(h, &axis, BINS));
    // What lies beyond the axis would pile up in its last bin.
    let both = both.map(|mut b| {
        b.pop();
        b.push(0.0);
        b
    });
    let peak = both.iter().flatten().fold(f64::MIN_POSITIVE, |a, &b| a.max(b));
    let title = format!("Distribution of {}", emulated(d, setting));
    let id = format!("density-{}", d.figure.name());
    let y = (Axis::linear(0.0, peak * 1.08), Unit::Count, "share of the values");
    let mut chart = Chart::new(id, &title, (axis, d.figure.unit(), "up to p99.9, logarithmic"), y);
    for (look, bins) in [Look::A, Look::B].into_iter().zip(&both) {
        let stairs = density::stairs(bins, &axis);
        chart.band(look, &stairs.iter().map(|&(x, y)| (x, 0.0, y)).collect::<Vec<_>>());
        chart.line(look, &stairs.iter().map(|&(x, y)| (x, Some(y))).collect::<Vec<_>>());
    }
    legend(&mut chart, setting);
    let median = |h: &crate::model::histogram::Histogram| human(h.quantile(0.5).map(|v| v as f64), d.figure.unit());
    chart.describe(format!("{title}: median {} of A, {} of B.", median(&d.a), median(&d.b))).render()
}

fn cdfs(d: &Distributions, setting: &Setting) -> String {
    let Some(axis) = near(d) else { return String::new() };
    let title = format!("Share of {} up to a value", emulated(d, setting));
    let id = format!("cdf-{}", d.figure.name());
    let y = (Axis::linear(0.0, 1.0), Unit::Count, "share of the values");
    let mut chart = Chart::new(id, &title, (axis, d.figure.unit(), "up to p99.9, logarithmic"), y);
    for (look, histogram) in [(Look::A, &d.a), (Look::B, &d.b)] {
        // A staircase: the share stays until the next value.
        let mut line = vec![(axis.value(0.0), Some(0.0))];
        let mut below = 0.0;
        for (value, share) in density::cdf(histogram, 300) {
            let is_shown = axis.share(value) < 1.0;
            line.push((value, Some(below)));
            line.extend(is_shown.then_some((value, Some(share))));
            if !is_shown {
                break;
            }
            below = share;
        }
        line.push((axis.value(1.0), Some(below)));
        chart.line(look, &line);
    }
    legend(&mut chart, setting);
    let p99 = |h: &crate::model::histogram::Histogram| human(h.quantile(0.99).map(|v| v as f64), d.figure.unit());
    chart.describe(format!("{title}: 99 % are up to {} for A, {} for B.", p99(&d.a), p99(&d.b))).render()
}

/// B - A in % of A at each quantile, evenly spaced, with its interval.
fn shifts(d: &Distributions, setting: &Setting) -> String {
    let relative: Vec<(&Shift, [f64; 3])> = d
        .shifts
        .iter()
        .filter(|s| s.a > 0.0)
        .map(|s| {
            let e = s.difference;
            (s, [e.low.unwrap_or(e.value), e.value, e.high.unwrap_or(e.value)].map(|v| v / s.a))
        })
        .collect();
    if relative.is_empty() {
        return paragraph("The shift function: n/a, no quantile can be compared.");
    }
    let largest = relative.iter().map(|r| r.1[1].abs()).fold(0.005, f64::max) * 3.0;
    let low = relative.iter().map(|r| r.1[0].max(-largest)).fold(0.0, f64::min);
    let high = relative.iter().map(|r| r.1[2].min(largest)).fold(0.0, f64::max);
    let room = (high - low).max(0.002) * 0.08;
    let title = format!("Shift function: how much B's {} differs", emulated(d, setting));
    let id = format!("shift-{}", d.figure.name());
    let last = (relative.len() - 1).max(1) as f64;
    let names: Vec<_> = relative.iter().map(|(s, _)| quantile(s.quantile)).collect();
    let axis = (Axis::linear(0.0, last), Unit::Count, "quantile, with 95 % interval");
    let y = (Axis::linear((low - room) * 100.0, (high + room) * 100.0), Unit::Count, "% of A; above 0: B takes longer");
    let mut chart = Chart::new(id, &title, axis, y).label_x({
        let names = names.clone();
        move |at| if at.fract() == 0.0 { names.get(at as usize).cloned().unwrap_or_default() } else { String::new() }
    });
    let band: Vec<_> = relative.iter().enumerate().map(|(at, r)| (at as f64, r.1[0] * 100.0, r.1[2] * 100.0)).collect();
    chart.band(Look::B, &band);
    chart.level(0.0);
    let line: Vec<_> = relative.iter().enumerate().map(|(at, r)| (at as f64, Some(r.1[1] * 100.0))).collect();
    chart.line(Look::B, &line);
    line.iter().for_each(|(x, y)| y.iter().for_each(|y| chart.dot(Look::B, *x, *y)));
    let words: Vec<_> = relative.iter().zip(&names).map(|(r, n)| format!("{n} {}", wording::percent(r.1[1]))).collect();
    chart.describe(format!("{title}: {}.", words.join(", "))).render()
}

fn quantile(q: f64) -> String {
    let text = format!("{:.3}", q * 100.0);
    format!("p{}", text.trim_end_matches('0').trim_end_matches('.'))
}

fn quantiles(d: &Distributions, setting: &Setting) -> String {
    let columns = vec![
        Column::word("quantile"),
        Column::number("A"),
        Column::number("B"),
        Column::number("B - A"),
        Column::number("95 % interval"),
        Column::number("change"),
    ];
    let caption = format!("Quantiles of {}: {} values of A, {} of B", emulated(d, setting), d.a.count(), d.b.count());
    let mut table = Table::new(format!("quantiles-{}", d.figure.name()), caption, columns);
    for s in &d.shifts {
        let bound = |b: Option<f64>| b.map_or("n/a".into(), |b| wording::signed(b, d.figure.unit()));
        table.row(vec![
            quantile(s.quantile),
            human(Some(s.a), d.figure.unit()),
            human(Some(s.a + s.difference.value), d.figure.unit()),
            wording::signed(s.difference.value, d.figure.unit()),
            format!("[{}, {}]", bound(s.difference.low), bound(s.difference.high)),
            if s.a > 0.0 { wording::percent(s.difference.value / s.a) } else { "n/a".into() },
        ]);
    }
    table.render()
}

fn timeline(c: &Comparison, setting: &Setting) -> String {
    if c.timeline.is_empty() {
        return paragraph("n/a: there is no window.");
    }
    let emulated = if wording::is_emulated(setting) { " (EMULATED)" } else { "" };
    let rate = |p: &Point| (p.length_ns > 0).then(|| p.entries as f64 * 1e9 / p.length_ns as f64);
    let charts = [
        windows(c, setting, ("window-p50", &format!("Median of entry_to_exit_ns{emulated}"), Unit::Ns), &|p| {
            p.entry_to_exit.map(|e| e[0])
        }),
        windows(c, setting, ("window-p99", &format!("p99 of entry_to_exit_ns{emulated}"), Unit::Ns), &|p| {
            p.entry_to_exit.map(|e| e[1])
        }),
        windows(c, setting, ("window-pins", "Pin writes per entry", Unit::Count), &|p| p.pin_writes),
        windows(c, setting, ("window-rate", "Entries per second", Unit::PerSecond), &rate),
    ];
    let columns = vec![
        Column::number("window"),
        Column::word("side"),
        Column::word("begun"),
        Column::number("length"),
        Column::number("entries"),
        Column::number("entries/s"),
        Column::number("p50"),
        Column::number("p99"),
        Column::number("pin writes/entry"),
    ];
    let caption = format!("Windows in the order of time; p50 and p99 are of entry_to_exit_ns{emulated}");
    let mut table = Table::new("windows", caption, columns);
    for (at, p) in c.timeline.iter().enumerate() {
        table.row(vec![
            (at + 1).to_string(),
            if p.arm == Arm::A { "A" } else { "B" }.into(),
            moment::utc(p.start_unix_ns),
            human(Some(p.length_ns as f64), Unit::Ns),
            p.entries.to_string(),
            human(rate(p), Unit::PerSecond),
            human(p.entry_to_exit.map(|e| e[0]), Unit::Ns),
            human(p.entry_to_exit.map(|e| e[1]), Unit::Ns),
            human(p.pin_writes, Unit::Count),
        ]);
    }
    grid(&charts) + &details("The numbers behind these pictures", &table.render())
}

/// A point per window, in the order of time. Latencies do not begin at 0: what is looked for is small.
fn windows(
    c: &Comparison,
    setting: &Setting,
    (id, title, unit): (&str, &str, Unit),
    of: &dyn Fn(&Point) -> Option<f64>,
) -> String {
    let values: Vec<_> = c.timeline.iter().map(|p| (p.arm, of(p))).collect();
    let known: Vec<f64> = values.iter().filter_map(|v| v.1).collect();
    if known.is_empty() {
        return paragraph(&format!("{title}: n/a, not known in these windows."));
    }
    let low = known.iter().copied().fold(f64::INFINITY, f64::min);
    let high = known.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let room = (high - low).max(high.abs() * 0.02).max(1e-3) * 0.15;
    let bottom = if unit == Unit::Count { 0.0 } else { (low - room).max(0.0) };
    let x = (Axis::linear(0.0, values.len() as f64 + 1.0), Unit::Count, "window, in the order of time");
    let mut chart = Chart::new(id, title, x, (Axis::linear(bottom, high + room), unit, ""));
    let mut medians = Vec::new();
    for (arm, look) in [(Arm::A, Look::A), (Arm::B, Look::B)] {
        let mut of_arm: Vec<f64> = values.iter().filter(|v| v.0 == arm).filter_map(|v| v.1).collect();
        of_arm.sort_by(f64::total_cmp);
        if let Some(median) = of_arm.get(of_arm.len() / 2) {
            // The level of each side, faint, so that the windows are seen around it.
            chart.line(look, &[(0.0, Some(*median)), (values.len() as f64 + 1.0, Some(*median))]);
            medians.push(format!("{arm:?} {}", human(Some(*median), unit)));
        }
    }
    for (at, (arm, value)) in values.iter().enumerate() {
        if let Some(value) = value {
            let svg = dot((*arm).into(), chart.x(at as f64 + 1.0), chart.y(*value));
            chart.draw(&svg);
        }
    }
    legend(&mut chart, setting);
    chart
        .describe(format!("{title} in {} windows; median of the windows: {}.", values.len(), medians.join(", ")))
        .render()
}

fn mix(c: &Comparison) -> String {
    if c.mix.rows.is_empty() {
        return paragraph("n/a: no entry was seen.");
    }
    let text = format!(
        "{} of the entries would have to change their kind to make the mixes alike (p {}): {}.",
        wording::share_text(Some(c.mix.distance)),
        wording::chance(c.mix.p),
        if wording::is_mix_apart(c) {
            "the workloads differ, see \"With one mix of exits\""
        } else {
            "the workloads are alike"
        }
    );
    let mut columns = vec![Column::word("exit")];
    let heads = ["entries A", "entries B", "share A", "share B", "difference"];
    columns.extend(heads.map(Column::number));
    columns.extend(["entry_to_exit p50 A", "B", "exit_to_entry p50 A", "B"].map(Column::number));
    let mut table = Table::new("mix-table", "Kinds of exits on both sides, most entries first", columns);
    for row in &c.mix.rows {
        let shares = [0, 1].map(|side| wording::share(c, row.entries[side], side));
        let difference = match shares {
            [Some(a), Some(b)] => {
                format!("{:+.1} points", (b - a) * 100.0).replace("-0.0", "0.0").replace("+0.0", "0.0")
            }
            _ => "n/a".into(),
        };
        let mut cells = vec![wording::kind(&row.stratum), row.entries[0].to_string(), row.entries[1].to_string()];
        cells.extend(shares.map(wording::share_text));
        cells.push(difference);
        cells.extend(row.entry_to_exit_p50.map(|v| human(v, Unit::Ns)));
        cells.extend(row.exit_to_entry_p50.map(|v| human(v, Unit::Ns)));
        table.row(cells);
    }
    paragraph(&text) + &table.render()
}

fn checks(checks: &[Check]) -> String {
    if checks.is_empty() {
        return paragraph("No check could be made.");
    }
    let columns =
        vec![Column::word("check"), Column::word("result"), Column::number("p"), Column::text("what was found")];
    let mut table = Table::new("checks-table", "Whether the windows can be compared at all", columns);
    for check in checks {
        let (class, result) = if check.alarm { ("differs", "ALARM") } else { ("", "nothing found") };
        table.row_of(class, vec![check.name.into(), result.into(), wording::chance(check.p), check.text.clone()]);
    }
    table.render()
}

fn environment(setting: &Setting) -> String {
    let [a, b] = &setting.sources;
    let (mut heads, mut sources) = (Vec::new(), Vec::new());
    if setting.experiment.is_some() {
        // The one recording is on both sides.
        sources.extend(a);
        heads.extend(a.iter().map(|_| "A and B".to_owned()));
    } else {
        for (side, of) in [a, b].into_iter().enumerate() {
            heads.extend((1..=of.len()).map(|n| {
                let number = if of.len() > 1 { format!(" {n}") } else { String::new() };
                format!("{}{number}", wording::side(side, setting))
            }));
            sources.extend(of);
        }
    }
    environment::table("environment-table", &heads, &sources).render()
}

fn method(c: &Comparison) -> String {
    list(&c.method) + &heading("The figures") + &list(&environment::METHOD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compare::{
            Estimate,
            fixture::{comparison, setting},
        },
        html::{
            escape,
            tests::{HOSTILE, check},
        },
    };

    fn hostile() -> (Comparison, Setting) {
        let (mut c, mut s) = (comparison(), setting());
        s.names = [HOSTILE.into(), HOSTILE.into()];
        s.warnings = vec![HOSTILE.into()];
        if let Some(e) = &mut s.experiment {
            e.switches = [HOSTILE.into(), HOSTILE.into()];
        }
        for source in s.sources.iter_mut().flatten() {
            (source.name, source.header.label) = (HOSTILE.into(), Some(HOSTILE.into()));
            source.header.host.name = HOSTILE.into();
            source.header.command = vec![HOSTILE.into()];
        }
        c.a.vcpus.insert((HOSTILE.into(), 1));
        c.method.push(HOSTILE.into());
        c.checks.iter_mut().for_each(|k| k.text = HOSTILE.into());
        c.rows.iter_mut().for_each(|r| r.why = Some(HOSTILE.into()));
        (c, s)
    }

    #[test]
    fn the_page_keeps_the_rules_and_every_figure_has_a_row() {
        let (c, s) = (comparison(), setting());
        let html = render(&c, &s);
        check(&html);
        for row in &c.rows {
            assert!(html.contains(&format!("<th scope=\"row\">{}</th>", wording::name(row))), "{}", wording::name(row));
        }
        for text in ["EMULATED", "LOST in A", "ALARM carry-over", &escape(&wording::summary(&c, &s)), "L1 CPUID"] {
            assert!(html.contains(text), "{text}");
        }
    }

    #[test]
    fn hostile_names_stay_text() {
        let (c, s) = hostile();
        check(&render(&c, &s));
    }

    #[test]
    fn what_is_missing_is_said_and_draws_nothing_odd() {
        let mut c = comparison();
        c.distributions.iter_mut().for_each(|d| (d.a, d.shifts) = Default::default());
        c.timeline.iter_mut().for_each(|p| (p.entry_to_exit, p.pin_writes) = (None, None));
        (c.checks, c.stratified, c.mix.rows) = Default::default();
        for row in &mut c.rows {
            row.ratio = row.ratio.map(|e| Estimate { low: None, high: Some(f64::INFINITY), ..e });
        }
        let html = render(&c, &setting());
        check(&html);
        assert!(html.contains("n/a: 0 values of A"));
        c.rows.clear();
        c.timeline.clear();
        check(&render(&c, &setting()));
    }

    #[test]
    fn recordings_of_two_hosts_are_side_by_side() {
        let mut s = setting();
        s.experiment = None;
        s.sources[1][0].header.host.kernel = "6.1.0".into();
        let html = render(&comparison(), &s);
        check(&html);
        assert!(html.contains("<tr class=\"differs\"><th scope=\"row\">kernel</th><td class=\"nowrap\">differs</td><td class=\"text\">6.12.117</td><td class=\"text\">6.1.0</td>"));
    }

    /// `VMENTRY_PAGE=/tmp/x.html cargo test -p vmentry --lib -- --ignored page_to_look_at`
    #[test]
    #[ignore = "writes a page for people to look at"]
    fn a_page_to_look_at() {
        if let Ok(path) = std::env::var("VMENTRY_PAGE") {
            std::fs::write(&path, render(&comparison(), &setting())).unwrap();
            for width in [80, 120] {
                let text = super::super::text::render(&comparison(), &setting(), width);
                std::fs::write(format!("{path}.{width}.txt"), text).unwrap();
            }
        }
    }
}
