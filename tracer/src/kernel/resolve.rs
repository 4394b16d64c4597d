//! Reads the running kernel's BTF and resolves the layout: the I/O for `btf` and `layout`.

use std::{
    fs::{self, File},
    io,
    ops::Deref,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use memmap2::Mmap;

use crate::{
    kernel::{
        btf::Btf,
        layout::{self, Layout},
    },
    model::vendor::Vendor,
    output::shown,
};

fn btf_path(sys: &Path, module: &str) -> PathBuf {
    sys.join("kernel/btf").join(module)
}

/// BTF in memory.
enum Bytes {
    Mapped(Mmap),
    Read(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapped) => mapped,
            Self::Read(read) => read,
        }
    }
}

/// The kernel's own BTF can be mapped since Linux 6.16 ("btf: Allow mmap of vmlinux btf"). Before, and for that of modules, it is
/// read, which takes a system call for each page.
fn bytes(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    // SAFETY: the kernel never changes nor frees its own BTF; a file that a test has made up for it is not changed, either.
    match unsafe { Mmap::map(&file) } {
        Ok(mapped) if !mapped.is_empty() => Ok(Bytes::Mapped(mapped)),
        _ => fs::read(path).map(Bytes::Read),
    }
}

/// A module's BTF; none where it is built in, or has none, which the resolution then reports.
fn optional(path: &Path) -> Result<Option<Bytes>> {
    match bytes(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("read {}", shown(path))),
    }
}

/// The layout of the running kernel, as far as BTF tells it.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// offsets of the fields that the programs read
    pub(crate) layout: Layout,
    /// the vendor's module, where it has no BTF: its fields are missing for that reason, whatever this kernel has; none otherwise
    pub(crate) module_without_btf: Option<&'static str>,
}

/// Says that a module has no BTF, and where it would be.
pub(crate) fn has_no_btf(sys: &Path, module: &str) -> String {
    format!("{module} has no BTF ({} is missing)", shown(&btf_path(sys, module)))
}

/// The fix for a module without BTF. The kernel's messages are those of `btf_module_notify`, the second one since Linux 6.3.
pub(crate) const NO_BTF_FIX: &str = "build it with the running kernel's vmlinux and pahole ('make modules' in the kernel's build folder, \
     CONFIG_DEBUG_INFO_BTF_MODULES=y, Linux 5.11 and later), or install the kernel's own module; if 'dmesg' says 'failed to validate module' \
     or 'Kernel module BTF mismatch detected', it was built for another kernel and loaded without its BTF (CONFIG_MODULE_ALLOW_BTF_MISMATCH)";

/// Resolves the layout of the running kernel, in which the vendor's module runs the VMs. Errors name the kernel option to set.
pub(crate) fn layout(sys: &Path, vendor: Vendor) -> Result<Resolved> {
    let path = btf_path(sys, "vmlinux");
    let Some(vmlinux) = optional(&path)? else {
        bail!("no {}: this kernel was built without BTF; use one with CONFIG_DEBUG_INFO_BTF=y", shown(&path));
    };
    let vmlinux = Btf::parse(&vmlinux, None).with_context(|| format!("read {}", shown(&path)))?;
    let kvm_bytes = optional(&btf_path(sys, "kvm"))?;
    let module = vendor.module();
    let has_kvm_btf = kvm_bytes.is_some();
    let vendor_bytes = match module {
        Some(module) => optional(&btf_path(sys, module))?,
        None => None,
    };
    let parse = |bytes| Btf::parse(bytes, Some(&vmlinux)).context("read a module's BTF");
    let kvm = kvm_bytes.as_deref().map(parse).transpose()?;
    let vendor_btf = vendor_bytes.as_deref().map(parse).transpose()?;

    let kvm = kvm.as_ref().unwrap_or(&vmlinux);
    let vendor_btf = vendor_btf.as_ref().unwrap_or(&vmlinux);
    let structure = if vendor == Vendor::Intel { "vcpu_vmx" } else { "vcpu_svm" };
    let layout = layout::resolve(kvm, vendor, vendor_btf).with_context(|| {
        if has_kvm_btf || kvm.has_struct("kvm_vcpu") {
            "this kernel is not supported".to_owned()
        } else {
            // Built in, its structures would be in the kernel's own BTF.
            format!("{}: {NO_BTF_FIX}", has_no_btf(sys, "kvm"))
        }
    })?;
    Ok(Resolved { layout, module_without_btf: module.filter(|_| !vendor_btf.has_struct(structure)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::layout::made_up;

    /// A /sys whose BTF files these are.
    fn sys(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let sys = tempfile::tempdir().unwrap();
        fs::create_dir_all(sys.path().join("kernel/btf")).unwrap();
        for (file, bytes) in files {
            fs::write(btf_path(sys.path(), file), bytes).unwrap();
        }
        sys
    }

    fn error(files: &[&str], vendor: Vendor) -> String {
        let files: Vec<_> = files.iter().map(|&f| (f, crate::kernel::btf::build::Builder::new().bytes())).collect();
        format!("{:#}", layout(sys(&files).path(), vendor).unwrap_err())
    }

    #[test]
    fn btf_is_mapped_where_it_can_be() {
        let sys = sys(&[("vmlinux", vec![7; 5000])]);
        let found = bytes(&btf_path(sys.path(), "vmlinux")).unwrap();
        assert!(matches!(found, Bytes::Mapped(_)) && *found == [7; 5000]);
        fs::write(sys.path().join("kernel/btf/empty"), "").unwrap();
        assert!(bytes(&btf_path(sys.path(), "empty")).unwrap().is_empty(), "an empty file cannot be mapped");
        assert_eq!(bytes(&btf_path(sys.path(), "none")).map(|_| ()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn missing_btf_is_named_with_its_fix() {
        assert!(error(&[], Vendor::Intel).contains("CONFIG_DEBUG_INFO_BTF=y"));
        let without = error(&["vmlinux"], Vendor::Intel);
        assert!(without.starts_with("kvm has no BTF (") && without.contains("failed to validate module"), "{without}");
        assert!(error(&["vmlinux", "kvm", "x"], Vendor::Other).contains("tracepoint kvm_entry"));
    }

    #[test]
    fn a_vendors_module_without_btf_is_told_from_a_kernel_without_the_fields() {
        let (kernel, module) = made_up::btf(Vendor::Intel);
        let without = layout(sys(&[("vmlinux", kernel.clone())]).path(), Vendor::Intel).unwrap();
        assert_eq!(without.module_without_btf, Some("kvm_intel"));
        let both = sys(&[("vmlinux", kernel.clone()), ("kvm_intel", module)]);
        let with = layout(both.path(), Vendor::Intel).unwrap();
        assert_eq!((with.module_without_btf, with.layout.missing.as_slice()), (None, &[][..]));
        let third = layout(sys(&[("vmlinux", kernel)]).path(), Vendor::Other).unwrap();
        assert_eq!(third.module_without_btf, None, "no module whose fields are wanted");
    }
}
