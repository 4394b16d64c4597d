//! Reads the running kernel's BTF and resolves the layout: the I/O for `btf` and `layout`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    kernel::{
        btf::Btf,
        layout::{self, Layout},
    },
    model::vendor::Vendor,
};

fn btf_path(sys: &Path, module: &str) -> PathBuf {
    sys.join("kernel/btf").join(module)
}

/// A module's BTF; none where it is built in, or has none, which the resolution then reports.
fn optional(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
    }
}

/// Offsets of the fields that the programs read, in the running kernel. Errors name the module to load or the kernel option to set.
pub(crate) fn layout(sys: &Path, vendor: Option<Vendor>) -> Result<Layout> {
    let path = btf_path(sys, "vmlinux");
    let Some(vmlinux) = optional(&path)? else {
        bail!("no {}: this kernel was built without BTF; use one with CONFIG_DEBUG_INFO_BTF=y", path.display());
    };
    let Some(vendor) = vendor else {
        bail!("no KVM module is loaded: run 'modprobe kvm_intel' (or kvm_amd), then 'vmentry check'");
    };
    let vmlinux = Btf::parse(&vmlinux, None).with_context(|| format!("read {}", path.display()))?;
    let kvm_bytes = optional(&btf_path(sys, "kvm"))?;
    let module = vendor.module();
    let vendor_bytes = match module {
        Some(module) => optional(&btf_path(sys, module))?,
        None => None,
    };
    let parse = |bytes| Btf::parse(bytes, Some(&vmlinux)).context("read a module's BTF");
    let kvm = kvm_bytes.as_deref().map(parse).transpose()?;
    let vendor_btf = vendor_bytes.as_deref().map(parse).transpose()?;

    let kvm = kvm.as_ref().unwrap_or(&vmlinux);
    let vendor_btf = vendor_btf.as_ref().unwrap_or(&vmlinux);
    layout::resolve(kvm, vendor, vendor_btf).with_context(|| match module {
        Some(m) if !vendor_btf.has_struct(if vendor == Vendor::Intel { "vcpu_vmx" } else { "vcpu_svm" }) => format!(
            "{m} has no BTF ({} is missing): its kernel needs CONFIG_DEBUG_INFO_BTF_MODULES=y (Linux 5.11 and later)",
            btf_path(sys, m).display()
        ),
        _ => "this kernel is not supported".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(files: &[&str], vendor: Option<Vendor>) -> String {
        let sys = std::env::temp_dir().join(format!("vmentry-probe-{}-{}", std::process::id(), files.len()));
        fs::create_dir_all(sys.join("kernel/btf")).unwrap();
        for file in files {
            fs::write(btf_path(&sys, file), crate::kernel::btf::build::Builder::new().bytes()).unwrap();
        }
        let error = format!("{:#}", layout(&sys, vendor).unwrap_err());
        fs::remove_dir_all(&sys).unwrap();
        error
    }

    #[test]
    fn missing_btf_and_modules_are_named_with_their_fix() {
        assert!(error(&[], Some(Vendor::Intel)).contains("CONFIG_DEBUG_INFO_BTF=y"));
        assert!(error(&["vmlinux"], None).contains("modprobe kvm_intel"));
        assert!(error(&["vmlinux", "kvm"], Some(Vendor::Intel)).contains("CONFIG_DEBUG_INFO_BTF_MODULES=y"));
        assert!(error(&["vmlinux", "kvm", "x"], Some(Vendor::Other)).contains("tracepoint kvm_entry"));
    }
}
