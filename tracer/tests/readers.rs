//! The real binary's commands that read recordings: wrong command lines, filters, recordings that are given twice or overlap.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

mod binary;

use std::{fs, io::Write, path::PathBuf};

use binary::{err, out, vmentry};

/// 272 entries of five VMs within 0.312 s, recorded in the lab.
const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lab.hlog");

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
    let (mut file, path) = tempfile::Builder::new().prefix(name).tempfile().unwrap().keep().unwrap();
    file.write_all(text.as_bytes()).unwrap();
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
        (&["compare", "/none", "/none", "--fail-if", "p98>+3%"], "there is no 'p98': there are entry_to_exit_ns.p50"),
        (&["compare", "/none", "/none", "--fail-if", "pin_writes.mean>+3ms"], "plain number"),
        (
            &["ab", "--primary", "entry_to_exit_nz.p50"],
            "did you mean entry_to_exit_ns.p50? there are entry_to_exit_ns.p50",
        ),
        (&["ab", "--primary", "zzz"], "there is no 'zzz': there are entry_to_exit_ns.p50"),
        (&["ab", "--arm", "governer=powersave", "--arm", "governor=performance"], "did you mean governor?"),
        (&["report", "/none", "--vm-labels", "uuid"], "--vm-labels is for --format openmetrics"),
        (&["compare", LAB], "one recording: name A and B"),
        (&["compare", LAB, LAB, LAB], "3 recordings: name A and B"),
        (&["merge", "-", "-o", "/none/x"], "name a file"),
        (&["merge", LAB, "-o", LAB], "both read and written"),
        (&["ab", "-o", "-"], "name a file"),
        (&["ab", "--arm", "a=true"], "needs two settings, and not 1"),
        (&["ab", "--policies", "soft"], "needs two policies"),
        (&["ab", "--arm", "thp=never", "--arm", "governor=powersave"], "the same setting"),
        (&["ab", "--arm", "thp=never", "--arm", "b=echo x"], "one is a value and one a command"),
        (&["ab", "--arm", "thp=never", "--arm", "thp=always", "--restore", "true"], "restores itself"),
        (&["ab", "--arm", "nohz=on", "--arm", "nohz=off"], "boot parameters"),
        (&["ab", "--arm", "/etc/passwd=x", "--arm", "/etc/passwd=y"], "only files below /sys and /proc/sys"),
        (&["ab", "--arm", "a=true", "--arm", "b=true", "--restore"], "give nothing else"),
        (&["ab", "--restore", "true"], "alone, without COMMAND"),
        (&["ab", "--restore", "--", "true"], "give nothing else"),
        (&["ab", "--rounds", "5", "--restore"], "give nothing else"),
        (&["ab", "--overwrite", "-o", "-", "--restore"], "give nothing else"),
        (&["ab", "--vm", "web1", "--restore"], "give nothing else"),
        (&["ab", "--until", "30h"], "-> --until 1000, which takes 6 h 7 min"),
    ] {
        let said = wrong(args);
        assert!(said.contains(why), "{args:?}: {said}");
    }
}

#[test]
fn the_help_names_every_exit_code_that_a_script_may_see() {
    for (args, codes) in
        [(&["--help"][..], "3 a condition holds, 4 inconclusive"), (&["compare", "--help"], "3 one holds")]
    {
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

fn json(args: &[&str]) -> serde_json::Value {
    let output = vmentry(args);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {output:?}"))
}

#[test]
fn a_recording_that_is_given_again_counts_once_and_this_is_said() {
    let (copy, merge, link) = (lab("copy", &[]), lab("merge", &[]), lab("link", &[]));
    let other = lab("another", &[("10213535886", "9213535886")]);
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(LAB, &link).unwrap();
    let [copy, merge, link, other] = [&copy, &merge, &link, &other].map(|path| path.to_str().unwrap());
    let once = json(&["report", LAB, "--format", "json"]);
    for files in [[LAB, LAB], [LAB, copy], [LAB, link]] {
        let twice = json(&[&["report", "--format", "json"], &files[..]].concat());
        assert_eq!((&twice["totals"], &twice["series"]), (&once["totals"], &once["series"]), "{files:?}");
        assert_eq!(twice["recordings"][0]["also_in"], serde_json::json!([files[1]]));
        let said = err(&vmentry(&[&["report"], &files[..]].concat()));
        assert!(said.starts_with(files[1]) && said.contains("counts once"), "{said}");
        // The merge has it once, says so as well, and gives the same report.
        let merged = vmentry(&["merge", "--overwrite", "-o", merge, files[0], files[1]]);
        assert!(err(&merged).contains("counts once") && err(&merged).contains("merged 1 recordings"), "{merged:?}");
        for format in ["text", "json", "csv", "openmetrics"] {
            let of_merge = out(&vmentry(&["report", merge, "--format", format]));
            assert_eq!(of_merge, out(&vmentry(&["report", files[0], files[1], "--format", format])), "{format}");
        }
    }
    // Within a merge, and beside it.
    let beside = json(&["report", merge, copy, "--format", "json"]);
    assert_eq!(beside["totals"], once["totals"]);
    // On one side of a comparison it counts once, on both it is refused.
    let sides = json(&["compare", LAB, copy, "--with", other, "--format", "json"]);
    assert_eq!(
        (&sides["a"]["totals"]["entries"], sides["a"]["recordings"].as_array().unwrap().len()),
        (&272.into(), 1)
    );
    assert!(sides["warnings"].to_string().contains("counts once"), "{}", sides["warnings"]);
    for (b, words) in
        [(copy, "are the same recording, and cannot be both sides"), (LAB, "lab.hlog cannot be both sides")]
    {
        let both = vmentry(&["compare", LAB, b]);
        assert_eq!(both.status.code(), Some(2), "a wrong command line");
        assert!(err(&both).contains(words) && err(&both).contains("name another recording of B"), "{both:?}");
    }
    [copy, merge, link, other].iter().for_each(|path| fs::remove_file(path).unwrap());
}

#[test]
fn recordings_of_two_hosts_at_the_same_time_add_up_in_every_view() {
    // The same 0.311862080 s, on another host.
    let other = lab("host", &[("\"name\":\"lab\"", "\"name\":\"lab2\""), ("3b902005", "4b902005")]);
    // Seconds earlier and later, after other boots.
    let [early, late] = [("early", "09"), ("late", "20")].map(|(name, seconds)| {
        lab(name, &[("17000000109122712", &format!("17000000{seconds}9122712")), ("3b902005", name)])
    });
    let [other, early, late] = [&other, &early, &late].map(|path| path.to_str().unwrap());
    let rate = 272.0 / 0.311_862_080;
    let near = |value: &serde_json::Value, wanted: f64| {
        assert!((value.as_f64().unwrap() / wanted - 1.0).abs() < 1e-9, "{value} and not {wanted}");
    };
    let both = json(&["report", LAB, other, "--format", "json", "--by", "level"]);
    assert_eq!(both["length_ns"], 311_862_080);
    near(&both["series"][0]["entries_per_second"], 2.0 * rate);
    let each = json(&["report", LAB, other, "--format", "json", "--by", "host"]);
    near(&each["series"][0]["entries_per_second"], rate);
    near(&each["series"][1]["entries_per_second"], rate);
    let csv = out(&vmentry(&["report", LAB, other, "--format", "csv", "--by", "level"]));
    assert!(csv.contains(&format!("L1,544,311862080,{}", 2.0 * rate)), "{csv}");
    let text = out(&vmentry(&["report", LAB, other, "--by", "level"]));
    assert!(text.lines().any(|l| l.split_whitespace().take(4).eq(["L1", "544", "100.0", "1,744"])), "{text}");
    let html = out(&vmentry(&["report", LAB, other, "--by", "level", "--format", "html"]));
    assert!(html.contains(">1,744<"), "{html}");
    let metrics = out(&vmentry(&["report", LAB, other, "--format", "openmetrics"]));
    assert!(metrics.contains("vmentry_observed_seconds_total 0.31186208\n"), "{metrics}");
    let sides = json(&["compare", LAB, other, "--with", early, late, "--format", "json"]);
    let row = sides["figures"].as_array().unwrap().iter().find(|r| r["figure"] == "entries").unwrap();
    near(&row["a"], 2.0 * rate);
    near(&row["b"], rate);
    assert!(sides["checks"].to_string().contains("2.0 at a time in A and 1.0 in B"), "{}", sides["checks"]);
    // One after the other, as before.
    let after = json(&["report", LAB, late, "--format", "json", "--by", "level"]);
    assert_eq!(after["length_ns"], 2 * 311_862_080);
    near(&after["series"][0]["entries_per_second"], rate);
    [other, early, late].iter().for_each(|path| fs::remove_file(path).unwrap());
}
