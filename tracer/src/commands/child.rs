//! Running a command beside the own work: what ends it, and how.

use std::{
    path::PathBuf,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
};

/// How long a command may take to end after it was asked to. One that is a recorder itself needs longer than its own command.
pub const GRACE: Duration = Duration::from_secs(2);

/// The signals that end a command in order.
pub struct Endings {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    quit: Signal,
    alarm: Signal,
    user_1: Signal,
    user_2: Signal,
}

impl Endings {
    /// From here on these signals no longer end the process by themselves.
    pub fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hang_up: on(SignalKind::hangup())?,
            quit: on(SignalKind::quit())?,
            alarm: on(SignalKind::alarm())?,
            user_1: on(SignalKind::user_defined1())?,
            user_2: on(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next one; its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hang_up.recv() => "SIGHUP",
            _ = self.quit.recv() => "SIGQUIT",
            _ = self.alarm.recv() => "SIGALRM",
            _ = self.user_1.recv() => "SIGUSR1",
            _ = self.user_2.recv() => "SIGUSR2",
        }
    }
}

/// Fails where a command's program will not be found; no command is fine.
pub fn refuse_unknown(command: &[String]) -> Result<()> {
    match command.first() {
        Some(program) if !is_program(program) => bail!("run {program}: there is no such program"),
        _ => Ok(()),
    }
}

fn is_program(name: &str) -> bool {
    let is_file = |path: PathBuf| path.is_file();
    if name.contains('/') {
        return is_file(name.into());
    }
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| is_file(folder.join(name))))
}

/// Starts a command, if there is one.
pub fn start(command: &[String]) -> Result<Option<Child>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    Ok(Some(Command::new(program).args(arguments).spawn().with_context(|| format!("run {program}"))?))
}

/// Waits for a command's end; for ever where there is none.
pub async fn exit_of(child: &mut Option<Child>) -> std::io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

/// Gives these signals back their effect of ending the process at once: nothing is left to be restored.
pub fn default_endings() {
    for signal in
        [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGALRM, libc::SIGUSR1, libc::SIGUSR2]
    {
        // SAFETY: the default action needs no handler; the numbers are those of signals that may have one.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Asks the command to end, and after `grace` makes it; its status.
pub async fn end(child: &mut Child, grace: Duration) -> Option<ExitStatus> {
    if let Some(pid) = child.id() {
        // SAFETY: kill takes any number; the child has not been waited for, so that the number is still its own.
        unsafe { libc::kill(pid as i32, libc::SIGTERM) };
    }
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
    child.wait().await.ok()
}

/// The command's code, or 128 plus the signal's number, as shells have it.
pub fn command_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
