//! The comment lines: VMs, the end of an interval, the end of the recording. JSON behind a '#'.

use std::ops::Not;

use flate2::Crc;
use serde::{Deserialize, Serialize, Serializer};

use super::{
    foreign,
    header::{End, Label},
    seal::{self, Closing},
};
use crate::model::{budget::Budget, interval::Vm, totals::Totals};

/// How the lines of each kind begin.
pub(super) const BEGINNING: &[u8] = b"#{";
/// How the lines that complete an interval begin.
pub(super) const INTERVAL: &[u8] = b"#{\"interval\":";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Note {
    Vm(Vm),
    Interval(Box<Interval>),
    End {
        #[serde(flatten)]
        end: End,
        /// number of the last interval; none before recordings counted them
        #[serde(default, skip_serializing_if = "Option::is_none")]
        intervals: Option<u64>,
    },
}

/// The note of a JSON line; an error for any other line.
pub(super) fn parse(line: &[u8]) -> anyhow::Result<Note> {
    foreign::parse(line.strip_prefix(b"#").unwrap_or(line))
}

/// Completes an interval, whose series are in the lines before.
#[derive(Serialize, Deserialize)]
pub(crate) struct Interval {
    /// CLOCK_MONOTONIC of the recorder's host at the beginning, ns; in a merge, ns since the epoch
    pub(super) start_ns: u64,
    /// ns of observation; 0 if this goes on with the interval before
    pub(super) length_ns: u64,
    /// counts; `sums::check` says how the series add up to them
    pub(super) totals: Totals,
    /// sums of the series' times, in the order of their first lines; none before recordings had them
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) times: Option<Vec<Times>>,
    /// of an experiment; none between windows and outside of experiments
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) window: Option<Label>,
    /// index in the header's `sources`; none where the recording is no merge
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<u32>,
    /// number of this line, from 1; none before recordings counted them
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) number: Option<u64>,
    /// the next interval line goes on with this interval, whose series were too many for one
    #[serde(default, skip_serializing_if = "Not::not")]
    pub(super) more: bool,
}

/// Sums of a series' times, ns: guest, host; then, unless all of them are 0, the host time's user, polled, idle and steal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<u64>")]
pub(crate) struct Times(pub(super) Budget);

impl Serialize for Times {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Budget { guest_ns, host_ns, user_ns, polled_ns, idle_ns, steal_ns } = self.0;
        let all = [guest_ns, host_ns, user_ns, polled_ns, idle_ns, steal_ns];
        let length = if self.0.named_ns() == 0 { 2 } else { all.len() };
        all[..length].serialize(serializer)
    }
}

impl TryFrom<Vec<u64>> for Times {
    type Error = &'static str;

    fn try_from(sums: Vec<u64>) -> Result<Self, Self::Error> {
        let (guest_ns, host_ns, [user_ns, polled_ns, idle_ns, steal_ns]) = match *sums {
            [guest, host] => (guest, host, [0; 4]),
            [guest, host, user, polled, idle, steal] => (guest, host, [user, polled, idle, steal]),
            _ => return Err("sums of times of another number"),
        };
        Ok(Self(Budget { guest_ns, host_ns, user_ns, polled_ns, idle_ns, steal_ns }))
    }
}

/// Appends a note as a line that seals `text`, whose first `sealed` bytes are sealed already; `crc` is [`seal::begin`]'s.
pub(super) fn append(text: &mut Vec<u8>, sealed: usize, crc: Crc, note: &Note) -> anyhow::Result<()> {
    text.push(b'#');
    serde_json::to_writer(&mut *text, note)?;
    text.push(b'\n');
    seal::seal(text, sealed, crc, Closing::Note);
    Ok(())
}
