//! Encoded answers, shared by concurrent clients. However many clients ask and however slowly they read, encoding takes at most a
//! fifth of the time, and few answers are in memory.

use std::{
    io::Write,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};

use super::negotiate::Format;

/// Shortest time for which an answer is reused.
const FRESH: Duration = Duration::from_millis(500);
/// An answer is reused for at least this many times its encoding time.
const REST: u32 = 4;
/// An answer that nobody asks for is dropped after this time.
const KEPT: Duration = Duration::from_secs(5);
/// Old answers that slow readers may still hold; with more, clients get the last answer again.
const SLOW: usize = 4;

/// The requested form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// format
    pub(crate) format: Format,
    /// whether it is compressed
    pub(crate) gzip: bool,
}

struct Body {
    form: Form,
    bytes: Arc<Vec<u8>>,
    made: Instant,
    /// encoding time
    took: Duration,
}

/// Answers in memory.
#[derive(Default)]
pub(crate) struct Bodies {
    current: Vec<Body>,
    old: Vec<Weak<Vec<u8>>>,
}

impl Bodies {
    /// The current answer; `encode` makes one if none is fresh. None if slow readers hold too many old ones.
    pub(crate) fn get(&mut self, form: Form, encode: impl FnOnce() -> Vec<u8>) -> Option<Arc<Vec<u8>>> {
        self.old.retain(|body| body.strong_count() > 0);
        let is_fresh = |b: &Body, longest: Duration| b.made.elapsed() < longest.max(b.took * REST);
        self.retire(|b| is_fresh(b, KEPT));
        let known = self.current.iter().find(|b| b.form == form);
        if let Some(body) = known.filter(|b| is_fresh(b, FRESH) || self.old.len() >= SLOW) {
            return Some(Arc::clone(&body.bytes));
        }
        if self.old.len() >= SLOW {
            return None;
        }
        self.retire(|b| b.form != form);
        let made = Instant::now();
        let bytes = encode();
        let bytes = Arc::new(if form.gzip { gzip(&bytes).unwrap_or_default() } else { bytes });
        self.current.push(Body { form, bytes: Arc::clone(&bytes), made: Instant::now(), took: made.elapsed() });
        Some(bytes)
    }

    /// Drops answers but those that stay, and remembers the dropped ones that clients still read.
    fn retire(&mut self, stays: impl Fn(&Body) -> bool) {
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut self.current).into_iter().partition(stays);
        self.current = stay;
        self.old.extend(go.iter().filter(|b| Arc::strong_count(&b.bytes) > 1).map(|b| Arc::downgrade(&b.bytes)));
    }
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Form = Form { format: Format::Classic, gzip: false };

    #[test]
    fn concurrent_clients_share_one_answer() {
        let mut bodies = Bodies::default();
        let first = bodies.get(TEXT, || vec![1]).unwrap();
        let again = bodies.get(TEXT, || unreachable!()).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let zipped = bodies.get(Form { gzip: true, ..TEXT }, || vec![0; 10_000]).unwrap();
        assert!(zipped.len() < 200 && zipped.starts_with(&[0x1f, 0x8b]));
    }

    #[test]
    fn slow_readers_hold_few_answers_in_memory() {
        let mut bodies = Bodies::default();
        let mut slow: Vec<Arc<Vec<u8>>> = Vec::new();
        for round in 0..50 {
            bodies.current.iter_mut().for_each(|b| b.made -= FRESH);
            slow.extend(bodies.get(TEXT, || vec![round]));
        }
        slow.dedup_by(|a, b| Arc::ptr_eq(a, b));
        assert_eq!(slow.len(), SLOW + 1);
        assert_eq!(bodies.get(Form { gzip: true, ..TEXT }, Vec::new), None);
        slow.clear();
        bodies.current.iter_mut().for_each(|b| b.made -= FRESH);
        assert_eq!(bodies.get(TEXT, || vec![99]).as_deref(), Some(&vec![99]));
    }
}
