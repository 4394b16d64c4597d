//! Shared memory mappings: made, sent between threads, and given back in one place. What may be done with their bytes is their users' matter.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
};

/// A mapping that is this value's own.
#[derive(Debug)]
pub struct Mmap {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and lives as long as the value, which itself never looks into it.
unsafe impl Send for Mmap {}
// SAFETY: as above.
unsafe impl Sync for Mmap {}

impl Mmap {
    /// Maps `size` bytes, at least 1, of what a descriptor stands for; without one, zeroed memory.
    pub fn new(descriptor: Option<BorrowedFd<'_>>, size: usize, writable: bool) -> io::Result<Self> {
        let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        let flags = libc::MAP_SHARED | if descriptor.is_none() { libc::MAP_ANONYMOUS } else { 0 };
        let descriptor = descriptor.map_or(-1, |fd| fd.as_raw_fd());
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists; the kernel checks length and rights.
        let start = unsafe { libc::mmap(ptr::null_mut(), size, protection, flags, descriptor, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, size })
    }

    /// Its first byte, at a page's beginning.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Mmap {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and whoever uses it keeps the value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
    }
}
