//! Deflates a few bytes with the codes of RFC 1951's fixed table (3.2.6): for less than a hundred bytes, shorter than with a table of
//! their own, and quicker to write and to read.

use std::ops::Range;

use super::bits::{Bits, zlib_stream};

/// Longest copy that takes a code without extra bits.
const MOST_COPIED: usize = 10;
/// Shortest copy.
const LEAST_COPIED: usize = 3;

/// Appends the bytes, fewer than 65 536, as a zlib stream (RFC 1950).
pub(super) fn deflate(plain: &[u8], out: &mut Vec<u8>) {
    zlib_stream(plain, out, |bits| {
        // The last block, with fixed codes.
        bits.push(0b011, 3);
        let mut seen = Seen { places: [0; 128], zeros: 0..0 };
        let mut at = 0;
        while at < plain.len() {
            match seen.copy(plain, at) {
                Some((length, distance)) => {
                    bits.push_copy(length, distance);
                    at += length;
                }
                None => {
                    bits.push_literal(plain[at]);
                    at += 1;
                }
            }
        }
        // The end of the block is 7 zeros.
        bits.push(0, 7);
    });
}

/// What was seen before, and can be copied.
struct Seen {
    /// after the latest place of three bytes, by a hash of them; 0 for none
    places: [u16; 128],
    /// the longest run of zeros, of which a histogram's header has four
    zeros: Range<usize>,
}

impl Seen {
    /// Length of the bytes at a place that are copied, and how far before they are; none where that would not be shorter.
    #[expect(clippy::cast_possible_truncation, reason = "seven bits, and a place below 65 536")]
    fn copy(&mut self, plain: &[u8], at: usize) -> Option<(usize, usize)> {
        let &[a, b, c] = plain.get(at..at + LEAST_COPIED)? else { return None };
        if at > 0 && plain[at - 1] == a {
            // A run, of which the first byte is a literal.
            let length = same(plain, at - 1, at);
            return (length >= LEAST_COPIED).then_some((length, 1));
        }
        if [a, b, c] == [0; 3] {
            let length = plain[at..].iter().take(MOST_COPIED).take_while(|byte| **byte == 0).count();
            let before = (length <= self.zeros.len()).then_some((length, at - self.zeros.start));
            if length >= self.zeros.len() {
                self.zeros = at..at + length;
            }
            return before;
        }
        let hash = u32::from_le_bytes([a, b, c, 0]).wrapping_mul(0x9e37_79b1) >> 25;
        let after = std::mem::replace(&mut self.places[hash as usize], at as u16 + 1);
        let from = usize::from(after).checked_sub(1)?;
        let length = same(plain, from, at);
        (length >= LEAST_COPIED).then_some((length, at - from))
    }
}

/// How many bytes from two places are the same, of those that may be copied.
fn same(plain: &[u8], from: usize, at: usize) -> usize {
    plain[from..].iter().zip(&plain[at..]).take(MOST_COPIED).take_while(|(a, b)| a == b).count()
}

impl Bits<'_> {
    fn push_literal(&mut self, byte: u8) {
        let (code, count) = LITERALS[usize::from(byte)];
        self.push(code, count);
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
}

/// A Huffman code of so many bits, which has its first bit highest, as bits are pushed.
const fn reversed(code: u32, count: u32) -> u32 {
    code.reverse_bits() >> (32 - count)
}

/// The codes of bytes, as they are pushed, and their numbers of bits.
static LITERALS: [(u32, u32); 256] = {
    let mut codes = [(0, 0); 256];
    let mut byte = 0;
    while byte < 256 {
        let (code, count) = if byte < 144 { (0x30 + byte, 8) } else { (0x190 + byte - 144, 9) };
        codes[byte as usize] = (reversed(code, count), count);
        byte += 1;
    }
    codes
};

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
