//! Inflates zlib streams (RFC 1950, RFC 1951) of a few hundred bytes. Each histogram of a recording is one, with Huffman codes of its
//! own, and for so few bytes most of the time goes into the tables of its codes. Those of zlib and its likes are made for long streams, and
//! take a third of the time of reading; here a table has only as many places as the longest code needs, often 256.

use std::cell::OnceCell;

use anyhow::{Context, Result, bail, ensure};

use super::adler32::adler32;

/// Symbols of bytes, of the end of a block, and of lengths.
const SYMBOLS: usize = 288;
/// The symbol of the end of a block.
pub(super) const END: u16 = 256;
/// Bits of the longest code.
const LONGEST: usize = 15;
/// The order in which a block has the lengths of its codes of lengths (RFC 1951, 3.2.7).
pub(super) const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// By symbol after [`END`]: the shortest copy, and how many bits follow that make it longer (RFC 1951, 3.2.5).
#[rustfmt::skip]
pub(super) const COPIES: [(u16, u8); 29] = [
    (3, 0), (4, 0), (5, 0), (6, 0), (7, 0), (8, 0), (9, 0), (10, 0), (11, 1), (13, 1), (15, 1), (17, 1), (19, 2), (23, 2), (27, 2),
    (31, 2), (35, 3), (43, 3), (51, 3), (59, 3), (67, 4), (83, 4), (99, 4), (115, 4), (131, 5), (163, 5), (195, 5), (227, 5), (258, 0),
];
/// Bits of a length in a place of [`Code`]: as many as tell how far a number of 64 bits is shifted, so that no others are masked out.
const LENGTH_BITS: u32 = 6;
const LENGTH: u16 = (1 << LENGTH_BITS) - 1;
/// Bytes of memory at first.
const FIRST: usize = 4096;

/// Inflates one stream after another, in memory that it keeps.
#[derive(Default)]
pub(super) struct Inflater {
    lengths: Code,
    own: Codes,
    /// as soon as a block has no codes of its own
    fixed: OnceCell<Codes>,
    plain: Vec<u8>,
}

/// The codes of a block.
#[derive(Default)]
struct Codes {
    symbols: Code,
    distances: Code,
}

impl Inflater {
    /// What the stream at the beginning of `bytes` inflates to, and the bytes after it. An error where that is more than `most` bytes, at
    /// least 4096, or where the stream is damaged or cut off.
    pub(super) fn inflate<'a>(&mut self, bytes: &'a [u8], most: usize) -> Result<(&[u8], &'a [u8])> {
        let (&[method, flags], body) = bytes.split_first_chunk().context("it is cut off")?;
        let is_zlib = method & 0xf == 8 && method >> 4 <= 7 && u16::from_be_bytes([method, flags]).is_multiple_of(31);
        ensure!(is_zlib && flags & 0x20 == 0, "no zlib stream");
        let mut bits = Bits::of(body);
        self.plain.resize(self.plain.len().max(FIRST), 0);
        let mut output = Output { bytes: std::mem::take(&mut self.plain), len: 0, most };
        let inflated = self.blocks(&mut bits, &mut output);
        self.plain = output.bytes;
        inflated?;
        let plain = &self.plain[..output.len];
        let (sum, rest) = bits.bytes().and_then(<[u8]>::split_first_chunk).context("it is cut off")?;
        ensure!(adler32(plain) == u32::from_be_bytes(*sum), "its checksum is wrong");
        Ok((plain, rest))
    }

    fn blocks(&mut self, bits: &mut Bits<'_>, output: &mut Output) -> Result<()> {
        loop {
            bits.fill();
            let is_last = bits.take(1) == 1;
            match bits.take(2) {
                0 => stored(bits, output)?,
                1 => self.fixed.get_or_init(Codes::fixed).block(bits, output)?,
                2 => {
                    self.read_codes(bits)?;
                    self.own.block(bits, output)?;
                }
                _ => bail!("a block of an unknown kind"),
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Reads the codes of a block (RFC 1951, 3.2.7).
    fn read_codes(&mut self, from: &mut Bits<'_>) -> Result<()> {
        let Self { lengths, own: Codes { symbols, distances }, .. } = self;
        [&mut *lengths, symbols, distances].into_iter().for_each(Code::clear);
        // A copy, which need not be in memory.
        let mut bits = Bits { ..*from };
        let (of_symbols, of_distances, of_codes) = (bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4);
        ensure!(of_symbols <= 286 && of_distances <= 30, "more codes than there are");
        let mut of_lengths = [0; ORDER.len()];
        for &code in &ORDER[..of_codes.into()] {
            bits.fill();
            of_lengths[code] = bits.take(3);
        }
        for (code, length) in (0..).zip(of_lengths).filter(|(_, length)| *length > 0) {
            lengths.push(code, length);
        }
        lengths.finish(true)?;
        let (mut at, mut latest, all) = (0, None, of_symbols + of_distances);
        while at < all {
            bits.fill();
            let code = lengths.next(&mut bits)?;
            let (length, times) = match code {
                ..16 => (code, 1),
                16 => (latest.context("a repeated length without a first one")?, 3 + bits.take(2)),
                17 => (0, 3 + bits.take(3)),
                _ => (0, 11 + bits.take(7)),
            };
            ensure!(times <= all - at, "more lengths than codes");
            if length > 0 {
                for at in at..at + times {
                    match at.checked_sub(of_symbols) {
                        None => symbols.push(at, length),
                        Some(distance) => distances.push(distance, length),
                    }
                }
            }
            (at, latest) = (at + times, Some(length));
        }
        bits.check()?;
        // One symbol, or none, is an incomplete code.
        let is_short = |code: &Code| code.of_length[2..].iter().all(|n| *n == 0);
        for code in [symbols, distances] {
            let is_complete = !is_short(code);
            code.finish(is_complete)?;
        }
        *from = bits;
        Ok(())
    }
}

impl Codes {
    /// Those of a block that has none of its own (RFC 1951, 3.2.6).
    fn fixed() -> Self {
        let mut codes = Self::default();
        for (symbols, length) in [(0..144, 8), (144..256, 9), (256..280, 7), (280..288, 8)] {
            symbols.for_each(|symbol| codes.symbols.push(symbol, length));
        }
        (0..32).for_each(|symbol| codes.distances.push(symbol, 5));
        // Complete, as RFC 1951 has them.
        let _ = codes.symbols.finish(true).and_then(|()| codes.distances.finish(true));
        codes
    }

    /// Inflates a block.
    fn block(&self, from: &mut Bits<'_>, output: &mut Output) -> Result<()> {
        let mut bits = Bits { ..*from };
        loop {
            // Three codes fit in what is held.
            bits.fill();
            bits.check()?;
            let mut symbol = self.symbols.next(&mut bits)?;
            if let Ok(byte) = u8::try_from(symbol) {
                output.push(byte)?;
                symbol = self.symbols.next(&mut bits)?;
                if let Ok(byte) = u8::try_from(symbol) {
                    output.push(byte)?;
                    symbol = self.symbols.next(&mut bits)?;
                    if let Ok(byte) = u8::try_from(symbol) {
                        output.push(byte)?;
                        continue;
                    }
                }
            }
            let Some(copy) = symbol.checked_sub(END + 1) else { break };
            bits.fill();
            let &(shortest, more) = COPIES.get(usize::from(copy)).context("a length that there is not")?;
            let length = shortest + bits.take(more.into());
            let distance = match self.distances.next(&mut bits)? {
                near @ ..4 => near + 1,
                code @ ..30 => {
                    let more = code / 2 - 1;
                    // At most 2^15, the first one of which is 1.
                    ((2 + code % 2) << more) + bits.take(more.into()) + 1
                }
                _ => bail!("a distance that there is not"),
            };
            output.copy(length.into(), distance.into())?;
        }
        bits.check()?;
        *from = bits;
        Ok(())
    }
}

/// Copies a block that was not deflated (RFC 1951, 3.2.4).
fn stored(bits: &mut Bits<'_>, output: &mut Output) -> Result<()> {
    let bytes = bits.bytes().context("it is cut off")?;
    let (&[low, high, not_low, not_high], bytes) = bytes.split_first_chunk().context("it is cut off")?;
    ensure!([low, high] == [!not_low, !not_high], "a block of two lengths");
    let (stored, rest) = bytes.split_at_checked(u16::from_le_bytes([low, high]).into()).context("it is cut off")?;
    *bits = Bits::of(rest);
    stored.iter().try_for_each(|byte| output.push(*byte))
}

/// A Huffman code.
struct Code {
    /// by the bits that come next, as many as `mask` has: the symbol they begin with, and below it, in [`LENGTH_BITS`], the length of its
    /// code; 0 for none
    places: Vec<u16>,
    mask: u64,
    /// places of the symbols so far, each with the number of symbols before it whose codes are as long
    pushed: [(u16, u16); SYMBOLS],
    len: usize,
    /// how many codes have each length
    of_length: [u16; LONGEST + 1],
}

impl Default for Code {
    fn default() -> Self {
        Self { places: vec![0; 1 << LONGEST], mask: 0, pushed: [(0, 0); SYMBOLS], len: 0, of_length: [0; LONGEST + 1] }
    }
}

impl Code {
    fn clear(&mut self) {
        (self.len, self.of_length) = (0, [0; LONGEST + 1]);
    }

    /// Adds the next symbol, whose code has so many bits, 1 to 15.
    #[inline(always)]
    fn push(&mut self, symbol: u16, length: u16) {
        let before = &mut self.of_length[usize::from(length)];
        self.pushed[self.len] = (symbol << LENGTH_BITS | length, *before);
        *before += 1;
        self.len += 1;
    }

    /// Gives the symbols their codes (RFC 1951, 3.2.2). `is_complete`: any bits must begin with one.
    fn finish(&mut self, is_complete: bool) -> Result<()> {
        // Where the symbols of each length begin, in their order by length.
        let (mut first, mut free) = ([0; LONGEST + 1], 1);
        for length in 1..=LONGEST {
            first[length] = first[length - 1] + self.of_length[length - 1];
            free = 2 * free - i32::from(self.of_length[length]);
            ensure!(free >= 0, "more codes than bits can tell apart");
        }
        ensure!(free == 0 || !is_complete, "bits that are no code");
        let mut sorted = [0; SYMBOLS];
        for &(place, before) in &self.pushed[..self.len] {
            sorted[usize::from(first[usize::from(place & LENGTH)] + before)] = place;
        }
        let longest = self.of_length.iter().rposition(|n| *n > 0).unwrap_or(1);
        self.mask = (1 << longest) - 1;
        let places = &mut self.places[..1 << longest];
        places[..2].fill(0);
        let (mut code, mut sorted) = (0u16, sorted.iter());
        for length in 1..=longest {
            // The places so far are right whatever the next bit is, and the codes that come have it.
            if length > 1 {
                places.copy_within(..1 << (length - 1), 1 << (length - 1));
            }
            for &place in sorted.by_ref().take(self.of_length[length].into()) {
                // Codes have their highest bit first.
                places[usize::from(code.reverse_bits() >> (16 - length))] = place;
                code += 1;
            }
            code <<= 1;
        }
        Ok(())
    }

    /// Takes the next symbol from bits that were filled.
    #[inline(always)]
    fn next(&self, bits: &mut Bits<'_>) -> Result<u16> {
        #[expect(clippy::cast_possible_truncation, reason = "15 bits at most")]
        let place = self.places[(bits.held & self.mask) as usize];
        ensure!(place & LENGTH > 0, "bits that are no code");
        bits.skip(u32::from(place & LENGTH));
        Ok(place >> LENGTH_BITS)
    }
}

/// The bits of a stream, of each byte the lowest one first.
struct Bits<'a> {
    stream: &'a [u8],
    /// bytes of the stream that are held or taken
    at: usize,
    /// the next bits, the next one lowest; any bits above those held
    held: u64,
    count: u32,
    /// of those held, 0 bits after the end of the stream
    beyond: u32,
}

impl<'a> Bits<'a> {
    fn of(stream: &'a [u8]) -> Self {
        Self { stream, at: 0, held: 0, count: 0, beyond: 0 }
    }

    /// Holds 56 bits at least.
    #[inline(always)]
    fn fill(&mut self) {
        match self.stream.get(self.at..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => {
                self.held |= u64::from_le_bytes(*bytes) << self.count;
                let more = (63 - self.count) / 8;
                self.at += more as usize;
                self.count += 8 * more;
            }
            None => self.fill_at_the_end(),
        }
    }

    fn fill_at_the_end(&mut self) {
        while self.count < 56 {
            // What is above the bits held may be of the bytes that come, and is nothing after them.
            self.held &= (1 << self.count) - 1;
            match self.stream.get(self.at) {
                Some(byte) => {
                    self.held |= u64::from(*byte) << self.count;
                    self.at += 1;
                }
                None => self.beyond += 8,
            }
            self.count += 8;
        }
    }

    /// The next bits, up to 15, which must be held.
    #[inline(always)]
    fn take(&mut self, n: u32) -> u16 {
        #[expect(clippy::cast_possible_truncation, reason = "15 bits at most")]
        let bits = (self.held & ((1 << n) - 1)) as u16;
        self.skip(n);
        bits
    }

    #[inline(always)]
    fn skip(&mut self, n: u32) {
        self.held >>= n;
        self.count -= n;
    }

    /// Fails where bits were taken after the end of the stream.
    #[inline(always)]
    fn check(&self) -> Result<()> {
        ensure!(self.beyond <= self.count, "it is cut off");
        Ok(())
    }

    /// The rest of the stream from the next whole byte on; none where it has ended before.
    fn bytes(&self) -> Option<&'a [u8]> {
        let held = self.count.checked_sub(self.beyond)? / 8;
        self.stream.get(self.at.checked_sub(held as usize)?..)
    }
}

/// What was inflated.
struct Output {
    /// with room for more
    bytes: Vec<u8>,
    len: usize,
    /// how long it may become
    most: usize,
}

impl Output {
    #[inline(always)]
    fn push(&mut self, byte: u8) -> Result<()> {
        if self.len == self.bytes.len() {
            self.grow()?;
        }
        self.bytes[self.len] = byte;
        self.len += 1;
        Ok(())
    }

    /// Repeats bytes from a distance, at least 1, before the end; the copy may overlap them.
    #[inline(always)]
    fn copy(&mut self, length: usize, distance: usize) -> Result<()> {
        let from = self.len.checked_sub(distance).context("a copy from before the beginning")?;
        while self.bytes.len() - self.len < length {
            self.grow()?;
        }
        let bytes = &mut self.bytes[from..self.len + length];
        for at in 0..length {
            bytes[at + distance] = bytes[at];
        }
        self.len += length;
        Ok(())
    }

    #[cold]
    fn grow(&mut self) -> Result<()> {
        ensure!(self.bytes.len() < self.most, "more counts than there are buckets");
        self.bytes.resize((2 * self.bytes.len()).min(self.most), 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    const MOST: usize = 1 << 20;

    fn deflated(plain: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
        std::io::Write::write_all(&mut encoder, plain).unwrap();
        encoder.finish().unwrap()
    }

    /// What the crate inflates; none where it fails.
    fn expected(stream: &[u8]) -> Option<Vec<u8>> {
        let mut plain = Vec::new();
        ZlibDecoder::new(stream).read_to_end(&mut plain).ok()?;
        Some(plain)
    }

    /// Bytes of every kind: few and many different ones, repeated and not.
    fn plain() -> impl Strategy<Value = Vec<u8>> {
        let (many, few) = (prop::collection::vec(any::<u8>(), 0..3_000), prop::collection::vec(0u8..9, 0..3_000));
        let runs = prop::collection::vec((any::<u8>(), 1usize..400), 0..60);
        let runs = runs.prop_map(|runs| runs.into_iter().flat_map(|(byte, n)| vec![byte; n]).collect());
        let far = prop::collection::vec(any::<u8>(), 100..40_000).prop_map(|half| half.repeat(2));
        prop_oneof![many, few, runs, far]
    }

    proptest! {
        #[test]
        fn what_zlib_deflates_is_inflated(plain in plain(), level in 0u32..=9) {
            let mut inflater = Inflater::default();
            let mut stream = deflated(&plain, level);
            prop_assert_eq!(inflater.inflate(&stream, MOST).unwrap(), (&plain[..], &[][..]));
            stream.extend([0x55; 9]);
            prop_assert_eq!(inflater.inflate(&stream, MOST).unwrap(), (&plain[..], &[0x55; 9][..]));
        }

        #[test]
        fn a_changed_stream_inflates_to_the_same_as_with_the_crate(
            plain in prop_oneof![3 => prop::collection::vec(0u8..40, 0..300), 1 => plain()],
            level in 0u32..=9, at in any::<prop::sample::Index>(), bit in 0u32..8,
        ) {
            let mut stream = deflated(&plain, level);
            let at = at.index(stream.len());
            stream[at] ^= 1 << bit;
            let mut inflater = Inflater::default();
            let inflated = inflater.inflate(&stream, MOST).ok().map(|(plain, _)| plain.to_vec());
            prop_assert_eq!(inflated, expected(&stream));
            // Nothing is left of what failed.
            stream[at] ^= 1 << bit;
            prop_assert_eq!(inflater.inflate(&stream, MOST).unwrap().0, &plain);
        }

        #[test]
        fn any_bytes_inflate_to_the_same_as_with_the_crate(body in prop::collection::vec(any::<u8>(), 0..200), kind in 0u8..3) {
            let mut stream = [&[0x78, 0x9c], body.as_slice()].concat();
            if let Some(first) = stream.get_mut(2) {
                *first = *first & !7 | 1 | kind << 1;
            }
            let inflated = Inflater::default().inflate(&stream, MOST).map(|(plain, _)| plain.to_vec());
            prop_assert_eq!(inflated.ok(), expected(&stream));
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_anywhere_is_an_error() {
        let few: Vec<u8> = (0..600u32).map(|n| (n * n % 23) as u8).collect();
        for (plain, level) in [(&few[..], 9), (&few[..90], 0), (&few[..20], 6), (&[], 6)] {
            let stream = deflated(plain, level);
            assert_eq!(Inflater::default().inflate(&stream, MOST).unwrap().0, plain);
            for len in 0..stream.len() {
                let error = Inflater::default().inflate(&stream[..len], MOST).unwrap_err().to_string();
                assert!(!error.contains("checksum"), "{len} of {}: {error}", stream.len());
            }
        }
    }

    #[test]
    fn it_becomes_no_longer_than_it_may() {
        let mut inflater = Inflater::default();
        for level in [0, 9] {
            let stream = deflated(&[7; 10_000], level);
            assert_eq!(inflater.inflate(&stream, 10_000).unwrap().0.len(), 10_000);
            let mut small = Inflater::default();
            assert!(small.inflate(&stream, 9_999).unwrap_err().to_string().contains("more"));
            assert!(small.plain.len() <= 9_999);
        }
    }
}
