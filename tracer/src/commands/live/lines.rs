//! The live view as lines: one per interval, in columns for people or as a JSON object for programs.

use serde_json::{Map, Value, json};
use tracer_common::rules::TimerCause;

use super::columns::Layout;
use crate::{
    commands::args::LinesFormat,
    host::clock::Anchor,
    html::moment::utc,
    model::{
        budget::Phase,
        exit_reasons::{is_halt, name_or_unknown},
        figures::{Figure, Stat, Unit, human},
        interval::Interval,
        knowledge::{Knowledge, Shown, Subject, TimerExits},
        series::{Level, Series},
    },
    output::grouped,
    recording::Header,
    tui::terminal,
};

/// Name and version of the format.
const FORMAT: &str = "vmentry-live/1";
/// Lines between two headings.
const HEADING_EVERY: u64 = 20;

/// Writes intervals as lines.
pub(crate) struct Lines {
    format: LinesFormat,
    /// lines that were written
    written: u64,
    /// lines to write; none writes on
    count: Option<u64>,
    /// the CPU was emulated
    emulated: bool,
    /// a moment on the intervals' clock and on the wall clock
    anchor: Anchor,
    knowledge: Knowledge,
    layout: Layout,
}

impl Lines {
    /// Of the host or recording with this header.
    pub(crate) fn new(format: LinesFormat, count: Option<u64>, header: &Header) -> Self {
        let (emulated, anchor, knowledge) = (header.host.emulated, header.anchor, header.knowledge());
        Self { format, written: 0, count, emulated, anchor, knowledge, layout: Layout::default() }
    }

    /// The same, laid out for standard output.
    pub(super) fn for_output(self) -> Self {
        let layout = Layout { width: terminal::is_output().then(terminal::width), paint: terminal::paint() };
        Self { layout, ..self }
    }

    /// Whether all lines that were asked for are written.
    pub(super) fn are_done(&self) -> bool {
        self.count.is_some_and(|count| self.written >= count)
    }

    /// The line of an interval, after a heading where one is due.
    pub(crate) fn line(&mut self, interval: &Interval) -> String {
        let row = Row::of(interval, &self.knowledge, self.anchor);
        let text = match self.format {
            LinesFormat::Text if self.written.is_multiple_of(HEADING_EVERY) => {
                self.layout.heading() + &row.text(self.layout)
            }
            LinesFormat::Text => row.text(self.layout),
            LinesFormat::Jsonl => row.json(self.emulated).to_string(),
        };
        self.written += 1;
        text + "\n"
    }
}

/// An interval, summed up.
struct Row<'a> {
    interval: &'a Interval,
    knowledge: &'a Knowledge,
    /// its end, ns since 1970
    end_unix_ns: u64,
    all: Shown,
    /// none where the levels are not known
    l2_entries: Option<u64>,
    timer_exits: TimerExits,
    /// exits and host time by exit reason, most host time first
    reasons: Vec<Reason>,
}

/// The exits of a reason in an interval.
struct Reason {
    name: String,
    exits: u64,
    /// none where it is not known
    host_ns: Option<u64>,
    /// it is the guest's HLT, whose host time is the guest's idle time
    is_halt: bool,
}

impl<'a> Row<'a> {
    fn of(interval: &'a Interval, knowledge: &'a Knowledge, anchor: Anchor) -> Self {
        let mut all = Series::default();
        let mut timer_exits = TimerExits::default();
        let mut by_reason = std::collections::BTreeMap::new();
        for (key, series) in &interval.series {
            all.merge(series);
            timer_exits.count(key, series.entries());
            by_reason.entry((key.isa, key.reason)).or_insert_with(Series::default).merge(series);
        }
        let mut reasons: Vec<Reason> = by_reason
            .into_iter()
            .map(|((isa, reason), series)| {
                let shown = knowledge.show(series);
                let host_ns = shown.host_ns();
                let is_halt = reason.is_some_and(|reason| is_halt(isa, reason));
                Reason { name: name_or_unknown(isa, reason).into_owned(), exits: shown.entries(), host_ns, is_halt }
            })
            .collect();
        reasons.sort_by(|a, b| (b.host_ns, b.exits, &a.name).cmp(&(a.host_ns, a.exits, &b.name)));
        let of_level = |level| interval.series.iter().filter(move |(k, _)| k.level == level).map(|(_, s)| s.entries());
        let unread: u64 = of_level(Level::Unknown).sum();
        let knows_levels = knowledge.known(Subject::Level).is_ok() && unread == 0;
        Self {
            interval,
            knowledge,
            end_unix_ns: anchor.to_unix_ns(interval.start_ns.saturating_add(interval.length_ns)),
            all: knowledge.show(all),
            l2_entries: knows_levels.then(|| of_level(Level::L2).sum()),
            timer_exits,
            reasons,
        }
    }

    /// Guest and host time, ns; none where they are not known, or there are none.
    fn total_ns(&self) -> Option<u64> {
        Some(self.all.guest_ns()?.saturating_add(self.all.host_ns().unwrap_or(0)))
    }

    /// Polled and idle time, ns; none where either is not known.
    fn halted_ns(&self) -> Option<u64> {
        Some(self.all.phase(Phase::Polled)?.saturating_add(self.all.phase(Phase::Idle)?))
    }

    fn vcpus(&self) -> usize {
        self.interval.series.keys().map(|key| (key.vm, key.vcpu)).collect::<std::collections::BTreeSet<_>>().len()
    }

    /// In columns.
    fn text(&self, layout: Layout) -> String {
        let stat = |figure: Figure, stat: Stat| human(stat.of(&self.all[figure]), figure.unit());
        let rate = |n: Option<u64>| n.and_then(|n| self.interval.entries_per_s(n));
        let cells = [
            utc(self.end_unix_ns).get(11..19).unwrap_or("?").to_owned(),
            self.interval.vms.len().to_string(),
            self.vcpus().to_string(),
            human(rate(Some(self.interval.totals.entries)), Unit::PerSecond),
            human(rate(self.l2_entries), Unit::PerSecond),
            percent(self.all.guest_ns(), self.total_ns()),
            percent(self.halted_ns(), self.all.host_ns()),
            stat(Figure::ExitToEntry, Stat::Mean),
            stat(Figure::ExitToEntry, Stat::P50),
            stat(Figure::ExitToEntry, Stat::P99),
            stat(Figure::ExitToEntry, Stat::Max),
            stat(Figure::EntryToExit, Stat::P50),
            stat(Figure::EntryToExit, Stat::P99),
            human(Stat::Mean.of(&self.all[Figure::PinWrites]), Unit::Count),
            grouped(self.interval.totals.dropped),
        ];
        let whole = self.reasons.iter().filter_map(|reason| reason.host_ns).fold(0, u64::saturating_add);
        let work = self.reasons.iter().find(|reason| !reason.is_halt);
        let work = match work.filter(|_| whole > 0) {
            Some(Reason { name, host_ns: Some(ns), .. }) => format!("{name} {:.0}%", 100.0 * *ns as f64 / whole as f64),
            _ => String::new(),
        };
        layout.line(&cells, &work, self.interval.totals.dropped > 0)
    }

    /// The fields of docs/formats.md. Unknown values are null, never 0.
    fn json(&self, emulated: bool) -> Value {
        let totals = &self.interval.totals;
        let figure = |figure: Figure| {
            let shown = &self.all[figure];
            let stats = [Stat::Mean, Stat::P50, Stat::P99, Stat::Max];
            let mut object: Map<String, Value> =
                stats.into_iter().map(|stat| (stat.name().to_owned(), json!(stat.of(shown)))).collect();
            object.insert("count".into(), json!(shown.count()));
            (shown.count() > 0).then_some(object)
        };
        let timer_exits: Map<String, Value> = TimerCause::ALL
            .into_iter()
            .map(|cause| (cause.name().to_owned(), json!(self.timer_exits.of(cause, self.knowledge).ok())))
            .collect();
        let part = |phase: Phase| (format!("{}_ns", phase.name()), json!(self.all.phase(phase)));
        let phases = self.all.host_ns().map(|_| Phase::ALL.into_iter().map(part).collect::<Map<_, _>>());
        let reasons: Vec<Value> = self
            .reasons
            .iter()
            .map(|reason| json!({ "reason": reason.name, "exits": reason.exits, "host_ns": reason.host_ns }))
            .collect();
        json!({
            "format": FORMAT,
            "emulated": emulated,
            "end_unix_ns": self.end_unix_ns,
            "length_ns": self.interval.length_ns,
            "vms": self.interval.vms.len(),
            "vcpus": self.vcpus(),
            "entries": totals.entries,
            "dropped": totals.dropped,
            "l2_entries": self.l2_entries,
            "guest_ns": self.all.guest_ns(),
            "host_ns": self.all.host_ns(),
            "phases": phases,
            Figure::EntryToExit.name(): figure(Figure::EntryToExit),
            Figure::ExitToEntry.name(): figure(Figure::ExitToEntry),
            Figure::PinWrites.name(): figure(Figure::PinWrites),
            "timer_exits": timer_exits,
            "reasons": reasons,
        })
    }
}

/// A share in percent; n/a where either is not known, or there is nothing to share.
fn percent(part: Option<u64>, whole: Option<u64>) -> String {
    match (part, whole) {
        (Some(part), Some(whole @ 1..)) => format!("{:.1}", 100.0 * part as f64 / whole as f64),
        _ => "n/a".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        interval::tests::{event, vm},
        totals::Totals,
    };

    const ANCHOR: Anchor = Anchor { monotonic_ns: 0, unix_ns: 1_700_000_000_000_000_000 };

    fn lines(format: LinesFormat, count: Option<u64>) -> Lines {
        let knowledge = Knowledge::complete();
        Lines { format, written: 0, count, emulated: false, anchor: ANCHOR, knowledge, layout: Layout::default() }
    }

    fn interval() -> Interval {
        let mut interval = Interval { length_ns: 2_000_000_000, ..Interval::starting(5_000_000_000) };
        interval.record(&event(0, 10, 5_000, 1), &vm(0));
        interval.record(&event(1, 12, 7_000, 0), &vm(0));
        interval.totals = Totals { entries: 123, delivered: 120, dropped: 3, ..interval.totals };
        interval
    }

    #[test]
    fn a_line_begins_with_the_time_and_stands_under_its_heading() {
        let mut lines = lines(LinesFormat::Text, None);
        let text = lines.line(&interval());
        let [heading, line] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(heading.starts_with("     UTC  VMS VCPUS   EXITS/S"), "{heading}");
        assert!(line.starts_with("22:13:27    1     2      61.5 "), "{line}");
        let end = |title: &str| heading.find(title).unwrap() + title.len();
        assert_eq!(&line[..end("LOST")].split_whitespace().last(), &Some("3"), "{text}");
        assert!(line[..end("L2/S")].len() == end("L2/S") && line.as_bytes()[end("L2/S")] == b' ', "{text}");
    }

    #[test]
    fn halts_are_a_share_of_host_time_and_are_not_the_most_work() {
        let mut interval = interval();
        let mut halt = event(0, 12, 5_000, 0);
        (halt.exit_to_entry_ns, halt.previous) = (3_000_000, halt.outline());
        halt.phases.idle_ns = 2_000_000;
        let mut work = event(0, 10, 5_000, 0);
        (work.exit_to_entry_ns, work.previous) = (1_000_000, work.outline());
        interval.series.clear();
        interval.record(&halt, &vm(0));
        interval.record(&work, &vm(0));
        interval.totals.entries = 52_127_000;
        let text = lines(LinesFormat::Text, None).line(&interval);
        let line = text.lines().nth(1).unwrap();
        assert_eq!(line.split_whitespace().nth(6), Some("50.0"), "2 of 4 ms: {text}");
        assert!(line.ends_with("  CPUID 25%") && line.contains(" 26,063,500 "), "{text}");
    }

    #[test]
    fn there_is_a_heading_every_20_lines_and_as_many_lines_as_asked_for() {
        let mut lines = lines(LinesFormat::Text, Some(41));
        let mut text = String::new();
        while !lines.are_done() {
            text += &lines.line(&interval());
        }
        let headings: Vec<_> =
            text.lines().enumerate().filter(|(_, l)| l.contains("EXITS/S")).map(|(at, _)| at).collect();
        assert_eq!((headings, text.lines().count()), (vec![0, 21, 42], 44));
    }

    #[test]
    fn an_interval_of_any_start_and_length_has_a_rate_only_with_a_length() {
        let of =
            |start_ns, length_ns| lines(LinesFormat::Text, None).line(&Interval { start_ns, length_ns, ..interval() });
        let rate = |text: String| text.lines().nth(1).unwrap().split_whitespace().nth(3).unwrap().to_owned();
        assert_eq!(rate(of(0, 2_000_000_000)), "61.5");
        assert_eq!(rate(of(1_000_000_000, 0)), "n/a");
        assert_eq!(rate(of(u64::MAX, u64::MAX)), "0.0");
    }

    #[test]
    fn a_json_line_has_exact_numbers_and_null_for_what_is_not_known() {
        let text = lines(LinesFormat::Jsonl, None).line(&interval());
        assert_eq!(text.lines().count(), 1);
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["end_unix_ns"], 1_700_000_007_000_000_000_u64);
        assert_eq!((&line["entries"], &line["dropped"], &line["vcpus"]), (&json!(123), &json!(3), &json!(2)));
        assert_eq!(line["reasons"].as_array().unwrap().len(), 2);
        let unknown = Knowledge::complete().without([Subject::Times, Subject::Level], "why");
        let text = Lines { knowledge: unknown, ..lines(LinesFormat::Jsonl, None) }.line(&interval());
        let line: Value = serde_json::from_str(&text).unwrap();
        assert!(line["guest_ns"].is_null() && line["phases"].is_null(), "{line}");
        assert!(line["entry_to_exit_ns"].is_null() && line["l2_entries"].is_null(), "{line}");
        assert!(line["reasons"][0]["host_ns"].is_null() && line["pin_writes"]["count"] == 2, "{line}");
    }
}
