//! Counts how often a tracepoint fires in this thread, by a perf event: it vanishes with its descriptor, however this process ends.

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use crate::{host::process::text, model::knowledge::Unknown};

/// perf_event_attr.type: PERF_TYPE_TRACEPOINT.
const TRACEPOINT: u64 = 2;
/// perf_event_attr.size: PERF_ATTR_SIZE_VER0.
const ATTRIBUTE_BYTES: u64 = 64;
/// PERF_EVENT_IOC_SET_FILTER: _IOW('$', 6, char *).
const SET_FILTER: libc::Ioctl = 0x4008_2406;
/// PERF_FLAG_FD_CLOEXEC.
const CLOSE_ON_EXEC: libc::c_ulong = 1 << 3;

/// A running count.
pub(crate) struct TracepointCount(File);

impl TracepointCount {
    /// Counts a tracepoint of tracefs below `sys`, e.g. "kvm/kvm_entry", where `filter` (as ftrace writes it) is true; or says why it cannot.
    pub(crate) fn start(sys: &Path, tracepoint: &str, filter: &str) -> Result<Self, Unknown> {
        let ids = ["kernel/tracing", "kernel/debug/tracing"]
            .map(|root| sys.join(root).join("events").join(tracepoint).join("id"));
        let id = ids.iter().find_map(|path| text(path).ok()?.trim().parse().ok());
        let id = id.ok_or_else(|| {
            Unknown::because(format!(
                "{tracepoint} is not in tracefs: run as root, with tracefs mounted on /sys/kernel/tracing"
            ))
        })?;
        let refused = |e: io::Error| Unknown::because(format!("{tracepoint} cannot be counted: {e}"));
        let event = open(id).map_err(refused)?;
        let filter = CString::new(filter).map_err(|e| refused(e.into()))?;
        // SAFETY: the descriptor is open, and the kernel reads a string that ends in NUL and lives until the call returns.
        let set = unsafe { libc::ioctl(event.as_raw_fd(), SET_FILTER, filter.as_ptr()) };
        if set != 0 { Err(refused(io::Error::last_os_error())) } else { Ok(Self(event.into())) }
    }

    /// How often it has fired; none where the kernel does not tell.
    pub(crate) fn read(&self) -> Option<u64> {
        let mut count = [0; 8];
        (&self.0).read_exact(&mut count).ok()?;
        Some(u64::from_ne_bytes(count))
    }
}

/// Opens the perf event that counts tracepoint `id` in this thread, on any CPU.
fn open(id: u64) -> io::Result<OwnedFd> {
    let mut attributes = [0; 8];
    // The type is the first half of the first word, the size the second.
    attributes[0] = TRACEPOINT | ATTRIBUTE_BYTES << 32;
    attributes[1] = id;
    // SAFETY: the kernel reads as many bytes as the structure says that it has, and it has them.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, CLOSE_ON_EXEC) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::roots::made_up::Folder;

    #[test]
    fn a_tracepoint_that_is_not_shown_is_named_with_the_fix() {
        let host = Folder::new();
        let why = TracepointCount::start(&host.roots.sys, "kvm/kvm_hv_timer_state", "").err().unwrap().to_string();
        assert!(why.contains("kvm/kvm_hv_timer_state") && why.contains("run as root"), "{why}");
    }

    #[test]
    fn a_tracepoint_that_the_kernel_refuses_is_an_error_and_no_count_of_0() {
        let host = Folder::new();
        host.write("sys/kernel/tracing/events/kvm/x/id", "4294967295\n");
        let why = TracepointCount::start(&host.roots.sys, "kvm/x", "").err().unwrap().to_string();
        assert!(why.starts_with("kvm/x cannot be counted: "), "{why}");
    }
}
