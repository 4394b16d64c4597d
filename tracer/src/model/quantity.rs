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
pub(crate) fn duration_unit_ns(unit: &str) -> Option<f64> {
    match unit {
        "m" | "min" => Some(60e9),
        "h" => Some(3600e9),
        "ms" | "s" => limit_unit_ns(unit),
        _ => None,
    }
}

/// The units of limits on times, for error messages.
pub(crate) const LIMIT_UNITS: &str = "ns, us, ms or s";
/// The units of durations, for error messages.
pub(crate) const DURATION_UNITS: &str = "ms, s, m or h";

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
    fn limits_have_units_up_to_seconds_and_durations_from_milliseconds_on() {
        assert_eq!(["ns", "us", "ms", "s"].map(limit_unit_ns).map(Option::unwrap), [1.0, 1e3, 1e6, 1e9]);
        assert_eq!(
            ["ms", "s", "m", "min", "h"].map(duration_unit_ns).map(Option::unwrap),
            [1e6, 1e9, 6e10, 6e10, 3.6e12]
        );
        assert_eq!((limit_unit_ns("m"), duration_unit_ns("us"), duration_unit_ns("d")), (None, None, None));
    }
}
