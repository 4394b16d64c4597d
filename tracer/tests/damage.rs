//! The real binary on damaged recordings: one error that names the line, or with --skip-damaged everything that is whole, said first.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

mod binary;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    sync::Arc,
};

use binary::{Folder, err, out, vmentry};
use tracer_common::{Event, Flags};
use vmentry::{
    model::interval::{Interval, Vm},
    recording::{Header, Reader, Writer},
};

const LAB: &[u8] = include_bytes!("data/lab.hlog");

/// Five intervals of a second with 100 entries each.
fn recording(hours_later: u64) -> Vec<u8> {
    let mut header: Header = Reader::new(LAB).unwrap().header().clone();
    header.anchor.unix_ns += hours_later * 3_600_000_000_000;
    header.host.emulated = false;
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &header).unwrap();
    let vm = Arc::new(Vm { name: "web".into(), tgid: 5, start_ticks: 7, ..Vm::default() });
    for second in 0..5 {
        let mut interval = Interval::starting(second * 1_000_000_000);
        interval.length_ns = 1_000_000_000;
        let flags = Flags::LEVEL_KNOWN | Flags::REASON_KNOWN | Flags::PIN_WRITES_KNOWN;
        for n in 0..100 {
            let mut event = Event { exit_ns: 900 + n, seq: 1, exit_reason: 10, flags, isa: 1, ..Event::default() };
            event.previous = event.outline();
            interval.record(&event, &vm);
        }
        (interval.totals.entries, interval.totals.delivered) = (100, 100);
        writer.write(&interval).unwrap();
    }
    bytes
}

/// A recording in the folder whose third interval has a changed histogram.
fn damaged(folder: &Folder, name: &str) -> String {
    let path = folder.file(name);
    let text = String::from_utf8(recording(0)).unwrap();
    let mut places = text.match_indices("HISTFAAA").map(|(at, _)| at);
    let third = places.nth(2 * 3).unwrap();
    let mut bytes = text.into_bytes();
    bytes[third + 20] ^= 1;
    fs::write(&path, bytes).unwrap();
    path
}

/// A whole recording in the folder.
fn whole(folder: &Folder, name: &str, hours_later: u64) -> String {
    let path = folder.file(name);
    fs::write(&path, recording(hours_later)).unwrap();
    path
}

#[test]
fn a_damaged_recording_is_one_error_that_names_the_line_and_the_flag() {
    let folder = Folder::new("refused");
    let (damaged, other) = (damaged(&folder, "damaged.hlog"), whole(&folder, "other.hlog", 1));
    let merged = folder.file("merged.hlog");
    for args in [
        &["report", &damaged][..],
        &["report", &damaged, "--claims"],
        &["compare", &damaged, &other],
        &["merge", "-o", &merged, &other, &damaged],
        &["live", &damaged],
        &["export", "--listen", "127.0.0.1:0", "--replay", &damaged],
    ] {
        let output = vmentry(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = err(&output);
        let last = said.trim_end().lines().last().unwrap().to_owned();
        assert!(last.contains("damaged.hlog: line ") && last.contains("--skip-damaged"), "{args:?}: {said}");
    }
    assert!(!fs::exists(&merged).unwrap(), "nothing is left of a merge that failed");
}

#[test]
fn with_skip_damaged_the_rest_is_reported_in_every_format_and_the_damage_first() {
    let folder = Folder::new("report");
    let damaged = damaged(&folder, "damaged.hlog");
    let report = |more: &[&str]| vmentry(&[&["report", "--skip-damaged", &damaged], more].concat());
    for (format, first) in [
        (&["--format", "text"][..], true),
        (&["--claims"], true),
        (&["--format", "html"], false),
        (&["--format", "csv"], false),
        (&["--format", "openmetrics"], false),
        (&["--format", "json"], false),
    ] {
        let output = report(format);
        assert_eq!(output.status.code(), Some(1), "{format:?}");
        let what = "damaged.hlog: 1 interval left out (line ";
        assert!(err(&output).contains(&format!("DAMAGED: {}", folder.file(what))), "{format:?}: {}", err(&output));
        assert!(!first || out(&output).starts_with("DAMAGED: "), "{format:?}");
        assert!(format[1..] != ["html"] || out(&output).contains("DAMAGED:"));
    }
    assert!(out(&report(&[])).contains("\nno loss in the rest: 400 entries"));
    let json: serde_json::Value = serde_json::from_slice(&report(&["--format", "json"]).stdout).unwrap();
    assert_eq!((&json["totals"]["entries"], &json["damaged"][0]["intervals"]), (&400.into(), &1.into()));
    let whole = vmentry(&["report", "--skip-damaged", "--format", "json", &whole(&folder, "whole.hlog", 0)]);
    assert_eq!(whole.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&whole.stdout).unwrap();
    assert_eq!((&json["totals"]["entries"], &json["damaged"]), (&500.into(), &serde_json::json!([])));
}

#[test]
fn a_merge_and_a_comparison_carry_the_damage_on() {
    let folder = Folder::new("merge");
    let (damaged, other, merged) =
        (damaged(&folder, "damaged.hlog"), whole(&folder, "other.hlog", 1), folder.file("merged.hlog"));
    let output = vmentry(&["merge", "--skip-damaged", "-o", &merged, &damaged, &other]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
    let report = vmentry(&["report", &merged]);
    // The merge itself is whole, and it says what it lacks.
    assert_eq!(report.status.code(), Some(1));
    assert!(out(&report).starts_with(&format!("DAMAGED: {damaged}: 1 interval left out (line ")), "{}", out(&report));
    assert!(out(&report).contains("900 entries"), "{}", out(&report));
    for format in ["text", "json", "html"] {
        let output = vmentry(&["compare", "--skip-damaged", "--format", format, &damaged, &other]);
        assert_eq!(output.status.code(), Some(1), "{format}: {}", err(&output));
        let first = ["DAMAGED: ", "DAMAGED:", "\"damaged\": [\n    {"];
        assert!(first.iter().any(|text| out(&output).contains(text)), "{format}: {}", out(&output));
    }
}

#[test]
fn a_replay_without_a_terminal_prints_what_is_whole_and_says_the_rest() {
    let folder = Folder::new("live");
    let output = vmentry(&["live", "--skip-damaged", &damaged(&folder, "damaged.hlog"), "--format", "jsonl"]);
    assert_eq!((output.status.code(), out(&output).lines().count()), (Some(1), 4), "{}", err(&output));
    assert!(err(&output).contains("DAMAGED: "), "{}", err(&output));
}

#[test]
fn an_exporter_serves_what_is_whole_and_fails_at_its_end() {
    let folder = Folder::new("export");
    let damaged = damaged(&folder, "damaged.hlog");
    let args = ["export", "--skip-damaged", "--listen", "127.0.0.1:0", "--replay", &damaged];
    // It serves until it is told to end, which a failed test would not do.
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "60", env!("CARGO_BIN_EXE_vmentry")]).args(args).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    while !(said.contains("/metrics") && said.contains("DAMAGED: ")) {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    let address = said.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut metrics = String::new();
    stream.read_to_string(&mut metrics).unwrap();
    assert!(metrics.contains("vmentry_ring_entries_total 400\n"), "{metrics}");
    // SAFETY: the child has not been waited for, so that the number is its own.
    assert_eq!(unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) }, 0);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_merge_that_fails_leaves_the_old_file() {
    let folder = Folder::new("old");
    let (damaged, merged) = (damaged(&folder, "damaged.hlog"), whole(&folder, "merged.hlog", 0));
    assert_eq!(vmentry(&["merge", "--overwrite", "-o", &merged, &damaged]).status.code(), Some(1));
    assert_eq!(fs::read(&merged).unwrap(), recording(0));
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2);
}

#[test]
fn an_empty_tail_as_after_a_power_failure_is_a_cut_and_no_damage() {
    let folder = Folder::new("tail");
    let file = folder.file("tail.hlog");
    fs::write(&file, [recording(0), vec![0; 4096]].concat()).unwrap();
    let output = vmentry(&["report", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("500 entries") && out(&output).contains("cut off within"), "{}", out(&output));
}
