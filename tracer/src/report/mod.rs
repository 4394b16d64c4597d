//! A report: recordings merged, filtered, grouped and sorted. Pure but for `input`; text, JSON, HTML and CSV are views of it.

pub mod claims;
pub(crate) mod csv;
mod filter;
pub(crate) mod html;
pub mod input;
pub mod json;
mod notes;
mod observed;
pub(crate) mod openmetrics;
mod rows;
pub mod text;
pub(crate) mod timeline;
mod view;
mod vm_index;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::Result;
use tracer_common::rules::TimerCause;

use crate::{
    kernel::vmwrite_sites::Site,
    model::{
        exit_reasons,
        figures::Figure,
        histogram::Histogram,
        interval::{Interval, Vm, absorb},
        knowledge::{Knowledge, Subject, TimerExits, Unknown},
        measurement::{Aggregation, Latency, OtherTracers, SoftDelay, erratum_explains_early},
        series::{EntryKind, Key, Series},
        totals::foreign_isa_text,
        vendor::Vendor,
    },
    recording::{self, Coverage, MaxBuckets, Provenance, Readings},
};

pub(crate) use filter::Choices;
pub use filter::Filter;
pub use rows::{Row, Rows};
use timeline::Timeline;
pub use view::{Dimension, View};
use vm_index::VmIndex;

/// Recordings merged.
#[derive(Debug, Default)]
pub struct Report {
    /// the recordings
    pub sources: Vec<Provenance>,
    /// all their intervals merged; VMs have numbers of the report's own
    pub whole: Interval,
    /// their course
    pub timeline: Timeline,
    /// by number of a VM: its vCPUs, where `whole` has the series of all of them together, under vCPU 0. None where it keeps them apart
    pub(crate) vcpus: Option<BTreeMap<u32, BTreeSet<u32>>>,
    pub(crate) index: VmIndex,
    /// histogram buckets of `whole`
    pub(crate) buckets: usize,
    /// how many `whole` and `timeline` may have together
    pub(crate) limit: MaxBuckets,
    /// by number of a VM: indices of the sources that have entries of it
    pub(crate) seen_in: BTreeMap<u32, BTreeSet<usize>>,
    /// what was read of each source
    pub(crate) readings: Readings,
    /// the time that each source covers
    pub(crate) covered: Coverage,
    /// what to say about recordings that several files have
    pub(crate) repeats: Vec<String>,
    /// the part of a recording that these intervals are, for people; none where all was read
    pub(crate) shown: Option<String>,
}

impl Report {
    /// Adds an interval of `sources[at]`, which starts in ns since 1970. `vms` maps the file's VM numbers to the report's and is kept between calls.
    pub fn add(&mut self, at: usize, interval: Interval, vms: &mut BTreeMap<u32, u32>) {
        let interval = self.admit(at, interval, vms);
        self.absorb(interval);
    }

    /// Notes the time and the VMs of an interval of `sources[at]`, and returns it with the report's numbers of them, for [`Self::absorb`].
    fn admit(&mut self, at: usize, interval: Interval, vms: &mut BTreeMap<u32, u32>) -> Interval {
        let interval = self.renumber(at, interval, vms);
        self.covered.add(at, interval.start_ns, interval.length_ns);
        if let Some(vcpus) = &mut self.vcpus {
            for key in interval.series.keys() {
                vcpus.entry(key.vm).or_default().insert(key.vcpu);
            }
        }
        interval
    }

    /// Makes the key under which the report has a series.
    fn kept(&self) -> fn(Key) -> Key {
        if self.vcpus.is_some() { |key| Key { vcpu: 0, ..key } } else { |key| key }
    }

    /// Adds what was admitted: an interval, or the sum of several.
    fn absorb(&mut self, interval: Interval) {
        self.buckets += self.whole.absorb(interval);
    }

    /// Fails if it and `more` histogram buckets are more than it may have, now that `line` of a file was read.
    pub(crate) fn check_size(&self, more: usize, line: u64) -> Result<()> {
        self.limit.check(self.buckets + self.timeline.buckets() + more, line)
    }

    /// Adds the VMs of an interval of `sources[at]`, and returns it with the report's numbers of them.
    pub(crate) fn renumber(&mut self, at: usize, mut interval: Interval, vms: &mut BTreeMap<u32, u32>) -> Interval {
        let host = self.sources.get(at).map(|s| s.header.host.name.clone()).filter(|name| !name.is_empty());
        for (old, vm) in std::mem::take(&mut interval.vms) {
            let id = *vms.entry(old).or_insert_with(|| {
                let next = self.whole.vms.keys().next_back().map_or(0, |last| last + 1);
                self.index.number(self.sources.get(at).map(|s| &s.header), &vm, next)
            });
            self.seen_in.entry(id).or_default().insert(at);
            let vm =
                self.whole.vms.entry(id).or_insert_with(|| Arc::new(Vm { id, host: host.clone(), ..Vm::clone(&vm) }));
            interval.vms.insert(id, Arc::clone(vm));
        }
        if vms.iter().all(|(old, new)| old == new) {
            return interval;
        }
        for (key, series) in std::mem::take(&mut interval.series) {
            // Two of the file's VMs can be one: a recorder forgets a VM after 65 536 others.
            absorb(interval.series.entry(Key { vm: vms[&key.vm], ..key }), series);
        }
        interval
    }

    /// Whether the recordings come from more than one host.
    pub(crate) fn has_hosts(&self) -> bool {
        self.sources.windows(2).any(|pair| pair[0].header.host.name != pair[1].header.host.name)
    }

    /// Name of a VM among all hosts.
    pub(crate) fn vm_name(&self, id: u32) -> String {
        self.index.name(&self.whole.vms, id).map_or_else(|| format!("vm-{id}"), |name| name.among_hosts.clone())
    }

    /// Name of a VM on its host.
    pub(crate) fn vm_name_on_host(&self, id: u32) -> String {
        self.index.name(&self.whole.vms, id).map_or_else(|| format!("vm-{id}"), |name| name.on_host.clone())
    }

    /// Value of a dimension as shown; none if it is unknown or does not apply.
    pub fn value(&self, key: &Key, dimension: Dimension) -> Option<String> {
        match dimension {
            Dimension::Host => self.whole.vms.get(&key.vm)?.host.clone(),
            Dimension::Vm => Some(self.vm_name(key.vm)),
            Dimension::Vcpu => Some(key.vcpu.to_string()),
            Dimension::Level => known(key.level.name()),
            Dimension::Reason => key.reason.map(|r| exit_reasons::name(key.isa, r).into_owned()),
            Dimension::Entry => known(key.entry.name()),
            Dimension::Cause => key.cause.map(|c| c.name().to_owned()),
            Dimension::Detail => key.detail.map(|detail| detail.to_string()),
        }
    }

    /// All series together: number of entries, and sums of times.
    pub(crate) fn sum(&self) -> Series {
        let mut sum = Series::default();
        for series in self.whole.series.values() {
            sum.merge(series);
        }
        sum
    }

    /// What is known about the entries of all recordings.
    pub fn knowledge(&self) -> Knowledge {
        Knowledge::merge(self.sources.iter().map(|s| s.header.knowledge()))
    }

    /// All values of a figure of the series whose keys pass; the reason where they are not known.
    pub(crate) fn values(&self, figure: Figure, passes: impl Fn(&Key) -> bool) -> Result<Histogram, Unknown> {
        self.knowledge().figure(figure).map_err(Unknown::clone)?;
        let mut all = Histogram::default();
        self.whole.series.iter().filter(|(key, _)| passes(key)).for_each(|(_, s)| all.merge(&s[figure]));
        Ok(all)
    }

    /// Number of pin-control writes of the entries where they are known; the reason if they are known of no entry.
    pub fn pin_writes(&self) -> Result<u64, Unknown> {
        let all = self.values(Figure::PinWrites, |_| true)?;
        if all.count() == 0 {
            return Err(Unknown::because("they are known of no entry"));
        }
        Ok(all.sum())
    }

    /// Number of entries whose pin writes are not known: the first of each vCPU, and those of recordings without a source.
    pub(crate) fn entries_with_unknown_pin_writes(&self) -> u64 {
        let known = self.values(Figure::PinWrites, |_| true).map_or(0, |all| all.count());
        self.whole.series.values().map(Series::entries).sum::<u64>().saturating_sub(known)
    }

    fn counted_timer_exits(&self) -> TimerExits {
        let mut exits = TimerExits::default();
        self.whole.series.iter().for_each(|(key, series)| exits.count(key, series.entries()));
        exits
    }

    /// Number of preemption-timer exits of a cause; the reason where it is not known.
    pub fn timer_exits(&self, cause: TimerCause) -> Result<u64, Unknown> {
        self.counted_timer_exits().of(cause, &self.knowledge())
    }

    /// Number of preemption-timer exits, whatever their cause; the reason where it is not known.
    pub(crate) fn all_timer_exits(&self) -> Result<u64, Unknown> {
        self.counted_timer_exits().all(&self.knowledge())
    }

    /// Guest time of spurious timer exits, ns: least and median; none without such an exit, or where their number or time is not known.
    pub(crate) fn spurious_after(&self) -> Option<(u64, u64)> {
        self.least_and_median(TimerCause::Spurious, Figure::EntryToExit)
    }

    /// Time from early timer exits to their deadlines, ns: least and median; none without such an exit, or where their number or time is
    /// not known.
    pub(crate) fn early_before(&self) -> Option<(u64, u64)> {
        self.least_and_median(TimerCause::Early, Figure::DeadlineRemaining)
    }

    /// Spurious timer exits before the time that the value of a soft-disabled timer promises; the reason where their number, their guest
    /// time or that time is not known.
    pub(crate) fn spurious_before_time(&self) -> Result<BeforeTime, Unknown> {
        self.timer_exits(TimerCause::Spurious)?;
        self.knowledge().figure(Figure::EntryToExit).map_err(Unknown::clone)?;
        let mut found = BeforeTime::default();
        for (key, series) in self.whole.series.iter().filter(|(key, _)| key.cause == Some(TimerCause::Spurious)) {
            let seen = self.seen_in.get(&key.vm).into_iter().flatten();
            let delay = soft_delay(seen.filter_map(|at| self.sources.get(*at)))?;
            found.promised_ns = found.promised_ns.max(Some(delay.promised_ns));
            // Buckets are narrow: 0.1 % of their values, and in-kernel ones 3 %.
            for (low, width, n) in
                series[Figure::EntryToExit].buckets().filter(|b| b.0.saturating_add(b.1) <= delay.least_ns())
            {
                found.count += n;
                found.explained += if delay.explains(low + width) { n } else { 0 };
            }
        }
        Ok(found)
    }

    /// How long a soft-disabled timer runs, where it is the same in all recordings; the reason where it is not known.
    pub(crate) fn soft_delay(&self) -> Result<SoftDelay, Unknown> {
        soft_delay(&self.sources)
    }

    /// Early timer exits whose remaining time is known, and those of them that erratum EMR158 explains.
    pub(crate) fn early_explained(&self) -> Result<(u64, u64), Unknown> {
        let all = self.values(Figure::DeadlineRemaining, |key| key.cause == Some(TimerCause::Early))?;
        let delay = self.soft_delay().ok();
        let by_erratum = |(low, width, _): &(u64, u64, u64)| erratum_explains_early(low + width / 2, delay.as_ref());
        Ok((all.count(), all.buckets().filter(by_erratum).map(|(.., n)| n).sum()))
    }

    fn least_and_median(&self, cause: TimerCause, figure: Figure) -> Option<(u64, u64)> {
        self.timer_exits(cause).ok()?;
        let all = self.values(figure, |key| key.cause == Some(cause)).ok()?;
        Some((all.min()?, all.quantile(0.5)?))
    }

    /// `transition_ns` of clean or of dirty entries; the reason where it, or the kind, is not known.
    pub(crate) fn transitions(&self, kind: EntryKind) -> Result<Histogram, Unknown> {
        self.knowledge().figure(Figure::PinWrites).map_err(Unknown::clone)?;
        self.values(Figure::Transition, |key| key.entry == kind)
    }

    /// The other tracers that were on kvm_entry and kvm_exit in any recording.
    pub(crate) fn other_tracers(&self) -> OtherTracers {
        OtherTracers::merge(self.sources.iter().map(Provenance::other_tracers))
    }

    /// Whether other tracers were looked for in all recordings: then none in [`Self::other_tracers`] means that there were none to see.
    pub(crate) fn looked_for_tracers(&self) -> bool {
        self.sources.iter().all(Provenance::looked_for_tracers)
    }

    /// Whether times are disturbed: the worst of the recordings.
    pub fn latency(&self) -> Latency {
        let of = |l| self.sources.iter().any(|s| s.header.latency == l);
        [Latency::Disturbed, Latency::DisturbedButAsked].into_iter().find(|&l| of(l)).unwrap_or_default()
    }

    /// Says how many entries are of another instruction set than that of the host's KVM module; none where none are.
    pub(crate) fn foreign_isa(&self) -> Option<String> {
        let mut vendors = self.sources.iter().map(|s| s.header.host.vendor);
        let vendor = vendors.next().flatten().filter(|first| vendors.all(|other| other == Some(*first)));
        foreign_isa_text(&self.whole.totals, vendor, self.whole.series.keys().map(|key| key.isa))
    }

    /// Entries that are missing from the series.
    pub(crate) fn lost(&self) -> u64 {
        let t = &self.whole.totals;
        t.dropped.saturating_add(t.malformed).saturating_add(t.not_kept)
    }

    /// Returns the place that counted entries: the coarsest of the recordings.
    pub fn aggregation(&self) -> Aggregation {
        recording::aggregation(&self.sources)
    }

    /// VMWRITE sites and their counts; none if the recordings have different sites.
    pub(crate) fn sites(&self) -> impl Iterator<Item = (&Site, u64)> {
        let sites = self.sources.first().map_or(&[][..], |s| &s.header.sites);
        let same = self.sources.iter().all(|s| s.header.sites == sites);
        sites.iter().zip(self.whole.totals.site_writes).filter(move |_| same)
    }

    /// What was left out of the recordings because it is damaged; none where nothing was.
    pub(crate) fn damage(&self) -> Option<String> {
        recording::damage(&self.sources)
    }

    /// Whether all recordings are of SVM hosts.
    pub(crate) fn is_svm(&self) -> bool {
        let is_svm = |source: &Provenance| source.header.host.vendor == Some(Vendor::Amd);
        !self.sources.is_empty() && self.sources.iter().all(is_svm)
    }

    /// Whether any recording was made on an emulated CPU.
    pub(crate) fn is_emulated(&self) -> bool {
        self.sources.iter().any(|s| s.header.host.emulated)
    }

    /// False if the kernel's count of entries and the delivered records disagree: then no figure can be trusted.
    pub(crate) fn is_exact(&self) -> bool {
        let t = &self.whole.totals;
        t.entries == t.delivered + t.dropped
            && self.sources.iter().filter_map(|s| s.end.as_ref()).all(|e| e.accounting.exact)
    }
}

/// Spurious timer exits before their time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BeforeTime {
    /// how many
    pub(crate) count: u64,
    /// of these, how many ran for as long as erratum EMR158's model says, or longer
    pub(crate) explained: u64,
    /// the time that the timer's value promises, ns: the longest of the recordings; none without a spurious exit
    pub(crate) promised_ns: Option<u64>,
}

impl BeforeTime {
    /// Which of them the erratum explains, for people.
    pub(crate) fn explanation(self) -> String {
        explanation(self.count, self.explained, "")
    }
}

/// Which exits of a number erratum EMR158 explains, for people; empty without any. `why_not` is added where it explains none.
pub(crate) fn explanation(count: u64, explained: u64, why_not: &str) -> String {
    match explained {
        _ if count == 0 => String::new(),
        0 => format!("not explained by erratum EMR158{why_not}"),
        all if all == count => "erratum EMR158".into(),
        some => format!("erratum EMR158 explains {some} of {count}"),
    }
}

/// How long a soft-disabled timer runs in these recordings, where it is the same in all that have a timer; the reason where it is not known.
fn soft_delay<'a>(sources: impl IntoIterator<Item = &'a Provenance>) -> Result<SoftDelay, Unknown> {
    let mut found: Option<SoftDelay> = None;
    for source in sources {
        if source.header.knowledge().known(Subject::TimerExits).is_err() {
            continue;
        }
        if source.has_stopwatch() {
            return Err(Unknown::because("the companion patch's stopwatch restarts the timer"));
        }
        let unknown = || Unknown::because("the recording does not tell the delay of a soft-disabled timer");
        let delay = source.header.soft_delay.filter(|delay| delay.promised_ns > 0).ok_or_else(unknown)?;
        match found {
            Some(first) if first.promised_ns.abs_diff(delay.promised_ns) > first.promised_ns / 100 => {
                return Err(Unknown::because("the delay of a soft-disabled timer is not the same in all recordings"));
            }
            Some(first) => found = Some(SoftDelay { real_ns: first.real_ns.or(delay.real_ns), ..first }),
            None => found = Some(delay),
        }
    }
    found.ok_or_else(|| Unknown::because("no recording has the timer"))
}

fn known(name: &str) -> Option<String> {
    (name != "unknown").then(|| name.to_owned())
}

#[cfg(test)]
pub mod tests {
    //! Tests, and made-up reports for the tests of other modules.

    use super::*;
    use crate::{
        model::{
            figures::Column,
            interval::tests::{event, vm},
            totals::Totals,
        },
        recording::tests::header,
    };

    /// A report of two vCPUs: 23 timer exits of vCPU 1, each with 2 pin writes, 97 CPUID exits of vCPU 0 without.
    pub fn report() -> Report {
        let mut interval = Interval::starting(5);
        interval.length_ns = 2_000_000_000;
        for n in 0..97 {
            interval.record(&event(0, 10, 1000 + n, 0), &vm(0));
        }
        for n in 0..23 {
            interval.record(&event(1, 52, 50_000 + n, 2), &vm(0));
        }
        interval.totals = Totals { entries: 125, delivered: 120, dropped: 5, unmatched: 1, ..Totals::default() };
        let mut source = Provenance::unread("x.hlog".into(), header());
        (source.intervals, source.length_ns) = (1, interval.length_ns);
        let mut report = Report { sources: vec![source], ..Report::default() };
        report.timeline.add(0, 1_700_000_000_000_000_000, &interval);
        report.add(0, interval, &mut BTreeMap::new());
        report
    }

    /// By VM and reason, most entries first.
    pub fn view() -> View {
        View { by: vec![Dimension::Vm, Dimension::Reason], filters: vec![], sort: Column::Entries, top: None }
    }

    fn groups(rows: &[Row]) -> Vec<(String, u64)> {
        rows.iter().map(|r| (r.group.join("/"), r.series.entries())).collect()
    }

    #[test]
    fn rows_are_grouped_filtered_and_sorted() {
        let report = report();
        assert_eq!(groups(&report.rows(&view())), [("vm0/CPUID".into(), 97), ("vm0/PREEMPTION_TIMER".into(), 23)]);
        let slowest = View { sort: Column::parse("entry_to_exit_ns.p50").unwrap(), top: Some(1), ..view() };
        assert_eq!(groups(&report.rows(&slowest)), [("vm0/PREEMPTION_TIMER".into(), 23)]);
        let filters = vec!["reason=cpuid".parse().unwrap()];
        assert_eq!(groups(&report.rows(&View { filters, ..view() })), [("vm0/CPUID".into(), 97)]);
        let whole = View { by: vec![], ..view() };
        assert_eq!(groups(&report.rows(&whole)), [(String::new(), 120)]);
    }

    #[test]
    fn sums_are_those_of_the_events() {
        let report = report();
        assert_eq!(report.pin_writes(), Ok(46));
        assert_eq!(report.timer_exits(TimerCause::Deadline), Ok(23));
        assert_eq!(report.timer_exits(TimerCause::Spurious), Ok(0));
        assert!(report.is_exact());
        assert!(Report::default().pin_writes().is_err());
        assert!(Report::default().timer_exits(TimerCause::Spurious).is_err());
    }

    #[test]
    fn a_host_that_cannot_tell_causes_has_no_count_of_any() {
        let mut report = report();
        report.sources[0].header.missing = vec!["loaded_vmcs.hv_timer_soft_disabled: causes of timer exits n/a".into()];
        let reason = report.timer_exits(TimerCause::Spurious).unwrap_err().to_string();
        assert_eq!(reason, "field loaded_vmcs.hv_timer_soft_disabled is not in this kernel");
        assert_eq!(report.all_timer_exits(), Ok(23), "their number needs no cause");
    }

    #[test]
    fn a_vm_keeps_its_number_across_recordings_of_one_boot_only() {
        let mut report = report();
        let mut again = Interval::starting(9);
        again.record(&event(0, 10, 7, 0), &vm(0));
        report.add(0, again.clone(), &mut BTreeMap::new());
        assert_eq!(report.whole.vms.len(), 1);
        let mut others = Interval::starting(9);
        others.record(&event(0, 10, 7, 0), &vm(1));
        others.record(&event(0, 10, 7, 0), &vm(2));
        report.add(0, others, &mut BTreeMap::new());
        assert_eq!(report.whole.vms.len(), 3);
        let mut other_boot = report.sources[0].clone();
        other_boot.header.host.boot_id = "another".into();
        report.sources.push(other_boot);
        report.add(1, again, &mut BTreeMap::new());
        assert_eq!(report.whole.vms.len(), 4);
    }
}
