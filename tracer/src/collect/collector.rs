//! Rings -> decode -> Interval -> channel. One owner, no mutex: a slow consumer makes an interval longer, it never
//! loses one.

use std::{os::fd::OwnedFd, path::Path, sync::Arc, thread::JoinHandle, time::Duration};

use anyhow::{Context, Result, anyhow};
use rustc_hash::FxHashMap;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::MissedTickBehavior,
};
use tracer_common::{Counters, Event};

use crate::{
    host::{clock::monotonic_ns, vmm},
    kernel::tracer::Tracer,
    model::{
        accounting::{Accounting, CpuAccount},
        accumulator::Gathering,
        interval::{Interval, Key, Totals, TracedTimerExits, Vm},
        measurement::Aggregation,
    },
    trace::event_sink::EventSink,
};

/// How often the rings are looked at when their fill level does not wake us before.
const POLL: Duration = Duration::from_millis(50);
/// Records taken from one ring before the next gets its turn.
const BATCH: usize = 16_384;
/// Looks at the rings after detaching, a millisecond apart, until the kernel's count is reached.
const LAST_LOOKS: u32 = 1000;
/// Intervals that may wait for a slow consumer before the collector makes them longer.
const QUEUE: usize = 8;
/// Places of VMs that are found without a search, as a power of two.
const RECENT_BITS: u32 = 5;
/// VMs remembered; beyond, the memory starts anew and a VM may be numbered twice.
const MAX_VMS: usize = 65_536;

/// What arrived of one CPU.
#[derive(Clone, Copy, Default)]
struct Arrived {
    last_seq: u64,
    delivered: u64,
}

impl Arrived {
    /// Takes so many records, of which the last one had this number, in; the entries since the last look, and how many of them were
    /// dropped.
    fn advance(&mut self, records: u64, seq: u64) -> (u64, u64) {
        let entries = seq.saturating_sub(self.last_seq);
        self.last_seq += entries;
        self.delivered += records;
        (entries, entries.saturating_sub(records))
    }
}

/// Numbers VMs by their process and their `struct kvm`.
#[derive(Default)]
struct Vms {
    /// found last, by a few bits of the address; no process has number 0
    recent: [((u32, u64), Arc<Vm>); 1 << RECENT_BITS],
    by_address: FxHashMap<(u32, u64), Arc<Vm>>,
    next: u32,
}

impl Vms {
    fn get(&mut self, tgid: u32, kvm: u64) -> &Arc<Vm> {
        let at = (kvm.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - RECENT_BITS)) as usize;
        if self.recent[at].0 != (tgid, kvm) {
            self.recent[at] = ((tgid, kvm), self.find(tgid, kvm));
        }
        &self.recent[at].1
    }

    fn find(&mut self, tgid: u32, kvm: u64) -> Arc<Vm> {
        if let Some(vm) = self.by_address.get(&(tgid, kvm)) {
            return Arc::clone(vm);
        }
        if self.by_address.len() >= MAX_VMS {
            self.by_address.clear();
        }
        let ordinal = self.by_address.keys().filter(|k| k.0 == tgid).count() as u32;
        let (name, start_ticks) = match vmm::read_process(Path::new("/proc"), tgid) {
            Ok(p) => (vmm::name_from(&p.cmdline, &p.cgroup, &p.comm).0, p.start_time_ticks),
            Err(_) => (format!("pid-{tgid}"), 0),
        };
        let vm = Arc::new(Vm { id: self.next, name, tgid, start_ticks, ordinal, host: None });
        self.next += 1;
        self.by_address.insert((tgid, kvm), Arc::clone(&vm));
        vm
    }
}

/// Collects from an attached tracer.
struct Collector {
    tracer: Tracer,
    vms: Vms,
    arrived: Vec<Arrived>,
    counters: Vec<Counters>,
    sites: Vec<u64>,
    /// entries that the programs counted themselves, as far as they were read
    tallied: u64,
    gathering: Gathering,
    /// where single events go, too
    events: Option<EventSink>,
}

impl Collector {
    /// Takes an attached tracer over; the first interval begins now.
    fn new(mut tracer: Tracer, events: Option<EventSink>) -> Self {
        let cpus = tracer.rings().iter().map(|r| r.cpu as usize + 1).max().unwrap_or(0);
        Self {
            tracer,
            vms: Vms::default(),
            arrived: vec![Arrived::default(); cpus],
            counters: Vec::new(),
            sites: Vec::new(),
            tallied: 0,
            gathering: Gathering::of(Interval::starting(monotonic_ns())),
            events,
        }
    }

    /// Empties the rings into the current interval, each at most a batch; the number of records.
    fn drain(&mut self) -> usize {
        let Self { tracer, vms, arrived, gathering, events, .. } = self;
        let began_ns = events.as_ref().map_or(0, |_| monotonic_ns());
        let mut records = 0;
        let woken = tracer.forget_wake_ups();
        if let Some(tallies) = tracer.tallies() {
            // A new vCPU: its process is asked for a name while there is one. Counts are read when the interval ends.
            for whose in tallies.whose().filter(|_| woken) {
                vms.get(whose.tgid, whose.kvm);
            }
            return 0;
        }
        for ring in tracer.rings() {
            let taken = ring.drain(BATCH, |bytes| {
                let Some(event) = Event::decode(bytes) else {
                    gathering.interval.totals.malformed += 1;
                    return;
                };
                let vm = vms.get(event.tgid, event.kvm);
                gathering.record(&event, vm);
                if let Some(events) = events {
                    events.push(&event, vm);
                }
            });
            let (entries, dropped) = arrived[ring.cpu as usize].advance(taken as u64, ring.last());
            let totals = &mut gathering.interval.totals;
            totals.delivered += taken as u64;
            totals.entries += entries;
            totals.dropped += dropped;
            records += taken;
        }
        if let Some(events) = events {
            events.end_pass(began_ns);
        }
        records
    }

    /// Brings what the programs counted themselves into the current interval.
    fn tally(&mut self) {
        let Self { tracer, vms, gathering, tallied, .. } = self;
        let Some(tallies) = tracer.tallies() else { return };
        tallies.take(|growth| {
            let vm = vms.get(growth.whose.tgid, growth.whose.kvm);
            let interval = &mut gathering.interval;
            interval.add(Key::of(vm.id, growth.whose.vcpu, &growth.outline), &growth.series, vm);
            interval.totals.entries += growth.series.entries();
            interval.totals.delivered += growth.series.entries();
            interval.totals.shadow_pin_writes += growth.series.pin_writes.sum();
            *tallied += growth.series.entries();
        });
    }

    /// Brings the kernel's counts of what is no entry into the current interval.
    fn count(&mut self) -> Result<()> {
        let now = self.tracer.counters();
        let sum = |c: &[Counters], f: fn(&Counters) -> u64| c.iter().map(f).sum::<u64>();
        let unmatched = |c: &Counters| c.unmatched_entries + c.unmatched_exits + c.no_state;
        let Totals { unmatched: u, td_entries: td, .. } = &mut self.gathering.interval.totals;
        *u += sum(&now, unmatched) - sum(&self.counters, unmatched);
        *td += sum(&now, |c| c.td_entries) - sum(&self.counters, |c| c.td_entries);
        if self.tracer.aggregation() == Aggregation::InKernel {
            // No number tells of them, as those of records do.
            let dropped = sum(&now, |c| c.dropped) - sum(&self.counters, |c| c.dropped);
            self.gathering.interval.totals.entries += dropped;
            self.gathering.interval.totals.dropped += dropped;
        }
        if self.tracer.traces_timer_exits() {
            let change = |cause: usize| {
                let of = |c: &[Counters]| c.iter().map(|c| c.traced_timer_exits[cause]).sum::<u64>();
                of(&now) - of(&self.counters)
            };
            self.gathering.interval.totals.traced_timer_exits =
                Some(TracedTimerExits { spurious: change(0), immediate: change(1), deadline: change(2) });
        }
        let sites = self.tracer.sites()?;
        for (index, count) in sites.iter().enumerate() {
            self.gathering.interval.totals.site_writes[index] = count - self.sites.get(index).unwrap_or(&0);
        }
        self.sites = sites;
        self.counters = now;
        Ok(())
    }

    /// The current interval, complete up to now; the next one begins.
    fn cut(&mut self) -> Result<Interval> {
        self.tally();
        self.count()?;
        let now = monotonic_ns();
        self.tracer.flush_log();
        let mut whole = std::mem::replace(&mut self.gathering, Gathering::of(Interval::starting(now))).finish();
        whole.length_ns = now - whole.start_ns;
        Ok(whole)
    }

    /// Detaches, takes what is still in the rings, and balances the books.
    fn finish(mut self) -> Result<(Interval, Accounting)> {
        self.tracer.detach()?;
        let mut kernel = self.tracer.counters();
        for _ in 0..LAST_LOOKS {
            while self.drain() > 0 {}
            self.tally();
            kernel = self.tracer.counters();
            if self.is_balanced(&kernel) {
                break;
            }
            // A program may still be running on another CPU for a moment after it was detached.
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(events) = self.events.take() {
            events.finish();
        }
        let mut accounting = Accounting { exact: self.is_balanced(&kernel), ..Accounting::default() };
        let in_kernel = self.tracer.aggregation() == Aggregation::InKernel;
        for (cpu, c) in kernel.iter().enumerate() {
            let mut arrived = self.arrived.get(cpu).copied().unwrap_or_default();
            if in_kernel {
                arrived = Arrived { last_seq: c.rounds, delivered: c.rounds - c.dropped };
            }
            // Drops behind the last record that arrived leave no gap; the kernel's counter tells of them.
            let trailing = c.rounds.saturating_sub(arrived.last_seq);
            self.gathering.interval.totals.entries += trailing;
            self.gathering.interval.totals.dropped += trailing;
            if c.rounds > 0 {
                let account =
                    CpuAccount { cpu: cpu as u32, entries: c.rounds, delivered: arrived.delivered, dropped: c.dropped };
                accounting.cpus.push(account);
            }
        }
        accounting.open = self.tracer.open_rounds();
        Ok((self.cut()?, accounting))
    }

    /// Whether what arrived, or was counted in the kernel, and what the kernel says of it are the same.
    fn is_balanced(&self, kernel: &[Counters]) -> bool {
        if self.tracer.aggregation() == Aggregation::InKernel {
            // Of all CPUs together: a series is its vCPU's, wherever that runs.
            return kernel.iter().map(|c| c.rounds - c.dropped).sum::<u64>() == self.tallied;
        }
        let arrived = |cpu: usize| self.arrived.get(cpu).map_or(0, |a| a.delivered);
        kernel.iter().enumerate().all(|(cpu, c)| c.rounds == arrived(cpu) + c.dropped)
    }

    fn wake_up(&self) -> Result<AsyncFd<OwnedFd>> {
        let fd = self.tracer.wake_up().context("watch the rings")?;
        // SAFETY: the descriptor is owned by what is registered and stays open until that is dropped.
        unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(|e| anyhow!("watch the rings: {e}"))
    }
}

/// A collection that runs.
pub struct Collection {
    /// what was seen, in order; ends after the last interval
    pub intervals: mpsc::Receiver<Interval>,
    /// a message asks for a cut; closing it, for the end
    cuts: Option<mpsc::Sender<()>>,
    thread: JoinHandle<Result<Accounting>>,
}

impl Collection {
    /// Attaches a tracer and collects from it on a thread of its own. An interval ends every `period`, if there is one, and
    /// with every [`Self::cut`].
    pub fn start(tracer: Tracer, period: Option<Duration>) -> Result<Self> {
        Self::start_tapped(tracer, period, None)
    }

    /// As [`Collection::start`]; single events go to `events`, too.
    pub fn start_tapped(mut tracer: Tracer, period: Option<Duration>, events: Option<EventSink>) -> Result<Self> {
        tracer.attach()?;
        let collector = Collector::new(tracer, events);
        let (cuts, wanted) = mpsc::channel(1);
        let (send, intervals) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("collect".into())
            .spawn(move || run(collector, period, wanted, &send))
            .context("start the collector's thread")?;
        Ok(Self { intervals, cuts: Some(cuts), thread })
    }

    /// Ends the current interval now and takes it; none where the collector has ended by itself: joining says why.
    pub async fn cut(&mut self) -> Option<Interval> {
        self.cuts.as_ref()?.send(()).await.ok()?;
        self.intervals.recv().await
    }

    /// Asks for the end. The last interval still has to be taken.
    pub fn stop(&mut self) {
        self.cuts = None;
    }

    /// Waits for the end; the balance.
    pub fn join(mut self) -> Result<Accounting> {
        self.stop();
        // Nobody takes intervals any more: the collector must not wait for room.
        self.intervals.close();
        self.thread.join().map_err(|_| anyhow!("the collector panicked"))?
    }
}

/// Collects until `stop`, sends an interval every `period`, and the last one at the end. Runs on a thread of its own, so that
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
        // Without a period the arm below is never polled.
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
                    // Who asked for it takes it.
                    if out.send(collector.cut()?).await.is_err() {
                        break;
                    }
                }
                _ = end.tick(), if period.is_some() => {
                    collector.drain();
                    // Where the consumer has not taken the last one, this one goes on.
                    if let Ok(permit) = out.try_reserve() {
                        permit.send(collector.cut()?);
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
        }
        drop(wake_up);
        let (last, accounting) = collector.finish()?;
        // The consumer may be gone (a full disk, say); it has said so itself.
        let _ = out.send(last).await;
        Ok(accounting)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_in_the_numbers_is_what_was_dropped() {
        let mut a = Arrived::default();
        assert_eq!(a.advance(0, 0), (0, 0));
        assert_eq!(a.advance(1, 1), (1, 0));
        assert_eq!(a.advance(1, 2), (1, 0));
        assert_eq!(a.advance(3, 9), (7, 4));
        assert_eq!(a.advance(0, 9), (0, 0));
        assert_eq!((a.delivered, a.last_seq), (5, 9));
    }
}
