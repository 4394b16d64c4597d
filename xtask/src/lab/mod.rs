//! Real kernels with real kvm_intel or kvm_amd in emulated machines, for hosts without VMX or SVM.

mod bochs;
pub mod cli;
mod console;
mod disk;
mod emulator;
mod guest;
mod inherited;
mod initramfs;
mod kernel;
mod log;
mod modules;
mod qemu;
mod report;

use crate::debian;
use crate::lab::console::Console;
use crate::lab::emulator::{Emulator, Terminal};
use crate::lab::guest::Guest;
use crate::lab::inherited::Inherited;
use crate::lab::log::Log;
use crate::lab::report::Report;
use anyhow::{Result, anyhow, bail};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// A processor, and so an emulator and a KVM module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cpu {
    /// VMX: kvm_intel in Bochs.
    Intel,
    /// SVM: kvm_amd in QEMU.
    Amd,
}

/// A kernel series of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kernel {
    /// Debian 12.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13, and Debian 12 as a backport.
    #[value(name = "6.12")]
    V6_12,
}

impl Cpu {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Cpu::Intel => "intel",
            Cpu::Amd => "amd",
        }
    }

    fn kvm_module(self) -> &'static str {
        match self {
            Cpu::Intel => "kvm_intel",
            Cpu::Amd => "kvm_amd",
        }
    }
}

impl Kernel {
    /// As on the command line.
    pub fn series(self) -> &'static str {
        match self {
            Kernel::V6_1 => "6.1",
            Kernel::V6_12 => "6.12",
        }
    }
}

/// What to boot, and what goes in and comes out.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The emulated processor.
    pub cpu: Cpu,
    /// The kernel series.
    pub kernel: Kernel,
    /// A module file that replaces the distribution's of the same name.
    pub module: Option<PathBuf>,
    /// Parameters of the KVM module of this processor, as for insmod.
    pub module_parameters: String,
    /// How many processors; more than one takes Bochs twice the time.
    pub processors: u8,
    /// QEMU's clock counts instructions: an emulated ns is one, whatever else this host does. One processor only.
    pub counts_instructions: bool,
    /// Programs, and other files, that are put into the guest's `PATH`.
    pub add: Vec<PathBuf>,
    /// Where results go; none for target/lab/CPU-KERNEL, which is emptied first.
    pub out: Option<PathBuf>,
    /// How long the machine may run, in time of this host.
    pub timeout: Duration,
    /// Keep the script's output to the file.
    pub quiet: bool,
    /// Say on stderr what takes how long.
    pub verbose: bool,
}

impl Default for Machine {
    fn default() -> Machine {
        Machine {
            cpu: Cpu::Intel,
            kernel: Kernel::V6_12,
            module: None,
            module_parameters: String::new(),
            processors: 1,
            counts_instructions: false,
            add: Vec::new(),
            out: None,
            timeout: Duration::from_secs(600),
            quiet: false,
            verbose: false,
        }
    }
}

/// What came out of a machine.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The script's; 128 + signal when a signal ended it.
    pub exit_code: u8,
    /// The file that holds what the script printed.
    pub output_path: PathBuf,
    /// The folder with the files that the script left in `$OUT`, and with `console.log`.
    pub out_dir: PathBuf,
    /// From power-on to the script's end, in time of this host.
    pub seconds: f64,
}

/// Installs what machines with this processor need.
pub fn install(cpu: Cpu) -> Result<()> {
    let mut needs = vec![("xz", "xz-utils"), ("zstd", "zstd"), ("gzip", "gzip"), ("tar", "tar")];
    needs.extend(match cpu {
        Cpu::Intel => bochs::NEEDS,
        Cpu::Amd => qemu::NEEDS,
    });
    debian::install(&needs)
}

/// Boots a machine, runs a shell script in it and brings back what it leaves.
pub fn run(machine: &Machine, script: &str) -> Result<Outcome> {
    let guest = Guest::prepare(machine, Some(script), "")?;
    let console = guest.folder.join("console.log");
    let log = Inherited::create(&console)?;
    let port = Inherited::memory(c"port", b"")?;
    let serial = match machine.cpu {
        Cpu::Intel => format!("mode=file, dev={}", log.path()),
        Cpu::Amd => format!("file:{}", log.path()),
    };
    let mut log = Log::follow(log.reader()?);
    let mut report = Report::follow(port.reader()?, &guest.output_path(), !machine.quiet)?;
    let (command, _files) = guest.command(&serial, &port.path())?;
    let start = Instant::now();
    let emulator = Emulator::start(command)?;
    let exit_code = watch(emulator, &mut report, &mut log, machine.timeout).or_else(|error| {
        bail!("{error:#}\nlast lines of {}:\n{}", console.display(), log.tail(30).trim());
    })?;
    outcome(guest, &report, exit_code, start.elapsed())
}

/// Boots a machine whose console is the user's terminal. Files that are left in `$OUT` come back, too.
pub fn shell(machine: &Machine) -> Result<Outcome> {
    let (lines, columns) = Console::size()?;
    let term = std::env::var("TERM").unwrap_or_else(|_| "linux".into());
    let guest = Guest::prepare(machine, None, &format!(" TERM={term} LINES={lines} COLUMNS={columns}"))?;
    let port = Inherited::memory(c"port", b"")?;
    let mut line = Terminal::open()?;
    let serial = match machine.cpu {
        Cpu::Intel => format!("mode=term, dev={}", line.path()?),
        Cpu::Amd => line.path()?,
    };
    let mut report = Report::follow(port.reader()?, &guest.output_path(), false)?;
    let (command, _files) = guest.command(&serial, &port.path())?;
    eprintln!("booting; exit or Ctrl-D in the shell ends the machine, Ctrl-] cuts it off");
    let start = Instant::now();
    let mut emulator = Emulator::start(command)?;
    let mut console = Console::open()?;
    let exit_code = loop {
        if !console.exchange(&mut line.near)? {
            break Err(anyhow!("machine cut off; files in $OUT are lost"));
        }
        report.advance()?;
        if let Some(code) = report.exit_code() {
            break Ok(code);
        }
        if let Some(status) = emulator.ended()? {
            break Err(anyhow!(
                "run machine: the emulator ended ({status}) before the shell did{}",
                emulator.complaint()
            ));
        }
    };
    drop(emulator);
    drop(console);
    eprintln!();
    outcome(guest, &report, exit_code?, start.elapsed())
}

fn outcome(guest: Guest, report: &Report, exit_code: u8, time: Duration) -> Result<Outcome> {
    report.unpack(&guest.folder)?;
    let (output_path, out_dir) = (guest.output_path(), guest.folder);
    Ok(Outcome { exit_code, output_path, out_dir, seconds: time.as_secs_f64() })
}

/// Waits for the report to be complete, then ends the emulator: nothing in it is worth a shutdown.
fn watch(mut emulator: Emulator, report: &mut Report, log: &mut Log, timeout: Duration) -> Result<u8> {
    let start = Instant::now();
    loop {
        let ended = emulator.ended()?;
        log.advance()?;
        report.advance()?;
        if let Some(code) = report.exit_code() {
            return Ok(code);
        }
        if let Some(status) = ended {
            bail!("run machine: the emulator ended ({status}) before the script did{}", emulator.complaint());
        }
        if log.panic().is_some() {
            // Let it say the rest; then Bochs would boot again.
            thread::sleep(Duration::from_secs(1));
            log.advance()?;
            bail!("run machine: {}", log.panic().unwrap_or_default());
        }
        if start.elapsed() > timeout {
            bail!("run machine: not finished after {} s; raise --timeout if it only needs longer", timeout.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
}
