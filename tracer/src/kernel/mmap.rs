//! Shared memory mappings, unmapped when dropped. They hand out an address only: their users must argue for each access.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, memfd_create};

/// An owned shared mapping.
#[derive(Debug)]
pub(crate) struct Mmap(MmapRaw);

impl Mmap {
    /// Maps `size` bytes, at least 1, of the file or map behind a descriptor; without one, zeroed memory.
    pub(crate) fn new(descriptor: Option<BorrowedFd<'_>>, size: usize, writable: bool) -> io::Result<Self> {
        let zeroed;
        let descriptor = match descriptor {
            Some(descriptor) => descriptor,
            // A private mapping would be copied on write after a fork, away from the guest that runs in it.
            None => {
                zeroed = File::from(memfd_create("vmentry", MemfdFlags::CLOEXEC)?);
                zeroed.set_len(size as u64)?;
                zeroed.as_fd()
            }
        };
        let mut options = MmapOptions::new();
        options.len(size);
        let mapped = if writable { options.map_raw(&descriptor) } else { options.map_raw_read_only(&descriptor) };
        mapped.map(Self)
    }

    /// Address of the first byte, at the beginning of a page.
    pub(crate) fn start(&self) -> NonNull<u8> {
        NonNull::new(self.0.as_mut_ptr()).expect("the kernel chooses no address 0 for a mapping")
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_without_a_file_is_zeroed_writable_and_ends_at_a_page() {
        let memory = Mmap::new(None, 5000, true).unwrap();
        assert_eq!((memory.size(), memory.start().addr().get() % rustix::param::page_size()), (5000, 0));
        // SAFETY: the mapping has 5000 bytes, and nobody else has it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(memory.start().as_ptr(), memory.size()) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        bytes[4999] = 1;
        assert_eq!(bytes[4999], 1);
    }
}
