//! A comparison as JSON: format "vmentry-compare", version 1; docs/formats.md has the fields.

use serde_json::{Map, Value, json};

use super::wording;
use crate::{
    compare::{Comparison, Distributions, Estimate, FigureByVm, Row, Setting, Side},
    html::density,
    model::figures::Unit,
    recording::Provenance,
};

/// Name and version of the format.
const FORMAT: &str = "vmentry-compare/1";

/// Points of a cumulative distribution at most.
const POINTS: usize = 200;

/// The comparison. An unknown value is null, never 0.
pub(crate) fn render(c: &Comparison, setting: &Setting) -> Value {
    json!({
        "format": FORMAT,
        "emulated": wording::is_emulated(setting),
        "damaged": wording::damaged(setting).flat_map(|source| &source.damage).collect::<Vec<_>>(),
        "summary": wording::summary(c, setting),
        "warnings": setting.warnings,
        "checks": c.checks,
        "seed": c.seed,
        "alpha": c.alpha,
        "ignore_below": c.ignore_below,
        "units": { "of": c.unit, "a": c.units[0], "b": c.units[1], "needed": c.needed },
        "least_p": c.least_p,
        "primary": wording::primary(&c.rows).into_iter().map(wording::name).collect::<Vec<_>>(),
        "gate": wording::gate(c).map(wording::name),
        "method": c.method,
        "experiment": setting.experiment,
        "a": side(c, &c.a, setting, 0),
        "b": side(c, &c.b, setting, 1),
        "figures": c.rows.iter().map(row).collect::<Vec<_>>(),
        "stratified": c.stratified.iter().map(row).collect::<Vec<_>>(),
        "mix": {
            "distance": c.mix.distance,
            "p": c.mix.p,
            "covered": c.mix.covered,
            "rows": c.mix.rows.iter().map(|r| json!({
                "kind": wording::exit_reason(&r.stratum),
                "level": r.stratum.level.name(),
                "exit_reason_code": r.stratum.reason,
                "timer_cause": r.stratum.cause.map(|c| c.name()),
                "entries": r.entries,
                "entry_to_exit_ns_p50": r.entry_to_exit_p50,
                "exit_to_entry_ns_p50": r.exit_to_entry_p50,
            })).collect::<Vec<_>>(),
        },
        "distributions": c.distributions.iter().map(distribution).collect::<Vec<_>>(),
        "windows": c.timeline,
        "by_vm": {
            "figures": c.by_vm.figures.iter().map(by_vm).collect::<Vec<_>>(),
            "more": c.by_vm.more,
        },
    })
}

fn side(c: &Comparison, side: &Side, setting: &Setting, at: usize) -> Value {
    let t = &side.totals;
    let count = |n: &Result<u64, _>| json!(n.as_ref().ok());
    let timer: Map<_, _> = side.timer_exits.iter().map(|(cause, n)| (cause.name().to_owned(), count(n))).collect();
    let knows_timer = side.timer_exits.values().any(Result::is_ok);
    json!({
        "name": setting.names[at],
        "windows": side.windows,
        "entries": wording::entries(c, at),
        "left_out": side.left_out,
        "length_ns": side.length_ns,
        "totals": {
            "entries": t.entries,
            "delivered": t.delivered,
            "dropped": t.dropped,
            "unmatched": t.unmatched,
            "malformed": t.malformed,
            "not_kept": t.not_kept,
            "td_entries": t.td_entries,
        },
        "pin_writes": side.pin_writes,
        "timer_exits": knows_timer.then_some(timer),
        "vcpus": side.vcpus.iter().map(|(vm, vcpu)| json!({ "vm": vm, "vcpu": vcpu })).collect::<Vec<_>>(),
        "recordings": setting.sources[at].iter().map(recording).collect::<Vec<_>>(),
    })
}

fn recording(source: &Provenance) -> Value {
    let header = &source.header;
    json!({
        "file": source.name,
        "label": header.label,
        "tool": header.tool,
        "command": header.command,
        "host": header.host,
        "policy": source.policy(),
        "pin_writes_source": header.pin_writes_source,
        "latency": header.latency,
        "started_unix_ns": header.anchor.unix_ns,
        "intervals": source.intervals,
        "length_ns": source.length_ns,
        "ended": source.end.as_ref().map(|e| &e.reason),
        "torn": source.torn,
        "missing": header.missing,
    })
}

const fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Ns => "ns",
        Unit::Count => "count",
        Unit::PerSecond => "per_second",
        Unit::Share => "share",
    }
}

fn row(row: &Row) -> Value {
    json!({
        "figure": row.figure,
        "stat": row.stat,
        "unit": unit(row.unit),
        "better": row.better,
        "primary": row.primary.is_some(),
        "decided_after": row.decided_after,
        "a": row.a,
        "b": row.b,
        "count_a": row.count_a,
        "count_b": row.count_b,
        "difference": row.difference,
        "ratio": row.ratio,
        "p": row.p,
        "p_holm": row.p_holm,
        "detectable": row.detectable,
        "noise": row.noise,
        "verdict": row.verdict,
        "contradiction": wording::contradiction(row),
        "why": row.why,
    })
}

fn distribution(d: &Distributions) -> Value {
    json!({
        "figure": d.figure,
        "unit": unit(d.figure.unit()),
        "count_a": d.a.count(),
        "count_b": d.b.count(),
        "cdf": { "a": density::cdf(&d.a, POINTS), "b": density::cdf(&d.b, POINTS) },
        "shifts": d.shifts,
    })
}

fn by_vm(figure: &FigureByVm) -> Value {
    let difference = |change: Estimate| (!figure.is_ratio).then_some(change);
    let ratio = |change: Estimate| figure.is_ratio.then_some(change);
    json!({
        "figure": figure.figure,
        "stat": figure.stat,
        "unit": unit(figure.unit),
        "vms": figure.vms.iter().map(|vm| json!({
            "vm": vm.vm,
            "rounds": vm.rounds,
            "a": vm.a,
            "b": vm.b,
            "difference": difference(vm.change),
            "ratio": ratio(vm.change),
        })).collect::<Vec<_>>(),
        "all": figure.all.map(|all| json!({
            "vms": all.vms,
            "a": all.a,
            "difference": difference(all.change),
            "ratio": ratio(all.change),
            "tau": all.tau,
            "i_squared": all.i_squared,
        })),
        "sentence": wording::by_vm::spread(figure),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::fixture::{self, comparison, gated, setting};

    #[test]
    fn every_documented_field_is_there() {
        let json = render(&gated(), &setting());
        let page = include_str!("../../../../docs/formats.md");
        let (_, section) = page.split_once("## JSON comparison").unwrap();
        let table = section.split("\n\n").find(|p| p.starts_with("| field")).unwrap();
        let documented: Vec<_> =
            table.lines().skip(2).filter_map(|l| l.split('|').nth(1)).flat_map(|f| f.split(',')).collect();
        for field in &documented {
            let field = field.trim().trim_matches('`').trim_end_matches("[]");
            assert!(!json[field].is_null(), "{field}");
        }
        assert_eq!(json.as_object().unwrap().len(), documented.len(), "{documented:?}");
        assert_eq!(json["emulated"], true);
        assert_eq!(json["figures"].as_array().unwrap().len(), comparison().rows.len());
    }

    #[test]
    fn effects_by_vm_have_their_intervals_and_null_where_there_is_none() {
        let c = Comparison { by_vm: fixture::by_vm(), ..comparison() };
        let json = render(&c, &setting());
        let p50 = &json["by_vm"]["figures"][0];
        assert_eq!(
            (&p50["figure"], &p50["unit"], &json["by_vm"]["more"]),
            (&"entry_to_exit_ns".into(), &"ns".into(), &2.into())
        );
        assert_eq!((&p50["vms"][0]["vm"], &p50["vms"][2]["ratio"]["low"]), (&"web1".into(), &Value::Null));
        assert_eq!((&p50["all"]["ratio"]["value"], &p50["all"]["difference"]), (&1.055.into(), &Value::Null));
        assert_eq!((&p50["all"]["vms"], &p50["all"]["i_squared"]), (&2.into(), &0.97.into()));
        assert!(render(&comparison(), &setting())["by_vm"]["figures"].as_array().unwrap().is_empty());
        assert_eq!(json["a"]["left_out"], 0);
    }

    #[test]
    fn primary_figures_and_the_undecided_one_are_named() {
        let json = render(&gated(), &setting());
        assert_eq!(json["primary"], json!(["pin_writes.mean", "entry_to_exit_ns.p50", "exit_to_entry_ns.p50"]));
        assert_eq!(json["gate"], "entry_to_exit_ns.p50");
        let open = render(&comparison(), &setting());
        assert_eq!((&open["primary"], &open["gate"]), (&json!([]), &Value::Null));
        let p99 = json["figures"].as_array().unwrap().iter().find(|r| r["stat"] == "p99").unwrap();
        assert_eq!((&p99["verdict"], &p99["primary"]), (&json!("not_tested"), &json!(false)));
    }

    #[test]
    fn unknown_values_are_null_and_names_are_stable() {
        let json = render(&comparison(), &setting());
        let max = json["figures"].as_array().unwrap().iter().find(|r| r["stat"] == "max").unwrap();
        assert_eq!((&max["a"], &max["p"], &max["ratio"]), (&Value::Null, &Value::Null, &Value::Null));
        assert_eq!(max["verdict"], "not_enough_data");
        assert_eq!(json["windows"][0]["arm"], "A");
        assert_eq!(json["a"]["timer_exits"]["spurious"], 3);
        let cdf = json["distributions"][0]["cdf"]["a"].as_array().unwrap();
        assert!(cdf.len() <= POINTS && cdf.last().unwrap()[1] == 1.0);
    }
}
