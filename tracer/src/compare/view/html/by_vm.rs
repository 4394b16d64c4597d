//! The effects by VM on the page.

use super::wording;
use crate::{
    compare::{Comparison, FigureByVm},
    html::{
        Markup, join, paragraph,
        table::{Heading, Table},
    },
};

/// A table of each VM's effects; none with one VM.
pub(super) fn section(c: &Comparison) -> Option<Markup> {
    if c.by_vm.figures.is_empty() {
        return None;
    }
    let heads = ["A", "B", "change", "95 % CI", "rounds"].map(Heading::number);
    let columns = [Heading::word("VM"), Heading::word("figure")].into_iter().chain(heads).collect();
    let mut table = Table::new("vms-table", "The effect on each VM, from its own rounds", columns);
    c.by_vm.figures.iter().for_each(|figure| rows(&mut table, figure));
    let sentence = |figure: &FigureByVm| {
        let heterogeneity = wording::by_vm::heterogeneity(figure).map(|text| format!(" ({text})")).unwrap_or_default();
        format!("{}: {}{heterogeneity}.", wording::by_vm::title(figure), wording::by_vm::spread(figure))
    };
    let sentences = c.by_vm.figures.iter().map(sentence).chain(wording::by_vm::more_vms(c).map(|text| text + "."));
    let notes = sentences.chain([format!("A, B and change: {}", wording::by_vm::LEGEND)]);
    Some(join([table.render()].into_iter().chain(notes.map(|text| paragraph(&text)))))
}

fn rows(table: &mut Table, figure: &FigureByVm) {
    let title = wording::by_vm::title(figure);
    let change = |change| [wording::by_vm::change(figure, change), wording::by_vm::interval(figure, change)];
    for vm in &figure.vms {
        let [a, b] = [vm.a, vm.b].map(|value| wording::value(Some(value), figure.unit));
        let [change, interval] = change(vm.change);
        table.row(vec![vm.vm.clone(), title.clone(), a, b, change, interval, vm.rounds.to_string()]);
    }
    if let Some(all) = figure.all {
        let [change, interval] = change(all.change);
        let a = wording::value(Some(all.a), figure.unit);
        let b = wording::value(Some(wording::by_vm::value_of_b(figure, all.a, all.change)), figure.unit);
        table.row(vec![format!("all {} VMs", all.vms), title, a, b, change, interval, String::new()]);
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        compare::{
            Comparison,
            fixture::{by_vm, comparison, setting},
            html::render,
        },
        html::tests::{HOSTILE, check},
    };

    #[test]
    fn a_page_of_several_vms_has_a_row_of_each() {
        let mut c = Comparison { by_vm: by_vm(), ..comparison() };
        let html = render(&c, &setting());
        check(&html);
        for part in ["<th scope=\"row\">web1</th>", "all 2 VMs", "[+10.0, +14.0]%", "the VMs differ: from -1.0% (db)"] {
            assert!(html.contains(part), "{part}");
        }
        c.by_vm.figures[0].vms[0].vm = HOSTILE.into();
        check(&render(&c, &setting()));
        assert!(!render(&comparison(), &setting()).contains("vms-table"));
    }
}
