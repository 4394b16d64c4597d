//! Disks that are full or read-only, quotas, pipes that are closed or stalled, and memory that is too little.

use std::{
    ffi::CString,
    fs,
    io::{self, BufRead, BufReader, Read},
    os::{
        fd::AsRawFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use libc::{SIGABRT, SIGKILL, SIGTERM};

use crate::rig::{Host, Rounds, Shape, Vm, Vmentry, assert_nothing_left, in_totals, text, wait_until};

/// A VM with so much to record that a small file is soon full.
fn work() -> Rounds {
    Rounds { pause_us: 500, pin_writes: 6000, ..Rounds::vmx(6000) }
}

/// Starts a recording into a file of the host, with an interval of 10 ms.
fn recording(host: &Host, file: &str) -> Command {
    host.vmentry(&["record", "-o", &host.file(file), "--interval", "10ms"])
}

/// Checks that a recorder could not write any further, with the cause, and that all that it had written before is there.
fn assert_saved(host: &Host, file: &str, output: &Output, cause: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{}: {said}", output.status);
    assert!(said.contains(cause) && said.contains(file), "{said}");
    let report = host.report(&host.file(file));
    let entries = in_totals(&report, "entries");
    assert!(entries > 0, "{report}");
    assert_eq!(entries, in_totals(&report, "delivered") + in_totals(&report, "dropped"));
}

/// A small file system in the host's folder, unmounted at the end.
struct SmallDisk(CString);

impl SmallDisk {
    fn mount(host: &Host, options: &str, flags: libc::c_ulong) -> Self {
        fs::create_dir(host.path("small")).unwrap();
        let at = CString::new(host.file("small")).unwrap();
        let options = CString::new(options).unwrap();
        // SAFETY: the strings end with zeros and live until the call returns.
        let mounted =
            unsafe { libc::mount(c"none".as_ptr(), at.as_ptr(), c"tmpfs".as_ptr(), flags, options.as_ptr().cast()) };
        assert_eq!(mounted, 0, "{}", io::Error::last_os_error());
        Self(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // SAFETY: the path ends with a zero.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_full_disk_keeps_the_intervals_that_it_had_room_for() {
    let host = Shape::intel().build();
    let _disk = SmallDisk::mount(&host, "size=32k", 0);
    let recorder = Vmentry::tracing(recording(&host, "small/a.hlog"));
    let mut vm = Vm::start();
    vm.begin(&[recorder.pid()], &work());
    let output = recorder.wait();
    drop(vm);
    assert_saved(&host, "small/a.hlog", &output, "No space left");
    let said = text(&output.stderr);
    assert!(said.contains(&format!("are whole: vmentry report {}", host.file("small/a.hlog"))), "{said}");
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_full_disk_keeps_the_old_recording_that_would_have_been_replaced() {
    let host = Shape::intel().build();
    let _disk = SmallDisk::mount(&host, "size=64k", 0);
    let vm = |recorder: u32| Vm::start().run(&[recorder], &Rounds::vmx(97));
    let old = host.recorded(&[], vm);
    fs::copy(host.path("kept.hlog"), host.path("small/a.hlog")).unwrap();
    let mut filler = fs::File::create(host.path("small/filler")).unwrap();
    while io::Write::write_all(&mut filler, &[0; 4096]).is_ok() {}
    let mut command = recording(&host, "small/a.hlog");
    let output = command.arg("--overwrite").output().unwrap();
    assert_eq!(in_totals(&old, "entries"), 97);
    assert_eq!(fs::read(host.path("small/a.hlog")).unwrap(), fs::read(host.path("kept.hlog")).unwrap());
    assert_saved(&host, "small/a.hlog", &output, "No space left");
    // The recording that is there is not this one.
    let said = text(&output.stderr);
    assert!(said.contains("(nothing was recorded, and the file is as it was)"), "{said}");
    assert!(!said.contains("vmentry report"), "{said}");
    assert_eq!(fs::read_dir(host.path("small")).unwrap().count(), 2);
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_quota_keeps_the_intervals_that_it_had_room_for() {
    let host = Shape::intel().build();
    let mut command = recording(&host, "a.hlog");
    limit(&mut command, libc::RLIMIT_FSIZE, 32 << 10);
    let recorder = Vmentry::tracing(command);
    let mut vm = Vm::start();
    vm.begin(&[recorder.pid()], &work());
    let output = recorder.wait();
    drop(vm);
    assert_saved(&host, "a.hlog", &output, "File too large");
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_read_only_disk_is_refused_at_once() {
    let host = Shape::intel().build();
    let _disk = SmallDisk::mount(&host, "size=32k", libc::MS_RDONLY);
    let output = recording(&host, "small/a.hlog").output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Read-only file system") && said.contains("small/a.hlog"), "{said}");
    assert_nothing_left(&host);
}

/// Sets a limit of a process that is to be started.
fn limit(command: &mut Command, resource: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the closure makes one system call, on a value of its own.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(resource, &raw const limit) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// Starts a recording to standard output.
fn to_pipe(host: &Host, arguments: &[&str]) -> Command {
    host.vmentry(&[&["record", "-o", "-", "--interval", "10ms"], arguments].concat())
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_closed_pipe_ends_the_recording() {
    let host = Shape::intel().build();
    let mut recorder = Vmentry::tracing(to_pipe(&host, &[]));
    let mut vm = Vm::start();
    vm.begin(&[recorder.pid()], &work());
    let mut reader = BufReader::new(recorder.take_stdout());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    assert!(first.contains("vmentry-recording"), "{first}");
    drop(reader);
    let start = Instant::now();
    let output = recorder.wait();
    assert!(start.elapsed() < Duration::from_secs(3), "{}", text(&output.stderr));
    assert!(output.status.code().is_some_and(|code| code < 2), "{}: {}", output.status, text(&output.stderr));
    drop(vm);
    assert_nothing_left(&host);
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_stalled_pipe_hinders_neither_the_duration_nor_a_signal() {
    let host = Shape::intel().build();
    let stalled = |arguments: &[&str]| {
        let mut vm = Vm::start();
        let mut recorder = Vmentry::tracing(to_pipe(&host, arguments));
        let reader = recorder.take_stdout();
        // More than a pipe's 64 KiB.
        vm.run(&[recorder.pid()], &Rounds { count: 2000, ..work() });
        (recorder, reader)
    };
    let (recorder, reader) = stalled(&["--duration", "3s"]);
    recorder.wait();
    drop(reader);
    let (recorder, mut reader) = stalled(&[]);
    recorder.end(SIGTERM);
    // What went into the pipe before is a recording whose last line may be torn.
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    host.write("a.hlog", bytes);
    assert!(in_totals(&host.report(&host.file("a.hlog")), "entries") > 0);
    assert_nothing_left(&host);
}

/// Checks a recorder whose memory was limited: it has ended by itself with the cause, or recorded, or was killed; what it has written is
/// whole in any case.
fn assert_survives_without_memory(host: &Host, output: &Output, limit: &str) {
    let said = text(&output.stderr);
    match (output.status.code(), output.status.signal()) {
        (Some(0), _) => {}
        (Some(1), _) => assert!(["memory", "thread"].iter().any(|what| said.contains(what)), "{limit}: {said}"),
        // SIGABRT is how Rust ends when an allocation fails.
        (_, Some(SIGKILL | SIGABRT)) => {}
        _ => panic!("{limit}: {}: {said}", output.status),
    }
    if fs::metadata(host.path("a.hlog")).is_ok_and(|m| m.len() > 0) {
        let report = host.report(&host.file("a.hlog"));
        assert_eq!(in_totals(&report, "entries"), in_totals(&report, "delivered") + in_totals(&report, "dropped"));
        fs::remove_file(host.path("a.hlog")).unwrap();
    }
}

#[test]
#[ignore = "needs root and the module kvm"]
fn too_little_address_space_is_an_error_with_its_cause_or_a_whole_recording() {
    let host = Shape::intel().build();
    let file = host.file("a.hlog");
    let mut starts = false;
    for mib in (4..64).step_by(6).chain((64..320).step_by(16)) {
        let limited = |arguments: &[&str]| {
            let mut command = host.vmentry(arguments);
            limit(&mut command, libc::RLIMIT_AS, mib << 20);
            command.output().unwrap()
        };
        // With less than that, the kernel or the C library ends it before its first line.
        starts = starts || limited(&["--version"]).status.success();
        if starts {
            let output = limited(&["record", "-o", &file, "--interval", "10ms", "--duration", "100ms"]);
            assert_survives_without_memory(&host, &output, &format!("{mib} MiB"));
        }
    }
    assert!(starts);
    assert_nothing_left(&host);
}

/// A cgroup with a limit of memory, removed at the end.
struct SmallGroup(PathBuf);

impl SmallGroup {
    /// None where no hierarchy has the memory controller, or none may be made.
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("vmentry-faults-{}", std::process::id());
        let candidates = [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];
        candidates.iter().find_map(|(root, limit)| {
            // In version 2, the root must pass the controller on.
            let _ = fs::write(Path::new(root).join("cgroup.subtree_control"), "+memory");
            let group = Self(Path::new(root).join(&name));
            fs::create_dir(&group.0).ok()?;
            group.0.join(limit).exists().then_some(())?;
            fs::write(group.0.join(limit), bytes.to_string()).unwrap();
            Some(group)
        })
    }
}

impl Drop for SmallGroup {
    fn drop(&mut self) {
        wait_until("the cgroup is empty", || fs::remove_dir(&self.0).is_ok() || !self.0.exists());
    }
}

#[test]
#[ignore = "needs root and the module kvm"]
fn a_memory_limit_is_an_error_with_its_cause_or_a_whole_recording() {
    let host = Shape::intel().build();
    for mib in [2, 4, 8, 16, 32] {
        let Some(group) = SmallGroup::new(mib << 20) else {
            eprintln!("skipped: no cgroup with a limit of memory can be made here");
            return;
        };
        let mut command =
            host.vmentry(&["record", "-o", &host.file("a.hlog"), "--interval", "10ms", "--duration", "500ms"]);
        // Opened here, because the command's /sys is the made-up one.
        let processes = fs::File::options().write(true).open(group.0.join("cgroup.procs")).unwrap();
        let file = processes.as_raw_fd();
        // SAFETY: the closure makes one system call, on a descriptor that is open until the process is started.
        unsafe {
            command.pre_exec(move || match libc::write(file, c"0".as_ptr().cast(), 1) {
                1 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let recorder = Vmentry::spawn(command);
        assert_survives_without_memory(&host, &recorder.wait(), &format!("{mib} MiB"));
        drop(group);
    }
    assert_nothing_left(&host);
}
