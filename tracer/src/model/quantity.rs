//! Numbers with units, as people type them: "500ms", "1.5m", "2us", "3%".

/// Splits a number from its unit; white space between them is allowed. The number is finite.
pub(crate) fn split_unit(text: &str) -> Result<(f64, &str), String> {
    let at = text.find(|c: char| c.is_alphabetic() || c == '%').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let number = number.trim().parse::<f64>().ok().filter(|n| n.is_finite());
    let number = number.ok_or_else(|| format!("'{text}' does not begin with a number"))?;
    Ok((number, unit.trim()))
}

/// ns of a unit of time: ns, us, ms, s, m (or min), h; none for any other.
pub(crate) fn unit_ns(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        _ => return None,
    })
}

/// The units of time, for error messages.
pub(crate) const TIME_UNITS: &str = "ns, us, ms, s, m or h";

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
    fn units_of_time_are_ns() {
        assert_eq!(
            ["ns", "us", "ms", "s", "min", "h"].map(unit_ns).map(Option::unwrap),
            [1.0, 1e3, 1e6, 1e9, 6e10, 3.6e12]
        );
        assert_eq!(unit_ns("d"), None);
    }
}
