//! Encoded answers, one of each form, shared by concurrent clients. However many clients ask, for however many forms, encoding takes at
//! most a fifth of the time.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use hyper::body::Bytes;

use super::negotiate::Format;

/// Shortest time for which an answer is reused.
const FRESH: Duration = Duration::from_millis(500);
/// An answer is reused for at least this many times the encoding time of all forms that are in memory.
const REST: u32 = 4;
/// An answer is dropped after this time, or when it may no longer be reused, if that is later.
const KEPT: Duration = Duration::from_secs(5);

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
    bytes: Bytes,
    made: Instant,
    /// encoding time
    took: Duration,
}

/// The latest answer of each form.
#[derive(Default)]
pub(crate) struct Bodies(Vec<Body>);

impl Bodies {
    /// The current answer; `encode` makes one if none is fresh.
    pub(crate) fn get(&mut self, form: Form, encode: impl FnOnce() -> Vec<u8>) -> Bytes {
        // The time of all forms: a client that asks for each in turn gets no more of it than one that asks for one.
        let rest = REST * self.0.iter().map(|b| b.took).sum::<Duration>();
        self.0.retain(|b| b.made.elapsed() < KEPT.max(rest));
        if let Some(body) = self.0.iter().find(|b| b.form == form && b.made.elapsed() < FRESH.max(rest)) {
            return body.bytes.clone();
        }
        self.0.retain(|b| b.form != form);
        let start = Instant::now();
        let bytes = encode();
        let bytes = Bytes::from(if form.gzip { gzip(&bytes).unwrap_or_default() } else { bytes });
        self.0.push(Body { form, bytes: bytes.clone(), made: Instant::now(), took: start.elapsed() });
        bytes
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
    const ZIPPED: Form = Form { gzip: true, ..TEXT };

    fn pass(bodies: &mut Bodies, time: Duration) {
        bodies.0.iter_mut().for_each(|b| b.made -= time);
    }

    #[test]
    fn concurrent_clients_share_one_answer() {
        let mut bodies = Bodies::default();
        let first = bodies.get(TEXT, || vec![1]);
        let again = bodies.get(TEXT, || unreachable!());
        assert_eq!(first.as_ptr(), again.as_ptr());
        let zipped = bodies.get(ZIPPED, || vec![0; 10_000]);
        assert!(zipped.len() < 200 && zipped.starts_with(&[0x1f, 0x8b]));
    }

    #[test]
    fn an_answer_is_reused_for_four_times_the_encoding_time_of_all_forms() {
        let mut bodies = Bodies::default();
        for form in [TEXT, ZIPPED] {
            bodies.get(form, || vec![1]);
        }
        bodies.0.iter_mut().for_each(|b| b.took = Duration::from_secs(1));
        // 4 s after its own encoding time, but not after that of both.
        pass(&mut bodies, Duration::from_secs(7));
        assert_eq!(bodies.get(TEXT, || unreachable!()), vec![1]);
        pass(&mut bodies, Duration::from_secs(2));
        assert_eq!(bodies.get(TEXT, || vec![2]), vec![2]);
    }

    #[test]
    fn answers_that_nobody_wants_are_dropped() {
        let mut bodies = Bodies::default();
        bodies.get(ZIPPED, || vec![1]);
        pass(&mut bodies, KEPT);
        bodies.get(TEXT, || vec![2]);
        assert_eq!(bodies.0.len(), 1);
    }
}
