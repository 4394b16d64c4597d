//! The effects by VM in words: changes, intervals, and how much the VMs differ.

use super::{
    names::title_of,
    numbers::{percent, signed, size},
};
use crate::compare::{Comparison, Estimate, FigureByVm, VmEffect};

/// I^2 above which the VMs differ by more than chance.
const DIFFERS: f64 = 0.5;

/// Meaning of the table by VM.
pub(crate) const LEGEND: &str = "means over the rounds in which the VM was there, changes in % geometric ones; 95% CI from the VM's own rounds. All VMs: the mean \
     effect on VMs like these (random effects), in which a busy VM does not count more for its entries alone. tau: standard deviation \
     of the true changes between VMs; I\u{b2}: share of the spread between VMs that is not chance. No verdict comes from this table.";

/// The name of a figure for people.
pub(crate) fn title(figure: &FigureByVm) -> String {
    title_of(figure.figure, figure.stat, figure.unit)
}

/// A change in % of A, or in the figure's unit.
fn shown(figure: &FigureByVm, change: f64) -> String {
    if figure.is_ratio { percent(change - 1.0) } else { signed(change, figure.unit) }
}

/// The change of a VM, or of all.
pub(crate) fn change(figure: &FigureByVm, change: Estimate) -> String {
    shown(figure, change.value)
}

/// Its 95 % confidence interval.
pub(crate) fn interval(figure: &FigureByVm, change: Estimate) -> String {
    let (Some(low), Some(high)) = (change.low, change.high) else { return "n/a".into() };
    // One % sign is enough for both bounds.
    let [low, high] = [low, high].map(|bound| shown(figure, bound));
    match (low.strip_suffix('%'), high.strip_suffix('%')) {
        (Some(low), Some(high)) => format!("[{low}, {high}]%"),
        _ => format!("[{low}, {high}]"),
    }
}

/// The value of B that A and a change give.
pub(crate) fn value_of_b(figure: &FigureByVm, a: f64, change: Estimate) -> f64 {
    if figure.is_ratio { a * change.value } else { a + change.value }
}

/// How much the VMs differ: "tau 1.2%, I² 83%".
pub(crate) fn heterogeneity(figure: &FigureByVm) -> Option<String> {
    let all = figure.all?;
    let tau = if figure.is_ratio { size(all.tau.exp_m1()) } else { signed(all.tau, figure.unit) };
    Some(format!("tau {}, I\u{b2} {:.0}%", tau.trim_start_matches('+'), 100.0 * all.i_squared))
}

/// How much the VMs differ, in a sentence.
pub(crate) fn spread(figure: &FigureByVm) -> String {
    let by_size = |x: &&VmEffect, y: &&VmEffect| x.change.value.total_cmp(&y.change.value);
    let (Some(least), Some(most)) = (figure.vms.iter().min_by(by_size), figure.vms.iter().max_by(by_size)) else {
        return String::new();
    };
    match figure.all {
        None => "fewer than two VMs have enough rounds for an interval".into(),
        Some(all) if all.i_squared > DIFFERS => {
            let of = |vm: &VmEffect| format!("{} ({})", change(figure, vm.change), vm.vm);
            format!("the VMs differ: from {} to {}", of(least), of(most))
        }
        Some(_) => "the VMs do not differ by more than chance".into(),
    }
}

/// Whether the reader must know that the VMs differ: by more than chance, and there is an effect on all together, or VMs contradict
/// each other.
fn matters(figure: &FigureByVm) -> bool {
    let Some(all) = figure.all.filter(|all| all.i_squared > DIFFERS) else { return false };
    let none = if figure.is_ratio { 1.0 } else { 0.0 };
    let is_decided = |e: Estimate| e.low.is_some_and(|low| low > none) || e.high.is_some_and(|high| high < none);
    let bounds = || figure.vms.iter().filter_map(|vm| Some((vm.change.low?, vm.change.high?)));
    let highest_low = bounds().map(|(low, _)| low).fold(f64::NEG_INFINITY, f64::max);
    let lowest_high = bounds().map(|(_, high)| high).fold(f64::INFINITY, f64::min);
    is_decided(all.change) || highest_low > lowest_high
}

/// A line about each figure by which VMs differ so much that the values of all together do not tell it.
pub(crate) fn differing_vms(c: &Comparison) -> Vec<String> {
    let figures = c.by_vm.figures.iter().filter(|figure| matters(figure));
    figures.map(|figure| format!("{}: {}", title(figure), spread(figure))).collect()
}

/// The VMs that are not compared by themselves; none if all are.
pub(crate) fn more_vms(c: &Comparison) -> Option<String> {
    let more = c.by_vm.more;
    (more > 0).then(|| format!("{more} more VMs, with fewer entries, are not compared by themselves"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::{by_vm, comparison};

    fn with(change: impl Fn(&mut FigureByVm)) -> Vec<String> {
        let mut c = Comparison { by_vm: by_vm(), ..comparison() };
        c.by_vm.figures.truncate(1);
        change(&mut c.by_vm.figures[0]);
        differing_vms(&c)
    }

    #[test]
    fn the_reader_is_told_that_vms_differ_only_where_it_matters() {
        assert_eq!(with(|_| ()), ["guest time p50: the VMs differ: from -1.0% (db) to +12.0% (web1)"]);
        let same: Vec<String> = with(|figure| figure.all.as_mut().unwrap().i_squared = 0.5);
        assert_eq!(same, Vec::<String>::new());
        // Neither is the effect on all decided, nor do VMs contradict each other.
        let undecided = with(|figure| {
            figure.vms.iter_mut().for_each(|vm| (vm.change.low, vm.change.high) = (Some(0.1), Some(10.0)));
        });
        assert_eq!(undecided, Vec::<String>::new());
        let decided = with(|figure| {
            figure.vms.iter_mut().for_each(|vm| (vm.change.low, vm.change.high) = (Some(0.1), Some(10.0)));
            figure.all.as_mut().unwrap().change.low = Some(1.01);
        });
        assert_eq!(decided.len(), 1);
        assert_eq!(with(|figure| figure.all = None), Vec::<String>::new());
    }

    #[test]
    fn changes_are_in_percent_where_they_are_compared_as_ratios() {
        let all = by_vm();
        let [p50, writes] = all.figures.as_slice() else { panic!("{all:?}") };
        let texts = |figure: &FigureByVm, at: usize| {
            let vm = &figure.vms[at];
            [change(figure, vm.change), interval(figure, vm.change)]
        };
        assert_eq!(texts(p50, 0), ["+12.0%", "[+10.0, +14.0]%"]);
        assert_eq!(texts(p50, 2)[1], "n/a");
        assert_eq!(texts(writes, 0), ["+0.410", "[+0.400, +0.420]"]);
        assert_eq!(heterogeneity(p50).unwrap(), "tau 13.0%, I\u{b2} 97%");
        assert_eq!(spread(writes), "the VMs do not differ by more than chance");
    }
}
