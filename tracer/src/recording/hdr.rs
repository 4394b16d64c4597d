//! Decodes the histograms of an interval log: HdrHistogram's V2 format, deflated. By hand, because the crate's decoder allocates as much
//! as the file asks for, and a recording may be damaged or hostile.

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::inflate::Inflater;
use crate::model::histogram::{BUCKETS, Count, DIGITS, Histogram};

/// Begins a deflated V2 histogram.
pub(super) const COMPRESSED: u32 = 0x1c84_9314;
/// Begins a V2 histogram.
pub(super) const PLAIN: u32 = 0x1c84_9313;
/// Of a plain histogram: cookie, length, offset, digits, lowest, highest, ratio.
const HEADER_BYTES: usize = 40;
/// A count takes nine bytes at most.
const MAX_BYTES: usize = HEADER_BYTES + 9 * BUCKETS as usize;

/// Decodes histograms one after another, in memory that it keeps: a histogram of a recording is small, so that new buffers for each would
/// cost more than its bytes.
#[derive(Default)]
pub(super) struct Decoder {
    inflater: Inflater,
    deflated: Vec<u8>,
    counts: Vec<Count>,
}

impl Decoder {
    /// Decodes a histogram of an interval log: a deflated V2 histogram in base64. Returns also whether there is nothing else.
    pub(super) fn decode(&mut self, encoded: &[u8]) -> Result<(Histogram, bool)> {
        self.deflated.clear();
        STANDARD.decode_vec(encoded, &mut self.deflated)?;
        ensure!(u32_at(&self.deflated, 0)? == COMPRESSED, "no deflated V2 histogram");
        let bytes = u32_at(&self.deflated, 4)? as usize;
        let stream = &self.deflated[8..self.deflated.len().min(bytes.saturating_add(8))];
        let is_all = bytes == self.deflated.len() - 8;
        let (plain, rest) = self.inflater.inflate(stream, MAX_BYTES)?;
        let histogram = Histogram::from_ascending(counts(plain, &mut self.counts)?.to_vec());
        Ok((histogram, is_all && rest.is_empty()))
    }
}

/// The counts of a plain V2 histogram by their buckets, in ascending order; in `places`, which is made as long as it must be.
fn counts<'a>(plain: &[u8], places: &'a mut Vec<Count>) -> Result<&'a [Count]> {
    ensure!(u32_at(plain, 0)? == PLAIN, "no V2 histogram");
    let (digits, lowest) = (u32_at(plain, 12)?, u64_at(plain, 16)?);
    ensure!(digits == u32::from(DIGITS) && lowest == 1 && u32_at(plain, 8)? == 0, "buckets of another kind");
    ensure!(u64_at(plain, 32)? == 1.0f64.to_bits(), "a ratio of values");
    let bytes = plain.get(HEADER_BYTES..).context("too short")?;
    let mut rest = bytes.get(..u32_at(plain, 4)? as usize).context("fewer counts than it says")?;
    if places.len() < rest.len() {
        places.resize(rest.len(), Count::default());
    }
    let (mut bucket, mut highest, mut len) = (0u64, 0, 0);
    while let Some((&first, more)) = rest.split_first() {
        // Nearly all counts and runs take one byte.
        let number = if first < 0x80 {
            rest = more;
            u64::from(first)
        } else {
            bounded(varint(&mut rest)?)?
        };
        // Small numbers of either sign are small unsigned ones: 0, -1, 1, -2 are 0, 1, 2, 3. A negative one is a run of empty buckets,
        // which here becomes a count that the next one replaces: that is faster than a branch, for half of the numbers are runs.
        let (is_run, n) = (number & 1, number >> 1);
        places[len] = Count::in_any(bucket, n);
        let has_values = is_run == 0 && n > 0;
        highest = if has_values { bucket } else { highest };
        len += usize::from(has_values);
        bucket += 1 + n * is_run;
    }
    ensure!(highest < BUCKETS.into(), "a value of more than 64 bits");
    Ok(&places[..len])
}

/// A number of a histogram: of more empty buckets than there are, one that is as good and adds up to no more than 64 bits.
fn bounded(number: u64) -> Result<u64> {
    if number & 1 == 1 {
        return Ok(number.min(u32::MAX.into()));
    }
    let count = number >> 1;
    ensure!(count <= Count::MOST, "a count of {count}, and one of a bucket is at most {}", Count::MOST);
    Ok(number)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    Ok(bytes.get(at..at + N).context("too short")?.try_into()?)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    Ok(u32::from_be_bytes(array(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from_be_bytes(array(bytes, at)?))
}

/// LEB128 of 64 bits in nine bytes: the last one has eight of them.
fn varint(rest: &mut &[u8]) -> Result<u64> {
    let mut value = 0;
    for place in 0..9 {
        let Some((&byte, more)) = rest.split_first() else { bail!("cut off within a count") };
        *rest = more;
        if place == 8 {
            return Ok(value | u64::from(byte) << 56);
        }
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::ZlibDecoder;
    use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};

    use super::*;

    fn decode(bytes: &[u8]) -> Result<Histogram> {
        Decoder::default().decode(STANDARD.encode(bytes).as_bytes()).map(|(histogram, _)| histogram)
    }

    fn encode(values: &[(u64, u64)]) -> Vec<u8> {
        let mut hdr = hdrhistogram::Histogram::<u64>::new_with_bounds(1, u64::MAX, DIGITS).unwrap();
        values.iter().for_each(|&(value, n)| hdr.record_n(value, n).unwrap());
        let mut bytes = Vec::new();
        V2DeflateSerializer::new().serialize(&hdr, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_the_crate_encodes_is_decoded_exactly() {
        let values: Vec<_> = (0..64)
            .map(|bit| ((1u64 << bit) + bit * 7, 1 + bit * bit * bit))
            .chain([(0, 3), (u64::MAX, 1 << 40)])
            .collect();
        let mut expected = Histogram::default();
        values.iter().for_each(|&(value, n)| expected.record_n(value, n));
        assert_eq!(decode(&encode(&values)).unwrap(), expected);
    }

    #[test]
    fn a_count_that_a_bucket_cannot_hold_is_an_error() {
        assert_eq!(decode(&encode(&[(5, Count::MOST)])).unwrap().count(), Count::MOST);
        let error = decode(&encode(&[(5, Count::MOST + 1)])).unwrap_err().to_string();
        assert!(error.starts_with("a count of 281474976710656, "), "{error}");
    }

    #[test]
    fn a_length_that_lies_is_an_error_and_fills_no_memory() {
        let bytes = encode(&[(5, 1)]);
        let mut plain = Vec::new();
        ZlibDecoder::new(&bytes[8..]).read_to_end(&mut plain).unwrap();
        let again = |plain: &[u8]| {
            let mut deflated = flate2::read::ZlibEncoder::new(plain, flate2::Compression::fast());
            let mut bytes = [COMPRESSED.to_be_bytes(), u32::MAX.to_be_bytes()].concat();
            deflated.read_to_end(&mut bytes).unwrap();
            decode(&bytes)
        };
        assert!(again(&plain).is_ok());
        let mut long = plain.clone();
        long[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(again(&long).unwrap_err().to_string().contains("fewer"));
        long.resize(2 << 20, 0);
        assert!(again(&long).unwrap_err().to_string().contains("more counts"));
    }

    #[test]
    fn what_comes_after_a_histogram_is_told() {
        let is_exact = |bytes: &[u8]| Decoder::default().decode(STANDARD.encode(bytes).as_bytes()).unwrap().1;
        let bytes = encode(&[(5, 1), (900, 7)]);
        assert!(is_exact(&bytes));
        let mut more = [bytes.as_slice(), b"more"].concat();
        assert!(!is_exact(&more));
        let length = u32::try_from(more.len() - 8).unwrap();
        more[4..8].copy_from_slice(&length.to_be_bytes());
        assert!(!is_exact(&more));
        let mut long = bytes;
        long[4..8].copy_from_slice(&1_000_000u32.to_be_bytes());
        assert!(!is_exact(&long));
    }
}
