//! The facts of this host that decide what can be measured. Files are read through `Roots` only.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use serde::Serialize;
use tracer_common::Slot;

use crate::{
    host::{
        clock::kvm_tsc_khz,
        erratum::Erratum,
        labels::{labels, rules::LabelRules},
        machine::Host,
        open_files::OpenFiles,
        other_tracers, pid_namespace, policy,
        process::text,
        restrictions,
        roots::Roots,
        setting::{self, left_behind::LeftBehind},
        stopwatch,
        vendor::{self, NoVendor},
        vmm,
    },
    kernel::{
        layout::Layout,
        resolve::{self, Resolved},
    },
    model::{
        measurement::{OtherTracers, Timer, max_delay_s},
        policy::Policy,
        vendor::Vendor,
        vm_labels::VmLabels,
    },
};

/// IA32_VMX_MISC: the timer counts once every 2^n TSC cycles, n in bits 4:0 (SDM vol. 3, A.6).
const IA32_VMX_MISC: u64 = 0x485;

/// Longest timer delay below which KVM does not use the timer, in seconds (commit 804939ea20).
pub(crate) const LEAST_DELAY_S: f64 = 10.0;

/// Everything on this host that the tool depends on. The names are those of `check --format json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Facts {
    /// the host
    pub(crate) host: Host,
    /// why no KVM module runs VMs, and the fix; null where one does
    pub(crate) no_vendor: Option<NoVendor>,
    /// timer policy in force
    pub(crate) policy: Policy,
    /// /sys/kernel/btf/vmlinux is there
    pub(crate) kernel_btf: bool,
    /// CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN
    pub(crate) may_trace: bool,
    /// offsets of the fields that the programs read; none when they cannot run here
    #[serde(skip)]
    pub(crate) layout: Option<Layout>,
    /// why the programs cannot run here; null when they can
    pub(crate) layout_error: Option<String>,
    /// the vendor's module without BTF, by its missing file: its fields are among `missing` for that reason; null where it has BTF
    pub(crate) module_without_btf: Option<String>,
    /// fields that this kernel does not have, and the figures that are n/a without each
    pub(crate) missing: Vec<String>,
    /// the causes of preemption-timer exits are known
    pub(crate) tells_timer_causes: bool,
    /// /dev/kvm can be opened for reading and writing
    pub(crate) dev_kvm: bool,
    /// the preemption timer; null without VMX
    pub(crate) timer: Option<Timer>,
    /// the erratum by which the timer expires early; null without VMX
    pub(crate) erratum: Option<Erratum>,
    /// CPUs without a periodic tick (nohz_full), on which spurious timer exits can occur; empty for none
    pub(crate) tickless_cpus: String,
    /// the companion patch's parameter is there: the policy is switchable
    pub(crate) companion_patch: bool,
    /// the companion patch's kvm_vmcs_write is there: `record --exact-writes` works; null where BTF does not tell
    pub(crate) companion_tracepoint: Option<bool>,
    /// the companion patch's stopwatch is on: transition_ns of every entry is known; null without that patch
    pub(crate) stopwatch: Option<bool>,
    /// note of a vmentry that switched the policy and was killed before it restored it; null for none
    pub(crate) policy_left_behind: Option<policy::Note>,
    /// what a killed `ab` left switched; null for nothing
    pub(crate) setting_left_behind: Option<LeftBehind>,
    /// eBPF programs are compiled by the JIT; null where the kernel does not say
    pub(crate) jit: Option<bool>,
    /// kernel lockdown mode, of securityfs or, where that is not mounted, as asked for on the kernel's command line; null where neither tells
    pub(crate) lockdown: Option<String>,
    /// other tracers on kvm_entry and kvm_exit
    pub(crate) other_tracers: OtherTracers,
    /// /proc shows the process ids that the programs report; false in a PID namespace of its own, null where /proc does not tell
    pub(crate) shows_host_processes: Option<bool>,
    /// running VMs
    pub(crate) vms: Vec<RunningVm>,
    /// why other processes may run VMs, too, with the fix; null where all could be looked at
    pub(crate) vms_unseen: Option<String>,
}

/// A running VM.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RunningVm {
    /// its name
    pub(crate) name: String,
    /// process id of its VMM
    pub(crate) tgid: u32,
    /// what its manager knows it by
    pub(crate) labels: VmLabels,
}

impl RunningVm {
    fn of(vm: vmm::Vm) -> Self {
        let labels = labels(&vm.process, &LabelRules::default());
        Self { name: vm.name, tgid: vm.process.tgid, labels }
    }
}

impl Facts {
    /// Gathers everything. With `ask_kvm`, a VM is created for a moment, to ask KVM for its TSC frequency.
    pub(crate) fn gather(roots: &Roots, ask_kvm: bool) -> Self {
        let host = Host::gather(roots);
        let Roots { proc, sys, dev, .. } = roots;
        let read = |path: PathBuf| text(&path).ok().map(|s| s.trim().to_owned());
        let files = OpenFiles::read(proc);
        let running = vmm::among(proc, &files);
        let no_vendor = vendor::find(roots).err();
        let resolved = host.vendor.map(|vendor| resolve::layout(sys, vendor)).transpose();
        let layout_error = match (&resolved, &no_vendor) {
            (Err(error), _) => Some(format!("{error:#}")),
            (Ok(None), Some(no_vendor)) => Some(no_vendor.why.clone()),
            _ => None,
        };
        let resolved = resolved.ok().flatten();
        let known = resolved.as_ref().map(|r| &r.layout);
        let has = |slot| known.is_some_and(|l| l.config.get(slot).is_some());
        let without_btf = resolved.as_ref().and_then(|r| r.module_without_btf);
        let companion = known.map(|l| l.companion).unwrap_or_default();
        let missing = known.map(|l| l.missing.as_slice()).unwrap_or_default();
        let dev_kvm = File::options().read(true).write(true).open(dev.join("kvm")).is_ok();
        let is_vmx = host.vendor == Some(Vendor::Intel);
        let timer = is_vmx.then(|| timer(&host, dev, dev_kvm && ask_kvm));
        Self {
            policy: policy_of(&host, resolved.as_ref()),
            no_vendor,
            module_without_btf: without_btf.map(|module| resolve::has_no_btf(sys, module)),
            kernel_btf: sys.join("kernel/btf/vmlinux").exists(),
            may_trace: restrictions::may_trace(&read(proc.join("self/status")).unwrap_or_default()),
            missing: missing.iter().map(|m| format!("{}: {} n/a", m.field, m.lost)).collect(),
            tells_timer_causes: has(Slot::VmxExitReason)
                && has(Slot::VmcsSoftDisabled)
                && (has(Slot::EntryHasImmediate) || has(Slot::VmxReqImmediate)),
            dev_kvm,
            erratum: timer.as_ref().map(|timer| Erratum::gather(roots, &host, timer)),
            timer,
            tickless_cpus: read(sys.join("devices/system/cpu/nohz_full")).filter(|s| s != "(null)").unwrap_or_default(),
            companion_patch: host.parameters.contains_key("preemption_timer_policy"),
            companion_tracepoint: known.filter(|_| without_btf.is_none()).map(|l| l.companion.vmcs_write),
            stopwatch: host.parameters.get(stopwatch::PARAMETER).filter(|_| companion.guest_time).map(|on| on == "Y"),
            policy_left_behind: policy::left_behind(roots),
            setting_left_behind: setting::left_behind::left_behind(roots),
            jit: read(proc.join("sys/net/core/bpf_jit_enable")).map(|v| v != "0"),
            lockdown: restrictions::lockdown(roots),
            other_tracers: other_tracers::among(roots, &files),
            shows_host_processes: pid_namespace::shows_host_processes(proc),
            vms_unseen: running.unseen,
            vms: running.vms.into_iter().map(RunningVm::of).collect(),
            layout_error,
            layout: resolved.map(|r| r.layout),
            host,
        }
    }
}

/// The policy in force.
fn policy_of(host: &Host, resolved: Option<&Resolved>) -> Policy {
    host.policy(resolved.is_some_and(|r| r.layout.config.get(Slot::VmcsSoftDisabled).is_some()))
}

fn timer(host: &Host, dev: &Path, ask_kvm: bool) -> Timer {
    let used = host.parameters.get("preemption_timer").map(|v| v == "Y" || v == "1");
    // Bits 4:0.
    let rate = msr(dev, IA32_VMX_MISC).map(|[low, ..]| u32::from(low & 0x1f));
    let tsc_khz = if ask_kvm { kvm_tsc_khz(&dev.join("kvm")) } else { None };
    let max_delay_s = rate.zip(tsc_khz).map(|(rate, khz)| max_delay_s(rate, khz));
    Timer { used, rate, tsc_khz, max_delay_s }
}

/// An MSR of CPU 0, lowest byte first.
fn msr(dev: &Path, index: u64) -> Option<[u8; 8]> {
    let mut bytes = [0; 8];
    File::open(dev.join("cpu/0/msr")).ok()?.read_exact_at(&mut bytes, index).ok()?;
    Some(bytes)
}

/// Facts of the host that this runs on.
pub(crate) fn gather(ask_kvm: bool) -> Facts {
    Facts::gather(&Roots::default(), ask_kvm)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        host::{problems::Severity, roots::made_up::Folder},
        kernel::layout::made_up,
    };

    /// A host that may be traced, without KVM.
    fn bare() -> Folder {
        let host = Folder::new();
        host.write("proc/self/status", "Name:\tvmentry\nCapEff:\t000001ffffffffff\n");
        host.write("proc/cpuinfo", cpuinfo("vmx"));
        host.write("proc/sys/kernel/osrelease", "6.12.1\n");
        host.write("proc/sys/net/core/bpf_jit_enable", "1\n");
        host.write("sys/devices/system/cpu/nohz_full", "(null)\n");
        host.write("sys/kernel/security/lockdown", "[none] integrity confidentiality\n");
        host
    }

    fn cpuinfo(flag: &str) -> String {
        format!("processor\t: 0\nmodel name\t: Made-up CPU\nflags\t\t: fpu {flag}\n\nprocessor\t: 1\n")
    }

    fn problems(host: &Folder) -> Vec<String> {
        Facts::gather(&host.roots, true).problems().into_iter().map(|p| p.what).collect()
    }

    #[test]
    fn an_intel_host_is_made_up_of_files_alone() {
        let host = bare();
        let (kernel, module) = made_up::btf(Vendor::Intel);
        host.write("sys/kernel/btf/vmlinux", kernel);
        host.write("sys/kernel/btf/kvm_intel", module);
        host.write("sys/module/kvm_intel/parameters/preemption_timer", "Y\n");
        host.write("sys/module/kvm_intel/parameters/preemption_timer_policy", "hard\n");
        host.write("sys/devices/system/cpu/nohz_full", "2-3\n");
        host.write("proc/sys/net/core/bpf_jit_enable", "0\n");
        host.write("dev/kvm", "");
        let mut msrs = vec![0; 0x485 + 8];
        msrs[0x485] = 0xe5;
        host.write("dev/cpu/0/msr", msrs);
        host.write("run/vmentry-policy.json", r#"{"pid":7,"start_ticks":1,"before":"soft"}"#);
        let facts = Facts::gather(&host.roots, true);
        assert_eq!(facts.host.cpu, "Made-up CPU");
        assert_eq!(
            (facts.host.cpus, facts.host.kernel.as_str(), facts.host.vendor),
            (2, "6.12.1", Some(Vendor::Intel))
        );
        assert_eq!((facts.host.emulated, facts.host.virtualized), (false, None));
        assert!(
            facts.may_trace && facts.kernel_btf && facts.dev_kvm && facts.companion_patch && facts.tells_timer_causes
        );
        assert_eq!((facts.policy, facts.tickless_cpus.as_str()), (Policy::Hard, "2-3"));
        assert_eq!((facts.jit, facts.lockdown.as_deref()), (Some(false), Some("none")));
        // A file is no KVM: it has no TSC frequency.
        assert_eq!(facts.timer, Some(Timer { used: Some(true), rate: Some(5), tsc_khz: None, max_delay_s: None }));
        let erratum = facts.erratum.unwrap();
        assert_eq!((erratum.cpu, erratum.promised_ns), (None, None));
        assert!(erratum.unknown.unwrap().contains("TSC frequency"));
        assert_eq!(facts.layout_error, None);
        assert!(facts.layout.is_some());
        let what = problems(&host);
        assert!(
            what[0].contains("bpf_jit_enable is 0") && what[1].contains("left behind by vmentry (pid 7)"),
            "{what:?}"
        );
        assert!(what[2].contains("TSC frequency") && what.len() == 3, "{what:?}");
    }

    #[test]
    fn an_amd_host_has_no_timer_and_no_policy() {
        let host = bare();
        host.write("proc/cpuinfo", cpuinfo("svm"));
        let (kernel, module) = made_up::btf(Vendor::Amd);
        host.write("sys/kernel/btf/vmlinux", kernel);
        host.write("sys/kernel/btf/kvm_amd", module);
        host.write("sys/module/kvm_amd/parameters/npt", "1\n");
        let facts = Facts::gather(&host.roots, true);
        assert_eq!((facts.host.vendor, facts.policy, facts.timer), (Some(Vendor::Amd), Policy::Unknown, None));
        assert_eq!(facts.host.parameters["npt"], "1");
        assert_eq!((facts.dev_kvm, facts.layout_error), (false, None));
        let what = problems(&host);
        assert!(what.len() == 1 && what[0].contains("AMD host"), "{what:?}");
    }

    #[test]
    fn a_host_without_kvm_is_told_to_load_it() {
        let host = bare();
        host.write("sys/kernel/btf/vmlinux", made_up::btf(Vendor::Intel).0);
        let facts = Facts::gather(&host.roots, true);
        assert_eq!((facts.host.vendor, facts.layout.is_none(), facts.vms.len()), (None, true, 0));
        assert_eq!(problems(&host), ["no KVM module is loaded; this CPU has VMX"]);
    }

    #[test]
    fn an_amd_host_with_both_modules_built_in_is_no_intel_host() {
        let host = bare();
        host.write("proc/cpuinfo", cpuinfo("svm"));
        let ((kernel, amd), (_, intel)) = (made_up::btf(Vendor::Amd), made_up::btf(Vendor::Intel));
        host.write("sys/kernel/btf/vmlinux", kernel);
        host.write("sys/kernel/btf/kvm_amd", amd);
        host.write("sys/kernel/btf/kvm_intel", intel);
        host.write("sys/module/kvm_amd/parameters/npt", "1\n");
        host.write("sys/module/kvm_intel/parameters/preemption_timer", "Y\n");
        let facts = Facts::gather(&host.roots, false);
        assert_eq!((facts.host.vendor, facts.policy, facts.timer), (Some(Vendor::Amd), Policy::Unknown, None));
        let config = facts.layout.unwrap().config;
        assert!(config.get(Slot::VmcbExitCode).is_some() && config.get(Slot::VmxVmcs01).is_none());
        // Without kvm_amd, nothing runs VMs.
        fs::remove_dir_all(host.roots.sys.join("module/kvm_amd")).unwrap();
        let facts = Facts::gather(&host.roots, false);
        assert_eq!((facts.host.vendor, facts.layout.is_none(), facts.timer), (None, true, None));
        assert!(
            problems(&host)[0].contains("kvm_intel is built in for other CPUs; this CPU has SVM"),
            "{:?}",
            problems(&host)
        );
    }

    #[test]
    fn a_vendors_module_without_btf_leaves_the_policy_and_the_causes_unknown_for_one_reason() {
        let host = bare();
        host.write("sys/kernel/btf/vmlinux", made_up::btf(Vendor::Intel).0);
        host.write("sys/module/kvm_intel/parameters/preemption_timer", "Y\n");
        host.write("dev/cpu/0/msr", vec![0; 0x485 + 8]);
        let facts = Facts::gather(&host.roots, false);
        assert_eq!((facts.policy, facts.tells_timer_causes), (Policy::Unknown, false));
        assert_eq!((facts.companion_tracepoint, facts.stopwatch, facts.layout_error.as_deref()), (None, None, None));
        assert_eq!(facts.missing.len(), 6, "{:?}", facts.missing);
        let told = facts.problems();
        let told: Vec<_> = told.iter().filter(|p| p.severity == Severity::Warning).collect();
        let [one] = told.as_slice() else { panic!("{told:?}") };
        assert!(one.what.starts_with("kvm_intel has no BTF (") && one.what.contains("timer policy"), "{one:?}");
        assert!(one.fix.contains("failed to validate module") && one.fix.contains("make modules"), "{one:?}");
        // A parameter still tells it.
        host.write("sys/module/kvm_intel/parameters/preemption_timer", "N\n");
        assert_eq!(Facts::gather(&host.roots, false).policy, Policy::Off);
    }

    #[test]
    fn a_pid_namespace_of_its_own_is_noticed() {
        let host = bare();
        host.link("proc/self/ns/pid", "pid:[4026532201]");
        let facts = Facts::gather(&host.roots, false);
        assert_eq!(facts.shows_host_processes, Some(false));
        let told = facts.problems();
        let problem = told.iter().find(|p| p.what.contains("PID namespace")).unwrap();
        assert_eq!(problem.severity, Severity::Warning);
        assert!(problem.fix.contains("--pid=host"), "{problem:?}");
    }

    #[test]
    fn a_missing_field_is_no_sign_of_the_hard_policy() {
        let host = Host {
            vendor: Some(Vendor::Intel),
            parameters: [("preemption_timer".to_owned(), "Y".to_owned())].into(),
            ..Host::default()
        };
        let (kernel, module) = made_up::btf(Vendor::Intel);
        let folder = bare();
        folder.write("sys/kernel/btf/vmlinux", kernel);
        folder.write("sys/kernel/btf/kvm_intel", module);
        let mut resolved = resolve::layout(&folder.roots.sys, Vendor::Intel).unwrap();
        assert_eq!(policy_of(&host, Some(&resolved)), Policy::Soft);
        resolved.layout.config.set(Slot::VmcsSoftDisabled, tracer_common::config::ABSENT);
        assert_eq!(policy_of(&host, Some(&resolved)), Policy::Unknown);
        assert_eq!(policy_of(&host, None), Policy::Unknown);
    }

    #[test]
    fn the_delay_at_2_4_ghz_and_a_rate_of_5_is_57_seconds() {
        assert!((max_delay_s(5, 2_400_000) - 57.27).abs() < 0.01);
        assert!((max_delay_s(0, 100_000) - 42.9).abs() < 0.1);
    }
}
