//! The distribution's kernel headers, installed or unpacked into the cache.

use crate::debian;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A folder in which `make M=... modules` works.
#[derive(Clone, Debug)]
pub(crate) struct Headers(pub(crate) PathBuf);

impl Headers {
    /// Returns the headers of a kernel release, unpacked together with the two other packages that they refer to.
    pub(crate) fn unpacked(release: &str, version: &str) -> Result<Headers> {
        let root = debian::cached(&format!("headers/{release}_{version}"), |folder| {
            let root = folder.join("root");
            let name = format!("linux-headers-{release}");
            debian::unpack_version(&name, version, &root)?;
            let headers = root.join("usr/src").join(&name);
            let makefile = headers.join("Makefile");
            let text = fs::read_to_string(&makefile).with_context(|| format!("read {}", makefile.display()))?;
            let (common, text) = relocated(&text).with_context(|| format!("read {}", makefile.display()))?;
            fs::write(&makefile, text).with_context(|| format!("write {}", makefile.display()))?;
            debian::unpack_version(&common, version, &root)?;
            let scripts = headers.join("scripts");
            let scripts = fs::read_link(&scripts).with_context(|| format!("read link {}", scripts.display()))?;
            let kbuild = kbuild_package(&scripts).with_context(|| format!("read link {}", scripts.display()))?;
            debian::unpack_version(&kbuild, version, &root)?;
            Ok(root)
        })?;
        Ok(Headers(root.join("usr/src").join(format!("linux-headers-{release}"))))
    }

    /// Returns the command of the compiler that has built the kernel.
    pub(crate) fn compiler(&self) -> Result<String> {
        let path = self.0.join(".kernelvariables");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        compiler(&text).with_context(|| format!("find compiler in {}", path.display()))
    }
}

/// Returns the package with the common headers, and the Makefile with its absolute paths made relative to itself: that of
/// the common Makefile, and in packages of Linux 7 that of its own folder (`KBUILD_OUTPUT`).
fn relocated(makefile: &str) -> Option<(String, String)> {
    const FOLDER: &str = "$(patsubst %/,%,$(dir $(abspath $(lastword $(MAKEFILE_LIST)))))";
    let mut common = None;
    let relative = makefile.lines().map(|line| {
        if let Some(rest) = line.strip_prefix("include /usr/src/linux-headers-") {
            common = rest.split_once('/').map(|(name, _)| format!("linux-headers-{name}"));
            format!("include {FOLDER}/../linux-headers-{rest}\n")
        } else if line.starts_with("KBUILD_OUTPUT=/usr/src/") {
            // Expanded at once, because the last Makefile will be another one.
            format!("KBUILD_OUTPUT := {FOLDER}\n")
        } else {
            format!("{line}\n")
        }
    });
    let relative = relative.collect();
    Some((common?, relative))
}

/// Returns the package of the folder that the link `scripts` leads to: `../../lib/linux-kbuild-6.1/scripts`.
fn kbuild_package(scripts: &Path) -> Option<String> {
    let mut names = scripts.components().filter_map(|part| part.as_os_str().to_str());
    names.find(|name| name.starts_with("linux-kbuild-")).map(str::to_owned)
}

/// Returns the compiler in Debian's `.kernelvariables`: `CC = ... $(CROSS_COMPILE)gcc-12`.
fn compiler(variables: &str) -> Option<String> {
    let value = variables.lines().find_map(|line| line.strip_prefix("CC = "))?;
    let command = value.rsplit(|c: char| c.is_whitespace() || c == ')').next()?;
    command.starts_with("gcc-").then(|| command.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_makefiles_absolute_paths_become_relative() {
        let (common, makefile) = relocated("# x\ninclude /usr/src/linux-headers-6.1.0-56-common/Makefile\n").unwrap();
        assert_eq!(common, "linux-headers-6.1.0-56-common");
        assert!(makefile.starts_with("# x\ninclude $(") && !makefile.contains("/usr/src"), "{makefile}");
        assert!(makefile.ends_with("/../linux-headers-6.1.0-56-common/Makefile\n"), "{makefile}");
        assert!(relocated("all:\n\ttrue\n").is_none());
        let two = "KBUILD_OUTPUT=/usr/src/linux-headers-7.3.4+deb13-amd64\n\
            include /usr/src/linux-headers-7.3.4+deb13-common/Makefile\n";
        let (common, makefile) = relocated(two).unwrap();
        assert_eq!(common, "linux-headers-7.3.4+deb13-common");
        assert!(makefile.starts_with("KBUILD_OUTPUT := $(") && !makefile.contains("/usr/src"), "{makefile}");
    }

    #[test]
    fn the_kbuild_package_is_found_in_the_link() {
        let name = |link: &str| kbuild_package(Path::new(link));
        assert_eq!(name("../../lib/linux-kbuild-6.1/scripts").unwrap(), "linux-kbuild-6.1");
        assert_eq!(name("../x/scripts"), None);
    }

    #[test]
    fn the_compiler_is_read_from_debians_variables() {
        let variables = "override ARCH = x86\nCCACHE = ccache\n\
            CC = $(if $(DEBIAN_KERNEL_USE_CCACHE),$(CCACHE)) $(CROSS_COMPILE)gcc-12\n";
        assert_eq!(compiler(variables).unwrap(), "gcc-12");
        assert_eq!(compiler("CC = clang\n"), None);
        assert_eq!(compiler(""), None);
    }
}
