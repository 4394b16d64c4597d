//! The kernel that a module is built for: the newest one of a series, or the one that runs here.

use crate::debian::{self, Unpacked};
use crate::lab::Kernel;
use crate::patches::headers::Headers;
use crate::patches::{series, source};
use crate::process::output;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel package.
#[derive(Clone, Debug)]
pub struct Target {
    /// As in the name of linux-source: `6.12`.
    pub series: String,
    /// As `uname -r` says it: `6.12.117+deb12-cloud-amd64`.
    pub release: String,
    /// The package's: `6.12.117-1~deb12u1`.
    pub version: String,
    /// The folder that stands for `/`; none when the kernel is installed and runs.
    root: Option<PathBuf>,
}

impl Target {
    /// Debian's newest kernel of a series, in the flavour that the lab boots.
    pub fn newest(kernel: Kernel) -> Result<Target> {
        let Unpacked { package, root } = debian::newest_kernel(kernel.series())?;
        let folder = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (release, version) =
            release_and_version(&package, &folder).with_context(|| format!("read version of {folder}"))?;
        Ok(Target { series: kernel.series().to_owned(), release, version, root: Some(root) })
    }

    /// The running kernel, if everything is there that a module for it takes.
    pub fn running() -> Result<Target> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read kernel release")?;
        let release = release.trim();
        let package = format!("linux-image-{release}");
        let version = output(Command::new("dpkg-query").args(["-W", "-f", "${Version}", &package])).ok();
        let host = Host {
            release,
            version: version.as_deref().filter(|version| !version.is_empty()),
            has_headers: installed_headers(release).join("Module.symvers").is_file(),
            has_btf: Path::new(RUNNING_BTF).is_file(),
            series: &series::known()?,
        };
        let missing = host.missing();
        ensure!(missing.is_empty(), "build for running kernel {release}: missing: {}", missing.join("; "));
        Ok(Target {
            series: series_of(release),
            version: version.unwrap_or_default(),
            release: release.to_owned(),
            root: None,
        })
    }

    /// The kernel's headers.
    pub fn headers(&self) -> Result<Headers> {
        match self.root {
            Some(_) => Headers::unpacked(&self.release, &self.version),
            None => Ok(Headers(installed_headers(&self.release))),
        }
    }

    /// A file with the BTF that a module's is based on.
    pub fn base_btf(&self) -> Result<PathBuf> {
        let Some(root) = &self.root else { return Ok(RUNNING_BTF.into()) };
        let script = source::unpacked(&self.series, &self.version)?.join("scripts/extract-vmlinux");
        let vmlinuz = root.join(format!("boot/vmlinuz-{}", self.release));
        // The lab's name: it keeps the same file there.
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        debian::cached(&format!("vmlinux/{name}"), |folder| {
            let vmlinux = folder.join("vmlinux");
            let mut extract = Command::new("sh");
            extract.args(["-c", "exec sh \"$0\" \"$1\" >\"$2\""]).arg(&script).arg(&vmlinuz).arg(&vmlinux);
            output(&mut extract).with_context(|| format!("decompress {}", vmlinuz.display()))?;
            Ok(vmlinux)
        })
    }

    /// The distribution's own kvm-intel.ko, decompressed.
    pub fn own_module(&self) -> Result<Vec<u8>> {
        let root = self.root.as_deref().unwrap_or(Path::new("/"));
        let folders = ["usr/lib/modules", "lib/modules"].map(|folder| root.join(folder).join(&self.release));
        let files = folders.iter().flat_map(|folder| {
            ["", ".xz", ".zst"].map(|suffix| folder.join(format!("kernel/arch/x86/kvm/kvm-intel.ko{suffix}")))
        });
        let file = files.into_iter().find(|file| file.is_file());
        let file = file.with_context(|| format!("find kvm-intel.ko of {}", self.release))?;
        let decompressor = match file.extension().and_then(|suffix| suffix.to_str()) {
            Some("xz") => "xz",
            Some("zst") => "zstd",
            _ => return fs::read(&file).with_context(|| format!("read {}", file.display())),
        };
        let content = Command::new(decompressor).arg("-dcq").arg(&file).output();
        let content = content.with_context(|| format!("run {decompressor}"))?;
        ensure!(content.status.success(), "decompress {}: {}", file.display(), content.status);
        Ok(content.stdout)
    }
}

const RUNNING_BTF: &str = "/sys/kernel/btf/vmlinux";

fn installed_headers(release: &str) -> PathBuf {
    Path::new("/lib/modules").join(release).join("build")
}

/// From the name of an image package and of its folder, `PACKAGE_VERSION`.
fn release_and_version(package: &str, folder: &str) -> Option<(String, String)> {
    let release = package.strip_prefix("linux-image-")?;
    let version = folder.strip_prefix(package)?.strip_prefix('_')?;
    Some((release.to_owned(), version.to_owned()))
}

/// The first two numbers of a release.
fn series_of(release: &str) -> String {
    let numbers: Vec<_> = release.split(|c: char| !c.is_ascii_digit()).take(2).collect();
    numbers.join(".")
}

/// What is known of the running kernel.
struct Host<'a> {
    release: &'a str,
    version: Option<&'a str>,
    has_headers: bool,
    has_btf: bool,
    series: &'a [String],
}

impl Host<'_> {
    /// Everything that is missing for a build, each with the way to get it.
    fn missing(&self) -> Vec<String> {
        let Host { release, version, has_headers, has_btf, series } = self;
        let own = series_of(release);
        let patches = || format!("patches for Linux {own} (there are some for {})", series.join(", "));
        let package = || format!("package linux-image-{release}, whose version names the source (only Debian has it)");
        let headers = || {
            let folder = installed_headers(release);
            format!("headers in {} (install linux-headers-{release})", folder.display())
        };
        let btf = || format!("{RUNNING_BTF} (a kernel with CONFIG_DEBUG_INFO_BTF=y)");
        let problems = [
            (!series.contains(&own)).then(patches),
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
        let series = ["6.1".to_owned(), "6.12".to_owned()];
        let bare =
            Host { release: "5.10.0-9-amd64", version: None, has_headers: false, has_btf: false, series: &series };
        let missing = bare.missing().join("; ");
        for part in
            ["Linux 5.10 ", "6.1, 6.12", "linux-image-5.10.0-9-amd64", "install linux-headers-5.10.0-9-amd64", "BTF"]
        {
            assert!(missing.contains(part), "{part}: {missing}");
        }
        let ready =
            Host { release: "6.1.0-56-amd64", version: Some("6.1.192-2"), has_headers: true, has_btf: true, ..bare };
        assert!(ready.missing().is_empty());
    }
}
