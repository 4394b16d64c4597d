//! QEMU, whose code translation emulates SVM without any support of the host.

use crate::debian::Need;
use crate::lab::guest::Boot;
use crate::lab::inherited::Inherited;
use anyhow::Result;
use std::path::Path;
use std::process::Command;

/// What has to be installed.
pub const NEEDS: &[Need] = &[("qemu-system-x86_64", "qemu-system-x86")];

/// For the kernel command line.
pub const KERNEL_PARAMETERS: &str = "tsc=reliable";

/// A QEMU that boots the kernel. The files have to live as long as the process.
pub fn command(vmlinuz: &Path, boot: &Boot) -> Result<(Command, Vec<Inherited>)> {
    let initramfs = Inherited::memory(c"initramfs", boot.initramfs)?;
    let mut command = Command::new("qemu-system-x86_64");
    if boot.counts_instructions {
        command.args(["-icount", "shift=0,sleep=off"]);
    }
    // Half of it is the most that may be in files: tools with their compilers are some 900 MB.
    let megabytes = if boot.counts_instructions { "4096" } else { "1024" };
    command
        // With a thread for each processor, one was seen to trip over code that the other was patching (int3 of a static branch).
        .args([
            "-accel",
            "tcg,thread=single",
            "-cpu",
            "EPYC,+svm",
            "-smp",
            &boot.processors.to_string(),
            "-m",
            megabytes,
        ])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-serial", boot.serial, "-parallel", &format!("file:{}", boot.port)])
        .arg("-kernel")
        .arg(vmlinuz)
        .args(["-initrd", &initramfs.path(), "-append", boot.command_line]);
    Ok((command, vec![initramfs]))
}
