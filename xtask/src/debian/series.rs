//! A kernel series, such as 6.12.

use std::{fmt, str::FromStr};

/// A kernel series; series are ordered as they appeared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kernel {
    major: u16,
    minor: u16,
}

impl Kernel {
    /// The kernel of Debian 12.
    pub(crate) const V6_1: Kernel = Kernel { major: 6, minor: 1 };
    /// The kernel of Debian 13; Debian 12 has it as a backport.
    pub(crate) const V6_12: Kernel = Kernel { major: 6, minor: 12 };
    /// The last stable kernel without a cap on timer values.
    pub(crate) const V7_2: Kernel = Kernel { major: 7, minor: 2 };
    /// A stable kernel that Debian 13 has as a backport.
    pub(crate) const V7_3: Kernel = Kernel { major: 7, minor: 3 };

    /// The series with long-term support after 6.12.
    pub(crate) const V6_18: Kernel = Kernel { major: 6, minor: 18 };

    /// Name on the command line and in Debian's package names.
    pub(crate) fn series(self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Kernel {
    type Err = String;

    fn from_str(text: &str) -> Result<Kernel, String> {
        let number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())?;
        let numbers = text.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
        let (major, minor) = numbers.ok_or("expected a kernel series, such as 6.12")?;
        Ok(Kernel { major, minor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_two_numbers_which_order_it() {
        let series = |text: &str| text.parse::<Kernel>();
        assert_eq!(series("6.12").unwrap(), Kernel::V6_12);
        assert_eq!(series("5.10").unwrap().to_string(), "5.10");
        assert!(series("6.1").unwrap() < series("6.12").unwrap() && series("6.18").unwrap() < series("7.0").unwrap());
        for text in ["", "6", "6.", ".1", "6.1.2", "6.12-rc1", "+6.1", "newest"] {
            assert!(series(text).is_err(), "{text}");
        }
    }
}
