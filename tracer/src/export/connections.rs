//! The open connections: few, in memory that is bounded, and always with a place for the next one. Whoever is in the way of another
//! client and does nothing is cut off; nobody is refused.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, time::Duration};

use hyper::body::Bytes;
use tokio::sync::Notify;

/// Connections at a time at most: a tenth of the 1024 descriptors that a process usually may open. A connection whose request has not
/// come costs some 20 kB; one whose answer is not read, what the kernel buffers of it.
const CONNECTIONS: usize = 128;
/// Bytes of answers that clients read besides the latest one, at most, or twice the size of that if this is more. The slowest readers
/// are cut off beyond.
const HELD: usize = 64 << 20;
/// Time for answers under way when the program ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// All open connections.
#[derive(Default)]
pub(crate) struct Connections {
    table: RefCell<Table>,
    /// told whenever a connection has ended
    ended: Notify,
}

/// The entries in the order of their last activity, the longest silent first: a connection is active when it is accepted, when its
/// request is complete, and when it takes a piece of its answer.
#[derive(Default)]
struct Table {
    entries: Vec<Entry>,
    last_id: u64,
}

struct Entry {
    id: u64,
    /// the answer that is being read; none before the request is complete
    answer: Option<Bytes>,
    cut: Rc<Notify>,
}

/// The place of one connection, free again when it is dropped.
pub(crate) struct Place {
    connections: Rc<Connections>,
    id: u64,
    cut: Rc<Notify>,
}

impl Connections {
    /// Takes a place for a connection, and cuts off another one if all are taken.
    pub(crate) fn open(self: &Rc<Self>) -> Place {
        let mut table = self.table.borrow_mut();
        if table.entries.len() >= CONNECTIONS {
            table.make_room();
        }
        table.last_id += 1;
        let (id, cut) = (table.last_id, Rc::new(Notify::new()));
        table.entries.push(Entry { id, answer: None, cut: Rc::clone(&cut) });
        Place { connections: Rc::clone(self), id, cut }
    }

    /// Cuts off the connection that is missed least; returns whether there was one.
    pub(crate) fn make_room(&self) -> bool {
        self.table.borrow_mut().make_room()
    }

    /// Cuts off those whose request has not come, and waits for answers under way, for a limited time.
    pub(crate) async fn close(&self) {
        while self.table.borrow_mut().cut_first(|e| e.answer.is_none()) {}
        let all_ended = async {
            while !self.table.borrow().entries.is_empty() {
                self.ended.notified().await;
            }
        };
        let _ = tokio::time::timeout(FAREWELL, all_ended).await;
    }
}

impl Table {
    /// Cuts off the oldest connection without a request, or the reader that has taken nothing for the longest time: of the kind of which
    /// there are more, so that neither kind takes the places of the other.
    fn make_room(&mut self) -> bool {
        let waiting = self.entries.iter().filter(|e| e.answer.is_none()).count();
        let mostly_waiting = 2 * waiting > self.entries.len();
        self.cut_first(|e| e.answer.is_none() == mostly_waiting)
    }

    /// Cuts off the longest silent of some connections; returns whether there was one.
    fn cut_first(&mut self, is_one: impl Fn(&Entry) -> bool) -> bool {
        let first = self.entries.iter().position(is_one);
        if let Some(at) = first {
            self.entries.remove(at).cut.notify_one();
        }
        first.is_some()
    }

    /// Notes that a connection is active.
    fn is_active(&mut self, id: u64) {
        if let Some(at) = self.entries.iter().position(|e| e.id == id) {
            self.entries[at..].rotate_left(1);
        }
    }

    /// Notes that a connection reads an answer, and cuts off slow readers of other ones if those take too much memory.
    fn reads(&mut self, id: u64, answer: &Bytes) {
        self.is_active(id);
        if let Some(entry) = self.entries.last_mut().filter(|e| e.id == id) {
            entry.answer = Some(answer.clone());
        }
        let is_other = |e: &Entry| e.answer.as_ref().is_some_and(|a| a.as_ptr() != answer.as_ptr());
        while self.held(is_other) > HELD.max(2 * answer.len()) && self.cut_first(is_other) {}
    }

    /// Bytes of the answers of some connections.
    fn held(&self, is_one: impl Fn(&Entry) -> bool) -> usize {
        let answers = self.entries.iter().filter(|e| is_one(e)).filter_map(|e| e.answer.as_ref());
        answers.map(|a| (a.as_ptr(), a.len())).collect::<BTreeMap<_, _>>().values().sum()
    }
}

impl Place {
    /// The request is complete, and this is the answer to it.
    pub(crate) fn reads(&self, answer: &Bytes) {
        self.connections.table.borrow_mut().reads(self.id, answer);
    }

    /// The client has taken a piece of its answer.
    pub(crate) fn is_active(&self) {
        self.connections.table.borrow_mut().is_active(self.id);
    }

    /// Waits until another client needs the place.
    pub(crate) async fn cut(&self) {
        self.cut.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.table.borrow_mut().entries.retain(|e| e.id != self.id);
        self.connections.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(size: usize) -> Bytes {
        vec![0; size].into()
    }

    fn is_open(place: &Place) -> bool {
        place.connections.table.borrow().entries.iter().any(|e| e.id == place.id)
    }

    #[test]
    fn there_is_always_a_place_and_the_oldest_without_a_request_makes_room() {
        let connections = Rc::new(Connections::default());
        let readers: Vec<_> = (0..20).map(|_| connections.open()).inspect(|p| p.reads(&answer(1))).collect();
        let idle: Vec<_> = (0..1000).map(|_| connections.open()).collect();
        assert_eq!(connections.table.borrow().entries.len(), CONNECTIONS);
        assert!(readers.iter().all(is_open));
        assert!(idle[..1000 - (CONNECTIONS - 20)].iter().all(|p| !is_open(p)));
        drop((readers, idle));
        assert_eq!(connections.table.borrow().entries.len(), 0);
        assert!(!connections.make_room());
    }

    #[test]
    fn the_reader_that_takes_nothing_goes_before_one_that_reads_on() {
        let connections = Rc::new(Connections::default());
        let honest = connections.open();
        honest.reads(&answer(1));
        let mut slow = Vec::new();
        for _ in 0..1000 {
            slow.push(connections.open());
            slow.last().unwrap().reads(&answer(1));
            honest.is_active();
        }
        assert!(is_open(&honest) && !is_open(&slow[0]) && is_open(slow.last().unwrap()));
    }

    #[test]
    fn readers_do_not_take_the_places_of_those_who_are_about_to_ask() {
        let connections = Rc::new(Connections::default());
        let _readers: Vec<_> = (0..CONNECTIONS).map(|_| connections.open()).inspect(|p| p.reads(&answer(1))).collect();
        let asking = connections.open();
        let _others: Vec<_> = (1..CONNECTIONS / 2).map(|_| connections.open()).collect();
        assert!(is_open(&asking));
    }

    #[test]
    fn slow_readers_hold_a_bounded_number_of_bytes_and_the_newest_answer_is_never_refused() {
        let connections = Rc::new(Connections::default());
        let slow: Vec<_> = (0..60).map(|_| connections.open()).inspect(|p| p.reads(&answer(HELD / 4))).collect();
        assert_eq!(slow.iter().filter(|p| is_open(p)).count(), 5, "four old ones and the latest");
        assert!(is_open(slow.last().unwrap()));
        // Larger answers than the bound: two old ones of that size.
        let large: Vec<_> = (0..5).map(|_| connections.open()).inspect(|p| p.reads(&answer(HELD + 1))).collect();
        assert_eq!(large.iter().filter(|p| is_open(p)).count(), 3);
        assert!(!slow.iter().any(is_open));
    }

    #[test]
    fn readers_of_one_answer_hold_it_once() {
        let connections = Rc::new(Connections::default());
        let shared = answer(HELD);
        let readers: Vec<_> = (0..60).map(|_| connections.open()).inspect(|p| p.reads(&shared)).collect();
        let latest = connections.open();
        latest.reads(&answer(1));
        assert!(readers.iter().all(is_open) && is_open(&latest));
    }
}
