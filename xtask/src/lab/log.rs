//! The log of a machine's console, with the messages of its kernel.

use anyhow::{Context, Result};
use std::fs::File;
use std::io::Read;

/// A log that is still being written.
#[derive(Debug)]
pub(crate) struct Log {
    file: File,
    bytes: Vec<u8>,
}

impl Log {
    /// Follows a file that is still being written.
    pub(crate) fn follow(file: File) -> Log {
        Log { file, bytes: Vec::new() }
    }

    /// Reads everything written since the last call.
    pub(crate) fn advance(&mut self) -> Result<()> {
        self.file.read_to_end(&mut self.bytes).context("read console log")?;
        Ok(())
    }

    /// Returns the first line of the kernel's panic, if it has panicked.
    pub(crate) fn panic(&self) -> Option<String> {
        const PANIC: &[u8] = b"Kernel panic";
        let start = self.bytes.windows(PANIC.len()).position(|window| window == PANIC)?;
        String::from_utf8_lossy(&self.bytes[start..]).lines().next().map(str::to_owned)
    }

    /// Returns the last lines that are not empty.
    pub(crate) fn tail(&self, count: usize) -> String {
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
    fn a_panic_is_found() {
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
    fn the_tail_has_the_last_lines_that_are_not_empty() {
        let mut log = log(b"one\r\ntwo\r\n\r\nthree\xff\r\n");
        log.advance().unwrap();
        assert_eq!(log.tail(2), "two\nthree\u{fffd}");
        assert_eq!(log.tail(9), "one\ntwo\nthree\u{fffd}");
    }
}
