//! Intel's erratum EMR158 on this host: whether the VMX-preemption timer expires early here, as far as CPU, kernel and module tell.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Read},
    num::NonZeroU32,
    path::Path,
};

use serde::Serialize;

use crate::{
    host::{
        machine::{Host, cpuinfo_field},
        process::text_of_hardware,
        roots::Roots,
    },
    model::{
        knowledge::Unknown,
        measurement::{SoftDelay, Timer},
        soft_timer::{Named, Reach, TimerSetup, TscRatio, named},
    },
};

/// The companion patch's parameter for kernels before 7.3 that keeps timer values below the erratum's limit.
const CAP_PARAMETER: &str = "preemption_timer_cap";
/// The parameters of modules for tests of which the smaller one is the value of a soft-disabled timer.
const TEST_VALUE_PARAMETERS: [&str; 2] = ["preemption_timer_soft_value", "preemption_timer_max"];
/// kvm_intel's variable with the largest timer value, since Linux 7.3 (commit 0aaedada606a).
const CAP_SYMBOL: &[u8] = b"preemption_timer_max_value";
/// kvm_intel's variable with the timer's rate. Every kernel that shows its variables shows it.
const RATE_SYMBOL: &[u8] = b"cpu_preemption_timer_multi";
/// How to keep timers from expiring early.
pub(crate) const FIX: &str = "use a kernel that caps the timer (Linux 7.3, or the companion patch with preemption_timer_cap=1), or load \
                              kvm_intel with preemption_timer=0; 'vmentry exercise early' tries whether it happens here";
/// Most bytes that are read of /proc/kallsyms, which has some 5 MB.
const MOST_SYMBOLS: u64 = 64 << 20;

/// The erratum on this host. The names are those of `check --format json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Erratum {
    /// whether the erratum is known for this CPU model; null where /proc/cpuinfo does not tell the model
    pub(crate) cpu: Option<Named>,
    /// what the delays follow from; null where the timer's rate or the TSC frequency is unknown
    pub(crate) setup: Option<TimerSetup>,
    /// whether timer values reach the erratum's limit; null where that is unknown
    pub(crate) reach: Option<Reach>,
    /// the delay that the value of a soft-disabled timer promises, ns; null where that is unknown
    pub(crate) promised_ns: Option<u64>,
    /// the delay after which a soft-disabled timer expires on a CPU with the erratum, by the model, ns; null where that is unknown
    pub(crate) expires_ns: Option<u64>,
    /// why one of the fields above is null; null where all are known
    pub(crate) unknown: Option<String>,
}

impl Erratum {
    /// Looks at this host. It reads /proc/kallsyms only where a cap would change the delays.
    pub(crate) fn gather(roots: &Roots, host: &Host, timer: &Timer) -> Self {
        let cpuinfo = text_of_hardware(&roots.proc.join("cpuinfo")).unwrap_or_default();
        let setup = setup(host, timer, tsc_ratio()).map(|setup| {
            let capped = if setup.soft_value().is_ok() { setup.capped } else { is_capped(roots, host) };
            TimerSetup { capped, ..setup }
        });
        Self::of(cpu(&cpuinfo), setup)
    }

    /// Judges a setup, or says why there is none.
    pub(crate) fn of(cpu: Option<Named>, setup: Result<TimerSetup, Unknown>) -> Self {
        let setup = setup.as_ref();
        let of_setup = |delay: fn(&TimerSetup) -> Result<u64, Unknown>| setup.map_err(Unknown::clone).and_then(delay);
        let (promised, expires) = (of_setup(TimerSetup::promised_ns), of_setup(TimerSetup::expires_ns));
        let reach = setup.map_err(Unknown::clone).and_then(TimerSetup::reach);
        let unknown = [promised.as_ref().err(), reach.as_ref().err(), expires.as_ref().err()];
        let unknown = unknown.into_iter().flatten().next().map(Unknown::to_string);
        Self {
            cpu,
            setup: setup.ok().cloned(),
            reach: reach.ok(),
            promised_ns: promised.ok(),
            expires_ns: expires.ok(),
            unknown,
        }
    }

    /// The delays of a soft-disabled timer, for recordings; none where the promised one is unknown.
    pub(crate) fn soft_delay(&self) -> Option<SoftDelay> {
        let limit_ns = match self.reach {
            Some(Reach::Reached(limit) | Reach::Avoided(limit)) => Some(limit.ns),
            Some(Reach::Never) | None => None,
        };
        Some(SoftDelay { promised_ns: self.promised_ns?, real_ns: self.real_delay_ns().ok(), limit_ns })
    }

    /// The delay after which a soft-disabled timer really expires here, seconds; the reason where it is unknown.
    pub(crate) fn real_delay_s(&self) -> Result<f64, Unknown> {
        self.real_delay_ns().map(seconds)
    }

    fn real_delay_ns(&self) -> Result<u64, Unknown> {
        let unknown = || Unknown::because(self.unknown.as_deref().unwrap_or("no reason is known"));
        let ns = match (self.reach, self.cpu) {
            (Some(Reach::Never | Reach::Avoided(_)), _) => self.promised_ns,
            (Some(Reach::Reached(_)), Some(Named::Published(_) | Named::Inferred(_))) => self.expires_ns,
            (Some(Reach::Reached(_)), _) => {
                return Err(Unknown::because("nothing is published on erratum EMR158 for this CPU model"));
            }
            (None, _) => None,
        };
        ns.ok_or_else(unknown)
    }
}

/// Seconds of ns.
pub(crate) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The setup as the host, the timer and CPUID tell it; `capped` is none where the module has no parameter for it.
fn setup(host: &Host, timer: &Timer, ratio: Option<TscRatio>) -> Result<TimerSetup, Unknown> {
    let rate = timer.rate.ok_or_else(|| Unknown::because("IA32_VMX_MISC cannot be read"))?;
    let tsc_khz = timer.tsc_khz.and_then(NonZeroU32::new);
    let tsc_khz = tsc_khz.ok_or_else(|| Unknown::because("KVM cannot be asked for the TSC frequency"))?;
    Ok(TimerSetup {
        rate,
        tsc_khz,
        ratio,
        hypervisor: host.virtualized.is_some(),
        capped: capped_by_parameter(&host.parameters),
        test_value: TEST_VALUE_PARAMETERS.iter().filter_map(|name| host.parameters.get(*name)?.parse().ok()).min(),
    })
}

/// CPUID.15H of this CPU; none where it has no such leaf, or zeros in it.
pub(crate) fn tsc_ratio() -> Option<TscRatio> {
    const LEAF: u32 = 0x15;
    if std::arch::x86_64::__cpuid(0).eax < LEAF {
        return None;
    }
    let leaf = std::arch::x86_64::__cpuid(LEAF);
    TscRatio::new(leaf.ebx, leaf.eax)
}

/// What is known for the CPU model in /proc/cpuinfo.
fn cpu(cpuinfo: &str) -> Option<Named> {
    let number = |name| cpuinfo_field(cpuinfo, name)?.parse().ok();
    let (family, model, stepping) = (number("cpu family")?, number("model")?, number("stepping")?);
    let is_intel = cpuinfo_field(cpuinfo, "vendor_id")? == "GenuineIntel";
    Some(if is_intel { named(family, model, stepping) } else { Named::No })
}

/// Whether KVM keeps timer values below the erratum's limit, wherever CPUID tells it; none where that cannot be seen.
pub(crate) fn is_capped(roots: &Roots, host: &Host) -> Option<bool> {
    capped_by_parameter(&host.parameters).or_else(|| capped_by_symbol(&roots.proc))
}

/// Whether the companion patch caps the timer; none without its parameter.
fn capped_by_parameter(parameters: &BTreeMap<String, String>) -> Option<bool> {
    parameters.get(CAP_PARAMETER).map(|value| value == "Y")
}

/// Whether kvm_intel caps the timer, by its variables; none where the kernel does not show them.
fn capped_by_symbol(proc: &Path) -> Option<bool> {
    let symbols = BufReader::new(File::open(proc.join("kallsyms")).ok()?.take(MOST_SYMBOLS));
    let (mut capped, mut shown) = (false, false);
    for line in symbols.split(b'\n') {
        // Address, type, name, and a module's name.
        let line = line.ok()?;
        let name = line.split(|byte| byte.is_ascii_whitespace()).nth(2);
        capped |= name == Some(CAP_SYMBOL);
        shown |= name == Some(RATE_SYMBOL);
    }
    shown.then_some(capped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::roots::made_up::Folder, model::vendor::Vendor};

    const XEON: &str = "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 106\nmodel name\t: X\nstepping\t: 6\n";

    fn host(parameters: &[(&str, &str)]) -> Host {
        let parameters = parameters.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        Host { vendor: Some(Vendor::Intel), parameters, ..Host::default() }
    }

    /// At 2.0 GHz.
    fn timer(rate: Option<u32>) -> Timer {
        Timer { used: Some(true), rate, tsc_khz: Some(2_000_000), max_delay_s: None }
    }

    fn xeon(parameters: &[(&str, &str)]) -> Erratum {
        Erratum::of(cpu(XEON), setup(&host(parameters), &timer(Some(7)), TscRatio::new(160, 2)))
    }

    #[test]
    fn the_companion_patchs_parameter_decides_on_the_real_delay() {
        let delay = |cap| (xeon(&[("preemption_timer_cap", cap)]).real_delay_s().unwrap() * 10.0).round();
        assert_eq!([delay("N"), delay("Y")], [1031.0, 1718.0]);
        let reason = xeon(&[]).real_delay_s().unwrap_err().to_string();
        assert!(reason.contains("does not show whether KVM caps the timer"), "{reason}");
    }

    #[test]
    fn a_module_for_tests_has_the_smaller_of_its_values() {
        let value = |parameters: &[(&str, &str)]| setup(&host(parameters), &timer(Some(7)), None).unwrap().test_value;
        let (soft, max) = (("preemption_timer_soft_value", "100000"), ("preemption_timer_max", "4294967295"));
        assert_eq!((value(&[soft, max]), value(&[max]), value(&[])), (Some(100_000), Some(u32::MAX), None));
    }

    #[test]
    fn the_kernels_variables_tell_a_cap_only_where_they_are_shown() {
        let folder = Folder::new();
        let capped = |symbols: &str| {
            folder.write("proc/kallsyms", symbols);
            capped_by_symbol(&folder.roots.proc)
        };
        let rate = "0000000000000000 d cpu_preemption_timer_multi\t[kvm_intel]\n";
        let cap = "0000000000000000 d preemption_timer_max_value\t[kvm_intel]\n";
        assert_eq!(capped(&format!("{rate}{cap}")), Some(true));
        assert_eq!(capped(&format!("0 t preemption_timer_max_value_x\n{rate}")), Some(false));
        // Without CONFIG_KALLSYMS_ALL there are functions only.
        assert_eq!(capped("0000000000000000 t vmx_set_hv_timer\t[kvm_intel]\n"), None);
        assert_eq!(capped(""), None);
        assert_eq!(capped_by_symbol(&folder.roots.sys), None);
    }

    #[test]
    fn a_model_is_judged_by_vendor_family_model_and_stepping() {
        assert_eq!(cpu(XEON), Some(Named::Published("Ice Lake-SP")));
        assert_eq!(cpu(&XEON.replace("GenuineIntel", "CentaurHauls")), Some(Named::No));
        assert_eq!(cpu(&XEON.replace("stepping\t: 6\n", "")), None);
    }

    #[test]
    fn a_delay_is_unknown_for_the_first_reason_there_is() {
        let ratio = TscRatio::new(160, 2);
        let reason = |host: &Host, timer: &Timer, ratio| {
            Erratum::of(cpu(XEON), setup(host, timer, ratio)).real_delay_s().unwrap_err().to_string()
        };
        let uncapped = host(&[("preemption_timer_cap", "N")]);
        assert!(reason(&uncapped, &timer(None), ratio).contains("IA32_VMX_MISC"));
        let without_frequency = Timer { tsc_khz: None, ..timer(Some(7)) };
        assert!(reason(&uncapped, &without_frequency, ratio).contains("TSC frequency"));
        assert!(reason(&uncapped, &timer(Some(7)), None).contains("leaf 15H"));
        let inside = Host { virtualized: Some("KVMKVMKVM".into()), ..uncapped.clone() };
        assert!(reason(&inside, &timer(Some(7)), ratio).contains("itself a VM"));
        let other = Erratum::of(Some(Named::No), setup(&uncapped, &timer(Some(7)), ratio));
        assert!(other.real_delay_s().unwrap_err().to_string().contains("nothing is published"));
        // The promise does not depend on the erratum.
        let without_leaf = Erratum::of(cpu(XEON), setup(&uncapped, &timer(Some(7)), None));
        assert_eq!(without_leaf.promised_ns.map(|ns| ns / 1_000_000_000), Some(274));
    }

    #[test]
    fn a_rate_of_5_keeps_every_value_out_of_reach() {
        let uncapped = host(&[("preemption_timer_cap", "N")]);
        let erratum = Erratum::of(cpu(XEON), setup(&uncapped, &timer(Some(5)), TscRatio::new(160, 2)));
        assert_eq!((erratum.reach, erratum.unknown.as_deref()), (Some(Reach::Never), None));
        assert!((erratum.real_delay_s().unwrap() - 68.7).abs() < 0.1);
    }
}
