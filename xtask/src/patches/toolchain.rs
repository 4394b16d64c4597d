//! The compiler and the tools of a build: this machine's, or those of another release of Debian in a folder.

use crate::debian::{self, Need};
use crate::process::{self, output};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::process::Command;

/// Tools of this machine that sources and patches need, wherever the compiler is.
const COMMON: [Need; 4] = [("patch", "patch"), ("tar", "tar"), ("xz", "xz-utils"), ("zstd", "zstd")];

/// More tools, of the release that the compiler is from.
const TOOLS: [Need; 3] = [("make", "make"), ("objcopy", "binutils"), ("pahole", "pahole")];

/// More packages that the kernel's build needs, in a folder that starts empty.
const SYSTEM: [&str; 8] = ["base-files", "coreutils", "dash", "findutils", "grep", "libelf1t64", "mawk", "sed"];

/// The release of Debian whose compiler builds kernels for which this machine has none.
const RELEASE: &str = "trixie";

/// Runs a command in a folder: `sh -c SCRIPT sh FOLDER CACHE COMMAND...`. Sources and results lie in the cache, which
/// therefore is at the same path inside. The mounts vanish with the command. Installing mawk would have made the link.
const ENTER: &str = r#"
set -e
root=$1 cache=$2
shift 2
mkdir -p "$root$cache"
mount --bind "$cache" "$root$cache"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
ln -sfn mawk "$root/usr/bin/awk"
exec chroot "$root" "$@"
"#;

/// Installs the tools that unpack sources and apply patches.
pub(crate) fn install_common() -> Result<()> {
    debian::install(&COMMON)
}

/// Where the compiler of a kernel is.
pub(crate) enum Toolchain {
    /// Installed on this machine.
    Host,
    /// In a folder with an unpacked release of Debian, entered by chroot.
    Folder(PathBuf),
}

impl Toolchain {
    /// Returns the tools with a compiler, such as `gcc-12`: this machine's if it has the compiler or its apt offers it.
    pub(crate) fn with(compiler: &str) -> Result<Toolchain> {
        install_common()?;
        if debian::is_offered(compiler)? {
            debian::install(&TOOLS)?;
            debian::install(&[(compiler, compiler)])?;
            return Ok(Toolchain::Host);
        }
        let packages = [&[compiler], &TOOLS.map(|(_, package)| package)[..], &SYSTEM].concat();
        let folder = debian::root(RELEASE, &packages)
            .with_context(|| format!("find {compiler}, which this machine's apt does not offer"))?;
        Ok(Toolchain::Folder(folder))
    }

    /// Returns a command that runs a program of this toolchain.
    pub(crate) fn command(&self, program: &str) -> Result<Command> {
        let Toolchain::Folder(root) = self else { return Ok(Command::new(program)) };
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child"]);
        if !process::is_root() {
            command.arg("--map-root-user");
        }
        command.args(["sh", "-c", ENTER, "sh"]).arg(root).arg(debian::cache_dir()?);
        command.args(["env", "PATH=/usr/bin:/usr/sbin", program]);
        Ok(command)
    }

    /// Returns what compiler and pahole say of their versions.
    pub(crate) fn versions(&self, compiler: &str) -> Result<Vec<String>> {
        [compiler, "pahole"].iter().map(|tool| output(self.command(tool)?.arg("--version"))).collect()
    }
}
