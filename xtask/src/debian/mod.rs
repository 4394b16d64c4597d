//! Debian as the source of kernels and tools: installs what is missing, unpacks packages into a cache.

pub mod package;

use anyhow::{Context, Result, bail, ensure};
use std::cmp::Ordering;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Something a task needs: a command in `PATH` or the path of a file, and the package that brings it.
pub type Need = (&'static str, &'static str);

/// A binary package that apt offers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Offer {
    package: String,
    version: String,
    sha256: String,
}

/// A package's files, unpacked and not installed.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The package's name.
    pub package: String,
    /// The folder that stands for `/`.
    pub root: PathBuf,
}

impl Unpacked {
    /// The first of these files that the package has: Debian has moved some.
    pub fn file(&self, paths: &[&str]) -> Result<PathBuf> {
        let found = paths.iter().map(|path| self.root.join(path)).find(|path| path.exists());
        found.with_context(|| format!("find {} in package {}", paths.join(" or "), self.package))
    }
}

/// Where unpacked packages and what is derived from them are kept between runs.
pub fn cache_dir() -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").context("find cache folder: set HOME or XDG_CACHE_HOME")?)
            .join(".cache"),
    };
    Ok(cache.join("vmentry"))
}

/// The path `name` in the cache. When it is not there, `make` makes it in an empty folder and returns what to move there: nobody ever
/// sees half of it.
pub fn cached(name: &str, make: impl FnOnce(&Path) -> Result<PathBuf>) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let path = cache.join(name);
    if path.exists() {
        return Ok(path);
    }
    let parent = path.parent().unwrap_or(&cache);
    fs::create_dir_all(parent).with_context(|| format!("create folder {}", parent.display()))?;
    let partial = Partial::create(&cache)?;
    let made = make(&partial.0)?;
    match fs::rename(&made, &path) {
        // Another run was faster.
        Err(_) if path.exists() => Ok(path),
        result => result.map(|()| path).with_context(|| format!("rename {}", made.display())),
    }
}

/// A folder of this process that goes away with it.
struct Partial(PathBuf);

impl Partial {
    fn create(cache: &Path) -> Result<Partial> {
        // Those of processes that were killed.
        for entry in fs::read_dir(cache).with_context(|| format!("read folder {}", cache.display()))?.flatten() {
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.strip_prefix(PARTIAL));
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let folder = cache.join(format!("{PARTIAL}{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("create folder {}", folder.display()))?;
        Ok(Partial(folder))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PARTIAL: &str = ".partial-";
/// The folder of unpacked packages in the cache: `PACKAGE_VERSION`.
const PACKAGES: &str = "packages";

/// Installs the packages of those needs that this machine does not meet.
pub fn install(needs: &[Need]) -> Result<()> {
    let mut packages: Vec<_> =
        needs.iter().filter(|(name, _)| !is_present(name)).map(|&(_, package)| package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    eprintln!("installing with apt-get: {}", packages.join(" "));
    let mut arguments = vec!["-q", "-o", "DPkg::Lock::Timeout=300", "install", "-y", "--no-install-recommends"];
    arguments.extend(&packages);
    if offers(&packages)?.len() < packages.len() {
        as_root("apt-get", &["-q", "update"]).context("update package lists")?;
    }
    as_root("apt-get", &arguments).with_context(|| format!("install packages {}", packages.join(" ")))
}

/// The newest kernel package of a series (`6.1`, `6.12`) that apt offers now, unpacked. Debian withdraws superseded ones, so none
/// is pinned; without a network the newest one in the cache serves.
pub fn newest_kernel(series: &str) -> Result<Unpacked> {
    with_fresh_lists(|| fetch(&offered_kernel(series)?)).or_else(|error| {
        let cached = newest_cached(|name| is_kernel(name, series))?.with_context(|| format!("{error:#}"))?;
        eprintln!("note: using {} from the cache: {error:#}", cached.package);
        Ok(cached)
    })
}

/// The files of a package of which any version will do; unpacked when the cache has none.
pub fn unpacked(package: &str) -> Result<Unpacked> {
    if let Some(cached) = newest_cached(|name| name == package)? {
        return Ok(cached);
    }
    with_fresh_lists(|| {
        let offer = offers(&[package])?.pop();
        fetch(&offer.with_context(|| format!("find package {package}: apt does not offer it"))?)
    })
}

/// Tries again after `apt-get update`: with old lists apt asks for files that Debian has removed.
fn with_fresh_lists<T>(get: impl Fn() -> Result<T>) -> Result<T> {
    get().or_else(|error| {
        eprintln!("note: {error:#}; updating the package lists");
        as_root("apt-get", &["-q", "update"]).context("update package lists")?;
        get()
    })
}

fn offered_kernel(series: &str) -> Result<Offer> {
    let names = output(Command::new("apt-cache").args(["pkgnames", &format!("linux-image-{series}")]))?;
    let names: Vec<_> = names.lines().filter(|name| is_kernel(name, series)).collect();
    let newest = offers(&names)?.into_iter().reduce(|a, b| if compare(&a.version, &b.version).is_lt() { b } else { a });
    newest.with_context(|| format!("find kernel {series}: apt offers no linux-image-{series}.*-amd64"))
}

fn newest_cached(is_wanted: impl Fn(&str) -> bool) -> Result<Option<Unpacked>> {
    let folder = cache_dir()?.join(PACKAGES);
    let names =
        fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let versions = names.filter_map(|name| {
        let (package, version) = name.split_once('_')?;
        is_wanted(package)
            .then(|| (version.to_owned(), Unpacked { package: package.to_owned(), root: folder.join(&name) }))
    });
    let newest = versions.reduce(|a, b| if compare(&a.0, &b.0).is_lt() { b } else { a });
    Ok(newest.map(|(_, unpacked)| unpacked))
}

/// Whether a package is the kernel of a series in the flavour that the lab boots: of 6.1 the plain one, of later ones (which come
/// as backports, e.g. `6.12.117+deb12`) the smaller cloud one. Both have kvm-intel and kvm-amd.
fn is_kernel(package: &str, series: &str) -> bool {
    let Some(rest) = package.strip_prefix("linux-image-").and_then(|rest| rest.strip_prefix(series)) else {
        return false;
    };
    let Some(rest) = rest.strip_prefix('.').and_then(|rest| rest.strip_suffix("-amd64")) else { return false };
    match series {
        "6.1" => rest.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-')),
        _ => rest.strip_suffix("-cloud").is_some_and(|rest| rest.contains("+deb") && !rest.contains('-')),
    }
}

/// What apt would install of these packages; those it does not know are left out.
fn offers(packages: &[&str]) -> Result<Vec<Offer>> {
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

fn compare(a: &str, b: &str) -> Ordering {
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

fn fetch(offer: &Offer) -> Result<Unpacked> {
    let Offer { package, version, sha256 } = offer;
    let root = cached(&format!("{PACKAGES}/{package}_{version}"), |folder| {
        eprintln!("downloading {package} {version}");
        // apt would drop root for a user that may not write here; the hash is checked below in any case.
        let download = ["-q", "-o", "APT::Sandbox::User=root", "download", &format!("{package}={version}")];
        output(Command::new("apt-get").args(download).current_dir(folder))?;
        let mut files = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
        let archive = files.next().with_context(|| format!("download package {package}: apt-get left no file"))?;
        // From stdin: there is no name then that would be escaped.
        let sum = output(Command::new("sha256sum").stdin(File::open(&archive)?))?;
        let sum = sum.split(' ').next().unwrap_or_default();
        ensure!(sum == sha256, "verify package {package}: its SHA256 is {sum}, apt's lists say {sha256}");
        let root = folder.join("root");
        output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&root))?;
        Ok(root)
    })?;
    Ok(Unpacked { package: package.clone(), root })
}

/// Runs a command as root, its talk on stderr.
fn as_root(program: &str, arguments: &[&str]) -> Result<()> {
    // SAFETY: geteuid has no preconditions.
    let is_root = unsafe { libc::geteuid() } == 0;
    let by_hand = format!("sudo {program} {}", arguments.join(" "));
    let mut command = Command::new(if is_root { program } else { "sudo" });
    if !is_root {
        ensure!(is_present("sudo"), "become root: no sudo; run as root: {program} {}", arguments.join(" "));
        command.arg(program);
    }
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(std::io::stderr());
    let status = command
        .status()
        .with_context(|| format!("run {program}; on other systems than Debian get the packages by hand"))?;
    ensure!(status.success(), "{status}; run by hand and see: {by_hand}");
    Ok(())
}

/// Runs a command quietly and returns its stdout; its stderr becomes the error.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("run {program}: {}: {}", output.status, said.trim().lines().last().unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether a file exists, or a command is in `PATH` (or where system commands are).
fn is_present(name: &str) -> bool {
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
    fn kernels_are_told_from_their_flavours() {
        assert!(is_kernel("linux-image-6.1.0-56-amd64", "6.1"));
        assert!(is_kernel("linux-image-6.12.117+deb12-cloud-amd64", "6.12"));
        assert!(is_kernel("linux-image-6.12.94+deb13-cloud-amd64", "6.12"));
        for package in [
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-56-rt-amd64",
            "linux-image-6.1.0-56-amd64-dbg",
            "linux-image-6.1.0-56-amd64-unsigned",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.1-amd64",
        ] {
            assert!(!is_kernel(package, "6.1"), "{package}");
        }
        for package in [
            "linux-image-6.12.117+deb12-amd64",
            "linux-image-6.12.117+deb12-rt-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64-unsigned",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.1.0-56-amd64",
        ] {
            assert!(!is_kernel(package, "6.12"), "{package}");
        }
    }

    #[test]
    fn offers_are_read_from_apts_stanzas() {
        let stanzas =
            "Package: a\nVersion: 1:2.0-3\nDescription: x\n SHA256: no\nSHA256: 00ff\n\nPackage: b\nVersion: 1\n\n";
        let a = Offer { package: "a".into(), version: "1:2.0-3".into(), sha256: "00ff".into() };
        assert_eq!(parse_offers(stanzas), [a], "a stanza without a hash is no offer");
        assert!(parse_offers("").is_empty());
    }
}
