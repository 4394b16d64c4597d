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

/// Returns the package with the common headers, and the Makefile with its only absolute path made relative to itself.
fn relocated(makefile: &str) -> Option<(String, String)> {
    let line = makefile.lines().find(|line| line.starts_with("include /usr/src/linux-headers-"))?;
    let rest = line.strip_prefix("include /usr/src/")?;
    let (common, _) = rest.split_once('/')?;
    let relative = format!("include $(dir $(abspath $(lastword $(MAKEFILE_LIST))))../{rest}");
    Some((common.to_owned(), makefile.replace(line, &relative)))
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
    fn the_makefiles_absolute_path_becomes_relative() {
        let (common, makefile) = relocated("# x\ninclude /usr/src/linux-headers-6.1.0-56-common/Makefile\n").unwrap();
        assert_eq!(common, "linux-headers-6.1.0-56-common");
        assert!(makefile.starts_with("# x\ninclude $(dir ") && !makefile.contains("/usr/src"), "{makefile}");
        assert!(makefile.ends_with("../linux-headers-6.1.0-56-common/Makefile\n"), "{makefile}");
        assert!(relocated("all:\n\ttrue\n").is_none());
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
