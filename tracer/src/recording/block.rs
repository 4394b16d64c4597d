//! Lines of a recording that are read together, so that the histograms in them are decoded side by side: they take most of the time
//! of reading. The reader takes the lines one after another, as if each had been read alone.

use std::{
    io::{self, BufRead},
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context, Result};

use super::{hdr, limits::Limits, tag::Tags};
use crate::model::{figures::Figure, histogram::Histogram, series::Key};

/// What begins a line with a histogram.
pub(super) const HISTOGRAM: &[u8] = b"Tag=";
/// Bytes of lines that are read together, apart from the last line.
const MOST_BYTES: usize = 256 << 10;
/// Bytes for which threads are worth their start.
const LEAST_BYTES: usize = 32 << 10;
/// Threads at most.
const MOST_THREADS: usize = 8;

/// How a line was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// ends as a line does
    Whole,
    /// longer than a line may be; the text is its beginning
    TooLong,
    /// the recording ends within it
    Cut,
    /// the recording has no more
    End,
}

/// A line of the block.
struct Piece {
    text: Range<usize>,
    kind: Line,
    /// with those that were left out
    bytes: u64,
    /// none where it is decoded when it is taken
    histogram: Option<Result<Decoded>>,
}

/// The histogram of a line.
pub(super) struct Decoded {
    pub(super) key: Key,
    pub(super) figure: Figure,
    pub(super) histogram: Histogram,
}

/// Lines that were read, of which the first ones were taken. The last one may be any line, all others have histograms.
#[derive(Default)]
pub(super) struct Block {
    text: Vec<u8>,
    pieces: Vec<Piece>,
    /// pieces that were taken
    taken: usize,
    /// why no more could be read after them
    failed: Option<io::Error>,
    workers: Vec<Worker>,
}

/// What a thread decodes with.
#[derive(Default)]
struct Worker {
    tags: Tags,
    decoder: hdr::Decoder,
}

impl Block {
    /// Takes the next line; how it was read, and its bytes. `skips` lines that are too long, `decodes` histograms ahead.
    pub(super) fn next(
        &mut self,
        input: &mut impl BufRead,
        limits: &Limits,
        skips: bool,
        decodes: bool,
    ) -> Result<(Line, u64)> {
        if self.taken == self.pieces.len() {
            if let Some(error) = self.failed.take() {
                return Err(error).context("read");
            }
            self.fill(input, limits, skips);
            if decodes {
                self.decode(limits);
            }
        }
        match self.pieces.get(self.taken) {
            Some(piece) => {
                self.taken += 1;
                Ok((piece.kind, piece.bytes))
            }
            None => self.failed.take().map_or(Ok((Line::End, 0)), Err).context("read"),
        }
    }

    /// The text of the line that was taken last, with its end.
    pub(super) fn text(&self) -> &[u8] {
        self.latest().map_or(&[], |at| &self.text[self.pieces[at].text.clone()])
    }

    /// The histogram of the line that was taken last.
    pub(super) fn histogram(&mut self) -> Result<Decoded> {
        let at = self.latest().context("no line")?;
        if let Some(decoded) = self.pieces[at].histogram.take() {
            return decoded;
        }
        if self.workers.is_empty() {
            self.workers.push(Worker::default());
        }
        self.workers[0].decode(&self.text[self.pieces[at].text.clone()])
    }

    /// Forgets the lines that were not taken.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.pieces.clear();
        (self.taken, self.failed) = (0, None);
    }

    fn latest(&self) -> Option<usize> {
        self.taken.checked_sub(1)
    }

    /// Reads lines up to one without a histogram, or as many as a block may have.
    fn fill(&mut self, input: &mut impl BufRead, limits: &Limits, skips: bool) {
        self.clear();
        while self.text.len() < MOST_BYTES {
            let start = self.text.len();
            match read_line(input, &mut self.text, limits.line, skips) {
                Ok((Line::End, _)) => break,
                Ok((kind, bytes)) => {
                    let text = start..self.text.len();
                    let goes_on = kind == Line::Whole && self.text[start..].starts_with(HISTOGRAM);
                    self.pieces.push(Piece { text, kind, bytes, histogram: None });
                    if !goes_on {
                        break;
                    }
                }
                Err(error) => {
                    self.text.truncate(start);
                    self.failed = Some(error);
                    break;
                }
            }
        }
    }

    /// Decodes histograms side by side, where there are many. Stops where they have more buckets than an interval may, which the reader
    /// finds out when it takes them.
    fn decode(&mut self, limits: &Limits) {
        if self.text.len() < LEAST_BYTES {
            return;
        }
        let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        self.workers.resize_with(threads.max(self.workers.len()), Worker::default);
        let (text, buckets) = (&self.text, AtomicUsize::new(0));
        let each = self.pieces.len().div_ceil(threads);
        thread::scope(|scope| {
            let mut shares = self.pieces.chunks_mut(each).zip(&mut self.workers);
            let own = shares.next();
            for (pieces, worker) in shares {
                let buckets = &buckets;
                scope.spawn(move || worker.decode_all(text, pieces, buckets, limits.buckets));
            }
            if let Some((pieces, worker)) = own {
                worker.decode_all(text, pieces, &buckets, limits.buckets);
            }
        });
    }
}

impl Worker {
    fn decode_all(&mut self, text: &[u8], pieces: &mut [Piece], buckets: &AtomicUsize, most: usize) {
        for piece in pieces {
            let line = &text[piece.text.clone()];
            if buckets.load(Ordering::Relaxed) > most || !line.starts_with(HISTOGRAM) {
                return;
            }
            let decoded = self.decode(line);
            let more = decoded.as_ref().map_or(0, |decoded| decoded.histogram.len());
            buckets.fetch_add(more, Ordering::Relaxed);
            piece.histogram = Some(decoded);
        }
    }

    fn decode(&mut self, line: &[u8]) -> Result<Decoded> {
        let (tag, encoded) = tag_and_histogram(line).context("not a line of an HDR interval log")?;
        let (key, figure) = self.tags.parse(tag)?;
        Ok(Decoded { key, figure, histogram: self.decoder.decode(encoded).context("decode a histogram")? })
    }
}

/// The tag and the encoded histogram of a line: "Tag=TAG,START,LENGTH,MAX,HISTOGRAM", three numbers of seconds and a value, which the
/// interval's line and the histogram have as integers.
fn tag_and_histogram(line: &[u8]) -> Option<(&str, &[u8])> {
    let mut fields = line.strip_prefix(HISTOGRAM)?.splitn(5, |&b| b == b',');
    let tag = str::from_utf8(fields.next()?).ok()?;
    for number in fields.by_ref().take(3) {
        let is_number = !number.is_empty() && number.iter().all(|b| b.is_ascii_digit() || *b == b'.');
        is_number.then_some(())?;
    }
    Some((tag, fields.next()?.trim_ascii_end()))
}

/// Appends a line, of which only the beginning is kept where it is too long; returns also its bytes with those that were skipped.
fn read_line(input: &mut impl BufRead, text: &mut Vec<u8>, most: u64, skips: bool) -> io::Result<(Line, u64)> {
    let bytes = io::Read::take(&mut *input, most).read_until(b'\n', text)? as u64;
    Ok(match text.last() {
        _ if bytes == 0 => (Line::End, 0),
        Some(b'\n') => (Line::Whole, bytes),
        _ if bytes == most => (Line::TooLong, bytes + if skips { input.skip_until(b'\n')? as u64 } else { 0 }),
        _ => (Line::Cut, bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            accumulator::Accumulator,
            interval::{
                Interval,
                tests::{event, vm},
            },
        },
        recording::{OnDamage, Reader, Writer, limits::LIMITS, tests::header},
    };

    /// A recording of two intervals, each of more lines than a block has.
    fn recording() -> (String, Vec<Interval>) {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).unwrap();
        let mut intervals = Vec::new();
        for start_ns in [2_000, 3_000] {
            let mut seen = Accumulator::of(Interval { length_ns: 1_000, ..Interval::starting(start_ns) });
            for n in 0..3_000 {
                (0..3).for_each(|round| seen.record(&event(n, 10, 900 * u64::from(n + 1) * (round + 1), 1), &vm(0)));
            }
            let mut interval = seen.finish();
            (interval.totals.entries, interval.totals.delivered) = (9_000, 9_000);
            writer.write(&interval).unwrap();
            intervals.push(interval);
        }
        drop(writer);
        (String::from_utf8(bytes).unwrap(), intervals)
    }

    #[test]
    fn lines_that_are_decoded_side_by_side_are_taken_in_their_order() {
        let (text, intervals) = recording();
        assert!(text.len() > 4 * MOST_BYTES, "{} bytes", text.len());
        let mut reader = Reader::new(text.as_bytes()).unwrap();
        for interval in &intervals {
            assert_eq!(reader.read_interval().unwrap().as_ref(), Some(interval));
        }
        assert_eq!(reader.read_interval().unwrap(), None);
        assert_eq!(reader.line(), text.lines().count() as u64);
    }

    #[test]
    fn the_first_damaged_line_of_a_block_is_named_and_the_other_interval_is_read() {
        let (text, intervals) = recording();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        for damaged in [1_234, 1_235, 1_500] {
            lines[damaged] = lines[damaged].replacen(",HISTFAAA", ",HISTXAAA", 1);
        }
        let damaged = lines.join("\n") + "\n";
        let error = Reader::new(damaged.as_bytes()).unwrap().read_interval().unwrap_err().to_string();
        assert!(error.starts_with("line 1235 is damaged: "), "{error}");
        let mut reader = Reader::careful(damaged.as_bytes(), OnDamage::Skip).unwrap();
        assert_eq!(reader.read_interval().unwrap().as_ref(), Some(&intervals[1]));
        assert_eq!(reader.damage_of("").unwrap().intervals, 1);
    }

    #[test]
    fn no_more_buckets_are_decoded_ahead_than_an_interval_may_have() {
        let (text, _) = recording();
        let mut input = &text.as_bytes()[text.find("Tag=").unwrap()..];
        let mut block = Block::default();
        let limits = Limits { buckets: 100, ..LIMITS };
        assert_eq!(block.next(&mut input, &limits, false, true).unwrap().0, Line::Whole);
        let ahead: usize =
            block.pieces.iter().filter_map(|p| Some(p.histogram.as_ref()?.as_ref().ok()?.histogram.len())).sum();
        // Each thread may have begun another one.
        assert!((1..=100 + 3 * (MOST_THREADS + 1)).contains(&ahead), "{ahead}");
        let last = block.pieces.len() - 2;
        assert!(block.pieces[last].histogram.is_none());
        block.taken = last + 1;
        assert!(block.histogram().unwrap().histogram.count() > 0, "decoded when it is taken");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_after_the_lines_before_it() {
        struct Torn<'a>(&'a [u8]);
        impl io::Read for Torn<'_> {
            fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
                match io::Read::read(&mut self.0, bytes)? {
                    0 => Err(io::Error::other("torn")),
                    n => Ok(n),
                }
            }
        }
        let mut input = io::BufReader::new(Torn(b"Tag=a\nTag=b\nTag"));
        let mut block = Block::default();
        let mut next = |block: &mut Block| block.next(&mut input, &LIMITS, false, true).map(|(line, _)| line);
        for text in [b"Tag=a\n", b"Tag=b\n"] {
            assert_eq!(next(&mut block).unwrap(), Line::Whole);
            assert_eq!(block.text(), text);
        }
        assert_eq!(format!("{:#}", next(&mut block).unwrap_err()), "read: torn");
    }
}
