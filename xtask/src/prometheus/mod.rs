//! A real Prometheus scrapes the real exporter, which plays recordings of two hosts, and is asked every query of every panel,
//! variable and rule. What it answers is held against `vmentry report` of the same recordings.

mod answers;
mod http;
mod recordings;
pub mod server;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    build,
    dashboards::{self, rules},
    debian,
    process::output,
    prometheus::{recordings::Variant, server::Server},
};

/// The fixture's interval of 0.3 s, so many times.
const INTERVALS: u64 = 40;
/// What the two exporters play.
const HOSTS: [Variant; 2] = [
    Variant { host: "soft", policy: "soft", troubled: false },
    Variant { host: "hard", policy: "hard", troubled: true },
];
/// Scrapes a second apart, as many as Grafana takes for $__rate_interval.
const RATE_INTERVAL: &str = "4s";
/// Queries that answer nothing but zeros in this test, each with its reason. All others must answer a number above 0.
const ZEROS: [(&str, &str); 5] = [
    ("vmentry-host soft Lost", "this host lost nothing"),
    ("vmentry-host soft Spurious timer exits by VM", "and had no spurious exit"),
    ("vmentry-host soft Not seen", "and saw everything: the other host did not"),
    ("vmentry-host soft Folded and expired", "few VMs, none of which ends: the exporter's own tests have thousands"),
    ("vmentry-host hard Folded and expired", "the same"),
];

/// Runs the whole.
pub fn run() -> Result<()> {
    let start = Instant::now();
    let prometheus = debian::unpacked("prometheus")?;
    let (promtool, prometheus) = (prometheus.file(&["usr/bin/promtool"])?, prometheus.file(&["usr/bin/prometheus"])?);
    let committed = dashboards::folder().join("prometheus");
    output(Command::new(&promtool).args(["check", "config"]).arg(committed.join("prometheus.yml")))?;
    output(Command::new(&promtool).args(["check", "rules"]).arg(committed.join("vmentry.rules.yml")))?;
    output(Command::new(&promtool).args(["test", "rules"]).arg(committed.join("vmentry.test.yml")))?;

    let vmentry = build::debug_binary("vmentry")?;
    let folder = build::target_dir().join("prometheus");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("create folder {}", folder.display()))?;
    yesterday(&promtool, &folder)?;
    let ports = [server::free_port()?, server::free_port()?];
    let config = configure(&committed, &folder, ports)?;
    let mut exporters = Vec::new();
    for (variant, port) in HOSTS.iter().zip(ports) {
        exporters.push(export(&vmentry, &folder, variant, port)?);
    }
    let native = serve(&prometheus, &folder, &config, "native", &["--enable-feature=native-histograms"])?;
    let classic = serve(&prometheus, &folder, &config, "classic", &[])?;
    let reports: Vec<_> = HOSTS.iter().map(|variant| report(&vmentry, &folder, variant)).collect::<Result<_>>()?;
    for port in [native.port, classic.port] {
        wait_for_totals(port, &reports)?;
    }
    let end = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_secs();
    let waited = start.elapsed().as_secs();

    let asked = ask_everything(native.port, end)?;
    for (variant, report) in HOSTS.iter().zip(&reports) {
        answers::agree(native.port, classic.port, variant.host, report)?;
    }
    for exporter in &exporters {
        lint(&promtool, exporter.port)?;
    }
    for exporter in exporters {
        exporter.stop()?;
    }
    println!(
        "{asked} queries answered by Prometheus; counts, sums and percentiles agree with the reports ({waited} s of playing, {} s in all)",
        start.elapsed().as_secs()
    );
    Ok(())
}

fn recording(folder: &Path, variant: &Variant) -> PathBuf {
    folder.join(format!("{}.hlog", variant.host))
}

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

/// What `vmentry report` says, a row for each VM and exit reason.
fn report(vmentry: &Path, folder: &Path, variant: &Variant) -> Result<Value> {
    let path = recording(folder, variant);
    let text = output(Command::new(vmentry).args(["report", "--format", "json", "--by", "vm,reason"]).arg(path))?;
    serde_json::from_str(&text).context("read the report")
}

/// The committed configuration with these targets, and scrapes a second apart.
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
        ensure!(text.contains(old), "{} has no '{}'", path.display(), old.trim());
        text = text.replacen(old, new, 1);
    }
    let config = folder.join("prometheus.yml");
    fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
    fs::copy(committed.join("vmentry.rules.yml"), folder.join("vmentry.rules.yml")).context("copy the rules")?;
    Ok(config)
}

fn serve(prometheus: &Path, folder: &Path, config: &Path, name: &str, flags: &[&str]) -> Result<Server> {
    let port = server::free_port()?;
    let mut command = Command::new(prometheus);
    command.arg(format!("--config.file={}", config.display())).args(flags);
    command.arg(format!("--storage.tsdb.path={}", folder.join(name).display()));
    command.args([&format!("--web.listen-address=127.0.0.1:{port}"), "--log.level=warn"]);
    Server::start(&mut command, port, folder.join(format!("{name}.log")), "/-/ready")
}

/// What the rules would have recorded yesterday, since nobody was here: half of what they will record today.
fn yesterday(promtool: &Path, folder: &Path) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_secs();
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

/// Waits until everything that was recorded has been scraped.
fn wait_for_totals(port: u16, reports: &[Value]) -> Result<()> {
    let start = Instant::now();
    for (variant, report) in HOSTS.iter().zip(reports) {
        let wanted = report["totals"]["entries"].as_f64().context("read the report: no entries")?;
        let expr = format!("vmentry_ring_entries_total{{instance=\"{}\"}}", variant.host);
        loop {
            let seen = http::api(port, "query", &[("query", &expr)])?["result"][0]["value"][1].clone();
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
    // Another scrape, and the rules after it.
    thread::sleep(Duration::from_millis(2100));
    Ok(())
}

/// Asks every query; returns how many there are.
fn ask_everything(port: u16, end: u64) -> Result<usize> {
    let mut asked = Asked { port, end, count: 0, silent: Vec::new(), zeros: Vec::new() };
    for dashboard in dashboards::all() {
        let hosts: &[&str] = if dashboard.uid == "vmentry-host" { &["soft", "hard"] } else { &[".*"] };
        for host in hosts {
            let filled = |expr: &str| {
                let expr = expr.replace("$__rate_interval", RATE_INTERVAL).replace("$__range", "60s");
                expr.replace("$instance", host).replace("$vm", ".*").replace("$exit_reason", ".*")
            };
            for variable in &dashboard.variables {
                asked.values(
                    &format!("{} ${}", dashboard.uid, variable.name),
                    variable.label,
                    &filled(&variable.series),
                )?;
            }
            for panel in dashboard.panels() {
                for query in &panel.queries {
                    let what = format!("{} {host} {} ({})", dashboard.uid, panel.title, query.legend);
                    match panel.kind {
                        dashboards::grafana::Kind::Table => asked.now(&what, &filled(&query.expr))?,
                        dashboards::grafana::Kind::HeatMap => asked.histograms(&what, &filled(&query.expr))?,
                        _ => asked.range(&what, &filled(&query.expr))?,
                    }
                }
            }
        }
    }
    for recording in rules::RECORDINGS {
        asked.now(recording.name, recording.expr)?;
        asked.now(&format!("{} as recorded", recording.name), recording.name)?;
    }
    for alert in rules::ALERTS {
        // What is watched is there; whether it alerts is for promtool's tests.
        asked.now(alert.name, alert.value)?;
    }
    ensure!(asked.silent.is_empty(), "{} queries without an answer:\n{}", asked.silent.len(), asked.silent.join("\n"));
    let expected = |what: &String| ZEROS.iter().any(|(name, _)| what.starts_with(name));
    let wrong: Vec<_> = asked.zeros.iter().filter(|what| !expected(what)).cloned().collect();
    ensure!(wrong.is_empty(), "{} queries answer zeros:\n{}", wrong.len(), wrong.join("\n"));
    for (name, why) in ZEROS {
        ensure!(asked.zeros.iter().any(|what| what.starts_with(name)), "{name} answers no zero: is '{why}' old?");
    }
    healthy_rules(port)?;
    Ok(asked.count)
}

struct Asked {
    port: u16,
    end: u64,
    count: usize,
    silent: Vec<String>,
    zeros: Vec<String>,
}

impl Asked {
    fn note(&mut self, what: &str, expr: &str, largest: Option<f64>) {
        self.count += 1;
        match largest {
            None => self.silent.push(format!("{what}: {expr}")),
            Some(number) if number <= 0.0 => self.zeros.push(format!("{what}: {expr}")),
            Some(_) => {}
        }
    }

    fn values(&mut self, what: &str, label: &str, series: &str) -> Result<()> {
        let values = http::api(self.port, &format!("label/{label}/values"), &[("match[]", series)])?;
        self.note(
            what,
            series,
            values.as_array().filter(|values| !values.is_empty()).map(|values| values.len() as f64),
        );
        Ok(())
    }

    fn now(&mut self, what: &str, expr: &str) -> Result<()> {
        let data = http::api(self.port, "query", &[("query", expr)]).with_context(|| what.to_owned())?;
        self.note(what, expr, answers::largest(&data["result"]));
        Ok(())
    }

    fn range(&mut self, what: &str, expr: &str) -> Result<()> {
        let data = self.matrix(expr).with_context(|| what.to_owned())?;
        self.note(what, expr, answers::largest(&data));
        Ok(())
    }

    fn histograms(&mut self, what: &str, expr: &str) -> Result<()> {
        let data = self.matrix(expr).with_context(|| what.to_owned())?;
        self.note(what, expr, answers::largest(&data).filter(|_| answers::has_buckets(&data)));
        Ok(())
    }

    fn matrix(&self, expr: &str) -> Result<Value> {
        let (from, to) = ((self.end - 20).to_string(), self.end.to_string());
        let parameters = [("query", expr), ("start", &from), ("end", &to), ("step", "1")];
        Ok(http::api(self.port, "query_range", &parameters)?["result"].take())
    }
}

/// Prometheus itself has evaluated every rule without an error, and the hard host's alert waits for its hour.
fn healthy_rules(port: u16) -> Result<()> {
    let rules = http::api(port, "rules", &[])?;
    let groups = rules["groups"].as_array().into_iter().flatten();
    let rules: Vec<_> = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten()).collect();
    ensure!(rules.len() == rules::RECORDINGS.len() + rules::ALERTS.len(), "{} rules are loaded", rules.len());
    for rule in &rules {
        ensure!(rule["health"] == "ok", "rule {}: {} {}", rule["name"], rule["health"], rule["lastError"]);
    }
    let hard = rules.iter().find(|rule| rule["name"] == "VmentryHardPolicyLeftOn").context("find the alert")?;
    let alerts = hard["alerts"].as_array().context("read the alerts")?;
    ensure!(
        alerts.len() == 1 && alerts[0]["state"] == "pending" && alerts[0]["labels"]["instance"] == "hard",
        "alerts of the hard policy: {alerts:?}"
    );
    Ok(())
}

/// `promtool check metrics` on the text that a browser gets.
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
    let said = String::from_utf8_lossy(&result.stdout) + String::from_utf8_lossy(&result.stderr);
    if !result.status.success() || !said.trim().is_empty() {
        bail!("promtool check metrics: {}: {said}", result.status);
    }
    Ok(())
}
