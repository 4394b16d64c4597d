//! Reads a recording on a thread of its own, an interval or two ahead of whoever takes the intervals; a small one at once.

use std::{
    collections::VecDeque,
    io::BufRead,
    panic::resume_unwind,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{Builder, JoinHandle},
};

use anyhow::{Context, Result};

use super::{
    Damage, Reader,
    header::{End, Header, Label},
    reader::AsWritten,
};
use crate::model::interval::Interval;

/// Intervals that wait to be taken: more would only take memory.
const WAITING: usize = 1;

/// Bytes of a recording, and buckets of its histograms, that are read without a thread: it would take longer to start than to read them.
const SMALL: (u64, usize) = (256 << 10, 64 << 10);

/// A recording that is read ahead.
pub(crate) struct Ahead {
    header: Header,
    /// read before the thread was started
    first: VecDeque<Result<Message>>,
    intervals: Receiver<Result<Message>>,
    thread: Option<JoinHandle<()>>,
    end: Ending,
}

/// An interval, and what the reader knew after it.
pub(crate) struct IntervalRead {
    pub(crate) interval: Interval,
    /// [`Reader::window`]
    pub(crate) window: Option<Label>,
    /// [`Reader::source`]
    pub(crate) source: usize,
    /// [`Reader::continues`]
    pub(crate) continues: bool,
    /// [`Reader::has_more`]
    pub(crate) has_more: bool,
    /// [`Reader::line`]
    pub(crate) line: u64,
    /// [`Reader::take_as_written`]
    pub(crate) as_written: AsWritten,
}

enum Message {
    Interval(Box<IntervalRead>),
    Ending(Box<Ending>),
}

/// What the reader knew after the last interval.
#[derive(Default)]
struct Ending {
    end: Option<End>,
    torn: bool,
    damage: Option<Damage>,
}

impl Ahead {
    /// Begins to read the rest of a recording.
    pub(crate) fn new(mut reader: Reader<impl BufRead + Send + 'static>) -> Result<Self> {
        let header = reader.header().clone();
        let (sender, intervals) = sync_channel(WAITING);
        let (mut first, mut buckets) = (VecDeque::new(), 0);
        let ahead = |first| Self { header, first, intervals, thread: None, end: Ending::default() };
        while reader.offset() < SMALL.0 && buckets < SMALL.1 {
            let message = next(&mut reader);
            let is_last = is_last(&message);
            buckets += message.as_ref().map_or(0, Message::buckets);
            first.push_back(message);
            if is_last {
                return Ok(ahead(first));
            }
        }
        let thread = Builder::new().name("reader".into()).spawn(move || read(reader, &sender));
        let thread = Some(thread.context("start the thread that reads the recording")?);
        Ok(Self { thread, ..ahead(first) })
    }

    /// The recording's header.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The next interval; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<IntervalRead>> {
        let message = self.first.pop_front().map_or_else(|| self.intervals.recv(), Ok);
        match message {
            Ok(Ok(Message::Interval(read))) => return Ok(Some(*read)),
            Ok(Ok(Message::Ending(end))) => self.end = *end,
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            resume_unwind(panic);
        }
        Ok(None)
    }

    /// [`Reader::end`], after the last interval.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.end.as_ref()
    }

    /// [`Reader::is_torn`], after the last interval.
    pub(crate) fn is_torn(&self) -> bool {
        self.end.torn
    }

    /// [`Reader::damage_of`], after the last interval.
    pub(crate) fn damage_of(&self, file: &str) -> Option<Damage> {
        self.end.damage.clone().map(|damage| Damage { file: file.to_owned(), ..damage })
    }
}

impl Message {
    /// Buckets of its histograms.
    fn buckets(&self) -> usize {
        match self {
            Self::Interval(read) => read.interval.buckets(),
            Self::Ending(_) => 0,
        }
    }
}

/// Reads to the end, to an error, or until nobody takes the intervals any more.
fn read(mut reader: Reader<impl BufRead>, sender: &SyncSender<Result<Message>>) {
    loop {
        let message = next(&mut reader);
        let is_last = is_last(&message);
        if sender.send(message).is_err() || is_last {
            return;
        }
    }
}

fn next(reader: &mut Reader<impl BufRead>) -> Result<Message> {
    let Some(interval) = reader.read_interval()? else {
        let (end, torn, damage) = (reader.end().cloned(), reader.is_torn(), reader.damage_of(""));
        return Ok(Message::Ending(Box::new(Ending { end, torn, damage })));
    };
    Ok(Message::Interval(Box::new(IntervalRead {
        interval,
        window: reader.window(),
        source: reader.source(),
        continues: reader.continues(),
        has_more: reader.has_more(),
        line: reader.line(),
        as_written: reader.take_as_written(),
    })))
}

fn is_last(message: &Result<Message>) -> bool {
    !matches!(message, Ok(Message::Interval(_)))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::{
        model::{
            interval::tests::{event, vm},
            totals::Totals,
        },
        recording::{Writer, tests::header},
    };

    #[test]
    fn what_is_read_ahead_is_the_recording_with_and_without_a_thread() {
        for (vcpus, has_thread) in [(3, false), (300, true)] {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes, &header()).unwrap();
            for start_ns in 0..6 {
                let mut interval = Interval { length_ns: 1, ..Interval::starting(start_ns) };
                (0..vcpus).for_each(|vcpu| interval.record(&event(vcpu, 10, 900 + start_ns, 1), &vm(0)));
                let entries = u64::from(vcpus);
                interval.totals = Totals { entries, delivered: entries, ..interval.totals };
                writer.write(&interval).unwrap();
            }
            drop(writer);
            let mut reader = Reader::new(bytes.as_slice()).unwrap();
            let mut ahead = Ahead::new(Reader::new(Cursor::new(bytes.clone())).unwrap()).unwrap();
            assert_eq!(ahead.thread.is_some(), has_thread, "{} bytes", bytes.len());
            while let Some(interval) = reader.read_interval().unwrap() {
                let read = ahead.next().unwrap().unwrap();
                assert_eq!((read.interval, read.line), (interval, reader.line()));
            }
            // The end, and once more.
            assert!(ahead.next().unwrap().is_none() && ahead.next().unwrap().is_none());
            assert!(!ahead.is_torn());
        }
    }
}
