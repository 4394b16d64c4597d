//! The real binary recording on the running kernel: every way out keeps what was recorded and leaves nothing attached.
//! No VM has to run.
//!
//! Needs root and a KVM module; `cargo xtask test` runs them, or `cargo test -p vmentry --test record -- --ignored`.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

mod binary;

use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt, process::ExitStatusExt},
    },
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

use binary::{Folder, assert_confined, command as vmentry, of_threads, text};

/// One at a time: the tests count the programs that are loaded.
static ALONE: Mutex<()> = Mutex::new(());

fn loaded() -> usize {
    aya::programs::loaded_programs()
        .flatten()
        .filter(|p| p.name_as_str().is_some_and(|n| n.starts_with("kvm_e")))
        .count()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not happen");
        sleep(Duration::from_millis(10));
    }
}

fn report(file: &str) -> serde_json::Value {
    let output = vmentry(&["report", "--format", "json", file]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Starts a recording and waits until its programs are attached and its first interval is written.
fn start(file: &str) -> Child {
    let child = vmentry(&["record", "-o", file, "--interval", "50ms"]).spawn().unwrap();
    wait_until("the first interval", || fs::read_to_string(file).is_ok_and(|t| t.contains("#{\"interval\"")));
    assert_eq!(loaded(), 2);
    child
}

fn send(child: &Child, signal: i32) {
    // SAFETY: the child has not been waited for, so that the number is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

fn ends_in_order(signal: i32, name: &str) {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new(name);
    let file = folder.file("a.hlog");
    let child = start(&file);
    send(&child, signal);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains(&format!("ended by {name}")), "{}", text(&output.stderr));
    let report = report(&file);
    assert_eq!(report["recordings"][0]["ended"], name);
    assert_eq!(report["recordings"][0]["accounting"]["exact"], true);
    wait_until("detaching", || loaded() == 0);
}

#[test]
#[ignore = "needs root and KVM"]
fn ctrl_c_ends_in_order() {
    ends_in_order(libc::SIGINT, "SIGINT");
}

#[test]
#[ignore = "needs root and KVM"]
fn sigterm_ends_in_order() {
    ends_in_order(libc::SIGTERM, "SIGTERM");
}

#[test]
#[ignore = "needs root and KVM"]
fn a_closed_terminal_ends_in_order() {
    ends_in_order(libc::SIGHUP, "SIGHUP");
}

#[test]
#[ignore = "needs root and KVM"]
fn a_killed_recording_still_reports_and_leaves_nothing_attached() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("kill");
    let file = folder.file("a.hlog");
    let mut child = start(&file);
    send(&child, libc::SIGKILL);
    child.wait().unwrap();
    let report = report(&file);
    assert!(report["recordings"][0]["intervals"].as_u64().unwrap() >= 1);
    assert_eq!(report["recordings"][0]["ended"], serde_json::Value::Null);
    wait_until("detaching", || loaded() == 0);
}

#[test]
#[ignore = "needs root and KVM"]
fn the_commands_code_is_the_recorders() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("code");
    let file = folder.file("a.hlog");
    let output = vmentry(&["record", "-o", &file, "--", "sh", "-c", "exit 7"]).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(report(&file)["recordings"][0]["ended"], "command");
    wait_until("detaching", || loaded() == 0);
}

#[test]
#[ignore = "needs root and KVM"]
fn the_duration_ends_the_recording_and_its_command() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("duration");
    let file = folder.file("a.hlog");
    let start = Instant::now();
    let output = vmentry(&["record", "-o", &file, "--duration", "200ms", "--", "sleep", "1000"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(report(&file)["recordings"][0]["ended"], "duration");
}

/// Bits of capabilities, as in /proc/PID/status.
fn bits(numbers: &[u32]) -> u64 {
    numbers.iter().map(|number| 1 << number).sum()
}

/// CAP_CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, SYS_PTRACE: for files, and for /proc.
const FILES_AND_PROCESSES: [u32; 5] = [0, 1, 2, 3, 19];

#[test]
#[ignore = "needs root and KVM"]
fn a_recorder_keeps_what_its_end_needs_and_its_command_has_what_the_caller_has() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("privileges");
    let (file, trace, pid) = (folder.file("a.hlog"), folder.file("a.pftrace"), folder.file("pid"));
    let command = format!("echo $$ > {pid}; exec sleep 1000");
    let args = ["record", "-o", &file, "--interval", "50ms", "--events", &trace, "--", "sh", "-c", &command];
    let child = vmentry(&args).spawn().unwrap();
    wait_until("the first interval", || fs::read_to_string(&file).is_ok_and(|t| t.contains("#{\"interval\"")));
    wait_until("the command's start", || fs::read_to_string(&pid).is_ok_and(|pid| pid.ends_with('\n')));
    // CAP_KILL for the command, CAP_SYS_ADMIN for the look at other tracers.
    let mask = bits(&[5, 21]) | bits(&FILES_AND_PROCESSES);
    let names = of_threads(child.id(), "Name");
    assert!(["collect", "events", "write"].iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
    assert_confined(child.id(), mask);
    let command: u32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    for field in ["CapPrm", "CapEff", "CapBnd", "Seccomp", "NoNewPrivs"] {
        assert_eq!(of_threads(command, field)[0], of_threads(std::process::id(), field)[0], "{field} of the command");
    }
    send(&child, libc::SIGTERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(128 + libc::SIGTERM), "{}", text(&output.stderr));
    let tracers = &report(&file)["recordings"][0]["other_tracers"];
    assert!(!tracers.to_string().contains("CAP_SYS_ADMIN"), "{tracers}");
    wait_until("detaching", || loaded() == 0);
}

#[test]
#[ignore = "needs root and KVM"]
fn only_the_thread_that_follows_vms_may_change_the_programs_maps() {
    let _alone = ALONE.lock().unwrap();
    let this = std::process::id().to_string();
    let child = vmentry(&["live", "--pid", &this]).spawn().unwrap();
    wait_until("the programs", || loaded() == 2 && of_threads(child.id(), "Name").contains(&"collect".to_owned()));
    let mask = |numbers: &[u32]| format!("{:016x}", bits(numbers));
    wait_until("each thread has its own", || {
        let threads = of_threads(child.id(), "Name").into_iter().zip(of_threads(child.id(), "CapEff"));
        // CAP_BPF
        threads.into_iter().all(|(name, has)| match &*name {
            "follow" => has == mask(&[2, 19, 39]),
            _ => has == mask(&FILES_AND_PROCESSES),
        })
    });
    assert!(of_threads(child.id(), "Seccomp").iter().all(|mode| mode == "2"));
    send(&child, libc::SIGTERM);
    assert!(child.wait_with_output().unwrap().status.success());
    wait_until("detaching", || loaded() == 0);
}

/// Processes whose arguments are these.
fn running(arguments: &[&str]) -> Vec<i32> {
    let wanted = arguments.iter().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect::<Vec<_>>();
    let ids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    ids.filter(|id: &i32| fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|cmdline| cmdline == wanted)).collect()
}

#[test]
#[ignore = "needs root and KVM"]
fn a_command_that_is_ended_leaves_no_process_behind() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("orphans");
    let seconds = (100_000 + std::process::id()).to_string();
    // A child, one whose parent has gone, one with a session of its own, and one that does not want to end.
    let command = format!(
        "(sleep {seconds} &); setsid sleep {seconds} & sh -c 'trap \"\" TERM; sleep {seconds}; sleep {seconds}' & sleep {seconds}; true"
    );
    let args = ["record", "-o", &folder.file("a.hlog"), "--duration", "700ms", "--", "sh", "-c", &command];
    let child = vmentry(&args).spawn().unwrap();
    wait_until("the command's processes", || running(&["sleep", &seconds]).len() == 4);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let left = running(&["sleep", &seconds]);
    // SAFETY: kill has no memory effects; the processes are this test's.
    left.iter().for_each(|id| assert_eq!(unsafe { libc::kill(*id, libc::SIGKILL) }, 0));
    assert!(left.is_empty(), "processes are left: {left:?}");
}

#[test]
#[ignore = "needs root and KVM"]
fn a_recorder_that_is_killed_takes_its_command_with_it() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("deadly");
    for (n, (signal, user)) in
        [(libc::SIGKILL, "root"), (libc::SIGRTMIN(), "root"), (libc::SIGABRT, "nobody")].into_iter().enumerate()
    {
        let (file, seconds) = (folder.file(&format!("{n}.hlog")), (400_000 + std::process::id()).to_string());
        let mut child = vmentry(&["record", "-o", &file, "--user", user, "--", "sleep", &seconds]).spawn().unwrap();
        wait_until("the command", || running(&["sleep", &seconds]).len() == 1);
        // Its recorder has given up its privileges by then.
        wait_until("the recorder", || of_threads(child.id(), "Name").contains(&"collect".to_owned()));
        send(&child, signal);
        assert_eq!(child.wait().unwrap().signal(), Some(signal));
        let start = Instant::now();
        while !running(&["sleep", &seconds]).is_empty() && start.elapsed() < Duration::from_secs(5) {
            sleep(Duration::from_millis(10));
        }
        let left = running(&["sleep", &seconds]);
        // SAFETY: kill has no memory effects; the process is this test's.
        left.iter().for_each(|id| assert_eq!(unsafe { libc::kill(*id, libc::SIGKILL) }, 0));
        assert!(left.is_empty(), "after signal {signal}, with --user {user}: {left:?}");
    }
    wait_until("detaching", || loaded() == 0);
}

#[test]
#[ignore = "needs root and KVM"]
fn a_recording_that_cannot_be_written_ends_its_command() {
    let _alone = ALONE.lock().unwrap();
    let seconds = (300_000 + std::process::id()).to_string();
    let args = ["record", "-o", "/dev/full", "--interval", "50ms", "--", "sleep", &seconds];
    let output = vmentry(&args).output().unwrap();
    let left = running(&["sleep", &seconds]);
    // SAFETY: kill has no memory effects; the process is this test's.
    left.iter().for_each(|id| assert_eq!(unsafe { libc::kill(*id, libc::SIGKILL) }, 0));
    assert!(left.is_empty(), "processes are left: {left:?}");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
}

#[test]
#[ignore = "needs root and KVM"]
fn what_a_command_leaves_behind_when_it_exits_by_itself_goes_on() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("daemon");
    let seconds = (200_000 + std::process::id()).to_string();
    let command = format!("setsid sleep {seconds} > /dev/null 2>&1 & exit 3");
    let output = vmentry(&["record", "-o", &folder.file("a.hlog"), "--", "sh", "-c", &command]).output().unwrap();
    let left = running(&["sleep", &seconds]);
    // SAFETY: kill has no memory effects; the process is this test's.
    left.iter().for_each(|id| assert_eq!(unsafe { libc::kill(*id, libc::SIGKILL) }, 0));
    assert_eq!((output.status.code(), left.len()), (Some(3), 1), "{}", text(&output.stderr));
}

#[test]
#[ignore = "needs root and KVM"]
fn a_command_runs_as_the_user_that_is_named() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("user");
    let file = folder.file("a.hlog");
    let record = |user: &str| {
        let args = [
            "record",
            "--overwrite",
            "-o",
            &file,
            "--user",
            user,
            "--",
            "sh",
            "-c",
            "id -un; grep CapEff /proc/$$/status",
        ];
        vmentry(&args).output().unwrap()
    };
    let output = record("nobody");
    assert_eq!(text(&output.stdout), "nobody\nCapEff:\t0000000000000000\n", "{}", text(&output.stderr));
    let refused = record("no-such-user-here");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("--user no-such-user-here: there is no such user"),
        "{}",
        text(&refused.stderr)
    );
}

/// What a pipe holds that nobody reads: nothing more fits.
fn full_pipe() -> (io::PipeReader, io::PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    // SAFETY: the descriptor is open; the call has no memory effects.
    let held = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) };
    writer.write_all(&vec![b'\n'; held as usize]).unwrap();
    (reader, writer)
}

#[test]
#[ignore = "needs root and KVM"]
fn a_reader_that_takes_nothing_does_not_keep_the_recording_from_ending() {
    let _alone = ALONE.lock().unwrap();
    for by_time in [true, false] {
        let (_reader, writer) = full_pipe();
        let more: &[&str] = if by_time { &["--duration", "300ms"] } else { &[] };
        let args = [&["record", "-o", "-", "--interval", "50ms"], more].concat();
        let child = vmentry(&args).stdout(writer).spawn().unwrap();
        if !by_time {
            wait_until("attaching", || loaded() == 2);
            sleep(Duration::from_millis(300));
            send(&child, libc::SIGTERM);
        }
        let started = Instant::now();
        let output = child.wait_with_output().unwrap();
        assert!(started.elapsed() < Duration::from_secs(20), "{args:?}");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(text(&output.stderr).contains("takes nothing"), "{args:?}: {}", text(&output.stderr));
        wait_until("detaching", || loaded() == 0);
    }
}

#[test]
#[ignore = "needs root and KVM"]
fn a_slow_reader_gets_a_whole_recording() {
    let _alone = ALONE.lock().unwrap();
    let (mut reader, writer) = full_pipe();
    let child =
        vmentry(&["record", "-o", "-", "--interval", "50ms", "--duration", "1s"]).stdout(writer).spawn().unwrap();
    sleep(Duration::from_millis(800));
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    let folder = Folder::new("slow");
    let file = folder.file("a.hlog");
    fs::write(&file, text(&all).trim_start()).unwrap();
    assert_eq!(report(&file)["recordings"][0]["ended"], "duration");
}

#[test]
#[ignore = "needs root and KVM"]
fn what_the_command_prints_never_lands_in_the_recording() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("prints");
    let file = folder.file("a.hlog");
    // Not in the command line, which the header has.
    const SAID: &str = "said by 42";
    let command = ["--", "sh", "-c", "echo said by $((6 * 7))"];
    for args in [&["record", "-o", "-"][..], &["record", "-o", &file, "--events", "-"]] {
        let output = vmentry(&[args, &command].concat()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(!text(&output.stdout).contains(SAID), "{args:?}");
        assert!(text(&output.stderr).contains(SAID), "{args:?}");
    }
    let output = vmentry(&[&["record", "-o", &file, "--overwrite"][..], &command].concat()).output().unwrap();
    assert_eq!(text(&output.stdout), "said by 42\n", "where standard output is the command's");
}

#[test]
#[ignore = "needs root and KVM"]
fn lines_that_nobody_reads_do_not_keep_the_view_from_ending() {
    let _alone = ALONE.lock().unwrap();
    let (_reader, writer) = full_pipe();
    let mut child = vmentry(&["live"]).stdout(writer).spawn().unwrap();
    wait_until("attaching", || loaded() == 2);
    sleep(Duration::from_millis(2500));
    send(&child, libc::SIGTERM);
    wait_until("its end", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    wait_until("detaching", || loaded() == 0);
}

#[test]
#[ignore = "needs root and KVM"]
fn a_full_disk_is_one_clear_error() {
    let _alone = ALONE.lock().unwrap();
    let output = vmentry(&["record", "-o", "/dev/full", "--duration", "200ms"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("write /dev/full (nothing was recorded)") && error.contains("No space left"), "{error}");
    assert!(!error.contains("vmentry report") && !error.contains("recorded 0"), "{error}");
    wait_until("detaching", || loaded() == 0);
}

/// The reason in the mark that ends a trace, read with the official schema; none where there is no such mark.
fn ending(trace: &str) -> Option<String> {
    // As `cargo test` builds it: any other way the schema would be compiled again, with other features.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let built = Command::new(cargo).args(["test", "--quiet", "--no-run"]).current_dir(root).status();
    assert!(built.unwrap().success());
    let check = Path::new(env!("CARGO_BIN_EXE_vmentry")).with_file_name("trace-check");
    let output = Command::new(check).arg(trace).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["unknown_fields"], 0);
    let marks = json["whole"].as_array().unwrap();
    assert!(marks.iter().any(|m| m["name"] == "recording begins"));
    let end = marks.iter().find(|m| m["name"] == "recording ends")?;
    Some(end["arguments"]["reason"].as_str().unwrap().to_owned())
}

#[test]
#[ignore = "needs root and KVM"]
fn a_trace_of_single_events_is_complete_on_every_orderly_way_out_and_opens_after_a_kill() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("events");
    let (file, trace) = (folder.file("a.hlog"), folder.file("a.pftrace"));
    let args = ["record", "--overwrite", "-o", &file, "--events", &trace, "--interval", "50ms"];
    for (signal, reason) in [(libc::SIGINT, "SIGINT"), (libc::SIGTERM, "SIGTERM"), (libc::SIGHUP, "SIGHUP")] {
        let _ = fs::remove_file(&file);
        let child = vmentry(&args).spawn().unwrap();
        wait_until("the first interval", || fs::read_to_string(&file).is_ok_and(|t| t.contains("#{\"interval\"")));
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("a.pftrace"), "{}", text(&output.stderr));
        assert_eq!(ending(&trace).as_deref(), Some(reason));
    }
    for (more, reason) in [(&["--duration", "200ms"][..], "duration"), (&["--", "true"][..], "command")] {
        let output = vmentry(&[&args[..], more].concat()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(ending(&trace).as_deref(), Some(reason));
    }
    let _ = fs::remove_file(&file);
    let mut child = vmentry(&args).spawn().unwrap();
    wait_until("the first interval", || fs::read_to_string(&file).is_ok_and(|t| t.contains("#{\"interval\"")));
    send(&child, libc::SIGKILL);
    child.wait().unwrap();
    assert_eq!(ending(&trace), None);
    wait_until("detaching", || loaded() == 0);
}

#[test]
#[ignore = "needs root and KVM"]
fn traces_that_cannot_be_written_are_refused_before_anything_is_attached() {
    let folder = Folder::new("refused");
    let (file, trace) = (folder.file("a.hlog"), folder.file("a-2.pftrace"));
    let refused = |args: &[&str], why: &str| {
        let args = [&["record", "--duration", "100ms", "-o", &file], args].concat();
        let output = vmentry(&args).output().unwrap();
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
        // A refused run leaves nothing that the next one would refuse to replace.
        assert!(fs::metadata(&file).map_or(0, |m| m.len()) == 0);
    };
    fs::write(&trace, "mine").unwrap();
    std::os::unix::fs::symlink(&trace, folder.file("link")).unwrap();
    refused(&["--events", &folder.file("link")], "symbolic link");
    refused(&["--events", &trace], "--overwrite");
    refused(&["--events", &file], "choose another name");
    refused(&["--events", "/dev/full"], "No space left");
    let first = folder.file("a.pftrace");
    let flight = ["--flight-recorder", "1s", "--trigger", "entry_to_exit_ns>1us", "--events"];
    refused(&[&flight[..], &[&first]].concat(), "a-2.pftrace exists");
    refused(&[&flight[..], &[&folder.file("no/a")]].concat(), "there is no folder");
    refused(&["--flight-recorder", "1s"], "--trigger");
    refused(&["--trigger", "reason=HLT"], "--flight-recorder");
    refused(&["--flight-recorder", "1s", "--trigger", "latency>1ms"], "entry_to_exit_ns");
    assert_eq!(fs::read_to_string(&trace).unwrap(), "mine");
}

#[test]
#[ignore = "needs root and KVM"]
fn a_filter_that_names_nothing_is_refused_before_anything_is_attached() {
    let refused = |args: &[&str], why: &str| {
        let output = vmentry(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    };
    let folder = Folder::new("filter");
    let file = folder.file("a.hlog");
    refused(&["record", "-o", &file, "--vm", "no-such-vm"], "no such VM is running");
    refused(&["record", "-o", &file, "--pid", "4194304"], "there is no such process");
    assert!(!Path::new(&file).exists() || fs::metadata(&file).unwrap().len() < 4096);
}

#[test]
#[ignore = "needs root and KVM"]
fn without_privileges_the_fix_is_named() {
    use std::os::unix::process::CommandExt;
    let folder = Folder::new("nobody");
    let binary = folder.file("vmentry");
    fs::copy(env!("CARGO_BIN_EXE_vmentry"), &binary).unwrap();
    let mut command = Command::new(&binary);
    let output: Output =
        command.args(["record", "-o", "/vmentry-never"]).uid(65534).gid(65534).current_dir("/").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("run as root"), "{}", text(&output.stderr));
    assert!(!Path::new("/vmentry-never").exists());
}

#[test]
#[ignore = "needs root and KVM"]
fn a_recording_without_entries_says_which_vms_run() {
    let _alone = ALONE.lock().unwrap();
    let check = vmentry(&["check", "--format", "json"]).output().unwrap();
    let check: serde_json::Value = serde_json::from_slice(&check.stdout).unwrap();
    if check["proof"]["outcome"] != "failed" {
        eprintln!("SKIPPED: only where kvm's tracepoints do not fire; here the proof is {}", check["proof"]);
        return;
    }
    assert_eq!((&check["ready"], &check["proof"]["seen"]["entries"]), (&false.into(), &0.into()), "{check}");
    let folder = Folder::new("silent");
    let mut guest = vmentry(&["exercise", "spin", "--count", "4000000000"]).spawn().unwrap();
    let is_vm = |fd: &Path| fs::read_link(fd).is_ok_and(|to| to == Path::new("anon_inode:kvm-vm"));
    let fds = format!("/proc/{}/fd", guest.id());
    let has_vm = || fs::read_dir(&fds).is_ok_and(|fds| fds.flatten().any(|fd| is_vm(&fd.path())));
    wait_until("the guest's VM", has_vm);
    let output = vmentry(&["record", "-o", &folder.file("a.hlog"), "--duration", "300ms"]).output().unwrap();
    guest.kill().unwrap();
    guest.wait().unwrap();
    let said = text(&output.stderr);
    // Others may run, too.
    assert!(said.contains("NO ENTRY ARRIVED, although VMs run (") && said.contains("spin"), "{said}");
}

#[test]
#[ignore = "needs root and KVM"]
fn a_second_recorder_of_the_same_file_is_refused_and_the_first_goes_on() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("two");
    let (file, trace) = (folder.file("a.hlog"), folder.file("a.pftrace"));
    let args = ["record", "-o", &file, "--interval", "50ms", "--events", &trace];
    let first = vmentry(&args).spawn().unwrap();
    wait_until("the first interval", || fs::read_to_string(&file).is_ok_and(|t| t.contains("#{\"interval\"")));
    let (pid, other) = (first.id().to_string(), folder.file("b.hlog"));
    for args in [
        &["record", "--overwrite", "--duration", "100ms", "-o", &file][..],
        &["record", "--overwrite", "--duration", "100ms", "-o", &other, "--events", &trace],
        &["merge", "--overwrite", "-o", &file, concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/lab.hlog")],
    ] {
        let output = vmentry(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let error = text(&output.stderr);
        assert!(error.contains(&format!("process {pid} is writing it")), "{args:?}: {error}");
    }
    send(&first, libc::SIGTERM);
    let output = first.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(report(&file)["recordings"][0]["ended"], "SIGTERM");
    // The lock was the file's own.
    let names: Vec<_> = fs::read_dir(&folder.0).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| ["a.hlog", "a.pftrace", "b.hlog"].iter().any(|n| name == n)), "{names:?}");
}

#[test]
#[ignore = "needs root and KVM"]
fn in_a_pid_namespace_of_its_own_no_stranger_gives_his_name() {
    let _alone = ALONE.lock().unwrap();
    let inside = |args: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc", env!("CARGO_BIN_EXE_vmentry")]).args(args);
        unshare.stdin(Stdio::null()).output().unwrap()
    };
    let check: serde_json::Value =
        serde_json::from_slice(&inside(&["check", "--format", "json"]).stdout).expect("unshare and vmentry run");
    assert_eq!((&check["facts"]["shows_host_processes"], &check["ready"]), (&false.into(), &false.into()), "{check}");
    let folder = Folder::new("namespace");
    let file = folder.file("a.hlog");
    for filter in [["--pid", "1"], ["--vm", "web1"]] {
        let refused = inside(&["record", "-o", &file, filter[0], filter[1]]);
        let error = text(&refused.stderr);
        assert!(
            !refused.status.success() && error.contains("PID namespace") && error.contains("--pid=host"),
            "{error}"
        );
    }
    let recorded = inside(&["record", "-o", &file, "--duration", "100ms"]);
    assert!(recorded.status.success() && text(&recorded.stderr).contains("VMs are named 'tgid N'"), "{recorded:?}");
}

#[test]
#[ignore = "needs root and KVM"]
fn another_tracer_on_the_same_tracepoints_is_named() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("shared");
    let (first, second) = (folder.file("a.hlog"), folder.file("b.hlog"));
    let mut other = start(&first);
    let output = vmentry(&["record", "-o", &second, "--duration", "100ms"]).output().unwrap();
    let name = format!("vmentry (pid {})", other.id());
    assert!(output.status.success() && text(&output.stderr).contains("SHARED: "), "{output:?}");
    assert!(text(&output.stderr).contains(&name), "{output:?}");
    let json = report(&second);
    let names = |of: &serde_json::Value| of["names"].as_array().unwrap().contains(&name.as_str().into());
    let tracers = &json["recordings"][0]["other_tracers"];
    assert!(names(&tracers["begin"]) && names(&tracers["end"]), "{tracers}");
    let shown = vmentry(&["report", &second]).output().unwrap();
    let shown = text(&shown.stdout);
    assert!(shown.lines().nth(1).unwrap().starts_with("SHARED: ") && shown.contains(&name), "{shown}");
    let check = vmentry(&["check", "--no-proof"]).output().unwrap();
    assert!(text(&check.stdout).contains(&format!("times contain their work: {name}")), "{}", text(&check.stdout));
    other.kill().unwrap();
    other.wait().unwrap();
    wait_until("detaching", || loaded() == 0);
    // This process itself is no other tracer, neither at the beginning nor at the end.
    let alone = vmentry(&["record", "-o", &second, "--overwrite", "--duration", "100ms"]).output().unwrap();
    assert!(!text(&alone.stderr).contains("SHARED"), "{}", text(&alone.stderr));
    assert_eq!(report(&second)["shared_with"], serde_json::json!([]));
}

#[test]
#[ignore = "needs root and KVM"]
fn a_recorder_that_dies_before_its_first_interval_leaves_the_old_recording() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("old");
    let file = folder.file("a.hlog");
    assert!(vmentry(&["record", "-o", &file, "--duration", "100ms"]).output().unwrap().status.success());
    let old = fs::read(&file).unwrap();
    let args = ["record", "--overwrite", "-o", &file, "--interval", "1h"];
    let mut child = vmentry(&args).spawn().unwrap();
    wait_until("attaching", || loaded() == 2);
    send(&child, libc::SIGKILL);
    child.wait().unwrap();
    assert_eq!(fs::read(&file).unwrap(), old);
    wait_until("detaching", || loaded() == 0);
    // In order, it has its interval, and replaces the old one.
    let child = vmentry(&args).spawn().unwrap();
    wait_until("attaching", || loaded() == 2);
    sleep(Duration::from_millis(200));
    send(&child, libc::SIGTERM);
    assert!(child.wait_with_output().unwrap().status.success());
    assert_ne!(fs::read(&file).unwrap(), old);
    assert_eq!(report(&file)["recordings"][0]["ended"], "SIGTERM");
}

#[test]
#[ignore = "needs root and KVM"]
fn arguments_of_the_command_reach_it_as_they_are_and_stay_out_of_the_recording_unless_asked() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("arguments");
    for (name, full) in [("a\u{e9}.hlog", false), ("b.hlog", true)] {
        let file = folder.file(name);
        let trace = folder.file(&format!("{name}.pftrace"));
        let mut record = vmentry(&["record", "-o", &file, "--events", &trace]);
        record.args(full.then_some("--full-command")).args(["--", "/usr/bin/printf", "%s", "--password=hunter2"]);
        let output = record.arg(std::ffi::OsStr::from_bytes(b"x\xffy")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout, b"--password=hunter2x\xffy");
        let kept = report(&file)["recordings"][0]["command"].to_string();
        assert_eq!((kept.contains("printf"), kept.contains("hunter2")), (true, full), "{kept}");
        let merged = folder.file("m.hlog");
        assert!(vmentry(&["merge", "--overwrite", "-o", &merged, &file]).output().unwrap().status.success());
        let page = vmentry(&["report", "--format", "html", &file]).output().unwrap().stdout;
        for text in [fs::read(&file).unwrap(), fs::read(&trace).unwrap(), fs::read(&merged).unwrap(), page] {
            assert!(full || !binary::text(&text).contains("hunter2"));
        }
    }
}

#[test]
#[ignore = "needs root and KVM"]
fn what_a_recorder_writes_is_its_callers_alone_and_a_flight_recorder_holds_its_name() {
    let _alone = ALONE.lock().unwrap();
    let folder = Folder::new("callers");
    let (file, trace) = (folder.file("a.hlog"), folder.file("a.pftrace"));
    let of = |path: &str| fs::metadata(path).map(|m| (m.mode() & 0o7777, m.uid())).unwrap();
    let mut record = vmentry(&["record", "-o", &file, "--events", &trace, "--duration", "100ms"]);
    let output = record.env("SUDO_UID", "1234").env("SUDO_GID", "1234").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!((of(&file), of(&trace)), ((0o600, 1234), (0o600, 1234)));
    // The name of a flight recorder's trace is taken from the beginning, and given back where no trace was written.
    let flight = folder.file("f.pftrace");
    let record = |to: &str| {
        let arguments = ["--flight-recorder", "1s", "--trigger", "entry_to_exit_ns>1000s", "--events", &flight];
        vmentry(&[&["record", "--interval", "50ms", "-o", to], &arguments[..]].concat())
    };
    let first = record(&folder.file("1.hlog")).spawn().unwrap();
    wait_until("the trace's file", || Path::new(&flight).exists());
    assert_eq!(of(&flight), (0o600, 0));
    let second = record(&folder.file("2.hlog")).output().unwrap();
    assert!(text(&second.stderr).contains(&format!("process {} is writing it", first.id())), "{second:?}");
    assert!(!Path::new(&folder.file("2.hlog")).exists(), "nothing is left of a refused one");
    let other = folder.file("f-3.pftrace");
    let third = record(&other).output().unwrap();
    assert_eq!(third.status.code(), Some(2), "{third:?}");
    assert!(text(&third.stderr).contains("the recording is written to"), "{third:?}");
    send(&first, libc::SIGTERM);
    assert!(first.wait_with_output().unwrap().status.success());
    assert!(!Path::new(&flight).exists());
    // What the command prints must not land in the recording, which would replace it.
    let to = fs::File::create(folder.file("out")).unwrap();
    let output = vmentry(&["record", "-o", &folder.file("out"), "--", "true"]).stdout(to).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("standard output goes to this file"), "{output:?}");
}
