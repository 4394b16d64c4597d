//! Deflates a histogram with Huffman codes of its own (RFC 1951, 3.2.7), and copies only runs of a byte: the bytes of a histogram are
//! small numbers that repeat each other by chance, so that searching for longer copies costs most of the time of zlib and makes a large
//! histogram longer.

use super::{
    bits::{Bits, zlib_stream},
    huffman::Code,
    inflate::{COPIES, END, ORDER},
};

/// Symbols of bytes, of the end, and of lengths.
const SYMBOLS: usize = 286;
/// Shortest and longest run that is copied.
const RUN: (usize, usize) = (3, 258);

/// Deflates one histogram after another, in memory that it keeps.
#[derive(Default)]
pub(super) struct Deflater {
    /// bytes and copies: a symbol, and the bits that follow its code with their number
    parts: Vec<(u16, u16, u8)>,
    symbols: Code,
    /// lengths of the codes of symbols, as they are written: a code, and the bits that follow it with their number
    lengths: Vec<(u16, u16, u8)>,
    codes: Code,
}

impl Deflater {
    /// Appends the bytes, of which there is one at least, as a zlib stream (RFC 1950).
    pub(super) fn deflate(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let mut frequencies = [0; SYMBOLS];
        self.parts.clear();
        for run in plain.chunk_by(|a, b| a == b) {
            self.parts.push((run[0].into(), 0, 0));
            let mut rest = run.len() - 1;
            while rest >= RUN.0 {
                let length = rest.min(RUN.1);
                self.parts.push(copy(length));
                rest -= length;
            }
            self.parts.extend((0..rest).map(|_| (u16::from(run[0]), 0, 0)));
        }
        self.parts.push((END, 0, 0));
        self.parts.iter().for_each(|(symbol, ..)| frequencies[usize::from(*symbol)] += 1);
        self.symbols.make(&frequencies, 15);
        let count = self.lengths();

        zlib_stream(plain, out, |bits| {
            // The last block, with codes of its own.
            bits.push(0b101, 3);
            self.push_codes(count, bits);
            for &(symbol, more, count) in &self.parts {
                let (code, length) = self.symbols.of(symbol);
                bits.push(code | u32::from(more) << length, length + u32::from(count));
                if symbol > END {
                    // The only distance: the byte before.
                    bits.push(0, 1);
                }
            }
        });
    }

    /// Makes the codes of the lengths of the symbols' codes; returns how many symbols have one.
    fn lengths(&mut self) -> usize {
        let lengths = self.symbols.lengths();
        let count = lengths.iter().rposition(|length| *length > 0).map_or(0, |last| last + 1);
        self.lengths.clear();
        for run in lengths[..count].chunk_by(|a, b| a == b) {
            let (length, mut rest) = (u16::from(run[0]), run.len());
            while length == 0 && rest >= 3 {
                let times = rest.min(138);
                #[expect(clippy::cast_possible_truncation, reason = "at most 138")]
                self.lengths.push(if times < 11 { (17, times as u16 - 3, 3) } else { (18, times as u16 - 11, 7) });
                rest -= times;
            }
            if length > 0 {
                self.lengths.push((length, 0, 0));
                rest -= 1;
                while rest >= 3 {
                    let times = rest.min(6);
                    #[expect(clippy::cast_possible_truncation, reason = "at most 6")]
                    self.lengths.push((16, times as u16 - 3, 2));
                    rest -= times;
                }
            }
            self.lengths.extend((0..rest).map(|_| (length, 0, 0)));
        }
        // The code of the only distance has a bit.
        self.lengths.push((1, 0, 0));
        let mut frequencies = [0; ORDER.len()];
        self.lengths.iter().for_each(|(code, ..)| frequencies[usize::from(*code)] += 1);
        self.codes.make(&frequencies, 7);
        count
    }

    /// Pushes the codes of `count` symbols and of a distance.
    #[expect(clippy::cast_possible_truncation, reason = "numbers of at most 286 codes")]
    fn push_codes(&self, count: usize, bits: &mut Bits<'_>) {
        let lengths = self.codes.lengths();
        let of_lengths = ORDER.iter().rposition(|code| lengths[*code] > 0).map_or(4, |last| (last + 1).max(4));
        bits.push(count as u32 - 257, 5);
        bits.push(0, 5);
        bits.push(of_lengths as u32 - 4, 4);
        ORDER[..of_lengths].iter().for_each(|code| bits.push(lengths[*code].into(), 3));
        for &(code, more, count) in &self.lengths {
            let (code, length) = self.codes.of(code);
            bits.push(code | u32::from(more) << length, length + u32::from(count));
        }
    }
}

/// A copy of 3 to 258 bytes.
fn copy(length: usize) -> (u16, u16, u8) {
    let at = COPIES.partition_point(|(shortest, _)| usize::from(*shortest) <= length) - 1;
    let (shortest, count) = COPIES[at];
    #[expect(clippy::cast_possible_truncation, reason = "at most 28, and 31")]
    (END + 1 + at as u16, (length - usize::from(shortest)) as u16, count)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::ZlibDecoder;
    use proptest::prelude::*;

    use super::{super::inflate::Inflater, *};

    proptest! {
        #[test]
        fn what_is_deflated_inflates_to_the_same_with_zlib_and_here(
            plain in prop_oneof![
                prop::collection::vec(any::<u8>(), 1..3_000),
                prop::collection::vec(prop_oneof![4 => Just(0u8), 2 => 1u8..9, 1 => any::<u8>()], 1..3_000),
                prop::collection::vec((any::<u8>(), 1usize..900), 1..20)
                    .prop_map(|runs| runs.into_iter().flat_map(|(byte, n)| vec![byte; n]).collect()),
            ],
        ) {
            let (mut deflater, mut deflated) = (Deflater::default(), Vec::new());
            deflater.deflate(&[1, 2, 3], &mut Vec::new());
            deflater.deflate(&plain, &mut deflated);
            let mut inflated = Vec::new();
            ZlibDecoder::new(deflated.as_slice()).read_to_end(&mut inflated).unwrap();
            prop_assert_eq!(&inflated, &plain);
            let mut inflater = Inflater::default();
            prop_assert_eq!(inflater.inflate(&deflated, 1 << 20).unwrap(), (&plain[..], &[][..]));
        }
    }

    #[test]
    fn every_byte_and_every_run_is_right() {
        let mut deflater = Deflater::default();
        for byte in 0..=u8::MAX {
            for run in (1..=40).chain([136, 137, 138, 139, 257, 258, 259, 260, 261, 262, 516, 5_000]) {
                let (plain, mut deflated) = (vec![byte; run], Vec::new());
                deflater.deflate(&plain, &mut deflated);
                assert_eq!(Inflater::default().inflate(&deflated, 1 << 20).unwrap().0, plain, "{run} times {byte}");
            }
        }
    }
}
