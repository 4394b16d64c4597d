//! Packages of one exact version: a module must be built from the very source and headers of its kernel.

use crate::process::output::output;
use anyhow::{Context, Result, ensure};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

/// Downloads a package and unpacks it over `root`.
pub fn unpack(name: &str, version: &str, root: &Path) -> Result<()> {
    let package = format!("{name}={version}");
    eprintln!("downloading {name} {version}");
    let show = output(Command::new("apt-cache").args(["show", &package]))
        .with_context(|| format!("find package {package}: apt offers none; after apt-get update, too?"))?;
    let expected = sha256(&show).with_context(|| format!("find package {package}: apt knows no SHA256"))?;
    let folder = root.with_extension("download");
    fs::create_dir_all(&folder).with_context(|| format!("create folder {}", folder.display()))?;
    // apt would drop root for a user that may not write here; the hash is checked below in any case.
    let download = ["-q", "-o", "APT::Sandbox::User=root", "download", &package];
    output(Command::new("apt-get").args(download).current_dir(&folder))
        .with_context(|| format!("download package {package}"))?;
    let archive = fs::read_dir(&folder)?.find_map(|entry| Some(entry.ok()?.path()));
    let archive = archive.with_context(|| format!("download package {package}: apt-get left no file"))?;
    let sum = sha256_of(File::open(&archive).with_context(|| format!("open {}", archive.display()))?)?;
    ensure!(sum == expected, "verify package {package}: its SHA256 is {sum}, apt's lists say {expected}");
    output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(root))
        .with_context(|| format!("unpack package {package}"))?;
    fs::remove_dir_all(&folder).with_context(|| format!("remove folder {}", folder.display()))
}

/// The SHA256 of a file, in hexadecimal.
pub fn sha256_of(file: File) -> Result<String> {
    // From stdin: there is no name then that would be escaped.
    let sum = Command::new("sha256sum").stdin(file).output().context("run sha256sum")?;
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    Ok(sum.split(' ').next().unwrap_or_default().to_owned())
}

/// The first hash in what `apt-cache show` prints.
fn sha256(stanzas: &str) -> Option<&str> {
    stanzas.lines().find_map(|line| line.strip_prefix("SHA256: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_a_field_of_its_own() {
        assert_eq!(sha256("Package: a\nDescription: x\n SHA256: no\nSHA256: 00ff\n"), Some("00ff"));
        assert_eq!(sha256("Package: a\nDescription-md5: 00\n"), None);
    }

    #[test]
    fn a_hash_is_that_of_the_content() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256_of(File::open("/dev/null").unwrap()).unwrap(), empty);
    }
}
