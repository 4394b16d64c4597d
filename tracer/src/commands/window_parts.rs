//! Windows of a recording while it is read: the VMs have no names yet, and whether a vCPU is left out of a round is not known.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    compare::{
        Stratum, Window,
        presence::{self, Entries, LeftOut, Vcpu},
        schedule::PLACES,
    },
    model::{
        course::Course,
        interval::Interval,
        series::{Key, Series},
    },
    recording::Label,
    report::{Filter, Report},
};

/// Windows of one recording at most; neighbours of a longer recording are merged.
pub(super) const MOST_WINDOWS: usize = 512;

/// Whose entries are kept apart until all is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Apart {
    /// nobody's
    No,
    /// each VM's: the name of a VM depends on its namesakes, which are known only at the end
    ByVm,
    /// each vCPU's, up to the end of its round: it may be left out of it
    ByVcpu,
}

/// Whose entries they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    All,
    Vm(u32),
    Vcpu(Vcpu),
}

/// A window whose VMs have no names yet.
pub(super) struct Parts {
    window: Window,
    strata: BTreeMap<Owner, BTreeMap<Stratum, Series>>,
    /// every vCPU with an entry that passes the filters
    vcpus: BTreeSet<Vcpu>,
    /// all entries of every vCPU, whatever the filters
    entries: Entries,
}

impl Parts {
    /// The entries of an interval that pass the filters, but for those by VM.
    pub(super) fn of(interval: &Interval, report: &Report, filters: &[Filter], apart: Apart) -> Self {
        let Interval { start_ns: start_unix_ns, length_ns, totals, .. } = *interval;
        let window = Window { start_unix_ns, length_ns, totals, ..Window::default() };
        let mut parts = Self { window, strata: BTreeMap::new(), vcpus: BTreeSet::new(), entries: BTreeMap::new() };
        for (key, series) in &interval.series {
            let vcpu = (key.vm, key.vcpu);
            if series.entries() > 0 {
                add(&mut parts.entries, vcpu, series.entries());
            }
            if !report.passes(key, filters) {
                continue;
            }
            let owner = match apart {
                Apart::No => Owner::All,
                Apart::ByVm => Owner::Vm(key.vm),
                Apart::ByVcpu => Owner::Vcpu(vcpu),
            };
            let stratum = Stratum { level: key.level, isa: key.isa, reason: key.reason, cause: key.cause };
            parts.strata.entry(owner).or_default().entry(stratum).or_default().merge(series);
            if series.entries() > 0 {
                parts.vcpus.insert(vcpu);
            }
        }
        parts
    }

    /// Takes the next part in; returns by how many histogram buckets this one grew.
    fn absorb(&mut self, next: Self) -> usize {
        self.window.merge(&next.window);
        self.vcpus.extend(next.vcpus);
        next.entries.into_iter().for_each(|(vcpu, entries)| add(&mut self.entries, vcpu, entries));
        let mut grown = 0;
        for (owner, strata) in next.strata {
            let mine = self.strata.entry(owner).or_default();
            for (stratum, series) in strata {
                grown += mine.entry(stratum).or_default().absorb(&series);
            }
        }
        grown
    }

    /// Adds these vCPUs' entries to those of their VMs.
    fn pool(&mut self, vcpus: &BTreeSet<Vcpu>) {
        for &vcpu in vcpus {
            let strata = self.strata.remove(&Owner::Vcpu(vcpu)).unwrap_or_default();
            for (stratum, series) in strata {
                self.strata.entry(Owner::Vm(vcpu.0)).or_default().entry(stratum).or_default().merge(&series);
            }
        }
    }

    fn buckets(&self) -> usize {
        self.strata.values().flat_map(BTreeMap::values).map(Series::buckets).sum()
    }

    /// The window of the VMs that pass the filters, when all names are known, without the vCPUs that are `absent`, whose entries are
    /// added to `left_out`; with the distributions of each VM if asked for.
    fn join(self, names: &Names, absent: impl Fn(Vcpu) -> bool, keeps_vms: bool, left_out: &mut Entries) -> Window {
        let mut window = self.window;
        for (owner, strata) in self.strata {
            match owner {
                Owner::Vm(vm) | Owner::Vcpu((vm, _)) if !names.passes(vm) => continue,
                Owner::Vcpu(vcpu) if absent(vcpu) => {
                    let entries = strata.values().map(Series::entries).fold(0, u64::saturating_add);
                    window.left_out = window.left_out.saturating_add(entries);
                    add(left_out, vcpu, entries);
                    continue;
                }
                Owner::All | Owner::Vm(_) | Owner::Vcpu(_) => {}
            }
            let part = match owner {
                Owner::Vm(vm) | Owner::Vcpu((vm, _)) if keeps_vms => {
                    let vms = [(names.of(vm), strata.clone())].into();
                    Window { strata, vms, start_unix_ns: window.start_unix_ns, ..Window::default() }
                }
                _ => Window { strata, start_unix_ns: window.start_unix_ns, ..Window::default() },
            };
            window.merge(&part);
        }
        let vcpus = self.vcpus.into_iter().filter(|vcpu| names.passes(vcpu.0) && !absent(*vcpu));
        window.vcpus = vcpus.map(|(vm, vcpu)| (names.of(vm), vcpu)).collect();
        window
    }
}

fn add(counts: &mut Entries, vcpu: Vcpu, entries: u64) {
    let count = counts.entry(vcpu).or_default();
    *count = count.saturating_add(entries);
}

/// The names of the VMs, and the filters by them.
pub(super) struct Names<'a> {
    pub(super) report: &'a Report,
    pub(super) filters: &'a [Filter],
}

impl Names<'_> {
    fn of(&self, vm: u32) -> String {
        self.report.vm_name(vm)
    }

    fn passes(&self, vm: u32) -> bool {
        self.report.passes(&Key { vm, ..Key::default() }, self.filters)
    }
}

/// The parts of one recording.
#[derive(Default)]
pub(super) struct AllParts {
    course: Course<(Option<Label>, Parts)>,
    /// histogram buckets of all of them
    pub(super) buckets: usize,
}

impl AllParts {
    /// Adds the next interval. `continues`: it goes on with the one before.
    pub(super) fn add(&mut self, label: Option<Label>, continues: bool, parts: Parts) {
        let round = |label: &Option<Label>| label.map(|l| l.round);
        if !continues && self.course.parts().last().is_some_and(|(last, _)| round(last) != round(&label)) {
            self.end_round();
        }
        let mut grown = parts.buckets();
        match self.course.last_mut().filter(|_| continues) {
            Some((_, last)) => grown = last.absorb(parts),
            None => self.course.add((label, parts), |(_, last), (_, next)| grown = last.absorb(next)),
        }
        self.buckets += grown;
        // The windows of an experiment stay apart. Others are merged to at most MOST_WINDOWS in the end.
        while label.is_none() && self.course.parts().len() > 2 * MOST_WINDOWS {
            self.course.halve(|(_, first), (_, second)| {
                first.absorb(second);
            });
            self.buckets = self.course.parts().iter().map(|(_, parts)| parts.buckets()).sum();
        }
    }

    /// Pools the vCPUs that entered in every window of the round that has ended with the others of their VM: they are never left out of
    /// it, and apart they would take a multiple of the memory.
    fn end_round(&mut self) {
        let parts = self.course.parts_mut();
        let Some(Some(Label { round, .. })) = parts.last().map(|(label, _)| *label) else { return };
        let others = parts.iter().rposition(|(label, _)| label.is_none_or(|l| l.round != round));
        let windows = &mut parts[others.map_or(0, |at| at + 1)..];
        if windows.len() != usize::from(PLACES) {
            return;
        }
        let mut present: BTreeSet<Vcpu> = windows[0].1.entries.keys().copied().collect();
        present.retain(|vcpu| windows.iter().all(|(_, parts)| parts.entries.contains_key(vcpu)));
        for (_, parts) in windows {
            let before = parts.buckets();
            parts.pool(&present);
            self.buckets = self.buckets - before + parts.buckets();
        }
    }

    /// The windows, when all names are known, and what was left out of them: vCPUs that were absent from a window of their round. With
    /// the distributions of each VM if asked for.
    pub(super) fn into_windows(self, names: &Names, keeps_vms: bool) -> (Vec<(Option<Label>, Window)>, Vec<LeftOut>) {
        let parts = self.course.into_parts();
        let labelled: Vec<_> = parts.iter().filter_map(|(label, parts)| Some(((*label)?, &parts.entries))).collect();
        let absences = presence::absences(&labelled);
        let seen: BTreeSet<Vcpu> = parts.iter().flat_map(|(_, parts)| parts.vcpus.iter().copied()).collect();
        let mut left_out = Entries::new();
        let join = |(label, parts): (Option<Label>, Parts)| {
            let absent = |vcpu: Vcpu| {
                let rounds = absences.get(&vcpu);
                label.is_some_and(|label| rounds.is_some_and(|rounds| rounds.contains(&label.round)))
            };
            (label, parts.join(names, absent, keeps_vms, &mut left_out))
        };
        let windows = parts.into_iter().map(join).collect();
        // Nothing is said of those that a filter leaves out anyway.
        let said = absences.into_iter().filter(|(vcpu, _)| seen.contains(vcpu) && names.passes(vcpu.0));
        let said = said.map(|(vcpu, rounds)| LeftOut {
            vm: names.of(vcpu.0),
            vcpu: vcpu.1,
            rounds,
            entries: left_out.get(&vcpu).copied().unwrap_or(0),
        });
        (windows, said.collect())
    }
}

#[cfg(test)]
mod tests;
