//! Settings that the user's commands switch between. The setting from before is unknown: A's command restores unless --restore names one.

use std::{
    os::unix::process::CommandExt,
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
const SAME_SIGNAL: Duration = Duration::from_millis(100);
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
            done = run(&self.restore, RESTORE_TIME) => done,
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
mod tests {
    use std::{fs, path::Path, sync::Mutex};

    use super::*;
    use crate::{
        host::{roots::made_up::Folder, setting::left_behind::left_behind},
        output::shown,
    };

    /// Signals reach all who listen: one test at a time.
    static SIGNALS: Mutex<()> = Mutex::new(());

    fn now<T>(work: impl Future<Output = T>) -> T {
        runtime().unwrap().block_on(work)
    }

    fn until(happened: impl Fn() -> bool) {
        let started = Instant::now();
        while !happened() {
            assert!(started.elapsed() < Duration::from_secs(20), "it never happened");
            std::thread::sleep(LOOK);
        }
    }

    /// Whether a process runs whose number stands in a file; one that has ended and is not waited for does not.
    fn runs(file: &Path) -> bool {
        let id = fs::read_to_string(file).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", id.trim())).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ")
    }

    /// Sends a signal once a file is there that a command writes.
    fn signal_after(file: std::path::PathBuf) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            until(|| fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')));
            rustix::process::kill_process(rustix::process::getpid(), Signal::USR2).unwrap();
        })
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_its_group_when_nobody_waits_any_more() {
        let folder = Folder::new();
        for (trap, name, most) in [("", "a", 900), ("trap '' TERM;", "b", 5000)] {
            let file = folder.roots.run.join(name);
            let command = format!("{trap} sleep 60 & echo $! > {}; wait", shown(&file));
            let started = Instant::now();
            now(async {
                tokio::select! {
                    _ = run(&command, SWITCH_TIME) => panic!("it does not end by itself"),
                    () = async { while !fs::read_to_string(&file).is_ok_and(|t| t.ends_with('\n')) { tokio::time::sleep(LOOK).await } } => {}
                }
            });
            until(|| !runs(&file));
            // A busy machine may be slow to start it.
            assert!(started.elapsed() < Duration::from_millis(most + 10_000), "{trap}: {:?}", started.elapsed());
        }
    }

    #[test]
    fn a_command_has_its_time_and_its_status_counts() {
        let said = |command: &str, most| now(run(command, most)).map_err(|error| error.to_string());
        assert_eq!(said("true", SWITCH_TIME), Ok(()));
        assert!(said("exit 3", SWITCH_TIME).unwrap_err().contains("'exit 3' failed (exit status: 3)"));
        let late = said("sleep 60", Duration::from_millis(20)).unwrap_err();
        assert!(late.contains("did not end within"), "{late}");
    }

    #[test]
    fn a_process_that_a_command_leaves_behind_belongs_to_the_setting() {
        let folder = Folder::new();
        let file = folder.roots.run.join("left");
        now(run(&format!("sleep 60 > /dev/null 2>&1 & echo $! > {}", shown(&file)), SWITCH_TIME)).unwrap();
        assert!(runs(&file));
        let id = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(id).unwrap(), Signal::KILL).unwrap();
    }

    #[test]
    fn another_command_that_ends_meanwhile_takes_no_status_away() {
        now(async {
            let mut child = Some(tokio::process::Command::new("sleep").arg("60").kill_on_drop(true).spawn().unwrap());
            tokio::select! {
                _ = crate::commands::child::exit_of(&mut child) => panic!("it goes on"),
                done = async { for _ in 0..20 { run("sleep 0.01", SWITCH_TIME).await? } Ok::<_, anyhow::Error>(()) } => done.unwrap(),
            }
        });
    }

    #[test]
    fn a_signal_ends_a_command_that_hangs_and_the_setting_is_restored() {
        let _alone = SIGNALS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let folder = Folder::new();
        let at = |name: &str| folder.roots.run.join(name);
        let mut commands =
            Commands::new(&folder.roots, format!("sleep 0.3; echo restored > {}", shown(&at("state")))).unwrap();
        assert!(left_behind(&folder.roots).unwrap().command.unwrap().starts_with("sleep 0.3; echo restored"));
        now(async {
            let mut endings = Endings::new().unwrap();
            let signal = signal_after(at("pid"));
            let command = format!("sleep 60 & echo $! > {}; wait", shown(&at("pid")));
            let reason = tokio::select! {
                biased;
                reason = endings.next() => reason,
                _ = switch(&command) => panic!("it does not end by itself"),
            };
            assert_eq!(reason, "SIGUSR2");
            // One that comes at the same time does not end the restoring.
            rustix::process::kill_process(rustix::process::getpid(), Signal::USR1).unwrap();
            commands.restore(&mut endings).await.unwrap();
            signal.join().unwrap();
        });
        until(|| !runs(&at("pid")));
        assert_eq!(folder.read("run/state"), "restored\n");
        assert_eq!(left_behind(&folder.roots), None, "the note is gone");
    }

    #[test]
    fn a_second_signal_ends_a_restoring_that_hangs_and_names_its_command() {
        let _alone = SIGNALS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let folder = Folder::new();
        let file = folder.roots.run.join("pid");
        let command = format!("sleep 0.3; sleep 60 & echo $! > {}; wait", shown(&file));
        let mut commands = Commands::new(&folder.roots, command.clone()).unwrap();
        let error = now(async {
            let mut endings = Endings::new().unwrap();
            let signal = signal_after(file.clone());
            let error = commands.restore(&mut endings).await.unwrap_err().to_string();
            signal.join().unwrap();
            error
        });
        assert!(error.starts_with("THE SETTING WAS NOT RESTORED: ended by SIGUSR2"), "{error}");
        assert!(error.ends_with(&format!("-> type: {command}")), "{error}");
        until(|| !runs(&file));
        drop(commands);
        let told = left_behind(&folder.roots).expect("check still tells").what();
        assert!(told.contains("failed: ended by SIGUSR2") && !told.contains("killed"), "{told}");
    }

    #[test]
    fn a_first_command_that_fails_leaves_a_note_only_where_something_is_to_be_restored() {
        let _alone = SIGNALS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let begun = |restore: &str, to: &str| {
            let folder = Folder::new();
            let begin =
                async { Commands::begin(&folder.roots, restore.into(), to, &mut Endings::new().unwrap()).await };
            let error = now(begin).err().unwrap();
            assert!(format!("{error:#}").contains(&format!("'{to}' failed (exit status: 3)")), "{error:#}");
            left_behind(&folder.roots).map(|left| left.what())
        };
        assert_eq!(begun("exit 3", "exit 3"), None, "nothing restores it, and nothing else was switched");
        assert_eq!(begun("true", "exit 3"), None, "it is restored");
        let left = begun("exit 5", "exit 3").unwrap();
        assert!(left.contains("whose command to restore it failed: 'exit 5' failed (exit status: 5)"), "{left}");
    }

    #[test]
    fn the_setting_is_restored_on_a_panic_and_by_an_error_within_the_runtime() {
        let _alone = SIGNALS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let folder = Folder::new();
        let state = folder.roots.run.join("state");
        let made = || Commands::new(&folder.roots, format!("echo restored >> {}", shown(&state))).unwrap();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _commands = made();
            panic!("in the middle");
        }));
        assert!(panicked.is_err());
        now(async { drop(made()) });
        assert_eq!(folder.read("run/state"), "restored\nrestored\n");
    }
}
