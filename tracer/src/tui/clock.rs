//! Clock times that a user types, in UTC.

use crate::html::moment::{days_since_epoch, utc};

const DAY_S: u64 = 86_400;
const SECOND_NS: u64 = 1_000_000_000;

/// The forms of a moment, for messages.
pub(crate) const FORMS: &str = "HH:MM, HH:MM:SS or YYYY-MM-DD HH:MM:SS";

/// The shortest of them, where there is little room.
pub(super) const SHORT_FORMS: &str = "HH:MM:SS";

/// A typed moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// days since 1970; none where only a time of the day was typed
    day: Option<u64>,
    /// ns since midnight
    of_day_ns: u64,
    /// ns: a minute without seconds, a second without a fraction, else 1
    length_ns: u64,
}

impl Moment {
    /// From one of [`FORMS`], or the same as RFC 3339 with T, a fraction and Z; none from other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_suffix('Z').or_else(|| text.strip_suffix(" UTC")).unwrap_or(text);
        let (date, time) = match text.split_once([' ', 'T']) {
            Some((date, time)) => (Some(date), time),
            None => (None, text),
        };
        let number = |text: &str, most: u64| {
            let is_short = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|n| is_short && *n <= most)
        };
        let day = match date.map(|date| date.split('-').collect::<Vec<_>>()).as_deref() {
            None => None,
            Some([year, month, day]) => {
                Some(days_since_epoch(number(year, 2554)?, number(month, 12)?, number(day, 31)?)?)
            }
            Some(_) => return None,
        };
        let (hours, minutes, seconds) = match time.split(':').collect::<Vec<_>>()[..] {
            [hours, minutes] => (hours, minutes, None),
            [hours, minutes, seconds] => (hours, minutes, Some(seconds)),
            _ => return None,
        };
        let (of_minute_ns, length_ns) = match seconds.map(|seconds| seconds.split_once('.').ok_or(seconds)) {
            None => (0, 60 * SECOND_NS),
            Some(Err(seconds)) => (number(seconds, 59)? * SECOND_NS, SECOND_NS),
            Some(Ok((seconds, fraction))) => {
                let is_fraction = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|b| b.is_ascii_digit());
                let fraction_ns: u64 = format!("{fraction:0<9}").parse().ok().filter(|_| is_fraction)?;
                (number(seconds, 59)? * SECOND_NS + fraction_ns, 1)
            }
        };
        let minutes = number(hours, 23)? * 60 + number(minutes, 59)?;
        Some(Self { day, of_day_ns: minutes * 60 * SECOND_NS + of_minute_ns, length_ns })
    }

    /// ns since 1970; none where no day was typed.
    pub(crate) fn unix_ns(self) -> Option<u64> {
        self.day.map(|day| self.on(day))
    }

    /// The first such moment between the two ends of a recording, ns since 1970; none where it is outside.
    pub(crate) fn within(self, (first, last): (u64, u64)) -> Option<u64> {
        let day_of = |ns: u64| ns / SECOND_NS / DAY_S;
        let days = self.day.map_or(day_of(first)..=day_of(last), |day| day..=day);
        let is_inside = |begin: &u64| *begin <= last && begin.saturating_add(self.length_ns) > first;
        let begin = days.map(|day| self.on(day)).find(is_inside)?;
        Some(begin.clamp(first, last))
    }

    fn on(self, day: u64) -> u64 {
        day.saturating_mul(DAY_S).saturating_mul(SECOND_NS).saturating_add(self.of_day_ns)
    }
}

/// Finds the typed moment between the two ends of a recording, ns since 1970: the first one, where a recording is longer than a day. The
/// error says what is wrong, or where the recording begins and ends.
pub(super) fn find(text: &str, ends: (u64, u64)) -> Result<u64, String> {
    let text = text.trim();
    let moment = Moment::parse(text).ok_or_else(|| format!("'{text}' is not a time: type {FORMS} (UTC)"))?;
    moment.within(ends).ok_or_else(|| outside(text, ends))
}

/// Says that a moment is outside a recording, and where that begins and ends.
pub(crate) fn outside(text: &str, ends: (u64, u64)) -> String {
    format!("{text} is outside the recording: {}", range(ends))
}

/// "2026-11-26 11:16:20 to 2026-11-26 11:17:30 UTC".
pub(crate) fn range((first, last): (u64, u64)) -> String {
    format!("{} to {}", utc(first).trim_end_matches(" UTC"), utc(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    /// 2023-11-14 22:13:20.5 UTC
    const START: u64 = 1_700_000_000 * S + S / 2;

    #[test]
    fn a_time_of_the_day_is_found_on_the_days_of_the_recording() {
        let two_minutes = (START, START + 120 * S);
        assert_eq!(find("22:14", two_minutes), Ok(1_700_000_040 * S));
        assert_eq!(find(" 22:14:05 ", two_minutes), Ok(1_700_000_045 * S));
        assert_eq!(find("2023-11-14 22:14:05", two_minutes), Ok(1_700_000_045 * S));
        assert_eq!(find("2023-11-14T22:14", two_minutes), Ok(1_700_000_040 * S));
        assert_eq!(find("22:13", two_minutes), Ok(START), "the minute in which it begins");
        assert_eq!(find("22:13:20", two_minutes), Ok(START), "the second in which it begins");
        assert_eq!(find("00:10", (START, START + 7200 * S)), Ok(1_700_007_000 * S), "after midnight");
        assert_eq!(find("22:13:30", (START, START + 200_000 * S)), Ok(1_700_000_010 * S), "on the first of its days");
    }

    #[test]
    fn a_time_outside_says_where_the_recording_begins_and_ends() {
        for text in ["22:12", "22:13:19", "22:16", "2023-11-13 22:14"] {
            let said = find(text, (START, START + 120 * S)).unwrap_err();
            let all = "is outside the recording: 2023-11-14 22:13:20 to 2023-11-14 22:15:20 UTC";
            assert_eq!(said, format!("{text} {all}"));
        }
    }

    #[test]
    fn text_that_is_no_time_is_named_with_the_forms_of_one() {
        for text in [
            "",
            "x",
            "22",
            "24:00",
            "22:60",
            "22:14:60",
            "22:14:05:1",
            "-1:00",
            "+1:00",
            "2023-02-30 10:00",
            "2023-13-01 10:00",
            "11-14 22:14",
            "99999:00",
        ] {
            let said = find(text, (START, START + 120 * S)).unwrap_err();
            assert!(said.starts_with(&format!("'{text}' is not a time: type HH:MM")), "{said}");
        }
    }
}
