//! A command that runs while this program works, and the signals that end both.

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

/// How long a command may take to end after SIGTERM. A command that is a recorder itself gives this time to its own command.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// How traced time ended.
pub(crate) struct Ended {
    /// a signal's name, or a word for the recording's end
    pub(crate) reason: &'static str,
    /// how the command that ran meanwhile exited; none without one
    pub(crate) status: Option<ExitStatus>,
}

/// The signals that end this program in order: it detaches, restores and saves first.
pub(crate) struct Endings {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    quit: Signal,
    alarm: Signal,
    user_1: Signal,
    user_2: Signal,
}

impl Endings {
    /// Starts to listen: these signals no longer kill the process.
    pub(crate) fn new() -> Result<Self> {
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

    /// Waits for the next signal and returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
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

/// Fails if the command's program does not exist; an empty command passes.
pub(crate) fn refuse_unknown(command: &[String]) -> Result<()> {
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

/// Starts the command; none if it is empty.
pub(crate) fn start(command: &[String]) -> Result<Option<Child>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    Ok(Some(Command::new(program).args(arguments).spawn().with_context(|| format!("run {program}"))?))
}

/// Waits until the command exits; for ever without one.
pub(crate) async fn exit_of(child: &mut Option<Child>) -> std::io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

/// Lets the signals of [`Endings`] kill the process again: nothing is left to restore.
pub(crate) fn default_endings() {
    for signal in
        [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGALRM, libc::SIGUSR1, libc::SIGUSR2]
    {
        // SAFETY: SIG_DFL is a valid disposition for each of these signals, and no handler's state is freed by it.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Sends SIGTERM to the command, and SIGKILL after `grace`; returns its status.
pub(crate) async fn end(child: &mut Child, grace: Duration) -> Option<ExitStatus> {
    if let Some(pid) = child.id().and_then(|id| libc::pid_t::try_from(id).ok()) {
        // SAFETY: kill has no memory effects; the child has not been waited for, so its pid cannot have been reused.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
    child.wait().await.ok()
}

/// The command's exit code, or 128 plus the signal's number as in a shell.
pub(crate) fn command_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
