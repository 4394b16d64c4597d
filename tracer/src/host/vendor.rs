//! The KVM module that runs the VMs: the one that the CPU's extension lets run, not any whose folder is in /sys/module.

use std::path::Path;

use serde::Serialize;

use crate::{
    host::{
        machine::cpuinfo_field,
        process::{text, text_of_hardware},
        roots::Roots,
    },
    model::vendor::Vendor,
};

/// Why no module runs VMs, and the fix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NoVendor {
    /// the reason, with the flags and modules that were found
    pub(crate) why: String,
    /// how to fix it
    pub(crate) fix: String,
}

/// The module that runs VMs.
///
/// A loadable module stays only if its initialization succeeded, so that a live one runs. A built-in module has its folder in
/// /sys/module on every CPU, also on those of the other vendor, and runs only on a CPU with its extension.
pub(crate) fn find(roots: &Roots) -> Result<Vendor, NoVendor> {
    let modules = roots.sys.join("module");
    let extension = extension(&roots.proc);
    let present = |vendor: &Vendor| vendor.module().is_some_and(|name| modules.join(name).is_dir());
    let is_live = |vendor: &Vendor| vendor.module().is_some_and(|name| is_live(&modules.join(name)));
    let vendors = [Vendor::Intel, Vendor::Amd];
    let running = vendors.into_iter().find(|v| present(v) && extension == Some(*v));
    // /proc/cpuinfo can be made up, as in a container; a live module cannot.
    if let Some(vendor) = running.or_else(|| vendors.into_iter().find(is_live)) {
        return Ok(vendor);
    }
    if modules.join("kvm").is_dir() && has_third_module(&modules) {
        return Ok(Vendor::Other);
    }
    let idle: Vec<_> = vendors.into_iter().filter(present).filter_map(Vendor::module).collect();
    Err(no_vendor(extension, &idle))
}

/// The vendor whose module the CPU's virtualization extension is for; none without one. Centaur's and Zhaoxin's CPUs have VMX, Hygon's SVM.
fn extension(proc: &Path) -> Option<Vendor> {
    let flags = cpuinfo_field(&text_of_hardware(&proc.join("cpuinfo")).ok()?, "flags")?;
    flags.split_whitespace().find_map(|flag| match flag {
        "vmx" => Some(Vendor::Intel),
        "svm" => Some(Vendor::Amd),
        _ => None,
    })
}

/// Whether a loadable module has been initialized; a built-in one has no `initstate`.
fn is_live(module: &Path) -> bool {
    text(&module.join("initstate")).is_ok_and(|state| state.trim() == "live")
}

/// Whether a third vendor's module is there, such as kvm_pvm: kvm alone runs no VM.
fn has_third_module(modules: &Path) -> bool {
    let entries = std::fs::read_dir(modules).into_iter().flatten().flatten();
    entries.into_iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).any(|name| {
        name.starts_with("kvm_") && ![Vendor::Intel, Vendor::Amd].iter().any(|v| v.module() == Some(name.as_str()))
    })
}

fn no_vendor(extension: Option<Vendor>, idle: &[&str]) -> NoVendor {
    let found = if idle.is_empty() {
        "no KVM module is loaded".to_owned()
    } else {
        format!("no KVM module runs VMs here: {} is built in for other CPUs", idle.join(" and "))
    };
    let (cpu, modules) = match extension {
        Some(Vendor::Intel) => ("this CPU has VMX", "kvm_intel"),
        Some(Vendor::Amd) => ("this CPU has SVM", "kvm_amd"),
        _ => ("/proc/cpuinfo has neither flag vmx nor svm", "kvm_intel (or kvm_amd)"),
    };
    NoVendor {
        why: format!("{found}; {cpu}"),
        fix: format!(
            "modprobe {modules}; if that fails, VMX or SVM is off in the firmware, or the hypervisor below hides it"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::roots::made_up::Folder;

    /// A host whose CPU has these flags. A module is built in, unless `live` follows its name.
    fn host(flags: &str, modules: &[&str]) -> Folder {
        let host = Folder::new();
        host.write("proc/cpuinfo", format!("processor\t: 0\nflags\t\t: fpu {flags} sse\n"));
        for module in modules {
            let (name, state) = module.split_once(' ').unwrap_or((module, ""));
            host.write(&format!("sys/module/{name}/parameters/nested"), "Y\n");
            if !state.is_empty() {
                host.write(&format!("sys/module/{name}/initstate"), format!("{state}\n"));
            }
        }
        host
    }

    fn found(flags: &str, modules: &[&str]) -> Option<Vendor> {
        find(&host(flags, modules).roots).ok()
    }

    #[test]
    fn the_cpu_decides_between_two_modules_that_are_built_in() {
        let both = ["kvm", "kvm_intel", "kvm_amd"];
        assert_eq!(found("svm", &both), Some(Vendor::Amd), "AMD and Hygon");
        assert_eq!(found("vmx", &both), Some(Vendor::Intel), "Intel, Centaur and Zhaoxin");
        assert_eq!(found("", &both), None);
        assert_eq!(found("vmx_x", &both), None, "a flag is a whole word");
    }

    #[test]
    fn a_module_that_is_built_in_for_another_cpu_runs_nothing() {
        let host = host("svm", &["kvm", "kvm_intel"]);
        let error = find(&host.roots).unwrap_err();
        assert!(error.why.ends_with("kvm_intel is built in for other CPUs; this CPU has SVM"), "{error:?}");
        assert!(error.fix.starts_with("modprobe kvm_amd;"), "{error:?}");
        assert_eq!(found("svm", &["kvm", "kvm_intel", "kvm_amd live"]), Some(Vendor::Amd));
    }

    #[test]
    fn a_live_module_runs_whatever_cpuinfo_shows() {
        assert_eq!(found("", &["kvm live", "kvm_intel live"]), Some(Vendor::Intel));
        assert_eq!(found("", &["kvm live", "kvm_intel coming"]), None);
        assert_eq!(found("", &["kvm live", "kvm_intel", "kvm_amd live"]), Some(Vendor::Amd));
    }

    #[test]
    fn a_third_module_is_neither_of_the_two() {
        assert_eq!(found("", &["kvm", "kvm_pvm"]), Some(Vendor::Other));
        assert_eq!(found("", &["kvm", "kvm_pvm", "kvm_intel"]), Some(Vendor::Other), "built in, and no VMX");
        assert_eq!(found("vmx", &["kvm", "kvm_pvm", "kvm_intel"]), Some(Vendor::Intel));
        assert_eq!(found("vmx", &["kvm_pvm"]), None, "no kvm");
    }

    #[test]
    fn without_a_module_the_one_of_this_cpu_is_named() {
        let fix = |flags| find(&host(flags, &["kvm"]).roots).unwrap_err().fix;
        assert!(fix("vmx").starts_with("modprobe kvm_intel;"));
        assert!(fix("svm").starts_with("modprobe kvm_amd;"));
        assert!(fix("").contains("kvm_intel (or kvm_amd)"));
    }
}
