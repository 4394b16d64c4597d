//! The report as JSON: format "vmentry-report", version 1; docs/formats.md has the fields.

use serde_json::{Map, Value, json};
use tracer_common::{
    Isa,
    rules::{Control, TimerCause},
};

use super::{Dimension, Report, Row, Rows, View};
use crate::{
    model::{
        budget::Phase,
        figures::{Figure, Stat},
        histogram::Histogram,
        knowledge::{Shown, Subject},
        measurement::PinSource,
    },
    recording::Provenance,
};

/// Name and version of the format.
pub(crate) const FORMAT: &str = "vmentry-report/1";

/// The report. Unknown values are null, never 0. Without `by`, rows have every dimension.
pub fn render(report: &Report, view: &View, by: Option<&[Dimension]>) -> Value {
    let all_of_entries: Vec<_> = Dimension::ALL.into_iter().filter(|d| *d != Dimension::Detail).collect();
    let by = by.unwrap_or(&all_of_entries);
    let Rows { each, total, .. } = report.all_rows(&View { by: by.to_vec(), ..view.clone() });
    let rows = each.iter().take(view.top.unwrap_or(usize::MAX));
    json!({
        "format": FORMAT,
        "host": report.sources.first().map(|s| &s.header.host),
        "policy": common(report, |s| json!(s.policy())),
        "emulated": report.is_emulated(),
        "virtualized": common(report, |s| json!(s.header.host.virtualized)),
        "shown": report.shown,
        "recordings": report.sources.iter().map(|source| recording(source, report.shown.is_some())).collect::<Vec<_>>(),
        "length_ns": report.observed_ns(),
        "damaged": damaged(&report.sources),
        "exact": report.is_exact(),
        "latency": report.latency(),
        "shared_with": shared_with(report),
        "aggregation": report.aggregation(),
        "unknown": unknown(report),
        "transition_source": common(report, |s| json!(s.header.transition_source())),
        "stopwatch_tick_ns": common(report, |s| json!(s.header.stopwatch.and_then(|w| w.tick_ns()))),
        "totals": totals(report),
        "series": rows.map(|row| series(report, row, &total, by)).collect::<Vec<_>>(),
    })
}

/// What was left out of damaged files: of each the intervals, the lines and why; empty where nothing was.
pub(crate) fn damaged<'a>(sources: impl IntoIterator<Item = &'a Provenance>) -> Value {
    json!(sources.into_iter().flat_map(|source| &source.damage).collect::<Vec<_>>())
}

/// The other tracers that were seen; null where none was, and a recording did not look for them.
fn shared_with(report: &Report) -> Option<Vec<String>> {
    Some(report.other_tracers().names).filter(|names| !names.is_empty() || report.looked_for_tracers())
}

/// What is not known of any recording, with the reasons.
fn unknown(report: &Report) -> Map<String, Value> {
    report.knowledge().unknown().map(|(subject, why)| (subject.name().to_owned(), json!(why.to_string()))).collect()
}

/// The value that all recordings have in common; "mixed" where they differ.
fn common(report: &Report, value: impl Fn(&Provenance) -> Value) -> Value {
    let mut values = report.sources.iter().map(value);
    let first = values.next().unwrap_or(Value::Null);
    if values.all(|v| v == first) { first } else { json!("mixed") }
}

/// A recording. Its accounting is of all of it, and says nothing of a part.
fn recording(source: &Provenance, is_part: bool) -> Value {
    json!({
        "file": source.name,
        "label": source.header.label,
        "tool": source.header.tool,
        "command": source.header.command,
        "host": source.header.host.name,
        "started_unix_ns": source.header.anchor.unix_ns,
        "intervals": source.intervals,
        "length_ns": source.length_ns,
        "ended": source.end.as_ref().map(|e| &e.reason),
        "torn": source.torn,
        "also_in": source.also_in,
        "missing": source.header.missing,
        "soft_delay": source.header.soft_delay,
        "longest_timer_delay_s": source.longest_timer_delay_s().ok(),
        "other_tracers": { "begin": source.header.other_tracers, "end": source.end.as_ref().map(|e| &e.other_tracers) },
        "accounting": source.end.as_ref().filter(|_| !is_part).map(|e| &e.accounting),
    })
}

fn totals(report: &Report) -> Value {
    let t = &report.whole.totals;
    let whole = report.knowledge().show(report.sum());
    let by_control = |counts: &[u64; 6]| -> Map<_, _> {
        Control::ALL.iter().zip(counts).map(|(control, n)| (control.name().to_owned(), json!(n))).collect()
    };
    let timer_exits: Map<_, _> =
        TimerCause::ALL.into_iter().map(|c| (c.name().to_owned(), json!(report.timer_exits(c).ok()))).collect();
    let has_shadow = report.knowledge().known(Subject::PinWrites).is_ok()
        && report.sources.iter().any(|s| s.header.pin_writes_source != PinSource::None);
    let site_writes: Map<_, _> = report.sites().map(|(site, n)| (site.name(), json!(n))).collect();
    json!({
        "entries": t.entries,
        "delivered": t.delivered,
        "dropped": t.dropped,
        "guest_ns": whole.guest_ns(),
        "host_ns": whole.host_ns(),
        "phases": phases(&whole),
        "unmatched": t.unmatched,
        "evicted": t.evicted,
        "malformed": t.malformed,
        "not_kept": t.not_kept,
        "td_entries": t.td_entries,
        "foreign_isa": t.foreign_isa,
        "pin_writes": report.pin_writes().ok(),
        "pin_writes_source": common(report, |s| match s.header.pin_writes_source {
            PinSource::None => Value::Null,
            source => json!(source.name()),
        }),
        "entries_with_unknown_pin_writes": report.entries_with_unknown_pin_writes(),
        "shadow_pin_writes": t.shadow_pin_writes.filter(|_| has_shadow),
        "control_writes": t.control_writes.map(|w| json!({
            "vmcs01": by_control(&w.vmcs01),
            "vmcs02": by_control(&w.vmcs02),
            "entries_l1": w.entries_l1,
            "entries_l2": w.entries_l2,
            "shadow_differs": w.shadow_differs,
        })),
        "site_writes": (!site_writes.is_empty()).then_some(site_writes),
        "timer_exits": timer_exits,
        "timer_exits_tracepoint": t.traced_timer_exits,
        "spurious_before_time": report.spurious_before_time().ok().map(|before| before.count),
        "stopwatch_excesses": t.stopwatch_excesses,
        "inexact_phases": t.inexact_phases,
        "deadline_error_ns": t.deadline_error_ns,
    })
}

/// A row, and its shares of `total`.
fn series(report: &Report, row: &Row, total: &Row, by: &[Dimension]) -> Value {
    let mut out = Map::new();
    for &dimension in by {
        let name = match dimension {
            Dimension::Reason => "exit_reason",
            Dimension::Cause => "timer_cause",
            d => d.name(),
        };
        let value = match dimension {
            Dimension::Vcpu => json!(row.key.vcpu),
            Dimension::Level | Dimension::Entry => {
                json!(report.value(&row.key, dimension).unwrap_or_else(|| "unknown".into()))
            }
            d => json!(report.value(&row.key, d)),
        };
        out.insert(name.into(), value);
        if dimension == Dimension::Reason {
            out.insert("exit_reason_code".into(), json!(row.key.reason));
            let isa = match row.key.isa {
                Isa::Other => Value::Null,
                isa => json!(isa.name()),
            };
            out.insert("isa".into(), isa);
        }
        if dimension == Dimension::Vm {
            let vm = report.whole.vms.get(&row.key.vm);
            out.insert("tgid".into(), json!(vm.map(|v| v.tgid)));
            out.insert("labels".into(), json!(vm.map(|v| &v.labels)));
        }
    }
    out.insert("entries".into(), json!(row.entries));
    out.insert("exits".into(), json!(row.exits));
    out.insert("observed_ns".into(), json!(row.observed_ns));
    out.insert("entries_per_second".into(), json!(row.entries.and_then(|n| row.rate(n))));
    out.insert("exit_share".into(), json!(row.exit_share(total)));
    out.insert("host_time_share".into(), json!(row.host_time_share(total)));
    out.insert("phases".into(), phases(&row.series));
    for figure in Figure::ALL {
        out.insert(figure.name().into(), distribution(&row.series[figure], row.sum_ns(figure)));
    }
    Value::Object(out)
}

/// Sums of the parts of the host time, ns; null where there is none, and a part that is not known. Kernel is the rest.
fn phases(series: &Shown) -> Value {
    let part = |phase: Phase| (format!("{}_ns", phase.name()), json!(series.phase(phase)));
    series.host_ns().map_or(Value::Null, |_| Phase::ALL.into_iter().map(part).collect::<Map<_, _>>().into())
}

/// The statistics of a figure, and of a time the sum of all values, ns; null without values.
fn distribution(histogram: &Histogram, sum_ns: Option<u64>) -> Value {
    if histogram.count() == 0 {
        return Value::Null;
    }
    let mut out = Map::from_iter([("count".to_owned(), json!(histogram.count()))]);
    for stat in Stat::ALL {
        let value = stat.of(histogram);
        let value = if stat == Stat::Mean { json!(value) } else { json!(value.map(whole)) };
        out.insert(stat.name().into(), value);
    }
    out.extend(sum_ns.map(|sum| ("sum".to_owned(), json!(sum))));
    Value::Object(out)
}

/// A bound of a bucket, which is a whole number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was made from a u64")]
fn whole(bound: f64) -> u64 {
    bound as u64
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{report, view},
        *,
    };
    use crate::model::measurement::OtherTracers;

    #[test]
    fn every_documented_field_is_there() {
        let json = render(&report(), &view(), None);
        for field in ["format", "host", "policy", "emulated", "totals", "series"] {
            assert!(!json[field].is_null(), "{field}");
        }
        assert_eq!(json["totals"]["timer_exits"]["deadline"], 23);
        assert_eq!(json["totals"]["pin_writes"], 46);
        assert_eq!(json["totals"]["pin_writes_source"], "shadow");
        let timer = &json["series"].as_array().unwrap()[1];
        assert_eq!(timer["exit_reason"], "PREEMPTION_TIMER");
        assert_eq!(
            (&timer["vcpu"], &timer["entry"], &timer["timer_cause"]),
            (&json!(1), &json!("dirty"), &json!("deadline"))
        );
        assert_eq!(timer["pin_writes"]["count"], 23);
        assert_eq!(timer["entry_to_exit_ns"]["min"], 49_984);
        assert_eq!(timer["entry_to_exit_ns"].as_object().unwrap().len(), 9);
        assert_eq!(timer["pin_writes"].as_object().unwrap().len(), 8, "the sum of writes is in the totals");
    }

    #[test]
    fn what_an_older_recording_does_not_have_is_null_and_not_none() {
        let mut report = report();
        let (totals, header) = (&mut report.whole.totals, &mut report.sources[0].header);
        (totals.foreign_isa, totals.shadow_pin_writes, header.other_tracers) = (None, None, None);
        let json = render(&report, &view(), None);
        for value in [&json["totals"]["foreign_isa"], &json["totals"]["shadow_pin_writes"], &json["shared_with"]] {
            assert_eq!(*value, Value::Null);
        }
        let (totals, header) = (&mut report.whole.totals, &mut report.sources[0].header);
        (totals.foreign_isa, totals.shadow_pin_writes) = (Some(0), Some(46));
        header.other_tracers = Some(OtherTracers::default());
        let json = render(&report, &view(), None);
        assert_eq!((&json["totals"]["foreign_isa"], &json["shared_with"]), (&json!(0), &json!([])));
        assert_eq!(json["totals"]["shadow_pin_writes"], 46);
        report.sources[0].header.unknown = Some([("pin_writes".into(), "why".into())].into());
        assert_eq!(render(&report, &view(), None)["totals"]["shadow_pin_writes"], Value::Null);
    }

    #[test]
    fn unknown_values_are_null() {
        let mut report = report();
        for series in report.whole.series.values_mut() {
            series[Figure::PinWrites] = Histogram::default();
        }
        report.sources[0].header.pin_writes_source = PinSource::None;
        let json = render(&report, &view(), None);
        assert_eq!(json["totals"]["pin_writes"], Value::Null);
        assert_eq!(json["totals"]["pin_writes_source"], Value::Null);
        assert_eq!(json["series"][0]["pin_writes"], Value::Null);
    }

    #[test]
    fn sums_shares_and_parts_of_the_host_time_agree_and_what_is_not_known_is_null() {
        let mut report = report();
        report.sources[0].header.phases = true;
        for series in report.whole.series.values_mut() {
            (series.budget.user_ns, series.budget.steal_ns) = (series.budget.host_ns / 4, 7);
        }
        let json = render(&report, &view(), None);
        let of = |name: &str| json["series"].as_array().unwrap().iter().map(|s| s[name].as_f64().unwrap()).sum::<f64>();
        assert!((of("exit_share") - 1.0).abs() < 1e-9 && (of("host_time_share") - 1.0).abs() < 1e-9);
        let totals = &json["totals"];
        let first = &json["series"][0];
        let share = first["exit_to_entry_ns"]["sum"].as_f64().unwrap() / totals["host_ns"].as_f64().unwrap();
        assert_eq!(first["host_time_share"], share);
        let parts = totals["phases"].as_object().unwrap();
        assert_eq!(parts.values().map(|ns| ns.as_u64().unwrap()).sum::<u64>(), totals["host_ns"].as_u64().unwrap());
        assert_eq!((&parts["steal_ns"], parts.len()), (&json!(14), 5));
        report.sources[0].header.phases = false;
        let json = render(&report, &view(), None);
        assert_eq!(json["totals"]["phases"]["user_ns"], Value::Null);
        assert_eq!(json["totals"]["phases"]["kernel_ns"], Value::Null, "the whole host time is not the kernel's");
    }
}
