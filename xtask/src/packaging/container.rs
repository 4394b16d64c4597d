//! Checks the container image: built with podman from packaging/Containerfile, and run by runc with the capabilities that
//! docs/containers.md asks for, in the host's process ids and network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    build, debian,
    process::output,
    prometheus::server::{self, Server},
};

/// The capabilities of docs/containers.md.
const CAPABILITIES: [&str; 3] = ["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"];
const NEEDS: [debian::Need; 2] = [("podman", "podman"), ("runc", "runc")];

/// Builds the image and runs `check` and the exporter in it. Needs root, and a host that can be traced.
pub(super) fn check() -> Result<()> {
    debian::install(&NEEDS)?;
    let folder = build::target_dir().join("container");
    let _ = fs::remove_dir_all(&folder);
    let command = unpack(&folder)?;
    ensure!(command[..2] == ["/usr/bin/vmentry", "export"], "the image runs {command:?}");
    let said = output(&mut run(&folder, "check", &["/usr/bin/vmentry", "check"])?)?;
    ensure!(said.contains("may trace           yes"), "check in a container says:\n{said}");
    let port = server::free_port()?;
    let address = format!("127.0.0.1:{port}");
    let exporter = run(&folder, "export", &["/usr/bin/vmentry", "export", "--listen", &address]);
    let exporter = Server::start(&mut exporter?, port, folder.join("export.log"), "/metrics")?;
    let metrics = exporter.get("/metrics")?;
    ensure!(metrics.contains("vmentry_host_info{"), "ask the exporter in a container for metrics: {metrics}");
    exporter.stop()
}

/// Builds the image, unpacks its files to `FOLDER/rootfs`, and returns the command that it runs.
fn unpack(folder: &Path) -> Result<Vec<String>> {
    let (context, root) = (folder.join("context"), folder.join("rootfs"));
    for new in [&context, &root] {
        fs::create_dir_all(new).with_context(|| format!("create folder {}", new.display()))?;
    }
    fs::copy(build::static_binary("vmentry")?, context.join("vmentry")).context("copy vmentry")?;
    // Storage of its own, so that nothing stays among this machine's images.
    let podman = |arguments: &[&str]| {
        let mut podman = Command::new("podman");
        podman.args(["--storage-driver", "vfs"]);
        for (option, name) in [("--root", "storage"), ("--runroot", "run")] {
            podman.arg(option).arg(folder.join(name));
        }
        podman.args(arguments);
        podman
    };
    let file = build::root().join("packaging/Containerfile");
    output(podman(&["build", "--quiet", "--tag", "vmentry", "--file"]).arg(file).arg(&context))?;
    let image = output(&mut podman(&["image", "inspect", "vmentry", "--format", "{{json .Config}}"]))?;
    let image: Value = serde_json::from_str(&image).context("read the image's settings")?;
    let container = output(&mut podman(&["create", "vmentry"]))?;
    let archive = folder.join("files.tar");
    output(podman(&["export", container.trim(), "--output"]).arg(&archive))?;
    output(Command::new("tar").arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(&root))?;
    let words = |name: &str| image[name].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    Ok(words("Entrypoint").chain(words("Cmd")).collect())
}

/// A command that runs another in the unpacked image.
fn run(folder: &Path, name: &str, command: &[&str]) -> Result<Command> {
    let bundle = bundle(folder, name, command)?;
    let mut runc = Command::new("runc");
    runc.arg("run").arg("--bundle").arg(bundle).arg(format!("vmentry-{name}-{}", std::process::id()));
    Ok(runc)
}

/// Writes what runc reads: a container without process ids and a network of its own, its root read-only.
fn bundle(folder: &Path, name: &str, command: &[&str]) -> Result<PathBuf> {
    let bundle = folder.join(name);
    fs::create_dir_all(&bundle).with_context(|| format!("create folder {}", bundle.display()))?;
    let config = json!({
        "ociVersion": "1.0.0",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": command,
            "cwd": "/",
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "noNewPrivileges": true,
        },
        "root": {"path": folder.join("rootfs"), "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/sys", "/proc/bus"],
        },
    });
    fs::write(bundle.join("config.json"), config.to_string()).context("write the container's settings")?;
    Ok(bundle)
}
