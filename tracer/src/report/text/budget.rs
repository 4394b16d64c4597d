//! Where the time of each VM's vCPUs went: a line each above the table.

use std::collections::{BTreeMap, BTreeSet};

use super::{Layout, columns::percent};
use crate::{
    model::{
        budget::Phase,
        knowledge::{Knowledge, Subject, Unknown},
        series::Series,
    },
    output::{align, cells, grouped, one_line, wrap},
    report::{Dimension, Report, View},
};

/// Most lines, unless all rows are wanted.
const MOST: usize = 10;

/// Whether there are lines: not where times are not known, or a filter leaves out a part of the vCPUs' time, which the shares would miss.
pub(super) fn is_shown(report: &Report, view: &View) -> bool {
    let is_whole =
        view.filters.iter().all(|f| matches!(f.dimension, Dimension::Host | Dimension::Vm | Dimension::Vcpu));
    is_whole && report.knowledge().known(Subject::Times).is_ok()
}

/// The lines, those of the VMs that were busiest first; empty where there are none to show. By vCPU where the view is.
pub(super) fn render(report: &Report, view: &View, layout: &Layout) -> String {
    if !is_shown(report, view) {
        return String::new();
    }
    let knowledge = report.knowledge();
    let mut all = of_each(report, view);
    let busy = |of: &Of| {
        let budget = &of.times.budget;
        budget.total_ns().saturating_sub(budget.polled_ns).saturating_sub(budget.idle_ns)
    };
    // Stable: equal ones stay in the order of their names.
    all.sort_by_key(|of| std::cmp::Reverse(busy(of)));
    let most = if view.top == Some(usize::MAX) { all.len() } else { MOST };
    // One more takes no more room than to say so.
    let shown = if all.len() == most + 1 { all.len() } else { all.len().min(most) };
    let lines: Vec<Vec<String>> = all[..shown].iter().map(|of| of.line(&knowledge)).collect();
    let mut out = align(&lines, lines.first().map_or(0, Vec::len));
    let rest = all.len() - shown;
    if rest > 0 {
        let what = if view.by.contains(&Dimension::Vcpu) { "vCPUs" } else { "VMs" };
        out += &format!("... {} more {what}: --top all\n", grouped(rest as u64));
    }
    out += &unknown(&knowledge);
    match layout.width {
        Some(width) if out.lines().any(|line| cells(line) > width) => narrow(&out, width),
        _ => out,
    }
}

/// The times of a VM, or of a vCPU.
struct Of {
    name: String,
    vcpus: BTreeSet<u32>,
    times: Series,
    is_vcpu: bool,
}

/// Those of entries that pass the filters.
fn of_each(report: &Report, view: &View) -> Vec<Of> {
    let is_vcpu = view.by.contains(&Dimension::Vcpu);
    let mut each: BTreeMap<(String, u32), Of> = BTreeMap::new();
    let mut names: BTreeMap<u32, String> = BTreeMap::new();
    for (key, series) in report.whole.series.iter().filter(|(key, _)| report.passes(key, &view.filters)) {
        let name = names.entry(key.vm).or_insert_with(|| report.vm_name(key.vm));
        let of = each.entry((name.clone(), if is_vcpu { key.vcpu } else { 0 })).or_insert_with(|| Of {
            name: name.clone(),
            vcpus: BTreeSet::new(),
            times: Series::default(),
            is_vcpu,
        });
        match &report.vcpus {
            Some(vcpus) => of.vcpus.extend(vcpus.get(&key.vm).into_iter().flatten()),
            None => of.vcpus.extend([key.vcpu]),
        }
        of.times.budget.merge(&series.budget);
    }
    each.into_values().collect()
}

impl Of {
    fn line(&self, knowledge: &Knowledge) -> Vec<String> {
        let times = knowledge.show(self.times.clone());
        let budget = times.budget().copied().unwrap_or_default();
        let total = budget.total_ns();
        let share = |ns: u64| percent((total > 0).then(|| ns as f64 / total as f64), 1);
        let vcpus = match (self.is_vcpu, self.vcpus.len()) {
            (true, _) => format!("vCPU {}", self.vcpus.first().copied().unwrap_or_default()),
            (false, 1) => "1 vCPU".into(),
            (false, n) => format!("{} vCPUs", grouped(n as u64)),
        };
        let mut cells = vec![self.name.clone(), vcpus, format!("guest {:>4} %", share(budget.guest_ns))];
        if Phase::ALL[1..].iter().all(|phase| times.phase(*phase).is_none()) {
            cells.push(format!("host {:>4} %", share(budget.host_ns)));
            return cells;
        }
        cells.extend(Phase::ALL.map(|phase| {
            let share = times.phase(phase).map_or("n/a".into(), share);
            // The unit stands at both ends of the line.
            let unit = if phase == Phase::Steal && times.phase(phase).is_some() { " %" } else { "" };
            format!("{} {share:>4}{unit}", phase.name())
        }));
        cells
    }
}

fn known(knowledge: &Knowledge, phase: Phase) -> Result<(), &Unknown> {
    Subject::of_phase(phase).map_or(Ok(()), |subject| knowledge.known(subject))
}

/// Why parts of the host time are not known, and where they are.
fn unknown(knowledge: &Knowledge) -> String {
    let mut reasons: Vec<(String, Vec<&str>)> = Vec::new();
    for phase in Phase::ALL {
        let Err(reason) = known(knowledge, phase).map_err(ToString::to_string) else { continue };
        match reasons.iter_mut().find(|(why, _)| *why == reason) {
            Some((_, phases)) => phases.push(phase.name()),
            None => reasons.push((reason, vec![phase.name()])),
        }
    }
    let is_whole = reasons.iter().map(|(_, phases)| phases.len()).sum::<usize>() == Phase::ALL.len() - 1;
    let within = if is_whole { "host" } else { "kernel" };
    reasons.iter().map(|(why, phases)| format!("{} n/a, within {within}: {why}\n", phases.join(", "))).collect()
}

/// Lines for a narrow terminal: with one space where there are several, and broken where that is still too long.
fn narrow(lines: &str, width: usize) -> String {
    lines.lines().map(|line| wrap(&one_line(line), "  ", width)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            budget::Budget,
            interval::{
                Interval,
                tests::{event, vm},
            },
            measurement::Latency,
            series::Key,
        },
        report::tests::{report, view},
    };

    /// A report of two vCPUs of a VM whose time went into known parts.
    fn split() -> Report {
        let mut report = report();
        report.whole.series.clear();
        report.sources[0].header.phases = true;
        let mut interval = Interval::starting(0);
        for vcpu in [0, 1] {
            interval.record(&event(vcpu, 10, 1000, 0), &vm(0));
            let key = Key::of(0, vcpu, &event(vcpu, 10, 1000, 0).outline());
            interval.series.get_mut(&key).unwrap().budget = Budget {
                guest_ns: 712_000 - 412_000 * u64::from(vcpu),
                host_ns: 288_000,
                user_ns: 20_000,
                polled_ns: 33_000,
                idle_ns: 179_000,
                steal_ns: 15_000,
            };
        }
        report.add(0, interval, &mut BTreeMap::new());
        report
    }

    #[test]
    fn a_line_has_the_shares_of_a_vms_time() {
        let lines = render(&split(), &view(), &Layout::default());
        let words: Vec<_> = lines.split_whitespace().collect();
        let expected = "vm0 2 vCPUs guest 63.7 % kernel 5.2 user 2.5 polled 4.2 idle 22.5 steal 1.9 %"
            .split(' ')
            .collect::<Vec<_>>();
        assert_eq!(words, expected, "{lines}");
        let of_vcpu = View { by: vec![Dimension::Vcpu], filters: vec!["vcpu=0".parse().unwrap()], ..view() };
        let line = render(&split(), &of_vcpu, &Layout::default());
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words, "vm0 vCPU 0 guest 71.2 % kernel 4.1 user 2.0 polled 3.3 idle 17.9 steal 1.5 %");
    }

    #[test]
    fn shares_of_a_part_of_the_time_are_not_shown() {
        let lines = |filter: &str| {
            let filters = vec![filter.parse().unwrap()];
            render(&split(), &View { filters, ..view() }, &Layout::default())
        };
        assert_eq!(lines("reason=CPUID"), "");
        assert!(lines("vm=vm0").contains("63.7 %"));
    }

    #[test]
    fn a_part_that_is_not_known_is_said_to_be_within_the_kernels() {
        let mut report = split();
        report.sources[0].header.missing = vec!["task_struct.sched_info.run_delay: steal time n/a".into()];
        let lines = render(&report, &view(), &Layout::default());
        assert!(lines.contains("steal  n/a\n"), "{lines}");
        let why = "field task_struct.sched_info.run_delay is not in this kernel";
        assert!(lines.ends_with(&format!("\nsteal n/a, within kernel: {why}\n")), "{lines}");
        (report.sources[0].header.phases, report.sources[0].header.missing) = (false, vec![]);
        let lines = render(&report, &view(), &Layout::default());
        assert!(lines.contains("host 36.3 %") && !lines.contains("kernel"), "{lines}");
        assert!(lines.contains("user, polled, idle, steal n/a, within host: "), "{lines}");
        report.sources[0].header.latency = Latency::Disturbed;
        assert_eq!(render(&report, &view(), &Layout::default()), "");
    }

    #[test]
    fn only_the_busiest_of_many_vms_have_a_line() {
        let mut report = split();
        let mut interval = Interval::starting(0);
        (1..=20).for_each(|id| interval.record(&event(0, 10, u64::from(id), 0), &vm(id)));
        report.add(0, interval, &mut BTreeMap::new());
        let lines = render(&report, &view(), &Layout::default());
        assert!(lines.starts_with("vm0 ") && lines.contains("\nvm20 "), "{lines}");
        assert!(lines.ends_with("\n... 11 more VMs: --top all\n"), "{lines}");
        let all = View { top: Some(usize::MAX), ..view() };
        assert_eq!(render(&report, &all, &Layout::default()).lines().count(), 21);
    }
}
