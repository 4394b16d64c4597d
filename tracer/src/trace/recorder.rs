//! Single events on their way to a file: the collector hands batches over and never waits; a thread orders them and writes traces.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use tracer_common::Event;

use crate::{
    host::clock::monotonic_ns,
    model::{
        figures::{Unit, human},
        interval::Vm,
    },
    output,
    recording::Header,
    say,
    trace::{
        flight_recorder::{CAPACITY, Ring},
        perfetto::{Closing, Seen, Trace, Vms, reason_name},
        trigger::Trigger,
    },
};

/// Events of one batch; 104 bytes each.
const BATCH: usize = 32_768;
/// Batches that may wait for the writer: with the one that is filled and the one that is written, 34 MiB.
const QUEUE: usize = 8;
/// Events held back to put them in order; beyond, the oldest go out as they are.
const MAX_HELD: usize = 4 * BATCH;
/// VMs whose names are remembered.
const MAX_VMS: usize = 65_536;
/// By how much a record may enter its ring after its `exit_ns`.
const SUBMIT_NS: u64 = 10_000_000;
/// Passes until none that comes can be older than an event at hand.
const PASSES: u8 = 4;
/// Traces that one flight recorder writes.
pub const MAX_TRACES: u32 = 8;

/// What to write single events into.
pub struct Plan {
    /// the trace; a flight recorder's further ones get numbers
    pub path: PathBuf,
    /// existing files may be replaced
    pub overwrite: bool,
    /// only what came before this; none for all events
    pub flight: Option<Flight>,
}

/// What a flight recorder keeps and waits for.
#[derive(Clone, Debug)]
pub struct Flight {
    /// what it waits for
    pub trigger: Trigger,
    /// the time before that it writes
    pub span: Duration,
}

#[derive(Default)]
struct Batch {
    vms: Vec<Arc<Vm>>,
    events: Vec<Seen>,
    /// no event with an earlier `exit_ns` comes after this batch
    complete_ns: u64,
    /// events that found no room since the last batch
    not_written: u64,
}

enum Message {
    Batch(Batch),
    End { dropped: u64, reason: String },
}

/// The collector's end: takes events without ever waiting.
pub struct Tap {
    to: SyncSender<Message>,
    batch: Batch,
    next_vm: u32,
    pass_began_ns: u64,
    /// passes whose end the writer waits for to let go of the last events
    owed: u8,
}

impl Tap {
    /// Takes an event.
    pub fn push(&mut self, event: &Event, vm: &Arc<Vm>) {
        if self.batch.events.len() >= BATCH {
            self.hand_over();
        }
        // VMs are numbered in the order of their first event.
        if vm.id >= self.next_vm {
            self.next_vm = vm.id + 1;
            self.batch.vms.push(Arc::clone(vm));
        }
        if self.batch.events.len() >= BATCH {
            self.batch.not_written += 1;
        } else {
            self.batch.events.push(Seen { vm: vm.id, event: *event });
        }
    }

    /// All rings were looked at once since `began_ns`, CLOCK_MONOTONIC.
    pub fn end_pass(&mut self, began_ns: u64) {
        // What a ring held when the pass before began was taken by its end; what came later may lie behind a younger one of
        // another CPU.
        self.batch.complete_ns = self.pass_began_ns.saturating_sub(SUBMIT_NS);
        self.pass_began_ns = began_ns;
        if !self.batch.events.is_empty() {
            self.owed = PASSES;
        }
        if self.owed > 0 {
            self.owed -= 1;
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        match self.to.try_send(Message::Batch(batch)) {
            Ok(()) => {}
            // It goes on filling; the next try is soon.
            Err(TrySendError::Full(Message::Batch(batch))) => self.batch = batch,
            // The writer is gone, and says why when it is joined.
            Err(_) => {}
        }
    }

    /// Hands over what is left. The rings are empty and detached: only now may it wait.
    pub fn finish(mut self) {
        self.batch.complete_ns = u64::MAX;
        let _ = self.to.send(Message::Batch(self.batch));
    }
}

/// What became of the single events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// in the trace, or in a flight recorder's traces
    pub written: u64,
    /// arrived and in no trace, although asked for
    pub not_written: u64,
    /// bytes of the traces
    pub bytes: u64,
    /// events that a flight recorder waited for
    pub matches: u64,
    /// traces that a flight recorder wrote
    pub traces: u32,
    /// a trace does not reach as far back as was asked for
    pub cut_short: bool,
    /// a file could not be written; it has been said
    pub failed: bool,
}

/// The thread that writes.
pub struct Recorder {
    to: SyncSender<Message>,
    thread: JoinHandle<Summary>,
    flight: Option<Flight>,
    path: PathBuf,
}

impl Recorder {
    /// Opens what is to be written, or makes sure that it could be, and starts the thread.
    pub fn start(plan: Plan, header: &Header) -> Result<(Self, Tap)> {
        plan.check()?;
        let sink = match &plan.flight {
            None => {
                let out = output::create(&plan.path, plan.overwrite)?;
                let trace = Trace::new(out, header).with_context(|| format!("write {}", plan.path.display()))?;
                Sink::All(Box::new(trace))
            }
            Some(flight) => Sink::Flight(Ring::new(flight.span.as_nanos() as u64, CAPACITY)),
        };
        let (to, from) = sync_channel(QUEUE);
        let (flight, path) = (plan.flight.clone(), plan.path.clone());
        let writer = Writer {
            plan,
            header: header.clone(),
            sink,
            vms: Vms::new(),
            held: Vec::new(),
            last_ns: None,
            summary: Summary::default(),
        };
        let thread = std::thread::Builder::new().name("events".into()).spawn(move || writer.run(&from));
        let thread = thread.context("start the thread that writes events")?;
        let tap = Tap { to: to.clone(), batch: Batch::default(), next_vm: 0, pass_began_ns: 0, owed: 0 };
        Ok((Self { to, thread, flight, path }, tap))
    }

    /// Completes the trace once the collector has ended. `dropped`: entries whose record found its ring full.
    pub fn finish(self, dropped: u64, reason: &str) -> Result<Summary> {
        let _ = self.to.send(Message::End { dropped, reason: reason.into() });
        let summary = self.thread.join().map_err(|_| anyhow!("the thread that writes events panicked"))?;
        say!("{}", describe(&summary, &self.path, self.flight.as_ref()));
        Ok(summary)
    }
}

fn describe(summary: &Summary, path: &Path, flight: Option<&Flight>) -> String {
    let Summary { written, not_written, bytes, matches, traces, cut_short, .. } = *summary;
    let mut text = match flight {
        None => format!("wrote {written} events to {} ({bytes} bytes)", path.display()),
        Some(flight) => {
            format!("flight recorder: {} matched {matches} entries; traces written: {traces}", flight.trigger)
        }
    };
    if not_written > 0 {
        text += &format!("; {not_written} events are missing: writing was too slow or failed");
    }
    if cut_short {
        text += &format!("; memory for {CAPACITY} events did not reach as far back as --flight-recorder says");
    }
    if flight.is_none() && written > 0 || traces > 0 {
        text += "\nopen it at https://ui.perfetto.dev (nothing is uploaded)";
    }
    text
}

impl Plan {
    /// Refuses, before anything is opened, what would be refused then: a flight recorder opens its files only when it has something to
    /// write, and an old recording must outlive a refusal.
    pub fn check(&self) -> Result<()> {
        let name = self.path.display();
        if self.path == Path::new("-") {
            if self.flight.is_some() {
                bail!("--events -: a flight recorder may write several traces: name a file");
            }
            return Ok(());
        }
        let folder = self.path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            bail!("--events {name}: there is no folder {}", folder.display());
        }
        for number in 1..=if self.flight.is_some() { MAX_TRACES } else { 1 } {
            let path = numbered(&self.path, number);
            let Ok(found) = path.symlink_metadata() else { continue };
            if found.is_symlink() {
                bail!("--events {name}: {} is a symbolic link, which is not followed", path.display());
            }
            if found.is_file() && found.len() > 0 && !self.overwrite {
                bail!("--events {name}: {} exists: choose another name or say --overwrite", path.display());
            }
        }
        Ok(())
    }
}

/// "a.pftrace", "a-2.pftrace", ...
fn numbered(path: &Path, number: u32) -> PathBuf {
    if number < 2 {
        return path.into();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

enum Sink {
    All(Box<Trace<Box<dyn Write + Send>>>),
    Flight(Ring),
    /// A write failed: the rest is counted.
    Failed,
}

struct Writer {
    plan: Plan,
    header: Header,
    sink: Sink,
    vms: Vms,
    /// events that an earlier one may still follow
    held: Vec<Seen>,
    /// `exit_ns` of the event that the last trace was written for
    last_ns: Option<u64>,
    summary: Summary,
}

impl Writer {
    fn run(mut self, from: &Receiver<Message>) -> Summary {
        let mut end = (None, "an error".to_owned());
        while let Ok(message) = from.recv() {
            match message {
                Message::Batch(batch) => self.take(batch),
                Message::End { dropped, reason } => {
                    end = (Some(dropped), reason);
                    break;
                }
            }
        }
        self.release(u64::MAX);
        let (dropped, reason) = end;
        let closing = Closing { reason, not_written: self.summary.not_written, dropped };
        if let Sink::All(trace) = std::mem::replace(&mut self.sink, Sink::Failed) {
            let (events, bytes) = (trace.events(), trace.bytes());
            match trace.finish(monotonic_ns(), &closing) {
                Ok(total) => self.summary.bytes = total,
                Err(error) => {
                    self.summary.bytes = bytes;
                    self.fail(&self.plan.path.clone(), &error);
                }
            }
            self.summary.written = events;
        }
        self.summary
    }

    fn take(&mut self, batch: Batch) {
        self.vms.extend(batch.vms.into_iter().map(|vm| (vm.id, vm)));
        while self.vms.len() > MAX_VMS {
            self.vms.pop_first();
        }
        self.summary.not_written += batch.not_written;
        self.held.extend(batch.events);
        self.release(batch.complete_ns);
    }

    /// Lets go, in order, of the events that none can precede any more.
    fn release(&mut self, complete_ns: u64) {
        // Mostly runs that ascend, which a stable sort merges.
        self.held.sort_by_key(|s| s.event.exit_ns);
        let complete = self.held.partition_point(|s| s.event.exit_ns < complete_ns);
        let out = complete.max(self.held.len().saturating_sub(MAX_HELD));
        let events: Vec<_> =
            if complete_ns == u64::MAX { std::mem::take(&mut self.held) } else { self.held.drain(..out).collect() };
        if let Sink::Flight(_) = self.sink {
            for seen in events {
                self.remember(seen);
            }
            return;
        }
        let Sink::All(trace) = &mut self.sink else {
            self.summary.not_written += events.len() as u64;
            return;
        };
        let (all, before) = (events.len() as u64, trace.events());
        match trace.write(events, &self.vms) {
            Ok(refused) => self.summary.not_written += refused,
            Err(error) => {
                // Those of the chunk that failed may be in the file or not: they count as missing.
                let written = trace.events() - before;
                self.summary.written = trace.events();
                self.summary.bytes = trace.bytes();
                self.summary.not_written += all - written;
                self.fail(&self.plan.path.clone(), &error);
                self.sink = Sink::Failed;
            }
        }
    }

    fn fail(&mut self, path: &Path, error: &dyn std::fmt::Display) {
        self.summary.failed = true;
        tell(&format!("vmentry: write {}: {error}; recording goes on without it", path.display()));
    }

    fn remember(&mut self, seen: Seen) {
        let (Sink::Flight(ring), Some(flight)) = (&mut self.sink, &self.plan.flight) else { return };
        ring.push(seen);
        if !flight.trigger.matches(&seen.event) {
            return;
        }
        self.summary.matches += 1;
        let at_ns = seen.event.exit_ns;
        let soon = self.last_ns.is_some_and(|last| at_ns.saturating_sub(last) < flight.span.as_nanos() as u64);
        if soon || self.summary.traces >= MAX_TRACES || self.summary.failed {
            return;
        }
        self.last_ns = Some(at_ns);
        let what = account(&seen, &self.vms);
        let (events, cut_short) = (ring.window(at_ns), ring.is_cut_short(at_ns));
        self.summary.cut_short |= cut_short;
        let path = numbered(&self.plan.path, self.summary.traces + 1);
        match self.dump(&path, events, &what) {
            Ok((events, bytes)) => {
                self.summary.traces += 1;
                self.summary.written += events;
                self.summary.bytes += bytes;
                let short = if cut_short { "; memory did not reach further back" } else { "" };
                tell(&format!("{what}: wrote {} ({events} events{short})", path.display()));
            }
            Err(error) => self.fail(&path, &format!("{error:#}")),
        }
    }

    fn dump(&self, path: &Path, events: Vec<Seen>, what: &str) -> Result<(u64, u64)> {
        let mut trace = Trace::new(output::create(path, self.plan.overwrite)?, &self.header)?;
        let refused = trace.write(events, &self.vms)?;
        let events = trace.events();
        let not_written = self.summary.not_written + refused;
        let bytes = trace.finish(monotonic_ns(), &Closing { reason: what.into(), not_written, dropped: None })?;
        Ok((events, bytes))
    }
}

/// The event that a flight recorder waited for.
fn account(seen: &Seen, vms: &BTreeMap<u32, Arc<Vm>>) -> String {
    let Seen { vm, event } = seen;
    let round = event.outline();
    let vm = vms.get(vm).map_or_else(|| format!("vm-{vm}"), |vm| format!("{} [{}]", vm.name, vm.tgid));
    let time = |ns: u64| human(Some(ns as f64), Unit::Ns);
    let host = if event.exit_to_entry_ns == Event::UNKNOWN_NS { "n/a".into() } else { time(event.exit_to_entry_ns) };
    let cause = round.timer_cause().map_or(String::new(), |c| format!(" ({})", c.name()));
    let writes = round.known_pin_writes().map_or("n/a".into(), |n| n.to_string());
    format!(
        "trigger: VM {vm} vCPU {}, {}{cause}, entry_to_exit {}, exit_to_entry {host}, pin_writes {writes}",
        event.vcpu,
        reason_name(round.isa(), round.reason()),
        time(event.entry_to_exit_ns()),
    )
}

/// Says something while a line of progress may stand there.
fn tell(text: &str) {
    if io::stderr().is_terminal() {
        say!("\r\x1b[K{text}");
    } else {
        say!("{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::interval::tests::{event, vm};

    fn tap() -> (Tap, Receiver<Message>) {
        let (to, from) = sync_channel(2);
        (Tap { to, batch: Batch::default(), next_vm: 0, pass_began_ns: 0, owed: 0 }, from)
    }

    fn batches(from: &Receiver<Message>) -> Vec<Batch> {
        let batch = |m| match m {
            Message::Batch(batch) => Some(batch),
            Message::End { .. } => None,
        };
        from.try_iter().filter_map(batch).collect()
    }

    #[test]
    fn a_writer_that_is_too_slow_makes_nobody_wait_and_what_is_lost_is_counted() {
        let (mut tap, from) = tap();
        let lost = 17;
        for _ in 0..3 * BATCH + lost {
            tap.push(&event(0, 10, 5, 0), &vm(0));
        }
        tap.end_pass(1);
        let first = batches(&from);
        assert_eq!(first.iter().map(|b| (b.events.len(), b.not_written)).collect::<Vec<_>>(), [(BATCH, 0), (BATCH, 0)]);
        // There is room again.
        tap.push(&event(0, 10, 5, 0), &vm(7));
        tap.end_pass(2);
        let then = batches(&from);
        let (events, vms): (usize, usize) = then.iter().fold((0, 0), |a, b| (a.0 + b.events.len(), a.1 + b.vms.len()));
        assert_eq!((events, vms), (BATCH + 1, 1));
        assert_eq!(then.iter().map(|b| b.not_written).sum::<u64>(), lost as u64);
    }

    #[test]
    fn the_writer_learns_of_the_passes_after_the_last_event_and_then_is_left_alone() {
        let (mut tap, from) = tap();
        tap.push(&event(0, 10, 5, 0), &vm(0));
        for pass in 1..20 {
            tap.end_pass(pass * 50_000_000);
            let sent = batches(&from);
            assert_eq!(sent.len(), usize::from(pass <= u64::from(PASSES)), "{pass}");
            let complete = sent.first().map_or(0, |b| b.complete_ns);
            assert!(sent.is_empty() || complete == (pass - 1).saturating_mul(50_000_000).saturating_sub(SUBMIT_NS));
        }
        assert!(batches(&from).is_empty());
    }

    #[test]
    fn further_traces_have_numbers() {
        assert_eq!(numbered(Path::new("/a/b.pftrace"), 1), Path::new("/a/b.pftrace"));
        assert_eq!(numbered(Path::new("/a/b.pftrace"), 3), Path::new("/a/b-3.pftrace"));
        assert_eq!(numbered(Path::new("b"), 2), Path::new("b-2"));
    }
}
