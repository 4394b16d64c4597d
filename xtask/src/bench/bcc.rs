//! Packs bcc for the lab: Python, the libraries of the compiler and the kernel's headers, with their paths, in one
//! archive.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{build, debian, process::output};

/// The Python that Debian's bcc is built for.
const PYTHON: &str = "/usr/bin/python3.11";
const NEEDS: [debian::Need; 2] = [(PYTHON, "python3.11"), ("/usr/sbin/kvmexit-bpfcc", "bpfcc-tools")];
/// Folders that are needed besides programs and libraries.
const FOLDERS: [&str; 2] = ["/usr/lib/python3.11", "/usr/lib/python3/dist-packages/bcc"];
const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/libbcc.so.0",
    "/usr/lib/python3.11/lib-dynload/_ctypes.cpython-311-x86_64-linux-gnu.so",
    // bcc loads it at run time, by its name.
    "/lib/x86_64-linux-gnu/librt.so.1",
];

/// Makes the archive for machines with Debian's kernel package of this name, and returns its path.
pub(super) fn archive(kernel: &str) -> Result<PathBuf> {
    debian::install(&NEEDS)?;
    let version =
        kernel.strip_prefix("linux-image-").with_context(|| format!("read the version of package {kernel}"))?;
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
    // -h stores the targets of links under the names of the links.
    output(
        Command::new("tar")
            .args(["-ch", "-C", "/", "--exclude=config-3.11*", "--exclude=test", "-f"])
            .arg(&path)
            .args(files.iter().map(|file| plain(file))),
    )?;
    for package in headers {
        let root = debian::unpacked(&package)?.root;
        output(Command::new("tar").args(["-r", "-f"]).arg(&path).arg("-C").arg(root).arg("usr/src"))?;
    }
    Ok(path)
}

/// Returns the libraries that a program or a library loads, including the loader.
pub(super) fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = output(Command::new("ldd").arg(program))?;
    let found: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect();
    ensure!(!found.is_empty(), "ldd {}: it needs no libraries", program.display());
    Ok(found)
}
