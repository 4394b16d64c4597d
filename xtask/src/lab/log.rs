//! The log of a machine's console: what the kernel says.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::Read;

/// A log that is still being written.
#[derive(Debug)]
pub struct Log {
    file: File,
    bytes: Vec<u8>,
}

impl Log {
    /// Follows a file that grows.
    pub fn follow(file: File) -> Log {
        Log { file, bytes: Vec::new() }
    }

    /// Takes in what was written since the last call.
    pub fn advance(&mut self) -> Result<()> {
        self.file.read_to_end(&mut self.bytes).context("read console log")?;
        Ok(())
    }

    /// What the kernel said when it panicked, if it did.
    pub fn panic(&self) -> Option<String> {
        const PANIC: &[u8] = b"Kernel panic";
        let start = self.bytes.windows(PANIC.len()).position(|window| window == PANIC)?;
        String::from_utf8_lossy(&self.bytes[start..]).lines().next().map(str::to_owned)
    }

    /// The last lines that say something.
    pub fn tail(&self, count: usize) -> String {
        let text = String::from_utf8_lossy(&self.bytes).replace('\r', "");
        let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::inherited::Inherited;

    fn log(content: &[u8]) -> Log {
        Log::follow(Inherited::memory(c"log", content).unwrap().reader().unwrap())
    }

    #[test]
    fn a_panic_is_noticed() {
        let panic = |content| {
            let mut log = log(content);
            log.advance().unwrap();
            log.panic()
        };
        assert_eq!(
            panic(b"[ 1.0] Kernel panic - not syncing: x\r\n[ 1.1] CPU").unwrap(),
            "Kernel panic - not syncing: x"
        );
        assert_eq!(panic(b"[ 1.0] all is well"), None);
    }

    #[test]
    fn the_tail_has_the_last_lines_that_say_something() {
        let mut log = log(b"one\r\ntwo\r\n\r\nthree\xff\r\n");
        log.advance().unwrap();
        assert_eq!(log.tail(2), "two\nthree\u{fffd}");
        assert_eq!(log.tail(9), "one\ntwo\nthree\u{fffd}");
    }
}
