//! The flight recorder: keeps the most recent events in memory and writes them as a trace when a trigger matches.

use std::{collections::VecDeque, io::Write, path::Path};

use anyhow::Result;
use tracer_common::Event;

use super::{
    perfetto::{Closing, Trace},
    plan::{FlightOptions, MAX_TRACES, TracePlan, numbered},
    recorder::EventSummary,
    vm_event::{VmEvent, Vms},
};
use crate::{
    host::clock::monotonic_ns,
    model::{
        exit_reasons::name_or_unknown,
        figures::{Unit, human},
    },
    output::{self, Spot},
    recording::Header,
};

/// Events kept at most; 104 bytes each, 52 MiB in all.
pub(super) const CAPACITY: usize = 512 << 10;

/// Waits for a trigger.
pub(super) struct FlightRecorder {
    options: FlightOptions,
    /// of the first trace; the folder is the one that was there when the recording began
    spot: Spot,
    /// the first trace's file, which holds the names of all; none once it is written
    first: Option<Box<dyn Write + Send>>,
    overwrite: bool,
    header: Header,
    recent: RecentEvents,
    /// `exit_ns` of the event that the last trace was written for
    last_trigger_ns: Option<u64>,
}

impl FlightRecorder {
    /// Creates the first trace's file.
    pub(super) fn new(options: FlightOptions, plan: &TracePlan, header: &Header) -> Result<Self> {
        let recent = RecentEvents::new(options.span_ns(), CAPACITY);
        let (spot, overwrite, header) = (output::spot(&plan.path)?, plan.overwrite, header.clone());
        let first = Some(output::create_at(spot.clone(), overwrite)?);
        Ok(Self { options, spot, first, overwrite, header, recent, last_trigger_ns: None })
    }

    /// Keeps an event and, if it matches the trigger, writes a trace. Traces do not overlap: a match within the span of the
    /// last trace is only counted. So is every match after [`MAX_TRACES`] traces or after a failed write.
    pub(super) fn push(&mut self, vm_event: VmEvent, vms: &Vms, summary: &mut EventSummary) {
        self.recent.push(vm_event);
        if !self.options.trigger.matches(&vm_event.event) {
            return;
        }
        summary.matches += 1;
        let at_ns = vm_event.event.exit_ns;
        let overlaps = self.last_trigger_ns.is_some_and(|last| at_ns.saturating_sub(last) < self.options.span_ns());
        if overlaps || summary.traces >= MAX_TRACES || summary.failed {
            return;
        }
        self.last_trigger_ns = Some(at_ns);
        let description = describe(&vm_event, vms);
        let cut_short = self.recent.is_cut_short(at_ns);
        summary.cut_short |= cut_short;
        let path = numbered(self.spot.path(), summary.traces + 1);
        let closing = Closing { reason: description.clone(), not_written: summary.not_written, dropped: None };
        let events = self.recent.window(at_ns);
        match self.write(&path, events, vms, closing) {
            Ok((events, bytes)) => {
                summary.traces += 1;
                summary.written += events;
                summary.bytes += bytes;
                let short = if cut_short { "; memory did not reach further back" } else { "" };
                let text = format!("{description}: wrote {} ({events} events{short})", output::shown(&path));
                output::say_over_progress(&text);
            }
            Err(error) => summary.fail(&path, &format!("{error:#}")),
        }
    }

    /// Writes one trace and returns its events and bytes.
    fn write(&mut self, path: &Path, events: Vec<VmEvent>, vms: &Vms, mut closing: Closing) -> Result<(u64, u64)> {
        let out = match self.first.take() {
            Some(first) => first,
            None => output::create_at(self.spot.sibling(path.file_name().unwrap_or_default()), self.overwrite)?,
        };
        let mut trace = Trace::new(out, &self.header)?;
        closing.not_written += trace.write(events, vms)?;
        let events = trace.events();
        let bytes = trace.finish(monotonic_ns(), &closing)?;
        Ok((events, bytes))
    }
}

/// The event that matched a trigger, in a line.
fn describe(vm_event: &VmEvent, vms: &Vms) -> String {
    let VmEvent { vm, event } = vm_event;
    let round = event.outline();
    let vm = vms.get(vm).map_or_else(|| format!("vm-{vm}"), |vm| format!("{} [{}]", vm.name, vm.tgid));
    let time = |ns: u64| human(Some(ns as f64), Unit::Ns);
    let host = if event.exit_to_entry_ns == Event::UNKNOWN_NS { "n/a".into() } else { time(event.exit_to_entry_ns) };
    let cause = round.timer_cause().map_or(String::new(), |c| format!(" ({})", c.name()));
    let writes = round.known_pin_writes().map_or("n/a".into(), |n| n.to_string());
    format!(
        "trigger: VM {vm} vCPU {}, {}{cause}, guest time {}, host time {host}, pin writes {writes}",
        event.vcpu,
        name_or_unknown(round.isa(), round.reason()),
        time(event.entry_to_exit_ns()),
    )
}

/// The most recent events, bounded in time and in number.
struct RecentEvents {
    held: VecDeque<VmEvent>,
    span_ns: u64,
    capacity: usize,
    /// `exit_ns` of the youngest event that was removed within the span because of `capacity`
    crowded_out_ns: Option<u64>,
}

impl RecentEvents {
    /// Keeps the events of the last `span_ns`, at most `capacity` of them.
    fn new(span_ns: u64, capacity: usize) -> Self {
        Self { held: VecDeque::new(), span_ns, capacity: capacity.max(1), crowded_out_ns: None }
    }

    /// Adds an event and removes those that are older than the span by then.
    fn push(&mut self, vm_event: VmEvent) {
        let oldest = vm_event.event.exit_ns.saturating_sub(self.span_ns);
        while self.held.front().is_some_and(|e| e.event.exit_ns < oldest) {
            self.held.pop_front();
        }
        if self.held.len() >= self.capacity {
            let removed = self.held.pop_front().map(|e| e.event.exit_ns);
            self.crowded_out_ns = self.crowded_out_ns.max(removed);
        }
        self.held.push_back(vm_event);
    }

    /// The events of the span that ends at `until_ns`, ordered by `exit_ns`.
    fn window(&self, until_ns: u64) -> Vec<VmEvent> {
        let wanted = until_ns.saturating_sub(self.span_ns)..=until_ns;
        let mut events: Vec<_> = self.held.iter().filter(|e| wanted.contains(&e.event.exit_ns)).copied().collect();
        events.sort_by_key(|e| e.event.exit_ns);
        events
    }

    /// Whether events of the span that ends at `until_ns` were removed because of `capacity`.
    fn is_cut_short(&self, until_ns: u64) -> bool {
        self.crowded_out_ns.is_some_and(|removed| removed >= until_ns.saturating_sub(self.span_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::vm_event::tests::{at, times};

    #[test]
    fn events_older_than_the_span_are_removed() {
        let mut recent = RecentEvents::new(100, 10);
        for ns in [1000, 1050, 1040, 1120, 1150] {
            recent.push(at(ns));
        }
        assert_eq!(times(&recent.window(1150)), [1050, 1120, 1150]);
        assert_eq!(times(&recent.window(1120)), [1040, 1050, 1120]);
        assert!(!recent.is_cut_short(1150));
        assert_eq!(recent.held.len(), 4);
    }

    #[test]
    fn a_full_memory_reports_a_cut_span_for_as_long_as_events_of_it_are_missing() {
        let mut recent = RecentEvents::new(100, 3);
        for ns in 1000..1010 {
            recent.push(at(ns));
        }
        assert_eq!(times(&recent.window(1009)), [1007, 1008, 1009]);
        assert!(recent.is_cut_short(1009));
        recent.push(at(1109));
        assert!(!recent.is_cut_short(1109));
    }
}
