//! The report as OpenMetrics text: the metrics that `vmentry export` would have had at the end of the recording.

use std::sync::Arc;

use super::{Report, View};
use crate::{
    export::{
        family::{About, families},
        state::State,
        text::{self, Dialect},
        vm_label::VmLabel,
    },
    host::clock::Anchor,
    model::{interval::Vm, knowledge::Knowledge, policy::Policy},
    recording::{self, Provenance},
};

/// Metrics of the entries that pass the view's filters, of VMs by their names.
pub(crate) fn render(report: &Report, view: &View) -> String {
    labelled(report, view, Vec::new())
}

/// The same, of VMs by their names and these labels.
pub(crate) fn labelled(report: &Report, view: &View, mut labels: Vec<VmLabel>) -> String {
    let mut whole = report.whole.clone();
    whole.length_ns = report.observed_ns();
    whole.series.retain(|key, _| report.passes(key, &view.filters));
    whole.vms = (whole.vms.into_iter())
        .map(|(id, vm)| (id, Arc::new(Vm { name: report.vm_name_on_host(id), ..Vm::clone(&vm) })))
        .collect();
    labels.splice(..0, report.has_hosts().then_some(VmLabel::Host));
    let began = report.sources.iter().map(|s| s.header.anchor.unix_ns).min().unwrap_or(0);
    let began = Anchor { monotonic_ns: 0, unix_ns: began };
    let mut state = State::new(labels, usize::MAX, began);
    state.add(&whole, Anchor { unix_ns: began.unix_ns.saturating_add(whole.length_ns), ..began });
    let about = about(&report.sources);
    text::encode(&families(&about, &state), Dialect::OpenMetrics)
}

/// Properties of the hosts of some recordings.
pub(crate) fn about(sources: &[Provenance]) -> About {
    let policy = sources.first().map_or(Policy::Unknown, Provenance::policy);
    About {
        hosts: sources.iter().map(|s| s.header.host.clone()).collect(),
        policy: if sources.iter().all(|s| s.policy() == policy) { policy } else { Policy::Unknown },
        aggregation: recording::aggregation(sources),
        knowledge: Knowledge::merge(sources.iter().map(|s| s.header.knowledge())),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{report, view},
        *,
    };
    use crate::model::measurement::{Aggregation, Latency};

    #[test]
    fn the_figures_are_the_reports() {
        let text = render(&report(), &view());
        for line in [
            "vmentry_entries_total{vm=\"vm0\",level=\"L1\",entry=\"dirty\"} 23\n",
            "vmentry_pin_writes_total{vm=\"vm0\",level=\"L1\"} 46\n",
            "vmentry_timer_exits_total{vm=\"vm0\",cause=\"deadline\"} 23\n",
            "vmentry_ring_dropped_total 5\n",
            "vmentry_policy{policy=\"soft\"} 1\n",
            "vmentry_observed_seconds_total 2\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        let filters = vec!["reason=CPUID".parse().unwrap()];
        assert!(!render(&report(), &View { filters, ..view() }).contains("PREEMPTION"));
    }

    #[test]
    fn vms_have_the_labels_that_are_asked_for_and_an_empty_one_where_it_is_not_known() {
        let mut report = report();
        for vm in report.whole.vms.values_mut() {
            let labels = [("uuid".to_owned(), "6ba7".to_owned())].into();
            *vm = Arc::new(Vm { labels: std::collections::BTreeMap::into(labels), ..Vm::clone(vm) });
        }
        let labels = ["uuid", "vmid"].map(|name| VmLabel::Key(name.into()));
        let text = labelled(&report, &view(), labels.into());
        let line = "vmentry_entries_total{vm=\"vm0\",uuid=\"6ba7\",vmid=\"\",level=\"L1\",entry=\"dirty\"} 23\n";
        assert!(text.contains(line), "{text}");
        assert!(!render(&report, &view()).contains("6ba7"));
    }

    #[test]
    fn values_counted_in_the_kernel_are_labelled() {
        let mut report = report();
        assert!(render(&report, &view()).contains(",counted=\"records\"} 1\n"));
        report.sources[0].header.aggregation = Aggregation::InKernel;
        assert!(render(&report, &view()).contains(",counted=\"in-kernel\"} 1\n"));
    }

    #[test]
    fn tags_that_the_header_does_not_know_are_in_no_sample() {
        use crate::{
            model::accounting::Accounting,
            recording::{End, OnDamage, Writer, tests::header},
            report::{claims, input},
        };
        let text_of = |subject: &str| {
            let unknown = Some([(subject.to_owned(), "why".to_owned())].into());
            let mut bytes = Vec::new();
            let header = recording::Header { unknown, ..header() };
            let mut writer = Writer::new(&mut bytes, &header).unwrap();
            let mut interval = report().whole;
            (interval.totals.entries, interval.totals.dropped) = (120, 0);
            writer.write(&interval).unwrap();
            let (reason, accounting) = ("duration".into(), Accounting::default());
            writer
                .finish(End { reason, accounting, tsc_khz: None, policy_changed: false, other_tracers: None })
                .unwrap();
            let mut read = Report::default();
            input::read_from(&bytes, "x.hlog".into(), OnDamage::Refuse, &mut read).unwrap();
            let text = render(&read, &view());
            let evidence =
                claims::Evidence { by_policy: [(read.sources[0].policy(), read)].into(), ..Default::default() };
            (text, claims::claims(&evidence)[5].measured.clone())
        };
        let (all, spurious) = text_of("a later subject");
        assert!(all.contains("entry=\"dirty\"") && all.contains("timer_exits_total{"), "{all}");
        assert_eq!(spurious.as_deref(), Some("0"));
        let (text, spurious) = text_of("exit_reason");
        assert!(!text.contains("timer_exits_total{") && !text.contains("PREEMPTION") && spurious.is_none(), "{text}");
        let (text, _) = text_of("pin_writes");
        assert!(!text.contains("\"dirty\"") && !text.contains("\"clean\"") && !text.contains("pin_writes_total{"));
    }

    #[test]
    fn disturbed_times_are_left_out() {
        let mut report = report();
        report.sources[0].header.latency = Latency::Disturbed;
        let text = render(&report, &view());
        assert!(!text.contains("_seconds_bucket") && text.contains("vmentry_entries_total{"));
    }
}
