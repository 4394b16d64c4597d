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
const LEAVE_ALTERNATE_SCREEN: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";

/// A terminal with the binary in it.
struct Session {
    child: Child,
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

impl Session {
    fn start(columns: u16, lines: u16, environment: &[(&str, &str)]) -> Self {
        Self::run(&["live", "--replay", RECORDING], Path::new("/"), columns, lines, environment)
    }

    fn run(args: &[&str], folder: &Path, columns: u16, lines: u16, environment: &[(&str, &str)]) -> Self {
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
        command.envs(environment.iter().copied()).env_remove("NO_COLOR");
        for stdio in [Command::stdin, Command::stdout, Command::stderr] {
            stdio(&mut command, Stdio::from(line.try_clone().unwrap()));
        }
        // SAFETY: setsid and ioctl are system calls alone: they take no lock and allocate nothing, so that the child of a process with
        // several threads may call them between fork and exec. The closure captures nothing.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
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
        Self { child, terminal, line, before, seen, still }
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
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for the end and checks that the terminal is as it was.
    fn ends(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < Duration::from_secs(10), "it does not end");
            sleep(Duration::from_millis(20));
        };
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

#[test]
fn a_suspended_view_gives_the_terminal_back_and_takes_it_again() {
    let mut session = Session::start(80, 24, &[]);
    session.drawn();
    session.press("\x1a");
    session.wait_for(LEAVE_ALTERNATE_SCREEN);
    sleep(Duration::from_millis(200));
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", session.child.id())).unwrap();
    assert!(stat.contains(") T "), "not stopped: {stat}");
    let before = session.seen().len();
    session.signal(libc::SIGCONT);
    let start = Instant::now();
    while !session.seen()[before..].contains("\x1b[?1049h") {
        assert!(start.elapsed() < Duration::from_secs(10), "not resumed");
        sleep(Duration::from_millis(20));
    }
    session.press("q");
    assert!(session.ends().0.success());
}

#[test]
fn without_a_terminal_there_is_a_line_an_interval() {
    let output = Command::new(env!("CARGO_BIN_EXE_vmentry")).args(["live", "--replay", RECORDING]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    assert!(text.lines().count() >= 1 && text.lines().all(|l| l.contains("entries ")), "{text}");
}

#[test]
#[ignore = "needs root and KVM"]
fn a_terminal_that_stands_still_loses_no_interval() {
    let folder = std::env::temp_dir().join(format!("vmentry-pty-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut session = Session::run(&["live"], &folder, 200, 50, &[]);
    session.wait_for("entries/s");
    sleep(Duration::from_secs(2));
    // Longer than the queue between collector and screen, with more drawn than the terminal holds.
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

    let saved = std::fs::read_dir(&folder).unwrap().flatten().next().unwrap().path();
    let text = std::fs::read_to_string(saved).unwrap();
    let moments: Vec<(u64, u64)> = text
        .lines()
        .filter_map(|l| serde_json::from_str::<serde_json::Value>(l.strip_prefix('#')?).ok())
        .filter_map(|v| Some((v["interval"]["start_ns"].as_u64()?, v["interval"]["length_ns"].as_u64()?)))
        .collect();
    let (first, last) = (moments[0], moments[moments.len() - 1]);
    assert!(last.0 - first.0 > 15_000_000_000, "{moments:?}");
    assert!(moments.iter().any(|m| m.1 > 2_000_000_000), "the terminal never held anything up: {moments:?}");
    assert!(moments.windows(2).all(|w| w[0].0 + w[0].1 == w[1].0), "there is a gap: {moments:?}");
    std::fs::remove_dir_all(folder).unwrap();
}
