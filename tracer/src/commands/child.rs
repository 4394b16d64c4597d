//! A command that runs while this program works, and the signals that end both.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus, Stdio},
    task::Poll,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{
    fs::{Access, access},
    io::Errno,
    process::{Signal as Number, getpid, getppid, set_parent_process_death_signal},
};
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    commands::{
        descendants::{adopt, end_all, reap},
        user::User,
    },
    host::signals::is_ignored,
    output::shown,
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

/// The signals that end this program in order, by number and name: all whose default action ends a process, except those that tell of an
/// error in it, SIGPIPE, and the real-time signals.
const SIGNALS: [(i32, &str); 13] = [
    (libc::SIGINT, "SIGINT"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGXCPU, "SIGXCPU"),
    (libc::SIGVTALRM, "SIGVTALRM"),
    (libc::SIGPROF, "SIGPROF"),
    (libc::SIGIO, "SIGIO"),
    (libc::SIGPWR, "SIGPWR"),
    (libc::SIGSTKFLT, "SIGSTKFLT"),
];

/// Listens for the signals that end this program in order: it detaches, restores and saves first.
pub(crate) struct Endings(Vec<(Signal, &'static str)>);

impl Endings {
    /// Starts to listen: these signals no longer kill the process. Those that it was started to ignore, it goes on to ignore.
    pub(crate) fn new() -> Result<Self> {
        let on = |(number, name)| Ok((signal(SignalKind::from_raw(number)).context("listen for signals")?, name));
        SIGNALS.into_iter().filter(|&(number, _)| !is_ignored(number)).map(on).collect::<Result<_>>().map(Self)
    }

    /// Waits for the next signal and returns its name.
    pub(crate) async fn next(&mut self) -> &'static str {
        std::future::poll_fn(|context| {
            let came =
                self.0.iter_mut().find_map(|(signal, name)| signal.poll_recv(context).is_ready().then_some(*name));
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// The exit code of a command line that a signal ended: 128 plus its number, as a shell has it. `name` is from [`Endings::next`].
pub(crate) fn signal_code(name: &str) -> ExitCode {
    let number = SIGNALS.iter().find(|(_, of)| *of == name).and_then(|(number, _)| u8::try_from(*number).ok());
    number.map_or(ExitCode::FAILURE, |number| ExitCode::from(128 + number))
}

/// A command that could not be started. The exit code is a shell's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotStarted {
    program: String,
    why: String,
    /// 127 where there is no such program, 126 where there is one that cannot be run
    pub(crate) code: u8,
}

impl NotStarted {
    fn new(program: &OsStr, why: impl Into<String>, code: u8) -> Self {
        Self { program: shown(Path::new(program)), why: why.into(), code }
    }
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "run {}: {}", self.program, self.why)
    }
}

impl std::error::Error for NotStarted {}

/// Fails if the command's program does not exist or is not executable; an empty command passes.
pub(crate) fn refuse_unknown(command: &[OsString]) -> Result<()> {
    Ok(command.first().map_or(Ok(()), |program| look_for(program, env::var_os("PATH").as_deref()))?)
}

/// Looks for a program as execvp(3) does: a name without a slash, in the folders of `path`.
fn look_for(program: &OsStr, path: Option<&OsStr>) -> Result<(), NotStarted> {
    let places: Vec<PathBuf> = if program.as_bytes().contains(&b'/') {
        vec![program.into()]
    } else {
        path.map_or_else(Vec::new, |path| env::split_paths(path).map(|folder| folder.join(program)).collect())
    };
    if places.iter().any(|place| place.is_file() && access(place, Access::EXEC_OK).is_ok()) {
        return Ok(());
    }
    Err(match places.iter().find(|place| place.exists()) {
        Some(place) if place.is_dir() => NotStarted::new(program, "it is a folder", 126),
        Some(place) if !may_be_program(place) => {
            NotStarted::new(program, format!("{} is no program: name one, with its arguments", shown(place)), 126)
        }
        Some(place) => NotStarted::new(program, format!("{0} is not executable: chmod +x {0}", shown(place)), 126),
        None => NotStarted::new(program, "there is no such program", 127),
    })
}

/// Whether a file begins as a program or a script does, or cannot be read.
fn may_be_program(path: &Path) -> bool {
    let mut begin = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4).read_to_end(&mut begin));
    read.is_err() || begin.starts_with(b"#!") || begin == b"\x7fELF"
}

/// Where a command's standard output goes: to ours, or to standard error where ours is `data` that nothing may be mixed into.
pub(crate) fn stdout_beside(data: bool) -> Stdio {
    if data { Stdio::from(io::stderr()) } else { Stdio::inherit() }
}

/// Starts the command with this process's rights, or with those of `user`; none if it is empty.
pub(crate) fn start(command: &[OsString], user: Option<User>, stdout: Stdio) -> Result<Option<Child>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    adopt()?;
    let mut command = Command::new(program);
    command.args(arguments).stdout(stdout);
    if let Some(user) = user {
        user.runs(&mut command);
    }
    end_with_this_process(&mut command);
    let started = command.spawn();
    let code = |error: &io::Error| if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    Ok(Some(started.map_err(|error| NotStarted::new(program, error.to_string(), code(&error)))?))
}

/// Lets the kernel send SIGTERM to the command when this process ends without ending it: by SIGKILL, a real-time signal, or an error in it.
/// To be called last: a change of the user takes that back, as does a program that changes its user (sudo) or gains capabilities, and what
/// the command starts does not have it.
fn end_with_this_process(command: &mut Command) {
    let this = getpid();
    let ask = move || {
        // It comes when the thread ends that has started the command: that is the main one, on which the runtime runs, and which ends last.
        set_parent_process_death_signal(Some(Number::TERM))?;
        // This process may have ended before.
        if getppid() == Some(this) { Ok(()) } else { Err(Errno::SRCH.into()) }
    };
    // SAFETY: the closure makes two system calls on values that exist already: it takes no lock and allocates nothing, so that the child of
    // a process with several threads may run it between fork and exec.
    unsafe { command.pre_exec(ask) };
}

/// Waits until the command exits; for ever without one. Processes that it leaves behind are its own business if it exits by itself.
pub(crate) async fn exit_of(child: &mut Option<Child>) -> io::Result<ExitStatus> {
    let Some(child) = child else { return std::future::pending().await };
    let mut endings = signal(SignalKind::child())?;
    loop {
        reap(child.id());
        tokio::select! {
            status = child.wait() => return status,
            _ = endings.recv() => {}
        }
    }
}

/// Lets the signals of [`Endings`] kill the process again: nothing is left to restore.
pub(crate) fn default_endings() {
    for (signal, _) in SIGNALS.into_iter().filter(|&(number, _)| !is_ignored(number)) {
        // SAFETY: SIG_DFL is a valid disposition for each of these signals, and no handler's state is freed by it.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Sends SIGTERM to the command, and SIGKILL after `grace`; then ends the processes that it has left behind in the same way. Returns its
/// status; none without a command.
pub(crate) async fn end(child: &mut Option<Child>, grace: Duration) -> Option<ExitStatus> {
    let child = child.as_mut()?;
    if let Some(pid) = child.id().and_then(|id| libc::pid_t::try_from(id).ok()) {
        // SAFETY: kill has no memory effects; the child has not been waited for, so its pid cannot have been reused.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
    if tokio::time::timeout(grace, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
    let status = child.wait().await.ok();
    end_all(grace).await;
    status
}

/// A step after the command was started: where it fails, the command is ended.
pub(crate) async fn or_end<T, E>(child: &mut Option<Child>, step: Result<T, E>) -> Result<T, E> {
    if step.is_err() {
        end(child, GRACE).await;
    }
    step
}

/// The command's exit code, or 128 plus the signal's number as in a shell.
pub(crate) fn command_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_command_that_cannot_be_started_has_the_code_that_a_shell_gives_it() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        let code = |program: &str| look_for(program.as_ref(), Some(folder.path().as_os_str())).map_err(|e| e.code);
        assert_eq!(code("script"), Err(126), "it is not executable");
        assert_eq!(code(script.to_str().unwrap()), Err(126));
        assert_eq!(code(folder.path().to_str().unwrap()), Err(126), "a folder");
        assert_eq!(code("other"), Err(127));
        assert_eq!(code("/no/such/program"), Err(127));
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(code("script"), Ok(()));
        assert_eq!(look_for("script".as_ref(), None).map_err(|e| e.code), Err(127), "without PATH");
        let error = look_for("other".as_ref(), None).unwrap_err();
        assert_eq!(error.to_string(), "run other: there is no such program");
    }
}
