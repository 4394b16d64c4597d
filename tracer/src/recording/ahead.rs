//! Reads a recording on a thread of its own, an interval or two ahead of whoever takes the intervals.

use std::{
    io::BufRead,
    panic::resume_unwind,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{Builder, JoinHandle},
};

use anyhow::{Context, Result};

use super::{
    Damage, Reader,
    header::{End, Header, Label},
};
use crate::model::interval::Interval;

/// Intervals that wait to be taken: more would only take memory.
const WAITING: usize = 1;

/// A recording that is read ahead.
pub(crate) struct Ahead {
    header: Header,
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
    pub(crate) fn new(reader: Reader<impl BufRead + Send + 'static>) -> Result<Self> {
        let header = reader.header().clone();
        let (sender, intervals) = sync_channel(WAITING);
        let thread = Builder::new().name("reader".into()).spawn(move || read(reader, &sender));
        let thread = Some(thread.context("start the thread that reads the recording")?);
        Ok(Self { header, intervals, thread, end: Ending::default() })
    }

    /// The recording's header.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The next interval; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<IntervalRead>> {
        match self.intervals.recv() {
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

/// Reads to the end, to an error, or until nobody takes the intervals any more.
fn read(mut reader: Reader<impl BufRead>, sender: &SyncSender<Result<Message>>) {
    loop {
        let message = reader.read_interval().map(|interval| match interval {
            Some(interval) => Message::Interval(Box::new(IntervalRead {
                interval,
                window: reader.window(),
                source: reader.source(),
                continues: reader.continues(),
                has_more: reader.has_more(),
                line: reader.line(),
            })),
            None => Message::Ending(Box::new(Ending {
                end: reader.end().cloned(),
                torn: reader.is_torn(),
                damage: reader.damage_of(""),
            })),
        });
        let is_last = !matches!(message, Ok(Message::Interval(_)));
        if sender.send(message).is_err() || is_last {
            return;
        }
    }
}
