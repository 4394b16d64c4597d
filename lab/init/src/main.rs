//! PID 1 of the lab's machines: prepares the system, starts a worker that runs the script and reports to the host, and
//! powers off.

mod port;
mod system;
mod worker;

use anyhow::Result;
use lab_init::frame::Frame;
use port::Port;
use std::process::Command;

fn main() {
    let result = if std::process::id() == 1 { boot() } else { worker::run() };
    if let Err(error) = result {
        eprintln!("lab-init: {error:#}");
        if let Ok(mut port) = Port::open() {
            port.send(&Frame::Failure(format!("{error:#}")));
        }
    }
    if std::process::id() == 1 {
        system::power_off();
    }
}

/// Prepares the system, and reaps processes until the worker has ended.
fn boot() -> Result<()> {
    system::prepare()?;
    let worker = Command::new("/init").spawn()?.id();
    system::reap_until(worker);
    Ok(())
}
