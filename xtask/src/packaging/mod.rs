//! `cargo xtask deb`: the Debian package, by cargo-deb from `tracer/Cargo.toml`, and what is held of it and of its service.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    build, debian,
    process::output,
    prometheus::server::{self, Server},
};

/// Built from crates.io where the cache has it not.
const CARGO_DEB: &str = "3.8.0";
/// Of systemd's own measure, 0 (nothing is exposed) to 10. What is left: sockets, /proc, two capabilities. Tenths, as 252 has it.
const EXPOSURE: u32 = 20;
const NEEDS: [debian::Need; 2] = [("systemd-analyze", "systemd"), ("dpkg-deb", "dpkg")];
/// Files that must be in the package, and no others below the folders named last.
const CONTENTS: [&str; 6] = [
    "./usr/bin/vmentry",
    "./usr/lib/systemd/system/vmentry-export.service",
    "./etc/default/vmentry-export",
    "./usr/share/doc/vmentry/README.md",
    "./usr/share/doc/vmentry/copyright",
    "./usr/share/doc/vmentry/CHANGELOG.md",
];

/// Arguments of `deb`.
#[derive(Args)]
pub struct Arguments {
    /// Check what is in it, too, and the service
    #[arg(long)]
    check: bool,
}

/// Builds the package, and checks it where that is asked for.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.check {
        return check();
    }
    println!("{}", build()?.display());
    Ok(())
}

/// Builds the package and returns its path.
fn build() -> Result<PathBuf> {
    build::static_binary("vmentry")?;
    let cargo_deb = debian::cached(&format!("cargo-deb-{CARGO_DEB}"), |folder| {
        eprintln!("installing with cargo: cargo-deb {CARGO_DEB} (some minutes)");
        let mut cargo = Command::new(build::cargo());
        cargo.args(["install", "--quiet", "--locked", "cargo-deb", "--version", CARGO_DEB, "--root"]);
        // Its own target folder: this one may be locked by the cargo that runs us.
        let status = cargo.arg(folder.join("root")).env_remove("CARGO_TARGET_DIR").status().context("run cargo")?;
        ensure!(status.success(), "cargo install cargo-deb: {status}");
        Ok(folder.join("root"))
    })?
    .join("bin/cargo-deb");
    let folder = build::target_dir().join("deb");
    // Packages of other versions.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("create folder {}", folder.display()))?;
    let mut command = Command::new(cargo_deb);
    // The binary that was built above: static, and stripped by its profile.
    command.args(["deb", "--quiet", "--package", "vmentry", "--no-build", "--no-strip", "--profile", "dist"]);
    command.args(["--target", build::TARGET, "--output"]).arg(&folder).current_dir(build::root());
    output(&mut command).context("build the package")?;
    let package = fs::read_dir(&folder)?.find_map(|entry| Some(entry.ok()?.path()));
    package.context("build the package: cargo-deb left no file")
}

/// Builds the package and checks its contents, its binary and its service.
pub fn check() -> Result<()> {
    debian::install(&NEEDS)?;
    let package = build()?;
    let list = output(Command::new("dpkg-deb").arg("--contents").arg(&package))?;
    let files: BTreeSet<_> =
        list.lines().filter_map(|line| line.split_whitespace().nth(5)).filter(|path| !path.ends_with('/')).collect();
    for path in CONTENTS {
        ensure!(files.contains(path), "{} has no {path}:\n{list}", package.display());
    }
    let dashboards = committed(&build::root().join("dashboards"), "./usr/share/vmentry/dashboards")?;
    let missing: Vec<_> = dashboards.iter().filter(|path| !files.contains(path.as_str())).collect();
    ensure!(missing.is_empty(), "{} has not {missing:?}", package.display());
    ensure!(
        list.lines().all(|line| line.split_whitespace().nth(1) == Some("0/0")),
        "{} has files that are not root's:\n{list}",
        package.display()
    );
    let info =
        output(Command::new("dpkg-deb").args(["--field"]).arg(&package).args(["Package", "Architecture", "Depends"]))?;
    ensure!(info.contains("Package: vmentry\n") && info.contains("Architecture: amd64\n"), "fields: {info}");

    let root = build::target_dir().join("deb/root");
    output(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&root))?;
    let said = output(Command::new(root.join("usr/bin/vmentry")).arg("--version"))?;
    ensure!(said.starts_with("vmentry "), "the packaged binary says: {said}");
    check_service(&root)
}

/// The service as installed below `root`: known to systemd, its program there, and exposed by no more than it needs.
fn check_service(root: &Path) -> Result<()> {
    let unit = root.join("usr/lib/systemd/system/vmentry-export.service");
    let text = fs::read_to_string(&unit).with_context(|| format!("read {}", unit.display()))?;
    ensure!(
        allows_bpf(&text),
        "{}: SystemCallFilter does not end with bpf, which @privileged contains",
        unit.display()
    );
    // Its program is looked up on this machine: that the package has it was checked above.
    let here =
        text.replace("ExecStart=/usr/bin/vmentry", &format!("ExecStart={}", root.join("usr/bin/vmentry").display()));
    let copy = root.join("vmentry-export.service");
    fs::write(&copy, here).with_context(|| format!("write {}", copy.display()))?;
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&copy)
        .output()
        .context("run systemd-analyze")?;
    let said = String::from_utf8_lossy(&verify.stderr);
    // What it says of this machine's other units is not ours.
    let complaints: Vec<_> = said.lines().filter(|line| line.contains("vmentry-export")).collect();
    ensure!(complaints.is_empty(), "systemd-analyze verify: {}", complaints.join("\n"));
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--no-pager", "--offline=true", &format!("--threshold={EXPOSURE}")]).arg(&copy);
    let result = output(&mut security).context("the service is exposed by more than it was")?;
    println!("{}", result.lines().last().unwrap_or_default());
    Ok(())
}

/// Starts a live exporter as nobody, with the service's capabilities and no others, and asks it for metrics. Needs root, to have
/// something to give away, and a host that can be traced.
pub fn run_as_service() -> Result<()> {
    debian::install(&[("setpriv", "util-linux")])?;
    let mut cargo = Command::new(build::cargo());
    cargo.args(["build", "--quiet", "--package", "vmentry"]).current_dir(build::root());
    ensure!(cargo.status().context("run cargo")?.success(), "build vmentry");
    // Where everybody may run it: the target folder may be root's own.
    let binary = std::env::temp_dir().join(format!("vmentry-service-{}", std::process::id()));
    fs::copy(build::target_dir().join("debug/vmentry"), &binary).context("copy vmentry")?;
    let result = answers_as_nobody(&binary);
    let _ = fs::remove_file(&binary);
    result
}

fn answers_as_nobody(binary: &Path) -> Result<()> {
    let log = build::target_dir().join("as-service.log");
    let port = server::free_port()?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    command.args(["inh", "ambient"].map(|set| format!("--{set}-caps=-all,+bpf,+perfmon")));
    command.arg("--bounding-set=-all,+bpf,+perfmon").arg(binary);
    command.args(["export", "--listen", &format!("127.0.0.1:{port}")]).current_dir("/");
    let exporter = Server::start(&mut command, port, log, "/metrics")?;
    let metrics = exporter.get("/metrics")?;
    ensure!(metrics.contains("vmentry_host_info{"), "the exporter without root says: {metrics}");
    exporter.stop()
}

/// Whether bpf(2) is allowed after @privileged, which contains it, was taken away.
fn allows_bpf(unit: &str) -> bool {
    let filters: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")).collect();
    let removed = filters.iter().rposition(|f| f.starts_with('~') && f.contains("@privileged"));
    let allowed = filters.iter().rposition(|f| !f.starts_with('~') && f.split(' ').any(|call| call == "bpf"));
    allowed.is_some() && allowed > removed
}

/// The files of a folder, as their paths below `to`.
fn committed(folder: &Path, to: &str) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read folder {}", folder.display()))? {
        let entry = entry?;
        let path = format!("{to}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            files.extend(committed(&entry.path(), &path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_may_call_bpf() {
        assert!(allows_bpf(include_str!("../../../packaging/vmentry-export.service")));
        assert!(allows_bpf("SystemCallFilter=@system-service bpf\n"));
        assert!(!allows_bpf("SystemCallFilter=@system-service bpf\nSystemCallFilter=~@resources @privileged\n"));
        assert!(!allows_bpf("SystemCallFilter=@system-service\n"));
    }

    #[test]
    fn the_service_has_the_two_capabilities_that_it_needs() {
        let unit = include_str!("../../../packaging/vmentry-export.service");
        for set in ["AmbientCapabilities", "CapabilityBoundingSet"] {
            assert!(unit.contains(&format!("\n{set}=CAP_BPF CAP_PERFMON\n")));
        }
    }
}
