//! The primary figures that a host cannot know.

use tracer_common::rules::TimerCause;

use crate::{
    compare::{assemble::statistics, wording},
    model::{
        budget::Phase,
        figures::Figure,
        knowledge::{Knowledge, Subject},
    },
};

/// The primary figures that are not known here, and why, in one line; none if all are.
pub(super) fn unknown(primary: &[String], knowledge: &Knowledge) -> Option<String> {
    let units = statistics();
    let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
    for name in primary {
        let why = subjects(name).into_iter().find_map(|subject| knowledge.known(subject).err());
        let unit = units.iter().find(|(known, _)| known == name).map(|(_, unit)| *unit);
        let (Some(why), Some(unit)) = (why, unit) else { continue };
        let (why, title) = (why.to_string(), wording::title_of_name(name, unit));
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, titles)) => titles.push(title),
            None => reasons.push((why, vec![title])),
        }
    }
    let all: Vec<_> = reasons.into_iter().map(|(why, titles)| format!("{} ({why})", titles.join(", "))).collect();
    (!all.is_empty()).then(|| format!("primary figures that are n/a here: {}", all.join("; ")))
}

/// The subjects that a statistic, as FIGURE.STATISTIC, depends on.
fn subjects(name: &str) -> Vec<Subject> {
    let (figure, _) = name.rsplit_once('.').unwrap_or((name, ""));
    let cause = |name: &str| TimerCause::ALL.into_iter().find(|cause| cause.name() == name);
    match (Figure::parse(figure), figure.split_once('.')) {
        (Some(figure), _) => Subject::of(figure).to_vec(),
        (None, Some(("timer_exits", name))) if cause(name) == Some(TimerCause::Early) => {
            vec![Subject::TimerExits, Subject::TimerCause, Subject::Deadline]
        }
        (None, Some(("timer_exits", _))) => vec![Subject::TimerExits, Subject::TimerCause],
        (None, Some(("time", "guest"))) => vec![Subject::Times],
        (None, Some(("time", part))) => {
            let part = Phase::ALL.into_iter().find(|phase| phase.name() == part);
            // The kernel's contains every other part that is not known.
            let all = || vec![Subject::UserTime, Subject::HaltTime, Subject::StealTime];
            part.map_or_else(Vec::new, |part| Subject::of_phase(part).map_or_else(all, |subject| vec![subject]))
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::primary::{OF_OTHERS, OF_POLICIES};

    fn line(primary: &[&str], lost: &[(Subject, &str)]) -> Option<String> {
        let none = lost.iter().fold(Knowledge::complete(), |known, (subject, why)| known.without([*subject], why));
        unknown(&primary.iter().map(|&name| name.to_owned()).collect::<Vec<_>>(), &none)
    }

    #[test]
    fn primary_figures_without_values_are_named_with_the_reason() {
        assert_eq!(line(&OF_POLICIES, &[]), None);
        let lost = [(Subject::Transition, "no stopwatch"), (Subject::TimerExits, "no BTF")];
        assert_eq!(
            line(&OF_POLICIES, &lost).unwrap(),
            "primary figures that are n/a here: transition p50 (no stopwatch); early timer exits/s, spurious timer exits/s (no BTF)"
        );
        assert_eq!(line(&OF_OTHERS, &lost), None);
        let early = line(&OF_POLICIES, &[(Subject::Deadline, "why")]).unwrap();
        assert_eq!(early, "primary figures that are n/a here: early timer exits/s (why)");
    }

    #[test]
    fn every_statistic_but_the_entries_depends_on_something() {
        for (name, _) in statistics() {
            assert_eq!(subjects(&name).is_empty(), name == "entries.per_second", "{name}");
        }
        assert!(line(&["time.kernel.share"], &[(Subject::StealTime, "why")]).is_some());
    }
}
