//! The programs' side of the rings, played by the bench: writes records and counters as the programs do, into the maps of the loaded programs.

use std::{
    mem::offset_of,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
    slice,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use aya::maps::MapInfo;
use tracer_common::{Config, Counters, Event, Record, config::Taken};
use vmentry::kernel::{
    layout::{ExitArguments, Layout},
    options::{Cpus, Options, auto_ring_bytes},
    tracer::Tracer,
};

use super::host::CPUS;

/// Loads the programs for the made-up CPUs, with rings as `--ring-kib auto` makes them.
pub fn load() -> anyhow::Result<Tracer> {
    let layout = Layout {
        // Entries and exits alone: the bench makes the records.
        config: Config::empty(),
        exit_arguments: ExitArguments::VcpuIsa,
        missing: vec![],
        companion: Default::default(),
        userspace_exit: false,
        mmio: false,
        fast_mmio: false,
        cast: None,
    };
    let options = Options { ring_bytes: auto_ring_bytes(CPUS, 4096), phases: false, ..Options::default() };
    Tracer::load_for(&layout, &options, &Cpus { online: CPUS, possible: CPUS })
}

/// What the programs write.
pub struct Programs {
    records: Words,
    taken: Words,
    counters: Words,
    /// by CPU
    rounds: Vec<u64>,
    dropped: Vec<u64>,
}

impl Programs {
    /// Those of a tracer that was loaded by [`load`].
    pub fn of(tracer: &mut Tracer) -> Self {
        let mut map = |name: &str| {
            let ids = tracer.program("kvm_exit").unwrap().info().unwrap().map_ids().unwrap().unwrap();
            let maps = ids.into_iter().map(|id| MapInfo::from_id(id).unwrap());
            Words::of(&maps.into_iter().find(|map| map.name_as_str() == Some(name)).unwrap())
        };
        let none = vec![0; CPUS as usize];
        let (records, taken, counters) = (map("RECORDS"), map("TAKEN"), map("COUNTERS"));
        Self { records, taken, counters, rounds: none.clone(), dropped: none }
    }

    /// Bytes of all rings.
    pub fn ring_bytes(&self) -> usize {
        size_of_val(self.records.all())
    }

    /// Records of one ring.
    pub fn places(&self) -> usize {
        self.ring_bytes() / Record::SHORT / CPUS as usize
    }

    /// A round of a CPU: a record if the ring has room, else a drop.
    pub fn round(&mut self, cpu: u32, mut event: Event) {
        let (at, places) = (cpu as usize, self.places());
        self.rounds[at] += 1;
        let counters = &self.counters.all()[at * Counters::WORDS..];
        counters[offset_of!(Counters, rounds) / 8].store(self.rounds[at], Release);
        let written = self.rounds[at] - 1 - self.dropped[at];
        let taken = self.taken.all()[at * size_of::<Taken>() / 8].load(Acquire);
        if written - taken >= places as u64 {
            self.dropped[at] += 1;
            counters[offset_of!(Counters, dropped) / 8].store(self.dropped[at], Release);
            return;
        }
        event.seq = self.rounds[at];
        let bytes = event.encode();
        let (words, _) = bytes[..Record::SHORT].as_chunks::<8>();
        let place = (at * places + written as usize % places) * words.len();
        let places = &self.records.all()[place..][..words.len()];
        let number = Record::NUMBER_AT / 8;
        for (n, (place, word)) in places.iter().zip(words).enumerate() {
            if n != number {
                place.store(u64::from_ne_bytes(*word), Relaxed);
            }
        }
        places[number].store(event.seq, Release);
    }

    /// Rounds so far, and how many of them were dropped.
    pub fn made(&self) -> (u64, u64) {
        (self.rounds.iter().sum(), self.dropped.iter().sum())
    }
}

/// A map's only value in memory.
struct Words(NonNull<AtomicU64>, usize);

impl Words {
    fn of(map: &MapInfo) -> Self {
        let (fd, bytes) = (map.fd().unwrap(), map.value_size() as usize);
        let (protection, descriptor) = (libc::PROT_READ | libc::PROT_WRITE, fd.as_fd().as_raw_fd());
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED | libc::MAP_POPULATE, descriptor, 0)
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self(NonNull::new(at.cast()).unwrap(), bytes / 8)
    }

    fn all(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has this length, stays until the process ends, and is accessed by other threads and programs as words only.
        unsafe { slice::from_raw_parts(self.0.as_ptr(), self.1) }
    }
}
