//! Clock times that a user types to jump to, in UTC.

use crate::html::moment::{days_since_epoch, utc};

const DAY_S: u64 = 86_400;

/// The forms of a moment, for messages.
pub(super) const FORMS: &str = "HH:MM, HH:MM:SS or YYYY-MM-DD HH:MM:SS";

/// The shortest of them, where there is little room.
pub(super) const SHORT_FORMS: &str = "HH:MM:SS";

/// A typed moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    /// days since 1970; none where only a time of the day was typed
    day: Option<u64>,
    /// seconds since midnight
    of_day_s: u64,
    /// 60 without seconds, else 1
    length_s: u64,
}

/// Finds the typed moment between the two ends of a recording, ns since 1970: the first one, where a recording is longer than a day. The
/// error says what is wrong, or where the recording begins and ends.
pub(super) fn find(text: &str, (first, last): (u64, u64)) -> Result<u64, String> {
    let moment = parse(text.trim()).ok_or_else(|| format!("'{}' is not a time: type {FORMS} (UTC)", text.trim()))?;
    let day_of = |ns: u64| ns / 1_000_000_000 / DAY_S;
    let days = moment.day.map_or(day_of(first)..=day_of(last), |day| day..=day);
    let ns = |seconds: u64| seconds.saturating_mul(1_000_000_000);
    let begins = |day: u64| ns(day.saturating_mul(DAY_S).saturating_add(moment.of_day_s));
    let is_inside = |begin: &u64| *begin <= last && begin.saturating_add(ns(moment.length_s)) > first;
    match days.map(begins).find(is_inside) {
        Some(begin) => Ok(begin.clamp(first, last)),
        None => Err(format!("{} is outside the recording: {}", text.trim(), range((first, last)))),
    }
}

/// "2026-11-26 11:16:20 to 2026-11-26 11:17:30 UTC".
pub(super) fn range((first, last): (u64, u64)) -> String {
    format!("{} to {}", utc(first).trim_end_matches(" UTC"), utc(last))
}

fn parse(text: &str) -> Option<Moment> {
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
        Some([year, month, day]) => Some(days_since_epoch(number(year, 2554)?, number(month, 12)?, number(day, 31)?)?),
        Some(_) => return None,
    };
    let (hours, minutes, seconds) = match time.split(':').collect::<Vec<_>>()[..] {
        [hours, minutes] => (hours, minutes, None),
        [hours, minutes, seconds] => (hours, minutes, Some(number(seconds, 59)?)),
        _ => return None,
    };
    let of_day_s = number(hours, 23)? * 3600 + number(minutes, 59)? * 60 + seconds.unwrap_or(0);
    Some(Moment { day, of_day_s, length_s: if seconds.is_some() { 1 } else { 60 } })
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
