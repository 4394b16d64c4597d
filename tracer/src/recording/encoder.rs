//! Encodes histograms for the lines of an interval log: HdrHistogram's V2 format, deflated, in base64. By hand, because the crate's
//! serializer takes an array of all buckets and a new deflater for each, and a host with a thousand vCPUs has 200 000 an interval.

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    fixed_huffman,
    hdr::{COMPRESSED, PLAIN},
    own_huffman::Deflater,
};
use crate::model::histogram::{Count, DIGITS, Histogram};

/// Bytes of a plain histogram up to which fixed codes are shorter than its own, and up to which they may be.
const SMALL: (usize, usize) = (104, 256);
/// Buckets below are of numbers of writes, and hardly ever of times.
const LOW: u32 = 8;

/// Encodes histograms one after another, in memory that it keeps.
#[derive(Default)]
pub(super) struct Encoder {
    own: Deflater,
    plain: Vec<u8>,
    deflated: Vec<u8>,
    /// the latest histogram whose only bucket is a low one, encoded: a third of an interval's are numbers of pin-control writes, which
    /// are 0 for most entries
    latest: Option<(Count, Vec<u8>)>,
}

impl Encoder {
    /// Appends a histogram.
    pub(super) fn encode(&mut self, histogram: &Histogram, text: &mut Vec<u8>) -> Result<()> {
        let only = match histogram.counts() {
            [only] if only.bucket() < LOW => Some(*only),
            _ => None,
        };
        match &self.latest {
            Some((latest, encoded)) if Some(*latest) == only => text.extend_from_slice(encoded),
            _ => {
                let start = text.len();
                self.append(histogram, text)?;
                if let Some(only) = only {
                    self.latest = Some((only, text[start..].to_vec()));
                }
            }
        }
        Ok(())
    }

    fn append(&mut self, histogram: &Histogram, text: &mut Vec<u8>) -> Result<()> {
        self.plain.clear();
        plain(histogram, &mut self.plain)?;
        self.deflated.clear();
        self.deflated.extend_from_slice(&COMPRESSED.to_be_bytes());
        self.deflated.extend_from_slice(&[0; 4]);
        if self.plain.len() <= SMALL.1 {
            fixed_huffman::deflate(&self.plain, &mut self.deflated);
        }
        if self.plain.len() > SMALL.0 {
            let fixed = self.deflated.len();
            self.own.deflate(&self.plain, &mut self.deflated);
            let own = self.deflated.len() - fixed;
            if fixed > 8 && fixed - 8 <= own {
                self.deflated.truncate(fixed);
            } else {
                self.deflated.drain(8..fixed);
            }
        }
        let bytes = u32::try_from(self.deflated.len() - 8)?;
        self.deflated[4..8].copy_from_slice(&bytes.to_be_bytes());
        let start = text.len();
        text.resize(start + self.deflated.len().div_ceil(3) * 4, 0);
        STANDARD.encode_slice(&self.deflated, &mut text[start..])?;
        Ok(())
    }
}

/// Appends a V2 histogram: its header, the counts of all buckets up to the highest one with values, and runs of empty buckets.
fn plain(histogram: &Histogram, out: &mut Vec<u8>) -> Result<()> {
    let highest = histogram.max().unwrap_or(0).max(2);
    let start = out.len();
    out.extend_from_slice(&PLAIN.to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&u32::from(DIGITS).to_be_bytes());
    out.extend_from_slice(&1u64.to_be_bytes());
    out.extend_from_slice(&highest.to_be_bytes());
    out.extend_from_slice(&1f64.to_be_bytes());
    let counts = out.len();
    let mut next = 0;
    for count in histogram.counts() {
        match count.bucket() - next {
            0 => {}
            // A count of 0; longer runs are negative.
            1 => out.push(0),
            run => varint(2 * u64::from(run) - 1, out),
        }
        varint(2 * count.n(), out);
        next = count.bucket() + 1;
    }
    let bytes = u32::try_from(out.len() - counts)?;
    out[start + 4..start + 8].copy_from_slice(&bytes.to_be_bytes());
    Ok(())
}

/// LEB128: in eight bytes at most, because a count has 48 bits.
#[expect(clippy::cast_possible_truncation, reason = "the lowest seven bits are meant")]
fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

    use super::{super::hdr::Decoder, *};
    use crate::model::histogram::tests::{of, values};

    /// Histograms of one value, of two, of few and of many, near and far, with counts of one byte and of seven.
    fn histograms() -> Vec<Histogram> {
        let mut all: Vec<_> =
            [vec![0], vec![0, 0], vec![1], vec![2], vec![5, 6], vec![5, 7], vec![u64::MAX], vec![0, u64::MAX]]
                .iter()
                .map(|values| of(values))
                .collect();
        all.extend((1..200).map(|n| of(&values(n, usize::try_from(n * n).unwrap()))));
        let mut many = Histogram::default();
        (0..40).for_each(|bit| many.record_n(1000 + bit * 900, 1 << bit));
        all.push(many);
        all
    }

    #[test]
    fn the_plain_bytes_are_those_of_the_hdrhistogram_crate_and_its_reader_has_the_same_counts() {
        let mut encoder = Encoder::default();
        for histogram in histograms() {
            let mut hdr =
                hdrhistogram::Histogram::<u64>::new_with_bounds(1, histogram.max().unwrap().max(2), DIGITS).unwrap();
            histogram.buckets().for_each(|(low, _, n)| hdr.record_n(low, n).unwrap());
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            plain(&histogram, &mut ours).unwrap();
            V2Serializer::new().serialize(&hdr, &mut theirs).unwrap();
            assert_eq!(ours, theirs);
            let mut text = b"Tag=".to_vec();
            encoder.encode(&histogram, &mut text).unwrap();
            let mut again = b"Tag=".to_vec();
            encoder.encode(&histogram, &mut again).unwrap();
            assert_eq!(text, again);
            let bytes = STANDARD.decode(&text[4..]).unwrap();
            let read: hdrhistogram::Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
            assert_eq!(
                (read.len(), read.max(), read.value_at_quantile(0.5)),
                (hdr.len(), hdr.max(), hdr.value_at_quantile(0.5))
            );
            assert_eq!(Decoder::default().decode(&text[4..]).unwrap(), (histogram, true));
        }
    }

    #[test]
    fn a_histogram_is_hardly_longer_than_with_zlib() {
        let text = include_str!("../../tests/data/soft-hard.hlog");
        let encoded = text.lines().filter(|line| line.starts_with("Tag=")).filter_map(|line| line.rsplit(',').next());
        let recorded = encoded.map(|encoded| Decoder::default().decode(encoded.as_bytes()).unwrap().0);
        let (mut encoder, mut sums) = (Encoder::default(), [0; 2]);
        for (is_recorded, histogram) in recorded.map(|h| (true, h)).chain(histograms().into_iter().map(|h| (false, h)))
        {
            encoder.append(&histogram, &mut Vec::new()).unwrap();
            let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            std::io::Write::write_all(&mut zlib, &encoder.plain).unwrap();
            let (ours, zlib) = (encoder.deflated.len() - 8, zlib.finish().unwrap().len());
            assert!(ours <= zlib + zlib / 8, "{ours} of {zlib} bytes: {histogram:?}");
            sums = if is_recorded { [sums[0] + ours, sums[1] + zlib] } else { sums };
        }
        // A hundredth, because few copies are looked for.
        assert!(sums[0] <= sums[1] + sums[1] / 100 && sums[0] > 0, "{sums:?} bytes");
    }
}
