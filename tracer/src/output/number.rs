//! Numbers as people read them.

/// A whole number with a comma between groups of three digits, for people: "52,127". Machine formats have none.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_three_digits_from_the_right_are_a_group() {
        let texts = [0, 7, 999, 1000, 52_127, 999_999, 1_000_000, u64::MAX].map(grouped);
        let expected = ["0", "7", "999", "1,000", "52,127", "999,999", "1,000,000", "18,446,744,073,709,551,615"];
        assert_eq!(texts, expected);
    }
}
