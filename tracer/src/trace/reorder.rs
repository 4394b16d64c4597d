//! Puts events of many CPUs into the order of their `exit_ns`.

use super::{event_sink::BATCH, vm_event::VmEvent};

/// Events held back at most; beyond that, the oldest are released although an older one may still arrive.
const MAX_HELD: usize = 4 * BATCH;

/// Holds events until no older one can arrive.
#[derive(Default)]
pub(super) struct ReorderBuffer {
    held: Vec<VmEvent>,
}

impl ReorderBuffer {
    /// Adds events in any order.
    pub(super) fn add(&mut self, events: Vec<VmEvent>) {
        self.held.extend(events);
    }

    /// Removes and returns, ordered by `exit_ns`, the events before `complete_ns`; all of them at `u64::MAX`.
    pub(super) fn release(&mut self, complete_ns: u64) -> Vec<VmEvent> {
        // The events are mostly ascending runs, one per CPU, which a stable sort merges.
        self.held.sort_by_key(|e| e.event.exit_ns);
        if complete_ns == u64::MAX {
            return std::mem::take(&mut self.held);
        }
        let complete = self.held.partition_point(|e| e.event.exit_ns < complete_ns);
        let released = complete.max(self.held.len().saturating_sub(MAX_HELD));
        self.held.drain(..released).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::vm_event::tests::{at, times};

    #[test]
    fn events_are_released_in_order_once_no_older_one_can_arrive() {
        let mut buffer = ReorderBuffer::default();
        buffer.add([30, 10, 40].map(at).to_vec());
        assert_eq!(times(&buffer.release(30)), [10]);
        buffer.add(vec![at(20)]);
        assert_eq!(times(&buffer.release(31)), [20, 30]);
        assert_eq!(times(&buffer.release(u64::MAX)), [40]);
    }

    #[test]
    fn a_full_buffer_releases_its_oldest_events() {
        let mut buffer = ReorderBuffer::default();
        buffer.add((0..MAX_HELD as u64 + 2).rev().map(at).collect());
        assert_eq!(times(&buffer.release(0)), [0, 1]);
    }
}
