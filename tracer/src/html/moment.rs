//! Points in time for people, in UTC. By hand, because jiff adds 304 kB to a binary for this one function.

/// "2023-11-14 22:13:20 UTC" from ns since the epoch.
pub(crate) fn utc(unix_ns: u64) -> String {
    let seconds = unix_ns / 1_000_000_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's "civil" algorithm: days since 0000-03-01, so that the leap day comes last.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + later;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Days from 1970-01-01 to a day, by the same algorithm; none where there is no such day, or it is before.
pub(crate) fn days_since_epoch(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1;
    days.checked_sub(719_468)
}

/// The same for names of files: "2026-11-26T111620Z".
pub(crate) fn file_stamp(unix_ns: u64) -> String {
    utc(unix_ns).replace(':', "").replacen(' ', "T", 1).replace(" UTC", "Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_is_found_by_its_date() {
        for day in (0..213_000).step_by(37) {
            let date = utc(day * 86_400_000_000_000);
            let part = |at: std::ops::Range<usize>| date[at].parse().unwrap();
            assert_eq!(days_since_epoch(part(0..4), part(5..7), part(8..10)), Some(day), "{date}");
        }
        for (year, month, day) in
            [(2023, 2, 29), (2100, 2, 29), (2023, 0, 1), (2023, 13, 1), (2023, 4, 31), (1969, 12, 31)]
        {
            assert_eq!(days_since_epoch(year, month, day), None);
        }
        assert!(days_since_epoch(2024, 2, 29).is_some() && days_since_epoch(2000, 2, 29).is_some());
    }

    #[test]
    fn moments_match_those_of_date() {
        let of = |s: u64| utc(s * 1_000_000_000);
        assert_eq!(of(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(of(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(of(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(of(1_700_000_000), "2023-11-14 22:13:20 UTC");
        assert_eq!(of(1_735_689_599), "2024-12-31 23:59:59 UTC");
        assert!(utc(u64::MAX).starts_with("2554-07-21"));
    }
}
