//! The last events, bounded in time and in number: a flight recorder's memory.

use std::collections::VecDeque;

use crate::trace::perfetto::Seen;

/// Events held at most; 104 bytes each, 52 MiB in all.
pub const CAPACITY: usize = 512 << 10;

/// Holds events for a time.
pub struct Ring {
    held: VecDeque<Seen>,
    span_ns: u64,
    capacity: usize,
    /// `exit_ns` of the youngest event that had to go before its time
    crowded_out_ns: Option<u64>,
}

impl Ring {
    /// Holds the events of `span_ns`, at most `capacity` of them.
    pub fn new(span_ns: u64, capacity: usize) -> Self {
        Self { held: VecDeque::new(), span_ns, capacity: capacity.max(1), crowded_out_ns: None }
    }

    /// Takes an event and lets go of what is too old by then.
    pub fn push(&mut self, seen: Seen) {
        let oldest = seen.event.exit_ns.saturating_sub(self.span_ns);
        while self.held.front().is_some_and(|s| s.event.exit_ns < oldest) {
            self.held.pop_front();
        }
        if self.held.len() >= self.capacity {
            let gone = self.held.pop_front().map(|s| s.event.exit_ns);
            self.crowded_out_ns = self.crowded_out_ns.max(gone);
        }
        self.held.push_back(seen);
    }

    /// The events of the time up to `until_ns`, ordered by `exit_ns`.
    pub fn window(&self, until_ns: u64) -> Vec<Seen> {
        let wanted = until_ns.saturating_sub(self.span_ns)..=until_ns;
        let mut events: Vec<_> = self.held.iter().filter(|s| wanted.contains(&s.event.exit_ns)).copied().collect();
        events.sort_by_key(|s| s.event.exit_ns);
        events
    }

    /// Whether events of the time up to `until_ns` had to go because of the bound on their number.
    pub fn is_cut_short(&self, until_ns: u64) -> bool {
        self.crowded_out_ns.is_some_and(|gone| gone >= until_ns.saturating_sub(self.span_ns))
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::Event;

    use super::*;
    use crate::model::interval::tests::event;

    fn at(exit_ns: u64) -> Seen {
        Seen { vm: 0, event: Event { exit_ns, entry_ns: exit_ns, ..event(0, 10, 0, 0) } }
    }

    fn times(events: &[Seen]) -> Vec<u64> {
        events.iter().map(|s| s.event.exit_ns).collect()
    }

    #[test]
    fn what_is_older_than_the_span_is_let_go() {
        let mut ring = Ring::new(100, 10);
        for ns in [1000, 1050, 1040, 1120, 1150] {
            ring.push(at(ns));
        }
        assert_eq!(times(&ring.window(1150)), [1050, 1120, 1150]);
        assert_eq!(times(&ring.window(1120)), [1040, 1050, 1120]);
        assert!(!ring.is_cut_short(1150));
        assert_eq!(ring.held.len(), 4);
    }

    #[test]
    fn a_full_ring_says_that_the_span_is_cut_short_for_as_long_as_it_is() {
        let mut ring = Ring::new(100, 3);
        for ns in 1000..1010 {
            ring.push(at(ns));
        }
        assert_eq!(times(&ring.window(1009)), [1007, 1008, 1009]);
        assert!(ring.is_cut_short(1009));
        ring.push(at(1109));
        assert!(!ring.is_cut_short(1109));
    }
}
