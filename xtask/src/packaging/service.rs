//! Checks the exporter's systemd service: its unit files, its command with a socket of systemd, and its capabilities on the running
//! kernel.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    build, debian,
    process::output,
    prometheus::server::{self, Server},
};

/// Limit of `systemd-analyze security`, in tenths of its score from 0 (nothing is exposed) to 10, as systemd 252 takes
/// it. Sockets, /proc and two capabilities remain.
const EXPOSURE: u32 = 20;

/// Checks the service that is installed below `root`: systemd accepts its units, its exposure is within the limit, and
/// it serves the socket that systemd hands over.
pub(super) fn check(root: &Path) -> Result<()> {
    let units = root.join("usr/lib/systemd/system");
    let unit = units.join("vmentry-export.service");
    let text = fs::read_to_string(&unit).with_context(|| format!("read {}", unit.display()))?;
    ensure!(
        allows_bpf(&text),
        "check {}: SystemCallFilter must allow bpf after it removes @privileged, which contains bpf",
        unit.display()
    );
    // systemd-analyze looks the program up on this machine; that the package has it was checked before.
    let here =
        text.replace("ExecStart=/usr/bin/vmentry", &format!("ExecStart={}", root.join("usr/bin/vmentry").display()));
    let copy = root.join("vmentry-export.service");
    fs::write(&copy, here).with_context(|| format!("write {}", copy.display()))?;
    let socket = root.join("vmentry-export.socket");
    fs::copy(units.join("vmentry-export.socket"), &socket).context("copy vmentry-export.socket")?;
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args([&copy, &socket])
        .output()
        .context("run systemd-analyze")?;
    let messages = String::from_utf8_lossy(&verify.stderr);
    // Complaints about this machine's other units do not count.
    let complaints: Vec<_> = messages.lines().filter(|line| line.contains("vmentry-export")).collect();
    ensure!(complaints.is_empty(), "systemd-analyze verify: {}", complaints.join("\n"));
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--no-pager", "--offline=true", &format!("--threshold={EXPOSURE}")]).arg(&copy);
    let result = output(&mut security).context("check the exposure of the service: it is above the limit")?;
    println!("{}", result.lines().last().unwrap_or_default());
    serves_the_socket_of_systemd(root, &text)
}

/// Runs the service's command as systemd does when somebody connects to the socket unit, but on a free port, and on a
/// recording so that any host can run it.
fn serves_the_socket_of_systemd(root: &Path, unit: &str) -> Result<()> {
    let defaults = root.join("etc/default/vmentry-export");
    let defaults = fs::read_to_string(&defaults).with_context(|| format!("read {}", defaults.display()))?;
    let (program, arguments) = start_command(unit, &defaults).context("find ExecStart= of the service")?;
    let port = server::free_port()?;
    let mut command = Command::new("systemd-socket-activate");
    command.arg(format!("--listen=127.0.0.1:{port}")).arg(root.join(program.trim_start_matches('/'))).args(arguments);
    command.arg("--replay").arg(build::root().join("tracer/tests/data/lab.hlog"));
    let log = build::target_dir().join("socket-activate.log");
    let exporter = Server::start(&mut command, port, log, "/healthz")?;
    let metrics = exporter.get("/metrics")?;
    ensure!(
        metrics.contains("\nvmentry_entries_total{"),
        "ask the exporter on systemd's socket for metrics: {metrics}"
    );
    exporter.stop()
}

/// The program and the arguments of `ExecStart=`, with `$OPTIONS` of the file of defaults.
fn start_command(unit: &str, defaults: &str) -> Option<(String, Vec<String>)> {
    let options = defaults.lines().find_map(|line| line.strip_prefix("OPTIONS="))?.trim_matches('"');
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart="))?.replace("$OPTIONS", options);
    let mut words = command.split_whitespace().map(str::to_owned);
    Some((words.next()?, words.collect()))
}

/// Runs the exporter as nobody with only the service's capabilities, and checks that it answers with metrics. Needs
/// root, which it gives up, and a host that can be traced.
pub(crate) fn run_as_service() -> Result<()> {
    debian::install(&[("setpriv", "util-linux")])?;
    let built = build::debug_binary("vmentry")?;
    // Copied to a folder that everybody may enter, because only root may be able to enter the target folder.
    let folder = tempfile::tempdir().context("create folder")?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).context("open the folder to everybody")?;
    let binary = folder.path().join("vmentry");
    fs::copy(built, &binary).context("copy vmentry")?;
    answers_as_nobody(&binary)?;
    names_the_missing_capability(&binary)
}

/// A command that runs the program as nobody, with the service's capabilities.
fn as_nobody(binary: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    command.args(["inh", "ambient"].map(|set| format!("--{set}-caps=-all,+bpf,+perfmon")));
    command.arg("--bounding-set=-all,+bpf,+perfmon").arg(binary).current_dir("/");
    command
}

/// VMs cannot be found without CAP_SYS_PTRACE, which is not the same as that none runs.
fn names_the_missing_capability(binary: &Path) -> Result<()> {
    let refused =
        as_nobody(binary).args(["record", "-o", "-", "--vm", "no-such-vm"]).output().context("run vmentry")?;
    let error = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        !refused.status.success() && error.contains("CAP_SYS_PTRACE"),
        "select a VM without CAP_SYS_PTRACE: {error}"
    );
    Ok(())
}

fn answers_as_nobody(binary: &Path) -> Result<()> {
    let log = build::target_dir().join("as-service.log");
    let port = server::free_port()?;
    let mut command = as_nobody(binary);
    command.args(["export", "--listen", &format!("127.0.0.1:{port}")]);
    let exporter = Server::start(&mut command, port, log, "/metrics")?;
    let metrics = exporter.get("/metrics")?;
    ensure!(metrics.contains("vmentry_host_info{"), "ask the exporter without root for metrics: {metrics}");
    exporter.stop()
}

/// Whether a unit's filter allows bpf(2) after it removes @privileged, which contains bpf.
fn allows_bpf(unit: &str) -> bool {
    let filters: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")).collect();
    let removed = filters.iter().rposition(|f| f.starts_with('~') && f.contains("@privileged"));
    let allowed = filters.iter().rposition(|f| !f.starts_with('~') && f.split(' ').any(|call| call == "bpf"));
    allowed.is_some() && allowed > removed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_allows_bpf_only_after_it_removes_privileged_calls() {
        assert!(allows_bpf(include_str!("../../../packaging/vmentry-export.service")));
        assert!(allows_bpf("SystemCallFilter=@system-service bpf\n"));
        assert!(!allows_bpf("SystemCallFilter=@system-service bpf\nSystemCallFilter=~@resources @privileged\n"));
        assert!(!allows_bpf("SystemCallFilter=@system-service\n"));
    }

    #[test]
    fn the_service_is_started_with_the_options_of_its_file() {
        let unit = include_str!("../../../packaging/vmentry-export.service");
        let defaults = include_str!("../../../packaging/vmentry-export.default");
        let started =
            |defaults| start_command(unit, defaults).map(|(program, arguments)| (program, arguments.join(" ")));
        assert_eq!(started(defaults), Some(("/usr/bin/vmentry".into(), "export".into())));
        let options = "# comment\nOPTIONS=\"--vm-labels name,pid\"\n";
        assert_eq!(started(options).map(|s| s.1).as_deref(), Some("export --vm-labels name,pid"));
    }

    #[test]
    fn the_socket_is_for_this_host_only_and_comes_and_goes_with_the_service() {
        let socket = include_str!("../../../packaging/vmentry-export.socket");
        let settings = |name: &str| {
            let name = name.to_owned();
            socket.lines().filter_map(move |line| line.strip_prefix(&name)?.strip_prefix('=')).collect::<Vec<_>>()
        };
        assert_eq!(settings("ListenStream"), ["127.0.0.1:9753"]);
        assert_eq!((settings("IPAddressDeny"), settings("IPAddressAllow")), (vec!["any"], vec!["localhost"]));
        let service = include_str!("../../../packaging/vmentry-export.service");
        for line in ["Requires=vmentry-export.socket", "Also=vmentry-export.socket"] {
            assert!(service.lines().any(|l| l == line), "{line}");
        }
    }

    #[test]
    fn the_service_has_exactly_the_two_capabilities_that_it_needs() {
        let unit = include_str!("../../../packaging/vmentry-export.service");
        for set in ["AmbientCapabilities", "CapabilityBoundingSet"] {
            assert!(unit.contains(&format!("\n{set}=CAP_BPF CAP_PERFMON\n")));
        }
    }
}
