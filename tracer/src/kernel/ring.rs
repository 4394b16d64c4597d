//! The rings: memory that the programs write and this process reads, one ring a CPU, one writer and one reader each. Nothing here can
//! make a program wait: where a ring is full, it counts a drop.

use std::{
    io,
    os::fd::BorrowedFd,
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

/// Records after which the programs are told of the room.
const TELL_EVERY: usize = 256;

/// An array map's values in memory, which programs may write at any time.
pub struct Mapping(Mmap);

impl Mapping {
    /// Maps a map that was made with BPF_F_MMAPABLE and has values of so many bytes altogether.
    pub fn new(map: BorrowedFd<'_>, bytes: usize, writable: bool) -> io::Result<Self> {
        Ok(Self(Mmap::new(Some(map), bytes, writable)?))
    }

    /// The eight bytes at an offset, which others may write at any time.
    pub fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.0.size(), "word at {at} of {} bytes", self.0.size());
        // SAFETY: inside the mapping, aligned, and only touched as an atomic while it may change.
        unsafe { AtomicU64::from_ptr(self.0.start().as_ptr().add(at).cast()) }
    }

    /// The four bytes at an offset, which others may write at any time.
    pub fn half(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.0.size(), "half a word at {at} of {} bytes", self.0.size());
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(self.0.start().as_ptr().add(at).cast()) }
    }

    /// The byte at an offset, which others may write at any time.
    pub fn byte(&self, at: usize) -> u8 {
        assert!(at < self.0.size(), "byte at {at} of {}", self.0.size());
        // SAFETY: as in `word`.
        unsafe { AtomicU8::from_ptr(self.0.start().as_ptr().add(at)) }.load(Acquire)
    }

    /// So many bytes at an offset, which others may write at any time.
    fn bytes(&self, at: usize, bytes: usize) -> *const u8 {
        assert!(at.is_multiple_of(8) && at + bytes <= self.0.size(), "{bytes} bytes at {at} of {}", self.0.size());
        // SAFETY: inside the mapping.
        unsafe { self.0.start().as_ptr().add(at) }
    }
}

/// Shape of the rings of all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// bytes of a record
    pub record_bytes: usize,
    /// records of one ring: a power of two
    pub records: u32,
}

impl Shape {
    /// Rings of at most so many bytes.
    pub fn within(ring_bytes: u32, record_bytes: usize) -> Self {
        let records = (ring_bytes / record_bytes as u32).max(1);
        Self { record_bytes, records: 1 << records.ilog2() }
    }

    /// Bytes of the rings of so many CPUs.
    pub fn bytes(self, cpus: u32) -> usize {
        self.record_bytes * self.records as usize * cpus as usize
    }
}

/// One CPU's ring.
pub struct Ring {
    /// the CPU that fills it
    pub cpu: u32,
    shape: Shape,
    records: Arc<Mapping>,
    taken: Arc<Mapping>,
    /// records taken so far
    next: u64,
    /// number of the last one
    last: u64,
}

impl Ring {
    /// The ring of a CPU, in mappings of RECORDS and TAKEN.
    pub fn new(cpu: u32, shape: Shape, records: Arc<Mapping>, taken: Arc<Mapping>) -> Self {
        Self { cpu, shape, records, taken, next: 0, last: 0 }
    }

    /// Number of the last record taken; 0 for none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Hands every record that is there to `f`, at most `limit`; the number of records.
    pub fn drain(&mut self, limit: usize, mut f: impl FnMut(&[u8])) -> usize {
        let Shape { record_bytes, records } = self.shape;
        let ring = self.records.bytes(self.shape.bytes(self.cpu), self.shape.bytes(1));
        let mut n = 0;
        while n < limit {
            let place = (self.next & u64::from(records - 1)) as usize;
            // SAFETY: inside the ring.
            let record = unsafe { ring.add(place * record_bytes) };
            // Numbers grow: that of an older record, or the 0 of a place that has none, is none that is awaited.
            // SAFETY: a record's length and this offset are multiples of 8; only touched as an atomic while it may change.
            let number = unsafe { AtomicU64::from_ptr(record.add(Record::NUMBER_AT).cast_mut().cast()) }.load(Acquire);
            if number <= self.last {
                break;
            }
            // SAFETY: the record is complete, and its place is the program's again only when it is told so below.
            f(unsafe { std::slice::from_raw_parts(record, record_bytes) });
            self.last = number;
            self.next += 1;
            n += 1;
            if n.is_multiple_of(TELL_EVERY) {
                self.tell();
            }
        }
        self.tell();
        n
    }

    fn tell(&self) {
        self.taken.word(self.cpu as usize * size_of::<Taken>()).store(self.next, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rings_length_is_the_power_of_two_that_fits() {
        let records = |ring_bytes, record_bytes| Shape::within(ring_bytes, record_bytes).records;
        assert_eq!((records(512 * 1024, 96), records(4096, 96), records(4096, 136)), (4096, 32, 16));
        assert_eq!(records(16, 96), 1);
    }
}
