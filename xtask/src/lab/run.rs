//! Boots a machine and runs a script or a shell in it.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};

use crate::lab::{
    Cpu, Machine, Outcome,
    console::Console,
    emulator::{Emulator, Terminal},
    guest::Guest,
    inherited::Inherited,
    log::Log,
    report::Report,
};

/// Boots a machine, runs a shell script in it and returns its results.
pub(crate) fn run(machine: &Machine, script: &str) -> Result<Outcome> {
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

/// Boots a machine whose console is the user's terminal. Returns the files that are left in `$OUT`.
pub(crate) fn shell(machine: &Machine) -> Result<Outcome> {
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
    eprintln!("booting; exit or Ctrl-D in the shell ends the machine, Ctrl-] kills it");
    let start = Instant::now();
    let mut emulator = Emulator::start(command)?;
    let mut console = Console::open()?;
    let exit_code = loop {
        if !console.exchange(&mut line.near)? {
            break Err(anyhow!("machine killed; files in $OUT are lost"));
        }
        report.advance()?;
        if let Some(code) = report.exit_code() {
            break Ok(code);
        }
        if let Some(status) = emulator.ended()? {
            break Err(anyhow!("run machine: the emulator ended ({status}) before the shell{}", emulator.complaint()));
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

/// Waits until the report is complete, then ends the emulator. It needs no shutdown, because nothing in it is kept.
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
            bail!("run machine: the emulator ended ({status}) before the script{}", emulator.complaint());
        }
        if log.panic().is_some() {
            // The kernel prints the rest of its message; afterwards Bochs would boot again.
            thread::sleep(Duration::from_secs(1));
            log.advance()?;
            bail!("run machine: {}", log.panic().unwrap_or_default());
        }
        if start.elapsed() > timeout {
            bail!(
                "run machine: not finished after {} s; raise --timeout if the script needs longer",
                timeout.as_secs()
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
}
