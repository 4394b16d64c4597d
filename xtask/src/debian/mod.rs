//! Debian as the source of kernels and tools: installs missing packages, unpacks others into a cache.

mod apt;
mod archive;
mod cache;
mod index;
mod kernel;
mod series;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::debian::{
    apt::{Offer, offers},
    index::Package,
};
pub(crate) use crate::debian::{
    cache::{cache_dir, cached},
    kernel::Offered,
    series::Kernel,
};

/// A command in `PATH` or the path of a file, and the package that provides it.
pub(crate) type Need = (&'static str, &'static str);

/// A package whose files are unpacked but not installed.
#[derive(Clone, Debug)]
pub(crate) struct Unpacked {
    /// Name of the package.
    pub(crate) package: String,
    /// The folder that stands for `/`.
    pub(crate) root: PathBuf,
}

impl Unpacked {
    /// Returns the first of these paths that exists in the package; Debian has moved some files between releases.
    pub(crate) fn file(&self, paths: &[&str]) -> Result<PathBuf> {
        let found = paths.iter().map(|path| self.root.join(path)).find(|path| path.exists());
        found.with_context(|| format!("find {} in package {}", paths.join(" or "), self.package))
    }
}

/// Folder of unpacked packages in the cache; each lies in `PACKAGE_VERSION`.
const PACKAGES: &str = "packages";

/// Installs the packages of the needs that this machine lacks.
pub(crate) fn install(needs: &[(&str, &str)]) -> Result<()> {
    let mut packages: Vec<_> =
        needs.iter().filter(|(name, _)| !apt::is_present(name)).map(|&(_, package)| package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    eprintln!("installing with apt-get: {}", packages.join(" "));
    apt::install(&packages)
}

/// Installs packages, or upgrades them to the newest version that Debian offers.
pub(crate) fn upgrade(packages: &[&str]) -> Result<()> {
    eprintln!("upgrading with apt-get: {}", packages.join(" "));
    apt::install(packages)
}

/// Whether this machine has a command, or its apt offers the package of the same name.
pub(crate) fn is_offered(command: &str) -> Result<bool> {
    if apt::is_present(command) {
        return Ok(true);
    }
    // Every list has make: without it, none was ever asked for.
    let mut found = offers(&[command, "make"])?;
    if found.is_empty() {
        apt::update_lists()?;
        found = offers(&[command])?;
    }
    Ok(found.iter().any(|offer| offer.package == command))
}

/// Returns a folder with packages of a release of Debian, and with all packages that they depend on: unpacked, not set
/// up.
pub(crate) fn root(release: &str, packages: &[&str]) -> Result<PathBuf> {
    cached(&format!("roots/{release}_{}", packages.join("_")), |folder| {
        let root = folder.join("root");
        fs::create_dir(&root).with_context(|| format!("create folder {}", root.display()))?;
        for archive in archive::download(release, packages, &folder.join("archives"))? {
            apt::unpack_archive(&archive, &root)?;
        }
        Ok(root)
    })
}

/// Returns the newest kernel of each series that Debian's suites offer, from old to new.
pub(crate) fn kernels() -> Result<Vec<Offered>> {
    Ok(kernel::newest_of_each(&archive::packages()?, &home()))
}

/// Returns the newest kernel of a series. The error of a series that no suite offers lists those that are offered.
pub(crate) fn offered(series: Kernel) -> Result<Offered> {
    kernel::newest(&archive::packages()?, series, &home())
}

/// Returns the reason why a series cannot be had from Debian's suites: none of them offers it any more. None if one does.
pub(crate) fn withdrawn(series: Kernel) -> Result<Option<String>> {
    let newest = kernel::newest(&archive::packages()?, series, &home());
    Ok(newest.err().map(|error| error.to_string()))
}

/// Returns the newest kernel of a series that Debian's suites offer, unpacked. No version is pinned because Debian
/// withdraws superseded ones. Without a network, returns the newest one in the cache.
pub(crate) fn newest_kernel(series: Kernel) -> Result<Unpacked> {
    let fetched = match archive::packages() {
        Ok(packages) => {
            let offered = kernel::newest(&packages, series, &home())?;
            fetch_kernel(&packages, &offered).or_else(|error| {
                eprintln!("note: {error:#}");
                let packages = archive::packages_now()?;
                fetch_kernel(&packages, &kernel::newest(&packages, series, &home())?)
            })
        }
        Err(error) => Err(error),
    };
    fetched.or_else(|error| {
        let cached = newest_cached(|name| kernel::series_of(name) == Some(series))?;
        let cached = cached.with_context(|| format!("{error:#}"))?;
        eprintln!("note: using {} from the cache: {error:#}", cached.package);
        Ok(cached)
    })
}

fn fetch_kernel(packages: &[Package], kernel: &Offered) -> Result<Unpacked> {
    let package = kernel.image();
    let root = cached(&format!("{PACKAGES}/{package}_{}", kernel.version), |folder| {
        let root = folder.join("root");
        fs::create_dir(&root).with_context(|| format!("create folder {}", root.display()))?;
        kernel::parts(packages, kernel).iter().try_for_each(|part| part.unpack(&root))?;
        Ok(root)
    })?;
    Ok(Unpacked { package, root })
}

/// Returns the name of the release of Debian that runs here: `bookworm`; empty on other systems.
fn home() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.unwrap_or_default().trim_matches('"').to_owned()
}

/// Returns a package of any version, unpacked: the newest one in the cache, else the one that apt offers.
pub(crate) fn unpacked(package: &str) -> Result<Unpacked> {
    if let Some(cached) = newest_cached(|name| name == package)? {
        return Ok(cached);
    }
    apt::with_fresh_lists(|| {
        let offer = offers(&[package])?.pop();
        fetch(&offer.with_context(|| format!("find package {package}: apt does not offer it"))?)
    })
}

/// Returns a package of any version, unpacked into one folder with all packages that it depends on and `is_wanted`.
pub(crate) fn unpacked_with_dependencies(package: &str, is_wanted: fn(&str) -> bool) -> Result<Unpacked> {
    let name = format!("{package}+dependencies");
    if let Some(cached) = newest_cached(|cached| cached == name)? {
        return Ok(cached);
    }
    apt::with_fresh_lists(|| {
        let names = apt::dependencies(package)?;
        let names: Vec<_> = names.iter().map(String::as_str).filter(|name| is_wanted(name)).collect();
        let all = offers(&names)?;
        let of_package = all.iter().find(|offer| offer.package == package);
        let version = &of_package.with_context(|| format!("find package {package}: apt does not offer it"))?.version;
        let root = cached(&format!("{PACKAGES}/{name}_{version}"), |folder| {
            let root = folder.join("root");
            all.iter().try_for_each(|offer| offer.unpack(&root))?;
            Ok(root)
        })?;
        Ok(Unpacked { package: name.clone(), root })
    })
}

/// Downloads one exact version of a package of the kernel from any of Debian's suites, and unpacks it over `root`, which
/// need not be empty.
pub(crate) fn unpack_version(package: &str, version: &str, root: &Path) -> Result<()> {
    let unpack = |packages: Vec<Package>| {
        let found = packages.into_iter().find(|found| found.name == package && found.version == version);
        found.with_context(|| format!("find package {package} {version}: none of Debian's suites has it"))?.unpack(root)
    };
    unpack(archive::packages()?).or_else(|error| {
        eprintln!("note: {error:#}");
        unpack(archive::packages_now()?)
    })
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
    let newest = versions.reduce(|a, b| if apt::compare(&a.0, &b.0).is_lt() { b } else { a });
    Ok(newest.map(|(_, unpacked)| unpacked))
}

fn fetch(offer: &Offer) -> Result<Unpacked> {
    let Offer { package, version, .. } = offer;
    let root = cached(&format!("{PACKAGES}/{package}_{version}"), |folder| {
        let root = folder.join("root");
        offer.unpack(&root)?;
        Ok(root)
    })?;
    Ok(Unpacked { package: package.clone(), root })
}
