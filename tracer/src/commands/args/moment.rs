//! Moments of a recording, as they are written on the command line.

use std::{fmt, time::Duration};

use crate::{
    model::quantity::duration_ns,
    tui::clock::{self, FORMS},
};

/// A moment of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// as it was written
    text: String,
    from: From,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// ns after the beginning
    Beginning(u64),
    /// ns before the end
    End(u64),
    /// on the clock
    Clock(clock::Moment),
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl Moment {
    /// Whether the end of the recording must be known to find it.
    pub(crate) fn is_from_end(&self) -> bool {
        matches!(self.from, From::End(_))
    }

    /// The moment between the two ends of a recording, all in ns since 1970. The error says where these are.
    pub(crate) fn within(&self, ends: (u64, u64)) -> Result<u64, String> {
        let found = match self.from {
            From::Clock(moment) => moment.within(ends),
            _ => self.unix_ns(ends).ok().filter(|ns| (ends.0..=ends.1).contains(ns)),
        };
        found.ok_or_else(|| clock::outside(&self.text, ends))
    }

    /// The moment in ns since 1970, which may be outside a recording where it is no time of a day.
    pub(crate) fn unix_ns(&self, ends: (u64, u64)) -> Result<u64, String> {
        match self.from {
            From::Beginning(ns) => Ok(ends.0.saturating_add(ns)),
            From::End(ns) => Ok(ends.1.saturating_sub(ns)),
            From::Clock(moment) => moment.within(ends).or(moment.unix_ns()).ok_or_else(|| {
                format!("{}: with a date, as YYYY-MM-DD HH:MM:SS, it may be", clock::outside(&self.text, ends))
            }),
        }
    }
}

/// From "90s", "-30s" or a clock time.
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    let text = text.trim();
    let length = |text: &str| {
        let length = Duration::try_from_secs_f64(duration_ns(text).ok()? / 1e9).ok()?;
        u64::try_from(length.as_nanos()).ok()
    };
    let from = match text.strip_prefix('-') {
        Some(before_end) => length(before_end).map(From::End),
        None => clock::Moment::parse(text).map(From::Clock).or_else(|| length(text).map(From::Beginning)),
    };
    let from = from.ok_or_else(|| {
        format!("write a time after the beginning such as 90s, before the end such as -30s, or in UTC: {FORMS}")
    })?;
    Ok(Moment { text: text.into(), from })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    /// 2023-11-14 22:13:20 to 22:15:20 UTC
    const ENDS: (u64, u64) = (1_700_000_000 * S, 1_700_000_120 * S);

    #[test]
    fn a_moment_is_a_time_from_either_end_or_on_the_clock() {
        let within = |text: &str| moment(text).unwrap().within(ENDS).map(|ns| ns - ENDS.0);
        for (text, ms) in [
            ("0", 0),
            ("90s", 90_000),
            ("1m30s", 90_000),
            ("7", 7_000),
            ("-30s", 90_000),
            ("-0s", 120_000),
            ("22:14", 40_000),
            ("22:14:05", 45_000),
            ("2023-11-14 22:14:05", 45_000),
            ("2023-11-14T22:14:05.25Z", 45_250),
        ] {
            assert_eq!(within(text), Ok(ms * S / 1000), "{text}");
        }
        for text in ["3m", "-3m", "22:16", "2023-11-15 22:14"] {
            let said = within(text).unwrap_err();
            let all = "is outside the recording: 2023-11-14 22:13:20 to 2023-11-14 22:15:20 UTC";
            assert_eq!(said, format!("{text} {all}"));
        }
        for text in ["", "-", "x", "--1s", "1x", "22:14:05.", "22:14:05.1234567891", "2023-11-14", "-22:14", "1e99s"] {
            assert!(moment(text).unwrap_err().contains("90s"), "{text}");
        }
    }

    #[test]
    fn an_end_of_a_span_may_be_outside_unless_it_is_a_time_of_some_day() {
        let at = |text: &str| moment(text).unwrap().unix_ns(ENDS);
        assert_eq!(at("3m"), Ok(ENDS.0 + 180 * S));
        assert_eq!(at("-3m"), Ok(ENDS.1 - 180 * S));
        assert_eq!(at("2023-11-14 22:13"), Ok(ENDS.0), "the minute in which it begins");
        assert_eq!(at("2023-11-14 22:00"), Ok(ENDS.0 - 800 * S));
        assert!(at("22:00").unwrap_err().contains("with a date"));
    }
}
