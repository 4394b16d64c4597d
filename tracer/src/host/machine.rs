//! The identity of this host: gathered once, written into every recording, shown by `check` and `report`.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    host::{
        policy,
        process::{text, text_of_hardware},
        roots::Roots,
        vendor,
    },
    kernel::kvm_module::build_id,
    model::{policy::Policy, vendor::Vendor},
    output::{MAX_NAME, MAX_TEXT, name, printable},
};

/// Word on the kernel's command line of a lab whose CPU is emulated in software.
pub(crate) const LAB_WORD: &str = "vmentry.lab=emulated";

/// The properties of a host that explain its figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// the host's name
    pub name: String,
    /// `uname -r`
    pub kernel: String,
    /// e.g. "Intel(R) Xeon(R) ..."
    pub cpu: String,
    /// microcode revision as in /proc/cpuinfo; none where it has none
    pub microcode: Option<String>,
    /// CPUs online
    pub cpus: u32,
    /// module that runs VMs; none while none does
    pub vendor: Option<Vendor>,
    /// build-ids of kvm and the vendor's module, by module; empty where KVM is built in
    pub build_ids: BTreeMap<String, String>,
    /// parameters of the vendor's module
    pub parameters: BTreeMap<String, String>,
    /// the CPU is emulated in software: times say nothing about real hardware
    pub emulated: bool,
    /// signature of the hypervisor that this host runs on; none on bare metal (and under Bochs, which does not set the CPUID bit)
    pub virtualized: Option<String>,
    /// the kernel's random id of this boot: recordings with the same id share their clock
    pub boot_id: String,
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    text(path.as_ref()).ok().map(|s| s.trim().to_owned())
}

impl Host {
    /// Reads the host's properties. Those that cannot be read stay empty; `check` reports them.
    pub(crate) fn gather(roots: &Roots) -> Self {
        let cpuinfo = text_of_hardware(&roots.proc.join("cpuinfo")).unwrap_or_default();
        let field = |name| Some(printable(&cpuinfo_field(&cpuinfo, name)?, MAX_TEXT).into_owned());
        let cmdline = line(roots.proc.join("cmdline")).unwrap_or_default();
        let virtualized = hypervisor(&cpuinfo);
        let vendor = vendor::find(roots).ok();
        let module = vendor.and_then(Vendor::module);
        Self {
            name: name(&line(roots.proc.join("sys/kernel/hostname")).unwrap_or_default()).into_owned(),
            kernel: line(roots.proc.join("sys/kernel/osrelease")).unwrap_or_default(),
            cpu: field("model name").unwrap_or_default(),
            microcode: field("microcode"),
            cpus: u32::try_from(cpuinfo.lines().filter(|l| l.starts_with("processor")).count()).unwrap_or(u32::MAX),
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

    /// The policy, from the module's parameters. `soft_field`: its `struct loaded_vmcs` is known to have `hv_timer_soft_disabled`. That it is
    /// not found there is no sign of the hard policy: kernels without the soft one are older than any that has the programs' BTF.
    pub(crate) fn policy(&self, soft_field: bool) -> Policy {
        if self.vendor != Some(Vendor::Intel) {
            return Policy::Unknown;
        }
        match self.parameters.get("preemption_timer").map(String::as_str) {
            Some("N" | "0") => return Policy::Off,
            Some(_) => {}
            None => return Policy::Unknown,
        }
        match self.parameters.get("preemption_timer_policy").map(String::as_str) {
            Some(text) => policy::parse(text),
            // Without the companion patch: soft since commit 804939ea20, which added the field.
            None if soft_field => Policy::Soft,
            None => Policy::Unknown,
        }
    }

    /// Why this host's times need caution: "emulated" or "virtualized (KVMKVMKVM)"; none on bare metal.
    pub(crate) fn caveat(&self) -> Option<String> {
        if self.emulated {
            return Some("emulated".into());
        }
        self.virtualized.as_ref().map(|v| format!("virtualized ({v})"))
    }
}

/// The parameters of a module below `sys`, usually /sys, by name; empty without the module.
pub(crate) fn parameters(sys: &Path, module: &str) -> BTreeMap<String, String> {
    let Ok(entries) = fs::read_dir(sys.join("module").join(module).join("parameters")) else {
        return BTreeMap::new();
    };
    entries.flatten().filter_map(|e| Some((e.file_name().into_string().ok()?, line(e.path())?))).collect()
}

/// The first value of a field of /proc/cpuinfo.
pub(super) fn cpuinfo_field(cpuinfo: &str, name: &str) -> Option<String> {
    cpuinfo.lines().find_map(|l| {
        let (key, value) = l.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Signature of the hypervisor below; none where /proc/cpuinfo has no flag `hypervisor` (CPUID.1:ECX[31]).
fn hypervisor(cpuinfo: &str) -> Option<String> {
    let flags = cpuinfo_field(cpuinfo, "flags")?;
    flags.split_whitespace().any(|flag| flag == "hypervisor").then(hypervisor_signature)
}

/// CPUID leaf 0x40000000: twelve characters.
fn hypervisor_signature() -> String {
    let leaf = std::arch::x86_64::__cpuid(0x4000_0000);
    let bytes: Vec<u8> = [leaf.ebx, leaf.ecx, leaf.edx].iter().flat_map(|r| r.to_le_bytes()).collect();
    signature_text(&bytes)
}

/// A signature as text. The hypervisor chooses its bytes.
fn signature_text(bytes: &[u8]) -> String {
    let text: String = bytes.iter().take_while(|&&b| b != 0).map(|&b| char::from(b)).collect();
    if text.trim().is_empty() { "unknown hypervisor".into() } else { printable(text.trim(), MAX_NAME).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::roots::made_up::Folder;

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
        assert_eq!(intel(&[("preemption_timer", "Y")]).policy(false), Policy::Unknown);
        assert_eq!(intel(&[("preemption_timer", "N")]).policy(true), Policy::Off);
        let patched = |p| intel(&[("preemption_timer", "Y"), ("preemption_timer_policy", p)]).policy(false);
        assert_eq!((patched("soft"), patched("hard"), patched("odd")), (Policy::Soft, Policy::Hard, Policy::Unknown));
        assert_eq!(intel(&[]).policy(true), Policy::Unknown);
        assert_eq!(Host { vendor: Some(Vendor::Amd), ..Host::default() }.policy(true), Policy::Unknown);
    }

    #[test]
    fn a_lab_is_recognised_by_its_whole_word() {
        let folder = Folder::new();
        folder.write("proc/cmdline", "quiet vmentry.lab=emulated panic=1\n");
        assert!(Host::gather(&folder.roots).emulated);
        folder.write("proc/cmdline", "quiet vmentry.lab=emulated2\n");
        let host = Host::gather(&folder.roots);
        assert_eq!((host.emulated, host.virtualized, host.vendor), (false, None, None));
    }

    #[test]
    fn what_a_hypervisor_and_an_administrator_chose_is_printable() {
        assert_eq!(signature_text(b"KVMKVMKVM\0\0\0"), "KVMKVMKVM");
        assert_eq!(signature_text(b"a\x1b[2J\n\x9bb\0c"), "a\u{fffd}[2J\u{fffd}\u{fffd}b");
        assert_eq!(signature_text(b"   \0"), "unknown hypervisor");
        let folder = Folder::new();
        folder.write("proc/sys/kernel/hostname", "h\u{1b}]0;x\u{7}\n");
        folder.write("proc/cpuinfo", "model name\t: c\u{1b}[2Jpu\n");
        let host = Host::gather(&folder.roots);
        assert!(host.name.starts_with("h\u{fffd}]0;x\u{fffd}~"), "{}", host.name);
        assert_eq!(host.cpu, "c\u{fffd}[2Jpu");
    }

    #[test]
    fn a_hypervisor_is_looked_for_where_the_cpu_has_its_flag() {
        assert_eq!(hypervisor("flags\t\t: fpu vmx\n"), None);
        assert_eq!(hypervisor("flags\t\t: fpu hypervisor_x\n"), None);
        assert!(hypervisor("flags\t\t: fpu hypervisor\n").is_some());
    }
}
