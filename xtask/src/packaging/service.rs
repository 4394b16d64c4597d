//! Checks the exporter's systemd service: its unit files, its command with a socket of systemd, and its capabilities on the running
//! kernel.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    build, debian,
    process::output,
    prometheus::server::{self, Server},
};

/// The unit file.
const UNIT: &str = include_str!("../../../packaging/vmentry-export.service");
/// Limit of `systemd-analyze security`, in tenths of its score from 0 (nothing is exposed) to 10, as systemd 252 takes
/// it. Sockets, /proc and two capabilities remain.
const EXPOSURE: u32 = 20;

/// Checks the service that is installed below `root`: systemd accepts its units, its exposure is within the limit, and
/// it serves the socket that systemd hands over.
pub(super) fn check(root: &Path) -> Result<()> {
    let units = root.join("usr/lib/systemd/system");
    let unit = units.join("vmentry-export.service");
    let text = fs::read_to_string(&unit).with_context(|| format!("read {}", unit.display()))?;
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

/// Runs the exporter as nobody with only the service's capabilities, and checks that it answers with metrics, keeps no
/// capability, and makes only the system calls that the unit allows. Needs root, which it gives up, and a host that can be
/// traced.
pub(crate) fn run_as_service() -> Result<()> {
    debian::install(&[("setpriv", "util-linux"), ("strace", "strace"), ("systemd-analyze", "systemd")])?;
    let built = build::debug_binary("vmentry")?;
    // Copied to a folder that everybody may enter, because only root may be able to enter the target folder.
    let folder = tempfile::tempdir().context("create folder")?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).context("open the folder to everybody")?;
    let binary = folder.path().join("vmentry");
    fs::copy(built, &binary).context("copy vmentry")?;
    answers_as_nobody(&binary)?;
    makes_only_allowed_calls(&binary)?;
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
    let confined = is_confined(exporter.id());
    exporter.stop()?;
    confined
}

/// Checks that no thread of the exporter has a capability, and that each has a filter of system calls. The bounding set may
/// be smaller only for a process with CAP_SETPCAP, which the service has not; without capabilities, and with
/// no_new_privs, nothing can be taken from it.
fn is_confined(process: u32) -> Result<()> {
    for thread in fs::read_dir(format!("/proc/{process}/task")).context("find the exporter's threads")? {
        let status = fs::read_to_string(thread?.path().join("status")).context("read a thread's status")?;
        let zero = "0".repeat(16);
        let wanted = [("CapInh", &*zero), ("CapPrm", &zero), ("CapEff", &zero), ("CapAmb", &zero)];
        for (name, value) in wanted.into_iter().chain([("NoNewPrivs", "1"), ("Seccomp", "2")]) {
            ensure!(
                status.lines().any(|line| line == format!("{name}:\t{value}")),
                "check the exporter's threads: {name} is not {value}:\n{status}"
            );
        }
    }
    Ok(())
}

/// Runs the exporter under strace, and checks that the unit allows every system call that it makes.
fn makes_only_allowed_calls(binary: &Path) -> Result<()> {
    let started = Instant::now();
    let log = build::target_dir().join("as-service.strace");
    let port = server::free_port()?;
    let mut command = Command::new("strace");
    // As its grandchild, so that signals for the exporter do not end strace first.
    command.args(["--follow-forks", "--daemonize", "--output"]).arg(&log).arg("--").arg(binary).current_dir("/");
    command.args(["export", "--listen", &format!("127.0.0.1:{port}")]);
    let exporter = Server::start(&mut command, port, build::target_dir().join("as-service.log"), "/metrics")?;
    exporter.get("/metrics")?;
    exporter.stop()?;
    let made = loop {
        let made = calls_in(&fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?);
        // strace may still be writing.
        if made.contains("exit_group") {
            break made;
        }
        ensure!(started.elapsed() < Duration::from_secs(60), "run the exporter under strace: it made only {made:?}");
        thread::sleep(Duration::from_millis(50));
    };
    ensure!(made.contains("bpf") && made.contains("accept4"), "run the exporter under strace: it made {made:?}");
    let allowed = allowed_calls(UNIT)?;
    let others: Vec<_> = made.difference(&allowed).collect();
    ensure!(others.is_empty(), "check SystemCallFilter: the exporter makes {others:?}, which the unit does not allow");
    Ok(())
}

/// The system calls that a unit allows, with those of systemd's groups.
fn allowed_calls(unit: &str) -> Result<BTreeSet<String>> {
    let words = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")).flat_map(str::split_whitespace);
    let mut calls = BTreeSet::new();
    for word in words {
        if word.starts_with('@') {
            let list = output(Command::new("systemd-analyze").args(["--no-pager", "syscall-filter", word]))?;
            // The name of the group is not indented.
            let names = list.lines().filter(|line| line.starts_with(' ')).map(str::trim);
            calls.extend(names.filter(|name| !name.starts_with('#')).map(str::to_owned));
        } else {
            calls.insert(word.to_owned());
        }
    }
    Ok(calls)
}

/// Names of the system calls in the output of strace: `PID NAME(ARGUMENTS) = RESULT`. The first one starts the program.
fn calls_in(strace: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let (name, _) = line.split_once(' ')?.1.trim_start().split_once('(')?;
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then(|| name.to_owned())
    };
    strace.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_that_strace_shows_are_read() {
        let strace = "7 openat(AT_FDCWD, \"/a (b\", O_RDONLY) = 3\n7 <... futex resumed>) = 0\n12  read(3,  <unfinished ...>\n\
                      7 --- SIGTERM {si_signo=SIGTERM} ---\n7 +++ exited with 0 +++\n";
        assert_eq!(calls_in(strace).into_iter().collect::<Vec<_>>(), ["openat", "read"]);
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
        for set in ["AmbientCapabilities", "CapabilityBoundingSet"] {
            assert!(UNIT.contains(&format!("\n{set}=CAP_BPF CAP_PERFMON\n")));
        }
    }

    #[test]
    fn other_hosts_are_refused_and_a_group_of_calls_with_many_uses_is_not_allowed() {
        assert!(UNIT.contains("\nIPAddressDeny=any\nIPAddressAllow=localhost\n"));
        for group in ["@system-service", "@privileged", "@process", "@file-system", "@mount"] {
            let allows = |line: &str| line.starts_with("SystemCallFilter=") && line.contains(group);
            assert!(!UNIT.lines().any(allows), "{group}");
        }
    }
}
