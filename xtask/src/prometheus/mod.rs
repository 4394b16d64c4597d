//! `cargo xtask prometheus`: real Prometheus servers scrape real exporters, which replay recordings of two hosts. Asks
//! every query of the dashboards and rules, and compares the answers with `vmentry report` of the same recordings.

mod answers;
mod http;
mod queries;
mod recordings;
pub(crate) mod server;
mod setup;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};

use crate::{
    build, dashboards, debian,
    process::output,
    prometheus::{recordings::Variant, setup::Setup},
};

/// The recordings that the two exporters replay.
const HOSTS: [Variant; 2] = [
    Variant { host: "soft", policy: "soft", has_problems: false },
    Variant { host: "hard", policy: "hard", has_problems: true },
];

/// Programs of Debian's package prometheus.
struct Programs {
    prometheus: PathBuf,
    promtool: PathBuf,
}

/// Checks the committed files with promtool, then asks every query.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    let package = debian::unpacked("prometheus")?;
    let (prometheus, promtool) = (package.file(&["usr/bin/prometheus"])?, package.file(&["usr/bin/promtool"])?);
    let programs = Programs { prometheus, promtool };
    check_committed(&programs.promtool)?;

    let folder = build::target_dir().join("prometheus");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("create folder {}", folder.display()))?;
    let Setup { exporters, native, classic, reports } = setup::start(&programs, &folder)?;
    let waited = start.elapsed().as_secs();

    let asked = queries::ask_all(native.port, unix_seconds()?)?;
    for (variant, report) in HOSTS.iter().zip(&reports) {
        answers::compare(native.port, classic.port, variant.host, report)?;
    }
    for exporter in exporters {
        lint(&programs.promtool, exporter.port)?;
        exporter.stop()?;
    }
    println!(
        "{asked} queries answered by Prometheus; counts, sums and percentiles match the reports ({waited} s of replay, \
         {} s in all)",
        start.elapsed().as_secs()
    );
    Ok(())
}

/// Checks configuration and rules with promtool, and runs the tests of the alerts.
fn check_committed(promtool: &Path) -> Result<()> {
    let folder = dashboards::folder().join("prometheus");
    for (check, file) in [
        (["check", "config"], "prometheus.yml"),
        (["check", "rules"], "vmentry.rules.yml"),
        (["test", "rules"], "vmentry.test.yml"),
    ] {
        output(Command::new(promtool).args(check).arg(folder.join(file)))?;
    }
    Ok(())
}

/// CLOCK_REALTIME in whole seconds.
fn unix_seconds() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_secs())
}

/// Checks the classic text format with `promtool check metrics`.
fn lint(promtool: &Path, port: u16) -> Result<()> {
    let text = http::get(port, "/metrics", "text/plain")?;
    let mut child = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run promtool")?;
    child.stdin.take().context("open promtool's standard input")?.write_all(text.as_bytes())?;
    let result = child.wait_with_output().context("wait for promtool")?;
    let messages = String::from_utf8_lossy(&result.stdout) + String::from_utf8_lossy(&result.stderr);
    if !result.status.success() || !messages.trim().is_empty() {
        bail!("promtool check metrics: {}: {messages}", result.status);
    }
    Ok(())
}
