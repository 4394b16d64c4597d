//! Guest memory: one anonymous mapping that is shared with a running guest and accessed within its bounds. The crate vm-memory
//! would replace these few lines, but it brings regions, bitmaps and error types for which nothing here has a use.

use anyhow::{Context, Result, ensure};

use crate::kernel::mmap::Mmap;

/// A zeroed mapping for KVM to give to a guest. Every access is a volatile copy within bounds. A running guest or another thread
/// may write at the same time, which yields an old or a new value; no reference into the mapping is ever created.
#[derive(Debug)]
pub(crate) struct Memory(Mmap);

impl Memory {
    /// Maps `size` bytes, at least 1.
    pub(crate) fn new(size: usize) -> Result<Self> {
        Ok(Self(Mmap::new(None, size, true).with_context(|| format!("map guest memory: {size} bytes"))?))
    }

    /// The address in this process, for KVM.
    pub(crate) fn host_address(&self) -> u64 {
        self.0.start().as_ptr().addr() as u64
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.0.size()
    }

    /// Writes `bytes` at guest-physical address `at`.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) -> Result<()> {
        self.check(at, bytes.len())?;
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: `check` ensured that at + len lies within the mapping, so at + i does, and the mapping is writable and
            // lives as long as `self`.
            unsafe { self.0.start().add(at + i).write_volatile(*byte) };
        }
        Ok(())
    }

    /// Writes a little-endian word at guest-physical address `at`.
    pub(crate) fn write_u32(&self, at: usize, value: u32) -> Result<()> {
        self.write(at, &value.to_le_bytes())
    }

    /// Reads a little-endian word in one access. `at` must be aligned.
    pub(crate) fn read_u32(&self, at: usize) -> Result<u32> {
        self.check(at, 4)?;
        ensure!(at.is_multiple_of(4), "read guest memory: {at:#x} is unaligned");
        // SAFETY: `check` ensured that the four bytes lie within the mapping, which is readable and lives as long as `self`. The
        // pointer is aligned because a mapping begins at a page and `at` is a multiple of four. Any bytes are a valid u32.
        Ok(u32::from_le(unsafe { self.0.start().add(at).cast::<u32>().read_volatile() }))
    }

    /// Reads two little-endian words in two accesses, between which a running guest may write.
    pub(crate) fn read_u64(&self, at: usize) -> Result<u64> {
        Ok(u64::from(self.read_u32(at)?) | u64::from(self.read_u32(at + 4)?) << 32)
    }

    fn check(&self, at: usize, len: usize) -> Result<()> {
        let fits = at.checked_add(len).is_some_and(|end| end <= self.0.size());
        ensure!(fits, "access guest memory: {len} bytes at {at:#x} of {:#x}", self.0.size());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_bytes_are_read_back_as_little_endian_words() {
        let memory = Memory::new(4096).unwrap();
        memory.write(8, &[1, 2, 3, 4, 5]).unwrap();
        assert_eq!(memory.read_u32(8).unwrap(), 0x0403_0201);
        assert_eq!(memory.read_u64(8).unwrap(), 0x05_0403_0201);
    }

    #[test]
    fn the_last_word_can_be_written_and_one_byte_more_cannot() {
        let memory = Memory::new(4096).unwrap();
        memory.write_u32(4092, 7).unwrap();
        assert_eq!(memory.read_u32(4092).unwrap(), 7);
        assert!(memory.write_u32(4093, 7).is_err());
        assert!(memory.read_u64(4092).is_err());
        assert!(memory.write(usize::MAX, &[1, 2]).is_err());
    }

    #[test]
    fn an_unaligned_word_is_refused() {
        assert!(Memory::new(4096).unwrap().read_u32(2).is_err());
    }
}
