//! KVM's own statistics of a vCPU, and the scheduler's of its thread: a second witness of the parts of the host time.

use std::{
    fs::File,
    io,
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::fs::FileExt,
    },
};

use anyhow::{Context, Result, ensure};
use kvm_ioctls::VcpuFd;
use serde::Serialize;
use vmm_sys_util::{ioctl::ioctl, ioctl_io_nr};

ioctl_io_nr!(KVM_GET_STATS_FD, kvm_bindings::KVMIO, 0xce);

/// Bytes of `struct kvm_stats_header` (Linux uapi/linux/kvm.h), six words.
const HEADER: usize = 24;
/// Bytes of `struct kvm_stats_desc` without its name.
const DESCRIPTION: usize = 16;
/// More statistics than any kernel has.
const MOST: u32 = 4096;

/// What a vCPU and its thread spent without running, in ns since they were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Statistics {
    /// Halt polling, by KVM: with and without success.
    pub(crate) halt_polled_ns: u64,
    /// Halted without polling, by KVM: until the thread runs again.
    pub(crate) halt_waited_ns: u64,
    /// The thread was runnable and had no CPU, by the scheduler.
    pub(crate) run_delay_ns: u64,
}

impl Statistics {
    /// Those of a vCPU and of the calling thread, which runs it; none where the kernel does not have them (before Linux 5.15).
    pub(crate) fn of(vcpu: &VcpuFd) -> Option<Self> {
        let named = named(vcpu).ok()?;
        let of = |name: &str| named.iter().find(|(found, _)| found == name).map(|(_, value)| *value);
        let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        Some(Self {
            halt_polled_ns: of("halt_poll_success_ns")? + of("halt_poll_fail_ns")?,
            halt_waited_ns: of("halt_wait_ns")?,
            run_delay_ns: schedstat.split_whitespace().nth(1)?.parse().ok()?,
        })
    }
}

/// KVM's binary statistics of one value each (Documentation/virt/kvm/api.rst, 4.133), by name.
fn named(vcpu: &VcpuFd) -> Result<Vec<(String, u64)>> {
    // SAFETY: the ioctl takes no argument, and the descriptor is a vCPU's for as long as it is borrowed.
    let fd: RawFd = unsafe { ioctl(vcpu, KVM_GET_STATS_FD()) };
    ensure!(fd >= 0, "ask KVM for its statistics: {}", io::Error::last_os_error());
    // SAFETY: KVM has just made this descriptor for us, and nobody else has its number.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).context("read the statistics' header")?;
    let [_, name_size, count, _, descriptions, data] = words(&header);
    ensure!(count <= MOST && name_size <= 256, "{count} statistics with names of {name_size} bytes");
    let size = DESCRIPTION + name_size as usize;
    let mut found = Vec::new();
    for index in 0..count {
        let mut description = vec![0; size];
        let at = u64::from(descriptions) + u64::from(index) * size as u64;
        file.read_exact_at(&mut description, at).context("read a statistic's description")?;
        let [_, sizes, offset, _] = words(&description[..DESCRIPTION]);
        // The exponent in the low half, the number of values in the high half.
        if sizes >> 16 == 1 {
            let mut value = [0; 8];
            file.read_exact_at(&mut value, u64::from(data) + u64::from(offset)).context("read a statistic")?;
            let name = description[DESCRIPTION..].split(|&byte| byte == 0).next().unwrap_or_default();
            found.push((String::from_utf8_lossy(name).into_owned(), u64::from_ne_bytes(value)));
        }
    }
    Ok(found)
}

/// Native-endian words of 32 bits.
fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    std::array::from_fn(|at| {
        let word = bytes.get(4 * at..4 * at + 4).and_then(|word| word.try_into().ok());
        u32::from_ne_bytes(word.unwrap_or_default())
    })
}
