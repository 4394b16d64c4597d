//! `cargo xtask ebpf`: the kernel side's objects from source, with the pinned toolchain, into tracer-ebpf/dist.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

use crate::{build, debian};

/// Built from crates.io where the cache has it not.
const BPF_LINKER: &str = "0.10.0";
const TARGET: &str = "bpfel-unknown-none";
/// Cargo's program, the object in dist, and the features it is built with.
const OBJECTS: [(&str, &str, &str); 3] =
    [("vmentry", "vmentry.bpf.o", ""), ("vmentry", "vmentry-log.bpf.o", "log"), ("testbed", "testbed.bpf.o", "")];
/// Debian's toolchain: rustup's has no sources of core here, and stable has no -Zbuild-std.
const NEEDS: [debian::Need; 4] = [
    ("/usr/bin/cargo", "cargo-web"),
    ("/usr/bin/rustc", "rustc-web"),
    ("/usr/lib/rustlib/src/rust/library/core/src/lib.rs", "rust-web-src"),
    ("/usr/bin/cargo-clippy", "rust-web-clippy"),
];

/// Arguments of `ebpf`.
#[derive(Args)]
pub struct Arguments {
    /// Compare with what is committed instead of replacing it; another toolchain than the recorded one cannot compare, so that
    /// its objects are put through the programs' tests
    #[arg(long)]
    check: bool,
    /// Run clippy on the kernel side instead
    #[arg(long, conflicts_with = "check")]
    clippy: bool,
}

/// Builds, compares or lints.
pub fn run(arguments: &Arguments) -> Result<()> {
    match arguments {
        Arguments { clippy: true, .. } => clippy(),
        Arguments { check: true, .. } => check_committed(),
        _ => copy(&Toolchain::install()?.build()?, &dist()),
    }
}

/// Fails when the committed objects are not what the source gives.
pub fn check_committed() -> Result<()> {
    check(&Toolchain::install()?.build()?, &dist())
}

/// Clippy of the kernel side.
pub fn clippy() -> Result<()> {
    Toolchain::install()?.clippy()
}

fn dist() -> PathBuf {
    build::root().join("tracer-ebpf/dist")
}

fn names() -> impl Iterator<Item = &'static str> {
    OBJECTS.iter().map(|o| o.1).chain(["TOOLCHAIN"])
}

fn copy(fresh: &Path, dist: &Path) -> Result<()> {
    fs::create_dir_all(dist).with_context(|| format!("create folder {}", dist.display()))?;
    for name in names() {
        fs::copy(fresh.join(name), dist.join(name)).with_context(|| format!("write {}", dist.join(name).display()))?;
        println!("{}", dist.join(name).display());
    }
    Ok(())
}

fn check(fresh: &Path, dist: &Path) -> Result<()> {
    let read = |path: PathBuf| fs::read(&path).with_context(|| format!("read {}", path.display()));
    if read(fresh.join("TOOLCHAIN"))? != read(dist.join("TOOLCHAIN"))? {
        eprintln!("another toolchain than the committed objects': testing the fresh ones instead of comparing");
        return build::test_programs(Some(fresh));
    }
    let differing: Vec<_> = names()
        .map(|name| Ok((name, read(fresh.join(name))? != read(dist.join(name))?)))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect();
    if !differing.is_empty() {
        bail!(
            "{} in tracer-ebpf/dist not what the source gives: run 'cargo xtask ebpf' and commit",
            differing.join(", ")
        );
    }
    println!("tracer-ebpf/dist is what the source gives");
    Ok(())
}

struct Toolchain {
    linker: PathBuf,
    llvm: PathBuf,
    versions: String,
}

impl Toolchain {
    fn install() -> Result<Self> {
        debian::install(&NEEDS)?;
        let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
        // bpf-linker loads the LLVM that user space's rustc brings: it must be as new as the one that made the bitcode.
        let llvm = Path::new(sysroot.trim()).join("lib");
        let linker = debian::cached(&format!("bpf-linker-{BPF_LINKER}"), |folder| {
            eprintln!("installing with cargo: bpf-linker {BPF_LINKER} (some minutes)");
            let mut cargo = Command::new(build::cargo());
            cargo.args(["install", "--quiet", "--locked", "bpf-linker", "--version", BPF_LINKER, "--root"]);
            // Its own target folder: this one may be locked by the cargo that runs us.
            succeed(cargo.arg(folder.join("root")).env_remove("CARGO_TARGET_DIR"), "cargo install bpf-linker")?;
            Ok(folder.join("root"))
        })?
        .join("bin/bpf-linker");
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
            .env("PATH", path_with_debian_first())
            .env("RUSTC", "/usr/bin/rustc")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", Self::target_dir())
            .env("LD_LIBRARY_PATH", &self.llvm)
            // What the cargo that runs us has set for itself.
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags().join("\x1f"));
        cargo
    }

    /// No path of this machine goes into the objects, so that every machine makes the same ones.
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

    fn build(&self) -> Result<PathBuf> {
        let fresh = Self::target_dir().join("dist");
        fs::create_dir_all(&fresh).with_context(|| format!("create folder {}", fresh.display()))?;
        for (program, object, features) in OBJECTS {
            let mut cargo = self.cargo("build");
            cargo.args(["--profile", "ebpf", "--bin", program, "--features", features]);
            succeed(&mut cargo, "build the eBPF programs")?;
            let built = Self::target_dir().join(TARGET).join("ebpf").join(program);
            let bytes = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
            let path = fresh.join(object);
            fs::write(&path, without_dwarf(&bytes)?).with_context(|| format!("write {}", path.display()))?;
        }
        let path = fresh.join("TOOLCHAIN");
        fs::write(&path, &self.versions).with_context(|| format!("write {}", path.display()))?;
        Ok(fresh)
    }

    fn clippy(&self) -> Result<()> {
        for features in ["", "log"] {
            let mut cargo = self.cargo("clippy");
            cargo.args(["--profile", "ebpf", "--features", features, "--", "-D", "warnings"]);
            succeed(&mut cargo, "clippy of the kernel side")?;
        }
        Ok(())
    }
}

fn path_with_debian_first() -> OsString {
    let mut path = OsString::from("/usr/bin:");
    path.push(env::var_os("PATH").unwrap_or_default());
    path
}

fn succeed(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("run {}", command.get_program().display()))?;
    ensure!(status.success(), "{what}: {status}");
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("run {}", command.get_program().display()))?;
    ensure!(output.status.success(), "{}: {}", command.get_program().display(), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes names of unions such as `MaybeUninit<u8>` (aya-log's) into ones that the kernel takes; bpf-linker 0.10 does that for
/// structures only. Format: Documentation/bpf/btf.rst.
fn name_unions(btf: &mut [u8]) -> Option<()> {
    const UNION: u32 = 5;
    let word = |btf: &[u8], at: usize| Some(u32::from_le_bytes(btf.get(at..at + 4)?.try_into().ok()?) as usize);
    let header = word(btf, 4)?;
    let (mut at, end) = (header + word(btf, 8)?, header + word(btf, 8)? + word(btf, 12)?);
    let strings = header + word(btf, 16)?;
    while at < end {
        let info = word(btf, at + 4)? as u32;
        let (kind, vlen) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        if kind == UNION {
            let name = strings + word(btf, at)?;
            let odd = |c: &&mut u8| !c.is_ascii_alphanumeric() && **c != b'_';
            btf.get_mut(name..)?.iter_mut().take_while(|c| **c != 0).filter(odd).for_each(|c| *c = b'_');
        }
        at += 12
            + match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                4 | UNION | 15 | 19 => vlen * 12,
                6 | 13 => vlen * 8,
                _ => 0,
            };
    }
    Some(())
}

/// The object without its DWARF: what stays is code, maps and BTF.
fn without_dwarf(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(bytes).context("read the object")?;
    for section in elf.sections.iter_mut() {
        let name = section.name.to_string();
        let debug = name.starts_with(".debug_") || name.starts_with(".rel.debug_");
        if name == ".BTF"
            && let SectionData::Data(btf) = &mut section.data
        {
            name_unions(btf.to_mut()).context("read the object's BTF")?;
        }
        // Relocations of BTF serve linkers only; they point at symbols of sections that go away.
        section.delete = debug || name == ".rel.BTF" || name == ".rel.BTF.ext";
    }
    let dead: Vec<_> = elf.sections.iter().filter(|s| s.delete).map(|s| s.id()).collect();
    for symbol in elf.symbols.iter_mut() {
        symbol.delete = symbol.section.is_some_and(|s| dead.contains(&s));
    }
    // LLVM keeps the sections' names in .strtab; the writer wants them apart.
    let names = elf.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut out = Vec::new();
    elf.write(&mut out).context("write the object")?;
    Ok(out)
}
