//! The real binary's commands that read recordings: wrong command lines, filters, recordings that are given twice or overlap.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// 272 entries of five VMs within 0.312 s, recorded in the lab.
const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lab.hlog");

fn vmentry(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vmentry")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What is said about a wrong command line, which ends with 2 and prints nothing else.
fn wrong(args: &[&str]) -> String {
    let output = vmentry(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    assert_eq!(out(&output), "", "{args:?}");
    err(&output)
}

/// A copy of the lab's recording with some of its text replaced.
fn lab(name: &str, changes: &[(&str, &str)]) -> PathBuf {
    let mut text = fs::read_to_string(LAB).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let path = std::env::temp_dir().join(format!("vmentry-readers-{}-{name}", std::process::id()));
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_wrong_command_line_is_refused_with_2_before_any_recording_is_read() {
    for (args, why) in [
        (&["report", "/none", "--filter", "foo=1"][..], "there is no dimension 'foo'"),
        (&["report", "/none", "--filter", "reason=CPUD"], "'cpud' is not an exit reason"),
        (&["report", "/none", "--by", "colour"], "level"),
        (&["report", "/none", "--claims", "--format", "csv"], "text or json"),
        (&["report", "-", "--claims"], "name a file"),
        (&["report", "/none", "--format", "openmetrics", "--by", "vm"], "leave --by and --top out"),
        (&["compare", "/none", "/none", "--filter", "level=L3"], "L1, L2"),
        (&["compare", "/none", "/none", "--fail-if", "p99>+3%"], "there is no 'p99' (there are: entry_to_exit_ns.p50"),
        (&["compare", "/none", "/none", "--fail-if", "pin_writes.mean>+3ms"], "plain number"),
        (&["compare", LAB], "one recording: name A and B"),
        (&["compare", LAB, LAB, LAB], "3 recordings: name A and B"),
        (&["merge", "-", "-o", "/none/x"], "name a file"),
        (&["merge", LAB, "-o", LAB], "both read and written"),
        (&["ab", "-o", "-"], "name a file"),
        (&["ab", "--arm", "a=true"], "needs two settings, and not 1"),
        (&["ab", "--policies", "soft"], "needs two policies"),
    ] {
        let said = wrong(args);
        assert!(said.contains(why), "{args:?}: {said}");
    }
}

#[test]
fn the_help_names_every_exit_code_that_a_script_may_see() {
    for (args, codes) in [(&["--help"][..], "3 and 4"), (&["compare", "--help"], "3 one holds")] {
        assert!(out(&vmentry(args)).contains(codes), "{args:?}");
    }
}

#[test]
fn a_filter_takes_reasons_by_number_and_refuses_what_the_recording_has_not() {
    let entries = |filter: &str| {
        let output = vmentry(&["report", LAB, "--filter", filter, "--format", "json", "--by", "reason"]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        json["series"].as_array().unwrap().iter().map(|row| row["entries"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(entries("reason=10"), entries("reason=CPUID"));
    assert_eq!(entries("reason=0xa"), 97);
    for format in ["text", "json", "csv", "html", "openmetrics"] {
        let said = wrong(&["report", LAB, "--filter", "reason=VMCALL", "--format", format]);
        assert!(said.contains("no entry passes") && said.contains("PREEMPTION_TIMER"), "{format}: {said}");
        let said = wrong(&["report", LAB, "--filter", "vm=cpuid,htl", "--format", format]);
        assert!(said.contains("'htl'") && said.contains("cpuid, hlt, immediate"), "{format}: {said}");
    }
    let other = lab("other", &[("10213535886", "10213535887")]);
    let said = wrong(&["compare", LAB, other.to_str().unwrap(), "--filter", "vm=htl"]);
    assert!(said.contains("'htl'") && said.contains("immediate"), "{said}");
    fs::remove_file(other).unwrap();
}
