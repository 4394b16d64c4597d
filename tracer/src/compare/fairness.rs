//! Whether two lists of recordings can be compared, and how they differ otherwise.

use std::collections::BTreeSet;

use super::{
    assemble::statistics,
    comparison::Setting,
    windows::{Options, why_unknown},
};
use crate::{
    host::machine::Host,
    model::{
        figures::Figure,
        knowledge::{Knowledge, Subject, Unknown},
        measurement::{Latency, OtherTracers},
        vendor::Vendor,
    },
    recording::{Provenance, is_same},
};

/// Reason why the sides cannot be compared at all; none if they can.
pub(crate) fn refusal(a: &[Provenance], b: &[Provenance]) -> Option<String> {
    let all = || a.iter().chain(b);
    if let Some(inexact) = all().find(|s| s.end.as_ref().is_some_and(|e| !e.accounting.exact)) {
        return Some(format!(
            "{}: the kernel's count disagrees with the delivered records: record again",
            inexact.name
        ));
    }
    let differs = |name: &str, of: &dyn Fn(&Host) -> String| {
        let first = of(&all().next()?.header.host);
        let other = all().map(|s| (of(&s.header.host), &s.name)).find(|(value, _)| *value != first)?;
        Some(format!(
            "{name} is {first} in one recording and {} in {}: the recordings cannot be compared",
            other.0, other.1
        ))
    };
    differs("the instruction set", &|h| instruction_set(h.vendor).to_owned())
        .or_else(|| differs("the CPU", &|h| if h.emulated { "emulated" } else { "real" }.into()))
}

/// The recording that was named for both sides, if one was.
pub(crate) fn on_both_sides(a: &[Provenance], b: &[Provenance]) -> Option<String> {
    let again = |x: &Provenance| b.iter().find(|y| is_same(&x.header, &y.header)).map(|y| (x.name.clone(), y));
    let (first, second) = a.iter().find_map(again)?;
    let same =
        if first == second.name { first } else { format!("{first} and {} are the same recording, and", second.name) };
    Some(format!("{same} cannot be both sides: name another recording of B"))
}

fn instruction_set(vendor: Option<Vendor>) -> &'static str {
    match vendor {
        Some(Vendor::Intel) => "VMX (kvm_intel)",
        Some(Vendor::Amd) => "SVM (kvm_amd)",
        Some(Vendor::Other) => "another than VMX and SVM",
        None => "unknown",
    }
}

/// Primary figures of the experiment of a recording, in their order.
fn primary(source: &Provenance) -> &[String] {
    source.header.experiment.as_ref().map_or(&[], |experiment| &experiment.primary)
}

/// Options for all that these recordings allow; [`warnings`] has the reasons for the rest.
pub(crate) fn options(a: &[Provenance], b: &[Provenance]) -> Options {
    let all = || a.iter().chain(b);
    let source = all().next().map(|s| s.header.pin_writes_source);
    let transition = all().next().map(|s| s.header.transition_source());
    let first = all().next().map(primary).filter(|first| all().all(|s| primary(s) == *first));
    Options {
        primary: first.unwrap_or_default().to_vec(),
        knowledge: [a, b].map(|side| Knowledge::merge(side.iter().map(|s| s.header.knowledge()))),
        transitions: all().all(|s| Some(s.header.transition_source()) == transition),
        pin_writes: all().all(|s| Some(s.header.pin_writes_source) == source),
        ..Options::default()
    }
}

/// Warnings that precede every figure, most important first. The recordings of an experiment are on both sides.
pub(crate) fn warnings(a: &[Provenance], b: &[Provenance], experiment: bool) -> Vec<String> {
    let mut out = Vec::new();
    let all = || a.iter().chain(if experiment { &[] } else { b });
    let options = options(a, b);
    if let Some(why) = options.incomparable(Figure::EntryToExit) {
        out.push(format!("times are not compared: {why}"));
    } else if all().any(|s| s.header.latency == Latency::DisturbedButAsked) {
        out.push(
            "DISTURBED: hooks on VMCS writes ran before the VM entries; the times of dirty entries contain them".into(),
        );
    }
    // Experiments that were planned for different figures were planned for none together.
    let known: Vec<_> = statistics().into_iter().map(|(name, _)| name).collect();
    for name in options.primary.iter().filter(|name| !known.contains(name)) {
        out.push(format!(
            "the primary figure {name} of the recording is not known to this version, so it is not compared"
        ));
    }
    if options.primary.is_empty() && all().any(|s| !primary(s).is_empty()) {
        out.push("the experiments have different primary figures, so none of them is primary here".into());
    }
    out.extend(OtherTracers::merge(all().map(Provenance::other_tracers)).may_be_more());
    // Also between the recordings of several experiments.
    differences(a, b, &mut out);
    unknown(&options, &mut out);
    let seeds: Vec<_> = a.iter().filter_map(|s| s.header.experiment.as_ref()).map(|e| e.seed).collect();
    if (1..seeds.len()).any(|i| seeds[..i].contains(&seeds[i])) {
        out.push("experiments with the same seed have the same order of windows: they are not independent".into());
    }
    if !experiment && at_the_same_time(a, b) {
        out.push("the sides were recorded at the same time on the same host: they disturb each other".into());
    }
    let cut_off = all().filter(|s| s.end.is_none());
    out.extend(cut_off.map(|s| format!("{} was cut off: its end and its last losses are not known", s.name)));
    let changed = all().find(|s| s.header.experiment.is_none() && s.end.as_ref().is_some_and(|e| e.policy_changed));
    out.extend(changed.map(|s| format!("the timer policy changed while {} was recorded", s.name)));
    out
}

/// Adds each fact that differs, with both values.
fn differences(a: &[Provenance], b: &[Provenance], out: &mut Vec<String>) {
    type Fact<'a> = (&'a str, &'a dyn Fn(&Provenance) -> String);
    let pin = |s: &Provenance| s.header.pin_writes_source.name().to_owned();
    let parameters = |s: &Provenance| {
        // The policy may be the compared setting.
        let others = s.header.host.parameters.iter().filter(|(k, _)| *k != "preemption_timer_policy");
        others.map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
    };
    let build = |s: &Provenance| {
        s.header.host.build_ids.iter().map(|(m, id)| format!("{m} {id}")).collect::<Vec<_>>().join(", ")
    };
    // Another run of the same tracer is no difference.
    let tracers = |s: &Provenance| {
        let names = s.other_tracers().names;
        if names.is_empty() && !s.looked_for_tracers() {
            return "n/a (not looked for)".into();
        }
        let names = names.iter().map(|name| name.split(" (pid ").next().unwrap_or_default());
        names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
    };
    let facts: [Fact; 12] = [
        ("other tracers on kvm_entry and kvm_exit", &tracers),
        ("where entries were counted", &|s| s.header.aggregation.text().into()),
        ("source of pin writes (not compared)", &pin),
        ("CPU", &|s| s.header.host.cpu.clone()),
        ("microcode", &|s| s.header.host.microcode.clone().unwrap_or_else(|| "n/a".into())),
        ("kernel", &|s| s.header.host.kernel.clone()),
        ("build of the KVM modules", &build),
        ("parameters of the KVM module", &parameters),
        ("host", &|s| s.header.host.name.clone()),
        ("CPUs online", &|s| s.header.host.cpus.to_string()),
        ("tickless CPUs", &|s| s.header.tickless_cpus.clone().unwrap_or_else(|| "n/a".into())),
        ("version of vmentry", &|s| s.header.tool.clone()),
    ];
    for (name, fact) in facts {
        let values = |side: &[Provenance]| {
            let mut values: Vec<_> = side.iter().map(fact).collect();
            values.sort();
            values.dedup();
            values
        };
        let (of_a, of_b) = (values(a), values(b));
        if of_a != of_b || of_a.len() > 1 {
            let text = |values: &[String]| {
                let shown = |v: &String| if v.is_empty() { "none".to_owned() } else { v.clone() };
                values.iter().map(shown).collect::<Vec<_>>().join(" and ")
            };
            let between = if of_a == of_b { "within the sides" } else { "between the sides" };
            out.push(format!("{name} differs {between}: A {}; B {}", text(&of_a), text(&of_b)));
        }
    }
}

/// Adds what is not known of the sides' entries, with the reasons; what neither side can know is left to the rows.
fn unknown(options: &Options, out: &mut Vec<String>) {
    use Subject::{ExitReason, Level, PinWrites, TimerCause, TimerExits};
    for subject in [ExitReason, Level, PinWrites, TimerExits, TimerCause] {
        let known = options.knowledge.each_ref().map(|known| known.known(subject).map_err(Unknown::clone));
        let differs = known[0].is_ok() != known[1].is_ok();
        if let Some(why) = why_unknown(known).filter(|_| differs || subject == PinWrites) {
            out.push(format!("{} are not compared: {why}", subject.title()));
        }
    }
}

/// Whether recordings of both sides overlap in time on one host.
fn at_the_same_time(a: &[Provenance], b: &[Provenance]) -> bool {
    let span = |s: &Provenance| (s.header.anchor.unix_ns, s.header.anchor.unix_ns.saturating_add(s.length_ns));
    a.iter().any(|a| {
        b.iter().any(|b| {
            let ((a0, a1), (b0, b1)) = (span(a), span(b));
            a.name != b.name && a.header.host.boot_id == b.header.host.boot_id && a0 < b1 && b0 < a1
        })
    })
}

/// Names of the sides: an experiment's settings, else the labels or policies if they differ, else the files.
pub(crate) fn names(setting: &Setting) -> [String; 2] {
    if let Some(experiment) = &setting.experiment {
        return experiment.arms.clone();
    }
    let [a, b] = &setting.sources;
    let of = |side: &[Provenance], name: &dyn Fn(&Provenance) -> Option<String>| {
        let mut names = side.iter().map(name);
        let first = names.next().flatten()?;
        names.all(|n| n.as_ref() == Some(&first)).then_some(first)
    };
    let label = |s: &Provenance| s.header.label.clone();
    let policy = |s: &Provenance| Some(s.policy().name().to_owned());
    let by = |name: &dyn Fn(&Provenance) -> Option<String>| Some([of(a, name)?, of(b, name)?]).filter(|[a, b]| a != b);
    let file = |s: &Provenance| s.name.rsplit('/').next().unwrap_or(&s.name).to_owned();
    let files = |side: &[Provenance]| match side {
        [] => "none".to_owned(),
        [one] => file(one),
        [first, others @ ..] => format!("{} and {} more", file(first), others.len()),
    };
    let path = |side: &[Provenance]| side.first().map_or_else(String::new, |s| s.name.clone());
    by(&label).or_else(|| by(&policy)).unwrap_or_else(|| {
        let names = [files(a), files(b)];
        if names[0] == names[1] { [path(a), path(b)] } else { names }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{measurement::PinSource, policy::Policy},
        recording::{End, tests::header},
    };

    fn source(name: &str) -> Provenance {
        let mut header = header();
        header.host.vendor = Some(Vendor::Intel);
        header.label = None;
        header.anchor.unix_ns += name.len() as u64 * 1_000_000_000_000;
        let end = End {
            reason: "duration".into(),
            accounting: Default::default(),
            tsc_khz: None,
            policy_changed: false,
            other_tracers: None,
        };
        let mut end = Some(end);
        end.as_mut().unwrap().accounting.exact = true;
        let (intervals, length_ns) = (20, 20_000_000_000);
        Provenance { end, intervals, length_ns, ..Provenance::unread(name.into(), header) }
    }

    fn setting(a: Provenance, b: Provenance) -> Setting {
        Setting { names: Default::default(), sources: [vec![a], vec![b]], experiment: None, warnings: vec![] }
    }

    #[test]
    fn differences_are_named_with_both_values_and_nothing_else_is_said() {
        let (a, mut b) = (source("a"), source("bb"));
        assert_eq!(warnings(std::slice::from_ref(&a), std::slice::from_ref(&b), false), Vec::<String>::new());
        b.header.host.kernel = "6.12.0".into();
        b.header.host.microcode = Some("0x2b".into());
        let perf = OtherTracers { names: vec!["perf (pid 7)".into()], unseen: vec![] };
        b.end.as_mut().unwrap().other_tracers = Some(perf);
        let shared = warnings(std::slice::from_ref(&a), std::slice::from_ref(&b), false).join("\n");
        assert!(
            shared.contains(
                "other tracers on kvm_entry and kvm_exit differs between the sides: A n/a (not looked for); B perf"
            ),
            "{shared}"
        );
        let unseen = vec!["ftrace (tracefs is not mounted)".to_owned()];
        let looked = Some(OtherTracers { names: vec![], unseen });
        let a = Provenance { header: crate::recording::Header { other_tracers: looked, ..a.header }, ..a };
        let shared = warnings(std::slice::from_ref(&a), std::slice::from_ref(&b), false).join("\n");
        for part in ["differs between the sides: A none; B perf", "could be seen: ftrace (tracefs is not mounted)"] {
            assert!(shared.contains(part), "{shared}");
        }
        b.header.aggregation = crate::model::measurement::Aggregation::InKernel;
        b.end = None;
        let said = warnings(&[a], &[b], false).join("\n");
        for part in [
            "kernel differs between the sides: A none; B 6.12.0",
            "A n/a; B 0x2b",
            "B in the kernel, to 1.6 %",
            "bb was cut off",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn recordings_of_any_length_are_held_against_each_other() {
        let (mut a, mut b) = (source("a"), source("bb"));
        (a.length_ns, b.length_ns) = (u64::MAX, 1 << 63);
        assert!(at_the_same_time(&[a], &[b]));
    }

    #[test]
    fn incomparable_recordings_are_refused_or_figures_left_out() {
        let (a, mut b) = (source("a"), source("bb"));
        assert_eq!(refusal(std::slice::from_ref(&a), std::slice::from_ref(&b)), None);
        b.header.pin_writes_source = PinSource::Tracepoint;
        b.header.latency = Latency::Disturbed;
        let o = options(std::slice::from_ref(&a), std::slice::from_ref(&b));
        assert!([Figure::PinWrites, Figure::EntryToExit].iter().all(|f| o.incomparable(*f).is_some()));
        assert!(o.knowledge.iter().all(|known| known.known(Subject::TimerExits).is_ok()));
        assert!(
            warnings(std::slice::from_ref(&a), std::slice::from_ref(&b), false)
                .join("\n")
                .contains("A shadow; B tracepoint")
        );
        b.header.host.emulated = true;
        assert!(refusal(std::slice::from_ref(&a), std::slice::from_ref(&b)).unwrap().contains("emulated in bb"));
        b.header.host.vendor = Some(Vendor::Amd);
        let vendors = refusal(std::slice::from_ref(&a), std::slice::from_ref(&b)).unwrap();
        assert!(vendors.contains("is VMX (kvm_intel) in one recording and SVM (kvm_amd) in bb"), "{vendors}");
        b.header.host.vendor = Some(Vendor::Intel);
        b.header.host.emulated = false;
        b.end.as_mut().unwrap().accounting.exact = false;
        assert!(refusal(&[a], &[b]).unwrap().contains("record again"));
    }

    #[test]
    fn what_one_side_does_not_know_is_said_with_its_reason() {
        let (a, mut b) = (source("a"), source("bb"));
        b.header.missing = vec!["loaded_vmcs.hv_timer_soft_disabled: timer exits by cause n/a".into()];
        let (a, b) = ([a], [b]);
        let said = warnings(&a, &b, false);
        let why = "not known of B: field loaded_vmcs.hv_timer_soft_disabled is not in this kernel";
        assert_eq!(said, [format!("causes of timer exits are not compared: {why}")]);
        assert_eq!(options(&a, &b).incomparable(Figure::Transition).as_deref(), Some(why));
        assert_eq!(options(&a, &b).incomparable(Figure::EntryToExit), None);
    }

    #[test]
    fn the_sides_are_named_by_what_differs() {
        let (a, mut b) = (source("a"), source("bb"));
        assert_eq!(names(&setting(a.clone(), b.clone())), ["a", "bb"]);
        b.header.policy = Policy::Hard;
        assert_eq!(names(&setting(a.clone(), b.clone())), ["soft", "hard"]);
        b.header.label = Some("new kernel".into());
        assert_eq!(names(&setting(a.clone(), b.clone())), ["soft", "hard"]);
        let a = Provenance { header: crate::recording::Header { label: Some("old".into()), ..a.header }, ..a };
        assert_eq!(names(&setting(a, b)), ["old", "new kernel"]);
    }

    #[test]
    fn recordings_of_the_same_time_and_boot_are_a_warning() {
        let (a, mut b) = (source("a"), source("bb"));
        b.header.anchor = a.header.anchor;
        b.header.anchor.unix_ns += 5;
        assert!(
            warnings(std::slice::from_ref(&a), std::slice::from_ref(&b), false).join("").contains("at the same time")
        );
        let both = [a];
        assert!(warnings(&both, &both, true).is_empty(), "an experiment is on both sides");
        assert!(refusal(&both, &both).is_none());
        let again = on_both_sides(&both, &both).unwrap();
        assert!(again.ends_with(" cannot be both sides: name another recording of B"), "{again}");
    }
}
