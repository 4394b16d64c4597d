//! The live screen and the exporter, killed at any time: the terminal is as before, and no file is left.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::Stdio,
    sync::{Arc, Mutex},
    thread::sleep,
    time::Duration,
};

use libc::{SIGHUP, SIGINT, SIGKILL, SIGTERM};

use crate::rig::{Host, Rounds, Shape, Vm, Vmentry, assert_nothing_left, kernel_objects, text, wait_until};

/// From the start to a time when all of them run.
const DELAYS_MS: [u64; 6] = [0, 10, 20, 40, 80, 200];

/// A pseudo-terminal.
struct Terminal {
    line: OwnedFd,
    before: libc::termios,
    /// everything that was drawn
    seen: Arc<Mutex<String>>,
}

fn settings(line: &OwnedFd) -> libc::termios {
    // SAFETY: a termios of zeros is valid, and tcgetattr fills it in.
    unsafe {
        let mut settings = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(line.as_raw_fd(), &raw mut settings), 0);
        settings
    }
}

impl Terminal {
    fn open() -> Self {
        let (mut near, mut far) = (0, 0);
        let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let none = std::ptr::null_mut();
        // SAFETY: the pointers are to valid places or null, as openpty(3) allows.
        let opened = unsafe { libc::openpty(&raw mut near, &raw mut far, none, std::ptr::null(), &raw const size) };
        assert_eq!(opened, 0, "{}", io::Error::last_os_error());
        // SAFETY: both descriptors are new and nobody else's.
        let (mut screen, line) = unsafe { (File::from_raw_fd(near), OwnedFd::from_raw_fd(far)) };
        let seen = Arc::new(Mutex::new(String::new()));
        let drawn = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = screen.read(&mut bytes) {
                drawn.lock().unwrap().push_str(&text(&bytes[..n]));
            }
        });
        Self { before: settings(&line), line, seen }
    }

    /// Starts the live screen on this terminal.
    fn live(&self, host: &Host) -> Vmentry {
        let mut command = host.vmentry(&["live"]);
        command.env("TERM", "xterm-256color");
        command.stdin(self.line.try_clone().unwrap()).stdout(self.line.try_clone().unwrap()).stderr(Stdio::piped());
        // SAFETY: setsid and ioctl are system calls alone, which take no lock and allocate nothing.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        Vmentry::spawn(command)
    }

    fn assert_as_before(&self) {
        let (now, before) = (settings(&self.line), &self.before);
        assert_eq!((now.c_lflag, now.c_iflag, now.c_oflag), (before.c_lflag, before.c_iflag, before.c_oflag));
        let shows_screen = || {
            let seen = self.seen.lock().unwrap();
            seen.matches("\x1b[?1049h").count() == seen.matches("\x1b[?1049l").count()
        };
        wait_until("the alternate screen is left", shows_screen);
    }
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_live_screen_that_is_killed_at_any_time_gives_the_terminal_back() {
    let host = Shape::intel().build();
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        for delay in DELAYS_MS.map(Duration::from_millis) {
            let terminal = Terminal::open();
            let live = terminal.live(&host);
            sleep(delay);
            let output = live.end(signal);
            let is_alright = output.status.success() || output.status.signal() == Some(signal);
            assert!(is_alright, "{signal} after {delay:?}: {}: {}", output.status, text(&output.stderr));
            terminal.assert_as_before();
        }
    }
    let terminal = Terminal::open();
    let live = terminal.live(&host);
    wait_until("the programs are attached", || kernel_objects::held_by(live.pid()).links.len() >= 2);
    live.end(SIGKILL);
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn an_exporter_that_is_killed_at_any_time_leaves_nothing_but_its_file() {
    let host = Shape::intel().build();
    fs::create_dir(host.path("metrics")).unwrap();
    let file = host.file("metrics/vmentry.prom");
    let start = || Vmentry::spawn(host.vmentry(&["export", "--textfile", &file, "--interval", "10ms"]));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        for delay in DELAYS_MS.map(Duration::from_millis) {
            let exporter = start();
            sleep(delay);
            let output = exporter.end(signal);
            let is_alright = output.status.success() || output.status.signal() == Some(signal);
            assert!(is_alright, "{signal} after {delay:?}: {}: {}", output.status, text(&output.stderr));
            let files: Vec<_> = fs::read_dir(host.path("metrics")).unwrap().flatten().map(|e| e.file_name()).collect();
            assert!(files.iter().all(|name| name == "vmentry.prom"), "{files:?}");
        }
    }
    let mut vm = Vm::start();
    let exporter = start();
    wait_until("the programs are attached", || kernel_objects::held_by(exporter.pid()).links.len() >= 2);
    vm.run(&[exporter.pid()], &Rounds::vmx(97));
    let written = || fs::read_to_string(&file).unwrap_or_default();
    wait_until("the entries are in the file", || {
        written().lines().any(|line| line.starts_with("vmentry_entries_total") && line.ends_with(" 97"))
    });
    exporter.end(SIGKILL);
    drop(vm);
    assert_nothing_left(&host);
}
