//! Runs programs that read stdin and write stdout, such as decompressors.

use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

/// Runs a command with `input` as its stdin and returns its stdout.
pub(crate) fn filter(command: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let (program, arguments) = command.split_first().context("run filter: no command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("run {program}"))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (mut stdin, mut stdout) = stdin.zip(stdout).with_context(|| format!("run {program}: no pipes"))?;
    let output = thread::scope(|scope| {
        // A write error means that the program ended early; its exit status, checked below, says more.
        scope.spawn(move || stdin.write_all(input));
        let mut output = Vec::new();
        stdout.read_to_end(&mut output).map(|_| output)
    });
    let status = child.wait().with_context(|| format!("wait for {program}"))?;
    ensure!(status.success(), "run {program}: {status}");
    output.with_context(|| format!("read from {program}"))
}
