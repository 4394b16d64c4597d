//! The clock of the events (CLOCK_MONOTONIC), its tie to wall-clock time, CPU times, and the TSC's frequency.

use std::{
    ffi::CString,
    os::unix::ffi::OsStrExt,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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

/// Measures the TSC's frequency against CLOCK_MONOTONIC, from `start` to `khz`.
pub(crate) struct TscMeter {
    tsc: u64,
    ns: u64,
}

impl TscMeter {
    /// Starts measuring.
    pub(crate) fn start() -> Self {
        Self { tsc: tsc(), ns: monotonic_ns() }
    }

    /// TSC frequency, kHz; none within the first 0.1 s, when the time that reading the clocks takes would distort it.
    pub(crate) fn khz(&self) -> Option<u32> {
        let (tsc, ns) = (tsc() - self.tsc, monotonic_ns() - self.ns);
        if ns < 100_000_000 {
            return None;
        }
        let khz = (u128::from(tsc) * 1_000_000 + u128::from(ns / 2)) / u128::from(ns);
        u32::try_from(khz).ok()
    }
}

/// The TSC of the CPU that this thread runs on, in cycles.
pub(crate) fn tsc() -> u64 {
    // SAFETY: RDTSC accesses no memory, and every x86-64 CPU has it. A process that disabled it for itself (PR_SET_TSC) would get
    // SIGSEGV; nothing here does.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// TSC frequency that KVM uses, kHz, read from a VM with one vCPU that is created and dropped; none where KVM cannot be used. `dev_kvm`
/// is the path of /dev/kvm.
pub(crate) fn kvm_tsc_khz(dev_kvm: &Path) -> Option<u32> {
    let path = CString::new(dev_kvm.as_os_str().as_bytes()).ok()?;
    let vm = Kvm::new_with_path(path).ok()?.create_vm().ok()?;
    vm.create_vcpu(0).ok()?.get_tsc_khz().ok()
}

/// One moment on two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// CLOCK_MONOTONIC, ns
    pub monotonic_ns: u64,
    /// CLOCK_REALTIME, ns since 1970
    pub unix_ns: u64,
}

impl Anchor {
    /// The present moment.
    pub fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        // ns since 1970 exceed 64 bits in the year 2554.
        Self { monotonic_ns: monotonic_ns(), unix_ns: u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// Converts a moment of CLOCK_MONOTONIC to ns since 1970.
    pub(crate) fn to_unix_ns(self, monotonic_ns: u64) -> u64 {
        self.unix_ns.saturating_add(monotonic_ns).saturating_sub(self.monotonic_ns)
    }

    /// Converts a moment in ns since 1970 to CLOCK_MONOTONIC.
    pub(crate) fn to_monotonic_ns(self, unix_ns: u64) -> u64 {
        self.monotonic_ns.saturating_add(unix_ns).saturating_sub(self.unix_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tscs_frequency_takes_time_to_measure_and_is_plausible() {
        let meter = TscMeter::start();
        assert_eq!(meter.khz(), None);
        std::thread::sleep(Duration::from_millis(150));
        let khz = meter.khz().unwrap();
        assert!((50_000..10_000_000).contains(&khz), "{khz}");
    }
}
