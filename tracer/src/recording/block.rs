//! Lines of a recording that are read together, so that a thread decodes the histograms in them at once: they take most of the time of
//! reading.

use std::{
    io::{self, BufRead},
    ops::Range,
};

use anyhow::{Context, Result};

use super::{hdr, limits::Limits, sums::Span, tag::Tags};
use crate::model::{figures::Figure, histogram::Histogram, series::Key};

/// What begins a line with a histogram.
pub(super) const HISTOGRAM: &[u8] = b"Tag=";
/// Bytes of lines that are read together, apart from the last line.
pub(super) const MOST_BYTES: usize = 64 << 10;

/// How a line was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// ends as a line does
    Whole,
    /// longer than a line may be; the text is its beginning
    TooLong,
    /// the recording ends within it
    Cut,
    /// the recording has no more
    End,
}

/// A line of the block.
pub(super) struct Piece {
    text: Range<usize>,
    pub(super) kind: Line,
    /// with those that were left out
    pub(super) bytes: u64,
    /// none where it is decoded when it is taken
    pub(super) histogram: Option<Result<Decoded>>,
}

/// The histogram of a line.
pub(super) struct Decoded {
    pub(super) key: Key,
    pub(super) figure: Figure,
    pub(super) histogram: Histogram,
    /// of its values; while its counts are at hand
    pub(super) span: Span,
    /// nothing but it is encoded: another tool reads the same
    pub(super) is_exact: bool,
}

/// Lines, of which the last one may be any, and all others have histograms.
#[derive(Default)]
pub(super) struct Block {
    text: Vec<u8>,
    pub(super) pieces: Vec<Piece>,
    /// why no more could be read after them
    pub(super) failed: Option<io::Error>,
}

/// Decodes lines.
#[derive(Default)]
pub(super) struct Decoder {
    tags: Tags,
    histograms: hdr::Decoder,
}

impl Block {
    /// The text of a line, with its end.
    pub(super) fn text(&self, piece: &Piece) -> &[u8] {
        &self.text[piece.text.clone()]
    }

    /// Bytes of its lines.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Whether it ends where it has enough lines, all with histograms.
    pub(super) fn is_full(&self) -> bool {
        self.text.len() >= MOST_BYTES && self.pieces.last().is_some_and(|last| self.goes_on(last))
    }

    fn goes_on(&self, piece: &Piece) -> bool {
        piece.kind == Line::Whole && self.text(piece).starts_with(HISTOGRAM)
    }

    /// Reads lines up to one without a histogram, or as many as a block may have, in place of those that it had.
    pub(super) fn fill(&mut self, input: &mut impl BufRead, limits: &Limits, skips: bool) {
        self.text.clear();
        self.pieces.clear();
        self.failed = None;
        while self.text.len() < MOST_BYTES {
            let start = self.text.len();
            match read_line(input, &mut self.text, limits.line, skips) {
                Ok((Line::End, _)) => break,
                Ok((kind, bytes)) => {
                    let piece = Piece { text: start..self.text.len(), kind, bytes, histogram: None };
                    let goes_on = self.goes_on(&piece);
                    self.pieces.push(piece);
                    if !goes_on {
                        break;
                    }
                }
                Err(error) => {
                    self.text.truncate(start);
                    self.failed = Some(error);
                    break;
                }
            }
        }
    }

    /// Decodes histograms until they have more than `most` buckets: a line of a few hundred bytes can hold one of a megabyte.
    pub(super) fn decode(&mut self, decoder: &mut Decoder, most: usize) {
        let mut buckets = 0;
        for piece in &mut self.pieces {
            let line = &self.text[piece.text.clone()];
            if buckets > most || !line.starts_with(HISTOGRAM) {
                return;
            }
            let decoded = decoder.decode(line);
            buckets += decoded.as_ref().map_or(0, |decoded| decoded.histogram.len());
            piece.histogram = Some(decoded);
        }
    }
}

impl Decoder {
    /// Decodes the histogram of a line.
    pub(super) fn decode(&mut self, line: &[u8]) -> Result<Decoded> {
        let (tag, encoded) = tag_and_histogram(line).context("not a line of an HDR interval log")?;
        let (key, figure) = self.tags.parse(tag)?;
        let (histogram, is_exact) = self.histograms.decode(encoded).context("decode a histogram")?;
        Ok(Decoded { key, figure, span: Span::of(&histogram), histogram, is_exact })
    }
}

/// The tag and the encoded histogram of a line: "Tag=TAG,START,LENGTH,MAX,HISTOGRAM", three numbers of seconds and a value, which the
/// interval's line and the histogram have as integers.
pub(super) fn tag_and_histogram(line: &[u8]) -> Option<(&str, &[u8])> {
    let mut fields = line.strip_prefix(HISTOGRAM)?.splitn(5, |&b| b == b',');
    let tag = str::from_utf8(fields.next()?).ok()?;
    for number in fields.by_ref().take(3) {
        let is_number = !number.is_empty() && number.iter().all(|b| b.is_ascii_digit() || *b == b'.');
        is_number.then_some(())?;
    }
    Some((tag, fields.next()?.trim_ascii_end()))
}

/// Appends a line, of which only the beginning is kept where it is too long; returns also its bytes with those that were skipped.
fn read_line(input: &mut impl BufRead, text: &mut Vec<u8>, most: u64, skips: bool) -> io::Result<(Line, u64)> {
    let bytes = io::Read::take(&mut *input, most).read_until(b'\n', text)? as u64;
    Ok(match text.last() {
        _ if bytes == 0 => (Line::End, 0),
        Some(b'\n') => (Line::Whole, bytes),
        _ if bytes == most => (Line::TooLong, bytes + if skips { input.skip_until(b'\n')? as u64 } else { 0 }),
        _ => (Line::Cut, bytes),
    })
}
