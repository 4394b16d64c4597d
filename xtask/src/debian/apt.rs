//! Calls apt and dpkg.

use std::{
    cmp::Ordering,
    fs::{self, File},
    path::Path,
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, ensure};

use crate::{
    debian::cache::cache_dir,
    process::{self, output},
};

/// A binary package that apt offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) package: String,
    pub(super) version: String,
    /// SHA256 of the archive, in hexadecimal, from apt's signed lists.
    sha256: String,
}

impl Offer {
    /// Downloads the package, verifies it and unpacks it over `root`.
    pub(super) fn unpack(&self, root: &Path) -> Result<()> {
        let Offer { package, version, sha256 } = self;
        eprintln!("downloading {package} {version}");
        let folder = tempfile::tempdir_in(root.parent().unwrap_or(root)).context("create folder for a download")?;
        // apt would drop root and then could not write here; the hash is verified below in any case.
        let download = ["-q", "-o", "APT::Sandbox::User=root", "download", &format!("{package}={version}")];
        output(Command::new("apt-get").args(download).current_dir(&folder))
            .with_context(|| format!("download package {package} {version}"))?;
        let archive = fs::read_dir(&folder)?.find_map(|entry| Some(entry.ok()?.path()));
        let archive = archive.with_context(|| format!("download package {package}: apt-get left no file"))?;
        unpack_verified(&archive, package, sha256, root)
    }
}

/// Unpacks a package's archive over `root` if it has this hash.
pub(super) fn unpack_verified(archive: &Path, package: &str, sha256: &str, root: &Path) -> Result<()> {
    let sum = sha256_of(File::open(archive).with_context(|| format!("open {}", archive.display()))?)?;
    ensure!(sum == sha256, "verify package {package}: its SHA256 is {sum}, in the signed lists it is {sha256}");
    unpack_archive(archive, root)
}

/// Unpacks a package's archive, which has been verified, over `root`.
pub(super) fn unpack_archive(archive: &Path, root: &Path) -> Result<()> {
    let unpacked = output(Command::new("dpkg-deb").arg("-x").arg(archive).arg(root));
    unpacked.map(|_| ()).with_context(|| format!("unpack package {}", archive.display()))
}

/// Returns the SHA256 of a file, in hexadecimal.
fn sha256_of(file: File) -> Result<String> {
    // Read from stdin, because sha256sum escapes some file names in its output.
    let sum = Command::new("sha256sum").stdin(file).output().context("run sha256sum")?;
    let sum = String::from_utf8_lossy(&sum.stdout).into_owned();
    Ok(sum.split(' ').next().unwrap_or_default().to_owned())
}

/// Installs the newest versions of packages, or upgrades them, after updating the lists: those of a machine's image may
/// be months old, name files that Debian has removed, and versions that are too old.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    static UPDATED: OnceLock<()> = OnceLock::new();
    UPDATED.get_or_init(|| {
        if let Err(error) = update_lists() {
            eprintln!("note: {error:#}; installing from the lists of this machine");
        }
    });
    let mut arguments = vec!["-q", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    run_as_root("apt-get", &arguments).with_context(|| format!("install packages {}", packages.join(" ")))
}

/// Calls `get` again after `apt-get update` if it fails: old lists name files that Debian has removed.
pub(super) fn with_fresh_lists<T>(get: impl Fn() -> Result<T>) -> Result<T> {
    get().or_else(|error| {
        eprintln!("note: {error:#}; updating the package lists");
        update_lists()?;
        get()
    })
}

pub(super) fn update_lists() -> Result<()> {
    // apt waits for no other that updates the lists, as another step of the test may.
    let cache = cache_dir()?;
    fs::create_dir_all(&cache).with_context(|| format!("create folder {}", cache.display()))?;
    let path = cache.join("apt-lists.lock");
    let lock = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    lock.lock().with_context(|| format!("lock {}", path.display()))?;
    run_as_root("apt-get", &["-q", "update"]).context("update package lists")
}

/// Returns the names of a package and of everything that it depends on, directly or not.
pub(super) fn dependencies(package: &str) -> Result<Vec<String>> {
    let only =
        ["recommends", "suggests", "conflicts", "breaks", "replaces", "enhances"].map(|kind| format!("--no-{kind}"));
    let list = output(Command::new("apt-cache").args(["depends", "--recurse"]).args(only).arg(package))?;
    Ok(parse_dependencies(&list))
}

/// Packages stand at the beginning of a line, their dependencies are indented.
fn parse_dependencies(list: &str) -> Vec<String> {
    let is_package = |line: &&str| line.starts_with(|first: char| first.is_ascii_alphanumeric());
    list.lines().filter(is_package).map(str::to_owned).collect()
}

/// Returns the version of each package that apt would install. Packages that apt does not know are missing in the
/// result.
pub(super) fn offers(packages: &[&str]) -> Result<Vec<Offer>> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let show = Command::new("apt-cache").args(["show", "--no-all-versions"]).args(packages).output();
    let show = show.context("run apt-cache: the lab takes kernels and emulators from Debian")?;
    Ok(parse_offers(&String::from_utf8_lossy(&show.stdout)))
}

fn parse_offers(stanzas: &str) -> Vec<Offer> {
    let offer = |stanza: &str| {
        let field =
            |name| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
        Some(Offer { package: field("Package")?, version: field("Version")?, sha256: field("SHA256")? })
    };
    stanzas.split("\n\n").filter_map(offer).collect()
}

/// Compares two versions as dpkg does.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let holds = |relation| {
        Command::new("dpkg").args(["--compare-versions", a, relation, b]).status().is_ok_and(|status| status.success())
    };
    if holds("lt") {
        Ordering::Less
    } else if holds("gt") {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}

/// Runs a command as root, with sudo if needed, its stdout on stderr.
fn run_as_root(program: &str, arguments: &[&str]) -> Result<()> {
    let is_root = process::is_root();
    let by_hand = format!("sudo {program} {}", arguments.join(" "));
    let mut command = Command::new(if is_root { program } else { "sudo" });
    if !is_root {
        ensure!(is_present("sudo"), "become root: no sudo; run as root: {program} {}", arguments.join(" "));
        command.arg(program);
    }
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(std::io::stderr());
    let status = command
        .status()
        .with_context(|| format!("run {program}; on other systems than Debian install the packages by hand"))?;
    ensure!(status.success(), "{status}; to see the error run by hand: {by_hand}");
    Ok(())
}

/// Whether a path exists, or a command is in `PATH` or in a folder of system commands.
pub(super) fn is_present(name: &str) -> bool {
    if name.contains('/') {
        return Path::new(name).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|folder| folder.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_read_from_a_stanza_with_version_and_hash() {
        let stanzas =
            "Package: a\nVersion: 1:2.0-3\nDescription: x\n SHA256: no\nSHA256: 00ff\n\nPackage: b\nVersion: 1\n\n";
        let a = Offer { package: "a".into(), version: "1:2.0-3".into(), sha256: "00ff".into() };
        assert_eq!(parse_offers(stanzas), [a], "a stanza without a hash is no offer");
        assert!(parse_offers("").is_empty());
    }

    #[test]
    fn packages_are_told_from_the_indented_names_of_what_they_need() {
        let list = "qemu\n  Depends: libc6\n |Depends: a\n    b\nlibc6\n<virtual>\n  Depends: libgcc-s1\n";
        assert_eq!(parse_dependencies(list), ["qemu", "libc6"]);
    }

    #[test]
    fn a_hash_is_that_of_the_content() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256_of(File::open("/dev/null").unwrap()).unwrap(), empty);
    }
}
