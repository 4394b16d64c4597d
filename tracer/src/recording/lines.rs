//! The lines of a recording, one after another, as if each had been read alone. Where there are many, their histograms are decoded on
//! other threads, some blocks ahead.

use std::{
    collections::VecDeque,
    io::BufRead,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread::{Builder, JoinHandle, available_parallelism},
};

use anyhow::{Context, Result};

use super::{
    block::{Block, Decoded, Decoder, Line},
    limits::Limits,
};

/// Bytes of a block for which other threads are worth the way to them.
const LEAST_BYTES: usize = 32 << 10;
/// Threads at most.
const MOST_THREADS: usize = 8;
/// Blocks that are decoded ahead, for each thread.
const BLOCKS: usize = 2;
/// Threads that decode. Asking for the number of CPUs reads files.
static THREADS: LazyLock<usize> = LazyLock::new(|| available_parallelism().map_or(1, usize::from).min(MOST_THREADS));

/// The lines of a recording.
#[derive(Default)]
pub(super) struct Lines {
    block: Block,
    /// lines of the block that were taken
    taken: usize,
    /// blocks after it
    ahead: VecDeque<Next>,
    /// whether the last block that was read is full, so that the next one belongs to the same interval
    is_full: bool,
    /// a block whose memory is used again
    spare: Option<Block>,
    /// as soon as a block is worth them; none where they cannot be started
    threads: Option<Option<Threads>>,
    decoder: Decoder,
}

/// A block that was read.
enum Next {
    /// its lines are decoded when they are taken
    Read(Block),
    /// a thread decodes it
    Decoding(Receiver<Block>),
}

impl Lines {
    /// Takes the next line; how it was read, and its bytes. `skips` lines that are too long, `decodes` histograms ahead.
    pub(super) fn next(
        &mut self,
        input: &mut impl BufRead,
        limits: &Limits,
        skips: bool,
        decodes: bool,
    ) -> Result<(Line, u64)> {
        if self.taken == self.block.pieces.len() {
            if let Some(error) = self.block.failed.take() {
                return Err(error).context("read");
            }
            self.go_on(input, limits, skips, decodes)?;
        }
        match self.block.pieces.get(self.taken) {
            Some(piece) => {
                self.taken += 1;
                Ok((piece.kind, piece.bytes))
            }
            None => self.block.failed.take().map_or(Ok((Line::End, 0)), Err).context("read"),
        }
    }

    /// The text of the line that was taken last, with its end.
    pub(super) fn text(&self) -> &[u8] {
        self.latest().map_or(&[], |at| self.block.text(&self.block.pieces[at]))
    }

    /// The histogram of the line that was taken last.
    pub(super) fn histogram(&mut self) -> Result<Decoded> {
        let at = self.latest().context("no line")?;
        match self.block.pieces[at].histogram.take() {
            Some(decoded) => decoded,
            None => self.decoder.decode(self.block.text(&self.block.pieces[at])),
        }
    }

    /// Forgets the lines that were not taken.
    pub(super) fn clear(&mut self) {
        (self.block, self.taken, self.is_full) = (Block::default(), 0, false);
        self.ahead.clear();
    }

    fn latest(&self) -> Option<usize> {
        self.taken.checked_sub(1)
    }

    /// Goes on with the next block, and reads those after it that belong to the same interval: what comes after an interval may not have
    /// been written yet.
    fn go_on(&mut self, input: &mut impl BufRead, limits: &Limits, skips: bool, decodes: bool) -> Result<()> {
        self.taken = 0;
        self.spare = Some(std::mem::take(&mut self.block));
        let most = if decodes && *THREADS > 1 { BLOCKS * *THREADS } else { 1 };
        while self.ahead.is_empty() || self.is_full && self.ahead.len() < most {
            let mut block = self.spare.take().unwrap_or_default();
            block.fill(input, limits, skips);
            self.is_full = block.is_full();
            let threads = if most > 1 && block.len() >= LEAST_BYTES { self.threads() } else { None };
            let next = match threads {
                Some(threads) => threads.decode(block, limits.buckets / most)?,
                None => Next::Read(block),
            };
            self.ahead.push_back(next);
        }
        self.block = match self.ahead.pop_front() {
            Some(Next::Read(block)) => block,
            Some(Next::Decoding(decoded)) => decoded.recv().context("a thread that decodes histograms ended")?,
            None => Block::default(),
        };
        Ok(())
    }

    fn threads(&mut self) -> Option<&Threads> {
        self.threads.get_or_insert_with(Threads::start).as_ref()
    }
}

/// Threads that decode blocks. They end with it.
struct Threads {
    /// none while it ends
    jobs: Option<Sender<Job>>,
    handles: Vec<JoinHandle<()>>,
}

/// A block to decode.
struct Job {
    block: Block,
    most_buckets: usize,
    decoded: SyncSender<Block>,
}

impl Threads {
    /// As many as there are CPUs, within limits; none where there can be none.
    fn start() -> Option<Self> {
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let start = |_| {
            let jobs = Arc::clone(&receiver);
            Builder::new().name("decode".into()).spawn(move || work(&jobs)).ok()
        };
        let handles: Vec<_> = (0..*THREADS).map_while(start).collect();
        (!handles.is_empty()).then_some(Self { jobs: Some(sender), handles })
    }

    fn decode(&self, block: Block, most_buckets: usize) -> Result<Next> {
        let (decoded, receiver) = sync_channel(1);
        let jobs = self.jobs.as_ref().context("no threads that decode histograms")?;
        jobs.send(Job { block, most_buckets, decoded }).ok().context("the threads that decode histograms ended")?;
        Ok(Next::Decoding(receiver))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.jobs = None;
        // A thread that panicked has said so.
        self.handles.drain(..).for_each(|handle| drop(handle.join()));
    }
}

/// Decodes blocks until there will be no more.
fn work(jobs: &Mutex<Receiver<Job>>) {
    let mut decoder = Decoder::default();
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { mut block, most_buckets, decoded }) = job else { return };
        block.decode(&mut decoder, most_buckets);
        // Nobody takes it after a jump.
        let _ = decoded.send(block);
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{
        model::{
            accumulator::Accumulator,
            interval::{
                Interval,
                tests::{event, vm},
            },
        },
        recording::{OnDamage, Reader, Writer, block::MOST_BYTES, limits::LIMITS, tests::header},
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
    fn a_block_is_decoded_up_to_the_limit_and_the_rest_when_it_is_taken() {
        let (text, _) = recording();
        let mut input = &text.as_bytes()[text.find("Tag=").unwrap()..];
        let mut block = Block::default();
        block.fill(&mut input, &LIMITS, false);
        assert!(block.is_full());
        block.decode(&mut Decoder::default(), 100);
        let decoded = block.pieces.iter().map_while(|piece| piece.histogram.as_ref()?.as_ref().ok());
        let buckets: usize = decoded.map(|decoded| decoded.histogram.len()).sum();
        // The last one may have begun below it.
        assert!((101..=103).contains(&buckets), "{buckets}");
        assert!(block.pieces.last().unwrap().histogram.is_none());
        let mut lines = Lines { taken: block.pieces.len(), block, ..Lines::default() };
        assert!(lines.histogram().unwrap().histogram.count() > 0);
    }

    #[test]
    fn nothing_after_an_interval_is_read_before_it_is_taken() {
        let (text, _) = recording();
        let mut input = &text.as_bytes()[text.find("Tag=").unwrap()..];
        let mut lines = Lines::default();
        loop {
            assert_eq!(lines.next(&mut input, &LIMITS, false, true).unwrap().0, Line::Whole);
            if !lines.text().starts_with(b"Tag=") {
                break;
            }
        }
        assert!(lines.text().starts_with(b"#{\"interval\""));
        assert!(input.starts_with(b"Tag="), "{:?}", &input[..20]);
        assert!(lines.threads.as_ref().is_none_or(Option::is_some));
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
        let mut lines = Lines::default();
        let mut next = |lines: &mut Lines| lines.next(&mut input, &LIMITS, false, true).map(|(line, _)| line);
        for text in [b"Tag=a\n", b"Tag=b\n"] {
            assert_eq!(next(&mut lines).unwrap(), Line::Whole);
            assert_eq!(lines.text(), text);
        }
        assert_eq!(format!("{:#}", next(&mut lines).unwrap_err()), "read: torn");
    }
}
