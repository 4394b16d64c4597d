//! Running a command beside the own work: what ends it, and how.

use std::{
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    process::Child,
    signal::unix::{Signal, SignalKind, signal},
};

/// How long a command may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(2);

/// The signals that end a command in order.
pub struct Endings {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Endings {
    /// From here on these signals no longer end the process by themselves.
    pub fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one; its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}

/// Asks the command to end, and after a while makes it.
pub async fn end(child: &mut Child) {
    if let Some(pid) = child.id() {
        // SAFETY: kill takes any number; the child has not been waited for, so that the number is still its own.
        unsafe { libc::kill(pid as i32, libc::SIGTERM) };
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        drop(child.kill().await);
    }
}

/// The command's code, or 128 plus the signal's number, as shells have it.
pub fn command_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
