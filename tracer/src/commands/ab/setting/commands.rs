//! Settings that the user's commands switch between. The setting from before is unknown: A's command restores unless --restore names one.

use std::{
    fmt,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::{
    commands::{child::Endings, descendants::Apart, session::runtime},
    host::{roots::Roots, setting::note::Kept},
    output::{MAX_TEXT, printable},
    say,
};

/// How long a command that switches may take.
const SWITCH_TIME: Duration = Duration::from_secs(30);
/// How long the command that restores may take.
const RESTORE_TIME: Duration = Duration::from_secs(10);
/// How long a command may take to end after SIGTERM, and once more after SIGKILL: one that waits within the kernel does not end.
const GRACE: Duration = Duration::from_secs(1);
/// Signals that come within this time after the restoring began are those that ended the experiment, or the same finger.
const SAME_SIGNAL: Duration = Duration::from_secs(1);
/// How often a command is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(1);

/// Restores the setting by its command when it is dropped, unless that was done.
pub(in crate::commands::ab) struct Commands {
    restore: String,
    note: Option<Kept>,
    done: bool,
}

impl Commands {
    /// Notes the command that restores. Nothing is switched yet.
    pub(super) fn new(roots: &Roots, restore: String) -> Result<Self> {
        let note = match Kept::of_command(roots, &restore)? {
            Ok(note) => Some(note),
            Err(error) => {
                say!(
                    "after kill -9, 'vmentry check' cannot tell what was left behind: there is no place for a note ({error})"
                );
                None
            }
        };
        Ok(Self { restore, note, done: false })
    }

    /// Notes the command that restores, and switches for the first time, to `to`. Where that fails, the setting is restored: nothing has
    /// changed then that the command which has failed could change back.
    pub(super) async fn begin(roots: &Roots, restore: String, to: &str, endings: &mut Endings) -> Result<Self> {
        let mut commands = Self::new(roots, restore)?;
        let (error, is_own) = tokio::select! {
            biased;
            reason = endings.next() => {
                (anyhow!("ended by {reason} before the first window: there is nothing to compare"), false)
            }
            switched = switch(to) => match switched {
                Ok(()) => return Ok(commands),
                Err(error) => (error, commands.restore == to),
            },
        };
        if is_own {
            commands.forget();
        } else if let Err(error) = commands.restore(endings).await {
            say!("vmentry: {error:#}");
        }
        Err(error)
    }

    /// There is nothing to restore.
    fn forget(&mut self) {
        self.done = true;
        if let Some(note) = &self.note {
            note.remove();
        }
    }

    /// Restores once; a second signal ends a command that hangs.
    pub(super) async fn restore(&mut self, endings: &mut Endings) -> Result<()> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(());
        }
        let done = tokio::select! {
            done = run_undisturbed(&self.restore) => done,
            signal = another(endings) => Err(anyhow!("ended by {signal}")),
        };
        if let Err(error) = done {
            self.note.iter_mut().for_each(|note| note.failed(&format!("{error:#}")));
            bail!("THE SETTING WAS NOT RESTORED: {error:#}\n  -> type: {}", printable(&self.restore, MAX_TEXT));
        }
        self.forget();
        Ok(())
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // The runtime of this thread cannot wait for anything now.
        let restored = std::thread::scope(|scope| {
            let restore = || runtime()?.block_on(async { self.restore(&mut Endings::new()?).await });
            scope.spawn(restore).join().unwrap_or_else(|_| bail!("THE SETTING WAS NOT RESTORED"))
        });
        if let Err(error) = restored {
            say!("vmentry: {error:#}");
        }
    }
}

/// Waits for a signal after those that ended the experiment.
async fn another(endings: &mut Endings) -> &'static str {
    tokio::time::sleep(SAME_SIGNAL).await;
    while tokio::time::timeout(Duration::ZERO, endings.next()).await.is_ok() {}
    endings.next().await
}

/// Runs the command that restores. A signal to this process's group, as from `timeout`, may reach the command before it has a group of its
/// own: it is then run once more.
async fn run_undisturbed(command: &str) -> Result<()> {
    let started = Instant::now();
    match run(command, RESTORE_TIME).await {
        Err(error) if error.is::<Signalled>() && started.elapsed() < SAME_SIGNAL => run(command, RESTORE_TIME).await,
        done => done,
    }
}

/// A command that a signal ended.
#[derive(Debug)]
struct Signalled(String);

impl fmt::Display for Signalled {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Signalled {}

/// Runs a command that switches.
pub(super) async fn switch(command: &str) -> Result<()> {
    run(command, SWITCH_TIME).await.context("--arm: the command must succeed to compare its setting")
}

/// Runs a command by `sh -c`, and waits for its end: a half-made switch must not overlap the next one. When this is dropped before, or the
/// time is over, the command is ended first. The terminal's Ctrl-C does not reach it, and its output goes to standard error, apart from the
/// comparison. Processes that it leaves behind belong to the setting.
async fn run(command: &str, most: Duration) -> Result<()> {
    let shown = printable(command, MAX_TEXT);
    let mut running = Running::start(command).with_context(|| format!("run sh -c '{shown}'"))?;
    let started = Instant::now();
    loop {
        match running.status().with_context(|| format!("wait for '{shown}'"))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) if status.signal().is_some() => {
                return Err(Signalled(format!("'{shown}' failed ({status})")).into());
            }
            Some(status) => bail!("'{shown}' failed ({status})"),
            None if started.elapsed() > most => bail!("'{shown}' did not end within {} s", most.as_secs()),
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

/// A command that runs in a process group of its own, which is ended when this is dropped.
struct Running {
    shell: Child,
    has_ended: bool,
    _apart: Apart,
}

impl Running {
    fn start(command: &str) -> std::io::Result<Self> {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", command]).stdin(Stdio::null()).stdout(std::io::stderr()).process_group(0);
        let (shell, apart) = Apart::start(&mut shell)?;
        Ok(Self { shell, has_ended: false, _apart: apart })
    }

    fn status(&mut self) -> std::io::Result<Option<ExitStatus>> {
        let status = self.shell.try_wait();
        self.has_ended = !matches!(status, Ok(None));
        status
    }

    /// Waits for the shell's end without forgetting it, so that the number of its group stays its own.
    fn ends_within(&self, time: Duration, group: Pid) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let started = Instant::now();
        while matches!(waitid(WaitId::Pid(group), options), Ok(None)) {
            if started.elapsed() > time {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let group = Pid::from_child(&self.shell);
        let _ = kill_process_group(group, Signal::TERM);
        self.ends_within(GRACE, group);
        // Also what the shell has started and did not end with it.
        let _ = kill_process_group(group, Signal::KILL);
        if self.ends_within(GRACE, group) {
            let _ = self.shell.wait();
        } else {
            say!("the command that switches does not end: it waits within the kernel (pid {})", self.shell.id());
        }
    }
}

#[cfg(test)]
mod tests;
