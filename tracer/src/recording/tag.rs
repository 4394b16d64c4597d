//! The tag of a histogram's line: which series and figure it is.

use anyhow::{Context, Result};
use indexmap::IndexMap;
use tracer_common::{Isa, rules::TimerCause};

use crate::{
    model::{
        detail::Detail,
        figures::Figure,
        series::{EntryKind, Key, Level},
    },
    output::{MAX_NAME, printable},
};

/// The tag of a figure of a series.
pub(crate) fn tag(key: &Key, figure: Figure) -> String {
    let mut tag = String::new();
    append_tag_of_series(key, &mut tag);
    tag + figure.name()
}

/// Appends the tag of a figure of a series, up to the figure's name.
pub(super) fn append_tag_of_series(key: &Key, tag: &mut String) {
    // Piece by piece: formatting them takes three times as long, and an interval may have a hundred thousand series.
    let mut digits = itoa::Buffer::new();
    for (name, number) in [("vm=", key.vm), (";vcpu=", key.vcpu)] {
        tag.push_str(name);
        tag.push_str(digits.format(number));
    }
    for (name, value) in [(";level=", key.level.name()), (";isa=", key.isa.name()), (";reason=", "")] {
        tag.push_str(name);
        tag.push_str(value);
    }
    tag.push_str(key.reason.map_or("unknown", |reason| digits.format(reason)));
    tag.push_str(";entry=");
    tag.push_str(key.entry.name());
    if let Some(cause) = key.cause {
        tag.push_str(";cause=");
        tag.push_str(cause.name());
    }
    if let Some(detail) = key.detail {
        tag.push_str(";detail=");
        tag.push_str(&detail.tag());
    }
    tag.push_str(";figure=");
}

/// From [`tag`]; none for anything that this version does not write: another key, a key twice, a missing one.
pub(crate) fn parse_tag(text: &str) -> Option<(Key, Figure)> {
    let mut key = Key {
        vm: 0,
        vcpu: 0,
        level: Level::Unknown,
        isa: Isa::Other,
        reason: None,
        entry: EntryKind::Unknown,
        cause: None,
        detail: None,
    };
    let mut figure = None;
    for part in text.split(';') {
        let (name, value) = part.split_once('=')?;
        match name {
            "vm" => key.vm = value.parse().ok()?,
            "vcpu" => key.vcpu = value.parse().ok()?,
            "level" => key.level = Level::parse(value)?,
            "isa" => key.isa = Isa::ALL.into_iter().find(|isa| isa.name() == value)?,
            "reason" if value == "unknown" => key.reason = None,
            "reason" => key.reason = Some(value.parse().ok()?),
            "entry" => key.entry = EntryKind::parse(value)?,
            "cause" => key.cause = Some(TimerCause::ALL.into_iter().find(|c| c.name() == value)?),
            "detail" => key.detail = Some(Detail::parse(value)?),
            "figure" => figure = Some(Figure::parse(value)?),
            // A later version of the format may tell series further apart: it must raise VERSION then.
            _ => return None,
        }
    }
    let figure = figure?;
    // A damaged tag can lack a key or have one twice, of two lines: only the whole one is written for this series and figure.
    (tag(&key, figure) == text).then_some((key, figure))
}

/// Tags that were parsed before: most lines of a recording have the tag of a line of the interval before, and in the same order.
#[derive(Default)]
pub(super) struct Tags {
    known: IndexMap<Box<str>, (Key, Figure)>,
    /// index of the tag that is likely to be next
    next: usize,
}

impl Tags {
    /// Most tags that are remembered: 16 MB.
    const MOST: usize = 1 << 16;

    /// [`parse_tag`], or its result of before.
    pub(super) fn parse(&mut self, tag: &str) -> Result<(Key, Figure)> {
        let is_next = self.known.get_index(self.next).is_some_and(|(next, _)| **next == *tag);
        let found = if is_next { Some(self.next) } else { self.known.get_index_of(tag) };
        if let Some(at) = found {
            self.next = at + 1;
            return Ok(self.known[at]);
        }
        let parsed = parse_tag(tag).with_context(|| format!("unknown tag '{}'", printable(tag, MAX_NAME)))?;
        if self.known.len() < Self::MOST {
            self.known.insert(tag.into(), parsed);
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_survive_the_way_through_the_file() {
        let key = Key {
            vm: 7,
            vcpu: 3,
            level: Level::L2,
            isa: Isa::Vmx,
            reason: Some(0x8000_0021),
            entry: EntryKind::Dirty,
            cause: Some(TimerCause::Spurious),
            detail: None,
        };
        assert_eq!(parse_tag(&tag(&key, Figure::PinWrites)), Some((key, Figure::PinWrites)));
        let unknown = Key { reason: None, cause: None, ..key };
        assert_eq!(parse_tag(&tag(&unknown, Figure::Transition)), Some((unknown, Figure::Transition)));
        let port = Detail::Port { port: 0x3f8, bytes: 1, is_in: false };
        let detailed = Key { detail: Some(port), ..unknown };
        assert_eq!(parse_tag(&tag(&detailed, Figure::ExitToEntry)), Some((detailed, Figure::ExitToEntry)));
        assert_eq!(parse_tag("vm=1;color=red;figure=pin_writes"), None);
        assert_eq!(parse_tag("vm=1;figure=x"), None);
    }

    #[test]
    fn a_tag_with_a_key_twice_or_without_one_is_none() {
        let key = Key { cause: Some(TimerCause::Deadline), reason: Some(52), isa: Isa::Vmx, ..Key::default() };
        let whole = tag(&key, Figure::PinWrites);
        assert!(parse_tag(&whole).is_some());
        let parts: Vec<_> = whole.split(';').collect();
        for at in 0..parts.len() {
            let mut twice = parts.clone();
            twice.insert(at, parts[at]);
            assert_eq!(parse_tag(&twice.join(";")), None, "{twice:?}");
            let mut without = parts.clone();
            without.remove(at);
            // A cause is not in every tag; the checksum finds that one.
            assert!(parts[at].starts_with("cause=") || parse_tag(&without.join(";")).is_none(), "{without:?}");
        }
        assert_eq!(parse_tag(&whole.replace("vm=0", "vm=00")), None);
    }
}
