//! Getting a thread out of KVM_RUN: a signal whose handler does nothing, so that the ioctl returns EINTR.

use std::io;

use anyhow::{Context, Result};

/// Id of the calling thread.
pub fn this_thread() -> u32 {
    // SAFETY: gettid has no preconditions.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// Makes the signal harmless; to be called before the first [`send`].
pub fn prepare() -> Result<()> {
    // SAFETY: sigaction is plain data, for which all zeros are valid: no flags (so no SA_RESTART), an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = do_nothing;
    action.sa_sigaction = handler as libc::sighandler_t;
    // SAFETY: the handler does nothing and is thus safe at any point of any thread.
    let failed = unsafe { libc::sigaction(signal(), &action, std::ptr::null_mut()) } != 0;
    if failed {
        return Err(io::Error::last_os_error()).context("set signal handler");
    }
    Ok(())
}

/// Sends the signal to a thread of this process; it does not matter if the thread has ended.
pub fn send(tid: u32) {
    // SAFETY: tgkill reaches threads of this process only, and `prepare` has made the signal harmless.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), tid, signal()) };
}

fn signal() -> libc::c_int {
    libc::SIGRTMIN()
}

extern "C" fn do_nothing(_signal: libc::c_int) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_kick_interrupts_a_thread_that_blocks_in_the_kernel() {
        prepare().unwrap();
        let (sender, receiver) = mpsc::channel();
        let sleeper = std::thread::spawn(move || {
            sender.send(this_thread()).unwrap();
            // SAFETY: poll of no descriptors only waits.
            let result = unsafe { libc::poll(std::ptr::null_mut(), 0, 20_000) };
            (result, io::Error::last_os_error().raw_os_error())
        });
        let tid = receiver.recv().unwrap();
        while !sleeper.is_finished() {
            send(tid);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(sleeper.join().unwrap(), (-1, Some(libc::EINTR)));
    }
}
