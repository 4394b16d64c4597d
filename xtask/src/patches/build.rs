//! Builds kvm-intel.ko alone, in the way of the distribution.

use crate::debian;
use crate::patches::headers::Headers;
use crate::patches::module::Module;
use crate::patches::target::Target;
use crate::patches::toolchain::Toolchain;
use crate::patches::{Flavour, series, source};
use crate::process::output;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// Number of this file's build procedure. A change of it makes cached modules be built again.
const RECIPE: u32 = 1;

/// Returns the module of a flavour for a kernel, from the cache if it has been built before.
pub(crate) fn module(target: &Target, flavour: Flavour) -> Result<PathBuf> {
    let headers = target.headers()?;
    let compiler = headers.compiler()?;
    let toolchain = Toolchain::with(&compiler)?;
    let patches = series::files(&target.series, flavour)?;
    let tools = toolchain.versions(&compiler)?;
    let read = |patch: &PathBuf| fs::read_to_string(patch).with_context(|| format!("read patch {}", patch.display()));
    let contents = patches.iter().map(read).collect::<Result<Vec<_>>>()?;
    let changes: Vec<_> = contents.iter().map(|patch| changes(patch)).collect();
    let id = id((&target.release, &target.version), &tools, &changes);
    let source = source::unpacked(&target.series, &target.version)?;
    let base_btf = target.base_btf()?;
    let name = format!("modules/{}-{}-{id:016x}/kvm-intel.ko", target.release, flavour.name());
    debian::cached(&name, |folder| {
        eprintln!("building kvm-intel.ko ({}) for {}: takes about half a minute", flavour.name(), target.release);
        let tree = folder.join("tree");
        source::copy(&source, &tree)?;
        for patch in &patches {
            if !series::apply(patch, &tree)?.is_empty() {
                eprintln!("note: {} was made for another version of the source, but applies", series::name(patch));
            }
        }
        make(&toolchain, &tree, &headers, &base_btf)
            .with_context(|| format!("build kvm-intel.ko for {}", target.release))
    })
}

/// Returns a hash of everything that a module depends on. It only names files in the cache, so if another version of
/// std has another hash, the module is merely built again.
fn id(kernel: (&str, &str), tools: &[String], patches: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (RECIPE, kernel, tools, patches).hash(&mut hasher);
    hasher.finish()
}

/// Returns a patch without its message.
fn changes(patch: &str) -> &str {
    patch.find("\ndiff --git ").map_or(patch, |start| &patch[start..])
}

/// Builds the module in a writable source tree.
fn make(toolchain: &Toolchain, tree: &Path, headers: &Headers, base_btf: &Path) -> Result<PathBuf> {
    let folder = tree.join("arch/x86/kvm");
    let makefile = folder.join("Makefile");
    let text = fs::read_to_string(&makefile).with_context(|| format!("read {}", makefile.display()))?;
    fs::write(&makefile, in_own_tree(&text)).with_context(|| format!("write {}", makefile.display()))?;
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut make = toolchain.command("make")?;
    make.args(["--silent", &format!("--jobs={jobs}")]).arg("--directory").arg(&headers.0);
    make.arg(format!("M={}", folder.display())).arg(format!("KVM_TREE={}", tree.display()));
    // File names are part of warnings and of the build-id: they become those of the kernel's own tree.
    for flags in ["KCFLAGS", "KAFLAGS"] {
        make.arg(format!("{flags}=-ffile-prefix-map={}/=", tree.display()));
    }
    // Only kvm-intel.ko is built: kvm.ko and kvm-amd.ko remain those of the distribution.
    make.args(["CONFIG_KVM=", "CONFIG_KVM_X86=", "CONFIG_KVM_AMD=", "modules"]);
    output(make.env_remove("MAKEFLAGS"))?;
    let module = folder.join("kvm-intel.ko");
    if !has_btf(&module)? {
        // The build encodes no BTF if the headers have no vmlinux, as those of Debian's 6.1.
        let mut pahole = toolchain.command("pahole")?;
        pahole.env("LLVM_OBJCOPY", "objcopy").arg("-J").args(pahole_flags(headers)?);
        output(pahole.arg("--btf_base").arg(base_btf).arg(&module))?;
    }
    output(toolchain.command("objcopy")?.arg("--strip-debug").arg(&module))?;
    ensure!(has_btf(&module)?, "encode BTF: pahole has made none");
    Ok(module)
}

/// Replaces `$(srctree)` in KVM's Makefile, which leads to the headers: they lack the file that it includes.
fn in_own_tree(makefile: &str) -> String {
    makefile.replace("$(srctree)/", "$(KVM_TREE)/")
}

/// Returns the flags with which the kernel's own BTF was encoded.
fn pahole_flags(headers: &Headers) -> Result<Vec<String>> {
    let script = headers.0.join("scripts/pahole-flags.sh");
    let flags = output(Command::new("sh").arg(&script).env("PAHOLE", "pahole").current_dir(&headers.0));
    let flags = flags.with_context(|| format!("find flags of pahole by {}", script.display()))?;
    Ok(flags.split_whitespace().map(str::to_owned).collect())
}

fn has_btf(module: &Path) -> Result<bool> {
    let content = fs::read(module).with_context(|| format!("read {}", module.display()))?;
    Ok(Module::parse(&content)?.btf().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_makefile_refers_to_the_patched_tree() {
        let makefile = "ccflags-y += -I $(srctree)/arch/x86/kvm\ninclude $(srctree)/virt/kvm/Makefile.kvm\n";
        let own = in_own_tree(makefile);
        assert_eq!(own.matches("$(KVM_TREE)/").count(), 2);
        assert!(!own.contains("srctree"));
    }

    #[test]
    fn another_kernel_tool_or_patch_makes_another_module() {
        let tools = |version: &str| [format!("gcc {version}"), "v1.24".to_owned()];
        let patches = ["one", "two"];
        let base = id(("6.1.0-56-amd64", "1"), &tools("12"), &patches);
        assert_eq!(base, id(("6.1.0-56-amd64", "1"), &tools("12"), &patches.clone()));
        assert_eq!(changes("Subject: x\n\nWhy.\n---\n\ndiff --git a/f b/f\n+1\n"), "\ndiff --git a/f b/f\n+1\n");
        assert_ne!(base, id(("6.1.0-56-amd64", "2"), &tools("12"), &patches));
        assert_ne!(base, id(("6.1.0-56-amd64", "1"), &tools("13"), &patches));
        assert_ne!(base, id(("6.1.0-56-amd64", "1"), &tools("12"), &patches[..1]));
        assert_ne!(base, id(("6.1.0-56-amd64", "1"), &tools("12"), &["onet", "wo"]));
    }
}
