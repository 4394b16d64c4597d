//! The vendor's KVM module: its file on disk with the build-id of the loaded one, unpacked; and whether the module is unloaded or replaced
//! during a recording.

use std::{
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use object::Object;

use crate::output::shown;

/// Watches a loaded module.
pub(crate) struct Watch {
    sys: PathBuf,
    module: &'static str,
    first: Loaded,
    last: Loaded,
}

/// One loading of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Loaded {
    build_id: Option<String>,
    /// of its folder in sysfs; another one after each loading
    inode: Option<u64>,
}

/// A change to a module since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// not loaded any more: no VM can run
    Unloaded,
    /// loaded again, the same build: offsets are valid, probes in its code are gone
    Reloaded,
    /// another build was loaded: offsets are not valid
    Replaced,
}

impl Watch {
    /// Starts from the module that is loaded now.
    pub(crate) fn new(sys: &Path, module: &'static str) -> Self {
        let now = Loaded::now(sys, module);
        Self { sys: sys.to_owned(), module, first: now.clone(), last: now }
    }

    /// The change since the last look; none without one.
    pub(crate) fn look(&mut self) -> Option<Change> {
        let now = Loaded::now(&self.sys, self.module);
        // While it is loaded or unloaded it has a folder without notes; the next look shows the result.
        let passing = now.inode.is_some() && now.build_id.is_none() && self.first.build_id.is_some();
        if now == self.last || passing {
            return None;
        }
        self.last = now;
        Some(match &self.last {
            Loaded { inode: None, .. } => Change::Unloaded,
            now if now.build_id == self.first.build_id => Change::Reloaded,
            _ => Change::Replaced,
        })
    }
}

impl Loaded {
    fn now(sys: &Path, module: &str) -> Self {
        let folder = fs::metadata(sys.join("module").join(module));
        Self { build_id: build_id(sys, module), inode: folder.ok().map(|m| m.ino()) }
    }
}

/// Reads the running kernel's `module` (kvm_intel) from the file that has the build-id of the loaded one.
pub(crate) fn read_loaded(lib_modules: &Path, release: &str, module: &str, build_id: Option<&str>) -> Result<Vec<u8>> {
    let Some(build_id) = build_id else {
        bail!("{module} shows no build-id in /sys/module/{module}/notes: its file cannot be told from another build's");
    };
    let root = lib_modules.join(release);
    let mut files = Vec::new();
    search(&root, module, &mut files);
    if files.is_empty() {
        bail!("no {module} below {}: install the kernel's module package", shown(&root));
    }
    for path in &files {
        let bytes = unpack(path).with_context(|| format!("read {}", shown(path)))?;
        if id_of(&bytes).as_deref() == Some(build_id) {
            return Ok(bytes);
        }
    }
    let names: Vec<_> = files.iter().map(|p| shown(p)).collect();
    bail!(
        "{module} is loaded with build-id {build_id}, which is none of {}: load the module that is installed",
        names.join(", ")
    )
}

/// Collects the module's files below a folder. Links are not followed, so that the walk ends.
fn search(folder: &Path, module: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        if kind.as_ref().is_ok_and(|k| k.is_dir()) {
            search(&path, module, files);
        } else if kind.is_ok_and(|k| k.is_file()) {
            let name = entry.file_name().to_string_lossy().replace('-', "_");
            if name.split_once(".ko").is_some_and(|(stem, _)| stem == module) {
                files.push(path);
            }
        }
    }
}

/// Reads a module's file, decompressed by its extension.
fn unpack(path: &Path) -> Result<Vec<u8>> {
    let packed = fs::read(path)?;
    let mut bytes = Vec::new();
    match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => lzma_rs::xz_decompress(&mut packed.as_slice(), &mut bytes)?,
        Some("zst") => {
            ruzstd::decoding::StreamingDecoder::new(packed.as_slice())?.read_to_end(&mut bytes)?;
        }
        Some("gz") => {
            flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut bytes)?;
        }
        _ => bytes = packed,
    }
    Ok(bytes)
}

fn id_of(module: &[u8]) -> Option<String> {
    let elf = object::File::parse(module).ok()?;
    Some(elf.build_id().ok()??.iter().map(|b| format!("{b:02x}")).collect())
}

/// Build-id of a loaded module; none where it is not loaded, or built in.
pub(crate) fn build_id(sys: &Path, module: &str) -> Option<String> {
    let note = fs::read(sys.join("module").join(module).join("notes/.note.gnu.build-id")).ok()?;
    parse_build_id(&note)
}

/// The id in an ELF note: three words (name size, id size, type), the name "GNU", the id.
fn parse_build_id(note: &[u8]) -> Option<String> {
    let word = |at: usize| Some(u32::from_ne_bytes(note.get(at..at + 4)?.try_into().ok()?) as usize);
    let name = word(0)?.next_multiple_of(4);
    let id = note.get(12 + name..)?.get(..word(4)?)?;
    (!id.is_empty()).then(|| id.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unloading_reloading_and_replacing_a_module_are_noticed_once_each() {
        let temporary = tempfile::tempdir().unwrap();
        let sys = temporary.path();
        let folder = sys.join("module/kvm_intel");
        let load = |id: u8| {
            fs::create_dir_all(folder.join("notes")).unwrap();
            let mut note: Vec<u8> = [4u32, 1, 3].iter().flat_map(|w| w.to_ne_bytes()).collect();
            note.extend([b'G', b'N', b'U', 0, id]);
            fs::write(folder.join("notes/.note.gnu.build-id"), note).unwrap();
        };
        load(1);
        let mut watch = Watch::new(sys, "kvm_intel");
        assert_eq!(watch.look(), None);
        // The kernel removes the notes first, and adds them last.
        fs::rename(folder.join("notes"), sys.join("notes")).unwrap();
        assert_eq!(watch.look(), None);
        // Renamed, not removed, so that the new folder cannot get the old one's inode.
        fs::rename(&folder, sys.join("old")).unwrap();
        assert_eq!((watch.look(), watch.look()), (Some(Change::Unloaded), None));
        load(1);
        assert_eq!((watch.look(), watch.look()), (Some(Change::Reloaded), None));
        fs::rename(&folder, sys.join("older")).unwrap();
        load(2);
        assert_eq!((watch.look(), watch.look()), (Some(Change::Replaced), None));
    }

    #[test]
    fn a_missing_file_or_build_id_is_named() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        let folder = root.join("6.1/kernel/arch");
        fs::create_dir_all(&folder).unwrap();
        let message = |id| read_loaded(root, "6.1", "kvm_intel", id).unwrap_err().to_string();
        assert!(message(None).contains("no build-id"));
        assert!(message(Some("ab")).contains("no kvm_intel below"));
        fs::write(folder.join("kvm-intel.ko"), b"no module").unwrap();
        fs::write(folder.join("kvm-intel-extra.ko"), b"another").unwrap();
        let error = message(Some("ab"));
        assert!(error.contains("kvm-intel.ko:") && !error.contains("extra"), "{error}");
    }

    #[test]
    fn a_build_id_is_read_from_its_note_and_nothing_else() {
        let mut note: Vec<u8> = [4u32, 3, 3].iter().flat_map(|w| w.to_ne_bytes()).collect();
        note.extend(b"GNU\0\xab\xcd\x01");
        assert_eq!(parse_build_id(&note).as_deref(), Some("abcd01"));
        assert_eq!(parse_build_id(&note[..note.len() - 1]), None);
        assert_eq!(parse_build_id(&[]), None);
    }
}
