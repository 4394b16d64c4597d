//! The trigger of a flight recorder: conditions on one event, as `--trigger` takes them.

use std::{fmt, str::FromStr};

use tracer_common::{Event, rules::TimerCause};

use crate::model::{
    budget::Phase,
    detail::Detail,
    exit_reasons::Wanted,
    figures::Figure,
    knowledge::{Knowledge, Subject},
    quantity::{LIMIT_UNITS, limit_unit_ns, split_unit},
    suggestion::did_you_mean,
};

/// Clauses of which at least one must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trigger(pub Vec<Clause>);

/// Conditions that must all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// as the user wrote it
    text: String,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Figure(Figure, Side, u64),
    Reason(Wanted),
    Cause(TimerCause),
    Dirty(bool),
    L2(bool),
    /// of the exit that the host time belongs to
    Phase(Phase, Side, u64),
    /// of the same exit: as shown, or its number alone, in lower case
    Detail(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Above,
    Below,
}

impl Side {
    const fn is_met(self, value: u64, limit: u64) -> bool {
        match self {
            Self::Above => value > limit,
            Self::Below => value < limit,
        }
    }
}

impl Trigger {
    /// Whether any clause holds for the event.
    pub fn matches(&self, event: &Event) -> bool {
        self.0.iter().any(|clause| clause.matches(event))
    }

    /// Fails where a condition depends on something that is not known here: it would never hold.
    pub fn ensure_known(&self, knowledge: &Knowledge) -> Result<(), String> {
        for clause in &self.0 {
            for subject in clause.conditions.iter().flat_map(Condition::subjects) {
                if let Err(reason) = knowledge.known(*subject) {
                    return Err(format!(
                        "--trigger '{}': {}: not known here: {reason}\n  -> leave that condition out",
                        clause.text,
                        subject.title()
                    ));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let clauses: Vec<_> = self.0.iter().map(|c| c.text.as_str()).collect();
        f.write_str(&clauses.join(" or "))
    }
}

impl Clause {
    /// Whether all conditions hold. A condition on an unknown value does not hold.
    pub fn matches(&self, event: &Event) -> bool {
        self.conditions.iter().all(|c| c.holds(event).unwrap_or(false))
    }
}

impl Condition {
    /// What must be known for it.
    fn subjects(&self) -> &'static [Subject] {
        match *self {
            Self::Figure(figure, ..) => Subject::of(figure),
            Self::Phase(Phase::Kernel, ..) => &[Subject::Times],
            Self::Phase(Phase::User, ..) => &[Subject::UserTime],
            Self::Phase(Phase::Polled | Phase::Idle, ..) => &[Subject::HaltTime],
            Self::Phase(Phase::Steal, ..) => &[Subject::StealTime],
            Self::Detail(_) => &[Subject::Detail],
            Self::Reason { .. } => &[Subject::ExitReason],
            Self::Cause(TimerCause::Early) => &[Subject::TimerCause, Subject::Deadline],
            Self::Cause(_) => &[Subject::TimerCause],
            Self::Dirty(_) => &[Subject::PinWrites],
            Self::L2(_) => &[Subject::Level],
        }
    }

    fn holds(&self, event: &Event) -> Option<bool> {
        let round = event.outline();
        Some(match *self {
            Self::Figure(figure, side, limit) => side.is_met(figure.of_event(event)?, limit),
            Self::Phase(phase, side, limit) => side.is_met(phase.of_event(event)?, limit),
            Self::Detail(ref wanted) => {
                let detail = Detail::of(&event.previous, event.previous_detail)?;
                detail.is_meant_by(wanted)
            }
            Self::Reason(wanted) => wanted.is(round.isa(), round.reason()?),
            Self::Cause(cause) => round.timer_cause()? == cause,
            Self::Dirty(dirty) => (round.known_pin_writes()? > 0) == dirty,
            Self::L2(l2) => round.is_l2()? == l2,
        })
    }
}

/// What conditions compare with "=".
const DIMENSIONS: [&str; 5] = ["reason", "cause", "entry", "level", "detail"];

/// The form of a condition, for error messages.
fn grammar() -> String {
    let figures = Figure::ALL.map(Figure::name).join(", ");
    let phases = Phase::ALL.map(|phase| format!("{}_ns", phase.name())).join(", ");
    format!(
        "conditions are FIGURE>VALUE or FIGURE<VALUE with {figures}, and reason=NAME, cause=spurious|early|deadline|immediate, \
         entry=dirty|clean, level=L1|L2; of host time also {phases}; detail=VALUE"
    )
}

impl FromStr for Clause {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let conditions = text.split(',').map(|part| condition(part.trim())).collect::<Result<_, _>>()?;
        Ok(Self { text: text.into(), conditions })
    }
}

fn condition(text: &str) -> Result<Condition, String> {
    let Some(at) = text.find(['>', '<', '=']) else {
        return Err(format!("'{text}' is not a condition; {}", grammar()));
    };
    let (name, rest) = text.split_at(at);
    let (name, operator, value) = (name.trim(), &rest[..1], rest[1..].trim());
    let side = match operator {
        ">" => Some(Side::Above),
        "<" => Some(Side::Below),
        _ => None,
    };
    if let (Some(phase), Some(side)) = (Phase::of_ns(name), side) {
        return Ok(Condition::Phase(phase, side, time(value)?));
    }
    let figure = Figure::named(name);
    match (figure, side, name) {
        (Some(figure), Some(side), _) => {
            let limit = if figure.is_time() { time(value)? } else { count(figure, value)? };
            Ok(Condition::Figure(figure, side, limit))
        }
        (Some(_), None, _) => Err(format!("'{text}': compare {name} with > or <")),
        (None, None, "reason") => value.parse().map(Condition::Reason),
        (None, None, "cause") => {
            let known = TimerCause::ALL.into_iter().find(|c| *c != TimerCause::Unknown && c.name() == value);
            known.map(Condition::Cause).ok_or_else(|| one_of(value, &["spurious", "early", "deadline", "immediate"]))
        }
        (None, None, "detail") if value.is_empty() => Err(format!("'{text}': a value is missing, e.g. detail=0x6e0")),
        (None, None, "detail") => Ok(Condition::Detail(value.to_lowercase())),
        (None, None, "entry") => match value {
            "dirty" => Ok(Condition::Dirty(true)),
            "clean" => Ok(Condition::Dirty(false)),
            _ => Err(one_of(value, &["dirty", "clean"])),
        },
        (None, None, "level") => match value {
            "L1" => Ok(Condition::L2(false)),
            "L2" => Ok(Condition::L2(true)),
            _ => Err(one_of(value, &["L1", "L2"])),
        },
        (None, Some(_), name) if DIMENSIONS.contains(&name) => {
            Err(format!("'{text}': compare {name} with =, e.g. {name}=..."))
        }
        _ => {
            let phases = Phase::ALL.map(|phase| format!("{}_ns", phase.name()));
            let known =
                Figure::ALL.map(Figure::name).into_iter().chain(phases.iter().map(String::as_str)).chain(DIMENSIONS);
            let meant = did_you_mean(name, known);
            Err(format!("'{name}' is neither a figure nor a dimension: {meant}{}", grammar()))
        }
    }
}

fn one_of(value: &str, known: &[&str]) -> String {
    format!("'{value}': {}it is one of {}", did_you_mean(value, known), known.join(", "))
}

fn count(figure: Figure, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("'{text}' is not a number of {}", figure.title()))
}

/// Parses a number with its unit and returns ns.
fn time(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text)?;
    if unit.is_empty() {
        return Err(format!("'{text}' has no unit: use {LIMIT_UNITS}, e.g. {text}ns"));
    }
    let ns = number * limit_unit_ns(unit).ok_or_else(|| format!("unknown unit '{unit}': use {LIMIT_UNITS}"))?;
    if !(0.0..=1e18).contains(&ns) {
        return Err(format!("'{text}' must be between 0 and 30 years"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was checked above, and fractions of a ns are rounded"
    )]
    Ok(ns.round() as u64)
}

#[cfg(test)]
mod tests {
    use tracer_common::{
        Flags, Isa,
        detail::{RawDetail, Source as From},
        host_time::Phases,
    };

    use super::*;
    use crate::model::{
        interval::tests::event,
        knowledge::Source,
        measurement::{Latency, PinSource},
        vendor::Vendor,
    };

    fn matches(trigger: &str, event: &Event) -> bool {
        trigger.parse::<Clause>().unwrap().matches(event)
    }

    #[test]
    fn a_condition_holds_for_its_own_figure_and_limits_are_exclusive() {
        // Guest time 2000 ns, host time 500 ns, a CPUID exit, 2 pin writes.
        let e = event(0, 10, 2000, 2);
        for good in [
            "entry_to_exit_ns>1999ns",
            "entry_to_exit_ns<2.001us",
            "guest>1999ns,host<501ns,pin>1",
            "exit_to_entry_ns>0.4us",
            "pin_writes>1",
            "pin_writes<3",
            "reason=cpuid",
            "reason=10",
            "entry=dirty",
            "level=L1",
            "entry_to_exit_ns > 1us , reason = CPUID, level=L1",
        ] {
            assert!(matches(good, &e), "{good}");
        }
        for bad in [
            "entry_to_exit_ns>2000ns",
            "entry_to_exit_ns<2us",
            "exit_to_entry_ns>1ms",
            "pin_writes>2",
            "reason=HLT",
            "entry=clean",
            "level=L2",
            "cause=spurious",
            "entry_to_exit_ns>1us,reason=HLT",
        ] {
            assert!(!matches(bad, &e), "{bad}");
        }
        let both = Trigger(vec!["reason=HLT".parse().unwrap(), "pin_writes>1".parse().unwrap()]);
        assert!(both.matches(&e));
        assert_eq!(both.to_string(), "reason=HLT or pin_writes>1");
    }

    #[test]
    fn an_unknown_value_never_matches() {
        let e = Event { flags: Flags::NONE, exit_to_entry_ns: Event::UNKNOWN_NS, ..event(0, 52, 5, 1) };
        for unknown in [
            "exit_to_entry_ns>0ns",
            "exit_to_entry_ns<1s",
            "pin_writes>0",
            "pin_writes<9",
            "entry=clean",
            "entry=dirty",
            "reason=PREEMPTION_TIMER",
            "cause=deadline",
            "level=L1",
            "level=L2",
        ] {
            assert!(!matches(unknown, &e), "{unknown}");
        }
    }

    #[test]
    fn a_condition_on_what_is_not_known_here_is_refused_with_the_reason() {
        let missing: Vec<_> = ["vcpu_vmx.exit_reason", "loaded_vmcs.controls_shadow.pin", "vcpu_vmx.vmcs01"]
            .into_iter()
            .chain(["kvm_vcpu.stat.guest_mode"])
            .map(|field| format!("{field}: something n/a"))
            .collect();
        let knowledge = Knowledge::of(&Source {
            vendor: Some(Vendor::Intel),
            missing: &missing,
            pin_writes: PinSource::None,
            stopwatch: false,
            counted_in_kernel: false,
            policy_is_shown: true,
            policy_is_parameter: true,
            phases: true,
            detail: true,
        });
        let refusal = |clause: &str| Trigger(vec![clause.parse().unwrap()]).ensure_known(&knowledge).unwrap_err();
        for clause in [
            "reason=HLT",
            "cause=spurious",
            "cause=early",
            "entry=dirty",
            "pin_writes>1",
            "transition_ns>1us",
            "level=L2",
        ] {
            assert!(refusal(clause).contains("is not in this kernel"), "{clause}: {}", refusal(clause));
        }
        let times = Trigger(vec!["entry_to_exit_ns>1ms,exit_to_entry_ns>1ms".parse().unwrap()]);
        assert_eq!(times.ensure_known(&knowledge), Ok(()));
        let disturbed = Knowledge::complete().with_latency(Latency::Disturbed);
        assert!(times.ensure_known(&disturbed).unwrap_err().contains("--with-latency"));
    }

    #[test]
    fn an_exit_reason_is_looked_up_for_the_isa_of_the_event() {
        let hlt = |isa: Isa, exit_reason| Event { isa: isa as u8, exit_reason, ..event(0, 0, 5, 0) };
        assert!(matches("reason=HLT", &hlt(Isa::Svm, 0x78)));
        assert!(matches("reason=HLT", &hlt(Isa::Vmx, 1 << 26 | 12)));
        assert!(!matches("reason=HLT", &hlt(Isa::Svm, 12)));
        assert!(!matches("reason=NPF", &hlt(Isa::Vmx, 0x400)));
        assert!(matches("cause=deadline", &event(0, 52, 5, 0)));
        let early = event(0, 52, 5, 0);
        let late_ns = Some(-171_800_000_000);
        let early = Event { flags: early.flags | Flags::DEADLINE_READ | Flags::EARLY, late_ns, ..early };
        assert!(matches("cause=early,deadline_remaining_ns>171s", &early) && !matches("cause=deadline", &early));
        assert!(!matches("deadline_late_ns<1s", &early), "it has no lateness");
    }

    #[test]
    fn parts_of_the_host_time_and_details_are_those_of_the_exit_that_the_host_handled() {
        // Of 500 ns of host time on a WRMSR to TSC_DEADLINE, 250 waiting for a CPU and 100 in the VMM.
        let wrmsr = event(0, 32, 5, 0).outline();
        let phases = Phases { user_ns: 100, steal_ns: 250, ..Phases::default() };
        let previous_detail = RawDetail::new(From::Msr, 0x6e0);
        let e = Event { previous: wrmsr, phases, previous_detail, ..event(0, 10, 2000, 0) };
        for good in [
            "steal_ns>249ns",
            "user_ns>99ns,user_ns<101ns",
            "kernel_ns>149ns,kernel_ns<151ns",
            "idle_ns<1ns",
            "detail=0x6e0",
            "detail=0x6E0 TSC_DEADLINE",
            "steal_ns>0.2us,detail=0x6e0",
        ] {
            assert!(matches(good, &e), "{good}");
        }
        for bad in ["steal_ns>250ns", "polled_ns>0ns", "kernel_ns>150ns", "detail=0x6e", "detail=0x10", "detail=6e0"] {
            assert!(!matches(bad, &e), "{bad}");
        }
        // The exit before was not seen, or nothing beyond its reason was read.
        let unseen = Event { exit_to_entry_ns: Event::UNKNOWN_NS, ..e };
        assert!(!matches("steal_ns<1s", &unseen) && !matches("kernel_ns<1s", &unseen));
        let unread = Event { previous_detail: RawDetail::NONE, ..e };
        assert!(!matches("detail=0x6e0", &unread) && matches("steal_ns>249ns", &unread));
        let known = |subject| Knowledge::complete().without([subject], "why");
        for (clause, subject) in [
            ("user_ns>1us", Subject::UserTime),
            ("polled_ns>1us", Subject::HaltTime),
            ("idle_ns>1us", Subject::HaltTime),
            ("steal_ns>1us", Subject::StealTime),
            ("detail=0x6e0", Subject::Detail),
        ] {
            let trigger = Trigger(vec![clause.parse().unwrap()]);
            assert_eq!(trigger.ensure_known(&Knowledge::complete()), Ok(()));
            assert!(trigger.ensure_known(&known(subject)).unwrap_err().contains("why"), "{clause}");
        }
    }

    #[test]
    fn an_invalid_trigger_is_refused_with_a_valid_form() {
        for (text, why) in [
            ("", "FIGURE>VALUE"),
            ("latency>1ms", "entry_to_exit_ns"),
            ("cause=spurios", "did you mean spurious? "),
            ("entry=drity", "did you mean dirty? "),
            ("entry_to_exit_ns=1ms", "> or <"),
            ("entry_to_exit_ns>1", "no unit"),
            ("entry_to_exit_ns>1h", "use ns, us, ms or s"),
            ("entry_to_exit_ns>1..2ns", "not a number"),
            ("entry_to_exit_ns>-1ns", "between 0"),
            ("pin_writes>1ms", "not a number of pin writes"),
            ("reason=NOPE", "not an exit reason"),
            ("reason>HLT", "compare reason with ="),
            ("detail=", "a value is missing"),
            ("detail>0x6e0", "compare detail with ="),
            ("steal_ns>1", "no unit"),
            ("cause=unknown", "spurious, early, deadline, immediate"),
            ("entry=Dirty", "dirty, clean"),
            ("level=L3", "L1, L2"),
            ("reason=HLT,,level=L1", "is not a condition"),
        ] {
            let error = text.parse::<Clause>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
