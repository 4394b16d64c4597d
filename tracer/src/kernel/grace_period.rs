//! Waits until programs that may still use what was taken from them have ended.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use crate::kernel::bpf::{
    self,
    command::{MAP_CREATE, MAP_UPDATE_ELEM},
    put_address,
};

const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;

/// An array of maps, which no program uses. The kernel ends an update of such an array only when all programs that began before have ended
/// (Linux 4.19, commit 1ae80cf31938 "bpf: wait for running BPF programs when updating map-in-map"): for programs that had found the old
/// map. Unlike membarrier(2), this works on hosts with `nohz_full`, too.
pub(crate) struct GracePeriod {
    maps: OwnedFd,
    map: OwnedFd,
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
        // The map, four bytes that are not used, and the addresses of key and value.
        let mut update = [0; 16];
        update[0] = number(&self.maps);
        put_address(&mut update, 2, (&raw const key).addr());
        put_address(&mut update, 4, (&raw const value).addr());
        // SAFETY: the kernel reads four bytes each at the addresses of `key` and `value`, which outlive the call.
        unsafe { bpf::call(MAP_UPDATE_ELEM, &mut update) }.map(drop)
    }
}

/// An array of one element, of four bytes or, of a map like `inner`.
fn create(map_type: u32, inner_map_fd: u32) -> io::Result<OwnedFd> {
    let mut create = [0; 16];
    // Type, bytes of a key and of a value, elements, flags.
    create[..6].copy_from_slice(&[map_type, 4, 4, 1, 0, inner_map_fd]);
    // SAFETY: BPF_MAP_CREATE takes no address in these words, and returns a new descriptor.
    unsafe { bpf::descriptor(MAP_CREATE, create) }
}

fn number(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}
