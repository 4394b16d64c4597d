//! Numbers with units, as people type them: "500ms", "1.5m", "2us", "3%".

/// Splits a number from its unit; white space between them is allowed. The number is finite.
pub(crate) fn split_unit(text: &str) -> Result<(f64, &str), String> {
    let at = text.find(|c: char| c.is_alphabetic() || c == '%').unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    let number = digits.trim().parse::<f64>().ok().filter(|n| n.is_finite());
    let number = number.ok_or_else(|| format!("'{digits}' is not a number"))?;
    Ok((number, unit.trim()))
}

/// ns of a unit of a limit: [`LIMIT_UNITS`]. Minutes are refused, because "3m" is more likely a slip for "3ms".
pub(crate) fn limit_unit_ns(unit: &str) -> Option<f64> {
    match unit {
        "ns" => Some(1.0),
        "us" => Some(1e3),
        "ms" => Some(1e6),
        "s" => Some(1e9),
        _ => None,
    }
}

/// ns of a unit of a duration: [`DURATION_UNITS`], or min.
fn duration_unit_ns(unit: &str) -> Option<f64> {
    match unit {
        "m" | "min" => Some(60e9),
        "h" => Some(3600e9),
        "ms" | "s" => limit_unit_ns(unit),
        _ => None,
    }
}

/// ns of a duration such as "500ms", "1.5m" or "1h30m"; a bare number is seconds.
pub(crate) fn duration_ns(text: &str) -> Result<f64, String> {
    let mut rest = text.trim();
    let mut sum_ns = 0.0;
    loop {
        // From one unit's end to the next one's.
        let unit_at = rest.find(char::is_alphabetic).unwrap_or(rest.len());
        let length = rest[unit_at..].find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len() - unit_at);
        let (part, others) = rest.split_at(unit_at + length);
        let (number, unit) = split_unit(part).map_err(|e| format!("{e}: use {DURATION_UNITS}"))?;
        let is_whole = part.len() == text.trim().len();
        sum_ns += match unit {
            "" if is_whole => number * 1e9,
            "" => return Err(format!("'{number}' has no unit: use {DURATION_UNITS}")),
            _ if number < 0.0 && !is_whole => return Err(format!("'{part}' is negative")),
            _ => {
                number * duration_unit_ns(unit).ok_or_else(|| format!("unknown unit '{unit}': use {DURATION_UNITS}"))?
            }
        };
        rest = others;
        if rest.trim().is_empty() {
            return Ok(sum_ns);
        }
    }
}

/// The units of limits on times, for error messages.
pub(crate) const LIMIT_UNITS: &str = "ns, us, ms or s";
/// The units of durations, for error messages.
const DURATION_UNITS: &str = "ms, s, m or h, e.g. 500ms or 1h30m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_split_from_its_unit() {
        assert_eq!(split_unit("500ms"), Ok((500.0, "ms")));
        assert_eq!(split_unit(" 1.5 m "), Ok((1.5, "m")));
        assert_eq!(split_unit("-3%"), Ok((-3.0, "%")));
        assert_eq!(split_unit("7"), Ok((7.0, "")));
        for bad in ["", "ms", "1.2.3s", "infs"] {
            assert!(split_unit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_duration_may_have_several_parts() {
        assert_eq!(duration_ns("1h30m"), Ok(5400e9));
        assert_eq!(duration_ns(" 2 m 1.5s"), Ok(121.5e9));
        assert_eq!(duration_ns("7"), Ok(7e9));
        assert_eq!(duration_ns("500ms"), Ok(5e8));
        for bad in ["", "h", "1h30", "5 1h", "1h-5m", "1d2h", "1h30m5"] {
            assert!(duration_ns(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_have_units_up_to_seconds_and_durations_from_milliseconds_on() {
        assert_eq!(["ns", "us", "ms", "s"].map(limit_unit_ns).map(Option::unwrap), [1.0, 1e3, 1e6, 1e9]);
        assert_eq!(
            ["ms", "s", "m", "min", "h"].map(duration_unit_ns).map(Option::unwrap),
            [1e6, 1e9, 6e10, 6e10, 3.6e12]
        );
        assert_eq!((limit_unit_ns("m"), duration_unit_ns("us"), duration_unit_ns("d")), (None, None, None));
    }
}
