//! Targets other than recordings.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use tempfile::TempDir;
use tracer_common::Event;
use vmentry::{
    fuzzing,
    model::interval::{Interval, Vm},
    recording::{OnDamage, Reader},
    report::{Filter, Report, input::read_from},
    trace::{perfetto::Trace, trigger::Clause, vm_event::VmEvent},
};

use crate::properties::one_printable_line;

/// A recording of the lab.
pub(crate) const LAB: &[u8] = include_bytes!("../../tracer/tests/data/lab.hlog");

fn report() -> Report {
    let mut report = Report::default();
    read_from(LAB, "lab".into(), OnDamage::Refuse, &mut report).unwrap();
    report
}

/// The input's parts, which lines of `--` separate; missing ones are empty.
fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut rest = Some(input);
    [(); N].map(|()| {
        let Some(bytes) = rest else { return &[][..] };
        let at = bytes.windows(4).position(|window| window == b"\n--\n");
        rest = at.map(|at| &bytes[at + 4..]);
        at.map_or(bytes, |at| &bytes[..at])
    })
}

/// BTF of a kernel, of kvm and of the vendor's module, each behind its length in two bytes.
pub(crate) fn btf(input: &[u8]) {
    let mut rest = input;
    let [kernel, kvm, vendor] = [(); 3].map(|()| {
        let Some((length, bytes)) = rest.split_first_chunk::<2>() else { return &[][..] };
        let (part, more) = bytes.split_at(bytes.len().min(u16::from_le_bytes(*length).into()));
        rest = more;
        part
    });
    fuzzing::layout(kernel, kvm, vendor);
}

/// A record of the programs: decoded, folded, judged by a trigger, traced.
pub(crate) fn event(input: &[u8]) {
    let Some(event) = Event::decode(input) else { return };
    let _ = event.entry_to_exit_ns();
    let vm = Arc::new(Vm { name: "x".into(), tgid: 1, ..Vm::default() });
    Interval::starting(0).record(&event, &vm);
    let trigger: Clause = "pin_writes>1,reason=HLT,cause=spurious,level=L2,entry_to_exit_ns<1s".parse().unwrap();
    let _ = trigger.matches(&event);
    let mut trace = Trace::new(Vec::new(), Reader::new(LAB).unwrap().header()).unwrap();
    let vm_event = VmEvent { vm: 0, event };
    trace.write([vm_event, vm_event], &BTreeMap::new()).unwrap();
}

/// Filters of a report, one a line.
pub(crate) fn filter(input: &[u8]) {
    thread_local! {
        static REPORT: Report = report();
    }
    let mut filters = Vec::new();
    for text in String::from_utf8_lossy(input).lines().take(8) {
        match text.parse::<Filter>() {
            Ok(filter) => filters.push(filter),
            Err(error) => assert!(!error.is_empty()),
        }
    }
    REPORT.with(|report| {
        let passes = report.whole.series.keys().any(|key| report.passes(key, &filters));
        // A filter that names what is not there is refused even where another of its values passes.
        assert!(passes || fuzzing::refused_filters(report, &filters).is_some());
    });
}

/// A request to the exporter, on an address where the Host header counts.
pub(crate) fn http(input: &[u8]) {
    thread_local! {
        static ENDPOINT: fuzzing::Endpoint = fuzzing::Endpoint::new(&report()).unwrap();
    }
    let answer = ENDPOINT.with(|endpoint| endpoint.answer(input)).unwrap();
    let Some(line) = answer.split(|&b| b == b'\r').next().filter(|line| !line.is_empty()) else { return };
    let line = String::from_utf8(line.to_vec()).unwrap();
    one_printable_line("a status", &line);
    let statuses = ["200", "400", "404", "405", "414", "421", "431"];
    assert!(line.split(' ').nth(1).is_some_and(|status| statuses.contains(&status)), "{line}");
}

/// Accept and Accept-Encoding of a request.
pub(crate) fn negotiation(input: &[u8]) {
    let [accept, encodings] = parts(input).map(String::from_utf8_lossy);
    let (content_type, _) = fuzzing::negotiated(&accept, &encodings);
    one_printable_line("a content type", content_type);
}

/// A folder with files that each input replaces.
struct Folder<const N: usize> {
    root: TempDir,
    files: [File; N],
}

impl<const N: usize> Folder<N> {
    fn of(paths: [&str; N]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let files = paths.map(|path| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap()
        });
        Self { root, files }
    }

    /// Writes each file. They stay open, because ext4 writes a file to the disk that is closed after it was emptied.
    fn replace(&self, contents: [&[u8]; N]) -> &Path {
        for (file, content) in self.files.iter().zip(contents) {
            file.write_all_at(content, 0).unwrap();
            file.set_len(content.len() as u64).unwrap();
        }
        self.root.path()
    }
}

/// The note of a switched policy.
pub(crate) fn policy(input: &[u8]) {
    thread_local! {
        static RUN: Folder<1> = Folder::of(["vmentry-policy.json"]);
    }
    RUN.with(|run| fuzzing::is_policy_left_behind(run.replace([input])));
}

/// The note of a switched setting.
pub(crate) fn setting(input: &[u8]) {
    thread_local! {
        static RUN: Folder<1> = Folder::of(["vmentry-setting.json"]);
    }
    let said = RUN.with(|run| fuzzing::setting_left_behind(run.replace([input])));
    one_printable_line("a note", &said.unwrap_or_default());
}

/// The files of a process below /proc.
pub(crate) fn process(input: &[u8]) {
    thread_local! {
        static PROC: Folder<5> = Folder::of(["7/comm", "7/cmdline", "7/cgroup", "7/status", "7/stat"]);
    }
    let [comm, cmdline, cgroup, status, stat] = parts(input);
    let status = if status.is_empty() { b"Name:\tx\nTgid:\t7\nPPid:\t1\n" } else { status };
    let stat = if stat.is_empty() { b"7 (x) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0" } else { stat };
    let name = PROC.with(|proc| fuzzing::vm_name(proc.replace([comm, cmdline, cgroup, status, stat]), 7));
    if let Ok(name) = name {
        one_printable_line("the name of a VM", &name);
        assert!(!name.is_empty() && name.len() <= 256, "a name of {} bytes", name.len());
    }
}

/// A condition of a trigger.
pub(crate) fn trigger(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match text.parse::<Clause>() {
        Ok(clause) => {
            let _ = clause.matches(&Event::default());
        }
        Err(error) => assert!(!error.is_empty()),
    }
}
