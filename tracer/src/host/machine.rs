//! What host this is: gathered once, written into every recording, shown by `check` and `report`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    kernel::kvm_module::build_id,
    model::{policy::Policy, vendor::Vendor},
};

/// Word on the kernel's command line by which a lab says that its CPU is emulated in software.
pub const LAB_WORD: &str = "vmentry.lab=emulated";

/// The host, as far as it explains figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// the host's name
    pub name: String,
    /// `uname -r`
    pub kernel: String,
    /// e.g. "Intel(R) Xeon(R) ..."
    pub cpu: String,
    /// microcode revision as /proc/cpuinfo prints it; none where it does not
    pub microcode: Option<String>,
    /// CPUs online
    pub cpus: u32,
    /// module that runs VMs; none while none is loaded
    pub vendor: Option<Vendor>,
    /// build-id by module, of kvm and the vendor's; empty where KVM is built in
    pub build_ids: BTreeMap<String, String>,
    /// parameters of the vendor's module
    pub parameters: BTreeMap<String, String>,
    /// the CPU is emulated in software: times mean nothing
    pub emulated: bool,
    /// signature of the hypervisor this host runs under; none on bare metal (and under Bochs, which sets no bit)
    pub virtualized: Option<String>,
    /// kernel's random id of this boot: two recordings with the same one share their clock
    pub boot_id: String,
}

/// Where host facts are read from, so that tests can make one up.
pub struct Roots {
    /// /proc
    pub proc: PathBuf,
    /// /sys
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into() }
    }
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|s| s.trim().to_owned())
}

impl Host {
    /// Reads the host's facts. What cannot be read stays empty: `check` says so.
    pub fn gather(roots: &Roots) -> Self {
        let cpuinfo = line(roots.proc.join("cpuinfo")).unwrap_or_default();
        let field = |name| cpuinfo_field(&cpuinfo, name);
        let cmdline = line(roots.proc.join("cmdline")).unwrap_or_default();
        let virtualized = hypervisor();
        let vendor = vendor(&roots.sys);
        let module = vendor.and_then(Vendor::module);
        Self {
            name: line(roots.proc.join("sys/kernel/hostname")).unwrap_or_default(),
            kernel: line(roots.proc.join("sys/kernel/osrelease")).unwrap_or_default(),
            cpu: field("model name").unwrap_or_default(),
            microcode: field("microcode"),
            cpus: cpuinfo.lines().filter(|l| l.starts_with("processor")).count() as u32,
            vendor,
            build_ids: ["kvm"]
                .into_iter()
                .chain(module)
                .filter_map(|m| Some((m.to_owned(), build_id(&roots.sys, m)?)))
                .collect(),
            parameters: module.map(|m| parameters(&roots.sys, m)).unwrap_or_default(),
            emulated: cmdline.split_whitespace().any(|w| w == LAB_WORD)
                || virtualized.as_deref().is_some_and(|v| v.starts_with("TCG")),
            virtualized,
            boot_id: line(roots.proc.join("sys/kernel/random/boot_id")).unwrap_or_default(),
        }
    }

    /// The policy that the parameters tell. `soft_field`: the kernel knows a soft-disabled timer at all.
    pub fn policy(&self, soft_field: bool) -> Policy {
        if self.vendor != Some(Vendor::Intel) {
            return Policy::Unknown;
        }
        match self.parameters.get("preemption_timer").map(String::as_str) {
            Some("N" | "0") => return Policy::Off,
            Some(_) => {}
            None => return Policy::Unknown,
        }
        match self.parameters.get("preemption_timer_policy").map(String::as_str) {
            Some("soft") => Policy::Soft,
            Some("hard") => Policy::Hard,
            Some(_) => Policy::Unknown,
            // Without the companion patch: soft since commit 804939ea20, which brought the field.
            None if soft_field => Policy::Soft,
            None => Policy::Hard,
        }
    }

    /// One word on what the figures of this host are worth: "emulated", "virtualized (KVMKVMKVM)" or none.
    pub fn caveat(&self) -> Option<String> {
        if self.emulated {
            return Some("emulated".into());
        }
        self.virtualized.as_ref().map(|v| format!("virtualized ({v})"))
    }
}

fn vendor(sys: &Path) -> Option<Vendor> {
    let loaded = |m: &str| sys.join("module").join(m).is_dir();
    [(Vendor::Intel, "kvm_intel"), (Vendor::Amd, "kvm_amd")]
        .into_iter()
        .find(|(_, module)| loaded(module))
        .map(|(vendor, _)| vendor)
        .or_else(|| loaded("kvm").then_some(Vendor::Other).filter(|_| other_vendor(sys)))
}

/// kvm alone runs no VM: some third module (kvm_pvm, for one) has to be there.
fn other_vendor(sys: &Path) -> bool {
    fs::read_dir(sys.join("module"))
        .is_ok_and(|d| d.flatten().any(|e| e.file_name().to_string_lossy().starts_with("kvm_")))
}

fn parameters(sys: &Path, module: &str) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(sys.join("module").join(module).join("parameters")) else {
        return BTreeMap::new();
    };
    entries.flatten().filter_map(|e| Some((e.file_name().into_string().ok()?, line(e.path())?))).collect()
}

fn cpuinfo_field(cpuinfo: &str, name: &str) -> Option<String> {
    cpuinfo.lines().find_map(|l| {
        let (key, value) = l.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// The hypervisor's signature (CPUID leaf 0x40000000), where CPUID.1:ECX[31] says there is one.
#[cfg(target_arch = "x86_64")]
fn hypervisor() -> Option<String> {
    use std::arch::x86_64::__cpuid;
    if __cpuid(1).ecx >> 31 == 0 {
        return None;
    }
    let leaf = __cpuid(0x4000_0000);
    let bytes: Vec<u8> = [leaf.ebx, leaf.ecx, leaf.edx].iter().flat_map(|r| r.to_le_bytes()).collect();
    let text: String = bytes.iter().take_while(|&&b| b != 0).map(|&b| b as char).collect();
    Some(if text.trim().is_empty() { "unknown hypervisor".into() } else { text.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intel(parameters: &[(&str, &str)]) -> Host {
        Host {
            vendor: Some(Vendor::Intel),
            parameters: parameters.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
            ..Host::default()
        }
    }

    #[test]
    fn the_policy_comes_from_the_parameters_and_never_from_a_guess() {
        assert_eq!(intel(&[("preemption_timer", "Y")]).policy(true), Policy::Soft);
        assert_eq!(intel(&[("preemption_timer", "Y")]).policy(false), Policy::Hard);
        assert_eq!(intel(&[("preemption_timer", "N")]).policy(true), Policy::Off);
        let patched = |p| intel(&[("preemption_timer", "Y"), ("preemption_timer_policy", p)]).policy(true);
        assert_eq!((patched("soft"), patched("hard"), patched("odd")), (Policy::Soft, Policy::Hard, Policy::Unknown));
        assert_eq!(intel(&[]).policy(true), Policy::Unknown);
        assert_eq!(Host { vendor: Some(Vendor::Amd), ..Host::default() }.policy(true), Policy::Unknown);
    }

    #[test]
    fn a_lab_is_emulated_by_its_word_alone() {
        let dir = std::env::temp_dir().join(format!("vmentry-host-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let roots = Roots { proc: dir.clone(), sys: dir.clone() };
        fs::write(dir.join("cmdline"), "quiet vmentry.lab=emulated panic=1\n").unwrap();
        assert!(Host::gather(&roots).emulated);
        fs::write(dir.join("cmdline"), "quiet vmentry.lab=emulated2\n").unwrap();
        let host = Host::gather(&roots);
        assert_eq!(host.emulated, host.virtualized.is_some_and(|v| v.starts_with("TCG")));
        assert_eq!(host.vendor, None);
        fs::remove_dir_all(&dir).unwrap();
    }
}
