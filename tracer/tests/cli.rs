//! The real binary on made and damaged recordings: text for people, JSON for programs, one clear error for the rest.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

mod binary;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use binary::{err, out, vmentry};

/// Real entries of a guest that armed 23 timers, did 97 CPUIDs and took 7 forced exits, recorded in the lab.
const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lab.hlog");

fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(out(output), "", "nothing goes to standard output");
    let error = err(output);
    assert!(error.starts_with("vmentry: "), "{error}");
    error
}

fn temporary(name: &str, bytes: &[u8]) -> PathBuf {
    let (mut file, path) = tempfile::Builder::new().prefix(name).tempfile().unwrap().keep().unwrap();
    file.write_all(bytes).unwrap();
    path
}

fn report_on(name: &str, bytes: &[u8]) -> Output {
    let path = temporary(name, bytes);
    let output = vmentry(&["report", path.to_str().unwrap()]);
    fs::remove_file(path).unwrap();
    output
}

#[test]
fn a_page_and_a_spreadsheet_of_the_lab_say_that_it_was_emulated() {
    let page = out(&vmentry(&["report", RECORDING, "--format", "html"]));
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    for text in ["EMULATED", "PREEMPTION_TIMER", "prefers-color-scheme: dark", "kvm_intel"] {
        assert!(page.contains(text), "{text}");
    }
    let output = vmentry(&["report", RECORDING, "--format", "csv", "--by", "reason"]);
    let csv = out(&output);
    assert!(csv.starts_with("exit_reason,entries,observed_ns,entries_per_second,"), "{csv}");
    assert!(csv.contains("\r\nCPUID,97,") && csv.contains(",EMULATED,records,"), "{csv}");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("no loss: 272 entries"));
    for format in ["html", "csv"] {
        assert_eq!(vmentry(&["report", RECORDING, "--claims", "--format", format]).status.code(), Some(2));
    }
}

#[test]
fn a_report_shows_the_known_exits_of_the_lab() {
    let output = vmentry(&["report", RECORDING, "--format", "json", "--by", "reason,cause"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let entries = |reason: &str, cause: Option<&str>| {
        let rows = json["series"].as_array().unwrap();
        let row = rows.iter().find(|r| r["exit_reason"] == reason && r["timer_cause"].as_str() == cause);
        row.map_or(0, |r| r["entries"].as_u64().unwrap())
    };
    assert_eq!(entries("PREEMPTION_TIMER", Some("deadline")), 23);
    assert_eq!(entries("PREEMPTION_TIMER", Some("immediate")), 7);
    assert_eq!(entries("CPUID", None), 97);
    assert_eq!(json["emulated"], true);
    assert_eq!(json["totals"]["timer_exits"]["spurious"], 0);
}

#[test]
fn a_text_report_says_emulated_and_its_loss_first() {
    let text = out(&vmentry(&["report", RECORDING]));
    let mut lines = text.lines();
    assert!(lines.next().unwrap().starts_with("no loss: "), "{text}");
    assert!(lines.next().unwrap().starts_with("EMULATED"), "{text}");
    assert!(text.is_ascii() && !text.contains('\x1b'), "no colours, no surprises");
}

#[test]
fn a_recording_can_come_through_a_pipe() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vmentry"))
        .args(["report", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&fs::read(RECORDING).unwrap()).unwrap();
    assert!(out(&child.wait_with_output().unwrap()).contains("PREEMPTION_TIMER"));
}

#[test]
fn a_closed_pipe_is_no_error() {
    for args in [&["report", RECORDING, "--format", "json"][..], &["merge", RECORDING, "-o", "-"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmentry"));
        let mut child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()), "{args:?}");
    }
}

#[test]
fn a_truncated_recording_gives_what_is_whole_and_says_so() {
    let bytes = fs::read(RECORDING.replace("lab", "known-exits")).unwrap();
    let output = report_on("torn", &bytes[..bytes.len() * 9 / 10]);
    assert!(output.status.success());
    assert!(out(&output).contains("cut off"), "{}", out(&output));
}

#[test]
fn foreign_and_damaged_files_are_refused_by_name() {
    assert!(error(&report_on("perf.data", b"PERFILE2\x68\0\0\0")).contains("not a vmentry recording"));
    assert!(error(&report_on("empty", b"")).contains("empty"));
    let mut bytes = fs::read(RECORDING).unwrap();
    let at = bytes.windows(5).position(|w| w == b",HIST").unwrap();
    bytes[at + 40] ^= 0x15;
    let damaged = error(&report_on("damaged", &bytes));
    assert!(damaged.contains("line ") && damaged.contains("damaged"), "{damaged}");
    assert!(error(&vmentry(&["report", "/no/such/file"])).contains("/no/such/file"));
    assert!(error(&vmentry(&["report", "/"])).contains("folder"));
}

#[test]
fn wrong_flags_exit_2_with_what_there_is() {
    let usage = |args: &[&str]| {
        let output = vmentry(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(usage(&["exercise", "dance"]).contains("tsc-deadline"));
    assert!(usage(&["merge"]).contains("FILE"));
    assert!(usage(&["report", "x", "--sort", "colour"]).contains("entry_to_exit_ns.p99"));
    assert!(usage(&["report", "x", "--by", "colour"]).contains("level"));
    assert!(usage(&["record", "--duration", "soon"]).contains("use ms, s, m or h"));
}

#[test]
fn a_wrong_command_line_is_refused_before_the_host_is_looked_at() {
    let wrong = [
        (&["record", "--ring-kib", "3"][..], "e.g. 4"),
        (&["record", "--with-latency"], "--exact-writes"),
        (&["ab", "--ring-kib", "3"], "power of two"),
        (&["exercise", "cpuid", "--vcpus", "65"], "64"),
        (&["exercise", "cpuid", "--count", "0"], "at least 1"),
        (&["exercise", "cpuid", "--delta", "0"], "at least 1"),
        (&["exercise", "cpuid", "--limit", "7"], "--limit is for early only"),
        (&["exercise", "early", "--vcpus", "2"], "leave out --vcpus and --delta"),
        (&["calibrate", "--samples", "1"], "20"),
        (&["calibrate", "--exit", "dance"], "tsc-deadline"),
        (&["export", "--max-series", "0"], "1000000"),
        (&["export", "--listen", "localhost"], "--listen"),
        (&["policy", "medium"], "hard"),
        (&["policy", "--", "true"], "soft|hard"),
        (&["report", "a.hlog", "--by", "vm,reason,vm"], "--by: vm is given twice"),
    ];
    for (args, said) in wrong {
        let output = vmentry(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(said), "{args:?}: {error}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn without_a_command_and_a_terminal_the_help_goes_to_standard_error() {
    let output = vmentry(&[]);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(2), ""));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Usage: vmentry"));
}

#[test]
fn the_help_lists_every_exit_code() {
    let help = out(&vmentry(&["--help"]));
    let codes = help.split("Exit codes:").nth(1).unwrap();
    for code in ["0 ", "1 ", "2 ", "3 ", "4 ", "126 ", "127 ", "128 plus"] {
        assert!(codes.contains(code), "{code}: {codes}");
    }
}

#[test]
fn help_and_messages_name_no_file_that_only_the_source_has() {
    let commands =
        ["check", "live", "record", "report", "ab", "compare", "merge", "export", "policy", "exercise", "calibrate"];
    let helps = commands.map(|command| out(&vmentry(&[command, "--help"])));
    for (command, help) in commands.iter().zip(helps) {
        for folder in ["patches/", "docs/", "tracer/", "lab/"] {
            assert!(!help.contains(folder), "{command} --help names {folder}");
        }
    }
}

/// Start, length and entries of each interval of a recording, in ns since its first one.
fn intervals(recording: &str) -> Vec<(u64, u64, u64)> {
    let text = fs::read_to_string(recording).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("#{\"interval\""));
    let all = lines.map(|line| {
        let line: serde_json::Value = serde_json::from_str(&line[1..]).unwrap();
        let of = |field: &str| line["interval"][field].as_u64().unwrap();
        (of("start_ns"), of("length_ns"), line["interval"]["totals"]["entries"].as_u64().unwrap())
    });
    let all: Vec<_> = all.collect();
    all.iter().map(|(start, length, entries)| (start - all[0].0, *length, *entries)).collect()
}

#[test]
fn a_report_on_a_part_of_the_time_counts_the_intervals_that_begin_in_it() {
    let file = RECORDING.replace("lab.hlog", "soft-hard.hlog");
    let all = intervals(&file);
    let counted = |span: &[&str]| {
        let output = vmentry(&[&["report", &file, "--json", "--by", "reason"], span].concat());
        assert!(output.status.success(), "{output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(json["shown"].as_str().unwrap().ends_with(&format!("of {}", span.join(" "))), "{}", json["shown"]);
        let recording = &json["recordings"][0];
        assert_eq!((&recording["ended"], recording["accounting"].is_null()), (&"rounds".into(), true));
        let of_rows =
            json["series"].as_array().unwrap().iter().map(|row| row["entries"].as_u64().unwrap()).sum::<u64>();
        assert_eq!(of_rows, json["totals"]["delivered"].as_u64().unwrap());
        let count = |value: &serde_json::Value| value.as_u64().unwrap();
        (count(&recording["intervals"]), count(&recording["length_ns"]), count(&json["totals"]["entries"]))
    };
    let expected = |from_s: f64, to_s: f64| {
        let is_in = |start: u64| (from_s..to_s).contains(&(start as f64 / 1e9));
        let of = all.iter().filter(|(start, ..)| is_in(*start));
        of.fold((0, 0, 0), |(n, ns, sum), (_, length, entries)| (n + 1, ns + length, sum + entries))
    };
    let (begin, end) = (f64::NEG_INFINITY, f64::INFINITY);
    let length_s = all.iter().map(|(_, length, _)| *length as f64 / 1e9).sum::<f64>();
    for (span, from_s, to_s) in [
        (&["--since", "10s", "--until", "20s"][..], 10.0, 20.0),
        (&["--since", "20s"], 20.0, end),
        (&["--until", "10s"], begin, 10.0),
        (&["--since", "-5s"], length_s - 5.0, end),
        // The first interval begins at 22:13:49.487.
        (&["--since", "22:14:00", "--until", "2023-11-14 22:14:10.5"], 10.513, 21.013),
        (&["--until", "2024-01-01 00:00"], begin, end),
    ] {
        assert_eq!(counted(span), expected(from_s, to_s), "{span:?}");
        assert!(counted(span).0 > 10);
    }
    let text = out(&vmentry(&["report", &file, "--since", "10s", "--until", "10.2s"]));
    let shown = "SHOWN: 1 interval, 2023-11-14 22:13:59 to 2023-11-14 22:13:59 UTC, of --since 10s --until 10.2s\n";
    assert!(text.starts_with(shown) && text.contains("no loss in this part: "), "{text}");
    for format in ["html", "csv", "openmetrics"] {
        let output = vmentry(&["report", &file, "--since", "10s", "--format", format]);
        assert!((out(&output) + &err(&output)).contains("of --since 10s"), "{format}");
    }
}

#[test]
fn a_part_of_a_merge_is_that_part_of_its_recordings() {
    let folder = tempfile::tempdir().unwrap();
    let merge = folder.path().join("merge.hlog").to_str().unwrap().to_owned();
    let [one, other] = ["soft-hard.hlog", "known-exits.hlog"].map(|name| RECORDING.replace("lab.hlog", name));
    assert!(vmentry(&["merge", "-o", &merge, &one, &other]).status.success());
    let of = |files: &[&str]| {
        let span = ["--since", "2023-11-14 22:13:45", "--until", "2023-11-14 22:13:55", "--json"];
        let output = vmentry(&[&["report"], files, &span].concat());
        let mut json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        [json["shown"].take(), json["totals"].take(), json["series"].take(), json["length_ns"].take()]
    };
    let together = of(&[&one, &other]);
    assert!(together[1]["entries"].as_u64().unwrap() > 1000, "{together:?}");
    assert_eq!(of(&[&merge]), together);
}

#[test]
fn a_part_of_the_time_without_an_interval_is_refused_with_the_recordings_own_time() {
    let file = RECORDING.replace("lab.hlog", "soft-hard.hlog");
    let own = "2023-11-14 22:13:49 to 2023-11-14 22:14:18 UTC";
    for (span, why) in [
        (&["--since", "1h"][..], "no interval begins in --since 1h: "),
        (&["--since", "20s", "--until", "10s"], "--since 20s --until 10s is no span: 2023-11-14 22:14:09 to "),
        (&["--since", "20s", "--until", "20s"], "--since 20s --until 20s is no span: "),
        (&["--until", "2023-11-14 22:00"], "no interval begins in --until 2023-11-14 22:00: "),
        (&["--since", "22:00"], "22:00 is outside the recording: "),
    ] {
        let output = vmentry(&[&["report", &file], span].concat());
        let said = err(&output);
        assert!(output.status.code() == Some(2) && said.contains(why) && said.contains(own), "{output:?}");
    }
    let typed = err(&vmentry(&["report", &file, "--since", "soon"]));
    assert!(typed.contains("90s") && typed.contains("HH:MM:SS"), "{typed}");
    let piped = err(&vmentry(&["report", "-", "--since", "1s"]));
    assert!(piped.contains("save it in a file"), "{piped}");
    let empty = err(&vmentry(&["report", "/dev/null", "--since", "1s"]));
    assert_eq!(empty.matches("read /dev/null").count(), 1, "{empty}");
}

#[test]
fn live_begins_at_the_interval_of_a_moment() {
    let file = RECORDING.replace("lab.hlog", "soft-hard.hlog");
    let all = intervals(&file);
    let entries = |at: &str| {
        let output = vmentry(&["live", &file, "--once", "--json", "--at", at]);
        let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        line["entries"].as_u64().unwrap()
    };
    let at = |seconds: f64| all.iter().rev().find(|(start, ..)| *start as f64 / 1e9 <= seconds).unwrap().2;
    let length_s = all.iter().map(|(_, length, _)| *length as f64 / 1e9).sum::<f64>();
    for (text, seconds) in [("0", 0.0), ("10s", 10.0), ("-3s", length_s - 3.0), ("22:14:00", 10.513), ("-0s", 1e9)] {
        assert_eq!(entries(text), at(seconds), "{text}");
    }
    let lines = out(&vmentry(&["live", &file, "--json", "--at", "10s"]));
    assert_eq!(lines.lines().count(), all.iter().filter(|i| i.0 + i.1 > 10_000_000_000).count());
    let outside = error(&vmentry(&["live", &file, "--once", "--at", "99s"]));
    assert!(outside.contains("99s is outside the recording: 2023-11-14 22:13:49 to"), "{outside}");
    let live = vmentry(&["live", "--at", "10s"]);
    assert!(live.status.code() == Some(2) && err(&live).contains("FILE"), "{live:?}");
}

#[test]
fn help_fits_a_terminal_and_shows_examples() {
    let commands = [
        &["--help"][..],
        &["record", "--help"],
        &["report", "--help"],
        &["check", "--help"],
        &["export", "--help"],
        &["merge", "--help"],
    ];
    for command in commands {
        let output = Command::new(env!("CARGO_BIN_EXE_vmentry")).args(command).env("COLUMNS", "80").output().unwrap();
        let text = out(&output);
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{command:?} is too wide");
        assert!(text.lines().count() <= 48, "{command:?} is too long: {}", text.lines().count());
        assert!(command.len() == 2 && command[0] == "check" || text.contains("Examples:"), "{command:?}");
    }
}

#[test]
fn check_speaks_json_with_every_problem() {
    let output = vmentry(&["check", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["format"], "vmentry-check/1");
    let problems = json["problems"].as_array().unwrap();
    assert_eq!(output.status.success(), problems.iter().all(|p| p["severity"] != "error"), "{json}");
    // Only exits that arrived make a host ready.
    let proven = json["proof"]["outcome"] == "passed";
    assert_eq!(json["ready"].as_bool(), Some(proven && output.status.success()), "{json}");
    for problem in problems {
        assert!(problem["fix"].as_str().is_some_and(|f| !f.is_empty()), "{problem}");
    }
    assert!(Path::new(RECORDING).exists());
}

#[test]
fn a_host_without_the_timer_does_not_know_whether_it_fires_early() {
    if Path::new("/sys/module/kvm_intel").exists() {
        eprintln!("SKIPPED: kvm_intel is loaded, so the answer is this host's own");
        return;
    }
    let json = |args: &[&str]| -> serde_json::Value { serde_json::from_slice(&vmentry(args).stdout).unwrap() };
    let early = json(&["exercise", "early", "--format", "json"]);
    assert_eq!((&early["verdict"], &early["timers"]), (&"unknown".into(), &serde_json::json!([])));
    assert!(early["why"].as_str().unwrap().contains("kvm_intel runs no VMs here"), "{early}");
    let check = json(&["check", "--no-proof", "--probe", "--format", "json"]);
    assert_eq!((&check["probe"]["verdict"], &check["probe"]["why"]), (&early["verdict"], &early["why"]));
    let text = out(&vmentry(&["check", "--no-proof", "--probe"]));
    assert!(text.contains("\nearly timers        unknown: kvm_intel runs no VMs here"), "{text}");
}

#[test]
fn check_without_a_proof_says_so_and_is_not_ready() {
    let output = vmentry(&["check", "--no-proof", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["ready"], &json["proof"]["outcome"]), (&false.into(), &"not_made".into()));
    let text = out(&vmentry(&["check", "--no-proof"]));
    assert!(text.contains("\nproof               not made: --no-proof\n"), "{text}");
    assert!(!text.contains("\nready"), "{text}");
}

#[test]
fn a_report_is_written_in_the_format_of_its_suffix_and_replaces_nothing_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (name, format) in
        [("a.json", "json"), ("a.html", "html"), ("a.CSV", "csv"), ("a.txt", "text"), ("a.prom", "openmetrics")]
    {
        let written = vmentry(&["report", RECORDING, "-o", &path(name)]);
        assert_eq!((written.status.code(), out(&written).as_str()), (Some(0), ""), "{}", err(&written));
        let printed = out(&vmentry(&["report", RECORDING, "--format", format]));
        assert_eq!(fs::read_to_string(path(name)).unwrap(), printed, "{name}");
    }
    let again = error(&vmentry(&["report", RECORDING, "-o", &path("a.json")]));
    assert!(again.contains("--overwrite"), "{again}");
    assert!(vmentry(&["report", RECORDING, "-o", &path("a.json"), "--overwrite"]).status.success());
    let unknown = vmentry(&["report", RECORDING, "-o", &path("a.pdf")]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(err(&unknown).contains(".html") && !Path::new(&path("a.pdf")).exists(), "{}", err(&unknown));
    assert!(vmentry(&["report", RECORDING, "-o", &path("a.pdf"), "--json"]).status.success());
}

#[test]
fn a_comparison_is_written_in_the_format_of_its_suffix_and_a_contradiction_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let other = RECORDING.replace("lab.hlog", "known-exits.hlog");
    for (name, format) in [("a.json", "json"), ("a.html", "html"), ("a.MD", "markdown"), ("a.txt", "text")] {
        let written = vmentry(&["compare", RECORDING, &other, "-o", &path(name)]);
        assert_eq!((written.status.code(), out(&written).as_str()), (Some(0), ""), "{}", err(&written));
        let printed = out(&vmentry(&["compare", RECORDING, &other, "--format", format]));
        assert_eq!(fs::read_to_string(path(name)).unwrap(), printed, "{name}");
    }
    let again = error(&vmentry(&["compare", RECORDING, &other, "-o", &path("a.json")]));
    assert!(again.contains("--overwrite"), "{again}");
    for args in [&["report", RECORDING, "--json", "-o"][..], &["compare", RECORDING, &other, "--json", "-o"]] {
        let file = path("y.html");
        let refused = vmentry(&[args, &[&file]].concat());
        assert_eq!(refused.status.code(), Some(2));
        assert!(err(&refused).contains("json is asked for") && err(&refused).contains("y.json"), "{}", err(&refused));
        assert!(!Path::new(&file).exists());
    }
    let over_itself = vmentry(&["compare", RECORDING, &other, "--overwrite", "--json", "-o", RECORDING]);
    assert_eq!(over_itself.status.code(), Some(2), "{}", err(&over_itself));
}

#[test]
fn a_recording_that_was_cut_off_or_has_no_entries_is_said_to_be_so() {
    let bytes = fs::read(RECORDING).unwrap();
    let cut = temporary("cut", &bytes[..bytes.len() * 9 / 10]);
    let live = vmentry(&["live", "--lines", cut.to_str().unwrap()]);
    fs::remove_file(cut).unwrap();
    assert!(live.status.success() && err(&live).contains("cut off: "), "{}", err(&live));
    assert!(!err(&vmentry(&["live", "--lines", RECORDING])).contains("cut off"));
    let header = bytes.split_inclusive(|byte| *byte == b'\n').take(2).flatten().copied().collect::<Vec<_>>();
    let empty = temporary("empty", &header);
    let compared = error(&vmentry(&["compare", empty.to_str().unwrap(), &RECORDING.replace("lab", "known-exits")]));
    fs::remove_file(empty).unwrap();
    assert!(compared.contains("A has no VM entries"), "{compared}");
}

#[test]
fn a_shell_gets_names_for_what_it_completes() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(RECORDING, folder.path().join("z.hlog")).unwrap();
    fs::write(folder.path().join("notes.txt"), "").unwrap();
    for (words, wanted, unwanted) in [
        (&["help", "fig"][..], "figures", "formats"),
        (&["report", ""], "z.hlog", "notes.txt"),
        (&["live", ""], "z.hlog", "notes.txt"),
        (&["report", "--sort", "gu"], "guest.p99.9", "host.p50"),
        (&["report", "--filter", "reason=CPU"], "reason=CPUID", "reason=HLT"),
        (&["compare", "--fail-if", "pin"], "pin_writes.mean>+3%", "entries"),
        (&["ab", "--until", ""], "decided", "soft"),
        (&["ab", "--primary", "pin"], "pin_writes.mean", "entries"),
        (&["ab", "--arm", "go"], "governor=", "thp="),
        (&["record", "--", "slee"], "sleep", "z.hlog"),
        (&["record", "--", "sleep", ""], "notes.txt", "governor"),
        (&["ma"], "man", "report"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmentry"));
        command.env("COMPLETE", "fish").current_dir(&folder).args(["--", "vmentry"]).args(words);
        let said = out(&command.output().unwrap());
        let names: Vec<_> = said.lines().map(|line| line.split('\t').next().unwrap()).collect();
        assert!(names.contains(&wanted) && !names.iter().any(|name| name.starts_with(unwanted)), "{words:?}: {said}");
    }
}

#[test]
fn a_report_without_a_file_is_of_the_last_recording_here() {
    let folder = tempfile::tempdir().unwrap();
    let report = || Command::new(env!("CARGO_BIN_EXE_vmentry")).arg("report").current_dir(&folder).output().unwrap();
    let none = error(&report());
    assert!(none.contains("there is no vmentry.hlog in this folder") && none.contains("'vmentry record'"), "{none}");
    fs::copy(RECORDING, folder.path().join("vmentry.hlog")).unwrap();
    assert_eq!(out(&report()), out(&vmentry(&["report", RECORDING])).replace(RECORDING, "vmentry.hlog"));
}

#[test]
fn json_has_a_short_form_in_every_command_that_prints_it() {
    let long = out(&vmentry(&["report", RECORDING, "--format", "json"]));
    assert_eq!(out(&vmentry(&["report", RECORDING, "--json"])), long);
    let long = out(&vmentry(&["live", RECORDING, "--format", "jsonl"]));
    assert_eq!(out(&vmentry(&["live", RECORDING, "--json"])), long);
    assert_eq!(vmentry(&["report", RECORDING, "--json", "--format", "csv"]).status.code(), Some(2));
}

#[test]
fn what_people_type_first_is_answered_with_what_they_meant() {
    for (arguments, expected) in [
        (&["record", "sleep", "1"][..], "write -- before it: vmentry record -- sleep 1"),
        (&["live", "web1"], "vmentry live --vm web1"),
        (&["report", RECORDING, "--filter", "resaon=HLT"], "did you mean reason?"),
        (&["report", RECORDING, "--filter", "reason=PREEMTION_TIMER"], "did you mean PREEMPTION_TIMER?"),
        (&["report", RECORDING, "--sort", "entry_to_exit.p99"], "did you mean entry_to_exit_ns.p99?"),
        (&["record", "--flight-recorder", "2s", "--trigger", "entry_to_exit>1ms"], "did you mean entry_to_exit_ns?"),
        (&["record", "--vcpu", "3-0"], "write 0-3"),
        (&["record", "--flight-recorder", "2s", "--trigger", "cause=spurios"], "did you mean spurious?"),
        (&["report", RECORDING, "--sort", "exit.p99"], "did you mean exit_to_entry_ns.p99?"),
        (&["report", RECORDING, "--top", "al"], "did you mean all?"),
        (&["report", &RECORDING.replace("lab", "lba")], "did you mean "),
        (&["live", "--lines", &RECORDING.replace("lab", "lba")], "did you mean "),
        (&["ab", "--until", "decidet"], "did you mean decided?"),
        (&["ab", "--primary", "guset.p50"], "did you mean guest.p50?"),
        (&[RECORDING], "did you mean 'vmentry report /"),
        (&["export", RECORDING], "vmentry export --replay /"),
        (&["compare"], "vmentry compare A.hlog B.hlog"),
        (&["compare", RECORDING], "lab.hlog B.hlog"),
        (&["nosuch.hlog"], "there is no file nosuch.hlog"),
        (&["record", "out.hlog"], "vmentry record -o out.hlog"),
        (&["record", "-o", "out.html"], "name it out.hlog"),
        (&["merge", RECORDING, "-o", "out.json"], "name it out.hlog"),
        (&["survey", "host.html"], "vmentry survey -o host.html"),
        (&["merge", RECORDING, RECORDING, "all.hlog"], "vmentry merge -o all.hlog /"),
        (&["report", "--replay", RECORDING], "leave --replay out: vmentry report /"),
        (&["live", "--count", "0"], "at least 1"),
        (&["report", RECORDING, "-o", "/no/folder/a.html"], "its folder does not exist"),
        (&["man", RECORDING], "choose another name"),
        (&["export", "--vm-label-rules", "/nosuch"], "vmentry help metrics"),
        (
            &["compare", RECORDING, RECORDING, "--fail-if", "entry_to_exit.p99>+3%"],
            "did you mean entry_to_exit_ns.p99?",
        ),
    ] {
        let output = vmentry(arguments);
        let (code, error) = (output.status.code(), err(&output));
        assert!(matches!(code, Some(1 | 2)) && error.contains(expected), "{arguments:?}: {code:?}: {error}");
    }
}

#[test]
fn no_tip_leads_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab.hlog");
    fs::copy(RECORDING, &file).unwrap();
    let file = file.to_str().unwrap();
    for (arguments, misleading) in [(&["lab.hlog"][..], "'ab'"), (&["report", "--replay", file], "-- --replay")] {
        let run = binary::command(arguments).current_dir(&folder).output().unwrap();
        assert_eq!(run.status.code(), Some(2));
        assert!(!err(&run).contains(misleading) && err(&run).contains("vmentry report "), "{}", err(&run));
    }
}

#[test]
fn a_folder_in_the_place_of_a_file_is_said_to_be_one() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("d.html");
    fs::create_dir(&page).unwrap();
    let refused = error(&vmentry(&["report", RECORDING, "-o", page.to_str().unwrap()]));
    assert!(refused.contains("it is a folder: name a file in it, such as "), "{refused}");
}

#[test]
fn formats_shells_and_topics_are_understood_in_any_case() {
    let same = |one: &[&str], other: &[&str]| {
        let (one, other) = (vmentry(one), vmentry(other));
        assert!(one.status.success(), "{}", err(&one));
        assert_eq!(out(&one), out(&other));
    };
    same(&["report", RECORDING, "--format", "JSON"], &["report", RECORDING, "--json"]);
    same(&["live", RECORDING, "--format", "json"], &["live", RECORDING, "--json"]);
    same(&["help", "FIGURES"], &["help", "figures"]);
    same(&["help", "Report"], &["help", "report"]);
    same(&["completions", "BASH"], &["completions", "bash"]);
}

#[test]
fn a_recording_without_a_whole_interval_has_no_report() {
    let bytes = fs::read(RECORDING).unwrap();
    let header = bytes.split_inclusive(|byte| *byte == b'\n').take(2).flatten().copied().collect::<Vec<_>>();
    for more in [&[][..], &["--claims"], &["--json"]] {
        let cut = temporary("cut", &header);
        let refused = error(&vmentry(&[&["report", cut.to_str().unwrap()], more].concat()));
        fs::remove_file(cut).unwrap();
        assert!(refused.contains("cut off before the end of its first interval"), "{refused}");
    }
}

#[test]
fn a_full_disk_is_an_error_of_everything_that_prints() {
    for arguments in [&["--version"][..], &["--help"], &["help", "report"], &["help"], &["completions", "bash"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = binary::command(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(err(&output).starts_with("vmentry: write to standard output: "), "{arguments:?}: {}", err(&output));
    }
}

#[test]
fn a_man_page_says_of_which_version_it_is() {
    let folder = tempfile::tempdir().unwrap();
    assert!(vmentry(&["man", folder.path().to_str().unwrap()]).status.success());
    let page = fs::read_to_string(folder.path().join("vmentry-report.1")).unwrap();
    let title = page.lines().find(|line| line.starts_with(".TH ")).unwrap();
    assert!(title.contains(concat!("vmentry ", env!("CARGO_PKG_VERSION"))), "{title}");
    assert!(page.contains("[FILE]..."), "{page}");
    assert!(!page.contains(".SH EXTRA"), "{page}");
    // Conditions are no examples.
    let page = fs::read_to_string(folder.path().join("vmentry-record.1")).unwrap();
    let (before, examples) = page.split_once("\n.SH EXAMPLES\n").unwrap();
    assert!(before.contains("\n.SH NOTES\n.nf\n.in 2n\nConditions: ") && !examples.contains("Conditions"), "{page}");
    assert!(examples.starts_with(".nf\n.in 2n\n  vmentry record "), "{page}");
}
