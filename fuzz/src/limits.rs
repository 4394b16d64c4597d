//! The most that one input may cost. Counted here, because libFuzzer's own limits of memory need a sanitizer, and CPU time is the same on
//! a busy machine.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// Counts allocated bytes.
struct Counting;

/// Bytes at a time of the process at most: more cannot be allocated, which ends it. An input that wants all memory must not get it, whatever
/// its target's limit, which is looked at afterwards.
const MOST: usize = 2 << 30;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged, or fails, and the counters are atomics, which do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        if now > MOST {
            NOW.fetch_sub(layout.size(), Relaxed);
            return std::ptr::null_mut();
        }
        // SAFETY: the caller promises a layout of nonzero size, which is all that the system's allocator demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller promises that `alloc` returned `at` for this layout, and `alloc` had it from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that one input may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// bytes allocated at a time, whatever the input
    pub memory: usize,
    /// more bytes for each byte of the input
    pub memory_per_byte: usize,
    /// CPU time, in a build with or without optimization
    pub cpu: Duration,
}

impl Limits {
    /// Runs a function on an input of so many bytes. Returns its CPU time; panics where it takes more memory or time. One at a time in a
    /// process.
    pub(crate) fn hold(self, input_bytes: usize, run: impl FnOnce()) -> Duration {
        let (memory, cpu) = (NOW.load(Relaxed), cpu_time());
        PEAK.store(memory, Relaxed);
        run();
        let memory = PEAK.load(Relaxed).saturating_sub(memory);
        let cpu = cpu_time().saturating_sub(cpu);
        let most = self.memory + self.memory_per_byte * input_bytes;
        assert!(memory <= most, "{memory} bytes of memory for an input of {input_bytes}: more than {most}");
        assert!(cpu <= self.cpu, "{cpu:?} of CPU time: more than {:?}", self.cpu);
        cpu
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
