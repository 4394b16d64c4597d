//! Sends single events from the collector in batches to the thread that writes, and never waits for it.

use std::sync::{
    Arc,
    mpsc::{SyncSender, TrySendError},
};

use tracer_common::Event;

use super::{patience::Patience, vm_event::VmEvent};
use crate::{host::naming::Naming, model::interval::Vm};

/// Events of one batch; 104 bytes each.
pub(super) const BATCH: usize = 32_768;
/// Batches that may be queued. With the one being filled and the one being written they take 34 MiB.
pub(super) const QUEUE: usize = 8;
/// Longest time from an event's `exit_ns` to its record's arrival in the ring.
const SUBMIT_NS: u64 = 10_000_000;
/// Passes over the rings after which no event older than the ones at hand can arrive.
const PASSES: u8 = 4;

/// Events on their way to the thread that writes.
#[derive(Default)]
pub(super) struct Batch {
    /// VMs that had no event before this batch, and the names that they get
    pub(super) vms: Vec<(Arc<Vm>, Arc<Naming>)>,
    /// in the order of arrival
    pub(super) events: Vec<VmEvent>,
    /// no event with an earlier `exit_ns`, CLOCK_MONOTONIC, follows this batch
    pub(super) complete_ns: u64,
    /// events discarded since the last batch because the queue was full
    pub(super) not_written: u64,
}

/// A message to the thread that writes.
pub(super) enum Message {
    /// further events
    Batch(Batch),
    /// the recording has ended
    End {
        /// entries whose record found its ring full
        dropped: u64,
        /// why it ended, e.g. "SIGINT"
        reason: String,
    },
}

/// The collector's end of the queue.
pub struct EventSink {
    queue: SyncSender<Message>,
    batch: Batch,
    next_vm: u32,
    pass_began_ns: u64,
    /// passes that must still be reported before the writer can release the last events
    passes_to_report: u8,
    patience: Patience,
}

impl EventSink {
    pub(super) fn new(queue: SyncSender<Message>, patience: Patience) -> Self {
        Self { queue, batch: Batch::default(), next_vm: 0, pass_began_ns: 0, passes_to_report: 0, patience }
    }

    /// Takes an event, or counts it as not written if the queue is full.
    pub fn push(&mut self, event: &Event, vm: &Arc<Vm>, naming: &Arc<Naming>) {
        if self.batch.events.len() >= BATCH {
            self.send();
        }
        // VMs are numbered in the order of their first event.
        if vm.id >= self.next_vm {
            self.next_vm = vm.id + 1;
            self.batch.vms.push((Arc::clone(vm), Arc::clone(naming)));
        }
        if self.batch.events.len() >= BATCH {
            self.batch.not_written += 1;
        } else {
            self.batch.events.push(VmEvent { vm: vm.id, event: *event });
        }
    }

    /// Ends a pass in which every ring was drained once; it began at `began_ns`, CLOCK_MONOTONIC.
    pub fn end_pass(&mut self, began_ns: u64) {
        // This pass took everything that the rings held when the previous pass began. An event that arrived later may be
        // older than one that was already taken from another CPU's ring.
        self.batch.complete_ns = self.pass_began_ns.saturating_sub(SUBMIT_NS);
        self.pass_began_ns = began_ns;
        if !self.batch.events.is_empty() {
            self.passes_to_report = PASSES;
        }
        if self.passes_to_report > 0 {
            self.passes_to_report -= 1;
            self.send();
        }
    }

    fn send(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        match self.queue.try_send(Message::Batch(batch)) {
            Ok(()) => {}
            // The queue is full: keep filling this batch and retry at the next call.
            Err(TrySendError::Full(Message::Batch(batch))) => self.batch = batch,
            // The writer has ended; joining it returns the reason.
            Err(_) => {}
        }
    }

    /// Sends the remaining events. May wait, because the programs are detached and the rings are empty by now. Events that a stalled
    /// trace does not take are lost, which the recorder says when it finishes.
    pub fn finish(mut self) {
        self.batch.complete_ns = u64::MAX;
        self.patience.send(&self.queue, Message::Batch(self.batch));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;
    use crate::model::interval::tests::{event, vm};

    fn sink() -> (EventSink, Receiver<Message>) {
        let (sender, receiver) = sync_channel(2);
        (EventSink::new(sender, Patience::endless()), receiver)
    }

    fn push(sink: &mut EventSink, id: u32) {
        sink.push(&event(0, 10, 5, 0), &vm(id), &Arc::new(Naming::new(1)));
    }

    fn batches(receiver: &Receiver<Message>) -> Vec<Batch> {
        let batch = |m| match m {
            Message::Batch(batch) => Some(batch),
            Message::End { .. } => None,
        };
        receiver.try_iter().filter_map(batch).collect()
    }

    #[test]
    fn a_slow_writer_never_blocks_the_collector_and_lost_events_are_counted() {
        let (mut sink, receiver) = sink();
        let lost = 17;
        for _ in 0..3 * BATCH + lost {
            push(&mut sink, 0);
        }
        sink.end_pass(1);
        let first = batches(&receiver);
        assert_eq!(first.iter().map(|b| (b.events.len(), b.not_written)).collect::<Vec<_>>(), [(BATCH, 0), (BATCH, 0)]);
        // The queue has room again.
        push(&mut sink, 7);
        sink.end_pass(2);
        let then = batches(&receiver);
        let (events, vms): (usize, usize) = then.iter().fold((0, 0), |a, b| (a.0 + b.events.len(), a.1 + b.vms.len()));
        assert_eq!((events, vms), (BATCH + 1, 1));
        assert_eq!(then.iter().map(|b| b.not_written).sum::<u64>(), lost as u64);
    }

    #[test]
    fn the_passes_after_the_last_event_are_reported_and_no_further_ones() {
        let (mut sink, receiver) = sink();
        push(&mut sink, 0);
        for pass in 1..20 {
            sink.end_pass(pass * 50_000_000);
            let sent = batches(&receiver);
            assert_eq!(sent.len(), usize::from(pass <= u64::from(PASSES)), "{pass}");
            let complete = sent.first().map_or(0, |b| b.complete_ns);
            assert!(sent.is_empty() || complete == (pass - 1).saturating_mul(50_000_000).saturating_sub(SUBMIT_NS));
        }
        assert!(batches(&receiver).is_empty());
    }
}
