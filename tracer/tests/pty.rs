//! The real binary on a pseudo-terminal: it draws, follows keys and sizes, and gives the terminal back on every way out.
//! Plays a recording, so that it needs neither root nor KVM.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lab.hlog");
const OTHER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/known-exits.hlog");
const LEAVE_ALTERNATE_SCREEN: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// A terminal with the binary in it.
struct Session {
    child: Child,
    /// process id of the view: the child, or the child's child
    viewer: i32,
    terminal: File,
    /// kept open, so that the settings can be read when the child is gone
    line: OwnedFd,
    before: libc::termios,
    seen: Arc<Mutex<String>>,
    /// while set, nobody reads what is drawn
    still: Arc<AtomicBool>,
}

fn settings(line: &OwnedFd) -> libc::termios {
    // SAFETY: a termios of zeros is valid, and tcgetattr fills it in.
    unsafe {
        let mut settings = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(line.as_raw_fd(), &raw mut settings), 0);
        settings
    }
}

/// Goes on in a child in the foreground of its own, of a parent that only waits for its end, as a shell does.
///
/// # Safety
///
/// Only between fork and exec.
unsafe fn become_job() {
    // SAFETY: system calls alone, with valid arguments.
    unsafe {
        let job = libc::fork();
        if job == 0 {
            libc::setpgid(0, 0);
            // Or the kernel would stop it for this call from the background.
            libc::signal(libc::SIGTTOU, libc::SIG_IGN);
            libc::tcsetpgrp(0, libc::getpid());
            libc::signal(libc::SIGTTOU, libc::SIG_DFL);
            return;
        }
        // Among them the pipe by which `spawn` learns of the exec.
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        let mut status = 0;
        while libc::waitpid(job, &raw mut status, 0) != job {}
        libc::_exit(if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 1 });
    }
}

impl Session {
    fn start(columns: u16, lines: u16, environment: &[(&str, &str)]) -> Self {
        Self::run(&["live", RECORDING], Path::new("/"), columns, lines, environment)
    }

    /// In a job of a shell, which here only waits.
    fn job(columns: u16, lines: u16) -> Self {
        let mut session = Self::run_as(&["live", RECORDING], Path::new("/"), (columns, lines), &[], true);
        let children = format!("/proc/{0}/task/{0}/children", session.child.id());
        let child = std::fs::read_to_string(children).unwrap();
        session.viewer = child.trim().parse().unwrap();
        session
    }

    fn run(args: &[&str], folder: &Path, columns: u16, lines: u16, environment: &[(&str, &str)]) -> Self {
        Self::run_as(args, folder, (columns, lines), environment, false)
    }

    fn run_as(
        args: &[&str],
        folder: &Path,
        (columns, lines): (u16, u16),
        environment: &[(&str, &str)],
        as_job: bool,
    ) -> Self {
        let (mut near, mut far) = (0, 0);
        let size = libc::winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the pointers are to valid places or null, as openpty(3) allows.
        let opened = unsafe {
            libc::openpty(&raw mut near, &raw mut far, std::ptr::null_mut(), std::ptr::null(), &raw const size)
        };
        assert_eq!(opened, 0);
        // SAFETY: both descriptors are new and nobody else's.
        let (terminal, line) = unsafe { (File::from_raw_fd(near), OwnedFd::from_raw_fd(far)) };
        let before = settings(&line);
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmentry"));
        command.args(args).current_dir(folder).env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
        command.env_remove("NO_COLOR").env_remove("PAGER").env_remove("LESS").envs(environment.iter().copied());
        for stdio in [Command::stdin, Command::stdout, Command::stderr] {
            stdio(&mut command, Stdio::from(line.try_clone().unwrap()));
        }
        // SAFETY: these are system calls alone: they take no lock and allocate nothing, so that the child of a process with several
        // threads may call them between fork and exec. The closure captures a bool.
        unsafe {
            command.pre_exec(move || {
                // Even where the tests were started so that they ignore them.
                for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTSTP] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                if as_job {
                    become_job();
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let seen = Arc::new(Mutex::new(String::new()));
        let still = Arc::new(AtomicBool::new(false));
        let (into, mut from, stands) = (Arc::clone(&seen), terminal.try_clone().unwrap(), Arc::clone(&still));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                while stands.load(Ordering::SeqCst) {
                    sleep(Duration::from_millis(10));
                }
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Self { viewer: child.id() as i32, child, terminal, line, before, seen, still }
    }

    /// Waits until something is so.
    fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            assert!(start.elapsed() < Duration::from_secs(10), "not so: {what}: {:?}", self.seen());
            sleep(Duration::from_millis(20));
        }
    }

    /// The view's state in /proc: T is stopped.
    fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.viewer)).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    }

    fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while !self.seen().contains(text) {
            assert!(start.elapsed() < Duration::from_secs(20), "'{text}' was not drawn: {:?}", self.seen());
            sleep(Duration::from_millis(20));
        }
    }

    fn drawn(&self) {
        self.wait_for("replay");
    }

    fn press(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so that the number is its own.
        assert_eq!(unsafe { libc::kill(self.viewer, signal) }, 0);
    }

    fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "it does not end: {:?}", self.seen());
            sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end and checks that the terminal is as it was.
    fn ends(mut self) -> (ExitStatus, String) {
        let status = self.ended();
        self.wait_for(LEAVE_ALTERNATE_SCREEN);
        self.wait_for(SHOW_CURSOR);
        let after = settings(&self.line);
        assert_eq!(
            (after.c_lflag, after.c_iflag, after.c_oflag),
            (self.before.c_lflag, self.before.c_iflag, self.before.c_oflag),
            "the terminal's settings changed"
        );
        (status, self.seen())
    }
}

#[test]
fn q_quits_and_gives_the_terminal_back() {
    let mut session = Session::start(80, 24, &[]);
    session.drawn();
    session.press("q");
    assert!(session.ends().0.success());
}

#[test]
fn ctrl_c_quits_and_gives_the_terminal_back() {
    let mut session = Session::start(80, 24, &[]);
    session.drawn();
    session.press("\x03");
    assert!(session.ends().0.success());
}

#[test]
fn signals_quit_and_give_the_terminal_back() {
    for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
        let session = Session::start(80, 24, &[]);
        session.drawn();
        session.signal(signal);
        assert!(session.ends().0.success());
    }
}

#[test]
#[cfg(debug_assertions)]
fn a_panic_gives_the_terminal_back_and_is_readable() {
    let session = Session::start(80, 24, &[("VMENTRY_PANIC_WHILE_DRAWING", "1")]);
    let (status, seen) = session.ends();
    assert!(!status.success());
    let left = seen.find(LEAVE_ALTERNATE_SCREEN).unwrap();
    assert!(seen[left..].contains("asked to panic"), "the message is printed on the terminal that was given back");
}

#[test]
fn keys_and_sizes_are_followed() {
    let mut session = Session::start(100, 30, &[]);
    session.drawn();
    session.press("?");
    session.wait_for("quit");
    session.press("\x1b");
    for (columns, lines) in [(20, 5), (1, 1), (200, 50)] {
        let size = libc::winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open and `size` is valid.
        assert_eq!(unsafe { libc::ioctl(session.terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }, 0);
        sleep(Duration::from_millis(300));
    }
    session.press("q");
    assert!(session.ends().0.success());
}

/// Stops the view by `stop`, and continues it; returns what was drawn from then on.
fn stopped_and_continued(mut session: Session, stop: impl FnOnce(&mut Session)) -> (Session, usize) {
    session.drawn();
    stop(&mut session);
    session.until("it stops", |s| s.state() == 'T');
    let before = session.seen().len();
    session.signal(libc::SIGCONT);
    session.until("it takes the terminal again", |s| s.seen()[before..].contains("\x1b[?1049h"));
    session.until("everything is drawn again", |s| s.seen()[before..].contains("replay"));
    assert_ne!(settings(&session.line).c_lflag, session.before.c_lflag, "the terminal is raw again");
    (session, before)
}

#[test]
fn a_stopped_job_gives_the_terminal_back_and_takes_it_again() {
    let from_outside = |session: &mut Session| session.signal(libc::SIGTSTP);
    let by_key = |session: &mut Session| session.press("\x1a");
    for stop in [&by_key as &dyn Fn(&mut Session), &from_outside] {
        let stop = |session: &mut Session| {
            stop(session);
            session.wait_for(LEAVE_ALTERNATE_SCREEN);
            session.until("the settings are as before", |s| settings(&s.line).c_lflag == s.before.c_lflag);
        };
        let (mut session, _) = stopped_and_continued(Session::job(80, 24), stop);
        session.press("q");
        assert!(session.ends().0.success());
    }
}

#[test]
fn after_a_stop_that_cannot_be_caught_the_terminal_is_taken_again() {
    let stop = |session: &mut Session| {
        session.signal(libc::SIGSTOP);
        session.until("it stops", |s| s.state() == 'T');
        // As a shell does for itself when a job of it stops.
        // SAFETY: the descriptor is open and the settings are valid.
        assert_eq!(unsafe { libc::tcsetattr(session.line.as_raw_fd(), libc::TCSANOW, &raw const session.before) }, 0);
    };
    let (mut session, _) = stopped_and_continued(Session::job(80, 24), stop);
    session.press("q");
    assert!(session.ends().0.success());
}

#[test]
fn a_view_that_nobody_could_continue_does_not_stop() {
    for by_key in [true, false] {
        // A session leader, as `ssh -t` and containers start it: there is no shell whose `fg` continues it.
        let mut session = Session::start(80, 24, &[]);
        session.drawn();
        let before = session.seen().len();
        if by_key {
            session.press("\x1a");
        } else {
            session.signal(libc::SIGTSTP);
        }
        session.until("it draws on", |s| s.seen()[before..].contains("\x1b[?1049h"));
        session.until("everything is drawn again", |s| s.seen()[before..].contains("replay"));
        assert_ne!(session.state(), 'T');
        session.press("q");
        assert!(session.ends().0.success());
    }
}

#[test]
fn a_terminal_that_stands_still_does_not_keep_the_view_from_ending() {
    let mut session = Session::start(200, 50, &[]);
    session.drawn();
    session.still.store(true, Ordering::SeqCst);
    // More than the terminal holds.
    for _ in 0..60 {
        session.press("?");
        sleep(Duration::from_millis(260));
    }
    session.signal(libc::SIGTERM);
    let start = Instant::now();
    while session.child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(10), "it does not end");
        sleep(Duration::from_millis(20));
    }
    assert_eq!(settings(&session.line).c_lflag, session.before.c_lflag);
}

#[test]
fn without_a_terminal_there_is_a_line_an_interval() {
    let output = Command::new(env!("CARGO_BIN_EXE_vmentry")).args(["live", RECORDING]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    let lines: Vec<_> = text.lines().collect();
    let is_time = |line: &str| line.len() > 8 && line.as_bytes()[2] == b':' && line.as_bytes()[5] == b':';
    assert!(lines[0].trim_start().starts_with("UTC ") && lines.len() >= 2, "{text}");
    assert!(lines[1..].iter().all(|line| is_time(line)), "{text}");
}

#[test]
fn lines_are_printed_on_a_terminal_where_they_are_asked_for() {
    let args = ["live", "--once", "--format", "jsonl", RECORDING];
    let mut session = Session::run(&args, Path::new("/"), 200, 50, &[]);
    session.wait_for("\"format\":\"vmentry-live/1\"");
    assert!(session.child.wait().unwrap().success());
    assert!(!session.seen().contains("\x1b["), "{:?}", session.seen());
    // That it was emulated is said on standard error.
    assert_eq!(session.seen().lines().filter(|line| line.starts_with('{')).count(), 1, "{:?}", session.seen());
}

#[test]
fn a_report_saved_from_a_damaged_recording_says_so_first() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let file = folder.join("damaged.hlog");
    std::fs::write(&file, std::fs::read_to_string(RECORDING).unwrap() + "x\n").unwrap();
    let args = ["live", "--skip-damaged", file.to_str().unwrap()];
    let mut session = Session::run(&args, folder, 200, 50, &[]);
    session.wait_for("DAMAGED: ");
    session.press("e");
    session.wait_for("report saved");
    session.press("q");
    assert_eq!(session.ends().0.code(), Some(1));
    let mut files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let saved =
        std::fs::read_to_string(files.find(|path| path.extension().is_some_and(|e| e == "txt")).unwrap()).unwrap();
    let first: Vec<_> = saved.lines().take(2).collect();
    assert!(first[0].starts_with("DAMAGED: ") && first[1].starts_with("SHOWN: "), "{saved}");
}

#[test]
#[ignore = "needs root and KVM"]
fn a_terminal_that_stands_still_loses_no_interval() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path();
    let mut session = Session::run(&["live"], folder, 200, 50, &[]);
    session.wait_for("entries/s");
    sleep(Duration::from_secs(2));
    // With more drawn than the terminal holds.
    session.still.store(true, Ordering::SeqCst);
    for _ in 0..90 {
        session.press("?");
        sleep(Duration::from_millis(260));
    }
    session.still.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(2));
    session.press("o");
    session.wait_for("recording saved");
    session.press("q");
    assert!(session.ends().0.success());

    let saved = std::fs::read_dir(folder).unwrap().flatten().next().unwrap().path();
    let text = std::fs::read_to_string(saved).unwrap();
    let moments: Vec<(u64, u64)> = text
        .lines()
        .filter_map(|l| serde_json::from_str::<serde_json::Value>(l.strip_prefix('#')?).ok())
        .filter_map(|v| Some((v["interval"]["start_ns"].as_u64()?, v["interval"]["length_ns"].as_u64()?)))
        .collect();
    let (first, last) = (moments[0], moments[moments.len() - 1]);
    assert!(last.0 - first.0 > 15_000_000_000, "{moments:?}");
    assert!(moments.iter().all(|m| m.1 < 3_000_000_000), "the terminal held the screen up: {moments:?}");
    assert!(moments.windows(2).all(|w| w[0].0 + w[0].1 == w[1].0), "there is a gap: {moments:?}");
}

/// Prints a report on a terminal of that many columns. Returns the exit code and the text.
fn report(more: &[&str], columns: u16, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut session = Session::run(&[&["report", RECORDING], more].concat(), Path::new("/"), columns, 24, environment);
    let status = session.ended();
    // The last line is there once the other end of the terminal is closed, or soon after.
    session.until("the report is there", |s| {
        s.seen().contains("TOTAL") || environment.len() > 1 && s.seen().contains('\n')
    });
    (status.code(), session.seen().replace("\r\n", "\n"))
}

#[test]
fn a_report_on_a_terminal_goes_through_the_pager_of_the_user() {
    let paged = |more: &[&str], pager| report(more, 100, &[("PAGER", pager)]);
    let (code, text) = paged(&[], "sed s/^/PAGED/");
    assert!(code == Some(0) && text.lines().all(|line| line.starts_with("PAGED")), "{text}");
    for (more, pager) in [(&["--no-pager"][..], "sed s/^/PAGED/"), (&[], ""), (&[], "cat")] {
        let (code, text) = paged(more, pager);
        assert!(code == Some(0) && text.starts_with("no loss") && text.contains("TOTAL"), "{text}");
    }
    let (code, text) = paged(&[], "no-such-pager-anywhere");
    assert!(code == Some(0) && text.contains("TOTAL"), "a pager that there is not hides nothing: {text}");
}

#[test]
fn a_pager_that_is_closed_early_is_no_error() {
    let (code, text) = report(&["--columns", "all", "--top", "all"], 100, &[("PAGER", "head -n 1"), ("LESS", "FRX")]);
    assert_eq!((code, text.lines().count()), (Some(0), 1), "{text}");
}

#[test]
fn the_table_of_a_report_is_as_wide_as_the_terminal_at_most() {
    for columns in [200, 120, 100, 80, 60] {
        for set in ["time", "latency", "timer", "phases", "all"] {
            let (_, text) = report(&["--no-pager", "--columns", set], columns, &[("TERM", "dumb")]);
            let lines = text.lines().skip_while(|line| !line.contains("EXIT REASON"));
            let lines: Vec<_> = lines.take_while(|line| !line.starts_with("TOTAL")).collect();
            assert!(lines.len() > 10, "{text}");
            let widest = lines.iter().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= usize::from(columns), "{widest} of {columns}: {text}");
        }
    }
}

#[test]
fn a_report_has_attributes_on_a_terminal_alone_and_not_where_nobody_wants_them() {
    let heading = "\x1b[1mEXIT REASON\x1b[0m";
    assert!(report(&["--no-pager"], 100, &[]).1.contains(heading));
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let (_, text) = report(&["--no-pager"], 100, &[variable]);
        assert!(text.contains("EXIT REASON") && !text.contains('\x1b'), "{variable:?}: {text:?}");
    }
}

#[test]
fn alarms_and_verdicts_have_colours_on_a_terminal_alone_and_not_where_nobody_wants_them() {
    for (args, last, colour) in [
        (&["compare", RECORDING, OTHER][..], "everything else", "\x1b[33mEMULATED"),
        (&["compare", "--method", RECORDING, OTHER], "Method and checks", "\x1b[33mEMULATED"),
        (&["report", "--no-pager", RECORDING], "TOTAL", "\x1b[33mEMULATED"),
        (&["report", "--no-pager", "--claims", RECORDING], "fall back to", "\x1b[33mEMULATED"),
        (&["live", "--lines", RECORDING], "LOST", "\x1b[1m     UTC"),
        // The last line is one of "ready: ...", "not ready: ..." and "not proven ...".
        (&["check", "--no-proof"], "ready", "m"),
    ] {
        let shown = |environment: &[(&str, &str)]| {
            let mut session = Session::run(args, Path::new("/"), 100, 50, environment);
            session.ended();
            session.until("the end is there", |s| s.seen().contains(last) || s.seen().contains("proven"));
            session.seen()
        };
        let text = shown(&[]);
        assert!(text.contains('\x1b') && text.contains(colour), "{args:?}: {text:?}");
        for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            let text = shown(&[variable]);
            assert!(!text.contains('\x1b'), "{args:?} with {variable:?}: {text:?}");
        }
        let piped = Command::new(env!("CARGO_BIN_EXE_vmentry")).args(args).output().unwrap();
        assert!(!piped.stdout.is_empty() && !piped.stdout.contains(&0x1b), "{args:?}");
    }
}
