//! The real binary on recordings whose every string is hostile: escape sequences, forged lines, invisible characters, and no end. Nothing
//! of them reaches a terminal, a table, or a scraper, and nobody's line begins with what they say.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

mod binary;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Output, Stdio},
};

use binary::{Folder, err, out, vmentry};
use serde_json::{Value, json};

const LAB_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lab.hlog");
const LAB: &str = include_str!("data/lab.hlog");
/// Sets the title, clears the screen, writes to the clipboard, turns text round, hides, ends lines, and forges one.
const HOSTILE: &str = "\u{1b}]0;PWNED\u{7}\u{1b}[2J\u{1b}]52;c;ZXZpbA==\u{7}\u{9b}31m\r\0\u{7f}\u{202e}\u{2066}\u{200b}\u{2028}\u{feff}\
                       \u{e0041}\u{fe0f}\nFORGED no loss: 5 entries, all delivered\n  -> FORGED";

/// Characters that no output may have, written down here once more. Line ends are looked at apart.
fn is_hostile(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}' | '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{feff}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e007f}')
}

/// Fails if the text shows anything hostile.
fn check(what: &str, text: &[u8]) {
    let text = String::from_utf8(text.to_vec()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let text = text.replace("\r\n", "\n");
    let found = text.lines().find(|line| line.contains(is_hostile));
    assert_eq!(found, None, "{what}");
    let forged = |line: &&str| line.trim_start_matches(|c: char| !c.is_alphanumeric()).starts_with("FORGED");
    assert_eq!(text.lines().find(forged), None, "{what}");
    if let Ok(json) = serde_json::from_str::<Value>(&text) {
        let mut strings = Vec::new();
        places_of_strings(&json, String::new(), &mut strings);
        let hostile =
            |place: &&String| json.pointer(place).unwrap().as_str().unwrap().contains(|c| is_hostile(c) || c == '\n');
        assert_eq!(strings.iter().find(hostile), None, "{what}");
    }
}

/// Runs a command whose output is clean on both streams.
fn run(args: &[&str]) -> Output {
    let output = vmentry(args);
    check(&format!("standard output of {args:?}"), &output.stdout);
    check(&format!("standard error of {args:?}"), &output.stderr);
    output
}

/// JSON pointers of all strings.
fn places_of_strings(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::String(_) => places.push(at),
        Value::Array(all) => {
            (0..).zip(all).for_each(|(n, v): (usize, _)| places_of_strings(v, format!("{at}/{n}"), places))
        }
        Value::Object(all) => all.iter().for_each(|(key, v)| places_of_strings(v, format!("{at}/{key}"), places)),
        _ => {}
    }
}

/// Appends to the strings at these places.
fn poison(line: &mut Value, places: &[String], text: &str) {
    for place in places {
        let Some(Value::String(string)) = line.pointer_mut(place) else { panic!("{place}") };
        string.push_str(text);
    }
}

/// A recording of the lab's: its JSON lines apart from the others, which are null.
struct Lines(Vec<(String, Value)>);

impl Lines {
    /// With every optional field in the header that has a string.
    fn new() -> Self {
        let mut lines =
            Self(LAB.lines().map(|l| (l.to_owned(), l.strip_prefix('#').map_or(Value::Null, parse))).collect());
        let header = lines.header();
        header["version"] = 2.into();
        header["host"]["microcode"] = "0xf0".into();
        header["host"]["virtualized"] = "KVMKVMKVM".into();
        header["host"]["parameters"]["a key"] = "a value".into();
        header["tickless_cpus"] = "1-3".into();
        header["missing"] = json!(["vcpu_vmx.req_immediate_exit: causes n/a"]);
        header["other_tracers"] = json!({"names": ["ftrace"], "unseen": ["BPF links (why)"]});
        header["sites"] = json!([{"symbol": "vmx_vcpu_run", "offset": 31}]);
        let vm = lines.0.iter_mut().find_map(|line| line.1.get_mut("vm")).unwrap();
        vm["labels"] = json!({"namespace": "prod"});
        lines
    }

    fn header(&mut self) -> &mut Value {
        &mut self.0[0].1
    }

    /// As if it were of a merge.
    fn of_a_merge(mut self) -> Self {
        let alone = self.header().clone();
        let end = self.0.iter().find(|(_, json)| json.get("end").is_some()).unwrap().1["end"].clone();
        let damage = json!([{"file": "d.hlog", "intervals": 1, "lines": [7], "why": "why"}]);
        self.header()["sources"] = json!([{"name": "s.hlog", "header": alone, "end": end, "torn": false, "intervals": 1,
            "length_ns": 5, "also_in": ["other.hlog"], "damage": damage}]);
        self
    }

    fn of_an_experiment(mut self) -> Self {
        self.header()["experiment"] = json!({"arms": ["a", "b"], "switches": ["true", "false"], "window_ns": 5, "washout_ns": 5,
            "rounds": 1, "seed": 1});
        self
    }

    fn text(&self) -> String {
        let line = |(text, json): &(String, Value)| match json {
            Value::Null => text.clone() + "\n",
            json => format!("#{json}\n"),
        };
        self.0.iter().map(line).collect()
    }

    /// Every string of every line hostile, but for those that have to be what they are.
    fn poisoned(mut self, folder: &Folder) -> String {
        for n in 0..self.0.len() {
            let mut places = Vec::new();
            places_of_strings(&self.0[n].1, String::new(), &mut places);
            places.retain(|place| self.reads_with(folder, n, place));
            assert!(n > 0 || places.len() > 40, "{places:?}");
            poison(&mut self.0[n].1, &places, HOSTILE);
        }
        self.text()
    }

    /// Whether a report can be made if one string is hostile. What it prints, or why it cannot, is clean.
    fn reads_with(&self, folder: &Folder, line: usize, place: &str) -> bool {
        let file = folder.file("one.hlog");
        let mut json = self.0[line].1.clone();
        poison(&mut json, &[place.to_owned()], HOSTILE);
        let mut lines: Vec<_> = self.0.clone();
        lines[line].1 = json;
        fs::write(&file, Self(lines).text()).unwrap();
        let output = run(&["report", &file]);
        // A report on what is damaged is made, too, and ends with 1.
        let is_made = out(&output).contains("tsc-deadline");
        assert!(is_made || err(&output).contains("one.hlog"), "{place}: {output:?}");
        is_made
    }
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or(Value::Null)
}

#[test]
fn nothing_hostile_in_a_recording_comes_out_of_any_view() {
    let folder = Folder::new("views");
    let text = Lines::new().poisoned(&folder);
    let [a, b, merged] = ["a.hlog", "b.hlog", "merged.hlog"].map(|name| folder.file(name));
    fs::write(&a, &text).unwrap();
    // Another boot, later.
    let later = text.replace("3b902005", "4b902005").replace("17000000109122712", "17000000999122712");
    assert_ne!(later, text);
    fs::write(&b, later).unwrap();
    for format in ["text", "json", "csv", "html", "openmetrics"] {
        for files in [&[a.as_str()][..], &[&a, &b]] {
            let by = if format == "openmetrics" { &[][..] } else { &["--by", "host,vm,reason"] };
            let output = run(&[&["report", "--format", format], by, files].concat());
            assert!(output.status.success() && out(&output).contains("tsc-deadline"), "{output:?}");
        }
        let refused = run(&["report", &a, "--format", format, "--filter", "vm=none"]);
        assert!(err(&refused).contains("tsc-deadline"), "{refused:?}");
    }
    for format in ["text", "json"] {
        run(&["report", &a, "--claims", "--format", format]);
    }
    for format in ["text", "json", "html", "markdown"] {
        let output = run(&["compare", &a, &b, "--format", format, "--method"]);
        assert!(out(&output).contains("Intel(R) Core"), "{output:?}");
    }
    let short = run(&["compare", &a, &b]);
    assert!(out(&short).contains("FORGED"), "{short:?}");
    run(&["compare", &a, &a]);
    run(&["live", &a]);
    assert!(run(&["merge", "-o", &merged, &a, &b]).status.success());
    check("a merge", &fs::read(&merged).unwrap());
    assert_eq!(out(&run(&["report", &merged])), out(&run(&["report", &a, &b])), "cleaned once is cleaned for good");
}

#[test]
fn nothing_hostile_comes_out_of_a_merge_or_an_experiment() {
    let folder = Folder::new("sources");
    for (name, lines) in [("merge", Lines::new().of_a_merge()), ("experiment", Lines::new().of_an_experiment())] {
        let file = folder.file("all.hlog");
        fs::write(&file, lines.poisoned(&folder)).unwrap();
        for format in ["text", "json", "html"] {
            let output = run(&["report", &file, "--format", format]);
            assert!(out(&output).contains("tsc-deadline"), "{name}: {output:?}");
        }
        for format in ["text", "json", "html", "markdown"] {
            run(&["compare", &file, &file, "--format", format]);
            run(&["compare", &file, "--format", format]);
        }
    }
}

#[test]
fn nothing_in_a_recording_is_markup_of_markdown() {
    let folder = Folder::new("markdown");
    let [a, b] = ["a.hlog", "b.hlog"].map(|name| folder.file(name));
    let name = "a|b `c` <img src=x> [d](e) **f**\\n# g @someone #77";
    for (file, boot) in [(&a, "3b902005"), (&b, "4b902005")] {
        let text = LAB.replace("3b902005", boot).replace("\"lab\"", &format!("\"{name}\""));
        let text = text.replacen("\"label\":\"demo\"", &format!("\"label\":\"{name}\""), 1);
        fs::write(file, text.replace("17000000109122712", &format!("170000001{}9122712", &boot[..1]))).unwrap();
    }
    let text = out(&run(&["compare", &a, &b, "--format", "markdown"]));
    assert!(text.contains("a&#124;b \\`c\\` &lt;img"), "{text}");
    let (table, rest): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('|'));
    assert!(table.iter().all(|row| row.matches('|').count() == 7), "{text}");
    assert!(!table.is_empty() && rest.iter().all(|line| !line.contains(['|', '<'])), "{text}");
    for mark in ["**f", " [d]", "@someone", "#77", "\n# g"] {
        assert!(!text.contains(mark), "{mark}: {text}");
    }
}

#[test]
fn an_error_quotes_no_hostile_line() {
    let folder = Folder::new("errors");
    let file = folder.file("bad.hlog");
    let (first, rest) = LAB.split_once('\n').unwrap();
    let tag = rest.lines().find(|line| line.starts_with("Tag=")).unwrap();
    // A line has no line end within, and a tag no comma.
    let hostile = HOSTILE.replace(['\n', '\r', '\0', ','], "");
    for (text, said) in [
        (format!("#{{\"format\":\"\\u001b[31mX\\nFORGED\",\"version\":2}}\n{rest}"), "format is"),
        (LAB.replace(tag, &tag.replacen("figure=", &format!("figure={hostile}"), 1)), "unknown tag"),
        (LAB.replace(tag, &tag.replacen("Tag=", &format!("Tag=;{hostile}=1;"), 1)), "unknown tag"),
        (format!("{first}\n#{{\"{}bad\":1}}\n{rest}", "\\u001b[31m\\nFORGED"), "unknown variant"),
        (format!("{first}\n#{{\"vm\":\"{}\"}}\n{rest}", "\\u001b[31m\\nFORGED"), "invalid type"),
        (format!("{first}\n{hostile}\n{rest}"), "neither"),
    ] {
        fs::write(&file, text).unwrap();
        for command in [&["report"][..], &["report", "--skip-damaged"], &["live"], &["report", "--claims"]] {
            let output = run(&[command, &[&file]].concat());
            assert!([out(&output), err(&output)].concat().contains(said), "{said}: {output:?}");
        }
    }
}

#[test]
fn a_hostile_name_of_a_file_forges_no_line() {
    let folder = Folder::new("files");
    let name = HOSTILE.replace(['/', '\0'], "");
    let (file, other, none) = (folder.file(&name), folder.file(&format!("{name}2")), folder.file(&format!("{name}3")));
    for (path, boot) in [(&file, "3b902005"), (&other, "4b902005")] {
        fs::write(path, LAB.replace("3b902005", boot)).unwrap();
    }
    for args in [
        &["report", &file][..],
        &["report", &file, &file],
        &["report", &none],
        &["report", &folder.file("")],
        &["report", &file, "--format", "json"],
        &["compare", &file, &other],
        &["compare", &file, &file],
        &["merge", "-o", &none, &file, &other],
        &["merge", "-o", &none, &file, &other],
        &["merge", "-o", &file, &file],
        &["live", &none],
        &["export", "--replay", &folder.file(&format!("{name}4"))],
        &["record", "-o", &file, "--duration", "1s"],
        &["record", "-o", "/none/x", "--events", &file],
    ] {
        run(args);
    }
    // Nor does it stand in a recording as it is, which names its inputs.
    let merged = folder.file("m.hlog");
    assert!(run(&["merge", "-o", &merged, &file, &other]).status.success());
    let header = fs::read_to_string(&merged).unwrap().lines().next().unwrap().to_owned();
    let header = header.strip_prefix('#').unwrap();
    check("a merge's header", header.as_bytes());
    assert!(!header.contains(is_hostile) && header.contains("no loss"), "{header}");
}

#[test]
fn an_argument_forges_no_line_of_an_error() {
    let name = HOSTILE.replace('\0', "");
    let flag = format!("--{name}");
    for args in [
        &[flag.as_str()][..],
        &["report", &flag, "a.hlog"],
        &[&name],
        &["report", "--by", &name, "a.hlog"],
        &["report", LAB_FILE, "--filter", &format!("reason={name}")],
        &["report", LAB_FILE, "--filter", &format!("{name}=5")],
        &["report", LAB_FILE, "--sort", &name],
        &["report", LAB_FILE, "--top", &name],
        &["compare", LAB_FILE, LAB_FILE, "--fail-if", &name],
        &["compare", LAB_FILE, LAB_FILE, "--filter", &name],
        &["export", "--listen", &name],
        &["export", "--listen", &format!("unix:/none/{name}")],
        &["export", "--allow-host", &name],
        &["export", "--textfile", &name],
        &["record", "--duration", &name],
        &["record", "--trigger", &name, "--flight-recorder", "1s"],
        &["record", "--vm", &name],
        &["record", "--user", &name, "--", "true"],
        &["record", "--", &name],
        &["ab", "--policies", &name],
        &["ab", "--arm", &name],
        &["ab", "--arm", &format!("a={name}"), "--arm", &format!("a={name}")],
        &["calibrate", "--exit", &name],
        &["exercise", &name],
        &["policy", "soft", "--", &name],
        &["policy", &name],
        &["live", "--vm", &name],
        &["check", "--format", &name],
    ] {
        assert_ne!(run(args).status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn a_long_name_makes_no_long_table() {
    let folder = Folder::new("long");
    let file = folder.file("long.hlog");
    let long = "x".repeat(1 << 20);
    for (from, to) in [("\"cpuid\"", format!("\"{long}\"")), ("\"lab\"", format!("\"{long}\""))] {
        fs::write(&file, LAB.replacen(from, &to, 1)).unwrap();
        for format in ["text", "csv", "html", "openmetrics"] {
            let by = if format == "openmetrics" { &[][..] } else { &["--by", "host,vm,reason"] };
            let output = run(&[&["report", &file, "--format", format], by].concat());
            assert!(
                output.status.success() && output.stdout.len() < 200_000,
                "{format}: {} bytes",
                output.stdout.len()
            );
        }
    }
}

#[test]
fn names_that_differ_only_in_what_is_hidden_stay_apart() {
    let folder = Folder::new("apart");
    let file = folder.file("two.hlog");
    // One process and number: by their names alone they are two.
    let vm = |name: &str| format!("\"name\":\"{name}\",\"tgid\":131,\"start_ticks\":1141,\"ordinal\":0");
    let of = |line: &str| line.split_once(",\"name\"").unwrap().1.trim_end_matches("}}").to_owned();
    let mut text = LAB.to_owned();
    for (id, name) in [(0, "web\\u001b"), (1, "web\\u0007"), (2, "web")] {
        let line = LAB.lines().find(|l| l.starts_with(&format!("#{{\"vm\":{{\"id\":{id},"))).unwrap();
        text = text.replace(&format!(",\"name\"{}", of(line)), &format!(",{}", vm(name)));
    }
    fs::write(&file, text).unwrap();
    let json: Value =
        serde_json::from_slice(&run(&["report", &file, "--by", "vm", "--format", "json"]).stdout).unwrap();
    assert_eq!(json["series"].as_array().unwrap().len(), 5, "{}", json["series"]);
}

#[test]
fn an_exporter_has_no_hostile_label() {
    let folder = Folder::new("export");
    let file = folder.file("a.hlog");
    fs::write(&file, Lines::new().poisoned(&folder)).unwrap();
    let args = ["export", "--listen", "127.0.0.1:0", "--vm-labels", "name,pid,namespace", "--replay", &file];
    // It serves until it is told to end, which a failed test would not do.
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "60", env!("CARGO_BIN_EXE_vmentry")]).args(args).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    while !said.contains("/metrics") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    let address = said.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    for accept in ["text/plain", "application/openmetrics-text"] {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream
            .write_all(
                format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")
                    .as_bytes(),
            )
            .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        check(accept, &answer);
        assert!(String::from_utf8(answer).unwrap().contains("Intel(R) Core"));
    }
    // SAFETY: the child has not been waited for, so that the number is its own.
    assert_eq!(unsafe { libc::kill(child.id().cast_signed(), libc::SIGTERM) }, 0);
    let _ = child.wait();
    check("the exporter's messages", said.as_bytes());
}
