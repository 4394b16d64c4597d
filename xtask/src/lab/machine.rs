//! The description of a machine, and the result of a run in it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};

use crate::debian::Kernel;

/// An emulated processor, which decides on the emulator and the KVM module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Cpu {
    /// VMX: kvm_intel in Bochs.
    Intel,
    /// SVM: kvm_amd in QEMU.
    Amd,
}

impl Cpu {
    /// Name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Cpu::Intel => "intel",
            Cpu::Amd => "amd",
        }
    }

    /// The KVM module that supports it.
    pub(super) fn kvm_module(self) -> &'static str {
        match self {
            Cpu::Intel => "kvm_intel",
            Cpu::Amd => "kvm_amd",
        }
    }
}

/// A machine to boot, its input and its output.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The emulated processor.
    pub(crate) cpu: Cpu,
    /// The kernel series.
    pub(crate) kernel: Kernel,
    /// A module file that replaces the distribution's module of the same name.
    pub(crate) module: Option<PathBuf>,
    /// Parameters of the KVM module, as for insmod.
    pub(crate) module_parameters: String,
    /// Number of processors. With more than one, Bochs takes twice the time.
    pub(crate) processors: u8,
    /// MiB of memory; none for the emulator's usual size. Added files take it twice while the machine boots.
    pub(crate) memory: Option<u32>,
    /// Whether QEMU's clock counts instructions: one per emulated ns, whatever else this host does. One processor only.
    pub(crate) counts_instructions: bool,
    /// Programs and other files to put into the guest's `PATH`.
    pub(crate) add: Vec<PathBuf>,
    /// Folders whose files lie in the guest at their paths below the folder.
    pub(crate) trees: Vec<PathBuf>,
    /// Folder of the results; none for target/lab/CPU-KERNEL, which is emptied first.
    pub(crate) out: Option<PathBuf>,
    /// Limit of the run, in time of this host.
    pub(crate) timeout: Duration,
    /// Whether the script's output goes only to the file.
    pub(crate) quiet: bool,
    /// Whether stderr gets the time of each step.
    pub(crate) verbose: bool,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine {
            cpu: Cpu::Intel,
            kernel: Kernel::V6_12,
            module: None,
            module_parameters: String::new(),
            processors: 1,
            memory: None,
            counts_instructions: false,
            add: Vec::new(),
            trees: Vec::new(),
            out: None,
            timeout: Duration::from_secs(600),
            quiet: false,
            verbose: false,
        }
    }
}

/// How many of the last lines that a script printed an error shows.
const LAST_LINES: usize = 8;

/// The last lines of a script's output, each on a line of its own; empty if there is no output.
fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| format!("\n  | {line}")).collect()
}

/// The result of a run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Exit code of the script; 128 + signal if a signal ended it.
    pub(crate) exit_code: u8,
    /// File with everything that the script printed.
    pub(crate) output_path: PathBuf,
    /// Folder with `console.log` and the files that the script left in `$OUT`.
    pub(crate) out_dir: PathBuf,
    /// Seconds from power-on to the end of the script, in time of this host.
    pub(crate) seconds: f64,
}

impl Outcome {
    /// Fails if the script's exit code is not 0, with the last lines that it printed: the files of a CI run are gone with it.
    pub(crate) fn check_exit_code(&self) -> Result<()> {
        ensure!(
            self.exit_code == 0,
            "run the script: exit code {}: see {}{}",
            self.exit_code,
            self.output_path.display(),
            last_lines(&std::fs::read(&self.output_path).unwrap_or_default())
        );
        Ok(())
    }
}
