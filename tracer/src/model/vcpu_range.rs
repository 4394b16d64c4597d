//! Numbers of vCPUs, as people type them: "7", "0-3".

use std::ops::RangeInclusive;

/// Numbers of vCPUs that KVM can give: below KVM_MAX_VCPU_IDS (arch/x86/include/asm/kvm_host.h) at its largest, 4 times 4096.
const MAX_VCPU_IDS: u32 = 16384;

/// From "7" or "0-3".
pub(crate) fn vcpu_range(text: &str) -> Result<RangeInclusive<u32>, String> {
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|id| *id < MAX_VCPU_IDS);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        (Some(first), Some(last)) => Err(format!("{first} is above {last}: write {last}-{first}")),
        _ => Err(format!("write numbers below {MAX_VCPU_IDS} and ranges of them, such as 0-3,7")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vcpus_are_numbers_and_ranges() {
        assert_eq!((vcpu_range("7"), vcpu_range("0-3")), (Ok(7..=7), Ok(0..=3)));
        for (bad, expected) in
            [("3-0", "write 0-3"), ("", "0-3,7"), ("-1", "0-3,7"), ("0-99999", "below"), ("a", "below")]
        {
            let error = vcpu_range(bad).unwrap_err();
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }
}
