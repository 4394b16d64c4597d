//! Kernel modules for the guest: finds them in an unpacked kernel package, and returns them decompressed and in loading
//! order.

use crate::process::filter;
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A module as the guest loads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Module {
    /// Name in /proc/modules.
    pub(crate) name: String,
    /// Path on a system that has the package installed, without the suffix of compression.
    pub(crate) path: String,
    /// Content of the .ko file, neither compressed nor signed.
    pub(crate) content: Vec<u8>,
}

/// The modules of one kernel.
#[derive(Debug)]
pub(crate) struct Modules {
    folder: PathBuf,
    files: HashMap<String, PathBuf>,
    replaced: HashMap<String, PathBuf>,
    builtin: Vec<String>,
}

impl Modules {
    /// Finds the modules under `root`, the folder of an unpacked kernel package.
    pub(crate) fn of_kernel(root: &Path) -> Result<Modules> {
        let folder =
            ["usr/lib/modules", "lib/modules"].map(|name| root.join(name)).into_iter().find(|path| path.is_dir());
        let folder = folder.with_context(|| format!("find modules in {}", root.display()))?;
        let mut releases = fs::read_dir(&folder).with_context(|| format!("read folder {}", folder.display()))?;
        let release = releases.next().with_context(|| format!("find modules in {}", folder.display()))??.path();
        let builtin = release.join("modules.builtin");
        let builtin = fs::read_to_string(&builtin).with_context(|| format!("read file {}", builtin.display()))?;
        let builtin = builtin.lines().map(|path| name_of(Path::new(path))).collect();
        let mut files = HashMap::new();
        collect(&release.join("kernel"), &mut files)?;
        Ok(Modules { folder, files, replaced: HashMap::new(), builtin })
    }

    /// Replaces the content of a module by another file.
    pub(crate) fn replace(&mut self, name: &str, file: &Path) -> Result<()> {
        ensure!(file.is_file(), "replace module {name}: no file {}", file.display());
        self.replaced.insert(name.to_owned(), file.to_owned());
        Ok(())
    }

    /// Returns these modules and their dependencies, each after its own dependencies.
    pub(crate) fn in_order(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut ordered = Vec::new();
        for name in names {
            append(name, &mut ordered, &|name| self.load(name))?;
        }
        Ok(ordered)
    }

    /// Returns a module, or none if it is built into the kernel.
    fn load(&self, name: &str) -> Result<Option<Module>> {
        let Some(file) = self.files.get(name) else {
            ensure!(self.builtin.iter().any(|builtin| builtin == name), "find module {name}: the kernel has none");
            return Ok(None);
        };
        let source = self.replaced.get(name).unwrap_or(file);
        let content = fs::read(source).with_context(|| format!("read module {}", source.display()))?;
        let content = match source.extension().and_then(|suffix| suffix.to_str()) {
            Some("xz") => filter(&["xz", "-dcq"], &content)?,
            Some("zst") => filter(&["zstd", "-dcq"], &content)?,
            _ => content,
        };
        ensure!(content.starts_with(b"\x7fELF"), "read module {}: not an ELF file", source.display());
        let own_name = information(&content, "name").unwrap_or_default();
        ensure!(own_name == name, "load {} as {name}: it is module {own_name:?}", source.display());
        let path = Path::new("lib/modules").join(file.strip_prefix(&self.folder)?);
        let path = path.to_string_lossy().trim_end_matches(".xz").trim_end_matches(".zst").to_owned();
        Ok(Some(Module { name: name.to_owned(), path, content: unsigned(&content).to_vec() }))
    }
}

/// Appends a module after its dependencies, unless it is there already.
fn append(name: &str, ordered: &mut Vec<Module>, load: &impl Fn(&str) -> Result<Option<Module>>) -> Result<()> {
    if ordered.iter().any(|module| module.name == name) {
        return Ok(());
    }
    if let Some(module) = load(name)? {
        for dependency in dependencies(&module.content) {
            append(&dependency, ordered, load)?;
        }
        ordered.push(module);
    }
    Ok(())
}

/// Returns the names of the modules that a module depends on, in the kernel's spelling.
fn dependencies(module: &[u8]) -> Vec<String> {
    let list = information(module, "depends").unwrap_or_default();
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// Returns a value of a module's section .modinfo, which consists of strings `KEY=VALUE` that end with a zero.
fn information(module: &[u8], key: &str) -> Option<String> {
    let key = format!("\0{key}=");
    let start = module.windows(key.len()).position(|window| window == key.as_bytes())? + key.len();
    let value = module[start..].split(|&byte| byte == 0).next()?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// Returns a module without its appended signature (struct module_signature), whose verification takes seconds in an
/// emulator.
fn unsigned(module: &[u8]) -> &[u8] {
    const MAGIC: &[u8] = b"~Module signature appended~\n";
    let unsigned = || {
        let rest = module.strip_suffix(MAGIC)?;
        let length = u32::from_be_bytes(*rest.last_chunk()?) as usize;
        rest.get(..rest.len().checked_sub(12 + length)?)
    };
    unsigned().unwrap_or(module)
}

/// Adds the module files below a folder, by their names.
fn collect(folder: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("read folder {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.insert(name_of(&path), path);
        }
    }
    Ok(())
}

/// Returns the kernel's name of a module file: kvm_intel for `kvm-intel.ko.xz`.
fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split('.').next().unwrap_or_default().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_their_dependencies_and_once() {
        let load = |name: &str| {
            let content = match name {
                "kvm_intel" => b"\x7fELF\0license=GPL\0depends=kvm\0name=kvm_intel\0".to_vec(),
                "kvm" => b"\x7fELF\0depends=irqbypass,built-in\0".to_vec(),
                "irqbypass" | "msr" => b"\x7fELF\0depends=\0".to_vec(),
                "built_in" => return Ok(None),
                _ => anyhow::bail!("unknown {name}"),
            };
            Ok(Some(Module { name: name.into(), path: String::new(), content }))
        };
        let mut ordered = Vec::new();
        for name in ["kvm_intel", "msr", "kvm"] {
            append(name, &mut ordered, &load).unwrap();
        }
        let names: Vec<_> = ordered.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["irqbypass", "kvm", "kvm_intel", "msr"]);
        assert!(append("other", &mut ordered, &load).is_err());
    }

    #[test]
    fn a_value_is_found_by_its_whole_key() {
        let module = b"\x7fELF\0filename=x\0name=kvm_intel\0vermagic=6.1";
        assert_eq!(information(module, "name").unwrap(), "kvm_intel");
        assert_eq!(information(module, "vermagic").unwrap(), "6.1");
        assert_eq!(information(module, "ame"), None);
    }

    #[test]
    fn signatures_are_removed() {
        let signature =
            [&b"module"[..], b"SIGNATURE", &[0; 8], &9_u32.to_be_bytes(), b"~Module signature appended~\n"].concat();
        assert_eq!(unsigned(&signature), b"module");
        assert_eq!(unsigned(b"module"), b"module");
        assert_eq!(
            unsigned(b"\0\0\0\x09~Module signature appended~\n").len(),
            32,
            "a nonsensical length changes nothing"
        );
    }

    #[test]
    fn file_names_become_the_kernels_names() {
        assert_eq!(name_of(Path::new("/a.b/kvm-intel.ko.xz")), "kvm_intel");
        assert_eq!(name_of(Path::new("msr.ko")), "msr");
    }
}
