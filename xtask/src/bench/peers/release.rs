//! Puts the tools of a release of Debian, with their libraries, into folders for the lab's machine. The machine's own
//! programs are static, so the libraries of any release may lie at their usual paths.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    bench::peers::tools::BCC,
    build,
    debian::{self, Need},
    lab::Machine,
    process::output,
};

/// A release of Debian that the tools are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Release {
    /// Debian 12
    Bookworm,
    /// Debian 13
    Trixie,
}

impl Release {
    pub(super) fn title(self) -> &'static str {
        match self {
            Release::Bookworm => "Debian 12 (bookworm)",
            Release::Trixie => "Debian 13 (trixie)",
        }
    }

    fn codename(self) -> &'static str {
        match self {
            Release::Bookworm => "bookworm",
            Release::Trixie => "trixie",
        }
    }
}

/// The packages of all tools: one folder in the cache for each release. base-files has the links of folders.
const PACKAGES: [&str; 5] = ["base-files", "bpfcc-tools", "bpftrace", "linux-perf", "trace-cmd"];
const LOADER: &str = "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
/// The path of [`LOADER`] that programs name.
const INTERPRETER: &str = "lib64/ld-linux-x86-64.so.2";
const LIBRARY_FOLDERS: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// Makes a folder with the programs of these needs, and their libraries, at their paths in the release. Returns it and
/// further such folders.
pub(super) fn trees(release: Release, needs: &[Need]) -> Result<Vec<PathBuf>> {
    let root = debian::root(release.codename(), &PACKAGES)?;
    let mut files = BTreeSet::new();
    for &(program, package) in needs {
        if (program, package) == BCC {
            files.extend(bcc(&root)?);
        } else {
            let program = Path::new("usr/bin").join(program);
            files.extend(libraries(&root, &program)?);
            files.insert(program);
        }
    }
    let tree = build::target_dir().join("lab/tools").join(release.codename());
    if tree.exists() {
        fs::remove_dir_all(&tree).with_context(|| format!("empty folder {}", tree.display()))?;
    }
    fs::create_dir_all(tree.join("lib64")).with_context(|| format!("create folder {}", tree.display()))?;
    // Of a link to a library, -H copies its target; links in folders stay.
    output(Command::new("cp").args(["-rH", "--parents"]).args(&files).arg(&tree).current_dir(&root))?;
    symlink(Path::new("/").join(LOADER), tree.join(INTERPRETER)).context("link the loader")?;
    if needs.contains(&BCC) { Ok([vec![tree], headers()?].concat()) } else { Ok(vec![tree]) }
}

/// Returns the files that bcc's tools need, besides the kernel's headers: Python, and the libraries of the compiler.
fn bcc(root: &Path) -> Result<BTreeSet<PathBuf>> {
    let python = Path::new("usr/bin/python3");
    let version = fs::read_link(root.join(python)).context("read the version of python3")?;
    let modules = Path::new("usr/lib").join(version);
    let folder = LIBRARY_FOLDERS[1];
    // bcc loads the second one at run time, by its name.
    let mut files = BTreeSet::from([Path::new(folder).join("libbcc.so.0"), library(root, "librt.so.1")?]);
    let loaded = fs::read_dir(root.join(&modules).join("lib-dynload")).context("read Python's modules")?.flatten();
    let is_ctypes = |name: &str| name.starts_with("_ctypes.");
    let ctypes = loaded.map(|entry| entry.file_name()).find(|name| name.to_str().is_some_and(is_ctypes));
    files.insert(modules.join("lib-dynload").join(ctypes.context("find Python's module _ctypes")?));
    files.insert(python.to_owned());
    for file in files.clone() {
        files.extend(libraries(root, &file)?);
    }
    files.extend([modules, "usr/lib/python3/dist-packages/bcc".into(), "usr/sbin/kvmexit-bpfcc".into()]);
    Ok(files)
}

/// Returns the path of a library of libc, below the root.
fn library(root: &Path, name: &str) -> Result<PathBuf> {
    let paths = LIBRARY_FOLDERS.map(|folder| Path::new(folder).join(name));
    let found = paths.into_iter().find(|path| root.join(path).exists());
    found.with_context(|| format!("find library {name} in {}", root.display()))
}

/// Returns the folders of the headers of the lab's kernel, whose packages are of the release that runs here.
fn headers() -> Result<Vec<PathBuf>> {
    let kernel = debian::newest_kernel(Machine::default().kernel)?.package;
    let version =
        kernel.strip_prefix("linux-image-").with_context(|| format!("read the version of package {kernel}"))?;
    let common = version.trim_end_matches("-amd64").trim_end_matches("-cloud");
    let packages = [format!("linux-headers-{version}"), format!("linux-headers-{common}-common")];
    packages.iter().map(|package| Ok(debian::unpacked(package)?.root)).collect()
}

/// Returns the libraries that a program or library of the root loads, by the root's loader, and the loader. All paths
/// are below the root.
fn libraries(root: &Path, program: &Path) -> Result<BTreeSet<PathBuf>> {
    let path = LIBRARY_FOLDERS.map(|folder| root.join(folder).display().to_string()).join(":");
    let mut list = Command::new(root.join(LOADER));
    list.args(["--inhibit-cache", "--library-path", &path, "--list"]).arg(root.join(program));
    let list = output(&mut list).with_context(|| format!("list libraries of {}", program.display()))?;
    let mut found = below(root, &list)?;
    found.insert(LOADER.into());
    Ok(found)
}

/// Reads the paths in the loader's list, `NAME => PATH (ADDRESS)`. One that is not below the root is an error.
fn below(root: &Path, list: &str) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for (name, path) in list.lines().filter_map(|line| line.split_once(" => ")) {
        let path = Path::new(path.split(" (").next().unwrap_or(path));
        match path.strip_prefix(root) {
            Ok(path) => found.insert(path.to_owned()),
            Err(_) => bail!("find library {}: {} is not in {}", name.trim(), path.display(), root.display()),
        };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_loaders_list_and_one_of_this_machine_is_an_error() {
        let list = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /root/lib/libz.so.1 (0x00007f1)\n\
            \t/lib64/ld-linux-x86-64.so.2 => /root/lib/ld.so (0x7f2)\n";
        let found = below(Path::new("/root"), list).unwrap();
        assert_eq!(found, BTreeSet::from(["lib/ld.so".into(), "lib/libz.so.1".into()]));
        let error = below(Path::new("/root"), "\tlibz.so.1 => /usr/lib/libz.so.1 (0x1)\n").unwrap_err().to_string();
        assert_eq!(error, "find library libz.so.1: /usr/lib/libz.so.1 is not in /root");
        assert!(below(Path::new("/root"), "\tlibz.so.1 => not found\n").is_err());
    }
}
