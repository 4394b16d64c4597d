//! Calls of bpf(2) that aya does not make.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

/// Commands of bpf(2) (`enum bpf_cmd`).
pub(crate) mod command {
    pub(crate) const MAP_CREATE: u64 = 0;
    pub(crate) const MAP_LOOKUP_ELEM: u64 = 1;
    pub(crate) const MAP_UPDATE_ELEM: u64 = 2;
    pub(crate) const MAP_DELETE_ELEM: u64 = 3;
    pub(crate) const PROG_GET_FD_BY_ID: u64 = 13;
    pub(crate) const OBJ_GET_INFO_BY_FD: u64 = 15;
    pub(crate) const LINK_GET_FD_BY_ID: u64 = 30;
    pub(crate) const LINK_GET_NEXT_ID: u64 = 31;
}

/// The first 16 words of `union bpf_attr`; zeros stand for the rest.
pub(super) type Attributes = [u32; 16];

/// Calls bpf(2), which may write to `attributes`.
///
/// # Safety
/// Addresses in `attributes` must be those of buffers that outlive the call and are as long as the command takes them to be.
pub(super) unsafe fn call(command: u64, attributes: &mut Attributes) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes `attributes` within the size that it is given; the caller answers for the addresses in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

/// Calls bpf(2) with a command that makes a descriptor and takes no address.
///
/// # Safety
/// `command` must be one that returns a new descriptor and takes no address.
pub(super) unsafe fn descriptor(command: u64, mut attributes: Attributes) -> io::Result<OwnedFd> {
    // SAFETY: there is no address in `attributes`, as the caller has promised.
    let fd = unsafe { call(command, &mut attributes) }?;
    // SAFETY: the kernel has just made this descriptor for this call, so that nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts an address into two words, the lower half first.
pub(super) fn put_address(words: &mut [u32], at: usize, address: usize) {
    let bytes = (address as u64).to_ne_bytes();
    for (word, half) in words[at..].iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*half);
    }
}
