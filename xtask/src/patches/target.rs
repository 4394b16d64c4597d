//! The kernel to build a module for: the newest one of a series, or the running one.

use crate::debian::{self, Unpacked};
use crate::lab;
use crate::patches::headers::Headers;
use crate::patches::series::{self, Series};
use crate::process::{filter, output};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel package.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Series, as in the name of linux-source: `6.12`.
    pub(crate) series: String,
    /// Release, as in `uname -r`: `6.12.117+deb12-cloud-amd64`.
    pub(crate) release: String,
    /// Version of the package: `6.12.117-1~deb12u1`.
    pub(crate) version: String,
    /// The unpacked package; none for the running kernel, whose package is installed.
    package: Option<Unpacked>,
}

impl Target {
    /// Returns Debian's newest kernel of a series, in the flavour that the lab boots.
    pub(crate) fn newest(series: &Series) -> Result<Target> {
        if let Some(reason) = series.no_build {
            bail!("build for Linux {}: {reason}", series.name);
        }
        let package = debian::newest_kernel(series.kernel()?)?;
        let folder = package.root.file_name().unwrap_or_default().to_string_lossy();
        let (release, version) =
            release_and_version(&package.package, &folder).with_context(|| format!("read version of {folder}"))?;
        Ok(Target { series: series.name.to_owned(), release, version, package: Some(package) })
    }

    /// Returns the running kernel, if this machine has everything that a build for it needs.
    pub(crate) fn running() -> Result<Target> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read kernel release")?;
        let release = release.trim();
        let package = format!("linux-image-{release}");
        let version = output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", &package])).ok();
        let host = Host {
            release,
            version: version.as_deref().filter(|version| !version.is_empty()),
            has_headers: installed_headers(release).join("Module.symvers").is_file(),
            has_btf: Path::new(RUNNING_BTF).is_file(),
            has_patches: series::named(&series_of(release)).is_ok(),
        };
        let missing = host.missing();
        ensure!(missing.is_empty(), "build for running kernel {release}: missing: {}", missing.join("; "));
        Ok(Target {
            series: series_of(release),
            version: version.unwrap_or_default(),
            release: release.to_owned(),
            package: None,
        })
    }

    /// Returns the kernel's headers.
    pub(crate) fn headers(&self) -> Result<Headers> {
        match self.package {
            Some(_) => Headers::unpacked(&self.release, &self.version),
            None => Ok(Headers(installed_headers(&self.release))),
        }
    }

    /// Returns a file with the BTF that the module's BTF extends.
    pub(crate) fn base_btf(&self) -> Result<PathBuf> {
        self.package.as_ref().map_or_else(|| Ok(RUNNING_BTF.into()), lab::vmlinux)
    }

    /// Returns the distribution's own kvm-intel.ko, decompressed.
    pub(crate) fn own_module(&self) -> Result<Vec<u8>> {
        let root = self.package.as_ref().map_or(Path::new("/"), |package| &package.root);
        let folders = ["usr/lib/modules", "lib/modules"].map(|folder| root.join(folder).join(&self.release));
        let files = folders.iter().flat_map(|folder| {
            ["", ".xz", ".zst"].map(|suffix| folder.join(format!("kernel/arch/x86/kvm/kvm-intel.ko{suffix}")))
        });
        let file = files.into_iter().find(|file| file.is_file());
        let file = file.with_context(|| format!("find kvm-intel.ko of {}", self.release))?;
        let content = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        match file.extension().and_then(|suffix| suffix.to_str()) {
            Some("xz") => filter(&["xz", "-dcq"], &content),
            Some("zst") => filter(&["zstd", "-dcq"], &content),
            _ => Ok(content),
        }
        .with_context(|| format!("decompress {}", file.display()))
    }
}

const RUNNING_BTF: &str = "/sys/kernel/btf/vmlinux";

fn installed_headers(release: &str) -> PathBuf {
    Path::new("/lib/modules").join(release).join("build")
}

/// Reads release and version from the name of an image package and of its folder, `PACKAGE_VERSION`.
fn release_and_version(package: &str, folder: &str) -> Option<(String, String)> {
    let release = package.strip_prefix("linux-image-")?;
    let version = folder.strip_prefix(package)?.strip_prefix('_')?;
    Some((release.to_owned(), version.to_owned()))
}

/// Returns the first two numbers of a release.
fn series_of(release: &str) -> String {
    let numbers: Vec<_> = release.split(|c: char| !c.is_ascii_digit()).take(2).collect();
    numbers.join(".")
}

/// Facts about the running kernel.
struct Host<'a> {
    release: &'a str,
    version: Option<&'a str>,
    has_headers: bool,
    has_btf: bool,
    has_patches: bool,
}

impl Host<'_> {
    /// Returns everything that a build needs and this machine lacks, each with its fix.
    fn missing(&self) -> Vec<String> {
        let Host { release, version, has_headers, has_btf, has_patches } = self;
        let own = series_of(release);
        let patches = || format!("patches for Linux {own} (there are some for {})", series::names());
        let package = || format!("package linux-image-{release}, whose version names the source (only Debian has it)");
        let headers = || {
            let folder = installed_headers(release);
            format!("headers in {} (install linux-headers-{release})", folder.display())
        };
        let btf = || format!("{RUNNING_BTF} (a kernel with CONFIG_DEBUG_INFO_BTF=y)");
        let problems = [
            (!has_patches).then(patches),
            version.is_none().then(package),
            (!has_headers).then(headers),
            (!has_btf).then(btf),
        ];
        problems.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_and_versions_are_read_from_package_folders() {
        let read = release_and_version("linux-image-6.1.0-56-amd64", "linux-image-6.1.0-56-amd64_6.1.192-2").unwrap();
        assert_eq!(read, ("6.1.0-56-amd64".into(), "6.1.192-2".into()));
        assert!(release_and_version("linux-image-6.1.0-56-amd64", "other").is_none());
        assert_eq!(series_of("6.12.117+deb12-cloud-amd64"), "6.12");
        assert_eq!(series_of("6.1.0-56-amd64"), "6.1");
        assert_eq!(series_of("6.18-rc1"), "6.18");
    }

    #[test]
    fn everything_missing_is_named_at_once() {
        let bare =
            Host { release: "5.10.0-9-amd64", version: None, has_headers: false, has_btf: false, has_patches: false };
        let missing = bare.missing().join("; ");
        for part in
            ["Linux 5.10 ", "6.1, 6.12", "linux-image-5.10.0-9-amd64", "install linux-headers-5.10.0-9-amd64", "BTF"]
        {
            assert!(missing.contains(part), "{part}: {missing}");
        }
        let ready = Host {
            release: "6.1.0-56-amd64",
            version: Some("6.1.192-2"),
            has_headers: true,
            has_btf: true,
            has_patches: true,
        };
        assert!(ready.missing().is_empty());
    }
}
