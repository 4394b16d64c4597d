//! Draws what the real binary prints on a terminal: the text report of a recording, and a comparison.

use std::{
    fs::File,
    io::Read,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
};

use crate::{
    EXPERIMENT, RECORDING, recordings,
    screen::{self, Line, Look},
};

const WIDTH: u16 = 110;

/// Each picture: its file's name and its content.
pub fn pictures() -> Vec<(&'static str, String)> {
    let report = ["report", RECORDING, "--by", "reason", "--top", "8"];
    let comparison = ["compare", EXPERIMENT];
    vec![
        ("report.svg", picture("The text report of vmentry: host time and guest time by exit reason", &report)),
        ("comparison.svg", picture("A comparison by vmentry: the hard timer policy against the soft one", &comparison)),
    ]
}

fn picture(title: &str, arguments: &[&str]) -> String {
    let lines: Vec<_> = printed(arguments).lines().map(cells).collect();
    screen::picture(title, &format!("vmentry {}", arguments.join(" ")), WIDTH.into(), &lines)
}

/// The binary's output on a pseudo-terminal, with its escape sequences.
fn printed(arguments: &[&str]) -> String {
    let (mut near, mut far) = (0, 0);
    let size = libc::winsize { ws_row: 100, ws_col: WIDTH, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the pointers are to valid places or null, as openpty(3) allows.
    let opened =
        unsafe { libc::openpty(&raw mut near, &raw mut far, std::ptr::null_mut(), std::ptr::null(), &raw const size) };
    assert_eq!(opened, 0);
    // SAFETY: both descriptors are new and nobody else's.
    let (mut terminal, line) = unsafe { (File::from_raw_fd(near), OwnedFd::from_raw_fd(far)) };
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmentry"));
    // A comparison has no pager.
    command.args(arguments).args((arguments[0] == "report").then_some("--no-pager")).current_dir(recordings());
    command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR");
    // What is said while it works is no part of the picture.
    command.stdin(line.try_clone().unwrap()).stdout(line.try_clone().unwrap()).stderr(Stdio::null());
    // SAFETY: these are system calls alone, which the child of a process with several threads may make between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    // The terminal ends when nobody has it open: neither the child nor this process.
    drop((command, line));
    let (mut output, mut bytes) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = terminal.read(&mut bytes) {
        output.extend_from_slice(&bytes[..n]);
    }
    assert!(child.wait().unwrap().success());
    String::from_utf8(output).unwrap().replace('\r', "")
}

/// The cells of a printed line.
fn cells(line: &str) -> Line {
    let mut look = Look::default();
    let mut cells = Line::new();
    let mut rest = line;
    while let Some(character) = rest.chars().next() {
        if let Some((codes, after)) = rest.strip_prefix("\x1b[").and_then(|rest| rest.split_once('m')) {
            look = codes.split(';').fold(look, changed);
            rest = after;
            continue;
        }
        cells.push((character, look));
        rest = &rest[character.len_utf8()..];
    }
    cells
}

/// The look after an attribute's code.
fn changed(look: Look, code: &str) -> Look {
    match code {
        "0" => Look::default(),
        "1" => Look { bold: true, ..look },
        "2" => Look { dim: true, ..look },
        "31" => Look { text: Some([0xff, 0x7b, 0x72]), ..look },
        "32" => Look { text: Some([0x7e, 0xe7, 0x87]), ..look },
        "33" => Look { text: Some([0xe3, 0xb3, 0x41]), ..look },
        other => panic!("an attribute that this does not know: {other}"),
    }
}
