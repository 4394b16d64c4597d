//! The report as text: loss first, then provenance and counts, then the table.

mod columns;
mod grid;
mod provenance;
mod rare;
mod table;
mod totals;

use std::fmt::Write as _;

use super::{Report, View, notes};
use crate::{
    model::{
        knowledge::Subject,
        measurement::{EMULATED, Latency},
    },
    output::{Ink, Paint},
};

pub use columns::ColumnSet;

/// Says which time is which, below the table.
const LEGEND: &str = "\
host time: kvm_exit to the next kvm_entry, the host's work on that exit (exit_to_entry_ns)
guest time: kvm_entry to kvm_exit, VM entry and VM exit included (entry_to_exit_ns)
";

/// How a text report is laid out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// columns of the table
    pub(crate) columns: ColumnSet,
    /// the user did not choose the dimensions: those in which all rows agree are left out
    pub(crate) is_usual_view: bool,
    /// most rows where the view does not say it; none for all
    pub(crate) most: Option<usize>,
    /// cells of a line of the table; none for as many as it takes
    pub(crate) width: Option<usize>,
    /// attributes
    pub(crate) paint: Paint,
}

/// Loss, emulation, and where and how it was recorded.
pub(crate) fn preamble(report: &Report) -> String {
    let mut out = report.damage().map(|damage| format!("DAMAGED: {damage}\n")).unwrap_or_default();
    if let Some(shown) = &report.shown {
        let _ = writeln!(out, "SHOWN: {shown}");
    }
    out += &notes::loss(report);
    let tracers = report.other_tracers();
    if let Some(shared) = tracers.shared("were") {
        let _ = writeln!(out, "SHARED: {shared}");
    }
    if let Some(unseen) = tracers.may_be_more() {
        let _ = writeln!(out, "UNSEEN: {unseen}");
    }
    if report.is_emulated() {
        let _ = writeln!(out, "EMULATED: {}", EMULATED);
    }
    out + &provenance::render(&report.sources)
}

/// Renders a report for a file: as wide as it takes, without attributes.
pub fn render(report: &Report, view: &View) -> String {
    render_in(report, view, &Layout::default())
}

/// Renders a report in a layout.
pub(crate) fn render_in(report: &Report, view: &View, layout: &Layout) -> String {
    let mut out = painted(&preamble(report), layout.paint);
    out += &totals::render(report, view);
    let rows = report.all_rows(view);
    if rows.each.is_empty() {
        let delivered = report.whole.totals.delivered > 0;
        out +=
            if delivered { "\nno entries pass the filters\n" } else { "\nno entries were recorded: did a VM run?\n" };
        return out;
    }
    if let Some(note) = report.aggregation().note() {
        let _ = write!(out, "\n{note}\n");
    }
    let times = report.knowledge().known(Subject::Times).map_err(ToString::to_string);
    if let Err(reason) = &times {
        let _ = write!(out, "\n{} are not shown: {reason}\n", Subject::Times.title());
    } else if report.latency() == Latency::DisturbedButAsked {
        let _ = write!(out, "\nDISTURBED: {}\n", notes::DISTURBED);
    }
    out.push('\n');
    out += &table::render(report, view, &rows, layout);
    if times.is_ok() {
        out += &rare::render(report, &rows.total, layout.columns);
        out += &LEGEND.lines().map(|line| layout.paint.ink(Ink::Dim, line) + "\n").collect::<String>();
    }
    out
}

/// Lines of the preamble with what no reader may miss in red.
fn painted(preamble: &str, paint: Paint) -> String {
    let is_alarm = |line: &str| ["LOST", "DAMAGED"].iter().any(|word| line.starts_with(word)) || line.contains("DISAGREES");
    let ink = |line: &str| if is_alarm(line) { Ink::Red } else { Ink::Plain };
    preamble.lines().map(|line| paint.ink(ink(line), line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tracer_common::{Event, Flags};

    use super::{
        super::tests::{report, view},
        *,
    };
    use crate::model::{
        interval::{
            Interval,
            tests::{event, vm},
        },
        measurement::{Aggregation, OtherTracers, SoftDelay},
    };

    #[test]
    fn the_first_line_counts_the_loss() {
        let text = render(&report(), &view());
        assert_eq!(text.lines().next().unwrap(), "LOST 4.000% of 125 entries: 120 delivered, 5 dropped (ring full)");
        let mut whole = report();
        whole.whole.totals.entries = 120;
        whole.whole.totals.dropped = 0;
        assert!(render(&whole, &view()).starts_with("no loss: 120 entries, all delivered (cut off"));
        whole.whole.totals.entries = 121;
        assert!(render(&whole, &view()).lines().next().unwrap().contains("DISAGREES"));
    }

    #[test]
    fn emulation_is_noted_only_where_there_is_some() {
        assert!(!render(&report(), &view()).contains("EMULATED"));
        let mut emulated = report();
        emulated.sources[0].header.host.emulated = true;
        assert!(render(&emulated, &view()).contains("EMULATED"));
    }

    #[test]
    fn values_counted_in_the_kernel_are_noted_as_coarse_and_have_their_own_reason_of_loss() {
        let mut report = report();
        assert!(!render(&report, &view()).contains("1.6 %"));
        report.sources[0].header.aggregation = Aggregation::InKernel;
        let text = render(&report, &view());
        assert!(text.contains("exact to 1.6 %") && text.contains("5 dropped (no room for their series)"), "{text}");
    }

    #[test]
    fn a_recording_that_cannot_tell_transitions_is_not_spoken_for_by_another() {
        let mut report = report();
        let mut old = report.sources[0].clone();
        (old.name, old.header.version) = ("old.hlog".into(), 1);
        report.sources.push(old);
        let text = render(&report, &view());
        let said = text.lines().find(|l| l.contains("(transition_ns)  n/a:")).unwrap();
        assert!(said.contains("no entry of the recordings that tell it was forced to exit at once"), "{said}");
        assert!(said.ends_with("; not known of old.hlog: recordings of version 1 do not have it"), "{said}");
        report.sources.remove(0);
        let text = render(&report, &view());
        assert!(text.contains("(transition_ns)  n/a: recordings of version 1 do not have it\n"), "{text}");
    }

    #[test]
    fn tracers_that_could_not_be_looked_for_are_noted() {
        let mut report = report();
        assert!(!render(&report, &view()).contains("UNSEEN"));
        let unseen = vec!["ftrace (tracefs is not mounted)".to_owned()];
        report.sources[0].header.other_tracers = Some(OtherTracers { names: vec![], unseen });
        let text = render(&report, &view());
        assert!(text.contains("UNSEEN: not all other tracers") && text.contains("ftrace (tracefs"), "{text}");
    }

    /// An interval with a forced exit, the only one of which `transition_ns` is known.
    fn forced() -> Interval {
        let mut forced = Interval::starting(0);
        let timer = event(1, 52, 800, 0);
        forced.record(&Event { flags: timer.flags | Flags::IMMEDIATE, ..timer }, &vm(0));
        forced
    }

    #[test]
    fn what_the_view_leaves_out_is_no_absence() {
        let mut report = report();
        assert!(render(&report, &view()).contains("transition_ns)  n/a: no entry was forced to exit at once"));
        report.add(0, forced(), &mut BTreeMap::new());
        let top = render(&report, &View { top: Some(1), ..view() });
        assert!(top.contains("transition_ns)  n/a: none in the rows shown; 1 values in all\n"), "{top}");
        let all = render(&report, &view());
        assert!(all.contains("(transition_ns): VM entry + VM exit") && !all.contains("n/a:"), "{all}");
    }

    #[test]
    fn what_the_erratum_explains_is_said_with_the_numbers_and_nothing_else_is_called_it() {
        const SECOND: u64 = 1_000_000_000;
        let with = |remaining_ns: i64, guest_ns| {
            let mut report = report();
            let delay = SoftDelay { promised_ns: 275 * SECOND, real_ns: Some(103 * SECOND), limit_ns: None };
            report.sources[0].header.soft_delay = Some(delay);
            let mut interval = Interval::starting(0);
            let timer = event(1, 52, 800, 0);
            let early = timer.flags | Flags::DEADLINE_READ | Flags::EARLY;
            interval.record(&Event { flags: early, late_ns: Some(-remaining_ns), ..timer }, &vm(0));
            let spurious = event(1, 52, guest_ns, 0);
            interval.record(&Event { flags: spurious.flags | Flags::SOFT_DISABLED, ..spurious }, &vm(0));
            report.add(0, interval, &mut BTreeMap::new());
            let text = render(&report, &view());
            text.lines().find(|line| line.starts_with("timer exits")).unwrap().to_owned()
        };
        let explained = with(171_800_000_000, 104 * SECOND);
        assert!(explained.contains("early 1 (remaining: least 171.8s, median 171.9s: erratum EMR158)"), "{explained}");
        assert!(explained.contains("(1 before their time of 275.0s: erratum EMR158)"), "{explained}");
        let other = with(4_000_000_000, SECOND);
        assert!(other.contains("not explained by erratum EMR158, whose deadlines are 171.8 s away)"), "{other}");
        assert!(other.contains("(1 before their time of 275.0s: not explained by erratum EMR158)"), "{other}");
        let in_time = with(171_800_000_000, 276 * SECOND);
        assert!(in_time.contains("(0 before their time of 275.0s)"), "{in_time}");
    }

    #[test]
    fn with_the_stopwatch_spurious_exits_are_normal() {
        let mut report = report();
        report.sources[0].header.host.parameters.insert("preemption_timer_stopwatch".into(), "Y".into());
        let mut interval = Interval::starting(0);
        let spurious = event(1, 52, 4_000_000, 0);
        interval.record(&Event { flags: spurious.flags | Flags::SOFT_DISABLED, ..spurious }, &vm(0));
        report.add(0, interval, &mut BTreeMap::new());
        let text = render(&report, &view());
        assert!(
            text.contains("(before their time: n/a, the companion patch's stopwatch restarts the timer)"),
            "{text}"
        );
    }

    #[test]
    fn pin_writes_stand_in_the_table_of_all_entries_only() {
        let mut report = report();
        report.add(0, forced(), &mut BTreeMap::new());
        let text = render(&report, &view());
        let tables: Vec<_> = text.split("\n\n").filter(|part| part.contains("EXIT REASON")).collect();
        // 46 writes of 24 timer exits, of which one was forced and has a transition: 46/24 is not that one's mean.
        assert!(tables[0].contains("PIN/ENTRY") && tables[0].contains("1.917"), "{text}");
        assert!(tables[2].contains("transition_ns") && !tables[2].contains("PIN/ENTRY"), "{text}");
    }

    #[test]
    fn a_table_shows_every_row_with_its_figures() {
        let text = render(&report(), &view());
        let row = text.lines().find(|l| l.contains("PREEMPTION_TIMER")).unwrap();
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(cells[..5], ["vm0", "PREEMPTION_TIMER", "23", "11.5", "50.0us"]);
        assert_eq!(cells.last(), Some(&"2"));
        assert!(text.contains("timer exits  deadline 23  immediate 0  spurious 0  early 0\n"), "{text}");
    }
}
