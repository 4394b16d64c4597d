//! Values of several commands, as they are written.

use std::{str::FromStr, time::Duration};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use rustix::param::page_size;

use crate::{
    kernel::options::DEFAULT_RING_BYTES,
    model::{
        policy::Policy,
        quantity::{duration_ns, split_unit},
    },
    recording::MaxBuckets,
};

/// Largest ring of a CPU in KiB; where those of all CPUs do not fit, they are made smaller.
const MAX_RING_KIB: u32 = 1 << 19;

/// The policies that can be switched to.
pub(super) fn policies() -> impl TypedValueParser<Value = Policy> {
    let names = [Policy::Soft, Policy::Hard].map(Policy::name);
    PossibleValuesParser::new(names).try_map(|name| Policy::parse(&name).ok_or("neither soft nor hard"))
}

/// Histogram buckets that are kept in memory: at least one.
pub(super) fn max_buckets() -> impl TypedValueParser<Value = MaxBuckets> {
    let number: fn(&str) -> Result<u64, String> = at_least_one;
    number.map(MaxBuckets)
}

/// A number that is not 0.
pub(super) fn at_least_one<N: FromStr + From<u8> + PartialOrd>(text: &str) -> Result<N, String> {
    let number = text.parse().ok().filter(|number| *number >= N::from(1));
    number.ok_or_else(|| "write a whole number, at least 1".into())
}

/// Size of each CPU's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingKib {
    /// by the number of CPUs
    Auto,
    /// KiB
    Kib(u32),
}

/// A ring's size: "auto", or KiB: a power of two of at least a page, whose bytes fit into 32 bits.
pub(super) fn ring_kib(text: &str) -> Result<RingKib, String> {
    if text == "auto" {
        return Ok(RingKib::Auto);
    }
    let page_kib = u32::try_from(page_size() / 1024).unwrap_or(4);
    let kib: u32 =
        text.parse().map_err(|_| format!("must be auto or a power of two, e.g. {}", DEFAULT_RING_BYTES / 1024))?;
    if !kib.is_power_of_two() || !(page_kib..=MAX_RING_KIB).contains(&kib) {
        let near = kib.checked_next_power_of_two().unwrap_or(MAX_RING_KIB).clamp(page_kib, MAX_RING_KIB);
        return Err(format!("must be auto or a power of two from {page_kib} (a page) to {MAX_RING_KIB}, e.g. {near}"));
    }
    Ok(RingKib::Kib(kib))
}

/// From "0.5%"; as a share.
pub(super) fn share(text: &str) -> Result<f64, String> {
    match split_unit(text) {
        Ok((percent, "%")) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("write a percentage from 0% to 100%, such as 0.5%".into()),
    }
}

/// From "500ms", "30s", "1h30m"; a bare number is seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = duration_ns(text)? / 1e9;
    if !(0.01..=1e9).contains(&seconds) {
        return Err("must be between 10ms and 30 years".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_a_power_of_two_of_at_least_a_page_or_left_to_the_number_of_cpus() {
        assert_eq!((ring_kib("4"), ring_kib("524288")), (Ok(RingKib::Kib(4)), Ok(RingKib::Kib(524_288))));
        assert_eq!(ring_kib("auto"), Ok(RingKib::Auto));
        for (bad, near) in
            [("3", "e.g. 4"), ("5", "e.g. 8"), ("0", "e.g. 4"), ("1048576", "e.g. 524288"), ("-1", "power")]
        {
            let error = ring_kib(bad).unwrap_err();
            assert!(error.contains(near), "{bad}: {error}");
        }
    }

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!((share("0.5%"), share("0 %"), share("100%")), (Ok(0.005), Ok(0.0), Ok(1.0)));
        for bad in ["", "0.5", "-1%", "101%", "nan%", "5ms"] {
            assert!(share(bad).unwrap_err().contains("such as 0.5%"), "{bad}");
        }
    }

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        for bad in ["", "s", "5d", "-1s", "0", "1e99", "nan"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
