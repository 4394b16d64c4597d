//! Writes the bits of a deflated stream.

use super::adler32::adler32;

/// Appends a zlib stream (RFC 1950) of the bytes, whose blocks are pushed.
pub(super) fn zlib_stream(plain: &[u8], out: &mut Vec<u8>, push_blocks: impl FnOnce(&mut Bits<'_>)) {
    // A window of 32 KiB, no dictionary, the fastest level; a multiple of 31.
    out.extend_from_slice(&[0x78, 0x01]);
    let mut bits = Bits { out, held: 0, count: 0 };
    push_blocks(&mut bits);
    bits.finish();
    out.extend_from_slice(&adler32(plain).to_be_bytes());
}

/// Bits, the first one lowest.
pub(super) struct Bits<'a> {
    out: &'a mut Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits<'_> {
    /// Pushes up to 32 bits.
    #[expect(clippy::cast_possible_truncation, reason = "the lowest 32 bits are meant")]
    #[inline]
    pub(super) fn push(&mut self, bits: u32, count: u32) {
        self.held |= u64::from(bits) << self.count;
        self.count += count;
        if self.count >= 32 {
            self.out.extend_from_slice(&(self.held as u32).to_le_bytes());
            self.held >>= 32;
            self.count -= 32;
        }
    }

    /// Fills the last byte with zeros.
    fn finish(self) {
        let bytes = self.count.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.held.to_le_bytes()[..bytes]);
    }
}
