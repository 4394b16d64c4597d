//! What is known about the entries of a recording or of this host: the one place that decides it. Every output asks here before it shows
//! a figure, and shows n/a with the reason where the answer is no.

use std::{collections::BTreeMap, fmt, ops::Index};

use tracer_common::{Isa, rules::TimerCause};

use crate::model::{
    budget::{Budget, Phase},
    figures::Figure,
    histogram::Histogram,
    measurement::{Latency, PinSource},
    series::{EntryKind, Key, Level, Series},
    vendor::Vendor,
};

/// Something that a host may or may not tell about its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// exit reasons
    ExitReason,
    /// whether an entry was into L1 or L2
    Level,
    /// pin-control writes, and so clean and dirty entries
    PinWrites,
    /// number of VMX-preemption-timer exits, whatever their cause
    TimerExits,
    /// cause of each timer exit
    TimerCause,
    /// whether a timer's deadline was due at its exit: apart from those that were, exits of cause [`TimerCause::Early`]
    Deadline,
    /// `deadline_late_ns` and `deadline_remaining_ns`
    Lateness,
    /// `transition_ns`
    Transition,
    /// guest and host times, undisturbed or wanted nevertheless
    Times,
    /// the timer policy
    Policy,
    /// the part of the host time that the VMM had
    UserTime,
    /// the parts of the host time in which the guest was halted
    HaltTime,
    /// the part of the host time in which the vCPU's thread waited for a CPU
    StealTime,
    /// what exits were about beyond their reasons
    Detail,
}

impl Subject {
    /// Every one.
    pub const ALL: [Self; 14] = [
        Self::ExitReason,
        Self::Level,
        Self::PinWrites,
        Self::TimerExits,
        Self::TimerCause,
        Self::Deadline,
        Self::Lateness,
        Self::Transition,
        Self::Times,
        Self::Policy,
        Self::UserTime,
        Self::HaltTime,
        Self::StealTime,
        Self::Detail,
    ];

    /// Name in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ExitReason => "exit_reason",
            Self::Level => "level",
            Self::PinWrites => "pin_writes",
            Self::TimerExits => "timer_exits",
            Self::TimerCause => "timer_cause",
            Self::Deadline => "timer_deadline",
            Self::Lateness => "timer_lateness",
            Self::Transition => "transition_ns",
            Self::Times => "times",
            Self::Policy => "policy",
            Self::UserTime => "user_time",
            Self::HaltTime => "halt_time",
            Self::StealTime => "steal_time",
            Self::Detail => "detail",
        }
    }

    /// Name for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::ExitReason => "exit reasons",
            Self::Level => "levels",
            Self::PinWrites => "pin writes",
            Self::TimerExits => "timer exits",
            Self::TimerCause => "causes of timer exits",
            Self::Deadline => "early timer exits",
            Self::Lateness => "distances to timers' deadlines",
            Self::Transition => "transition_ns",
            Self::Times => "guest and host times",
            Self::Policy => "policy",
            Self::UserTime => "user time",
            Self::HaltTime => "polled and idle time",
            Self::StealTime => "steal time",
            Self::Detail => "details of exits",
        }
    }

    /// The subject that a part of the host time depends on; none for the kernel's, which is the rest.
    pub const fn of_phase(phase: Phase) -> Option<Self> {
        match phase {
            Phase::Kernel => None,
            Phase::User => Some(Self::UserTime),
            Phase::Polled | Phase::Idle => Some(Self::HaltTime),
            Phase::Steal => Some(Self::StealTime),
        }
    }

    /// The subjects that a figure's values depend on.
    pub const fn of(figure: Figure) -> &'static [Self] {
        match figure {
            Figure::EntryToExit | Figure::ExitToEntry => &[Self::Times],
            Figure::PinWrites => &[Self::PinWrites],
            Figure::Transition => &[Self::Transition, Self::Times],
            // A hook after KVM has computed the value delays the timer.
            Figure::DeadlineLate | Figure::DeadlineRemaining => &[Self::Lateness, Self::Times],
        }
    }
}

/// The reason why something is not known, as people read it: "kvm_intel has no BTF".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unknown(String);

impl Unknown {
    /// From a reason in lower case, without a full stop.
    pub fn because(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// Whether it is that SVM has no such thing.
    pub(crate) fn is_of_svm(&self) -> bool {
        [SVM_PIN_CONTROLS, SVM_TIMER].contains(&&*self.0)
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fields that each subject needs, by the names in [`Source::missing`]. One that a kernel lacks makes its subjects unknown.
const NEEDED: &[(&str, &[Subject])] = &[
    ("vcpu_vmx.exit_reason", &[Subject::ExitReason, Subject::TimerExits, Subject::TimerCause]),
    ("vcpu_vmx.hv_deadline_tsc", &[Subject::Deadline, Subject::Lateness]),
    ("vcpu_vmx.loaded_vmcs", &[Subject::PinWrites, Subject::TimerCause]),
    ("loaded_vmcs.controls_shadow.pin", &[Subject::PinWrites]),
    ("loaded_vmcs.hv_timer_soft_disabled", &[Subject::TimerCause]),
    ("vcpu_vmx.req_immediate_exit", &[Subject::TimerCause]),
    ("vcpu_svm.vmcb", &[Subject::ExitReason]),
    ("vmcb.control.exit_code", &[Subject::ExitReason]),
    ("kvm_userspace_exit", &[Subject::UserTime]),
    ("kvm_vcpu.stat.generic.halt_poll_success_ns", &[Subject::HaltTime]),
    ("kvm_vcpu.stat.generic.halt_poll_fail_ns", &[Subject::HaltTime]),
    ("kvm_vcpu.stat.generic.halt_wait_ns", &[Subject::HaltTime]),
    ("task_struct.sched_info.run_delay", &[Subject::StealTime]),
];

/// The field that also tells the policy.
const POLICY: [&str; 1] = ["loaded_vmcs.hv_timer_soft_disabled"];
/// The fields that tell the level on VMX; the statistics of KVM tell it, too.
const LEVEL: [&str; 2] = ["vcpu_vmx.loaded_vmcs", "vcpu_vmx.vmcs01"];
/// KVM's statistics that tell the level.
const LEVEL_STATISTICS: &str = "kvm_vcpu.stat.guest_mode";

/// The fields of kvm_amd that are all missing where it has no BTF.
const SVM_FIELDS: [&str; 2] = ["vcpu_svm.vmcb", "vmcb.control.exit_code"];
/// The fields of kvm_intel that are all missing where it has no BTF.
const VMX_FIELDS: [&str; 6] = [
    "vcpu_vmx.exit_reason",
    "vcpu_vmx.loaded_vmcs",
    "vcpu_vmx.vmcs01",
    "loaded_vmcs.controls_shadow.pin",
    "loaded_vmcs.hv_timer_soft_disabled",
    "vcpu_vmx.hv_deadline_tsc",
];

/// Subjects, and those that cannot be known without them, in an order in which one follows from the other.
const DEPENDENT: &[(Subject, &[Subject])] = &[
    (Subject::ExitReason, &[Subject::TimerExits, Subject::TimerCause]),
    (Subject::TimerExits, &[Subject::TimerCause]),
    (Subject::TimerCause, &[Subject::Deadline]),
    (Subject::Deadline, &[Subject::Lateness]),
    (Subject::ExitReason, &[Subject::Detail]),
    (Subject::Times, &PHASES),
];

/// Parts of the host time.
const PHASES: [Subject; 3] = [Subject::UserTime, Subject::HaltTime, Subject::StealTime];

/// Why there are no pin writes on AMD.
const SVM_PIN_CONTROLS: &str = "SVM has no pin controls";
/// Why there are no figures of the timer on AMD.
const SVM_TIMER: &str = "SVM has no VMX-preemption timer";

/// Why disturbed times are not shown.
pub(crate) const DISTURBED: &str = "hooks on VMCS writes ran between kvm_entry and the VM entry. Record \
    without --exact-writes and --verify-writes, or with --with-latency to see them anyway";

/// How entries were traced, which decides what is known about them.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    /// the module that ran the VMs; none where it is not known: then the entries' instruction set decides
    pub vendor: Option<Vendor>,
    /// fields that the kernel lacks, each followed by ": " and its meaning
    pub missing: &'a [String],
    /// source of pin writes
    pub pin_writes: PinSource,
    /// the companion patch's stopwatch was on
    pub stopwatch: bool,
    /// the module shows whether it uses the timer
    pub policy_is_shown: bool,
    /// entries were counted by the programs, which keep no distribution of timers' deadlines
    pub counted_in_kernel: bool,
    /// a parameter of the module names the policy; otherwise the fields of the kernel tell
    pub policy_is_parameter: bool,
    /// host times were split into their parts
    pub phases: bool,
    /// exits were looked at beyond their reasons
    pub detail: bool,
}

/// Whether what depends on a missing field is told by [`Knowledge`]; `missing` is one of [`Source::missing`].
pub(crate) fn is_subject(missing: &str) -> bool {
    let field = missing.split(':').next().unwrap_or(missing);
    NEEDED.iter().any(|(needed, _)| *needed == field) || LEVEL.contains(&field) || field == LEVEL_STATISTICS
}

impl Source<'_> {
    /// The first of these fields that the kernel lacks.
    fn lacks<'f>(&self, fields: impl IntoIterator<Item = &'f str>) -> Option<&'f str> {
        let missing = |field: &&str| self.missing.iter().any(|m| m.split(':').next() == Some(*field));
        fields.into_iter().find(missing)
    }

    /// The module whose fields are all missing: it has no BTF.
    fn module_without_btf(&self) -> Option<&'static str> {
        let all = |fields: &[&'static str]| fields.iter().all(|field| self.lacks([*field]).is_some());
        let vendor = self.vendor.unwrap_or(Vendor::Intel);
        let is_missing = match vendor {
            Vendor::Intel => all(&VMX_FIELDS),
            Vendor::Amd => all(&SVM_FIELDS),
            Vendor::Other => false,
        };
        vendor.module().filter(|_| is_missing)
    }
}

/// What is known, and for everything else the reason why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knowledge {
    unknown: BTreeMap<Subject, Unknown>,
}

impl Knowledge {
    /// Everything is known: for tests, and where entries alone decide.
    pub fn complete() -> Self {
        Self { unknown: BTreeMap::new() }
    }

    /// What is known about entries that were traced like this.
    pub fn of(source: &Source<'_>) -> Self {
        let mut known = Self::complete();
        match source.vendor {
            Some(Vendor::Amd) => {
                known.lose(&[Subject::PinWrites], SVM_PIN_CONTROLS);
                let timer = [Subject::TimerExits, Subject::TimerCause, Subject::Policy];
                known.lose(&timer, SVM_TIMER);
            }
            Some(Vendor::Other) => known.lose(
                &[Subject::ExitReason, Subject::PinWrites, Subject::TimerExits, Subject::TimerCause, Subject::Policy],
                "VMs run on neither kvm_intel nor kvm_amd",
            ),
            Some(Vendor::Intel) | None => {}
        }
        known.lose_fields(source);
        if source.pin_writes == PinSource::None {
            known.lose(&[Subject::PinWrites], "there is no source of pin writes");
        }
        if !source.policy_is_shown {
            known.lose(&[Subject::Policy], "kvm_intel does not show it");
        }
        if !source.phases {
            known.lose(&PHASES, "host times were not split");
        }
        known.lose_dependents();
        if source.counted_in_kernel {
            known.lose(&[Subject::Lateness, Subject::Detail], "in-kernel counting does not keep it");
        }
        if !source.detail {
            known.lose(&[Subject::Detail], "recorded without --detail");
        }
        if !source.stopwatch
            && let Err(reason) = known.known(Subject::TimerCause).map_err(Unknown::clone)
        {
            known.lose(&[Subject::Transition], &reason.0);
        }
        known
    }

    /// Loses what depends on fields that the kernel lacks.
    fn lose_fields(&mut self, source: &Source<'_>) {
        let without_btf = source.module_without_btf();
        let reason = |field: &str| match without_btf {
            Some(module) => format!("{module} has no BTF"),
            None => format!("field {field} is not in this kernel"),
        };
        for (field, subjects) in NEEDED.iter().filter(|(field, _)| source.lacks([*field]).is_some()) {
            self.lose(subjects, &reason(field));
        }
        // That the field is missing does not tell another policy: every kernel whose BTF is enough has the soft one.
        if let Some(field) = source.lacks(POLICY).filter(|_| !source.policy_is_parameter) {
            self.lose(&[Subject::Policy], &reason(field));
        }
        let by_vmcs = match source.vendor {
            Some(Vendor::Intel) | None => source.lacks(LEVEL),
            _ => Some(LEVEL_STATISTICS),
        };
        if let (Some(field), Some(_)) = (by_vmcs, source.lacks([LEVEL_STATISTICS])) {
            // Shadows of the controls are kept by level.
            self.lose(&[Subject::Level, Subject::PinWrites], &reason(field));
        }
    }

    /// Makes subjects unknown; the first reason stays.
    fn lose(&mut self, subjects: &[Subject], reason: &str) {
        for subject in subjects {
            self.unknown.entry(*subject).or_insert_with(|| Unknown::because(reason));
        }
    }

    /// The same, with subjects not known for one reason, which replaces those of fields and settings.
    pub(crate) fn without(mut self, subjects: impl IntoIterator<Item = Subject>, reason: &str) -> Self {
        self.unknown.extend(subjects.into_iter().map(|subject| (subject, Unknown::because(reason))));
        self
    }

    /// The same, with the times not known where hooks disturbed them and nobody asked for them.
    pub fn with_latency(mut self, latency: Latency) -> Self {
        if latency == Latency::Disturbed {
            self.lose(&[Subject::Times], DISTURBED);
            self.lose_dependents();
        }
        self
    }

    /// The reasons by [`Subject::name`], as files hold them. Times are left out: they follow from the file's `latency`.
    pub fn to_file(&self) -> BTreeMap<String, String> {
        let of_times = |s: Subject, why: &Unknown| s == Subject::Times || PHASES.contains(&s) && why.0 == DISTURBED;
        let kept = self.unknown.iter().filter(|(subject, why)| !of_times(**subject, why));
        kept.map(|(subject, reason)| (subject.name().to_owned(), reason.0.clone())).collect()
    }

    /// From a file; names of a later version are left out.
    pub fn from_file(reasons: &BTreeMap<String, String>) -> Self {
        let subject = |name: &str| Subject::ALL.into_iter().find(|s| s.name() == name);
        let known = reasons.iter().filter_map(|(name, reason)| Some((subject(name)?, Unknown::because(reason))));
        let mut knowledge = Self { unknown: known.collect() };
        // A file may contradict itself.
        knowledge.lose_dependents();
        knowledge
    }

    /// Loses what depends on an unknown subject.
    fn lose_dependents(&mut self) {
        for (needed, dependent) in DEPENDENT {
            if let Err(reason) = self.known(*needed).map_err(Unknown::clone) {
                self.lose(dependent, &reason.0);
            }
        }
    }

    /// The key without what is not known: whatever the tags of a file say.
    pub(crate) fn known_key(&self, key: Key) -> Key {
        let is_known = |subject| self.known(subject).is_ok();
        // An exit of the timer is one by its reason, and its cause alone may be unknown.
        let cause = match key.cause {
            _ if !is_known(Subject::ExitReason) || !is_known(Subject::TimerExits) => None,
            Some(_) if !is_known(Subject::TimerCause) => Some(TimerCause::Unknown),
            Some(TimerCause::Early) if !is_known(Subject::Deadline) => Some(TimerCause::Deadline),
            cause => cause,
        };
        Key {
            level: if is_known(Subject::Level) { key.level } else { Level::Unknown },
            reason: key.reason.filter(|_| is_known(Subject::ExitReason)),
            detail: key.detail.filter(|_| is_known(Subject::Detail)),
            entry: if is_known(Subject::PinWrites) { key.entry } else { EntryKind::Unknown },
            cause,
            ..key
        }
    }

    /// Takes from a series the figures that are not known; its times stay, because they count its entries.
    pub(crate) fn keep_known(&self, series: &mut Series) {
        for figure in [Figure::PinWrites, Figure::Transition, Figure::DeadlineLate, Figure::DeadlineRemaining] {
            if Subject::of(figure).iter().any(|s| *s != Subject::Times && self.known(*s).is_err()) {
                series[figure] = Histogram::default();
            }
        }
    }

    /// What is known about the entries of several sources: a subject that any of them knows. Entries of the others carry no value of it,
    /// and [`TimerExits`] holds them against counts. Times and policy must be known of all,
    /// and early timer exits of all that tell causes. Without a source nothing is known.
    pub fn merge(sources: impl IntoIterator<Item = Knowledge>) -> Self {
        let sources: Vec<_> = sources.into_iter().collect();
        let mut merged = Self::complete();
        if sources.is_empty() {
            merged.lose(&Subject::ALL, "there is no recording");
        }
        for subject in Subject::ALL {
            // Exits before their deadline are among those at it where nobody looked: every source with causes must tell them.
            let asked = |s: &&Knowledge| subject != Subject::Deadline || s.known(Subject::TimerCause).is_ok();
            let of_all = sources.iter().filter(asked).collect::<Vec<_>>();
            let of_all = if of_all.is_empty() { sources.iter().collect() } else { of_all };
            let mut reasons: Vec<_> = of_all.iter().filter_map(|s| s.known(subject).err()).map(|r| &*r.0).collect();
            let all =
                matches!(subject, Subject::Times | Subject::Policy | Subject::Deadline) || PHASES.contains(&subject);
            if reasons.is_empty() || !all && reasons.len() < of_all.len() {
                continue;
            }
            reasons.sort_unstable();
            reasons.dedup();
            merged.lose(&[subject], &reasons.join("; "));
        }
        merged
    }

    /// Whether a subject is known; the reason where it is not.
    pub fn known(&self, subject: Subject) -> Result<(), &Unknown> {
        self.unknown.get(&subject).map_or(Ok(()), Err)
    }

    /// Whether a figure's values are known; the reason where they are not.
    pub fn figure(&self, figure: Figure) -> Result<(), &Unknown> {
        Subject::of(figure).iter().try_for_each(|subject| self.known(*subject))
    }

    /// Everything that is not known, with the reasons.
    pub fn unknown(&self) -> impl Iterator<Item = (Subject, &Unknown)> {
        self.unknown.iter().map(|(subject, reason)| (*subject, reason))
    }

    /// Everything that is not known by its reason, as "TITLE, TITLE" with the reason.
    pub(crate) fn unknown_by_reason(&self) -> Vec<(String, &Unknown)> {
        let mut groups: Vec<(String, &Unknown)> = Vec::new();
        for (subject, reason) in self.unknown() {
            match groups.iter_mut().find(|(_, why)| *why == reason) {
                Some((titles, _)) => *titles += &format!(", {}", subject.title()),
                None => groups.push((subject.title().to_owned(), reason)),
            }
        }
        groups
    }

    /// The distributions that may be shown: those of unknown figures are empty.
    pub fn show(&self, mut series: Series) -> Shown {
        let entries = series.entries();
        for figure in Figure::ALL {
            if self.figure(figure).is_err() {
                series[figure] = Histogram::default();
            }
        }
        let is_known = |phase| Subject::of_phase(phase).is_none_or(|subject| self.known(subject).is_ok());
        let has_times = self.known(Subject::Times).is_ok();
        // Where no other part is known, the rest is not the kernel's.
        let any = Phase::ALL.into_iter().any(|phase| phase != Phase::Kernel && is_known(phase));
        let phases = Phase::ALL.map(|phase| has_times && any && is_known(phase));
        // Some of the entries may know it nevertheless.
        Phase::ALL.into_iter().filter(|phase| !is_known(*phase)).for_each(|phase| series.budget.forget(phase));
        Shown { entries, has_times, phases, series }
    }
}

/// Distributions whose values may be shown; only [`Knowledge::show`] makes one.
#[derive(Clone, Debug)]
pub struct Shown {
    entries: u64,
    has_times: bool,
    /// in the order of [`Phase::ALL`]
    phases: [bool; Phase::ALL.len()],
    series: Series,
}

impl Shown {
    /// Number of entries.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Sums of the times; none where these are not known. A part of the host time may be unknown nevertheless: see [`Self::phase`].
    pub fn budget(&self) -> Option<&Budget> {
        self.has_times.then_some(&self.series.budget)
    }

    /// Sum of a part of the host time, ns; none where it is not known. What is not known is in the kernel's part.
    pub fn phase(&self, phase: Phase) -> Option<u64> {
        self.phases[phase as usize].then(|| self.series.budget.of(phase))
    }

    /// Sum of the host times, ns; none where they are not known, or there are none.
    pub fn host_ns(&self) -> Option<u64> {
        self.budget().filter(|_| self[Figure::ExitToEntry].count() > 0).map(|budget| budget.host_ns)
    }

    /// Sum of the guest times, ns; none where they are not known, or there are none.
    pub fn guest_ns(&self) -> Option<u64> {
        self.budget().filter(|_| self[Figure::EntryToExit].count() > 0).map(|budget| budget.guest_ns)
    }

    /// Adds another's values.
    pub fn merge(&mut self, other: &Self) {
        self.entries = self.entries.saturating_add(other.entries);
        self.series.merge(&other.series);
    }
}

impl Index<Figure> for Shown {
    type Output = Histogram;

    fn index(&self, figure: Figure) -> &Histogram {
        &self.series[figure]
    }
}

/// Counts of timer exits among some entries. The counts come out only where they are known: [`Self::all`], [`Self::of`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerExits {
    entries: u64,
    vmx: u64,
    /// those whose exit reason was not read, of whatever instruction set: an entry that contradicts the module may be anything
    without_reason: u64,
    /// in the order of [`TimerCause::ALL`]
    by_cause: [u64; TimerCause::ALL.len()],
}

impl TimerExits {
    /// Counts entries of a key.
    pub fn count(&mut self, key: &Key, entries: u64) {
        let add = |mine: &mut u64, is: bool| *mine = mine.saturating_add(if is { entries } else { 0 });
        let is_vmx = key.isa == Isa::Vmx;
        add(&mut self.entries, true);
        add(&mut self.vmx, is_vmx);
        add(&mut self.without_reason, key.reason.is_none());
        for (cause, mine) in TimerCause::ALL.into_iter().zip(&mut self.by_cause) {
            add(mine, key.cause == Some(cause));
        }
    }

    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        let add = |mine: &mut u64, more: u64| *mine = mine.saturating_add(more);
        add(&mut self.entries, other.entries);
        add(&mut self.vmx, other.vmx);
        add(&mut self.without_reason, other.without_reason);
        self.by_cause.iter_mut().zip(other.by_cause).for_each(|(mine, more)| add(mine, more));
    }

    /// Number of timer exits, whatever their cause. Not known where the exit reason of any entry was not read.
    pub fn all(&self, knowledge: &Knowledge) -> Result<u64, Unknown> {
        knowledge.known(Subject::TimerExits).map_err(Unknown::clone)?;
        if self.vmx == 0 {
            return Err(Unknown::because(if self.entries == 0 {
                "there is no entry"
            } else {
                "no entry is one of VMX"
            }));
        }
        if self.without_reason > 0 {
            return Err(Unknown::because(format!("the exit reason of {} entries was not read", self.without_reason)));
        }
        Ok(self.by_cause.iter().fold(0, |sum, n| sum.saturating_add(*n)))
    }

    /// Number of timer exits of a cause. Not known where the cause of any timer exit was not read; the number of those themselves
    /// ([`TimerCause::Unknown`]) is known where [`Self::all`] is.
    pub fn of(&self, cause: TimerCause, knowledge: &Knowledge) -> Result<u64, Unknown> {
        self.all(knowledge)?;
        let of = |cause: TimerCause| self.by_cause[cause as usize];
        if cause != TimerCause::Unknown {
            knowledge.known(Subject::TimerCause).map_err(Unknown::clone)?;
            if of(TimerCause::Unknown) > 0 {
                let unread = of(TimerCause::Unknown);
                return Err(Unknown::because(format!("the cause of {unread} timer exits was not read")));
            }
        }
        if cause == TimerCause::Early {
            knowledge.known(Subject::Deadline).map_err(Unknown::clone)?;
        }
        Ok(of(cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::series::Key;

    fn source(missing: &[String]) -> Source<'_> {
        Source {
            vendor: Some(Vendor::Intel),
            missing,
            pin_writes: PinSource::Shadow,
            stopwatch: false,
            counted_in_kernel: false,
            policy_is_shown: true,
            policy_is_parameter: false,
            phases: true,
            detail: true,
        }
    }

    fn without(fields: &[&str]) -> Vec<String> {
        fields.iter().map(|f| format!("{f}: something n/a")).collect()
    }

    fn lost(knowledge: &Knowledge) -> Vec<Subject> {
        knowledge.unknown().map(|(subject, _)| subject).collect()
    }

    fn reason(knowledge: &Knowledge, subject: Subject) -> String {
        knowledge.known(subject).unwrap_err().to_string()
    }

    #[test]
    fn a_missing_field_takes_its_subjects_and_names_itself() {
        assert_eq!(lost(&Knowledge::of(&source(&[]))), []);
        let missing = without(&["loaded_vmcs.hv_timer_soft_disabled"]);
        let known = Knowledge::of(&source(&missing));
        let causes = [Subject::TimerCause, Subject::Deadline, Subject::Lateness];
        assert_eq!(lost(&known), [&causes[..], &[Subject::Transition, Subject::Policy]].concat());
        assert_eq!(
            reason(&known, Subject::TimerCause),
            "field loaded_vmcs.hv_timer_soft_disabled is not in this kernel"
        );
        let with_stopwatch = Knowledge::of(&Source { stopwatch: true, ..source(&missing) });
        assert_eq!(lost(&with_stopwatch), [&causes[..], &[Subject::Policy]].concat());
    }

    #[test]
    fn a_kvm_intel_without_btf_is_one_reason_for_all_and_has_no_policy() {
        let missing = without(&VMX_FIELDS);
        let known = Knowledge::of(&Source { pin_writes: PinSource::None, ..source(&missing) });
        let all = lost(&known);
        use Subject::{Deadline, Detail, ExitReason, Lateness, PinWrites, Policy, TimerCause, TimerExits, Transition};
        assert_eq!(
            all,
            [ExitReason, PinWrites, TimerExits, TimerCause, Deadline, Lateness, Transition, Policy, Detail]
        );
        assert!(all.iter().all(|s| reason(&known, *s) == "kvm_intel has no BTF"), "{known:?}");
        let patched = Knowledge::of(&Source { policy_is_parameter: true, ..source(&missing) });
        assert!(patched.known(Policy).is_ok(), "the companion patch's parameter names it");
    }

    #[test]
    fn svm_has_neither_timer_nor_pin_controls() {
        let known = Knowledge::of(&Source { vendor: Some(Vendor::Amd), pin_writes: PinSource::None, ..source(&[]) });
        assert_eq!(reason(&known, Subject::PinWrites), "SVM has no pin controls");
        assert_eq!(reason(&known, Subject::TimerExits), "SVM has no VMX-preemption timer");
        assert!(known.known(Subject::ExitReason).is_ok() && known.known(Subject::Level).is_ok());
        let missing = without(&SVM_FIELDS);
        let without_btf = Knowledge::of(&Source { vendor: Some(Vendor::Amd), ..source(&missing) });
        assert_eq!(reason(&without_btf, Subject::ExitReason), "kvm_amd has no BTF");
    }

    #[test]
    fn the_level_is_known_by_the_vmcs_or_by_statistics() {
        let level = |fields: &[&str]| Knowledge::of(&source(&without(fields))).known(Subject::Level).is_ok();
        assert!(level(&["vcpu_vmx.vmcs01"]) && level(&["kvm_vcpu.stat.guest_mode"]));
        assert!(!level(&["vcpu_vmx.vmcs01", "kvm_vcpu.stat.guest_mode"]));
    }

    #[test]
    fn a_file_keeps_the_reasons_and_names_of_later_versions_are_left_out() {
        let missing = without(&["vcpu_vmx.exit_reason"]);
        let known = Knowledge::of(&source(&missing));
        let mut file = known.to_file();
        file.insert("a later subject".into(), "a reason".into());
        assert_eq!(Knowledge::from_file(&file), known);
    }

    #[test]
    fn what_a_file_does_not_know_takes_what_depends_on_it_and_is_in_no_key() {
        let of = |subject: Subject| Knowledge::from_file(&[(subject.name().into(), "why".into())].into());
        let order =
            [Subject::ExitReason, Subject::TimerExits, Subject::TimerCause, Subject::Deadline, Subject::Lateness];
        let with_reasons: Vec<_> = order.into_iter().chain([Subject::Detail]).collect();
        assert_eq!(lost(&of(order[0])), with_reasons);
        (1..order.len()).for_each(|at| assert_eq!(lost(&of(order[at])), &order[at..]));
        let (reason, cause) = (Some(52), Some(TimerCause::Spurious));
        let key = Key { level: Level::L1, isa: Isa::Vmx, reason, cause, entry: EntryKind::Dirty, ..Key::default() };
        assert_eq!(Knowledge::complete().known_key(key), key);
        let without = |subject| of(subject).known_key(key);
        assert_eq!(without(Subject::ExitReason), Key { reason: None, cause: None, ..key });
        assert_eq!(without(Subject::TimerExits), Key { cause: None, ..key });
        assert_eq!(without(Subject::TimerCause), Key { cause: Some(TimerCause::Unknown), ..key });
        let early = Key { cause: Some(TimerCause::Early), ..key };
        assert_eq!(of(Subject::Deadline).known_key(early), Key { cause: Some(TimerCause::Deadline), ..key });
        assert_eq!(of(Subject::Lateness).known_key(early), early);
        assert_eq!(without(Subject::PinWrites), Key { entry: EntryKind::Unknown, ..key });
        assert_eq!(without(Subject::Level), Key { level: Level::Unknown, ..key });
        let mut series = Series::default();
        Figure::ALL.into_iter().for_each(|figure| series[figure].record_n(1, 4));
        let counts = |s: &Series| Figure::ALL.map(|figure| s[figure].count());
        let known = |knowledge: Knowledge| {
            let mut series = series.clone();
            knowledge.keep_known(&mut series);
            series
        };
        assert_eq!(counts(&known(of(Subject::PinWrites))).iter().sum::<u64>(), 20);
        assert_eq!(known(of(Subject::Transition))[Figure::Transition].count(), 0);
        assert_eq!(counts(&known(Knowledge::complete().with_latency(Latency::Disturbed))), [4; 6]);
    }

    #[test]
    fn of_several_recordings_is_known_what_any_knows_but_times_and_policy_of_all() {
        let amd = Knowledge::of(&Source { vendor: Some(Vendor::Amd), ..source(&[]) });
        let intel = Knowledge::of(&source(&[]));
        let both = Knowledge::merge([amd.clone(), intel.clone()]);
        assert_eq!(lost(&both), [Subject::Policy]);
        assert_eq!(Knowledge::merge([amd.clone(), amd.clone()]), amd);
        let disturbed = Knowledge::merge([intel.clone().with_latency(Latency::Disturbed), intel]);
        assert_eq!(lost(&disturbed), [&[Subject::Times][..], &PHASES].concat());
        assert_eq!(lost(&Knowledge::merge([])).len(), Subject::ALL.len());
    }

    #[test]
    fn early_exits_of_several_recordings_are_known_where_all_that_tell_causes_know_them() {
        let early = |sources: &[&Knowledge]| {
            Knowledge::merge(sources.iter().copied().cloned()).known(Subject::Deadline).is_ok()
        };
        let intel = Knowledge::of(&source(&[]));
        let amd = Knowledge::of(&Source { vendor: Some(Vendor::Amd), ..source(&[]) });
        let older = intel.clone().without([Subject::Deadline], "recordings of version 2 do not have it");
        assert!(early(&[&intel, &amd]), "SVM has no timer that could be early");
        assert!(!early(&[&intel, &older]), "its early exits are among those at their deadline");
        assert!(!early(&[&amd, &older]) && !early(&[&amd]));
        let in_kernel = Knowledge::of(&Source { counted_in_kernel: true, ..source(&[]) });
        assert_eq!(lost(&in_kernel), [Subject::Lateness, Subject::Detail]);
        assert_eq!(lost(&Knowledge::merge([in_kernel, intel])), []);
    }

    /// Timer exits of a cause, and other entries of VMX with and without a reason.
    fn counts(timer: &[(TimerCause, u64)], others: u64, unread: u64) -> TimerExits {
        let mut counts = TimerExits::default();
        let vmx = Key { isa: Isa::Vmx, ..Key::default() };
        for (cause, n) in timer {
            counts.count(&Key { reason: Some(52), cause: Some(*cause), ..vmx }, *n);
        }
        counts.count(&Key { reason: Some(10), ..vmx }, others);
        counts.count(&Key { reason: None, ..vmx }, unread);
        counts
    }

    #[test]
    fn causes_are_counted_only_where_every_reason_and_every_cause_was_read() {
        let known = Knowledge::complete();
        let exits = counts(&[(TimerCause::Deadline, 3), (TimerCause::Spurious, 1)], 5, 0);
        assert_eq!((exits.all(&known), exits.of(TimerCause::Immediate, &known)), (Ok(4), Ok(0)));
        assert_eq!(exits.of(TimerCause::Early, &known), Ok(0));
        let not_looked = Knowledge::complete().without([Subject::Deadline], "why");
        assert_eq!(exits.of(TimerCause::Early, &not_looked).unwrap_err().to_string(), "why");
        assert_eq!(exits.of(TimerCause::Deadline, &not_looked), Ok(3));
        let unread = counts(&[(TimerCause::Deadline, 3)], 5, 2);
        let why = unread.of(TimerCause::Spurious, &known).unwrap_err().to_string();
        assert_eq!(why, "the exit reason of 2 entries was not read");
        let no_cause = counts(&[(TimerCause::Deadline, 3), (TimerCause::Unknown, 7)], 5, 0);
        assert_eq!(no_cause.all(&known), Ok(10));
        assert_eq!(no_cause.of(TimerCause::Unknown, &known), Ok(7));
        let why = no_cause.of(TimerCause::Spurious, &known).unwrap_err().to_string();
        assert_eq!(why, "the cause of 7 timer exits was not read");
    }

    #[test]
    fn entries_of_svm_alone_have_no_count_and_beside_those_of_vmx_take_nothing_from_it() {
        let known = Knowledge::complete();
        let mut exits = TimerExits::default();
        assert_eq!(exits.all(&known).unwrap_err().to_string(), "there is no entry");
        exits.count(&Key { isa: Isa::Svm, reason: Some(0x72), ..Key::default() }, 9);
        assert!(exits.all(&known).is_err());
        exits.merge(&counts(&[(TimerCause::Deadline, 3)], 0, 0));
        assert_eq!(exits.of(TimerCause::Deadline, &known), Ok(3));
        // An entry of another instruction set than the module's: nothing of it was believed.
        exits.count(&Key { isa: Isa::Svm, reason: None, ..Key::default() }, 2);
        let why = exits.of(TimerCause::Spurious, &known).unwrap_err().to_string();
        assert_eq!(why, "the exit reason of 2 entries was not read");
    }

    #[test]
    fn a_figure_that_is_not_known_has_no_values_and_its_entries_stay() {
        let mut series = Series::default();
        series[Figure::EntryToExit].record_n(900, 4);
        series[Figure::PinWrites].record_n(1, 4);
        let shown = Knowledge::complete().with_latency(Latency::Disturbed).show(series);
        assert_eq!((shown.entries(), shown[Figure::EntryToExit].count(), shown[Figure::PinWrites].count()), (4, 0, 4));
    }
}
