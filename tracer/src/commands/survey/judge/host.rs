//! Judges the host of a survey: texts of closed forms, and facts that fit each other.

use super::{
    super::{values::Host, words},
    Findings,
};
use crate::{
    host::machine,
    html::moment::days_since_epoch,
    model::{policy::Policy, vendor::Vendor},
    output::printable,
};

impl Findings {
    pub(super) fn host(&mut self, host: &Host) {
        let Host { cpu, microcode, kernel, parameters, virtualized, missing, tickless_cpus, .. } = host;
        self.text(words::is_cpu(cpu), "host.cpu", cpu, "a CPU model as its maker writes it");
        let unknown = words::unknown_words(cpu);
        let shown: Vec<_> = unknown.iter().map(|word| format!("'{}'", printable(word, 40))).collect();
        self.remark_unless(
            unknown.is_empty(),
            format!("look at these words before you send: host.cpu: {}", shown.join(", ")),
        );
        let is_release = !kernel.is_empty() && words::kernel(kernel) == *kernel;
        self.text(is_release, "host.kernel", kernel, "a release with a distribution's suffix or '-own'");
        let microcode = microcode.as_deref().unwrap_or("0x0");
        self.text(words::is_microcode(microcode), "host.microcode", microcode, "a revision, 0x...");
        if let Some(signature) = virtualized {
            let is_known = words::is_hypervisor(signature);
            self.text(is_known, "host.virtualized", signature, "the signature of a known hypervisor or 'other'");
        }
        self.text(words::is_cpu_list(tickless_cpus), "host.tickless_cpus", tickless_cpus, "a list of CPUs");
        for name in missing {
            self.text(words::is_field(name), "host.missing", name, "a field that the programs read");
        }
        for (name, value) in parameters {
            self.text(words::is_parameter(name), "the name of a parameter", name, "one of kvm_intel or kvm_amd");
            let of = format!("parameter {}", printable(name, 40));
            self.text(words::is_parameter_value(value), &of, value, "a number or a known word");
        }
        self.unless(host.cpus > 0, "the host has no CPU");
        self.vendor(host);
        self.expected(host);
    }

    /// The CPU's maker, the module, and what only VMX has.
    fn vendor(&mut self, host: &Host) {
        let is_by = |makers: &[&str]| makers.iter().any(|maker| host.cpu.contains(maker));
        let is_right = match host.vendor {
            Some(Vendor::Intel) => !is_by(&["AMD", "Hygon"]),
            Some(Vendor::Amd) => !is_by(&["Intel"]),
            Some(Vendor::Other) | None => true,
        };
        self.unless(is_right, "host.vendor is not the module for this CPU");
        let has_vmx = host.timer_rate.is_some() || host.erratum.is_some() || host.policy != Policy::Unknown;
        // The same rule as that by which it was found; whether the field is there is not known here.
        let found =
            machine::Host { vendor: host.vendor, parameters: host.parameters.clone(), ..machine::Host::default() };
        let follows = [true, false].into_iter().any(|soft_field| found.policy(soft_field) == host.policy);
        self.unless(follows, "host.policy does not follow from the parameters");
        let is_vmx = host.vendor == Some(Vendor::Intel);
        self.unless(is_vmx || !has_vmx, "the host has a preemption timer, a policy or the erratum, which only VMX has");
        let is_switchable = host.parameters.contains_key("preemption_timer_policy");
        let is_told = host.companion_patch == is_switchable;
        self.unless(is_told, "companion_patch and the parameter preemption_timer_policy disagree");
        let has_khz = host.tsc_khz.is_none_or(|khz| (100_000..=20_000_000).contains(&khz));
        self.unless(has_khz, "host.tsc_khz is no frequency of a TSC");
        self.unless(host.timer_rate.is_none_or(|rate| rate < 32), "host.timer_rate is not within 0 to 31");
    }
}

/// "2026-11-27"
pub(super) fn is_day(day: &str) -> bool {
    let shape = |(at, c): (usize, char)| if [4, 7].contains(&at) { c == '-' } else { c.is_ascii_digit() };
    let part = |at: std::ops::Range<usize>| day.get(at).and_then(|digits| digits.parse().ok());
    let date = || days_since_epoch(part(0..4)?, part(5..7)?, part(8..10)?);
    day.len() == 10 && day.chars().enumerate().all(shape) && date().is_some()
}
