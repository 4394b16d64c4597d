//! The toolchain of the eBPF programs: Debian's rustc and bpf-linker.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    build::{self, object::without_dwarf},
    debian,
    process::{self, output},
};

/// Version of bpf-linker, from crates.io.
const BPF_LINKER: &str = "0.10.0";
const TARGET: &str = "bpfel-unknown-none";
/// An object in tracer-ebpf/dist.
pub(super) struct Object {
    /// Its program in the package tracer-ebpf.
    program: &'static str,
    pub(super) file: &'static str,
    /// Cargo features that it is built with.
    features: &'static str,
}

pub(super) const OBJECTS: [Object; 3] = [
    Object { program: "vmentry", file: "vmentry.bpf.o", features: "" },
    Object { program: "vmentry", file: "vmentry-log.bpf.o", features: "log" },
    Object { program: "testbed", file: "testbed.bpf.o", features: "" },
];

/// Debian's toolchain: it has the sources of core, and RUSTC_BOOTSTRAP=1 allows its cargo -Zbuild-std.
const NEEDS: [debian::Need; 4] = [
    ("/usr/bin/cargo", "cargo-web"),
    ("/usr/bin/rustc", "rustc-web"),
    ("/usr/lib/rustlib/src/rust/library/core/src/lib.rs", "rust-web-src"),
    ("/usr/bin/cargo-clippy", "rust-web-clippy"),
];

/// Oldest rustc that builds the programs: `1.95`, the workspace's rust-version.
const OLDEST: &str = env!("CARGO_PKG_RUST_VERSION");

/// Returns what Debian's rustc says of its version: `rustc 1.96.0 (ac68faa20 2026-05-25)`.
fn version() -> Result<String> {
    output(Command::new("/usr/bin/rustc").arg("--version"))
}

/// Whether rustc of this version is [`OLDEST`] or newer.
fn is_new_enough(rustc: &str) -> bool {
    let minor = |version: &str| {
        let (major, rest) = version.split_once('.')?;
        Some((major.parse::<u32>().ok()?, rest.split('.').next()?.parse::<u32>().ok()?))
    };
    let version = rustc.split(' ').nth(1).and_then(minor);
    version.is_some() && version >= minor(OLDEST)
}

/// The installed toolchain.
pub(super) struct Toolchain {
    linker: PathBuf,
    /// Folder of LLVM's library.
    llvm: PathBuf,
    /// Versions of rustc and linker, as the file TOOLCHAIN records them.
    versions: String,
}

impl Toolchain {
    /// Installs the missing parts of the toolchain.
    pub(super) fn install() -> Result<Self> {
        debian::install(&NEEDS)?;
        let mut rustc = version()?;
        if !is_new_enough(&rustc) {
            debian::upgrade(&NEEDS.map(|(_, package)| package))?;
            rustc = version()?;
        }
        ensure!(
            is_new_enough(&rustc),
            "build the eBPF programs: /usr/bin/rustc is {}, they need Rust {OLDEST} or newer; \
             install rustc-web and cargo-web of Debian 12 or newer with its security updates",
            rustc.trim()
        );
        let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
        // bpf-linker loads the LLVM of user space's rustc, which must be as new as the one that made the bitcode.
        let llvm = Path::new(sysroot.trim()).join("lib");
        let linker = build::cargo_tool("bpf-linker", BPF_LINKER)?;
        let linker_version = output(Command::new(&linker).arg("--version").env("LD_LIBRARY_PATH", &llvm))?;
        let versions = format!("{}\n{}\n", rustc.trim(), linker_version.trim());
        Ok(Self { linker, llvm, versions })
    }

    fn target_dir() -> PathBuf {
        build::target_dir().join("ebpf")
    }

    fn cargo(&self, command: &str) -> Command {
        let mut cargo = Command::new("/usr/bin/cargo");
        cargo
            .args([command, "--quiet", "--locked", "--package", "tracer-ebpf", "--target", TARGET, "-Zbuild-std=core"])
            .current_dir(build::root())
            .env("PATH", process::path_with(Path::new("/usr/bin")))
            .env("RUSTC", "/usr/bin/rustc")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", Self::target_dir())
            .env("LD_LIBRARY_PATH", &self.llvm)
            // Variables that the cargo running this task has set for itself.
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags().join("\x1f"));
        cargo
    }

    /// Flags that keep this machine's paths out of the objects, so that every machine makes the same ones.
    fn rustflags(&self) -> Vec<String> {
        let cargo_home = env::var("CARGO_HOME").unwrap_or_else(|_| env::var("HOME").unwrap_or_default() + "/.cargo");
        vec![
            "-Cdebuginfo=2".into(),
            "-Clink-arg=--btf".into(),
            "-Ctarget-cpu=v3".into(),
            format!("-Clinker={}", self.linker.display()),
            format!("--remap-path-prefix={}=.", build::root().display()),
            format!("--remap-path-prefix={cargo_home}/registry/src=registry"),
        ]
    }

    /// Builds every object and the file TOOLCHAIN, and returns their folder.
    pub(super) fn build(&self) -> Result<PathBuf> {
        let fresh = Self::target_dir().join("dist");
        fs::create_dir_all(&fresh).with_context(|| format!("create folder {}", fresh.display()))?;
        for Object { program, file, features } in OBJECTS {
            let mut cargo = self.cargo("build");
            cargo.args(["--profile", "ebpf", "--bin", program, "--features", features]);
            process::run(&mut cargo, "build the eBPF programs")?;
            let built = Self::target_dir().join(TARGET).join("ebpf").join(program);
            let bytes = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
            let path = fresh.join(file);
            fs::write(&path, without_dwarf(&bytes)?).with_context(|| format!("write {}", path.display()))?;
        }
        let path = fresh.join("TOOLCHAIN");
        fs::write(&path, &self.versions).with_context(|| format!("write {}", path.display()))?;
        Ok(fresh)
    }

    /// Runs clippy with each set of features.
    pub(super) fn clippy(&self) -> Result<()> {
        for features in ["", "log"] {
            let mut cargo = self.cargo("clippy");
            cargo.args(["--profile", "ebpf", "--features", features, "--", "-D", "warnings"]);
            process::run(&mut cargo, "clippy of the eBPF programs")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rustc_older_than_the_workspace_needs_is_told_from_a_newer_one() {
        assert!(is_new_enough(&format!("rustc {OLDEST}.0 (59807616e 2026-04-14)\n")));
        assert!(is_new_enough("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n"));
        assert!(is_new_enough("rustc 2.0.0-nightly"));
        for old in ["rustc 1.85.0 (4d91de4e4 2025-02-17)", "rustc 1.9.0", "rustc", "", "rustc new"] {
            assert!(!is_new_enough(old), "{old}");
        }
    }
}
