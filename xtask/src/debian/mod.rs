//! Debian as the source of kernels and tools: installs missing packages, unpacks others into a cache.

mod apt;
mod cache;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

pub(crate) use crate::debian::cache::cached;
use crate::debian::{
    apt::{Offer, offers},
    cache::cache_dir,
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
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    let mut packages: Vec<_> =
        needs.iter().filter(|(name, _)| !apt::is_present(name)).map(|&(_, package)| package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    eprintln!("installing with apt-get: {}", packages.join(" "));
    apt::install(&packages)
}

/// Returns the newest kernel package of a series (`6.1`, `6.12`) that apt offers, unpacked. No version is pinned
/// because Debian withdraws superseded ones. Without a network, returns the newest one in the cache.
pub(crate) fn newest_kernel(series: &str) -> Result<Unpacked> {
    apt::with_fresh_lists(|| fetch(&offered_kernel(series)?)).or_else(|error| {
        let cached = newest_cached(|name| is_kernel(name, series))?.with_context(|| format!("{error:#}"))?;
        eprintln!("note: using {} from the cache: {error:#}", cached.package);
        Ok(cached)
    })
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

/// Downloads one exact version of a package and unpacks it over `root`, which need not be empty.
pub(crate) fn unpack_version(package: &str, version: &str, root: &Path) -> Result<()> {
    apt::offer_of_version(package, version)?.unpack(root)
}

fn offered_kernel(series: &str) -> Result<Offer> {
    let names = apt::names_with_prefix(&format!("linux-image-{series}"))?;
    let names: Vec<_> = names.lines().filter(|name| is_kernel(name, series)).collect();
    let newer = |a: Offer, b: Offer| if apt::compare(&a.version, &b.version).is_lt() { b } else { a };
    let newest = offers(&names)?.into_iter().reduce(newer);
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

/// Whether a package is the kernel of a series in the flavour that the lab boots: the plain one of 6.1, the smaller
/// cloud one of later series, which come as backports (`6.12.117+deb12`). Both flavours have kvm-intel and kvm-amd.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flavour_that_the_lab_boots_is_recognized_by_the_packages_name() {
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
}
