//! Deflates a few bytes with the codes of RFC 1951's fixed table (3.2.6): for less than a hundred bytes, shorter than with a table of
//! their own, and quicker to write and to read.

/// Longest copy that takes a code without extra bits.
const MOST_COPIED: usize = 10;
/// Shortest copy.
const LEAST_COPIED: usize = 3;

/// Appends the bytes as a zlib stream (RFC 1950). Only runs of a byte are copied: a histogram's header is mostly zeros.
pub(super) fn deflate(plain: &[u8], out: &mut Vec<u8>) {
    // A window of 32 KiB, no dictionary, the fastest level; a multiple of 31.
    out.extend([0x78, 0x01]);
    let mut bits = Bits { out, held: 0, count: 0 };
    // The last block, with fixed codes.
    bits.push(0b011, 3);
    let (mut at, mut zeros) = (0, 0..0);
    while at < plain.len() {
        let byte = plain[at];
        let goes_on = at > 0 && plain[at - 1] == byte;
        if !goes_on && byte != 0 {
            bits.push_literal(byte);
            at += 1;
            continue;
        }
        let run = plain[at..].iter().take(MOST_COPIED).take_while(|b| **b == byte).count();
        let (copied, distance) = if goes_on { (run, 1) } else { (run.min(zeros.len()), at - zeros.start) };
        if !goes_on {
            zeros = at..at + run;
        }
        if copied >= LEAST_COPIED {
            bits.push_copy(copied, distance);
            at += copied;
        } else {
            bits.push_literal(byte);
            at += 1;
        }
    }
    // The end of the block is 7 zeros.
    bits.push(0, 7);
    bits.finish();
    out.extend(adler32(plain).to_be_bytes());
}

/// Bits, the first one lowest.
struct Bits<'a> {
    out: &'a mut Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits<'_> {
    /// Pushes up to 32 bits.
    #[expect(clippy::cast_possible_truncation, reason = "the lowest 32 bits are meant")]
    fn push(&mut self, bits: u32, count: u32) {
        self.held |= u64::from(bits) << self.count;
        self.count += count;
        if self.count >= 32 {
            self.out.extend_from_slice(&(self.held as u32).to_le_bytes());
            self.held >>= 32;
            self.count -= 32;
        }
    }

    fn push_literal(&mut self, byte: u8) {
        let (code, count) = LITERALS[usize::from(byte)];
        self.push(code.into(), count.into());
    }

    /// A copy of 3 to 10 bytes from so many bytes before.
    #[expect(clippy::cast_possible_truncation, reason = "both are at most 32 KiB")]
    fn push_copy(&mut self, length: usize, distance: usize) {
        self.push(reversed(length as u32 - 2, 7), 7);
        let before = distance as u32 - 1;
        if before < 4 {
            return self.push(reversed(before, 5), 5);
        }
        let high = before.ilog2();
        let extra = high - 1;
        self.push(reversed(2 * high + (before >> extra & 1), 5), 5);
        self.push(before & ((1 << extra) - 1), extra);
    }

    fn finish(self) {
        let bytes = self.count.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.held.to_le_bytes()[..bytes]);
    }
}

/// A Huffman code of so many bits, which has its first bit highest, as bits are pushed.
const fn reversed(code: u32, count: u32) -> u32 {
    code.reverse_bits() >> (32 - count)
}

/// The codes of bytes, as they are pushed, and their numbers of bits.
static LITERALS: [(u16, u8); 256] = {
    let mut codes = [(0, 0); 256];
    let mut byte = 0;
    while byte < 256 {
        let (code, count) = if byte < 144 { (0x30 + byte, 8) } else { (0x190 + byte - 144, 9) };
        codes[byte as usize] = (reversed(code, count) as u16, count as u8);
        byte += 1;
    }
    codes
};

/// The checksum of RFC 1950 of up to 5552 bytes, whose sums fit without a division.
fn adler32(bytes: &[u8]) -> u32 {
    debug_assert!(bytes.len() <= 5552);
    let (a, b) = bytes.iter().fold((1, 0), |(a, b), byte| (a + u32::from(*byte), b + a + u32::from(*byte)));
    (b % 65_521) << 16 | a % 65_521
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::ZlibDecoder;
    use proptest::prelude::*;

    use super::*;

    fn inflated(plain: &[u8]) -> Vec<u8> {
        let (mut deflated, mut inflated) = (Vec::new(), Vec::new());
        deflate(plain, &mut deflated);
        ZlibDecoder::new(deflated.as_slice()).read_to_end(&mut inflated).unwrap();
        inflated
    }

    proptest! {
        #[test]
        fn what_is_deflated_inflates_to_the_same(plain in prop::collection::vec(prop_oneof![4 => Just(0u8), 1 => any::<u8>()], 0..2000)) {
            prop_assert_eq!(inflated(&plain), plain);
        }
    }

    #[test]
    fn every_byte_every_run_and_every_distance_is_right() {
        for byte in 0..=u8::MAX {
            for run in 1..=40 {
                let plain = vec![byte; run];
                assert_eq!(inflated(&plain), plain, "{run} times {byte}");
            }
        }
        for between in 1..=200 {
            let plain = [vec![0; 7], (1..=between).collect(), vec![0; 9]].concat();
            assert_eq!(inflated(&plain), plain, "{between} between");
        }
    }
}
