//! Debian's suites, asked by an apt configuration of its own: the system's lists stay as they are.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};

use crate::{
    debian::{
        apt,
        cache::cache_dir,
        index::{self, Package},
    },
    process::output,
};

/// The suites on a mirror of Debian, and those of the security archive, from old to new.
const SUITES: [&str; 9] = [
    "bullseye",
    "bookworm",
    "bookworm-updates",
    "bookworm-backports",
    "trixie",
    "trixie-updates",
    "trixie-backports",
    "sid",
    "experimental",
];
const SECURITY_SUITES: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const HELPER: &str = "/usr/lib/apt/apt-helper";
/// Age at which lists are asked for again.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The kernel packages that Debian's suites offer, by lists that are at most a day old. Without a network, older lists
/// do.
pub(super) fn packages() -> Result<Vec<Package>> {
    let archive = Archive::open()?;
    if !archive.is_fresh() {
        let refreshed = archive.refresh();
        if let Err(error) = refreshed {
            ensure!(archive.reduced().exists(), "{error:#}");
            eprintln!("note: using old lists of Debian's suites: {error:#}");
        }
    }
    archive.packages()
}

/// The kernel packages by lists that are asked for now: old lists name files that Debian has removed.
pub(super) fn packages_now() -> Result<Vec<Package>> {
    let archive = Archive::open()?;
    archive.refresh()?;
    archive.packages()
}

impl Package {
    /// Downloads the package, verifies it and unpacks it over `root`, which need not be empty.
    pub(super) fn unpack(&self, root: &Path) -> Result<()> {
        let Package { name, version, suite, .. } = self;
        eprintln!("downloading {name} {version} of {suite}");
        let folder = tempfile::tempdir_in(root.parent().unwrap_or(root)).context("create folder for a download")?;
        let file = folder.path().join("package.deb");
        let mut helper = Archive::open()?.command(HELPER);
        helper.args(["-q", "download-file", &self.uri]).arg(&file).arg(format!("SHA256:{}", self.sha256));
        output(&mut helper).with_context(|| format!("download package {name} {version}"))?;
        apt::unpack_verified(&file, name, &self.sha256, root)
    }
}

/// Downloads packages of a release, and all packages that they depend on, to a folder. apt verifies them by the signed
/// lists. Returns the archives.
pub(super) fn download(release: &str, packages: &[&str], folder: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder.join("partial")).with_context(|| format!("create folder {}", folder.display()))?;
    // Asks for lists if they are old.
    self::packages()?;
    eprintln!("downloading {} of {release}, and what they depend on: about 70 MB", packages.join(" "));
    let archive = Archive::open()?;
    let download = || {
        let mut install = archive.command("apt-get");
        install.args(["-q", "-y", "--no-install-recommends", "--download-only", "-o"]);
        install.arg(format!("APT::Default-Release={release}"));
        let mut setting = OsString::from("Dir::Cache::archives=");
        setting.push(folder);
        install.arg("-o").arg(setting).arg("install").args(packages);
        output(&mut install).with_context(|| format!("download packages of {release}"))
    };
    download().or_else(|error| {
        eprintln!("note: {error:#}");
        archive.refresh()?;
        download()
    })?;
    let files = fs::read_dir(folder).with_context(|| format!("read folder {}", folder.display()))?;
    let archives = files.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(archives.filter(|path| path.extension().is_some_and(|suffix| suffix == "deb")).collect())
}

/// The folder of lists and settings, locked against other processes.
struct Archive {
    folder: PathBuf,
    /// Locked until it is closed.
    _lock: File,
}

impl Archive {
    fn open() -> Result<Archive> {
        let folder = cache_dir()?.join("suites");
        for path in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(path)).with_context(|| format!("create folder {path}"))?;
        }
        let lock = File::create(folder.join("lock")).context("create lock of Debian's suites")?;
        lock.lock().context("lock lists of Debian's suites")?;
        Ok(Archive { folder, _lock: lock })
    }

    /// The file of the kernel packages of all suites.
    fn reduced(&self) -> PathBuf {
        self.folder.join("packages")
    }

    fn is_fresh(&self) -> bool {
        let changed = fs::metadata(self.reduced()).and_then(|metadata| metadata.modified());
        changed.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < DAY))
    }

    fn packages(&self) -> Result<Vec<Package>> {
        let path = self.reduced();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(index::packages(&text))
    }

    /// Returns a command of apt that sees these suites only.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::Etc::sourcelist", self.folder.join("sources.list")),
            ("Dir::State::lists", self.folder.join("lists")),
            ("Dir::State::status", self.folder.join("status")),
            ("Dir::Cache", self.folder.join("cache")),
            ("Dir::Etc::sourceparts", "-".into()),
            // apt's own caches of the lists: hundreds of megabytes that are read once.
            ("Dir::Cache::pkgcache", "".into()),
            ("Dir::Cache::srcpkgcache", "".into()),
            // apt would drop root and then could not write here; it verifies every file in any case.
            ("APT::Sandbox::User", "root".into()),
        ] {
            let mut setting = OsString::from(format!("{option}="));
            setting.push(value);
            command.arg("-o").arg(setting);
        }
        command
    }

    /// Asks the mirror for the lists of all suites, and keeps the kernel packages.
    fn refresh(&self) -> Result<()> {
        ensure!(Path::new(KEYRING).exists(), "find Debian's keys: install package debian-archive-keyring");
        let mirrors = mirrors(&uris_of_system()?)?;
        eprintln!("asking Debian's suites for their kernels: about 40 MB of lists, at most once a day");
        let sources = self.folder.join("sources.list");
        fs::write(&sources, mirrors.sources()).with_context(|| format!("write {}", sources.display()))?;
        fs::write(self.folder.join("status"), "").context("write status of packages")?;
        // It fails if one suite is gone; the others are there nevertheless.
        let updated = output(self.command("apt-get").args(["-q", "update"]));
        let targets = ["indextargets", "--format", "$(RELEASE) $(REPO_URI) $(FILENAME)", "Created-By: Packages"];
        let targets = output(self.command("apt-get").args(targets)).context("find lists of Debian's suites")?;
        let mut reduced = String::new();
        for target in targets.lines() {
            let mut words = target.splitn(3, ' ');
            let (Some(suite), Some(repository), Some(file)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let list = output(self.command(HELPER).args(["cat-file", file]))
                .with_context(|| format!("read list of suite {suite}"))?;
            reduced += &index::reduced(&list, suite, repository);
        }
        if let Err(error) = updated {
            // Lists that are there may be old.
            ensure!(!reduced.is_empty() && targets.lines().count() > 1, "{error:#}");
            eprintln!("note: not every suite of Debian could be asked: {error:#}");
        }
        let partial = self.folder.join("packages.partial");
        fs::write(&partial, reduced).with_context(|| format!("write {}", partial.display()))?;
        fs::rename(&partial, self.reduced()).context("rename list of kernel packages")
    }
}

/// The addresses of Debian's archives.
#[derive(Debug, PartialEq, Eq)]
struct Mirrors {
    debian: String,
    /// None if the machine's sources name no security archive.
    security: Option<String>,
}

impl Mirrors {
    /// Returns a sources.list of all suites.
    fn sources(&self) -> String {
        let security = self.security.iter().flat_map(|uri| SECURITY_SUITES.map(|suite| (uri, suite)));
        let lines = SUITES.map(|suite| (&self.debian, suite)).into_iter().chain(security);
        let line = |(uri, suite)| format!("deb [arch=amd64 target=Packages signed-by={KEYRING}] {uri} {suite} main\n");
        lines.map(line).collect()
    }
}

/// Returns the addresses that this machine's apt would ask on an update, from sources in either format.
fn uris_of_system() -> Result<String> {
    let empty = tempfile::tempdir().context("create folder")?;
    let mut setting = OsString::from("Dir::State::lists=");
    setting.push(empty.path());
    let mut update = Command::new("apt-get");
    update.args(["update", "--print-uris", "-o"]).arg(setting);
    output(&mut update).context("read this machine's sources of packages")
}

/// Finds Debian's archives among lines `'URI' FILE SIZE`.
fn mirrors(uris: &str) -> Result<Mirrors> {
    let addresses: BTreeMap<_, _> =
        uris.lines().filter_map(address_and_suite).map(|(uri, suite)| (suite, uri)).collect();
    let of = |suites: &[&str]| suites.iter().rev().find_map(|suite| addresses.get(suite)).map(|uri| (*uri).to_owned());
    let debian =
        of(&SUITES).context("find a mirror of Debian in this machine's sources of packages: none of its suites")?;
    Ok(Mirrors { debian, security: of(&SECURITY_SUITES) })
}

fn address_and_suite(line: &str) -> Option<(&str, &str)> {
    let uri = line.strip_prefix('\'')?.split('\'').next()?;
    uri.strip_suffix("/InRelease")?.rsplit_once("/dists/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_read_from_this_machines_sources() {
        let uris = "'http://mirror/debian/dists/bookworm/InRelease' mirror_x 0 \n\
            'http://mirror/debian/dists/bookworm/main/binary-amd64/Packages.xz' mirror_y 0 \n\
            'https://other/repo/dists/stable/InRelease' other 0 \n\
            'http://safe/debian-security/dists/bookworm-security/InRelease' safe 0 \n";
        let found = mirrors(uris).unwrap();
        assert_eq!(found.debian, "http://mirror/debian");
        let sources = found.sources();
        assert_eq!(sources.lines().count(), 12);
        assert!(sources.contains("] http://mirror/debian trixie-backports main\n"), "{sources}");
        assert!(sources.contains("] http://safe/debian-security trixie-security main\n"), "{sources}");
        assert!(mirrors("'https://other/repo/dists/noble/InRelease' other 0 \n").is_err());
    }
}
