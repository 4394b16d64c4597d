//! Completion of command lines in the shells themselves: what bash replaces and inserts, and what the others are offered.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

mod binary;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use binary::{command, err, out, text};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lab.hlog");

/// Prints what the function replies for the line $1 with the cursor at its end, as bash calls it.
const ASK: &str = r#"
    source <(vmentry completions bash)
    COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
    _vmentry vmentry "" ""
    printf '%s\n' "${COMPREPLY[@]}"
"#;

/// The replies of bash's function in a folder; none where there is no bash.
fn replies(folder: &Path, line: &str) -> Option<Vec<String>> {
    let programs = Path::new(env!("CARGO_BIN_EXE_vmentry")).parent().unwrap().to_str().unwrap();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ASK, "ask", line]).env("PATH", path).current_dir(folder).stdin(Stdio::null());
    let output = bash.output().ok()?;
    assert_eq!(text(&output.stderr), "", "{line}");
    Some(out(&output).lines().filter(|reply| !reply.is_empty()).map(str::to_owned).collect())
}

#[test]
fn bash_completes_behind_its_breaks_and_inserts_file_names_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for name in ["lab.hlog", "a b.hlog", "q'uo te.hlog", "do$HOME.hlog", "x[1].hlog", "x1.hlog"] {
        fs::copy(RECORDING, dir.join(name)).unwrap();
    }
    fs::write(dir.join("h.sh"), "").unwrap();
    fs::write(dir.join("new\nline.hlog"), "").unwrap();
    fs::create_dir(dir.join("out")).unwrap();
    for (line, expected) in [
        ("vmentry report --filter reason=HL", &["HLT"][..]),
        ("vmentry report --filter reason=HLT,CPUI", &["HLT,CPUID"]),
        ("vmentry report --filter vc", &["vcpu="]),
        ("vmentry report --filter level=", &["L1", "L2"]),
        // Names of VMs are not guessed, and files are none.
        ("vmentry report lab.hlog --filter vm=h", &[]),
        ("vmentry report lab.hlog --filter vm=", &[]),
        ("vmentry report --format=js", &["json"]),
        ("vmentry report --format js", &["json"]),
        ("vmentry export --replay=la", &["lab.hlog"]),
        ("vmentry export --listen unix:ou", &["out/"]),
        ("vmentry export --listen un", &["unix:"]),
        ("vmentry report a", &[r"a\ b.hlog"]),
        ("vmentry report 'a", &["a b.hlog"]),
        ("vmentry report q", &[r"q\'uo\ te.hlog"]),
        ("vmentry report do", &[r"do\$HOME.hlog"]),
        ("vmentry report x[", &[r"x\[1\].hlog"]),
        (r"vmentry report x\[", &[r"x\[1\].hlog"]),
        ("vmentry report x", &["x1.hlog", r"x\[1\].hlog"]),
        ("vmentry report new", &[]),
        ("vmentry report -o ou", &["out/"]),
        ("vmentry report lab.hlog > h", &["h.sh"]),
        ("vmentry report --sort p99.", &["p99.9"]),
        ("vmentry report --sort p9", &["p90", "p99", "p99.9"]),
        ("vmentry report --by reason,re", &[]),
        ("vmentry report --by vm,rea", &["vm,reason"]),
        ("vmentry export --vm-labels name,na", &["name,namespace"]),
        ("vmentry calibrate --exit hlt,cp", &["hlt,cpuid"]),
        ("vmentry ab --policies soft,", &["soft,hard"]),
        ("vmentry compare --fail-if pin_writes.m", &[r"pin_writes.mean\>+3%"]),
        ("vmentry rep", &["report"]),
    ] {
        let Some(mut replies) = replies(dir, line) else {
            eprintln!("SKIPPED: there is no bash here");
            return;
        };
        replies.sort();
        assert_eq!(replies, expected, "{line}");
    }
}

#[test]
fn a_list_offers_nothing_that_stands_in_it_in_any_shell() {
    for shell in ["fish", "zsh"] {
        let said = |words: &[&str]| {
            let mut asked = command(&[&["--", "vmentry"], words].concat());
            let index = words.len().to_string();
            out(&asked.env("COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", index).output().unwrap())
        };
        let by = said(&["report", "--by", "reason,"]);
        assert!(by.contains("reason,vcpu") && !by.contains("reason,reason"), "{shell}: {by}");
    }
}

#[test]
fn a_variable_of_another_program_breaks_no_command() {
    for value in ["1", "", "yes", "elvish"] {
        let output = command(&["--version"]).env("COMPLETE", value).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{value}: {}", err(&output));
        assert!(out(&output).starts_with("vmentry "), "{value}");
    }
}
