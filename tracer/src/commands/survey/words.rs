//! Closed lists of the words that a survey may have. A survey is written with no others, and one that has others gives no row: a text that
//! its owner chooses may be a name.

use crate::model::{exit_reasons, vendor::Vendor};

/// Stands for a word that is not on its list.
pub(super) const OTHER: &str = "other";
/// Stands for the suffix of a kernel release that is not a distribution's.
const OWN: &str = "-own";

/// Signatures of hypervisors (CPUID 0x40000000).
const HYPERVISORS: [&str; 20] = [
    "KVMKVMKVM",
    "Linux KVM Hv",
    "Microsoft Hv",
    "VMwareVMware",
    "XenVMMXenVMM",
    "TCGTCGTCGTCG",
    "bhyve bhyve",
    "lrpepyh  vr",
    "lrpepyh vr",
    "prl hyperv",
    "ACRNACRNACRN",
    "QNXQVMBSQG",
    "VBoxVBoxVBox",
    "OpenBSDVMM58",
    "HAXMHAXMHAXM",
    "SRESRESRESRE",
    "EVMMEVMMEVMM",
    "___ NVMM ___",
    "unknown hypervisor",
    OTHER,
];
/// The kernel's clock sources on x86.
const CLOCK_SOURCES: [&str; 12] = [
    "tsc",
    "tsc-early",
    "hpet",
    "acpi_pm",
    "kvm-clock",
    "xen",
    "hyperv_clocksource_tsc_page",
    "hyperv_clocksource_msr",
    "jiffies",
    "refined-jiffies",
    "unknown",
    OTHER,
];
/// Sources of pin-control writes.
const PIN_SOURCES: [&str; 2] = ["shadow", "tracepoint"];
/// Parameters of kvm_intel, of kvm_amd and of the companion patches.
const PARAMETERS: &str = "\
    allow_smaller_maxphyaddr avic ciphertext_hiding_asids debug_swap dump_invalid_vmcb dump_invalid_vmcs \
    emulate_invalid_guest_state enable_apicv enable_device_posted_irqs enable_ipiv enable_shadow_vmcs \
    enlightened_vmcs ept eptad error_on_inconsistent_vmcs_config fasteoi flexpriority force_avic intercept_smi lbrv \
    nested nested_early_check npt nrips pause_filter_count pause_filter_count_grow pause_filter_count_max \
    pause_filter_count_shrink pause_filter_thresh ple_gap ple_window ple_window_grow ple_window_max \
    ple_window_shrink pml preemption_timer preemption_timer_cap preemption_timer_max preemption_timer_policy \
    preemption_timer_soft_value preemption_timer_stopwatch pt_mode sev sev_es sev_snp sgx tdx tsc_scaling \
    unrestricted_guest vgif vls vmentry_l1d_flush vnmi vpid x2avic";
/// Values of parameters that are no numbers.
const PARAMETER_VALUES: [&str; 13] = [
    "Y",
    "N",
    "auto",
    "never",
    "cond",
    "always",
    "EPT disabled",
    "not required",
    "vulnerable",
    "flush not required",
    "soft",
    "hard",
    OTHER,
];
/// Structures of the kernel whose fields the programs read.
const STRUCTURES: [&str; 8] =
    ["kvm", "kvm_vcpu", "vcpu_vmx", "loaded_vmcs", "vcpu_svm", "vmcb", "task_struct", "timespec64"];
/// Words in the suffixes of distributions' kernels; digits may follow, as in "deb13" and "el9".
const DISTRIBUTIONS: &str = "\
    amd64 amzn arch aws azl azure bpo cachyos cloud cm current deb debian default desktop edge el elrepo fc fde gcp \
    generic gentoo gke hardened hwe ibm intel kvm liquorix lowlatency lp lts microsoft mga mgalinux minimal oem ol \
    oracle pve rc realtime rpi rt server std standard tiny trunk uek unsigned vanilla virt vms WSL x64v x86 xanmod zen";
/// Words of CPU models that have no digit.
const CPU_WORDS: &str = "\
    Intel(R) Intel AMD Hygon ZHAOXIN Genuine Xeon(R) Xeon Core(TM) Core(TM)2 Core Atom(TM) Pentium(R) Celeron(R) \
    Platinum Gold Silver Bronze Max Ultra CPU Processor Processor, @ EPYC EPYC-Rome EPYC-Milan EPYC-Genoa Ryzen \
    Threadripper PRO AI Opteron(tm) Opteron(TM) Athlon(tm) Phenom(tm) FX(tm) II Quad-Core Six-Core Eight-Core Dual-Core \
    Embedded with Radeon Graphics RADEON Series Mobile Vega Duo Quad Extreme Dhyana KaiXian KH-40000 \
    (Nehalem) (Westmere) (SandyBridge) (IvyBridge) (Haswell) (Broadwell) (Skylake) (Skylake, (Cascadelake) (Icelake) \
    (Cooperlake) (SapphireRapids) (GraniteRapids) IBRS) IBRS";

/// Whether one of the words of a list is this one.
fn has(list: &str, word: &str) -> bool {
    list.split(' ').any(|one| one == word)
}

/// The word if the list has it, or [`OTHER`].
fn or_other(list: &[&str], word: &str) -> String {
    if list.contains(&word) { word.into() } else { OTHER.into() }
}

pub(super) fn is_hypervisor(signature: &str) -> bool {
    HYPERVISORS.contains(&signature)
}

/// The signature of a hypervisor that is known, or [`OTHER`].
pub(super) fn hypervisor(signature: &str) -> String {
    or_other(&HYPERVISORS, signature)
}

pub(super) fn is_clock_source(name: &str) -> bool {
    CLOCK_SOURCES.contains(&name)
}

/// The kernel's clock source, or [`OTHER`].
pub(super) fn clock_source(name: &str) -> String {
    or_other(&CLOCK_SOURCES, name)
}

pub(super) fn is_pin_source(name: &str) -> bool {
    PIN_SOURCES.contains(&name)
}

/// "0xd0003e7"
pub(super) fn is_microcode(text: &str) -> bool {
    let digits = text.strip_prefix("0x").unwrap_or_default();
    (1..=16).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_hexdigit())
}

/// CPUs, e.g. "2-3,8"
pub(super) fn is_cpu_list(text: &str) -> bool {
    text.len() <= 400 && text.chars().all(|c| c.is_ascii_digit() || ",-".contains(c))
}

/// A field that a kernel's BTF may lack, e.g. "loaded_vmcs.controls_shadow.pin"
pub(super) fn is_field(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.".contains(c);
    let of_structure = text.split_once('.').is_some_and(|(structure, _)| STRUCTURES.contains(&structure));
    text == "kvm_userspace_exit" || of_structure && text.len() <= 60 && text.chars().all(is_word)
}

pub(super) fn is_parameter(name: &str) -> bool {
    has(PARAMETERS, name)
}

/// A number, or one of the words that KVM's parameters have.
pub(super) fn is_parameter_value(value: &str) -> bool {
    value.parse::<i64>().is_ok() || PARAMETER_VALUES.contains(&value)
}

/// The value, or [`OTHER`].
pub(super) fn parameter_value(value: &str) -> String {
    if is_parameter_value(value) { value.into() } else { OTHER.into() }
}

/// An exit reason as this vendor's module has it.
pub(super) fn is_reason(vendor: Option<Vendor>, name: &str) -> bool {
    let bare = name.trim_end_matches(" (failed entry)").trim_end_matches(" (bus lock)");
    let is_code = bare.strip_prefix("0x").is_some_and(|code| u32::from_str_radix(code, 16).is_ok());
    match vendor.and_then(Vendor::isa) {
        Some(isa) => exit_reasons::parse(isa, bare).is_some_and(|code| exit_reasons::name(isa, code) == bare),
        None => is_code,
    }
}

/// A kernel release as it is written: a distribution's as it is, and of any other only the numbers and "-own".
pub(super) fn kernel(release: &str) -> String {
    let at = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
    let (numbers, suffix) = release.split_at(at);
    let parts: Vec<_> = numbers.trim_end_matches('.').split('.').collect();
    let is_version = (2..=4).contains(&parts.len()) && parts.iter().all(|part| part.parse::<u16>().is_ok());
    match (is_version, suffix) {
        (false, _) => String::new(),
        (true, OWN) => release.into(),
        (true, suffix) if suffix.split(['-', '.', '+', '_', '~']).all(is_distribution) => release.into(),
        (true, _) => format!("{}{OWN}", parts.join(".")),
    }
}

/// A number, a distribution's word with or without a number, or a commit ("g1a2b3c4d5e6f").
fn is_distribution(word: &str) -> bool {
    let bare = word.trim_end_matches(|c: char| c.is_ascii_digit());
    let is_commit = word.strip_prefix('g').is_some_and(|id| {
        (7..=12).contains(&id.len())
            && id.chars().all(|c| c.is_ascii_hexdigit())
            && id.contains(|c: char| c.is_ascii_digit())
    });
    // Of "el9uek" both words are known.
    let is_two = word.split(|c: char| c.is_ascii_digit()).all(|part| part.is_empty() || has(DISTRIBUTIONS, part));
    bare.is_empty() || has(DISTRIBUTIONS, bare) || has(DISTRIBUTIONS, word) || is_commit || is_two
}

/// Whether a CPU model begins as its makers' do, without an address.
pub(super) fn is_cpu(model: &str) -> bool {
    let first = model.split_whitespace().next().unwrap_or_default();
    let is_maker = [
        "Intel(R)", "Intel", "AMD", "Genuine", "Hygon", "ZHAOXIN", "VIA", "QEMU", "Common", "12th", "13th", "14th",
        "11th",
    ]
    .contains(&first);
    let is_usual = |c: char| c.is_ascii_alphanumeric() || " ()@.,-+/_".contains(c);
    let has_address = model.split(' ').any(|word| word.matches('.').count() > 1);
    is_maker && model.len() <= 100 && model.chars().all(is_usual) && !has_address
}

/// Words of a CPU model that are neither known nor the number of a model. No list of them is ever complete.
pub(super) fn unknown_words(cpu: &str) -> Vec<&str> {
    let is_number = |word: &str| {
        // "64-Core"
        let word = word.trim_end_matches("-Cores").trim_end_matches("-Core");
        let longest = word.split(|c: char| !c.is_ascii_alphabetic()).map(str::len).max();
        word.len() <= 12 && word.contains(|c: char| c.is_ascii_digit()) && longest.is_some_and(|most| most <= 3)
    };
    cpu.split_whitespace().filter(|word| !has(CPU_WORDS, word) && !is_number(word) && *word != "Gen").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distributions_release_is_kept_and_of_another_the_numbers() {
        for release in [
            "6.12.1-amd64",
            "6.12.94+deb13-amd64",
            "6.1.0-44-cloud-amd64",
            "5.14.0-427.13.1.el9_4.x86_64",
            "6.8.0-45-generic",
            "6.11.4-300.fc41.x86_64",
            "6.10.5-arch1-1",
            "5.15.0-209.161.7.2.el9uek.x86_64",
            "6.8.12-4-pve",
            "6.18.0-rc3+",
            "6.18.0-rc3-g0123456789ab",
            "6.12.17-own",
            "6.6.87.2-microsoft-standard-WSL2",
            "7.3",
        ] {
            assert_eq!(kernel(release), release);
        }
        for (release, kept) in [
            ("6.12.17-bob-smith-laptop", "6.12.17-own"),
            ("6.12.17+acme", "6.12.17-own"),
            ("6.12-gdeadbee", "6.12-own"),
            ("hello", ""),
            ("db01.prod.acme.example", ""),
            ("6", ""),
            ("", ""),
        ] {
            assert_eq!(kernel(release), kept, "{release}");
        }
    }

    #[test]
    fn words_of_real_cpus_are_known() {
        for cpu in [
            "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz",
            "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz",
            "Intel(R) Xeon(R) Platinum 8480+",
            "12th Gen Intel(R) Core(TM) i7-12700K",
            "Intel(R) Core(TM) Ultra 7 155H",
            "AMD EPYC 7763 64-Core Processor",
            "AMD Ryzen 9 7950X 16-Core Processor",
            "AMD Ryzen Threadripper PRO 5995WX 64-Cores",
            "Intel Xeon Processor (Skylake, IBRS)",
            "Intel(R) N100",
        ] {
            assert!(is_cpu(cpu) && unknown_words(cpu).is_empty(), "{cpu}: {:?}", unknown_words(cpu));
        }
        assert_eq!(unknown_words("Intel(R) Xeon(R) bob-laptop"), ["bob-laptop"]);
        assert!(!is_cpu("Bob Smith") && !is_cpu("Intel(R) Xeon(R) 10.1.2.3"));
    }

    #[test]
    fn reasons_are_those_of_the_vendors_module() {
        assert!(is_reason(Some(Vendor::Intel), "CPUID") && is_reason(Some(Vendor::Intel), "VMX 123"));
        assert!(is_reason(Some(Vendor::Intel), "INVALID_STATE (bus lock) (failed entry)"));
        assert!(is_reason(Some(Vendor::Amd), "NPF") && is_reason(None, "0x12"));
        for (vendor, name) in [(Vendor::Intel, "NPF"), (Vendor::Amd, "EPT_VIOLATION"), (Vendor::Intel, "BOB_SMITH")] {
            assert!(!is_reason(Some(vendor), name), "{name}");
        }
    }
}
