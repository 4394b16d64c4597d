//! bcc for the lab: Python, the compiler's libraries and the kernel's headers, in an archive with the paths at which they look for each
//! other.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{build, debian};

/// Debian's Python, which its bcc is for.
const PYTHON: &str = "/usr/bin/python3.11";
const NEEDS: [debian::Need; 2] = [(PYTHON, "python3.11"), ("/usr/sbin/kvmexit-bpfcc", "bpfcc-tools")];
/// What is needed besides programs and libraries.
const FOLDERS: [&str; 2] = ["/usr/lib/python3.11", "/usr/lib/python3/dist-packages/bcc"];
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/libbcc.so.0",
    "/usr/lib/python3.11/lib-dynload/_ctypes.cpython-311-x86_64-linux-gnu.so",
    // bcc loads it by its name.
    "/lib/x86_64-linux-gnu/librt.so.1",
];

/// The archive, for machines with a kernel of Debian's package of this name.
pub fn archive(kernel: &str) -> Result<PathBuf> {
    debian::install(&NEEDS)?;
    let version = kernel.strip_prefix("linux-image-").context("a kernel's package")?;
    let common = version.trim_end_matches("-amd64").trim_end_matches("-cloud");
    let headers = [format!("linux-headers-{version}"), format!("linux-headers-{common}-common")];
    let mut files: BTreeSet<PathBuf> =
        [PYTHON, NEEDS[1].0].iter().chain(&FOLDERS).chain(&LIBRARIES).map(PathBuf::from).collect();
    for program in [PYTHON].iter().chain(&LIBRARIES) {
        files.extend(libraries(Path::new(program))?);
    }
    let folder = build::target_dir().join("lab/tools");
    std::fs::create_dir_all(&folder).with_context(|| format!("create folder {}", folder.display()))?;
    let path = folder.join("bcc.tar");
    let plain = |path: &Path| path.strip_prefix("/").unwrap_or(path).to_owned();
    // What links point at, under the links' names.
    tar(Command::new("tar")
        .args(["-ch", "-C", "/", "--exclude=config-3.11*", "--exclude=test", "-f"])
        .arg(&path)
        .args(files.iter().map(|file| plain(file))))?;
    for package in headers {
        let root = debian::unpacked(&package)?.root;
        tar(Command::new("tar").args(["-r", "-f"]).arg(&path).arg("-C").arg(root).arg("usr/src"))?;
    }
    Ok(path)
}

fn tar(command: &mut Command) -> Result<()> {
    let output = command.output().context("run tar")?;
    ensure!(output.status.success(), "tar: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// The libraries that a program or a library loads, the loader among them.
pub fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("run ldd")?;
    ensure!(output.status.success(), "ldd {}: {}", program.display(), output.status);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect();
    ensure!(!found.is_empty(), "ldd {}: names no libraries", program.display());
    Ok(found)
}
