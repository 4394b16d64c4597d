//! The toolchain of the eBPF programs: Debian's rustc and bpf-linker.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

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
        let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
        // bpf-linker loads the LLVM of user space's rustc, which must be as new as the one that made the bitcode.
        let llvm = Path::new(sysroot.trim()).join("lib");
        let linker = build::cargo_tool("bpf-linker", BPF_LINKER)?;
        let rustc = output(Command::new("/usr/bin/rustc").arg("--version"))?;
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
