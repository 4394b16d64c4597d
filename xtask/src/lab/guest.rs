//! Prepares what a machine boots: the kernel, and an initramfs with programs, modules and the script.

use crate::build;
use crate::debian::{self, Unpacked};
use crate::lab::inherited::Inherited;
use crate::lab::initramfs::Archive;
use crate::lab::kernel::{self, Image};
use crate::lab::modules::Modules;
use crate::lab::{self, Cpu, Machine, bochs, qemu, tree};
use crate::process::filter;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Settings of a boot that both emulators take.
pub(crate) struct Boot<'a> {
    /// Number of processors.
    pub(crate) processors: u8,
    /// MiB of memory; none for the emulator's usual size.
    pub(crate) memory: Option<u32>,
    /// Whether QEMU's clock counts instructions: one per emulated ns.
    pub(crate) counts_instructions: bool,
    /// Content of the initramfs.
    pub(crate) initramfs: &'a [u8],
    /// Command line of the kernel.
    pub(crate) command_line: &'a str,
    /// Destination of the serial port, in the emulator's syntax.
    pub(crate) serial: &'a str,
    /// Path of the file that the parallel port writes.
    pub(crate) port: &'a str,
}

/// A machine with everything that it boots from.
#[derive(Debug)]
pub(crate) struct Guest {
    cpu: Cpu,
    processors: u8,
    memory: Option<u32>,
    counts_instructions: bool,
    kernel: Unpacked,
    initramfs: Vec<u8>,
    command_line: String,
    /// Folder of the results.
    pub(crate) folder: PathBuf,
}

impl Guest {
    /// Downloads, builds and packs everything that the machine boots from. Without a script, the machine starts a shell
    /// on its console. `more_parameters` is appended to the kernel's command line.
    pub(crate) fn prepare(machine: &Machine, script: Option<&str>, more_parameters: &str) -> Result<Guest> {
        let start = Instant::now();
        let log = |step: &str| {
            if machine.verbose {
                eprintln!("{:6.1} s  {step}", start.elapsed().as_secs_f64());
            }
        };
        lab::install(machine.cpu)?;
        let kernel = debian::newest_kernel(machine.kernel)?;
        let busybox = debian::unpacked("busybox-static")?.file(&["bin/busybox", "usr/bin/busybox"])?;
        log(&format!("{} is unpacked", kernel.package));
        let programs = [build::static_binary("lab-init")?, build::static_binary("vmentry")?];
        log("programs are built");
        let initramfs = initramfs(machine, &kernel.root, &busybox, &programs, script)?;
        log(&format!("initramfs of {} MB is packed", initramfs.len() >> 20));
        let own_parameters = match machine.cpu {
            Cpu::Intel if machine.processors == 1 => format!("{} nosmp", bochs::KERNEL_PARAMETERS),
            Cpu::Intel => bochs::KERNEL_PARAMETERS.to_owned(),
            Cpu::Amd => qemu::KERNEL_PARAMETERS.to_owned(),
        };
        let command_line = format!("{KERNEL_PARAMETERS} {own_parameters}{more_parameters}");
        let folder = folder(machine)?;
        let Machine { cpu, processors, memory, counts_instructions, .. } = *machine;
        Ok(Guest { cpu, processors, memory, counts_instructions, kernel, initramfs, command_line, folder })
    }

    /// Returns the emulator's command, with the files that must live as long as its process.
    pub(crate) fn command(&self, serial: &str, port: &str) -> Result<(Command, Vec<Inherited>)> {
        let Guest { processors, memory, counts_instructions, initramfs, command_line, .. } = self;
        let (processors, memory, counts_instructions) = (*processors, *memory, *counts_instructions);
        let boot = Boot { processors, memory, counts_instructions, initramfs, command_line, serial, port };
        match self.cpu {
            Cpu::Intel => bochs::command(&flat_kernel(&self.kernel)?, &boot),
            Cpu::Amd => qemu::command(&vmlinuz(&self.kernel)?, &boot),
        }
    }

    /// File that receives the script's output.
    pub(crate) fn output_path(&self) -> PathBuf {
        self.folder.join("output")
    }
}

/// Kernel parameters of every machine. With the first one, vmentry marks all figures as emulated.
const KERNEL_PARAMETERS: &str =
    "vmentry.lab=emulated console=ttyS0,115200 nokaslr mitigations=off panic=10 quiet loglevel=4";

/// Returns the folder of the results, created.
fn folder(machine: &Machine) -> Result<PathBuf> {
    let folder = match &machine.out {
        Some(folder) => folder.clone(),
        None => {
            let name = format!("{}-{}", machine.cpu.name(), machine.kernel.series());
            let folder = build::target_dir().join("lab").join(name);
            let _ = fs::remove_dir_all(&folder);
            folder
        }
    };
    fs::create_dir_all(&folder).with_context(|| format!("create folder {}", folder.display()))?;
    Ok(folder)
}

fn initramfs(
    machine: &Machine,
    kernel: &Path,
    busybox: &Path,
    programs: &[PathBuf; 2],
    script: Option<&str>,
) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("read file {}", path.display()));
    let kvm = machine.cpu.kvm_module();
    let mut modules = Modules::of_kernel(kernel)?;
    if let Some(file) = &machine.module {
        modules.replace(kvm, file)?;
    }
    let [init, vmentry] = programs;
    let mut archive = Archive::default();
    archive.device("dev/console", 5, 1);
    archive.file("init", &read(init)?);
    archive.file("bin/busybox", &read(busybox)?);
    archive.file("bin/vmentry", &read(vmentry)?);
    for file in &machine.add {
        let name = file.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("add file {}: it has no plain name", file.display()))?;
        archive.file(&format!("bin/{name}"), &read(file)?);
    }
    for tree in &machine.trees {
        tree::add(&mut archive, tree)?;
    }
    let mut manifest = String::new();
    for module in modules.in_order(&[kvm, "msr"])? {
        let parameters = if module.name == kvm { machine.module_parameters.as_str() } else { "" };
        manifest.push_str(format!("/{} {parameters}", module.path).trim_end());
        manifest.push('\n');
        archive.file(&module.path, &module.content);
    }
    archive.file("lab/manifest", manifest.as_bytes());
    if let Some(script) = script {
        archive.file("lab/script", script.as_bytes());
    }
    Ok(archive.finish())
}

/// Returns the kernel as Bochs boots it.
fn flat_kernel(package: &Unpacked) -> Result<Image> {
    let vmlinux = vmlinux(package)?;
    kernel::flatten(&fs::read(&vmlinux).with_context(|| format!("read file {}", vmlinux.display()))?)
}

/// Returns the decompressed kernel of a package, which is kept in the cache.
pub(crate) fn vmlinux(package: &Unpacked) -> Result<PathBuf> {
    let name = package.root.file_name().unwrap_or_default().to_string_lossy();
    debian::cached(&format!("vmlinux/{name}"), |folder| {
        let path = vmlinuz(package)?;
        let vmlinuz = fs::read(&path).with_context(|| format!("read file {}", path.display()))?;
        let (decompressor, stream) = kernel::payload(&vmlinuz)?;
        let elf = filter(decompressor, stream).with_context(|| format!("decompress {}", path.display()))?;
        let vmlinux = folder.join("vmlinux");
        fs::write(&vmlinux, elf).with_context(|| format!("write file {}", vmlinux.display()))?;
        Ok(vmlinux)
    })
}

/// Returns the path of a package's compressed kernel: in /boot, and beside the modules since Linux 6.19.
fn vmlinuz(package: &Unpacked) -> Result<PathBuf> {
    let folders = ["boot", "usr/lib/modules", "lib/modules"].map(|folder| package.root.join(folder));
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut files = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        if path.is_dir() { Some(path.join("vmlinuz")).filter(|path| path.exists()) } else { Some(path) }
    });
    let image = files.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")));
    image.with_context(|| format!("find vmlinuz in package {}", package.package))
}
