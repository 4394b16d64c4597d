//! Runs the script, or a shell on the console, and reports to the host.

use crate::port::Port;
use anyhow::{Context, Result, ensure};
use lab_init::frame::Frame;
use lab_init::{OUT, SCRIPT};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

const CONSOLE: &str = "/dev/ttyS0";
/// Time to wait for output of processes that outlive the script.
const GRACE: Duration = Duration::from_secs(1);

/// Runs the script or the shell, and reports output, files and exit code through the parallel port.
pub fn run() -> Result<()> {
    let mut port = Port::open().context("open parallel port")?;
    let status = if Path::new(SCRIPT).exists() { run_script(&mut port)? } else { run_shell()? };
    send_files(&mut port)?;
    // As in a shell: 128 + signal.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    port.send(&Frame::Exit(code as u8));
    Ok(())
}

enum Event {
    Printed(Vec<u8>),
    Ended(io::Result<ExitStatus>),
}

fn run_script(port: &mut Port) -> Result<ExitStatus> {
    let (reader, writer) = io::pipe().context("create pipe")?;
    let mut script = shell();
    script.arg(SCRIPT).stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = script.spawn().context("run sh")?;
    // `script` holds the pipe's writing end. After this drop, the output ends with the last process that has it open.
    drop(script);
    let (sender, events) = mpsc::channel();
    let printed = sender.clone();
    thread::spawn(move || forward(reader, |piece| printed.send(Event::Printed(piece)).is_ok()));
    thread::spawn(move || sender.send(Event::Ended(child.wait())));
    let mut status = None;
    loop {
        let event = match status {
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => events.recv_timeout(GRACE),
        };
        match event {
            Ok(Event::Printed(piece)) => port.send(&Frame::Output(piece)),
            Ok(Event::Ended(ended)) => status = Some(ended.context("wait for script")?),
            Err(_) => return status.context("wait for script: its end was not reported"),
        }
    }
}

/// An interactive shell with job control on the console.
fn run_shell() -> Result<ExitStatus> {
    let console = File::options().read(true).write(true).open(CONSOLE).with_context(|| format!("open {CONSOLE}"))?;
    set_size(&console);
    let mut command = shell();
    command.arg("-i").stdin(console.try_clone()?).stdout(console.try_clone()?).stderr(console);
    // SAFETY: between fork and exec, only async-signal-safe functions are called, and nothing is allocated. Descriptor
    // 0 is the console.
    unsafe {
        command.pre_exec(|| {
            if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command.status().context("run sh")
}

/// Sets the size of the console to that of the user's terminal, which the kernel passes from its command line to init
/// as `LINES` and `COLUMNS`.
fn set_size(console: &File) {
    let number = |name| std::env::var(name).ok()?.parse().ok();
    if let (Some(ws_row), Some(ws_col)) = (number("LINES"), number("COLUMNS")) {
        let size = libc::winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: TIOCSWINSZ reads the winsize, which outlives the call; `console` keeps the descriptor open.
        unsafe { libc::ioctl(console.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    }
}

fn shell() -> Command {
    let mut command = Command::new("/bin/sh");
    command.current_dir("/").env_clear().env("PATH", "/bin").env("HOME", "/").env("OUT", OUT);
    command.env("TERM", std::env::var("TERM").unwrap_or_else(|_| "linux".into()));
    command
}

fn send_files(port: &mut Port) -> Result<()> {
    let mut tar =
        Command::new("/bin/tar").args(["-c", "-C", OUT, "."]).stdout(Stdio::piped()).spawn().context("run tar")?;
    let stream = tar.stdout.take().context("run tar: no pipe")?;
    forward(stream, |piece| {
        port.send(&Frame::Files(piece));
        true
    });
    let status = tar.wait().context("wait for tar")?;
    ensure!(status.success(), "pack {OUT}: {status}");
    Ok(())
}

/// Passes on pieces of a stream until it ends or `accept` returns false.
fn forward(mut reader: impl Read, mut accept: impl FnMut(Vec<u8>) -> bool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = reader.read(&mut buffer) {
        if !accept(buffer[..length].to_vec()) {
            return;
        }
    }
}
