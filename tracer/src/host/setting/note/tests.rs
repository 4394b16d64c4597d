use super::*;
use crate::host::{roots::made_up::Folder, setting::left_behind::left_behind};

const PLACE: &str = "run/vmentry-setting.json";

fn host() -> Folder {
    let mut host = Folder::new();
    host.write("sys/a", "now\n");
    host.write("elsewhere", "precious\n");
    // As on a real host, /run and /sys have no links in their paths.
    let base = host.roots.sys.parent().unwrap().canonicalize().unwrap();
    (host.roots.sys, host.roots.run) = (base.join("sys"), base.join("run"));
    host
}

fn note(pid: u32, start_ticks: u64, file: &Path, value: &str) -> String {
    let files = vec![Before { file: file.to_str().unwrap().into(), value: value.into() }];
    serde_json::to_string(&Text { pid, start_ticks, files, command: None, failed: None }).unwrap()
}

#[test]
fn a_note_is_for_its_user_alone_and_there_is_one_at_a_time() {
    let host = host();
    let file = KernelFile::find(&host.roots, &host.roots.sys.join("a")).unwrap();
    let kept = Kept::new(&host.roots, &[(file.clone(), "before".into())], None).unwrap();
    assert_eq!(fs::metadata(path(&host.roots)).unwrap().mode() & 0o777, 0o600);
    assert_eq!(Kept::new(&host.roots, &[], None).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let Found::Note(note) = find(&host.roots) else { panic!() };
    assert_eq!(note.files, [(file, "before".into())]);
    kept.remove();
    assert_eq!(find(&host.roots), Found::Nothing);
}

#[test]
fn a_killed_experiment_is_noticed_and_a_running_one_is_waited_for() {
    let mut host = host();
    host.roots.proc = Roots::default().proc;
    let me = std::process::id();
    let start = read_process(&host.roots.proc, me).unwrap().start_time_ticks;
    host.write(PLACE, note(me, start, &host.roots.sys.join("a"), "before"));
    assert_eq!(left_behind(&host.roots), None);
    assert!(ensure_none(&host.roots).unwrap_err().to_string().contains("wait for its end"));
    assert!(to_restore(&host.roots).unwrap_err().to_string().contains("wait for its end"));
    host.write(PLACE, note(me, start + 1, &host.roots.sys.join("a"), "before"));
    let left = left_behind(&host.roots).unwrap();
    assert_eq!((left.pid, left.files[0].now.as_str(), left.files[0].before.as_str()), (Some(me), "now", "before"));
    assert!(ensure_none(&host.roots).unwrap_err().to_string().contains("vmentry ab --restore"));
    assert!(to_restore(&host.roots).unwrap().is_some());
}

#[test]
fn a_note_of_values_that_are_back_or_of_files_that_are_gone_holds_nobody_up() {
    let host = host();
    for (file, value) in [("a", "now"), ("gone", "before")] {
        host.write(PLACE, note(0, 0, &host.roots.sys.join(file), value));
        assert_eq!(left_behind(&host.roots), None, "{file}");
        ensure_none(&host.roots).unwrap();
        assert!(!host.has(PLACE));
    }
}

#[test]
fn a_note_that_was_cut_off_switched_nothing() {
    let host = host();
    let whole = note(0, 0, &host.roots.sys.join("a"), "before");
    for length in [0, 1, whole.len() - 1] {
        host.write(PLACE, &whole[..length]);
        assert_eq!((find(&host.roots), left_behind(&host.roots)), (Found::CutOff, None), "{length}");
    }
    assert!(ensure_none(&host.roots).unwrap_err().to_string().contains("vmentry ab --restore"));
    assert!(to_restore(&host.roots).unwrap().is_none());
    assert!(!host.has(PLACE));
}

#[test]
fn a_tampered_note_is_not_trusted_and_stays() {
    let host = host();
    let sys = &host.roots.sys;
    host.link("sys/link", "../elsewhere");
    let file = |path: PathBuf| note(0, 0, &path, "x");
    for (tampered, why) in [
        (file(sys.parent().unwrap().join("elsewhere")), "names a file"),
        (file(sys.join("../elsewhere")), "names a file"),
        (file(sys.join("link")), "names a file"),
        (file("/etc/passwd".into()), "names a file"),
        (file("a".into()), "names a file"),
        (note(0, 0, &sys.join("a"), "x\ny"), "or a value"),
        (note(0, 0, &sys.join("a"), &"x".repeat(MOST_VALUE + 1)), "or a value"),
        (" ".repeat((1 << 20) + 1), "too large"),
        ("[1]".into(), "not as vmentry wrote it"),
    ] {
        host.write(PLACE, tampered);
        let Found::Foreign(reason) = find(&host.roots) else { panic!("{why}") };
        assert!(reason.contains(why), "{reason}: {why}");
        assert!(to_restore(&host.roots).unwrap_err().to_string().contains("nothing was written"));
        assert!(ensure_none(&host.roots).is_err() && left_behind(&host.roots).is_some() && host.has(PLACE));
    }
    assert_eq!(host.read("elsewhere"), "precious\n");
}

#[test]
fn a_link_a_pipe_and_another_users_file_are_no_notes() {
    let host = host();
    host.write("run/other", note(0, 0, &host.roots.sys.join("a"), "before"));
    host.link(PLACE, "other");
    assert_eq!(find(&host.roots), Found::Foreign("it is a link"));
    assert!(Kept::new(&host.roots, &[], None).is_err(), "it is not written through");
    fs::remove_file(path(&host.roots)).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, path(&host.roots), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(find(&host.roots), Found::Foreign("it is no regular file"));
    fs::remove_file(path(&host.roots)).unwrap();
    if rustix::process::geteuid().is_root() {
        fs::rename(host.roots.run.join("other"), path(&host.roots)).unwrap();
        assert!(matches!(find(&host.roots), Found::Note(_)));
        std::os::unix::fs::chown(path(&host.roots), Some(65534), None).unwrap();
        assert_eq!(find(&host.roots), Found::Foreign("it belongs to another user"));
    }
}

#[test]
fn a_command_is_noted_as_text() {
    let host = host();
    let kept = Kept::of_command(&host.roots, "echo 1 > /x\n\u{1b}[2J").unwrap().unwrap();
    let left = left_behind(&host.roots).unwrap();
    assert_eq!(left.command.as_deref(), Some("echo 1 > /x\u{fffd}\u{fffd}[2J"));
    assert!(Kept::of_command(&host.roots, "true").unwrap_err().to_string().contains("--restore"));
    kept.remove();
    let mut without_run = host.roots.clone();
    without_run.run.push("none");
    assert!(Kept::of_command(&without_run, "true").unwrap().is_err(), "it goes on without a note");
}

#[test]
fn a_note_says_what_happened() {
    let host = host();
    let mut kept = Kept::of_command(&host.roots, "echo 1 > /x").unwrap().unwrap();
    assert!(ensure_none(&host.roots).unwrap_err().to_string().contains("ended without restoring"));
    assert!(left_behind(&host.roots).unwrap().what().contains("which was killed before it ran: echo 1"));
    kept.failed("'echo 1 > /x' failed (exit status: 2)");
    let refused = ensure_none(&host.roots).unwrap_err().to_string();
    assert!(refused.contains("could not restore a setting ('echo 1 > /x' failed (exit status: 2))"), "{refused}");
    let what = left_behind(&host.roots).unwrap().what();
    assert!(!what.contains("killed") && what.contains("(exit status: 2)"), "{what}");
    kept.remove();
    let file = KernelFile::find(&host.roots, &host.roots.sys.join("a")).unwrap();
    let mut kept = Kept::new(&host.roots, &[(file, "before".into())], None).unwrap();
    kept.failed("write before to a: no");
    let what = left_behind(&host.roots).unwrap().what();
    assert!(what.ends_with("which could not restore before: write before to a: no"), "{what}");
}

#[test]
fn files_that_are_gone_are_named() {
    let host = host();
    let gone = |files: &[&str]| {
        let before =
            |file: &&str| Before { file: host.roots.sys.join(file).to_str().unwrap().into(), value: "x".into() };
        let files = files.iter().map(before).collect();
        let text = Text { pid: 0, start_ticks: 0, files, command: None, failed: None };
        host.write(PLACE, serde_json::to_string(&text).unwrap());
        let Found::Note(note) = find(&host.roots) else { panic!() };
        note.gone()
    };
    assert_eq!(gone(&["a"]), None);
    assert!(gone(&["a", "b"]).unwrap().ends_with("/sys/b of an experiment that was not restored is gone"));
    assert!(gone(&["b", "c"]).unwrap().ends_with("/sys/b and 1 more of an experiment that was not restored are gone"));
}
