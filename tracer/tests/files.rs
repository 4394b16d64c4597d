//! Files that the real binary writes: whose they are, what they must not replace, and names that are not UTF-8 or are another name of an
//! input. Recorders create their files by the same function; `record.rs` and `faults` have what needs them.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

mod binary;

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use binary::{Folder, err, out};

/// 272 real entries, recorded in the lab.
const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lab.hlog");
const NOBODY: u32 = 65534;

fn command(args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = binary::command(&[]);
    command.args(args).env_remove("SUDO_UID").env_remove("SUDO_GID");
    command
}

fn run(args: &[impl AsRef<OsStr>]) -> Output {
    command(args).output().unwrap()
}

fn is_root() -> bool {
    // SAFETY: the call has no memory effects.
    unsafe { libc::geteuid() == 0 }
}

/// Mode and owner.
fn of(path: impl AsRef<Path>) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.permissions().mode() & 0o7777, metadata.uid())
}

/// Merges the lab's recording into a file.
fn merge(to: impl AsRef<OsStr>) -> Command {
    let mut merge = command(&["merge", "--overwrite", RECORDING, "-o"]);
    merge.arg(to);
    merge
}

fn assert_refused(output: &Output, code: i32, why: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(err(output).contains(why), "{output:?}");
}

#[test]
fn only_the_owner_reads_what_was_written_and_with_sudo_that_is_its_caller() {
    let folder = Folder::new("owner");
    let file = folder.file("a.hlog");
    let me = of(&folder.0).1;
    assert!(merge(&file).output().unwrap().status.success());
    assert_eq!(of(&file), (0o600, me));
    let cases =
        [("1234", "1234", 1234), ("4294967295", "1", me), ("-1", "1", me), ("1234", "", me), ("\u{e9}", "1", me)];
    for (user, group, owner) in cases {
        let output = merge(&file).env("SUDO_UID", user).env("SUDO_GID", group).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(of(&file), (0o600, if is_root() { owner } else { me }), "SUDO_UID={user} SUDO_GID={group}");
    }
}

#[test]
fn a_textfile_is_for_everybody_and_a_draft_of_a_killed_exporter_goes() {
    let folder = Folder::new("textfile");
    let (file, left) = (folder.file("vmentry.prom"), folder.file(".vmentry-draft.1.0"));
    fs::write(&left, "left").unwrap();
    let mut exporter = command(&["export", "--replay", RECORDING, "--textfile", &file]);
    // SAFETY: the closure makes one system call.
    unsafe {
        exporter.pre_exec(|| {
            libc::umask(0o077);
            Ok(())
        });
    }
    let mut exporter = exporter.spawn().unwrap();
    let start = Instant::now();
    while !Path::new(&file).exists() && start.elapsed() < Duration::from_secs(20) {
        sleep(Duration::from_millis(10));
    }
    exporter.kill().unwrap();
    exporter.wait().unwrap();
    assert_eq!(of(&file).0, 0o644);
    assert!(!Path::new(&left).exists());
}

#[test]
fn no_output_is_an_input_by_another_name() {
    let folder = Folder::new("same");
    let (file, other) = (folder.file("a.hlog"), folder.file("other.hlog"));
    fs::copy(RECORDING, &file).unwrap();
    fs::write(&other, fs::read_to_string(RECORDING).unwrap().replace("3b902005", "4b902005")).unwrap();
    let before = fs::read(&file).unwrap();
    let [hard, soft] = ["hard.hlog", "soft.hlog"].map(|name| folder.file(name));
    fs::hard_link(&file, &hard).unwrap();
    symlink(&file, &soft).unwrap();
    for name in [&file, &hard, &soft] {
        assert_refused(&run(&["merge", "--overwrite", "-o", name, &file, &other]), 2, "both read and written");
        assert_refused(&run(&["merge", "--overwrite", "-o", &file, &other, name]), 2, "both read and written");
    }
    let appended = |args: &[&str]| {
        let to = || File::options().append(true).open(&file).unwrap();
        command(args).stdin(File::open(&file).unwrap()).stdout(to()).output().unwrap()
    };
    for args in [
        &["merge", "-o", "-", &hard, &other][..],
        &["merge", "-o", "-", "/proc/self/fd/0", &other],
        &["report", &soft],
        &["report", "-"],
        &["compare", &file, "--with", &other],
        &["compare", &other, "--with", &hard],
        &["live", &hard],
    ] {
        assert_refused(&appended(args), 2, "both read and written");
    }
    let prom = folder.file("a.prom");
    fs::hard_link(&file, &prom).unwrap();
    assert_refused(&run(&["export", "--replay", &file, "--textfile", &prom]), 2, "both read and written");
    // A file that is standard output or error is no place for another output.
    let target = folder.file("out");
    for is_stdout in [true, false] {
        let to = File::create(&target).unwrap();
        let mut merge = merge(&target);
        let output = if is_stdout { merge.stdout(to) } else { merge.stderr(to) }.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = if is_stdout { err(&output) } else { fs::read_to_string(&target).unwrap() };
        assert!(said.contains("goes to this file"), "{said}");
    }
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[test]
fn standard_input_is_read_once() {
    for args in [&["report", "-", "-"][..], &["compare", "-", "-"], &["compare", "-", "--with", RECORDING, "-"]] {
        let mut child = command(args).stdin(File::open(RECORDING).unwrap()).spawn().unwrap();
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if start.elapsed() > Duration::from_secs(20) {
                child.kill().unwrap();
                panic!("{args:?} hangs");
            }
            sleep(Duration::from_millis(10));
        }
        assert_refused(&child.wait_with_output().unwrap(), 2, "given twice");
    }
}

#[test]
fn names_need_not_be_utf_8() {
    let folder = Folder::new("bytes");
    let name = |bytes: &[u8]| folder.0.join(OsStr::from_bytes(bytes)).into_os_string();
    let (first, second, prom) = (name(b"\xff.hlog"), name(b"a\xfe\xff"), name(b"\xff.prom"));
    let args = |parts: &[&OsStr]| parts.iter().map(|&part| part.to_owned()).collect::<Vec<OsString>>();
    assert!(merge(&first).output().unwrap().status.success());
    assert!(run(&args(&["merge".as_ref(), "-o".as_ref(), &second, &first])).status.success());
    for name in [&first, &second] {
        let report = run(&args(&["report".as_ref(), name]));
        assert!(report.status.success() && out(&report).contains("272 entries"), "{report:?}");
    }
    let copy = name(b"copy\xff");
    fs::copy(RECORDING, &copy).unwrap();
    let played = run(&args(&["live".as_ref(), &copy]));
    assert!(played.status.success() && !played.stdout.is_empty(), "{played:?}");
    let both = run(&args(&["compare".as_ref(), &first, &second]));
    assert_eq!(both.status.code(), Some(1), "{both:?}");
    let exported = run(&args(&["export".as_ref(), "--replay".as_ref(), &prom, "--textfile".as_ref(), &prom]));
    assert_eq!(exported.status.code(), Some(1), "{exported:?}");
    // What is no file name is refused, as any wrong value is.
    for option in ["--listen", "--vm", "--pid", "--vm-labels", "--interval"] {
        let wrong = run(&args(&["export".as_ref(), option.as_ref(), OsStr::from_bytes(b"\xff")]));
        assert_eq!(wrong.status.code(), Some(2), "{option}: {wrong:?}");
    }
}

#[test]
fn the_environment_need_not_be_utf_8() {
    let odd = OsString::from_vec(b"\xff1".to_vec());
    let variables = ["HOME", "PATH", "COLUMNS", "LINES", "TERM", "COLORTERM", "LANG", "LC_ALL", "NO_COLOR", "SUDO_UID"];
    let folder = Folder::new("environment");
    let merged = folder.file("a.hlog");
    for args in [
        &["report", RECORDING][..],
        &["merge", "--overwrite", "-o", &merged, RECORDING],
        &["--help"],
        &["live", RECORDING],
        &["check", "--no-proof"],
        &["report"],
    ] {
        let odd =
            variables.iter().chain(&["SUDO_GID", "XDG_RUNTIME_DIR", "RUST_BACKTRACE", "TMPDIR"]).map(|v| (v, &odd));
        let output = command(args).envs(odd).output().unwrap();
        assert!(output.status.code().is_some_and(|code| code <= 2), "{args:?}: {output:?}");
        assert!(!err(&output).contains("panicked"), "{args:?}: {output:?}");
    }
}

#[test]
fn files_of_the_kernel_are_never_written() {
    for file in ["/proc/self/comm", "/proc/self/oom_score_adj"] {
        assert_refused(&merge(file).output().unwrap(), 1, "interface of the kernel");
        assert_refused(&run(&["merge", "-o", file, RECORDING]), 1, "interface of the kernel");
    }
    // A device's name that was not typed right must not become a file.
    for args in [&["merge", "-o"][..], &["merge", "--overwrite", "-o"]] {
        let file = "/dev/../dev/vmentry-test-nul";
        assert_refused(&run(&[args, &[file, RECORDING]].concat()), 1, "/dev is for devices");
        assert!(!Path::new(file).exists());
    }
    assert!(merge("/dev/null").output().unwrap().status.success());
}

#[test]
fn root_takes_no_file_that_another_user_has_planted() {
    if !is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let folder = Folder::new("planted");
    fs::set_permissions(&folder.0, Permissions::from_mode(0o1777)).unwrap();
    let planted = |name: &str| {
        let file = folder.file(name);
        fs::write(&file, "").unwrap();
        chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        file
    };
    let file = planted("a.hlog");
    let unasked = run(&["merge", "-o", &file, RECORDING]);
    assert_refused(&unasked, 1, "an empty file that belongs to user 65534");
    assert_eq!((fs::metadata(&file).unwrap().len(), of(&file)), (0, (0o666, NOBODY)));
    // To its own user behind sudo it is no stranger's, and whoever has it open sees nothing.
    let open = File::open(&file).unwrap();
    let mut own = command(&["merge", "-o", &file, RECORDING]);
    assert!(own.env("SUDO_UID", "65534").env("SUDO_GID", "65534").output().unwrap().status.success());
    assert_eq!((of(&file), open.metadata().unwrap().len()), ((0o600, NOBODY), 0));
    // A hard link, which fs.protected_hardlinks may not have prevented.
    let (secret, hard) = (folder.file("secret"), folder.file("hard.hlog"));
    fs::write(&secret, "root's").unwrap();
    fs::hard_link(&secret, &hard).unwrap();
    assert!(merge(&hard).output().unwrap().status.success());
    assert_eq!(fs::read_to_string(&secret).unwrap(), "root's");
    assert!(fs::metadata(&hard).unwrap().len() > 1000);
    let link = folder.file("link.hlog");
    symlink(&secret, &link).unwrap();
    assert_refused(&merge(&link).output().unwrap(), 1, "symbolic links are not followed");
    let fifo = planted("fifo");
    fs::remove_file(&fifo).unwrap();
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    assert_refused(&merge(&fifo).output().unwrap(), 1, "not a regular file");
}

#[test]
fn a_file_that_cannot_be_replaced_by_renaming_is_refused_with_the_fix() {
    if !is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let folder = Folder::new("place");
    let (file, over) = (folder.file("a.hlog"), folder.file("over.hlog"));
    for name in [&file, &over] {
        fs::write(name, "old").unwrap();
    }
    let script = "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
    let mut mounted = Command::new("unshare");
    mounted.args(["--mount", "sh", "-c", script, "sh", &file, &over]).stdin(Stdio::null());
    let output = mounted.arg(env!("CARGO_BIN_EXE_vmentry")).args(["merge", "--overwrite", RECORDING, "-o", &over]);
    assert_refused(&output.output().unwrap(), 1, "something is mounted there");
    // As a user who may write to the file, but not to its folder.
    let binary = folder.file("vmentry");
    // By another process: a fork of this one, for another test, would hold the copy open, and a file that is open for writing cannot be run.
    assert!(Command::new("cp").args([env!("CARGO_BIN_EXE_vmentry"), &binary]).status().unwrap().success());
    let recording = folder.file("b.hlog");
    fs::copy(RECORDING, &recording).unwrap();
    fs::set_permissions(&recording, Permissions::from_mode(0o644)).unwrap();
    chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut user = Command::new(&binary);
    user.args(["merge", "--overwrite", "-o", &file, &recording]).uid(NOBODY).gid(NOBODY);
    assert_refused(&user.output().unwrap(), 1, "in its folder no new file can be made");
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
}

#[test]
fn a_recording_that_may_not_be_read_is_named_with_the_fix() {
    let folder = Folder::new("unreadable");
    let (binary, recording) = (folder.file("vmentry"), folder.file("a.hlog"));
    assert!(Command::new("cp").args([env!("CARGO_BIN_EXE_vmentry"), &binary]).status().unwrap().success());
    fs::copy(RECORDING, &recording).unwrap();
    fs::set_permissions(&recording, Permissions::from_mode(0o0)).unwrap();
    for line in [&["report", &recording][..], &["compare", &recording, &recording], &["live", "--once", &recording]] {
        let mut user = Command::new(&binary);
        user.args(line);
        if rustix::process::geteuid().is_root() {
            user.uid(NOBODY).gid(NOBODY);
        }
        let output = user.output().unwrap();
        assert_refused(&output, 1, &format!("or let others read it: chmod a+r {recording}"));
        assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"), "{output:?}");
    }
}

#[test]
fn an_old_file_outlives_a_disk_without_room() {
    let folder = Folder::new("full");
    let file = folder.file("a.hlog");
    fs::write(&file, "old").unwrap();
    let mut merge = merge(&file);
    let limit = libc::rlimit { rlim_cur: 1000, rlim_max: 1000 };
    // SAFETY: the closure makes one system call, on a value of its own.
    unsafe {
        merge.pre_exec(move || match libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    assert_refused(&merge.output().unwrap(), 1, "File too large");
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}
