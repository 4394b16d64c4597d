//! The guests: Debian's kernel as QEMU enters it through PVH, and an initramfs with busybox and the guest's script.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    build,
    debian::{self, Unpacked},
    lab::{self, Archive, modules::Modules},
};

/// A guest: the name of its initramfs, its script, and the modules in its /modules.
struct Guest {
    name: &'static str,
    script: &'static str,
    modules: &'static [&'static str],
    has_vmentry: bool,
}

const GUESTS: [Guest; 2] = [
    Guest {
        name: "standard",
        script: include_str!("../../../lab/guests/standard.sh"),
        modules: &["virtio_mmio", "virtio_blk"],
        has_vmentry: false,
    },
    Guest {
        name: "hypervisor",
        script: include_str!("../../../lab/guests/hypervisor.sh"),
        modules: &["kvm_intel"],
        has_vmentry: true,
    },
];

/// Puts the kernel of the guests and the initramfs of each named one into a folder: `vmlinux`, `standard.cpio`,
/// `hypervisor.cpio`.
pub(super) fn put(kernel: &Unpacked, names: &[&str], folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create folder {}", folder.display()))?;
    super::qemu::copy(&lab::vmlinux(kernel)?, &folder.join("vmlinux"))?;
    let busybox = debian::unpacked("busybox-static")?.file(&["bin/busybox", "usr/bin/busybox"])?;
    let modules = Modules::of_kernel(&kernel.root)?;
    for guest in GUESTS.iter().filter(|guest| names.contains(&guest.name)) {
        let path = folder.join(format!("{}.cpio", guest.name));
        let archive = initramfs(guest, &busybox, &modules)?;
        fs::write(&path, archive).with_context(|| format!("write file {}", path.display()))?;
    }
    Ok(())
}

fn initramfs(guest: &Guest, busybox: &Path, modules: &Modules) -> Result<Vec<u8>> {
    let read = |path: &PathBuf| fs::read(path).with_context(|| format!("read file {}", path.display()));
    let mut archive = Archive::default();
    archive.device("dev/console", 5, 1);
    for folder in ["proc", "sys", "tmp"] {
        archive.folder(folder);
    }
    archive.file("init", guest.script.as_bytes());
    archive.file("bin/busybox", &read(&busybox.to_owned())?);
    if guest.has_vmentry {
        archive.file("bin/vmentry", &read(&build::static_binary("vmentry")?)?);
    }
    // Numbered in the order of loading.
    for (i, module) in modules.in_order(guest.modules)?.iter().enumerate() {
        archive.file(&format!("modules/{i}-{}.ko", module.name), &module.content);
    }
    Ok(archive.finish())
}
