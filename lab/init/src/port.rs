//! The parallel port, through which the guest reports to the host. Both emulators append a byte to a file at each
//! strobe.

use lab_init::frame::Frame;
use std::io;

/// The first parallel port of a PC.
#[derive(Debug)]
pub struct Port(());

const DATA: u16 = 0x378;
const CONTROL: u16 = 0x37a;
/// Printer selected and not in reset.
const IDLE: u8 = 0x0c;
const STROBE: u8 = 0x0d;

impl Port {
    /// Gets access to the port's registers.
    pub fn open() -> io::Result<Port> {
        // SAFETY: ioperm touches no memory. It grants access to the three registers of the port, which nothing else in
        // this system uses.
        if unsafe { libc::ioperm(DATA.into(), 3, 1) } < 0 {
            return Err(io::Error::last_os_error());
        }
        out(CONTROL, IDLE);
        Ok(Port(()))
    }

    /// Sends one frame.
    pub fn send(&mut self, frame: &Frame) {
        for byte in frame.encode() {
            out(DATA, byte);
            out(CONTROL, STROBE);
            out(CONTROL, IDLE);
        }
    }
}

fn out(port: u16, value: u8) {
    // SAFETY: `out` touches no memory. Callers pass registers of the parallel port only, to which `Port::open` has
    // access.
    unsafe { std::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
}
