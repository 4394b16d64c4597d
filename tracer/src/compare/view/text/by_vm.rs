//! The effects by VM in the text with everything.

use super::{fitted, wording};
use crate::{
    compare::{Comparison, FigureByVm},
    output::{grouped, wrap},
};

/// The table of every VM's effect; empty with one VM.
pub(super) fn block(c: &Comparison, width: usize) -> String {
    if c.by_vm.figures.is_empty() {
        return String::new();
    }
    let mut lines = vec![["By VM", "A", "B", "CHANGE", "95% CI", "ROUNDS"].map(str::to_owned)];
    for figure in &c.by_vm.figures {
        lines.push([&wording::by_vm::title(figure), "", "", "", "", ""].map(str::to_owned));
        lines.extend(rows(figure));
    }
    let mut out = format!("\n{}", fitted(&lines, false, width));
    for figure in &c.by_vm.figures {
        let heterogeneity = wording::by_vm::heterogeneity(figure).map(|text| format!(" ({text})")).unwrap_or_default();
        let text = format!("{}: {}{heterogeneity}", wording::by_vm::title(figure), wording::by_vm::spread(figure));
        out += &wrap(&text, "  ", width);
    }
    out.extend(wording::by_vm::more_vms(c).map(|text| wrap(&text, "  ", width)));
    out + &wrap(&format!("By VM: {}", wording::by_vm::LEGEND), "", width)
}

/// The cells of a figure: each VM, and all together.
fn rows(figure: &FigureByVm) -> Vec<[String; 6]> {
    let cells = |name: String, a: f64, b: f64, change, rounds: String| {
        [
            format!("  {name}"),
            wording::value(Some(a), figure.unit),
            wording::value(Some(b), figure.unit),
            wording::by_vm::change(figure, change),
            wording::by_vm::interval(figure, change),
            rounds,
        ]
    };
    let vms = figure.vms.iter().map(|vm| cells(vm.vm.clone(), vm.a, vm.b, vm.change, grouped(vm.rounds as u64)));
    let all = figure.all.map(|all| {
        let b = wording::by_vm::value_of_b(figure, all.a, all.change);
        cells(format!("all {} VMs", all.vms), all.a, b, all.change, String::new())
    });
    vms.chain(all).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::{by_vm, comparison, setting};

    #[test]
    fn every_vm_has_a_row_and_nothing_is_wider_than_the_terminal() {
        let c = Comparison { by_vm: by_vm(), ..comparison() };
        let text = super::super::full(&c, &setting(), 80);
        let block = &text[text.find("\nBy VM ").unwrap()..];
        let row = |name: &str| {
            let row = block.lines().find_map(|l| l.strip_prefix(&format!("  {name} "))).unwrap();
            row.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(row("web1"), "1.00us 1.12us +12.0% [+10.0, +14.0]% 12");
        assert_eq!(row("all 2 VMs"), "1.00us 1.05us +5.5% [-84.5, +95.5]%");
        assert_eq!(row("gone"), "1.00us 1.03us +3.0% n/a 3");
        let flowing = block.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in ["differ: from -1.0% (db) to +12.0% (web1) (tau 13.0%, I\u{b2} 97%)", "2 more VMs", "No verdict"] {
            assert!(flowing.contains(part), "{part} in\n{text}");
        }
        assert!(text.lines().all(|l| l.chars().count() <= 80 && l.trim_end() == l), "{text}");
    }

    #[test]
    fn the_short_text_has_a_line_if_vms_differ_and_one_vm_has_none() {
        let c = Comparison { by_vm: by_vm(), ..comparison() };
        let line = "\nguest time p50: the VMs differ: from -1.0% (db) to +12.0% (web1)\n";
        assert!(super::super::short(&c, &setting(), 100).contains(line));
        assert_eq!(block(&comparison(), 80), "");
        assert!(!super::super::short(&comparison(), &setting(), 100).contains("VMs differ"));
    }
}
