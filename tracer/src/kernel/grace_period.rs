//! Waits until programs that may still use what was taken from them have ended.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// An array of maps, which no program uses. The kernel ends an update of such an array only when all programs that began before have ended
/// (Linux 4.19, commit 1ae80cf31938 "bpf: wait for running BPF programs when updating map-in-map"): for programs that had found the old
/// map. Unlike membarrier(2), this works on hosts with `nohz_full`, too.
pub(crate) struct GracePeriod {
    maps: OwnedFd,
    map: OwnedFd,
}

/// The beginning of `union bpf_attr` for BPF_MAP_CREATE.
#[repr(C)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
}

/// The beginning of `union bpf_attr` for BPF_MAP_UPDATE_ELEM, with addresses of key and value.
#[repr(C)]
struct Update {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl GracePeriod {
    /// Makes the array. Needs the same rights as making any map.
    pub(crate) fn new() -> io::Result<Self> {
        let map = create(BPF_MAP_TYPE_ARRAY, 0)?;
        let maps = create(BPF_MAP_TYPE_ARRAY_OF_MAPS, number(&map))?;
        Ok(Self { maps, map })
    }

    /// Waits until all programs that are running now have ended: some 10 ms.
    pub(crate) fn wait(&self) -> io::Result<()> {
        let (key, value) = (0u32, number(&self.map));
        let update = Update {
            map_fd: number(&self.maps),
            padding: 0,
            key: (&raw const key).addr() as u64,
            value: (&raw const value).addr() as u64,
            flags: 0,
        };
        // SAFETY: the kernel reads `update`, and four bytes each at the addresses of `key` and `value`, which outlive the call.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &update) }.map(drop)
    }
}

/// An array of one element, of four bytes or, of a map like `inner`.
fn create(map_type: u32, inner_map_fd: u32) -> io::Result<OwnedFd> {
    let create = Create { map_type, key_size: 4, value_size: 4, max_entries: 1, map_flags: 0, inner_map_fd };
    // SAFETY: the kernel reads `create` only, which has no addresses.
    let fd = unsafe { bpf(BPF_MAP_CREATE, &create) }?;
    // SAFETY: BPF_MAP_CREATE returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// Calls bpf(2) with the beginning of a `union bpf_attr`; the kernel takes the rest for zeros.
///
/// # Safety
/// Addresses in `attributes` must be those of memory that the command may read or write.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads `attributes` by its size; the caller answers for the addresses in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}
