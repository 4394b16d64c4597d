//! QEMU, which emulates SVM by code translation, without support by the host.

use crate::debian::Need;
use crate::lab::guest::Boot;
use crate::lab::inherited::Inherited;
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// Packages to install.
pub(crate) const NEEDS: &[Need] = &[("qemu-system-x86_64", "qemu-system-x86")];

/// Kernel parameters.
pub(crate) const KERNEL_PARAMETERS: &str = "tsc=reliable";

/// Returns a QEMU that boots the kernel, with the files that must live as long as its process.
pub(crate) fn command(vmlinuz: &Path, boot: &Boot) -> Result<(Command, Vec<Inherited>)> {
    let initramfs = Inherited::memory(c"initramfs", boot.initramfs)?;
    let mut command = Command::new("qemu-system-x86_64");
    if boot.counts_instructions {
        command.args(["-icount", "shift=0,sleep=off"]);
    }
    // Files may take up to half of the memory: tools with their compilers take about 900 MB.
    let memory = boot.memory.unwrap_or(if boot.counts_instructions { 4096 } else { 1024 });
    command
        // One thread for all processors: with a thread each, a processor hit the int3 of a static branch that another
        // one was patching.
        .args([
            "-accel",
            "tcg,thread=single",
            "-cpu",
            "EPYC,+svm",
            "-smp",
            &boot.processors.to_string(),
            "-m",
            &memory.to_string(),
        ])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-serial", boot.serial, "-parallel", &format!("file:{}", boot.port)])
        .arg("-kernel")
        .arg(vmlinuz)
        .args(["-initrd", &initramfs.path(), "-append", boot.command_line]);
    Ok((command, vec![initramfs]))
}
