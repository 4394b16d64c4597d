//! The checksum of zlib streams.

/// Bytes that are added up side by side.
const SIDE_BY_SIDE: u32 = 32;
/// Bytes whose sums fit in 32 bits without a division.
const UNDIVIDED: usize = 5_536;
const PRIME: u32 = 65_521;
/// How many sums each byte of a group is in.
const SUMS: [u32; SIDE_BY_SIDE as usize] = {
    let mut sums = [0; SIDE_BY_SIDE as usize];
    let mut before = 0;
    while before < SIDE_BY_SIDE {
        sums[before as usize] = SIDE_BY_SIDE - before;
        before += 1;
    }
    sums
};

/// The Adler-32 checksum (RFC 1950, 8.2).
pub(super) fn adler32(bytes: &[u8]) -> u32 {
    let (mut sum, mut sum_of_sums) = (1, 0);
    for part in bytes.chunks(UNDIVIDED) {
        let (groups, rest) = part.as_chunks::<{ SIDE_BY_SIDE as usize }>();
        for group in groups {
            let (mut of_group, mut of_sums) = (0, 0);
            for (&byte, sums) in group.iter().zip(SUMS) {
                of_group += u32::from(byte);
                of_sums += sums * u32::from(byte);
            }
            sum_of_sums += SIDE_BY_SIDE * sum + of_sums;
            sum += of_group;
        }
        for &byte in rest {
            sum += u32::from(byte);
            sum_of_sums += sum;
        }
        (sum, sum_of_sums) = (sum % PRIME, sum_of_sums % PRIME);
    }
    sum_of_sums << 16 | sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_that_of_the_definition() {
        for len in (0..200).chain([UNDIVIDED - 1, UNDIVIDED, UNDIVIDED + 1, 70_000]) {
            for bytes in [vec![0xff; len], (0..251).cycle().take(len).collect()] {
                let (mut a, mut b) = (1, 0);
                for byte in &bytes {
                    a = (a + u64::from(*byte)) % 65_521;
                    b = (b + a) % 65_521;
                }
                assert_eq!(u64::from(adler32(&bytes)), b << 16 | a, "{len} bytes");
            }
        }
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }
}
