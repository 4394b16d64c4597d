//! Debian's QEMU for the lab: the program, the libraries that it loads and its firmware, from unpacked packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{debian, process::output};

/// The program in the tree.
const PROGRAM: &str = "usr/bin/qemu-system-x86_64";
/// The loader of shared libraries; its path is in each program.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
/// Folders of shared libraries.
const LIBRARIES: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
/// Firmware of the machine types microvm and pc, and the option ROMs that load a kernel. In the tree it lies in
/// usr/share/qemu.
const FIRMWARE: [&str; 6] =
    ["bios-microvm.bin", "bios-256k.bin", "pvh.bin", "qboot.rom", "kvmvapic.bin", "linuxboot_dma.bin"];
/// Where the packages have it.
const FIRMWARE_FOLDERS: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// Puts QEMU with everything that it needs into a tree. The packages are downloaded once; nothing is installed.
pub(super) fn put(tree: &Path) -> Result<()> {
    let packages = debian::unpacked_with_dependencies("qemu-system-x86", is_wanted)?;
    put_from(&packages.root, tree).with_context(|| format!("pack QEMU from {}", packages.root.display()))
}

/// Whether a dependency of QEMU may have a file that QEMU opens here. The others are for its installation.
fn is_wanted(package: &str) -> bool {
    package == "seabios" || ["lib", "zlib", "qemu-system-"].iter().any(|prefix| package.starts_with(prefix))
}

fn put_from(root: &Path, tree: &Path) -> Result<()> {
    copy(&root.join(PROGRAM), &tree.join(PROGRAM))?;
    copy(&root.join(LOADER), &tree.join(LOADER))?;
    for library in libraries(root)? {
        let name = library.file_name().context("read a library's path: no name")?;
        copy(&library, &tree.join(LIBRARIES[0]).join(name))?;
    }
    for name in FIRMWARE {
        let found = FIRMWARE_FOLDERS.iter().map(|folder| root.join(folder).join(name)).find(|path| path.exists());
        copy(&found.with_context(|| format!("find firmware {name}"))?, &tree.join("usr/share/qemu").join(name))?;
    }
    Ok(())
}

/// Returns the libraries that QEMU loads, as the packages' own loader finds them.
fn libraries(root: &Path) -> Result<Vec<PathBuf>> {
    let folders = LIBRARIES.map(|folder| root.join(folder).to_string_lossy().into_owned()).join(":");
    let mut loader = Command::new(root.join(LOADER));
    let list = output(loader.args(["--library-path", &folders, "--list"]).arg(root.join(PROGRAM)))?;
    let (found, missing) = parse_libraries(&list);
    ensure!(missing.is_empty(), "find libraries {}", missing.join(", "));
    ensure!(!found.is_empty(), "find libraries: the loader names none:\n{list}");
    Ok(found)
}

/// Returns the paths in a loader's list, and the names of libraries that it does not find.
fn parse_libraries(list: &str) -> (Vec<PathBuf>, Vec<&str>) {
    let rows = list.lines().filter_map(|line| line.split_once(" => "));
    let (missing, found): (Vec<_>, Vec<_>) = rows.partition(|(_, path)| path.trim() == "not found");
    let path = |path: &str| PathBuf::from(path.rsplit_once(" (").map_or(path, |(path, _)| path));
    (found.iter().map(|(_, found)| path(found)).collect(), missing.iter().map(|(name, _)| name.trim()).collect())
}

/// Copies a file, or the target of a link, and creates the folders above the copy.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("copy file: no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create folder {}", folder.display()))?;
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaders_list_has_paths_and_the_names_of_missing_libraries() {
        let list = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibz.so.1 => /r/lib/libz.so.1 (0x00007f)\n\
                    \tlibx.so.2 => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(parse_libraries(list), (vec![PathBuf::from("/r/lib/libz.so.1")], vec!["libx.so.2"]));
    }

    #[test]
    fn libraries_and_firmware_are_wanted_and_what_only_installs_is_not() {
        for package in ["libglib2.0-0", "zlib1g", "qemu-system-x86", "qemu-system-data", "seabios"] {
            assert!(is_wanted(package), "{package}");
        }
        for package in ["debconf", "adduser", "ipxe-qemu", "tar"] {
            assert!(!is_wanted(package), "{package}");
        }
    }
}
