//! Interrupts a thread in KVM_RUN with a signal whose handler does nothing, so that the ioctl returns EINTR.

use anyhow::{Context, Result};
use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// Id of the calling thread.
pub(crate) fn this_thread() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
}

/// Installs the handler. Call it before the first [`send`].
pub(crate) fn prepare() -> Result<()> {
    // register_signal_handler does not set SA_RESTART, so the interrupted call returns.
    register_signal_handler(SIGRTMIN(), do_nothing).context("set signal handler")
}

/// Sends the signal to a thread of this process. A thread that has ended is no error.
pub(crate) fn send(tid: u32) {
    // vmm-sys-util's Killable sends by pthread_t, which scoped threads do not give out and which dangles after a join.
    // SAFETY: tgkill takes integers only. It reaches no other process, because the first one is this process's own id, and a
    // thread that receives the signal runs a handler that does nothing.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), tid, SIGRTMIN()) };
}

extern "C" fn do_nothing(_signal: c_int, _info: *mut siginfo_t, _context: *mut c_void) {}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use rustix::thread::{NanosleepRelativeResult, Timespec, nanosleep};

    use super::*;

    #[test]
    fn a_kick_interrupts_a_thread_that_blocks_in_the_kernel() {
        prepare().unwrap();
        let (sender, receiver) = mpsc::channel();
        let sleeper = std::thread::spawn(move || {
            sender.send(this_thread()).unwrap();
            nanosleep(&Timespec { tv_sec: 20, tv_nsec: 0 })
        });
        let tid = receiver.recv().unwrap();
        while !sleeper.is_finished() {
            send(tid);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(matches!(sleeper.join().unwrap(), NanosleepRelativeResult::Interrupted(_)));
    }
}
