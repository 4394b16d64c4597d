//! Writes an initramfs: a cpio archive in the kernel's "newc" format, with the same bytes for the same input.

use std::collections::BTreeSet;

/// An archive to which files are added; it adds their folders itself.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

const FOLDER: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

impl Archive {
    /// Adds a file that everybody may read and execute.
    pub(crate) fn file(&mut self, path: &str, content: &[u8]) {
        self.folders_of(path);
        self.entry(path, EXECUTABLE, (0, 0), content);
    }

    /// Adds an empty folder, unless it is there already.
    pub(crate) fn folder(&mut self, path: &str) {
        self.folders_of(&format!("{path}/"));
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.folders_of(path);
        self.entry(path, LINK, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.folders_of(path);
        self.entry(path, CHARACTER_DEVICE, (major, minor), &[]);
    }

    /// Returns the complete archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entries = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn folders_of(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            if self.folders.insert(path[..end].to_owned()) {
                self.entry(&path[..end], FOLDER, (0, 0), &[]);
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let (owner, group, links, time, checksum) = (0, 0, 1, 0, 0);
        let name_size = path.len() as u32 + 1;
        let header = [
            self.entries,
            mode,
            owner,
            group,
            links,
            time,
            content.len() as u32,
            0,
            0,
            major,
            minor,
            name_size,
            checksum,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in header {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn archive() -> Vec<u8> {
        let mut archive = Archive::default();
        archive.file("bin/tool", b"12345");
        archive.device("bin/console", 5, 1);
        archive.finish()
    }

    #[test]
    fn the_bytes_follow_the_newc_format() {
        let mut one = Archive::default();
        one.file("ab", b"xyz");
        let fields = [1, 0o100_755, 0, 0, 1, 0, 3, 0, 0, 0, 0, 3, 0];
        let header: String = fields.iter().map(|field| format!("{field:08x}")).collect();
        assert_eq!(one.bytes, [b"070701", header.as_bytes(), b"ab\0\0\0\0", b"xyz\0"].concat()[..]);
        assert_eq!(archive(), archive());
    }

    #[test]
    fn cpio_lists_the_added_files_with_their_modes() {
        let Ok(mut cpio) =
            Command::new("cpio").args(["-itv", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        else {
            eprintln!("SKIPPED: cpio is not installed");
            return;
        };
        cpio.stdin.take().unwrap().write_all(&archive()).unwrap();
        let listing = String::from_utf8(cpio.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<_> = listing.lines().collect();
        assert_eq!(lines.len(), 3, "{listing}");
        assert!(lines[0].starts_with("drwxr-xr-x") && lines[0].ends_with("bin"), "{listing}");
        assert!(
            lines[1].starts_with("-rwxr-xr-x") && lines[1].contains(" 5 Jan") && lines[1].ends_with("bin/tool"),
            "{listing}"
        );
        assert!(lines[2].starts_with("crw-------") && lines[2].contains("5,   1"), "{listing}");
    }
}
