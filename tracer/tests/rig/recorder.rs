//! Running vmentry on a made-up host: start, wait until it traces, signal, end, and read its JSON.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, ChildStdout, Command, ExitStatus, Output},
};

use serde_json::Value;

use super::{Host, kernel_objects, wait_until};

/// A running vmentry, killed at the end.
pub struct Vmentry {
    child: Option<Child>,
    pid: u32,
}

impl Vmentry {
    /// Starts it and does not wait.
    pub fn spawn(mut command: Command) -> Self {
        let child = command.spawn().unwrap();
        Self { pid: child.id(), child: Some(child) }
    }

    /// Starts it and waits until its programs are attached.
    pub fn tracing(command: Command) -> Self {
        let mut vmentry = Self::spawn(command);
        wait_until("the programs are attached", || {
            assert!(vmentry.is_running(), "vmentry ended: {}", vmentry.said());
            kernel_objects::held_by(vmentry.pid).links.len() >= 2
        });
        vmentry
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn take_stdout(&mut self) -> ChildStdout {
        self.child.as_mut().unwrap().stdout.take().unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// Everything it writes to standard error until it ends.
    fn said(&mut self) -> String {
        let mut bytes = Vec::new();
        self.child.as_mut().unwrap().stderr.take().unwrap().read_to_end(&mut bytes).unwrap();
        text(&bytes)
    }

    pub fn send(&self, signal: i32) {
        // SAFETY: the child has not been waited for, so that the number is its own.
        assert_eq!(unsafe { libc::kill(self.pid as i32, signal) }, 0);
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Output {
        wait_until("vmentry ends", || !self.is_running());
        self.child.take().unwrap().wait_with_output().unwrap()
    }

    /// Ends it by a signal.
    pub fn end(self, signal: i32) -> Output {
        self.send(signal);
        self.wait()
    }

    /// Ends it by Ctrl-C; it must succeed.
    pub fn interrupt(self) -> Output {
        let output = self.end(libc::SIGINT);
        assert_success(output.status, &output.stderr);
        output
    }
}

impl Drop for Vmentry {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Host {
    /// Runs vmentry to its end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.vmentry(arguments).output().unwrap()
    }

    /// Runs vmentry to its end; it must succeed, and its output is JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.output(arguments);
        assert_success(output.status, &output.stderr);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What `check` finds, ready or not.
    pub fn check(&self) -> Value {
        let output = self.output(&["check", "--format", "json"]);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}{}", text(&output.stdout), text(&output.stderr)))
    }

    /// The report on a recording, which must open.
    pub fn report(&self, recording: &str) -> Value {
        self.json(&["report", "--format", "json", recording])
    }

    /// Starts `record` into a file in the host's folder and waits until it traces.
    pub fn record(&self, file: &str, arguments: &[&str]) -> Vmentry {
        let file = self.file(file);
        Vmentry::tracing(self.vmentry(&[&["record", "-o", &file, "--interval", "100ms"], arguments].concat()))
    }

    /// Records while `work` runs with the recorder's process; returns the report, in which no entry may be lost.
    pub fn recorded(&self, arguments: &[&str], work: impl FnOnce(u32)) -> Value {
        let recorder = self.record("a.hlog", arguments);
        work(recorder.pid());
        recorder.interrupt();
        // Kept for tests that look at other outputs of the same recording.
        fs::rename(self.path("a.hlog"), self.path("kept.hlog")).unwrap();
        let report = self.report(&self.file("kept.hlog"));
        assert_exact(&report);
        report
    }
}

/// A running exporter.
pub struct Exporter {
    vmentry: Vmentry,
    address: String,
}

impl Exporter {
    /// Starts it on a port of the kernel's choice and waits until it traces and serves.
    pub fn start(host: &Host) -> Self {
        Self::with(host, &[])
    }

    /// The same with further arguments.
    pub fn with(host: &Host, arguments: &[&str]) -> Self {
        let export = &["export", "--listen", "127.0.0.1:0", "--interval", "100ms"];
        let mut vmentry = Vmentry::tracing(host.vmentry(&[export, arguments].concat()));
        let stderr = vmentry.child.as_mut().unwrap().stderr.as_mut().unwrap();
        let mut lines = BufReader::new(stderr).lines().map(Result::unwrap);
        // After what it may say about the host.
        let address =
            lines.find_map(|l| Some(l.split_once("http://")?.1.split_once("/metrics")?.0.to_owned())).unwrap();
        Self { vmentry, address }
    }

    pub fn pid(&self) -> u32 {
        self.vmentry.pid
    }

    /// The sum of all samples of a metric.
    pub fn sum(&self, metric: &str) -> f64 {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let samples =
            answer.lines().filter(|l| l.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' '])));
        samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Ends it by SIGTERM; it must succeed.
    pub fn end(self) {
        let output = self.vmentry.end(libc::SIGTERM);
        assert_success(output.status, &output.stderr);
    }
}

/// Ends `live --format jsonl`; returns the entries in its lines.
pub fn live_entries(live: Vmentry) -> u64 {
    let lines = text(&live.interrupt().stdout);
    let entries = |line: &str| serde_json::from_str::<Value>(line).unwrap()["entries"].as_u64().unwrap();
    lines.lines().map(entries).sum()
}

/// A count in a report's totals.
pub fn in_totals(report: &Value, name: &str) -> u64 {
    report["totals"][name].as_u64().unwrap_or_else(|| panic!("{name} is no count: {}", report["totals"]))
}

/// Checks that entries == delivered + dropped.
pub fn assert_exact(report: &Value) {
    let count = |name| in_totals(report, name);
    assert_eq!(count("entries"), count("delivered") + count("dropped"), "{}", report["totals"]);
    assert_eq!(report["exact"], true, "{report}");
}

fn assert_success(status: ExitStatus, stderr: &[u8]) {
    assert!(status.success(), "{status}: {}", text(stderr));
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
