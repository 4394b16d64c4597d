//! The clock of the events, and what ties it to the wall.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvm_ioctls::Kvm;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// CLOCK_MONOTONIC, ns: the clock of `bpf_ktime_get_ns`.
pub fn monotonic_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

/// CPU time of the calling thread, ns.
pub(crate) fn thread_cpu_ns() -> u64 {
    clock_ns(ClockId::ThreadCPUTime)
}

/// CPU time of all threads of this process, ns.
pub(crate) fn process_cpu_ns() -> u64 {
    clock_ns(ClockId::ProcessCPUTime)
}

fn clock_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // Neither part of these clocks is ever negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Measures the TSC's frequency against CLOCK_MONOTONIC, from its making to the reading.
pub struct TscMeter {
    tsc: u64,
    ns: u64,
}

impl TscMeter {
    /// Begins now.
    pub fn start() -> Self {
        Self { tsc: tsc(), ns: monotonic_ns() }
    }

    /// kHz; none while less than a tenth of a second has passed, when the reading of the clocks would count.
    pub fn khz(&self) -> Option<u32> {
        let (tsc, ns) = (tsc() - self.tsc, monotonic_ns() - self.ns);
        (ns >= 100_000_000).then(|| (tsc as f64 * 1e6 / ns as f64).round() as u32)
    }
}

/// The TSC of the CPU that this thread is on, in cycles.
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU has RDTSC, and Linux leaves it to user space unless asked not to.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// TSC frequency that KVM itself uses, kHz: of a VM with one vCPU that is made and dropped; none where /dev/kvm cannot be used.
pub fn kvm_tsc_khz() -> Option<u32> {
    let vm = Kvm::new().ok()?.create_vm().ok()?;
    vm.create_vcpu(0).ok()?.get_tsc_khz().ok()
}

/// The same moment on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// CLOCK_MONOTONIC, ns
    pub monotonic_ns: u64,
    /// CLOCK_REALTIME, ns after 1970
    pub unix_ns: u64,
}

impl Anchor {
    /// This moment.
    pub fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { monotonic_ns: monotonic_ns(), unix_ns: unix.as_nanos() as u64 }
    }

    /// A moment of CLOCK_MONOTONIC as ns after 1970.
    pub fn to_unix_ns(self, monotonic_ns: u64) -> u64 {
        self.unix_ns.saturating_add(monotonic_ns).saturating_sub(self.monotonic_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tscs_frequency_needs_time_and_is_plausible_then() {
        let meter = TscMeter::start();
        assert_eq!(meter.khz(), None);
        std::thread::sleep(Duration::from_millis(150));
        let khz = meter.khz().unwrap();
        assert!((50_000..10_000_000).contains(&khz), "{khz}");
    }
}
