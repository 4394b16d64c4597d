//! What the tests of the real binary share: its command, its output as text, and a folder of a test's own.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// The command `vmentry`, with its output in pipes. It ignores no signal, even where the tests were started so that they do.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmentry"));
    command.args(args).env_remove("NO_COLOR");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    on_signals(&mut command, libc::SIG_DFL);
    command
}

/// Lets a command start with this action for the signals that nohup and a shell's background job ignore.
pub fn on_signals(command: &mut Command, action: libc::sighandler_t) {
    let set = move || {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
            // SAFETY: no handler of this process is freed by another action.
            unsafe { libc::signal(signal, action) };
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls alone: it takes no lock and allocates nothing.
    unsafe { command.pre_exec(set) };
}

/// A field of /proc/PID/status, of each thread of a process.
pub fn of_threads(process: u32, field: &str) -> Vec<String> {
    let of_thread = |status: String| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap().trim().to_owned()
    };
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|task| task.unwrap().path());
    // A thread may end meanwhile.
    tasks.filter_map(|task| fs::read_to_string(task.join("status")).ok()).map(of_thread).collect()
}

/// Checks that each thread of a process has these capabilities and no others, that none can come back, and that system calls are filtered.
pub fn assert_confined(process: u32, capabilities: u64) {
    let all = |field, value: &str| {
        let values = of_threads(process, field);
        assert!(
            !values.is_empty() && values.iter().all(|v| v == value),
            "{field} of the threads: {values:?}, not {value}"
        );
    };
    for field in ["CapPrm", "CapEff"] {
        all(field, &format!("{capabilities:016x}"));
    }
    for field in ["CapInh", "CapAmb"] {
        all(field, &"0".repeat(16));
    }
    all("NoNewPrivs", "1");
    all("Seccomp", "2");
}

/// Runs `vmentry` to its end.
pub fn vmentry(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// Standard output.
pub fn out(output: &Output) -> String {
    text(&output.stdout)
}

/// Standard error.
pub fn err(output: &Output) -> String {
    text(&output.stderr)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder of a test's own, which everybody may enter, removed at the end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let prefix = format!("vmentry-{}-{name}-", env!("CARGO_CRATE_NAME"));
        let path = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap().keep();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
