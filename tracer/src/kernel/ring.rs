//! The rings, one per CPU: memory that the programs write and this process reads, with one writer and one reader each. The reader
//! never makes a program wait: where a ring is full, the program counts a drop.

use std::{
    io,
    os::fd::BorrowedFd,
    slice,
    sync::{
        Arc,
        atomic::{
            AtomicU8, AtomicU32, AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
};

use tracer_common::{Record, config::Taken};

use crate::kernel::mmap::Mmap;

/// Records after which the reader frees their places for the programs.
const FREE_EVERY: usize = 256;

/// The value of an array map in memory, which programs may write at any time.
pub(crate) struct Mapping(Mmap);

impl Mapping {
    /// Maps the value, `bytes` long, of a map that was made with BPF_F_MMAPABLE.
    pub(crate) fn new(map: BorrowedFd<'_>, bytes: usize, writable: bool) -> io::Result<Self> {
        Mmap::new(Some(map), bytes, writable).map(Self)
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping begins at a page, lasts as long as `self`, and has no fewer bytes than the slice. Programs may change them
        // meanwhile, which a shared reference to atomics allows; this process accesses them as atomics only, apart from `Ring::drain`.
        unsafe { slice::from_raw_parts(self.0.start().as_ptr().cast(), self.0.size() / size_of::<u64>()) }
    }

    /// The eight bytes at offset `at`, a multiple of 8 inside the mapping.
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(size_of::<u64>()), "word at {at}");
        &self.words()[at / size_of::<u64>()]
    }

    /// So many times four bytes from offset `at` on, a multiple of 4, inside the mapping.
    pub(crate) fn halves(&self, at: usize, length: usize) -> &[AtomicU32] {
        assert!(at.is_multiple_of(size_of::<u32>()), "half a word at {at}");
        // SAFETY: the reasons given in `words` hold for four bytes each, too.
        let halves: &[AtomicU32] =
            unsafe { slice::from_raw_parts(self.0.start().as_ptr().cast(), self.0.size() / size_of::<u32>()) };
        &halves[at / size_of::<u32>()..][..length]
    }

    /// The byte at offset `at`, inside the mapping.
    pub(crate) fn byte(&self, at: usize) -> u8 {
        // SAFETY: the reasons given in `words` hold for single bytes, too.
        let bytes: &[AtomicU8] = unsafe { slice::from_raw_parts(self.0.start().as_ptr().cast(), self.0.size()) };
        bytes[at].load(Acquire)
    }
}

/// Shape of the rings of all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// size of a record, a multiple of 8 bytes
    pub(crate) record_bytes: usize,
    /// records of one ring: a power of two
    pub(crate) records: u32,
}

impl Shape {
    /// The largest rings of at most `ring_bytes` each; of one record where none fits.
    pub(crate) fn within(ring_bytes: usize, record_bytes: usize) -> Self {
        let records = (ring_bytes / record_bytes).max(1);
        Self { record_bytes, records: 1 << records.ilog2() }
    }

    /// Size of the rings of so many CPUs, in bytes.
    pub(crate) fn bytes(self, cpus: u32) -> usize {
        self.record_bytes * self.records as usize * cpus as usize
    }
}

/// The reader's side of one CPU's ring.
pub struct Ring {
    /// the CPU that fills it
    pub(crate) cpu: u32,
    shape: Shape,
    records: Arc<Mapping>,
    taken: Arc<Mapping>,
    /// records taken since the ring was made
    next: usize,
    /// number of the last record taken; 0 for none
    last: u64,
}

impl Ring {
    /// The ring of a CPU in the mappings of RECORDS and TAKEN.
    pub(crate) fn new(cpu: u32, shape: Shape, records: Arc<Mapping>, taken: Arc<Mapping>) -> Self {
        Self { cpu, shape, records, taken, next: 0, last: 0 }
    }

    /// Number of the last record taken; 0 for none.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Passes each new record to `f`, at most `limit`; returns their number.
    pub fn drain(&mut self, limit: usize, mut f: impl FnMut(&[u8])) -> usize {
        let Shape { record_bytes, records } = self.shape;
        let (size, mask) = (record_bytes / size_of::<u64>(), records as usize - 1);
        let all = Arc::clone(&self.records);
        let ring = &all.words()[self.shape.bytes(self.cpu) / size_of::<u64>()..][..records as usize * size];
        let mut n = 0;
        while n < limit {
            let words = &ring[(self.next & mask) * size..][..size];
            // Numbers only increase. A place without a new record holds the number of an older one, or 0.
            let number = words[Record::NUMBER_AT / size_of::<u64>()].load(Acquire);
            if number <= self.last {
                break;
            }
            // SAFETY: `words` is `record_bytes` long. The program wrote the number last, so the record is complete; it does not write
            // to the place again before `free` says that the record was taken, which `f` has returned by then.
            f(unsafe { slice::from_raw_parts(words.as_ptr().cast(), record_bytes) });
            self.last = number;
            self.next += 1;
            n += 1;
            if n.is_multiple_of(FREE_EVERY) {
                self.free();
            }
        }
        self.free();
        n
    }

    /// Publishes the number of records taken, so that the programs may write to their places again.
    fn free(&self) {
        self.taken.word(self.cpu as usize * size_of::<Taken>()).store(self.next as u64, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_holds_the_largest_power_of_two_of_records_that_fits() {
        let records = |ring_bytes, record_bytes| Shape::within(ring_bytes, record_bytes).records;
        assert_eq!((records(512 * 1024, 96), records(4096, 96), records(4096, 136)), (4096, 32, 16));
        assert_eq!(records(16, 96), 1);
    }
}
