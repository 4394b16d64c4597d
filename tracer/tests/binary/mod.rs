//! What the tests of the real binary share: its command, its output as text, and a folder of a test's own.

#![allow(dead_code, reason = "each test that includes this file uses a part of it")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// The command `vmentry`, with its output in pipes.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmentry"));
    command.args(args).env_remove("NO_COLOR");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
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
