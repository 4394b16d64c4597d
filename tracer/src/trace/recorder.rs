//! The thread that writes single events: it puts the collector's batches in order and passes them to a trace or to a flight
//! recorder.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};

use super::{
    event_sink::{Batch, EventSink, Message, QUEUE},
    flight_recorder::{CAPACITY, FlightRecorder},
    patience::{LIMIT, Patience},
    perfetto::{Closing, Trace},
    plan::{FlightOptions, TracePlan},
    reorder::ReorderBuffer,
    vm_event::{VmEvent, Vms},
};
use crate::{
    host::clock::monotonic_ns,
    model::interval::MAX_VMS,
    output::{self, STALLED},
    recording::Header,
    say,
};

/// How many single events were written, and how many were not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventSummary {
    /// events in the trace, or in a flight recorder's traces
    pub written: u64,
    /// events that arrived and should be in a trace, but are not
    pub not_written: u64,
    /// bytes of the traces
    pub bytes: u64,
    /// events that matched a flight recorder's trigger
    pub matches: u64,
    /// traces that a flight recorder wrote
    pub traces: u32,
    /// whether a flight recorder's trace does not reach back over the whole span
    pub cut_short: bool,
    /// whether a write failed; the error has been printed
    pub failed: bool,
}

impl EventSummary {
    /// Notes and prints a failed write.
    pub(super) fn fail(&mut self, path: &Path, error: &dyn std::fmt::Display) {
        self.failed = true;
        output::say_over_progress(&format!(
            "vmentry: write {}: {error}; the recording continues without it",
            output::shown(path)
        ));
    }
}

/// A trace that is open, or that a flight recorder will open, before the thread starts that writes events to it.
pub struct OpenedTrace {
    destination: Destination,
    plan: TracePlan,
    patience: Patience,
}

/// The handle of the thread that writes.
pub struct EventRecorder {
    queue: SyncSender<Message>,
    thread: JoinHandle<EventSummary>,
    flight_recorder: Option<FlightOptions>,
    path: PathBuf,
    patience: Patience,
}

impl OpenedTrace {
    /// Checks the plan, and opens the trace unless a flight recorder will open it later.
    pub fn open(plan: TracePlan, header: &Header) -> Result<Self> {
        plan.check()?;
        let header = &header.printable()?;
        match plan.flight_recorder.clone() {
            None => {
                let out = output::create(&plan.path, plan.overwrite)?;
                Self::to(out, plan, header, LIMIT)
            }
            Some(options) => {
                let flight_recorder = FlightRecorder::new(options, &plan, header)?;
                let destination = Destination::FlightRecorder(Box::new(flight_recorder));
                Ok(Self { destination, plan, patience: Patience::endless() })
            }
        }
    }

    /// Writes all events to `out`. At the end it waits while `out` takes something at least every `limit`.
    fn to(out: Box<dyn Write + Send>, plan: TracePlan, header: &Header, limit: Duration) -> Result<Self> {
        let (patience, out) = Patience::with(out, limit);
        let out: Box<dyn Write + Send> = Box::new(out);
        let trace = Trace::new(out, header).with_context(|| format!("write {}", output::shown(&plan.path)))?;
        Ok(Self { destination: Destination::Trace(Box::new(trace)), plan, patience })
    }

    /// Starts the thread that writes, which has the caller's capabilities.
    pub fn start(self) -> Result<(EventRecorder, EventSink)> {
        let Self { destination, plan, patience } = self;
        let TracePlan { path, flight_recorder, .. } = plan;
        let writer = Writer {
            path: path.clone(),
            destination,
            vms: Vms::new(),
            reorder: ReorderBuffer::default(),
            summary: EventSummary::default(),
        };
        let (queue, messages) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("events".into()).spawn(move || writer.run(&messages));
        let thread = thread.context("start the thread that writes events")?;
        let sink = EventSink::new(queue.clone(), patience.clone());
        Ok((EventRecorder { queue, thread, flight_recorder, path, patience }, sink))
    }
}

impl EventRecorder {
    /// Completes the trace after the collector has finished its sink, and prints the summary. `dropped` is the number of
    /// entries whose record found its ring full.
    pub fn finish(self, dropped: u64, reason: &str) -> Result<EventSummary> {
        let end = Message::End { dropped, reason: reason.into() };
        let ended = self.patience.send(&self.queue, end) && self.patience.wait_until(|| self.thread.is_finished());
        ensure!(ended, "write {}: {STALLED}; single events are missing from it", output::shown(&self.path));
        let summary = self.thread.join().map_err(|_| anyhow!("the thread that writes events panicked"))?;
        say!("{}", describe(&summary, &self.path, self.flight_recorder.as_ref()));
        Ok(summary)
    }
}

fn describe(summary: &EventSummary, path: &Path, flight_recorder: Option<&FlightOptions>) -> String {
    let EventSummary { written, not_written, bytes, matches, traces, cut_short, .. } = *summary;
    let mut text = match flight_recorder {
        None => format!("wrote {written} events to {} ({bytes} bytes)", output::shown(path)),
        Some(options) => {
            format!("flight recorder: {} matched {matches} entries; traces written: {traces}", options.trigger)
        }
    };
    if not_written > 0 {
        text += &format!("; {not_written} events are missing: writing was too slow or failed");
    }
    if cut_short {
        text += &format!("; memory for {CAPACITY} events did not reach back as far as --flight-recorder asks");
    }
    if flight_recorder.is_none() && written > 0 || traces > 0 {
        text += "\nopen it at https://ui.perfetto.dev (nothing is uploaded)";
    }
    text
}

enum Destination {
    Trace(Box<Trace<Box<dyn Write + Send>>>),
    FlightRecorder(Box<FlightRecorder>),
    /// A write failed: the remaining events are only counted.
    Failed,
}

/// The thread's state.
struct Writer {
    path: PathBuf,
    destination: Destination,
    vms: Vms,
    reorder: ReorderBuffer,
    summary: EventSummary,
}

impl Writer {
    fn run(mut self, messages: &Receiver<Message>) -> EventSummary {
        let (mut dropped, mut reason) = (None, "an error".to_owned());
        while let Ok(message) = messages.recv() {
            match message {
                Message::Batch(batch) => self.take(batch),
                Message::End { dropped: n, reason: why } => {
                    (dropped, reason) = (Some(n), why);
                    break;
                }
            }
        }
        let rest = self.reorder.release(u64::MAX);
        self.write(rest);
        let not_written = self.summary.not_written;
        self.close(&Closing { reason, not_written, dropped });
        self.summary
    }

    fn take(&mut self, batch: Batch) {
        self.vms.extend(batch.vms.into_iter().map(|(vm, naming)| (vm.id, naming.wait(&vm))));
        while self.vms.len() > MAX_VMS {
            self.vms.pop_first();
        }
        self.summary.not_written += batch.not_written;
        self.reorder.add(batch.events);
        let events = self.reorder.release(batch.complete_ns);
        self.write(events);
    }

    fn write(&mut self, events: Vec<VmEvent>) {
        let count = events.len() as u64;
        let trace = match &mut self.destination {
            Destination::Trace(trace) => trace,
            Destination::FlightRecorder(flight_recorder) => {
                for vm_event in events {
                    flight_recorder.push(vm_event, &self.vms, &mut self.summary);
                }
                return;
            }
            Destination::Failed => {
                self.summary.not_written += count;
                return;
            }
        };
        let before = trace.events();
        match trace.write(events, &self.vms) {
            Ok(refused) => self.summary.not_written += refused,
            Err(error) => {
                // Events of the chunk that failed may or may not be in the file: they count as missing.
                self.summary.written = trace.events();
                self.summary.bytes = trace.bytes();
                self.summary.not_written += count - (trace.events() - before);
                self.summary.fail(&self.path, &error);
                self.destination = Destination::Failed;
            }
        }
    }

    /// Completes the trace, unless writing it has failed before. A flight recorder's traces are complete already.
    fn close(&mut self, closing: &Closing) {
        let Destination::Trace(trace) = std::mem::replace(&mut self.destination, Destination::Failed) else { return };
        self.summary.written = trace.events();
        self.summary.bytes = trace.bytes();
        match trace.finish(monotonic_ns(), closing) {
            Ok(bytes) => self.summary.bytes = bytes,
            Err(error) => self.summary.fail(&self.path, &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc, time::Instant};

    use tracer_common::Event;

    use super::*;
    use crate::{
        host::naming::Naming,
        model::interval::tests::{event, vm},
        recording::tests::header,
    };

    /// A pipe that nobody reads: it takes bytes while it has room, and then keeps the writer waiting until its other end is dropped.
    struct Stuck {
        room: usize,
        other_end: Receiver<()>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.room.checked_sub(bytes.len()) {
                Some(left) => self.room = left,
                None => {
                    let _ = self.other_end.recv();
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_does_not_keep_the_end_waiting() {
        let (_reader, other_end) = sync_channel(0);
        // The trace's head fits in, and no events.
        let writer = Stuck { room: 1 << 10, other_end };
        let plan = TracePlan { path: "-".into(), overwrite: false, flight_recorder: None };
        let limit = Duration::from_millis(100);
        let (recorder, mut sink) = OpenedTrace::to(Box::new(writer), plan, &header(), limit).unwrap().start().unwrap();
        let (vm, naming) = (vm(0), Arc::new(Naming::known(1, "web1".into())));
        // More than the queue holds.
        for event_number in 1..400_000 {
            let exit_ns = 10_000 * event_number;
            sink.push(&Event { entry_ns: exit_ns - 5, exit_ns, ..event(0, 10, 5, 0) }, &vm, &naming);
            if event_number % 1000 == 0 {
                sink.end_pass(exit_ns);
            }
        }
        let started = Instant::now();
        sink.finish();
        let error = recorder.finish(0, "SIGTERM").unwrap_err().to_string();
        assert!(error.contains(STALLED), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
