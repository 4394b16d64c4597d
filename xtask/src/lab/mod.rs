//! Real kernels with real kvm_intel or kvm_amd in emulated machines, for hosts without VMX or SVM.

mod bochs;
pub(crate) mod cli;
mod console;
mod disk;
mod emulator;
mod guest;
mod inherited;
mod initramfs;
mod kernel;
mod log;
mod machine;
pub(crate) mod modules;
mod qemu;
mod report;
pub(crate) mod results;
mod run;
pub(crate) mod tested;
mod tree;

use anyhow::Result;

use crate::debian;
pub(crate) use crate::debian::Kernel;
pub(crate) use crate::lab::{
    guest::vmlinux,
    initramfs::Archive,
    machine::{Cpu, Machine, Outcome},
    run::{run, shell},
};

/// Installs the packages that machines with this processor need.
pub(crate) fn install(cpu: Cpu) -> Result<()> {
    let mut needs = vec![("xz", "xz-utils"), ("zstd", "zstd"), ("gzip", "gzip"), ("tar", "tar")];
    needs.extend(match cpu {
        Cpu::Intel => bochs::NEEDS,
        Cpu::Amd => qemu::NEEDS,
    });
    debian::install(&needs)
}
