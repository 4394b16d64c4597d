//! Facts of this host (I/O), and the problems that they make (pure), each with its fix.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

use serde::Serialize;
use tracer_common::Slot;

use crate::{
    host::{
        clock::kvm_tsc_khz,
        machine::{Host, Roots},
        policy, stopwatch, vmm,
    },
    kernel::{
        layout::{Companion, Layout},
        resolve,
    },
    model::{
        measurement::{Timer, max_delay_s},
        policy::Policy,
        vendor::Vendor,
    },
};

/// IA32_VMX_MISC; bits 4:0 say at which bit of the TSC the preemption timer counts (SDM vol. 3, A.6).
const IA32_VMX_MISC: u64 = 0x485;

/// KVM does not use a timer whose largest delay is shorter (commit 804939ea20).
pub(crate) const LEAST_DELAY_S: f64 = 10.0;

const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Everything the tool depends on.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// the host
    pub host: Host,
    /// timer policy in force
    pub policy: Policy,
    /// /sys/kernel/btf/vmlinux is there
    pub kernel_btf: bool,
    /// CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN
    pub may_trace: bool,
    /// where this kernel keeps what the programs read; none when they cannot run here
    #[serde(skip)]
    pub layout: Option<Layout>,
    /// why the programs cannot run here; null when they can
    pub layout_error: Option<String>,
    /// fields that this kernel does not have, and what is n/a without them
    pub missing: Vec<String>,
    /// causes of preemption-timer exits can be told
    pub tells_timer_causes: bool,
    /// /dev/kvm can be opened for reading and writing
    pub dev_kvm: bool,
    /// the preemption timer; null without VMX
    pub timer: Option<Timer>,
    /// CPUs without a periodic tick (nohz_full), where spurious timer exits are possible; empty for none
    pub tickless_cpus: String,
    /// the companion patch's parameter is there: the policy can be switched
    pub companion_patch: bool,
    /// the companion patch's tracepoint for writes is there: `record --exact-writes` works
    pub companion_tracepoint: bool,
    /// the companion patch's stopwatch is on: transition_ns of every entry is known; null without that patch
    pub stopwatch: Option<bool>,
    /// a killed vmentry switched the policy and could not restore it; null for none
    pub policy_left_behind: Option<policy::Note>,
    /// RLIMIT_MEMLOCK in bytes, null for unlimited; counts only before Linux 5.11
    pub memlock_bytes: Option<u64>,
    /// the kernel accounts maps to memory cgroups instead of RLIMIT_MEMLOCK (Linux 5.11 and later)
    pub memlock_unused: bool,
    /// BPF programs are compiled; null where the kernel does not say
    pub jit: Option<bool>,
    /// kernel lockdown mode; null where there is none
    pub lockdown: Option<String>,
    /// VMs running now
    pub vms: Vec<RunningVm>,
}

/// A VM that runs now.
#[derive(Debug, Clone, Serialize)]
pub struct RunningVm {
    /// its name
    pub name: String,
    /// its process
    pub tgid: u32,
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// `record` cannot work
    Error,
    /// figures are missing or worth less
    Warning,
    /// good to know
    Note,
}

/// Something that stands in the way, its current value, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// how bad
    pub severity: Severity,
    /// what it is, with the current value
    pub what: String,
    /// what to do about it
    pub fix: String,
}

impl Facts {
    /// Gathers everything. With `ask_kvm` it creates a VM for a moment, to ask KVM for the TSC frequency it uses.
    pub fn gather(roots: &Roots, ask_kvm: bool) -> Self {
        let host = Host::gather(roots);
        let sys = &roots.sys;
        let read = |path: &str| fs::read_to_string(path).ok().map(|s| s.trim().to_owned());
        let layout = resolve::layout(sys, host.vendor);
        let soft = layout.as_ref().is_ok_and(|l| l.config.get(Slot::VmcsSoftDisabled).is_some());
        let companion = layout.as_ref().map_or_else(|_| Companion::default(), |l| l.companion);
        let causes = layout.as_ref().is_ok_and(|l| {
            soft && (l.config.get(Slot::EntryHasImmediate).is_some() || l.config.get(Slot::VmxReqImmediate).is_some())
        });
        let dev_kvm = File::options().read(true).write(true).open("/dev/kvm").is_ok();
        Self {
            policy: host.policy(soft),
            kernel_btf: sys.join("kernel/btf/vmlinux").exists(),
            may_trace: may_trace(&read("/proc/self/status").unwrap_or_default()),
            missing: layout.as_ref().map_or_else(
                |_| vec![],
                |l| l.missing.iter().map(|m| format!("{}: {} n/a", m.field, m.lost)).collect(),
            ),
            layout_error: layout.as_ref().err().map(|e| format!("{e:#}")),
            layout: layout.ok(),
            tells_timer_causes: causes,
            dev_kvm,
            timer: (host.vendor == Some(Vendor::Intel)).then(|| Timer::gather(&host, dev_kvm && ask_kvm)),
            tickless_cpus: read("/sys/devices/system/cpu/nohz_full").filter(|s| s != "(null)").unwrap_or_default(),
            companion_patch: host.parameters.contains_key("preemption_timer_policy"),
            companion_tracepoint: companion.vmcs_write,
            stopwatch: host.parameters.get(stopwatch::PARAMETER).filter(|_| companion.guest_time).map(|on| on == "Y"),
            policy_left_behind: policy::left_behind(),
            memlock_bytes: memlock(),
            memlock_unused: kernel_at_least(&host.kernel, 5, 11),
            jit: read("/proc/sys/net/core/bpf_jit_enable").map(|v| v != "0"),
            lockdown: read("/sys/kernel/security/lockdown").and_then(|s| chosen(&s)),
            vms: vmm::find_vms(&roots.proc)
                .into_iter()
                .map(|v| RunningVm { name: v.name, tgid: v.process.tgid })
                .collect(),
            host,
        }
    }

    /// Every problem at once, the worst first.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut add = |severity, what: String, fix: &str| found.push(Problem { severity, what, fix: fix.into() });
        use Severity::{Error, Note, Warning};

        if !self.may_trace {
            add(
                Error,
                "this process may not load eBPF programs".into(),
                "run as root: sudo vmentry ... (or grant CAP_BPF and CAP_PERFMON)",
            );
        }
        if !self.kernel_btf {
            add(
                Error,
                "the kernel has no BTF (/sys/kernel/btf/vmlinux is missing)".into(),
                "use a kernel with CONFIG_DEBUG_INFO_BTF=y",
            );
        }
        if self.host.vendor.is_none() {
            add(
                Error,
                "no KVM module is loaded".into(),
                "modprobe kvm_intel (or kvm_amd); if that fails, enable VMX or SVM in the firmware",
            );
        } else if let (Some(error), true) = (&self.layout_error, self.kernel_btf) {
            add(Error, error.clone(), "see 'Supported kernels' in the README");
        }
        if self.lockdown.as_deref() == Some("confidentiality") {
            add(
                Error,
                "kernel lockdown is 'confidentiality': programs may not read kernel memory".into(),
                "boot with lockdown=integrity or without lockdown",
            );
        }
        for missing in &self.missing {
            add(Warning, format!("not in this kernel: {missing}"), "see 'Supported kernels' in the README");
        }
        if let Some(memlock) = self.memlock_bytes.filter(|&b| !self.memlock_unused && b < 64 << 20) {
            add(Error, format!("RLIMIT_MEMLOCK is {memlock} bytes and counts on this kernel"), "ulimit -l unlimited");
        }
        if self.jit == Some(false) {
            add(
                Warning,
                "net.core.bpf_jit_enable is 0: the programs are interpreted and slow the guests".into(),
                "sysctl net.core.bpf_jit_enable=1",
            );
        }
        match self.host.vendor {
            Some(Vendor::Amd) => add(
                Note,
                "AMD host (SVM): no VMX-preemption timer and no pin controls".into(),
                "entries, exits and reasons are measured; the rest is n/a",
            ),
            Some(Vendor::Other) => add(
                Warning,
                "neither kvm_intel nor kvm_amd runs the VMs".into(),
                "entries and exits are measured; exit reasons and all VMX figures are n/a",
            ),
            _ => {}
        }
        if let Some(timer) = &self.timer {
            if timer.used == Some(false) {
                let why = match timer.max_delay_s {
                    Some(s) if s < LEAST_DELAY_S => {
                        format!(": its largest delay is {s:.1} s, under the {LEAST_DELAY_S} s that KVM asks for")
                    }
                    _ => String::new(),
                };
                add(
                    Warning,
                    format!("KVM does not use the preemption timer (kvm_intel.preemption_timer=N){why}"),
                    "no timer exits will be seen; reload kvm_intel with preemption_timer=1 if it was switched off",
                );
            }
            if timer.rate.is_none() {
                add(
                    Note,
                    "the timer's rate is n/a: IA32_VMX_MISC cannot be read".into(),
                    "modprobe msr, and run as root",
                );
            }
            if timer.tsc_khz.is_none() {
                add(
                    Note,
                    "the TSC frequency is n/a: KVM cannot be asked".into(),
                    "run as root or as a member of group kvm",
                );
            }
        }
        if let Some(note) = self.policy_left_behind.as_ref().filter(|n| n.before != self.policy.name()) {
            let what = format!(
                "the timer policy is {}, left behind by vmentry (pid {}), which was killed before it restored {}",
                self.policy.name(),
                note.pid,
                note.before
            );
            add(Warning, what, &format!("vmentry policy {}", note.before));
        }
        if self.host.emulated {
            add(Warning, "the CPU is emulated in software".into(), "counts are right, times mean nothing");
        } else if let Some(hypervisor) = &self.host.virtualized {
            add(Warning, format!("this host is itself a VM ({hypervisor})"), "times contain the hypervisor below");
        }
        found.sort_by_key(|p| p.severity);
        found
    }
}

impl Timer {
    fn gather(host: &Host, ask_kvm: bool) -> Self {
        let used = host.parameters.get("preemption_timer").map(|v| v == "Y" || v == "1");
        let rate = msr(IA32_VMX_MISC).map(|v| (v & 0x1f) as u32);
        let tsc_khz = if ask_kvm { kvm_tsc_khz() } else { None };
        let max_delay_s = rate.zip(tsc_khz).map(|(rate, khz)| max_delay_s(rate, khz));
        Self { used, rate, tsc_khz, max_delay_s }
    }
}

fn msr(index: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/cpu/0/msr").ok()?.read_exact_at(&mut bytes, index).ok()?;
    Some(u64::from_ne_bytes(bytes))
}

fn memlock() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } != 0;
    (!failed && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

fn may_trace(status: &str) -> bool {
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |cap: u32| effective >> cap & 1 != 0;
    has(CAP_SYS_ADMIN) || has(CAP_BPF) && has(CAP_PERFMON)
}

fn kernel_at_least(release: &str, major: u32, minor: u32) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

/// The bracketed word of "none [integrity] confidentiality".
fn chosen(text: &str) -> Option<String> {
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

/// Whether `record` cannot work.
pub fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(|p| p.severity == Severity::Error)
}

/// The errors as one message, for commands that cannot go on.
pub fn errors(problems: &[Problem]) -> Option<String> {
    let errors: Vec<_> = problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .map(|p| format!("{}\n  -> {}", p.what, p.fix))
        .collect();
    (!errors.is_empty()).then(|| errors.join("\n"))
}

/// Facts of this host.
pub fn gather(ask_kvm: bool) -> Facts {
    Facts::gather(&Roots::default(), ask_kvm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            host: Host { vendor: Some(Vendor::Intel), kernel: "6.12.1".into(), ..Host::default() },
            policy: Policy::Soft,
            kernel_btf: true,
            may_trace: true,
            layout: None,
            layout_error: None,
            missing: vec![],
            tells_timer_causes: true,
            dev_kvm: true,
            timer: Some(Timer { used: Some(true), rate: Some(5), tsc_khz: Some(2_400_000), max_delay_s: Some(57.3) }),
            tickless_cpus: String::new(),
            companion_patch: false,
            companion_tracepoint: false,
            stopwatch: None,
            policy_left_behind: None,
            memlock_bytes: Some(8 << 20),
            memlock_unused: true,
            jit: Some(true),
            lockdown: None,
            vms: vec![],
        }
    }

    #[test]
    fn a_good_host_has_no_problem() {
        assert_eq!(good().problems(), []);
    }

    #[test]
    fn every_problem_is_named_at_once_the_worst_first() {
        let facts = Facts {
            may_trace: false,
            kernel_btf: false,
            host: Host { emulated: true, ..Host::default() },
            jit: Some(false),
            ..good()
        };
        let severities: Vec<_> = facts.problems().iter().map(|p| p.severity).collect();
        assert_eq!(
            severities,
            [Severity::Error, Severity::Error, Severity::Error, Severity::Warning, Severity::Warning]
        );
        assert!(errors(&facts.problems()).unwrap().contains("modprobe kvm_intel"));
    }

    #[test]
    fn a_policy_left_behind_is_noticed() {
        let note = policy::Note { pid: 7, start_ticks: 0, before: "soft".into() };
        let problems = Facts { policy: Policy::Hard, policy_left_behind: Some(note), ..good() }.problems();
        assert_eq!(problems[0].fix, "vmentry policy soft");
    }

    #[test]
    fn a_timer_that_kvm_refused_is_explained_by_its_delay() {
        let timer = Timer { used: Some(false), rate: Some(0), tsc_khz: Some(1_000_000), max_delay_s: Some(4.3) };
        let problems = Facts { timer: Some(timer), ..good() }.problems();
        assert!(problems[0].what.contains("4.3 s"), "{problems:?}");
    }

    #[test]
    fn the_delay_at_2_4_ghz_and_a_rate_of_5_is_57_seconds() {
        assert!((max_delay_s(5, 2_400_000) - 57.27).abs() < 0.01);
        assert!((max_delay_s(0, 100_000) - 42.9).abs() < 0.1);
    }

    #[test]
    fn tracing_takes_two_capabilities_or_the_big_one() {
        let status = |caps: &[u32]| {
            let bits = caps.iter().fold(0u64, |b, c| b | 1 << c);
            format!("Name:\tx\nCapEff:\t{bits:016x}\n")
        };
        assert!(may_trace(&status(&[CAP_SYS_ADMIN])));
        assert!(may_trace(&status(&[CAP_BPF, CAP_PERFMON])));
        assert!(!may_trace(&status(&[CAP_BPF])));
        assert!(!may_trace(""));
    }

    #[test]
    fn versions_and_lockdown_are_read_from_what_the_kernel_prints() {
        assert!(kernel_at_least("5.11.0-rc1", 5, 11) && kernel_at_least("6.1.0-56-amd64", 5, 11));
        assert!(!kernel_at_least("5.10.200", 5, 11));
        assert_eq!(chosen("none [integrity] confidentiality").as_deref(), Some("integrity"));
        assert_eq!(chosen("none"), None);
    }
}
