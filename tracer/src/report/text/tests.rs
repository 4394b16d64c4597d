//! Text reports of made-up recordings.

use std::collections::BTreeMap;

use tracer_common::{Event, Flags};

use super::{
    super::tests::{report, view},
    *,
};
use crate::{
    model::{
        budget::Budget,
        figures::{Column, Figure},
        interval::{
            Interval,
            tests::{event, vm},
        },
        measurement::{Aggregation, OtherTracers, PinSource, SoftDelay},
        policy::Policy,
        series::Key,
        vendor::Vendor,
    },
    recording::Provenance,
};

fn with_columns(report: &Report, columns: ColumnSet) -> String {
    render_in(report, &view(), &Layout { columns, ..Layout::default() })
}

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
    let text = with_columns(&report, ColumnSet::Timer);
    let said = text.lines().find(|l| l.contains("(transition_ns): n/a:")).unwrap();
    assert!(said.contains("no entry of the recordings that tell it was forced to exit at once"), "{said}");
    assert!(said.ends_with("; not known of old.hlog: recordings of version 1 do not have it"), "{said}");
    report.sources.remove(0);
    let text = with_columns(&report, ColumnSet::Timer);
    assert!(text.contains("(transition_ns): n/a: recordings of version 1 do not have it\n"), "{text}");
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
    let asked = with_columns(&report, ColumnSet::Timer);
    assert!(asked.contains("transition_ns): n/a: no entry was forced to exit at once"), "{asked}");
    assert!(!render(&report, &view()).contains("transition_ns): n/a"), "nobody asked");
    report.add(0, forced(), &mut BTreeMap::new());
    for top in [None, Some(1)] {
        let text = render(&report, &View { top, ..view() });
        assert!(text.contains("(transition_ns): 1 value, min 800ns, max 800ns (--columns timer)\n"), "{text}");
    }
    let filters = vec!["reason=CPUID".parse().unwrap()];
    let text = render(&report, &View { filters, ..view() });
    assert!(text.contains("transition_ns): n/a: none in the rows shown; 1 values in all\n"), "{text}");
    let timer = with_columns(&report, ColumnSet::Timer);
    assert!(timer.contains("TRANS") && timer.contains("IMMEDIATE") && !timer.contains("n/a:"), "{timer}");
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
    assert!(text.contains("(before their time: n/a, the companion patch's stopwatch restarts the timer)"), "{text}");
}

#[test]
fn pin_writes_have_a_column_where_there_are_any_or_the_policy_is_hard() {
    let mut report = report();
    report.add(0, forced(), &mut BTreeMap::new());
    let text = render(&report, &view());
    // 46 writes of 24 timer exits, of which one was forced.
    assert!(text.contains("PIN/ENTRY") && row(&text, "PREEMPTION_TIMER").ends_with("  1.917"), "{text}");
    let without = || {
        let mut report = self::report();
        report.whole.series.retain(|key, _| key.reason == Some(10));
        report
    };
    assert!(!render(&without(), &view()).contains("PIN/ENTRY"));
    let mut hard = without();
    hard.sources[0].header.policy = Policy::Hard;
    assert!(render(&hard, &view()).contains("PIN/ENTRY"));
}

/// The line that begins with or contains a word.
fn row<'a>(text: &'a str, word: &str) -> &'a str {
    text.lines().find(|line| line.split_whitespace().any(|w| w == word)).unwrap()
}

#[test]
fn the_table_has_the_rows_of_most_host_time_first_and_their_sum() {
    let text = render(&report(), &view());
    let table: Vec<_> = text.lines().skip_while(|line| !line.starts_with("VM ")).collect();
    let cells = |at: usize| table[at].split_whitespace().collect::<Vec<_>>();
    assert_eq!(cells(0)[..6], ["VM", "EXIT", "REASON", "EXITS", "EXIT%", "/S"]);
    // Each host time is some 5 times the guest time.
    assert_eq!(cells(1)[..5], ["vm0", "CPUID", "97", "80.8", "48.5"]);
    assert_eq!(cells(2)[..5], ["vm0", "PREEMPTION_TIMER", "23", "19.2", "11.5"]);
    assert_eq!(cells(3)[..5], ["TOTAL", "120", "100.0", "60.0", "100.0"]);
    assert!(text.contains("timer exits  deadline 23  immediate 0  spurious 0  early 0\n"), "{text}");
}

/// A report with some exits each of these reasons, each of so many ns of host time.
fn mixed(exits: &[(u32, u64, u64)]) -> Report {
    let mut report = report();
    report.whole.series.clear();
    let mut interval = Interval::starting(0);
    for (reason, count, ns) in exits {
        let mut exit = event(0, 10, 1000, 0);
        exit.exit_reason = *reason;
        let key = Key::of(0, 0, &exit.outline());
        let series = interval.series.entry(key).or_default();
        series[Figure::EntryToExit].record_n(1000, *count);
        series[Figure::ExitToEntry].record_n(*ns, *count);
        series.budget = Budget::of_distributions(series);
    }
    interval.vms.insert(0, vm(0));
    report.add(0, interval, &mut BTreeMap::new());
    report
}

#[test]
fn halts_stand_apart_and_the_work_is_summed_above_them() {
    let by_time = View { sort: Column::HostTime, ..view() };
    let text = render(&mixed(&[(12, 10, 1_000_000_000), (10, 100, 1000), (30, 50, 3000)]), &by_time);
    let first = |n: usize| text.lines().skip_while(|line| !line.starts_with("VM ")).nth(n).unwrap();
    assert!(first(1).contains("IO_INSTRUCTION") && first(2).contains("CPUID"), "{text}");
    assert!(first(3).starts_with("work ") && first(3).contains("150"), "{text}");
    assert!(first(4).contains("HLT (halted)") && first(5).starts_with("TOTAL"), "{text}");
    assert!(text.contains("\nhalted: HLT exits took 99.997 % of the host time; the rows"), "{text}");
}

#[test]
fn small_rows_are_one_row_and_nothing_is_missing_from_the_sum() {
    let exits = [(10, 100_000, 1000), (30, 9, 1000), (31, 8, 1000), (32, 7, 1000)];
    let text = render(&mixed(&exits), &view());
    let more = row(&text, "more");
    assert!(more.starts_with("3 more") && more.split_whitespace().nth(2) == Some("24"), "{text}");
    assert!(text.contains("... 3 more rows, each below 0.1 % of exits and of host time: --top all\n"), "{text}");
    assert!(row(&text, "TOTAL").contains("100,024"), "{text}");
    let all = render(&mixed(&exits), &View { top: Some(usize::MAX), ..view() });
    assert!(!all.contains("more") && all.contains("MSR_READ"), "{all}");
    let two = render(&mixed(&exits), &View { top: Some(2), ..view() });
    assert!(two.contains("IO_INSTRUCTION") && two.contains("... 2 more rows: --top all\n"), "{two}");
    let slow = render(&mixed(&[(10, 100_000, 1000), (30, 9, 900_000_000), (31, 8, 1000)]), &view());
    assert!(slow.contains("IO_INSTRUCTION"), "few exits of much time are not small: {slow}");
}

#[test]
fn of_halts_it_is_said_how_much_was_idle() {
    let mut report = mixed(&[(12, 100, 900_000), (10, 100, 100_000)]);
    report.sources[0].header.phases = true;
    let of_halts = report.whole.series.iter_mut().find(|(key, _)| key.reason == Some(12)).unwrap().1;
    (of_halts.budget.idle_ns, of_halts.budget.polled_ns) = (80_000_000, 5_000_000);
    let text = render(&report, &view());
    assert!(text.contains("HLT exits took 90.0 % of the host time (polled 5.0 %, idle 80.0 %); "), "{text}");
}

/// So many VMs, each with an exit of each of the reasons.
fn fleet(vms: u32, reasons: &[u32]) -> Report {
    let mut report = report();
    report.whole.series.clear();
    let mut interval = Interval::starting(0);
    for id in 0..vms {
        for reason in reasons {
            interval.record(&event(0, *reason, 1000, 0), &vm(id));
        }
    }
    report.add(0, interval, &mut BTreeMap::new());
    report
}

#[test]
fn of_rows_that_are_all_small_the_first_20_are_shown() {
    let text = render(&fleet(1500, &[10]), &view());
    assert_eq!(text.matches(" CPUID ").count(), 20, "{text}");
    let note = "... 1,480 more rows, each below 0.1 % of exits and of host time, as 20 of those shown: --top all\n";
    assert!(row(&text, "more").starts_with("1,480 more") && text.contains(note), "{text}");
    assert_eq!(render(&fleet(500, &[10]), &view()).matches(" CPUID ").count(), 500);
}

#[test]
fn text_cuts_the_same_rows_as_csv() {
    let report = mixed(&[(12, 10, 1_000_000), (10, 100, 1000), (30, 50, 3000)]);
    let view = View { sort: Column::HostTime, top: Some(2), ..view() };
    let (text, csv) = (render(&report, &view), crate::report::csv::render(&report, &view));
    for (reason, is_shown) in [("HLT", true), ("IO_INSTRUCTION", true), ("CPUID", false)] {
        assert_eq!((text.contains(reason), csv.contains(reason)), (is_shown, is_shown), "{text}{csv}");
    }
}

#[test]
fn rates_that_do_not_add_up_are_said_to() {
    let mut merged = report();
    assert!(!render(&merged, &view()).contains("add up"));
    let mut later = merged.sources[0].clone();
    later.header.anchor.unix_ns += 100_000_000_000;
    merged.sources.push(later);
    let mut interval = Interval::starting(0);
    interval.record(&event(0, 10, 1000, 0), &vm(7));
    merged.add(1, interval, &mut BTreeMap::new());
    let text = render(&merged, &view());
    assert!(text.contains("\n/S: a row's is per second of the recordings that have its VM or host"), "{text}");
}

#[test]
fn a_usual_view_of_one_vm_without_nesting_has_one_column_of_text() {
    let usual = Layout { is_usual_view: true, ..Layout::default() };
    let report = report();
    let head = |view: &View, layout: &Layout| {
        let text = render_in(&report, view, layout);
        text.lines().find(|line| line.contains("EXIT REASON")).unwrap().to_owned()
    };
    assert!(head(&View::default(), &usual).starts_with("EXIT REASON"));
    let asked = head(&View::default(), &Layout::default());
    assert_eq!(asked.split_whitespace().take(4).collect::<Vec<_>>(), ["VM", "LEVEL", "EXIT", "REASON"]);
}

#[test]
fn an_svm_host_is_said_once_to_have_no_timer_and_no_pin_controls() {
    let mut report = report();
    report.sources[0].header.host.vendor = Some(Vendor::Amd);
    report.sources[0].header.pin_writes_source = PinSource::None;
    let text = render(&report, &view());
    assert_eq!(text.matches("SVM ").count(), 1, "{text}");
    assert!(!text.contains("n/a") && !text.contains("timer exits"), "{text}");
}

#[test]
fn recordings_of_one_host_and_setting_say_once_what_they_have_in_common() {
    let mut report = report();
    let source = report.sources[0].clone();
    report.sources.extend((0..6).map(|n| Provenance { name: format!("{n}.hlog"), ..source.clone() }));
    let text = render(&report, &view());
    assert_eq!((text.matches("\nhost  ").count(), text.matches("\nrecording ").count()), (1, 4), "{text}");
    assert!(text.contains("recording  ... and 4 more: 8.00s in all, 4 of them cut off\n"), "{text}");
    report.sources[6].header.host.name = "other".into();
    assert_eq!(render(&report, &view()).matches("\nhost  ").count(), 2);
}

#[test]
fn what_no_reader_may_miss_is_red_on_a_terminal_and_no_line_before_the_table_is_too_long() {
    let layout = Layout { width: Some(60), paint: Paint { on: true }, ..Layout::default() };
    let text = render_in(&report(), &view(), &layout);
    assert!(text.starts_with("\x1b[1;31mLOST 4.000%"), "{text:?}");
    let plain = render_in(&report(), &view(), &Layout { paint: Paint::default(), ..layout });
    let before = plain.lines().take_while(|line| !line.contains("HOST TIME"));
    assert!(before.clone().count() > 5 && before.clone().all(|line| line.chars().count() <= 60), "{plain}");
    assert!(!render(&report(), &view()).contains('\x1b'));
}
