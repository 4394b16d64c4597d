//! Obstacles to measuring on this host, each with its fix: one small rule per concern, pure over the facts.

use serde::Serialize;

use crate::{
    host::{
        erratum::{self, Erratum, seconds},
        facts::{Facts, LEAST_DELAY_S},
        pid_namespace,
    },
    kernel::resolve::NO_BTF_FIX,
    model::{
        measurement::EMULATED,
        policy::Policy,
        soft_timer::{Limit, Named, Reach},
        vendor::Vendor,
    },
};

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// `record` cannot work
    Error,
    /// figures are missing or worth less
    Warning,
    /// good to know
    Note,
}

/// A problem, with the current value and the fix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// how bad it is
    pub(crate) severity: Severity,
    /// the problem, with the current value
    pub(crate) what: String,
    /// how to fix it
    pub(crate) fix: String,
}

/// A rule: the problem that the facts make, if any.
type Rule = fn(&Facts) -> Option<Problem>;

/// Every rule, in the order in which problems of one severity are shown.
const RULES: &[Rule] = &[
    rights,
    kernel_btf,
    kvm_module,
    layout,
    module_btf,
    lockdown,
    jit,
    vendor,
    timer_use,
    timer_rate,
    tsc_frequency,
    early_timer,
    policy_left_behind,
    setting_left_behind,
    own_pid_namespace,
    other_tracers,
    real_hardware,
];

impl Facts {
    /// Every problem at once, the worst first.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems: Vec<_> = missing_fields(self).chain(RULES.iter().filter_map(|rule| rule(self))).collect();
        problems.sort_by_key(|problem| problem.severity);
        problems
    }
}

/// Whether `record` cannot work.
pub(crate) fn has_errors(problems: &[Problem]) -> bool {
    problems.iter().any(|p| p.severity == Severity::Error)
}

/// The errors as one message, for commands that cannot go on; none without errors.
pub(crate) fn errors(problems: &[Problem]) -> Option<String> {
    let errors: Vec<_> = problems
        .iter()
        .filter(|p| p.severity == Severity::Error)
        .map(|p| format!("{}\n  -> {}", p.what, p.fix))
        .collect();
    (!errors.is_empty()).then(|| errors.join("\n"))
}

/// A problem for which `record` cannot work.
pub(crate) fn error(what: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem { severity: Severity::Error, what: what.into(), fix: fix.into() }
}

/// A problem for which figures are missing or worth less.
pub(crate) fn warning(what: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem { severity: Severity::Warning, what: what.into(), fix: fix.into() }
}

fn note(what: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem { severity: Severity::Note, what: what.into(), fix: fix.into() }
}

const SEE_KERNELS: &str = "'vmentry help requirements' lists the kernels";

fn rights(facts: &Facts) -> Option<Problem> {
    let fix = "run as root: sudo vmentry ... (or grant CAP_BPF and CAP_PERFMON)";
    (!facts.may_trace).then(|| error("this process may not load eBPF programs", fix))
}

fn kernel_btf(facts: &Facts) -> Option<Problem> {
    let what = "the kernel has no BTF (/sys/kernel/btf/vmlinux is missing)";
    (!facts.kernel_btf).then(|| error(what, "use a kernel with CONFIG_DEBUG_INFO_BTF=y"))
}

fn kvm_module(facts: &Facts) -> Option<Problem> {
    facts.no_vendor.as_ref().map(|none| error(&none.why, &none.fix))
}

/// Without BTF or a KVM module there is no layout either; other rules say so.
fn layout(facts: &Facts) -> Option<Problem> {
    let reason = facts.layout_error.as_ref().filter(|_| facts.kernel_btf && facts.no_vendor.is_none())?;
    Some(error(reason, SEE_KERNELS))
}

fn module_btf(facts: &Facts) -> Option<Problem> {
    let without = facts.module_without_btf.as_ref()?;
    let vmx = if facts.host.vendor == Some(Vendor::Intel) {
        ", level, pin writes, causes of timer exits and the timer policy"
    } else {
        ""
    };
    let what = format!("{without}: exit reasons{vmx} are n/a; entries, guest time and host time are measured");
    Some(warning(what, NO_BTF_FIX))
}

/// Fields of a module without BTF are missing for that reason, which is said once.
fn missing_fields(facts: &Facts) -> impl Iterator<Item = Problem> {
    let is_of_kvm = |missing: &&String| facts.module_without_btf.is_none() || missing.starts_with("kvm_vcpu.");
    facts.missing.iter().filter(is_of_kvm).map(|missing| warning(format!("not in this kernel: {missing}"), SEE_KERNELS))
}

fn lockdown(facts: &Facts) -> Option<Problem> {
    let what = "kernel lockdown is 'confidentiality': programs may not read kernel memory";
    let fix = "boot with lockdown=integrity or without lockdown";
    (facts.lockdown.as_deref() == Some("confidentiality")).then(|| error(what, fix))
}

fn jit(facts: &Facts) -> Option<Problem> {
    let what = "net.core.bpf_jit_enable is 0: the programs are interpreted and slow the guests";
    (facts.jit == Some(false)).then(|| warning(what, "sysctl net.core.bpf_jit_enable=1"))
}

fn vendor(facts: &Facts) -> Option<Problem> {
    match facts.host.vendor? {
        Vendor::Intel => None,
        Vendor::Amd => Some(note(
            "AMD host (SVM): no VMX-preemption timer and no pin controls",
            "entries, exits and exit reasons are measured; the rest is n/a",
        )),
        Vendor::Other => Some(warning(
            "neither kvm_intel nor kvm_amd runs the VMs",
            "exit reasons and all VMX figures are n/a; entries and exits are measured if its tracepoints fire, which 'vmentry check' tries",
        )),
    }
}

fn timer_use(facts: &Facts) -> Option<Problem> {
    facts.timer.as_ref().filter(|timer| timer.used == Some(false))?;
    let promised = facts.erratum.as_ref().and_then(|erratum| erratum.promised_ns).map(seconds);
    let why = match promised {
        Some(s) if s < LEAST_DELAY_S => {
            format!(": its longest delay is {s:.1} s, below the {LEAST_DELAY_S} s that KVM requires")
        }
        _ => String::new(),
    };
    Some(warning(
        format!("KVM does not use the preemption timer (kvm_intel.preemption_timer=N){why}"),
        "there will be no timer exits; reload kvm_intel with preemption_timer=1 if it was switched off",
    ))
}

fn timer_rate(facts: &Facts) -> Option<Problem> {
    facts.timer.as_ref().filter(|timer| timer.rate.is_none())?;
    Some(note("the timer's rate is n/a: IA32_VMX_MISC cannot be read", "modprobe msr, and run as root"))
}

fn tsc_frequency(facts: &Facts) -> Option<Problem> {
    facts.timer.as_ref().filter(|timer| timer.tsc_khz.is_none())?;
    Some(note("the TSC frequency is n/a: KVM cannot be asked", "run as root or as a member of group kvm"))
}

fn early_timer(facts: &Facts) -> Option<Problem> {
    facts.timer.as_ref().filter(|timer| timer.used != Some(false))?;
    let erratum = facts.erratum.as_ref()?;
    let Reach::Reached(limit) = erratum.reach? else { return None };
    match erratum.cpu {
        Some(Named::Published(cpu)) => expires_early(facts, erratum, limit, cpu),
        Some(Named::Inferred(cpu)) => {
            let cpu = format!("{cpu}, inferred from the models before and after it");
            expires_early(facts, erratum, limit, &cpu)
        }
        Some(Named::No) | None => {
            let far = seconds(limit.ns);
            let what = format!(
                "timer values from {far:.1} s on would expire early if this CPU had Intel's erratum EMR158; nothing is published for its \
                 model"
            );
            Some(note(what, "'vmentry exercise early' tries it"))
        }
    }
}

/// The problem on a CPU that has the erratum.
fn expires_early(facts: &Facts, erratum: &Erratum, limit: Limit, cpu: &str) -> Option<Problem> {
    let [promised, expires, far] = [erratum.promised_ns?, erratum.expires_ns?, limit.ns].map(seconds);
    let rule = if expires < LEAST_DELAY_S {
        format!(", below the {LEAST_DELAY_S} s that KVM requires but computes without the erratum")
    } else {
        String::new()
    };
    // The hard policy does not leave an unused timer running.
    let soft = if facts.policy == Policy::Hard {
        String::new()
    } else {
        format!(" soft-disabled after {expires:.1} s instead of {promised:.1} s{rule};")
    };
    let what = format!(
        "the preemption timer expires early (Intel's erratum EMR158; {cpu}):{soft} a guest's timer that is further ahead than {far:.1} s \
         can fire {far:.1} s early"
    );
    Some(warning(what, erratum::FIX))
}

fn policy_left_behind(facts: &Facts) -> Option<Problem> {
    let note = facts.policy_left_behind.as_ref().filter(|note| note.before != facts.policy)?;
    let (now, before) = (facts.policy.name(), note.before.name());
    let what = format!(
        "the timer policy is {now}, left behind by vmentry (pid {}), which was killed before it restored {before}",
        note.pid
    );
    Some(warning(what, format!("vmentry policy {before}")))
}

fn setting_left_behind(facts: &Facts) -> Option<Problem> {
    let left = facts.setting_left_behind.as_ref()?;
    Some(warning(left.what(), left.fix()))
}

fn own_pid_namespace(facts: &Facts) -> Option<Problem> {
    let what = "this process is in a PID namespace of its own: VMs are named 'tgid N' by the host's process ids, and --vm and --pid are refused";
    (facts.shows_host_processes == Some(false)).then(|| warning(what, pid_namespace::FIX))
}

fn other_tracers(facts: &Facts) -> Option<Problem> {
    let what = facts.other_tracers.shared("are")?;
    Some(warning(what, "end them before you measure times; counts are not affected"))
}

fn real_hardware(facts: &Facts) -> Option<Problem> {
    if facts.host.emulated {
        let fix = EMULATED;
        return Some(warning("the CPU is emulated in software", fix));
    }
    let hypervisor = facts.host.virtualized.as_ref()?;
    let what = format!("this host is itself a VM ({hypervisor})");
    Some(warning(what, "times include the work of the hypervisor below"))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::{
        host::{
            machine::Host,
            policy,
            setting::left_behind::{Left, LeftBehind},
            vendor::NoVendor,
        },
        model::{
            measurement::{OtherTracers, Timer},
            soft_timer::{TimerSetup, TscRatio},
        },
    };

    fn good() -> Facts {
        Facts {
            host: Host { vendor: Some(Vendor::Intel), kernel: "6.12.1".into(), ..Host::default() },
            no_vendor: None,
            policy: Policy::Soft,
            kernel_btf: true,
            may_trace: true,
            layout: None,
            layout_error: None,
            module_without_btf: None,
            missing: vec![],
            tells_timer_causes: true,
            dev_kvm: true,
            timer: Some(Timer { used: Some(true), rate: Some(5), tsc_khz: Some(2_400_000), max_delay_s: Some(57.3) }),
            erratum: None,
            tickless_cpus: String::new(),
            companion_patch: false,
            companion_tracepoint: Some(false),
            stopwatch: None,
            policy_left_behind: None,
            setting_left_behind: None,
            jit: Some(true),
            lockdown: None,
            other_tracers: OtherTracers::default(),
            shows_host_processes: Some(true),
            vms: vec![],
            vms_unseen: None,
        }
    }

    fn nothing_loaded() -> NoVendor {
        NoVendor { why: "no KVM module is loaded".into(), fix: "modprobe kvm_intel".into() }
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
            no_vendor: Some(nothing_loaded()),
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
        let note = policy::Note { pid: 7, start_ticks: 0, before: Policy::Soft };
        let problems = Facts { policy: Policy::Hard, policy_left_behind: Some(note), ..good() }.problems();
        assert_eq!(problems[0].fix, "vmentry policy soft");
    }

    #[test]
    fn a_setting_left_behind_is_noticed() {
        let (file, before, now) = ("/sys/x".into(), "5".into(), "0".into());
        let files = vec![Left { file, before, now }];
        let left = LeftBehind { pid: Some(7), files, command: None, failed: None, foreign: None };
        let problems = Facts { setting_left_behind: Some(left), ..good() }.problems();
        assert!(problems[0].what.starts_with("/sys/x is 0, "), "{problems:?}");
        assert_eq!(problems[0].fix, "vmentry ab --restore");
    }

    #[test]
    fn a_timer_that_kvm_refused_is_explained_by_its_delay() {
        let timer = Timer { used: Some(false), rate: Some(0), tsc_khz: Some(1_000_000), max_delay_s: Some(4.3) };
        let erratum = Erratum::of(None, Ok(setup(0, 40, Some(false))));
        let problems = Facts { timer: Some(timer), erratum: Some(erratum), ..good() }.problems();
        assert!(problems[0].what.contains("4.3 s"), "{problems:?}");
    }

    /// A timer of this rate, with a TSC of `ratio` times 25 MHz.
    fn setup(rate: u32, ratio: u32, capped: Option<bool>) -> TimerSetup {
        TimerSetup {
            rate,
            tsc_khz: NonZeroU32::new(ratio * 25_000).unwrap(),
            ratio: TscRatio::new(ratio, 1),
            hypervisor: false,
            capped,
            test_value: None,
        }
    }

    #[test]
    fn a_timer_that_expires_early_is_a_problem_only_where_values_reach_the_limit() {
        let problems = |cpu, setup| Facts { erratum: Some(Erratum::of(cpu, Ok(setup))), ..good() }.problems();
        let ice_lake = Some(Named::Published("Ice Lake-SP"));
        let [one] = &problems(ice_lake, setup(7, 80, Some(false)))[..] else { panic!("no problem, or more") };
        assert_eq!(one.severity, Severity::Warning);
        assert!(one.what.contains("Ice Lake-SP") && one.what.contains("after 103.1 s instead of 274.9 s"), "{one:?}");
        assert!(one.what.contains("can fire 171.8 s early") && !one.what.contains("below the 10 s"), "{one:?}");
        assert!(one.fix.contains("preemption_timer=0") && one.fix.contains("7.3"), "{one:?}");
        // KVM's rule is met by its own arithmetic and not by the CPU.
        let fast = &problems(ice_lake, setup(7, 127, Some(false)))[0].what;
        assert!(fast.contains("after 1.4 s instead of 173.2 s, below the 10 s"), "{fast}");
        let inferred = &problems(Some(Named::Inferred("Sapphire Rapids")), setup(7, 80, Some(false)))[0].what;
        assert!(inferred.contains("Sapphire Rapids, inferred"), "{inferred}");
        let unpublished = &problems(Some(Named::No), setup(7, 80, Some(false)))[0];
        assert_eq!(unpublished.severity, Severity::Note);
        for harmless in [setup(7, 80, Some(true)), setup(7, 80, None), setup(5, 80, Some(false)), setup(7, 128, None)] {
            assert_eq!(problems(ice_lake, harmless), []);
        }
        let erratum = Erratum::of(ice_lake, Ok(setup(7, 80, Some(false))));
        let hard = Facts { policy: Policy::Hard, erratum: Some(erratum), ..good() }.problems();
        assert!(!hard[0].what.contains("soft-disabled") && hard[0].what.contains("171.8 s early"), "{hard:?}");
        let off = Timer { used: Some(false), rate: Some(7), tsc_khz: Some(2_000_000), max_delay_s: None };
        let erratum = Erratum::of(ice_lake, Ok(setup(7, 80, Some(false))));
        let off = Facts { timer: Some(off), erratum: Some(erratum), ..good() }.problems();
        assert!(off.len() == 1 && off[0].what.contains("preemption_timer=N"), "{off:?}");
    }

    #[test]
    fn a_layout_that_cannot_be_resolved_is_named_once() {
        let unsupported = Facts { layout_error: Some("field x is missing".into()), ..good() };
        assert_eq!(unsupported.problems(), [error("field x is missing", SEE_KERNELS)]);
        let no_module = Facts { no_vendor: Some(nothing_loaded()), ..unsupported };
        assert_eq!(no_module.problems().len(), 1, "that no module is loaded says it all");
    }

    #[test]
    fn each_rule_speaks_for_the_concern_it_is_named_for() {
        let only = |facts: Facts| match facts.problems().as_slice() {
            [one] => (one.severity, one.what.clone()),
            more => panic!("{more:?}"),
        };
        let timer =
            |used, rate, tsc_khz| Facts { timer: Some(Timer { used, rate, tsc_khz, max_delay_s: None }), ..good() };
        let of_vendor = |vendor| Facts { host: Host { vendor: Some(vendor), ..Host::default() }, ..good() };
        let cases = [
            (Facts { may_trace: false, ..good() }, Severity::Error, "may not load eBPF programs"),
            (Facts { kernel_btf: false, ..good() }, Severity::Error, "no BTF"),
            (Facts { no_vendor: Some(nothing_loaded()), ..good() }, Severity::Error, "no KVM module"),
            (
                Facts {
                    module_without_btf: Some("kvm_intel has no BTF".into()),
                    missing: vec!["vcpu_vmx.a: b n/a".into()],
                    ..good()
                },
                Severity::Warning,
                "kvm_intel has no BTF",
            ),
            (Facts { lockdown: Some("confidentiality".into()), ..good() }, Severity::Error, "lockdown"),
            (Facts { missing: vec!["a.b: c n/a".into()], ..good() }, Severity::Warning, "a.b: c n/a"),
            (Facts { shows_host_processes: Some(false), ..good() }, Severity::Warning, "PID namespace"),
            (
                Facts { other_tracers: OtherTracers { names: vec!["perf (pid 7)".into()], unseen: vec![] }, ..good() },
                Severity::Warning,
                "times contain their work: perf (pid 7)",
            ),
            (Facts { jit: Some(false), ..good() }, Severity::Warning, "bpf_jit_enable is 0"),
            (of_vendor(Vendor::Amd), Severity::Note, "AMD host"),
            (of_vendor(Vendor::Other), Severity::Warning, "neither kvm_intel nor kvm_amd"),
            (timer(Some(false), Some(5), Some(1)), Severity::Warning, "does not use the preemption timer"),
            (timer(Some(true), None, Some(1)), Severity::Note, "IA32_VMX_MISC"),
            (timer(Some(true), Some(5), None), Severity::Note, "TSC frequency"),
        ];
        for (facts, severity, what) in cases {
            let found = only(facts);
            assert!(found.0 == severity && found.1.contains(what), "{found:?}");
        }
        let inside = Host { virtualized: Some("KVMKVMKVM".into()), vendor: Some(Vendor::Intel), ..Host::default() };
        assert!(only(Facts { host: inside, ..good() }).1.contains("is itself a VM (KVMKVMKVM)"));
    }
}
