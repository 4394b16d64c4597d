//! A comparison as one page: the answer, its alarms, the sizes of the differences, their place in the distributions, other differences.

mod by_vm;
mod distributions;
mod figures;
mod picture;
mod sides;
mod timeline;

use std::collections::BTreeSet;

use super::wording;
use crate::{
    compare::{Arm, Check, Comparison, Setting},
    html::{
        Markup, Section, Tone, callout,
        chart::{Chart, Look},
        environment, heading, join, list, page, paragraph,
        table::{Heading, Table},
    },
    model::{
        figures::{Unit, human},
        measurement::EMULATED,
    },
    output::grouped,
    recording,
};

impl From<Arm> for Look {
    fn from(arm: Arm) -> Self {
        match arm {
            Arm::A => Self::A,
            Arm::B => Self::B,
        }
    }
}

/// Renders a comparison as a self-contained HTML page.
pub(crate) fn render(c: &Comparison, setting: &Setting) -> String {
    let title = format!("{} against {}", wording::side(1, setting), wording::side(0, setting));
    let emulated = if wording::is_emulated(setting) { "EMULATED \u{b7} " } else { "" };
    let host = |s: &recording::Provenance| format!("{}, Linux {}", s.header.host.name, s.header.host.kernel);
    let hosts: BTreeSet<_> = setting.sources.iter().flatten().map(host).collect();
    let hosts = hosts.into_iter().collect::<Vec<_>>().join("; ");
    let mut sections = vec![
        Section { id: "verdict", title: "Verdict", body: verdict(c, setting) },
        Section { id: "figures", title: "Figures", body: figures::section(c, setting) },
        Section { id: "distributions", title: "Distributions", body: distributions::section(c, setting) },
        Section { id: "time", title: "Window by window", body: timeline::section(c, setting) },
        Section { id: "mix", title: "Exit reasons", body: mix(c) },
        Section { id: "checks", title: "Checks", body: checks(&c.checks) },
        Section { id: "environment", title: "Environment", body: environment(setting) },
        Section { id: "method", title: "Method", body: method(c) },
    ];
    let by_vm = by_vm::section(c).map(|body| Section { id: "vms", title: "By VM", body });
    // After the figures.
    by_vm.into_iter().for_each(|section| sections.insert(2, section));
    page(&format!("VM entries: {title}"), &format!("{emulated}{hosts}"), &sections)
}

/// " (EMULATED)" after names of times, if they are.
fn emulated_suffix(setting: &Setting) -> &'static str {
    if wording::is_emulated(setting) { " (EMULATED)" } else { "" }
}

fn legend(chart: &mut Chart, setting: &Setting) {
    chart.legend(Look::A, &wording::side(0, setting));
    chart.legend(Look::B, &wording::side(1, setting));
}

fn verdict(c: &Comparison, setting: &Setting) -> Markup {
    let mut out = vec![picture::picture(c, setting)];
    let untested = wording::not_tested(c).into_iter().chain(wording::clear(c));
    out.extend(untested.map(|text| paragraph(&format!("{text}."))));
    out.extend(wording::advice(c, setting).map(|advice| paragraph(&format!("For a verdict: {advice}."))));
    out.extend(alarms(c, setting));
    out.push(sides::overview(c));
    out.push(sides::table(c, setting));
    if let (Some(alternation), Some(e)) = (wording::alternation(c, setting), &setting.experiment) {
        let switches = format!("A is switched to by '{}', B by '{}'.", e.switches[0], e.switches[1]);
        out.push(paragraph(&format!("Windows {alternation}. {switches}")));
    }
    join(out)
}

fn alarms(c: &Comparison, setting: &Setting) -> Vec<Markup> {
    let damage = recording::damage(wording::damaged(setting));
    let mut out = Vec::from_iter(damage.map(|damage| callout(Tone::Alarm, "DAMAGED:", &damage)));
    for (name, side) in [("A", &c.a), ("B", &c.b)] {
        out.extend(wording::loss(side).map(|loss| callout(Tone::Alarm, &format!("LOST in {name}:"), &loss)));
    }
    if wording::is_emulated(setting) {
        out.push(callout(Tone::Alarm, "EMULATED:", EMULATED));
    }
    out.extend(setting.warnings.iter().map(|warning| callout(Tone::Alarm, "WARNING", warning)));
    let alarms = c.checks.iter().filter(|check| check.alarm);
    out.extend(alarms.map(|check| callout(Tone::Alarm, &format!("ALARM {}:", check.name), &check.text)));
    out
}

fn mix(c: &Comparison) -> Markup {
    if c.mix.rows.is_empty() {
        return paragraph("n/a: there is no entry.");
    }
    let text = format!(
        "The exit mixes differ by {} (total variation, p {}){}.",
        wording::share_text(Some(c.mix.distance)),
        wording::p_value(c.mix.p),
        if wording::mix_differs(c) {
            ": the workloads differ, see \"With one mix of exits\""
        } else {
            ": the workloads are alike"
        }
    );
    let mut columns = vec![Heading::word("exit reason")];
    let heads = ["entries A", "entries B", "share A", "share B", "difference"];
    columns.extend(heads.map(Heading::number));
    columns.extend(["guest time p50 A", "B", "host time p50 A", "B"].map(Heading::number));
    let mut table = Table::new("mix-table", "Exit reasons on both sides, most entries first", columns);
    for row in &c.mix.rows {
        let shares = [0, 1].map(|side| wording::share(c, row.entries[side], side));
        let difference = match shares {
            [Some(a), Some(b)] => {
                format!("{:+.1} points", (b - a) * 100.0).replace("-0.0", "0.0").replace("+0.0", "0.0")
            }
            _ => "n/a".into(),
        };
        let mut cells = vec![wording::exit_reason(&row.stratum), grouped(row.entries[0]), grouped(row.entries[1])];
        cells.extend(shares.map(wording::share_text));
        cells.push(difference);
        cells.extend(row.entry_to_exit_p50.map(|v| human(v, Unit::Ns)));
        cells.extend(row.exit_to_entry_p50.map(|v| human(v, Unit::Ns)));
        table.row(cells);
    }
    join([paragraph(&text), table.render()])
}

fn checks(checks: &[Check]) -> Markup {
    if checks.is_empty() {
        return paragraph("No check was possible.");
    }
    let columns = vec![Heading::word("check"), Heading::word("result"), Heading::number("p"), Heading::text("finding")];
    let mut table = Table::new("checks-table", "Whether the windows can be compared at all", columns);
    for check in checks {
        let (class, result) = if check.alarm { ("differs", "ALARM") } else { ("", "passed") };
        table.row_of(class, vec![check.name.into(), result.into(), wording::p_value(check.p), check.text.clone()]);
    }
    table.render()
}

fn environment(setting: &Setting) -> Markup {
    let [a, b] = &setting.sources;
    let (mut heads, mut sources) = (Vec::new(), Vec::new());
    if setting.experiment.is_some() {
        // The recordings of an experiment are on both sides.
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

fn method(c: &Comparison) -> Markup {
    join([list(&c.method), heading("The figures"), list(&environment::METHOD)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compare::{
            Estimate, Verdict,
            fixture::{comparison, gated, setting},
        },
        html::{
            Text,
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
    fn the_page_keeps_the_rules_and_has_a_row_per_figure() {
        let (c, s) = (comparison(), setting());
        let html = render(&c, &s);
        check(&html);
        for row in &c.rows {
            let named = |title: &str| html.contains(&format!("<th scope=\"row\">{title}</th>"));
            assert!(!wording::has_values(row) || named(&wording::title(row)), "{}", wording::title(row));
            assert!(row.why.as_ref().is_none_or(|why| html.contains(why.as_str())), "{row:?}");
        }
        for text in
            ["EMULATED", "LOST in A", "ALARM carry-over", &Text(&wording::summary(&c, &s)).to_string(), "L1 CPUID"]
        {
            assert!(html.contains(text), "{text}");
        }
    }

    #[test]
    fn without_verdicts_a_page_has_both_sides_and_the_reason_once() {
        let (mut c, mut s) = (comparison(), setting());
        s.experiment = None;
        (c.unit, c.units, c.needed) = ("block", [1, 1], 6);
        for row in c.rows.iter_mut().chain(&mut c.stratified).filter(|r| r.a.is_some()) {
            (row.verdict, row.p, row.p_holm) = (Verdict::NotEnoughData, None, None);
            row.why = Some("fewer than 6 blocks".into());
        }
        let html = render(&c, &s);
        check(&html);
        assert_eq!(html.matches("fewer than 6 blocks").count(), 0, "the answer says it");
        for text in ["6 a side are needed", "For a verdict: record about", "without verdicts", "values of A"] {
            assert!(html.contains(text), "{text}");
        }
        assert!(
            !html.contains("class=\"bar")
                && html.contains("pin writes: 0 in 40,000 entries of A, 16,400 in 40,000 of B")
        );
    }

    #[test]
    fn hostile_names_stay_text() {
        let (c, s) = hostile();
        check(&render(&c, &s));
    }

    #[test]
    fn missing_values_are_said_and_draw_nothing_odd() {
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

    #[test]
    fn primary_figures_are_first_in_picture_and_table_and_the_untested_ones_are_said() {
        let c = gated();
        let html = render(&c, &setting());
        check(&html);
        let picture = html.find("Primary figures, named before the data").unwrap();
        assert!(picture < html.find("LOST in A").unwrap(), "the picture is first");
        let table = &html[html.find("Every figure").unwrap()..];
        let order = ["P1 pin writes per entry<", "P2 guest time p50<", "P3 host time p50<", ">guest time p90<"];
        let places: Vec<_> = order.iter().map(|cell| table.find(cell).unwrap_or_else(|| panic!("{cell}"))).collect();
        assert!(places.is_sorted());
        for said in ["worse after 7 rounds", "because the primary guest time p50 is undecided.", "clear by themselves"]
        {
            assert!(html.to_lowercase().contains(said), "{said}");
        }
    }

    /// `VMENTRY_PAGE=/tmp/x.html cargo test -p vmentry --lib -- --ignored page_to_look_at`
    #[test]
    #[ignore = "writes a page for people to look at"]
    fn a_page_to_look_at() {
        let Ok(path) = std::env::var("VMENTRY_PAGE") else { return };
        for (name, c) in [("", comparison()), (".gated.html", gated())] {
            let (path, s) = (format!("{path}{name}"), setting());
            std::fs::write(&path, render(&c, &s)).unwrap();
            std::fs::write(format!("{path}.md"), crate::compare::text::markdown(&c, &s)).unwrap();
            for width in [80, 120] {
                std::fs::write(format!("{path}.{width}.txt"), crate::compare::text::short(&c, &s, width, true))
                    .unwrap();
                std::fs::write(format!("{path}.{width}.full.txt"), crate::compare::text::full(&c, &s, width)).unwrap();
            }
        }
    }
}
