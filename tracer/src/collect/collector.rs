//! Collects records from the rings into intervals and sends them through a channel. One owner, no mutex: a slow consumer makes an
//! interval longer, but never loses one.

use std::{collections::VecDeque, os::fd::OwnedFd, path::Path, thread::JoinHandle, time::Duration};

use anyhow::{Context, Result, anyhow};
use rustc_hash::FxHashSet;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc::{self, OwnedPermit},
    time::MissedTickBehavior,
};
use tracer_common::{Counters, Event, Isa, Outline, ShortRecord};

use crate::{
    collect::{
        arrivals::{Arrivals, Progress},
        clocks::Clocks,
        shares::{Named, say_lost},
        vms::{Unnamed, Vms},
    },
    host::{clock::monotonic_ns, labels::rules::LabelRules, roots::Roots},
    kernel::{in_kernel_series::Growth, tracer::Tracer},
    model::{
        accounting::Accounting,
        accumulator::Accumulator,
        figures::Figure,
        interval::{Interval, MAX_VMS},
        measurement::Aggregation,
        series::Key,
        totals::TracedTimerExits,
    },
    output::say_over_progress,
    trace::event_sink::EventSink,
};

/// How often the rings are drained unless their fill level wakes the collector earlier.
const POLL: Duration = Duration::from_millis(50);
/// Most records taken from one ring before the next ring.
const BATCH: usize = 16_384;
/// Most looks at the rings after detaching, a millisecond apart, until all entries that the kernel counted have arrived.
const LAST_LOOKS: u32 = 1000;
/// Intervals that wait for a slow consumer before the collector makes them longer.
const QUEUE: usize = 8;
/// Collects from an attached tracer.
struct Collector {
    tracer: Tracer,
    clocks: Clocks,
    vms: Vms,
    arrivals: Arrivals,
    /// process and `struct kvm` of the vCPUs that the programs count, whose VMs were asked for their names
    owners: FxHashSet<(u32, u64)>,
    /// the kernel's counters at the end of the last interval
    counters: Vec<Counters>,
    /// executions of each VMWRITE site up to the end of the last interval
    sites: Vec<u64>,
    /// the current interval
    accumulator: Accumulator,
    /// also gets each event
    events: Option<EventSink>,
    /// processes that have their share of the series
    named: Named,
}

impl Collector {
    /// Collects from an attached tracer; the first interval begins now.
    fn new(attached: Attached, events: Option<EventSink>) -> Result<Self> {
        let Attached { mut tracer, clocks, rules, roots } = attached;
        let cpus = tracer.rings().iter().map(|r| r.cpu as usize + 1).max().unwrap_or(0);
        let arrivals = Arrivals::new(tracer.aggregation(), cpus);
        Ok(Self {
            tracer,
            clocks,
            vms: Vms::new(&roots, rules)?,
            arrivals,
            owners: FxHashSet::default(),
            counters: Vec::new(),
            sites: Vec::new(),
            accumulator: Accumulator::of(Interval::starting(monotonic_ns())),
            events,
            named: Named::default(),
        })
    }

    /// Drains the rings into the current interval, each by at most a batch; returns the number of records.
    fn drain(&mut self) -> usize {
        let Self { tracer, clocks, vms, arrivals, owners, accumulator, events, .. } = self;
        let layout_isa = tracer.layout_isa();
        // SVM has no preemption timer, whose deadlines need the clocks.
        if layout_isa != Some(Isa::Svm) {
            clocks.read(tracer);
        }
        let began_ns = events.as_ref().map_or(0, |_| monotonic_ns());
        let mut records = 0;
        let woken = tracer.forget_wake_ups();
        if let Some(series) = tracer.in_kernel_series() {
            // A new vCPU: its VM is named now, while the process exists. Counts are read when the interval ends.
            if owners.len() >= MAX_VMS {
                owners.clear();
            }
            // Not at each poll: it is a look at the memory of all series.
            if woken {
                for owner in series.owners() {
                    if owners.insert((owner.tgid, owner.kvm)) {
                        vms.get(owner.tgid, owner.kvm);
                    }
                }
            }
            vms.keep_asking();
            return 0;
        }
        for ring in tracer.rings() {
            let taken = ring.drain(BATCH, |bytes| {
                // Whoever gets each event gets a whole one.
                let plain = if events.is_none() { ShortRecord::decode_plain(bytes) } else { None };
                if let Some(record) = plain
                    && !is_foreign(record.outline, layout_isa)
                {
                    let found = vms.get(record.tgid(), record.kvm);
                    accumulator.record_plain(&record, &found.vm);
                    return;
                }
                count_event(bytes, layout_isa, clocks, vms, accumulator, events);
            });
            let Progress { entries, dropped } = arrivals.add_records(ring.cpu, taken as u64, ring.last());
            let totals = &mut accumulator.interval.totals;
            totals.delivered += taken as u64;
            totals.entries += entries;
            totals.dropped += dropped;
            records += taken;
        }
        vms.keep_asking();
        if let Some(events) = events {
            events.end_pass(began_ns);
        }
        records
    }

    /// Adds the entries that the programs counted to the current interval.
    fn add_in_kernel_series(&mut self) {
        let Self { tracer, vms, arrivals, accumulator, .. } = self;
        let layout_isa = tracer.layout_isa();
        let Some(series) = tracer.in_kernel_series() else { return };
        series.take(|growth| add_growth(&growth, vms, arrivals, accumulator, layout_isa));
    }

    /// Takes series back from VMs that have ended and from processes that hold more than their share.
    fn share_in_kernel_series(&mut self) {
        let Self { tracer, vms, arrivals, accumulator, .. } = self;
        let layout_isa = tracer.layout_isa();
        let Some(series) = tracer.in_kernel_series() else { return };
        match series.share(|growth| add_growth(&growth, vms, arrivals, accumulator, layout_isa)) {
            Ok(limited) => self.named.say_limited(&limited),
            Err(error) => say_over_progress(&format!("series of VMs that end are kept: {error:#}")),
        }
    }

    /// Adds the kernel's counts since the last interval that records do not show.
    fn add_counters(&mut self) -> Result<()> {
        let now = self.tracer.counters();
        let growth = |of: &dyn Fn(&Counters) -> u64| {
            let sum = |counters: &[Counters]| counters.iter().map(of).sum::<u64>();
            sum(&now) - sum(&self.counters)
        };
        let totals = &mut self.accumulator.interval.totals;
        // An interval without entries was counted, too.
        for counted in [&mut totals.foreign_isa, &mut totals.shadow_pin_writes] {
            counted.get_or_insert_default();
        }
        totals.unmatched += growth(&|c| c.unmatched_entries + c.unmatched_exits);
        *totals.evicted.get_or_insert_default() += growth(&|c| c.evicted + c.no_state);
        totals.td_entries += growth(&|c| c.td_entries);
        if self.tracer.aggregation() == Aggregation::InKernel {
            // Records have numbers, whose gaps are drops; series do not.
            let dropped = growth(&|c| c.dropped);
            totals.entries += dropped;
            totals.dropped += dropped;
        }
        if self.tracer.splits_host_time() {
            *totals.inexact_phases.get_or_insert_default() += growth(&|c| c.inexact_phases);
        }
        if self.tracer.has_stopwatch() {
            *totals.stopwatch_excesses.get_or_insert_default() += growth(&|c| c.stopwatch_excesses);
        }
        if self.tracer.traces_timer_exits() {
            let cause = |cause: usize| growth(&|c| c.traced_timer_exits[cause]);
            let early = self.tracer.traces_lateness().then(|| growth(&|c| c.traced_early_exits));
            totals.traced_timer_exits = Some(TracedTimerExits {
                spurious: cause(0),
                immediate: cause(1),
                deadline: cause(2) - early.unwrap_or_default(),
                early,
            });
        }
        let sites = self.tracer.sites()?;
        for (index, count) in sites.iter().enumerate() {
            totals.site_writes[index] = count - self.sites.get(index).unwrap_or(&0);
        }
        self.sites = sites;
        self.counters = now;
        Ok(())
    }

    /// Ends the current interval while the programs run.
    fn end_interval(&mut self) -> Result<Unnamed> {
        self.add_in_kernel_series();
        self.share_in_kernel_series();
        self.cut()
    }

    /// Ends the current interval, which has all that was read of the series, and returns it; the next one begins.
    fn cut(&mut self) -> Result<Unnamed> {
        self.add_counters()?;
        let now = monotonic_ns();
        self.tracer.flush_log();
        let mut whole = std::mem::replace(&mut self.accumulator, Accumulator::of(Interval::starting(now))).finish();
        whole.length_ns = now - whole.start_ns;
        let unnamed = self.vms.end(whole);
        let ended = self.vms.take_ended();
        if !ended.is_empty() {
            self.tracer.free_states(|tgid, kvm| ended.contains(&(tgid, kvm)));
        }
        Ok(unnamed)
    }

    /// Detaches, drains the rings, and checks that entries == delivered + dropped; returns the last interval, too.
    fn finish(mut self) -> Result<(Interval, Accounting)> {
        self.tracer.detach()?;
        let mut kernel = self.tracer.counters();
        for _ in 0..LAST_LOOKS {
            while self.drain() > 0 {}
            self.add_in_kernel_series();
            kernel = self.tracer.counters();
            if self.arrivals.are_complete(&kernel) {
                break;
            }
            // A program may still run on another CPU for a moment after it was detached.
            std::thread::sleep(Duration::from_millis(1));
        }
        // The programs are detached: nothing is lost while this waits.
        self.vms.wait_for_names();
        if let Some(events) = self.events.take() {
            events.finish();
        }
        let (accounting, trailing) = self.arrivals.accounting(&kernel, self.tracer.open_rounds());
        let totals = &mut self.accumulator.interval.totals;
        totals.entries += trailing;
        totals.dropped += trailing;
        if let Some(series) = self.tracer.in_kernel_series() {
            say_lost(series.lost());
        }
        let last = self.cut()?;
        self.vms.wait_for_names();
        Ok((last.complete(), accounting))
    }

    fn wake_up(&self) -> Result<AsyncFd<OwnedFd>> {
        let fd = self.tracer.wake_up().context("watch the rings")?;
        // SAFETY: `AsyncFd` owns the `OwnedFd` that it registers and removes the registration before it closes the descriptor. The safe
        // constructors are deprecated because other types may close or change theirs (tokio pull request 8587); an `OwnedFd` cannot.
        unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(|e| anyhow!("watch the rings: {e}"))
    }
}

/// Adds the event of a record to the current interval, whatever is known of it.
#[inline(never)]
fn count_event(
    bytes: &[u8],
    layout_isa: Option<Isa>,
    clocks: &Clocks,
    vms: &mut Vms,
    accumulator: &mut Accumulator,
    events: &mut Option<EventSink>,
) {
    let Some(mut event) = Event::decode(bytes) else {
        accumulator.interval.totals.malformed += 1;
        return;
    };
    if let Some(lateness) = clocks.lateness(&event) {
        event.late_ns = Some(lateness.ns);
        let error = accumulator.interval.totals.deadline_error_ns.get_or_insert_default();
        *error = (*error).max(lateness.error_ns);
    }
    let found = vms.get(event.tgid, event.kvm);
    if is_foreign(event.outline(), layout_isa) {
        *accumulator.interval.totals.foreign_isa.get_or_insert_default() += 1;
    }
    accumulator.record(&event, &found.vm);
    if let Some(events) = events {
        events.push(&event, &found.vm, &found.naming);
    }
}

/// Adds the growth of a series that the programs count.
fn add_growth(
    growth: &Growth,
    vms: &mut Vms,
    arrivals: &mut Arrivals,
    accumulator: &mut Accumulator,
    layout_isa: Option<Isa>,
) {
    let vm = &vms.get(growth.owner.tgid, growth.owner.kvm).vm;
    let interval = &mut accumulator.interval;
    interval.add(Key::of(vm.id, growth.owner.vcpu, &growth.outline), &growth.series, vm);
    interval.totals.entries += growth.series.entries();
    interval.totals.delivered += growth.series.entries();
    *interval.totals.shadow_pin_writes.get_or_insert_default() += growth.series[Figure::PinWrites].sum();
    if is_foreign(growth.outline, layout_isa) {
        *interval.totals.foreign_isa.get_or_insert_default() += growth.series.entries();
    }
    arrivals.add_in_kernel(growth.series.entries());
}

/// Whether an entry is of another instruction set than the vendor's whose fields the programs read.
fn is_foreign(outline: Outline, layout_isa: Option<Isa>) -> bool {
    layout_isa.is_some_and(|own| own != outline.isa())
}

/// A tracer whose programs are attached, and the clocks by which they judge deadlines.
pub(crate) struct Attached {
    tracer: Tracer,
    clocks: Clocks,
    rules: LabelRules,
    roots: Roots,
}

impl Attached {
    /// Attaches the programs, which count and write records as soon as they are.
    pub(crate) fn new(mut tracer: Tracer) -> Result<Self> {
        let clocks = Clocks::start(&mut tracer)?;
        tracer.attach()?;
        Ok(Self { tracer, clocks, rules: LabelRules::default(), roots: Roots::default() })
    }

    /// With rules for further labels of VMs.
    pub(crate) fn labelled_by(self, rules: LabelRules) -> Self {
        Self { rules, ..self }
    }

    /// With processes below another folder than /proc, for a bench.
    pub(crate) fn with_processes_below(self, proc: &Path) -> Self {
        Self { roots: Roots { proc: proc.to_owned(), ..self.roots }, ..self }
    }
}

/// A running collection.
pub(crate) struct Collection {
    /// intervals in order; closed after the last one
    pub(crate) intervals: mpsc::Receiver<Interval>,
    /// a message asks for the end of an interval; closing it, for the end of the collection
    cuts: Option<mpsc::Sender<()>>,
    thread: JoinHandle<Result<Accounting>>,
}

impl Collection {
    /// Collects from an attached tracer on a thread of its own, which has the caller's capabilities. An interval ends every `period`, if
    /// there is one, and at every [`Self::cut`].
    pub(crate) fn start(attached: Attached, period: Option<Duration>) -> Result<Self> {
        Self::start_tapped(attached, period, None)
    }

    /// Like [`Collection::start`]; also passes each event to `events`.
    pub(crate) fn start_tapped(
        attached: Attached,
        period: Option<Duration>,
        events: Option<EventSink>,
    ) -> Result<Self> {
        let collector = Collector::new(attached, events)?;
        let (cuts, wanted) = mpsc::channel(1);
        let (send, intervals) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("collect".into())
            .spawn(move || run(collector, period, wanted, &send))
            .context("start the collector's thread")?;
        Ok(Self { intervals, cuts: Some(cuts), thread })
    }

    /// Ends the current interval now and returns it; none where the collector has ended by itself, for the reason that `join` returns.
    pub(crate) async fn cut(&mut self) -> Option<Interval> {
        self.cuts.as_ref()?.send(()).await.ok()?;
        self.intervals.recv().await
    }

    /// Asks for the end. The last interval still has to be received.
    pub(crate) fn stop(&mut self) {
        self.cuts = None;
    }

    /// Waits for the end; returns the accounting.
    pub(crate) fn join(mut self) -> Result<Accounting> {
        self.stop();
        // Nobody receives intervals any more, so the collector must not wait for room.
        self.intervals.close();
        self.thread.join().map_err(|_| anyhow!("the collector panicked"))?
    }
}

/// Collects until `cuts` is closed, sends an interval every `period`, and the last one at the end. Runs on a thread of its own, so that
/// neither a slow disk nor drawing delays the rings.
fn run(
    mut collector: Collector,
    period: Option<Duration>,
    mut cuts: mpsc::Receiver<()>,
    out: &mpsc::Sender<Interval>,
) -> Result<Accounting> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the collector")?;
    runtime.block_on(async {
        let wake_up = collector.wake_up()?;
        let mut poll = tokio::time::interval(POLL);
        // Without a period, the arm that waits for it is disabled.
        let mut held: VecDeque<(OwnedPermit<Interval>, Unnamed)> = VecDeque::new();
        let length = period.unwrap_or(Duration::from_secs(1 << 30));
        let mut end = tokio::time::interval_at(tokio::time::Instant::now() + length, length);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        end.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                cut = cuts.recv() => {
                    if cut.is_none() {
                        break;
                    }
                    collector.drain();
                    let interval = collector.end_interval()?;
                    // The caller of `cut` receives it.
                    let Ok(permit) = out.clone().reserve_owned().await else { break };
                    held.push_back((permit, interval));
                }
                _ = end.tick(), if period.is_some() => {
                    collector.drain();
                    // If the queue is full, the interval becomes longer.
                    if let Ok(permit) = out.clone().try_reserve_owned() {
                        held.push_back((permit, collector.end_interval()?));
                    } else if out.is_closed() {
                        break;
                    }
                }
                _ = poll.tick() => { collector.drain(); }
                woken = wake_up.readable() => {
                    woken.context("watch the rings")?.clear_ready();
                    collector.drain();
                }
            }
            // An interval waits for the names of its VMs, but the rings do not.
            while let Some((permit, interval)) = held.pop_front_if(|(_, interval)| interval.is_complete()) {
                permit.send(interval.complete());
            }
        }
        drop(wake_up);
        let (last, accounting) = collector.finish()?;
        for (permit, interval) in held {
            permit.send(interval.complete());
        }
        // The consumer may be gone after an error of its own (a full disk, say), which it reports itself.
        let _ = out.send(last).await;
        Ok(accounting)
    })
}
