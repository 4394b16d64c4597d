//! `vmentry survey` as a process: what it refuses, and that a signal leaves whole files.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

mod binary;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use binary::{err, vmentry};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_wrong_name_and_a_file_that_exists_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["x.json", "x", "-", ".html"] {
        let output = vmentry(&["survey", "-o", name]);
        assert_eq!(output.status.code(), Some(2));
        assert!(err(&output).contains("vmentry survey -o host.html"), "{}", err(&output));
    }
    let plain = vmentry(&["survey"]);
    assert_eq!(plain.status.code(), Some(2));
    for either in ["--output <FILE.html>", "--check <FILE.json>"] {
        assert!(err(&plain).contains(either), "{}", err(&plain));
    }
    let both = vmentry(&["survey", "-o", "host.html", "--check", "host.json"]);
    assert!(both.status.code() == Some(2) && err(&both).contains("cannot be used with"), "{}", err(&both));
    fs::write(path("host.json"), "x").unwrap();
    let output = vmentry(&["survey", "-o", &path("host.html")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("host.json: it exists and is not empty"), "{}", err(&output));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the page that was begun is gone");
}

#[test]
fn what_is_no_survey_is_refused() {
    let output = vmentry(&["survey", "--check", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(err(&output).contains("it is no JSON"), "{}", err(&output));
}

#[test]
fn no_more_is_read_than_a_survey_has_and_nothing_that_may_never_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path("fifo.json"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    for name in ["/dev/zero", &path("fifo.json"), folder.path().to_str().unwrap()] {
        let output = vmentry(&["survey", "--check", name]);
        assert_eq!(output.status.code(), Some(1));
        assert!(err(&output).contains("it is no regular file"), "{}", err(&output));
    }
    fs::write(path("large.json"), vec![b' '; (4 << 20) + 1]).unwrap();
    let output = vmentry(&["survey", "--check", &path("large.json")]);
    assert!(err(&output).contains("it has more than 4194304 bytes"), "{}", err(&output));
    let zero = fs::File::open("/dev/zero").unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_vmentry")).args(["survey", "--check", "-"]).stdin(zero).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("standard input: it has more than"), "{}", err(&output));
}

/// On a host that can measure, the survey would take minutes; where it cannot, it may end before the signal comes.
#[test]
fn a_survey_that_is_ended_writes_whole_files() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("host.html");
    let mut child = Command::new(env!("CARGO_BIN_EXE_vmentry"))
        .args([Path::new("survey"), Path::new("-o"), &page])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("1/5 check: "), "{first}");
    let _ = kill_process(Pid::from_child(&child), Signal::TERM);
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    let status = child.wait().unwrap();
    assert!(matches!(status.code(), Some(0 | 1)), "{status}: {rest:?}");
    let json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("host.json")).unwrap()).unwrap();
    assert_eq!(json["format"], "vmentry-survey/1");
    let was_running = !first.contains("n/a");
    assert!(!was_running || json["cut"] == true, "{json}");
    assert!(fs::read_to_string(&page).unwrap().ends_with("</html>\n"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}
