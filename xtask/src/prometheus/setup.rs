//! Starts the exporters and the Prometheus servers, and waits until everything is scraped.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    build, dashboards,
    process::output,
    prometheus::{
        HOSTS, Programs, http,
        recordings::{self, Variant},
        server::{self, Server},
        unix_seconds,
    },
};

/// Repetitions of the fixture's interval of 0.3 s.
const INTERVALS: u64 = 40;

/// Running servers that have scraped all recordings. They end when dropped.
pub(super) struct Setup {
    /// One exporter for each of [`HOSTS`].
    pub(super) exporters: Vec<Server>,
    /// A Prometheus with native histograms.
    pub(super) native: Server,
    /// A Prometheus with classic histograms.
    pub(super) classic: Server,
    /// `vmentry report --by vm,reason` of each recording.
    pub(super) reports: Vec<Value>,
}

/// Starts everything, with files in an empty folder, and waits for the last scrape.
pub(super) fn start(programs: &Programs, folder: &Path) -> Result<Setup> {
    let vmentry = build::debug_binary("vmentry")?;
    backfill(&programs.promtool, folder)?;
    let ports = [server::free_port()?, server::free_port()?];
    let config = configure(&dashboards::folder().join("prometheus"), folder, ports)?;
    let mut exporters = Vec::new();
    for (variant, port) in HOSTS.iter().zip(ports) {
        exporters.push(export(&vmentry, folder, variant, port)?);
    }
    let native = serve(programs, folder, &config, "native", &["--enable-feature=native-histograms"])?;
    let classic = serve(programs, folder, &config, "classic", &[])?;
    let reports: Vec<_> = HOSTS.iter().map(|variant| report(&vmentry, folder, variant)).collect::<Result<_>>()?;
    for port in [native.port, classic.port] {
        wait_for_totals(port, &reports)?;
    }
    Ok(Setup { exporters, native, classic, reports })
}

/// Path of a host's recording.
fn recording(folder: &Path, variant: &Variant) -> PathBuf {
    folder.join(format!("{}.hlog", variant.host))
}

/// Starts an exporter that replays a host's recording.
fn export(vmentry: &Path, folder: &Path, variant: &Variant, port: u16) -> Result<Server> {
    let fixture = build::root().join("tracer/tests/data/lab.hlog");
    let fixture = fs::read_to_string(&fixture).with_context(|| format!("read {}", fixture.display()))?;
    let path = recording(folder, variant);
    let text = recordings::repeat(&fixture, INTERVALS, variant)?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    let mut command = Command::new(vmentry);
    command.args(["export", "--listen", &format!("127.0.0.1:{port}"), "--paced", "--replay"]).arg(&path);
    Server::start(&mut command, port, folder.join(format!("{}.log", variant.host)), "/healthz")
}

/// Returns `vmentry report` of a recording, with a row for each VM and exit reason.
fn report(vmentry: &Path, folder: &Path, variant: &Variant) -> Result<Value> {
    let path = recording(folder, variant);
    let text = output(Command::new(vmentry).args(["report", "--format", "json", "--by", "vm,reason"]).arg(path))?;
    serde_json::from_str(&text).context("read the report")
}

/// Writes the committed configuration with the exporters as targets and a scrape per second.
fn configure(committed: &Path, folder: &Path, ports: [u16; 2]) -> Result<PathBuf> {
    let path = committed.join("prometheus.yml");
    let mut text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let targets: String = HOSTS
        .iter()
        .zip(ports)
        .map(|(v, port)| format!("      - targets: ['127.0.0.1:{port}']\n        labels: {{instance: {}}}\n", v.host))
        .collect();
    for (old, new) in [
        ("scrape_interval: 15s", "scrape_interval: 1s"),
        ("evaluation_interval: 15s", "evaluation_interval: 1s"),
        ("      - targets: ['localhost:9753']\n", &targets),
    ] {
        ensure!(text.contains(old), "change {}: it has no '{}'", path.display(), old.trim());
        text = text.replacen(old, new, 1);
    }
    let config = folder.join("prometheus.yml");
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    fs::copy(committed.join("vmentry.rules.yml"), folder.join("vmentry.rules.yml")).context("copy the rules")?;
    Ok(config)
}

/// Starts a Prometheus with a database of its own.
fn serve(programs: &Programs, folder: &Path, config: &Path, name: &str, flags: &[&str]) -> Result<Server> {
    let port = server::free_port()?;
    let mut command = Command::new(&programs.prometheus);
    command.arg(format!("--config.file={}", config.display())).args(flags);
    command.arg(format!("--storage.tsdb.path={}", folder.join(name).display()));
    command.args([&format!("--web.listen-address=127.0.0.1:{port}"), "--log.level=warn"]);
    Server::start(&mut command, port, folder.join(format!("{name}.log")), "/-/ready")
}

/// Writes yesterday's series of the rules, half as high as today's, into the database of `native`.
fn backfill(promtool: &Path, folder: &Path) -> Result<()> {
    let now = unix_seconds()?;
    let mut text = String::new();
    for (name, labels, value) in [
        ("instance_exit_reason:vmentry_exit_to_entry_seconds:p99_rate1h", "exit_reason=\"CPUID\"", 1e-5),
        ("instance_exit_reason:vmentry_exit_to_entry_seconds:count_rate1h", "exit_reason=\"CPUID\"", 100.0),
        ("instance_entry:vmentry_entry_to_exit_seconds:p50_rate1h", "entry=\"clean\"", 3e-6),
    ] {
        text += &format!("# TYPE {name} gauge\n");
        for minute in 0..20 {
            let at = now - 86_400 - 600 + minute * 60;
            text += &format!("{name}{{instance=\"soft\",{labels}}} {value} {at}\n");
        }
    }
    let path = folder.join("yesterday.om");
    fs::write(&path, text + "# EOF\n").with_context(|| format!("write {}", path.display()))?;
    let mut command = Command::new(promtool);
    command.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&path).arg(folder.join("native"));
    output(&mut command).map(drop)
}

/// Waits until every entry of the recordings has been scraped.
fn wait_for_totals(port: u16, reports: &[Value]) -> Result<()> {
    let start = Instant::now();
    for (variant, report) in HOSTS.iter().zip(reports) {
        let wanted = report["totals"]["entries"].as_f64().context("read the report: no entries")?;
        let expr = format!("vmentry_ring_entries_total{{instance=\"{}\"}}", variant.host);
        loop {
            let seen = http::query(port, &expr)?[0]["value"][1].clone();
            if seen.as_str().and_then(|text| text.parse().ok()) == Some(wanted) {
                break;
            }
            ensure!(
                start.elapsed() < Duration::from_secs(45),
                "{}: {seen} of {wanted} entries after 45 s",
                variant.host
            );
            thread::sleep(Duration::from_millis(100));
        }
    }
    // Time for one more scrape and the evaluation of the rules after it.
    thread::sleep(Duration::from_millis(2100));
    Ok(())
}
