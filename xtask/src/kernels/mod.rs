//! `cargo xtask kernels`: the figures of every kernel that Debian offers, beside their witnesses, as docs/kernels.md.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    build,
    debian::{self, Offered},
    lab::{
        self, Cpu, Kernel, Machine,
        tested::{self, FAILED, Row},
    },
    patches::{self, Flavour},
    process::output,
    witness::figures::{self, Figure},
};

/// Test every kernel that Debian offers in emulated machines, and write docs/kernels.md; takes half an hour
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only this series; may be repeated. The other rows of the table stay
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<Kernel>,
    /// Only intel or amd
    #[arg(long, value_enum, hide_possible_values = true)]
    cpu: Option<Cpu>,
}

/// Tests the kernels and writes each result into the table at once.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let offered = match arguments.kernel.as_slice() {
        [] => debian::kernels()?,
        kernels => kernels.iter().map(|&kernel| debian::offered(kernel)).collect::<Result<_>>()?,
    };
    let cpus = arguments.cpu.map_or_else(|| vec![Cpu::Intel, Cpu::Amd], |cpu| vec![cpu]);
    let mut failed = Vec::new();
    for kernel in &offered {
        for &cpu in &cpus {
            let row = test(kernel, cpu)?;
            let name = format!("{} {}", kernel.kernel, cpu.name());
            println!("{name}: {}{}", row.note, row.cells.join(" | "));
            if !row.is_good() && !row.note.starts_with(REFUSED) {
                failed.push(name);
            }
            tested::write(row, &figures::NAMES)?;
        }
    }
    ensure!(failed.is_empty(), "test kernels: failed: {}: see {}", failed.join(", "), tested::path().display());
    Ok(())
}

/// Fails with every failed figure of a kernel. The module of the companion patches is not loaded.
pub(crate) fn check(kernel: Kernel, cpu: Cpu) -> Result<()> {
    let outcome = boot(&machine(kernel, cpu, Vec::new()))?;
    outcome.check_exit_code()?;
    let figures = figures::figures(&outcome.out_dir, cpu == Cpu::Intel)?;
    for (name, figure) in figures::NAMES.iter().zip(&figures) {
        println!("{name:<15} {}", figure.text);
    }
    let failures: Vec<_> = figures.into_iter().flat_map(|figure| figure.failures).collect();
    ensure!(failures.is_empty(), "{}\n(files in {})", failures.join("\n"), outcome.out_dir.display());
    Ok(())
}

/// Begins the note of a kernel that vmentry refuses.
const REFUSED: &str = "refused: ";

/// Tests a kernel; a failure becomes part of the row.
fn test(offered: &Offered, cpu: Cpu) -> Result<Row> {
    let (kernel, version) = (offered.kernel, offered.version.clone());
    let date = output(Command::new("date").args(["-u", "+%F"]))?.trim().to_owned();
    let (cells, note) = match figures_of(kernel, cpu) {
        Ok(figures) => (figures.iter().map(cell).collect(), String::new()),
        Err(error) => (Vec::new(), format!("{error:#}")),
    };
    Ok(Row { kernel, cpu, version, date, cells, note })
}

fn cell(figure: &Figure) -> String {
    if figure.failures.is_empty() { figure.text.clone() } else { format!("{FAILED}: {}", figure.failures.join("; ")) }
}

/// Boots the kernel and returns its figures. The error is the note of the row.
fn figures_of(kernel: Kernel, cpu: Cpu) -> Result<Vec<Figure>> {
    let module = companion(kernel, cpu);
    let machine = machine(kernel, cpu, module.iter().flatten().cloned().collect());
    let outcome = boot(&machine).context(FAILED)?;
    if let Ok(refusal) = fs::read_to_string(outcome.out_dir.join(figures::REFUSAL)) {
        let reason = refusal.lines().find_map(|line| line.split_once("this kernel is not supported: "));
        bail!("{REFUSED}{}", reason.map_or(refusal.trim(), |(_, reason)| reason));
    }
    outcome.check_exit_code().context(FAILED)?;
    let mut figures = figures::figures(&outcome.out_dir, cpu == Cpu::Intel).context(FAILED)?;
    figures.push(match module {
        Ok(Some(_)) => figures::with_companion(&outcome.out_dir).context(FAILED)?,
        Ok(None) if cpu == Cpu::Amd => Figure::none("n/a"),
        Ok(None) => Figure::none("no module"),
        Err(error) => Figure { text: String::new(), failures: vec![format!("build the module: {error:#}")] },
    });
    Ok(figures)
}

/// Returns the companion module of a kernel; none without patches for it, and without its source in Debian.
fn companion(kernel: Kernel, cpu: Cpu) -> Result<Option<PathBuf>> {
    if cpu == Cpu::Amd || !patches::has_module(kernel) {
        return Ok(None);
    }
    patches::module(kernel, Flavour::Companion).map(Some)
}

fn machine(kernel: Kernel, cpu: Cpu, add: Vec<PathBuf>) -> Machine {
    let out = build::target_dir().join(format!("lab/kernels/{}-{kernel}", cpu.name()));
    let timeout = Duration::from_secs(900);
    Machine { cpu, kernel, add, out: Some(out), timeout, quiet: true, ..Machine::default() }
}

/// Boots a machine without old results in its folder.
fn boot(machine: &Machine) -> Result<lab::Outcome> {
    lab::install(machine.cpu)?;
    if let Some(out) = machine.out.as_deref().filter(|out| Path::exists(out)) {
        fs::remove_dir_all(out).with_context(|| format!("empty folder {}", out.display()))?;
    }
    lab::run(machine, figures::SCRIPT)
}
