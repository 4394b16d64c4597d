//! Signals that whoever started this process lets it ignore: nohup does that with SIGHUP, and a shell without job control with SIGINT and
//! SIGQUIT of a command that it runs in the background.

/// Whether this process ignores a signal.
pub(crate) fn is_ignored(signal: i32) -> bool {
    // SAFETY: a sigaction of zeros is a valid value to overwrite; without a new action the call only fills in the current one.
    unsafe {
        let mut current: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut current) == 0 && current.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_with_its_default_action_is_not_ignored() {
        assert!(!is_ignored(libc::SIGURG));
        // Rust's start-up code ignores it.
        assert!(is_ignored(libc::SIGPIPE));
    }
}
