//! A calibration as JSON, "vmentry-calibration/1"; the fields are in docs/latencies.md.

use serde_json::{Value, json};

use super::{
    Calibration,
    summary::{Distribution, ExitCost, MedianInterval, WriteCost},
};

/// Renders a calibration. Every duration is given in TSC cycles and in ns; unknown values are null.
pub(crate) fn render(c: &Calibration) -> Value {
    let m = &c.measured;
    let scale = Scale((m.khz > 0.0).then(|| 1e6 / m.khz));
    json!({
        "format": "vmentry-calibration/1",
        "emulated": c.host.emulated,
        "virtualized": c.host.virtualized,
        "host": c.host,
        "cpu": c.cpu,
        "samples": c.samples,
        "work": c.work,
        "clock": {
            "source": c.clocksource,
            "tsc_khz": (m.khz > 0.0).then_some(m.khz),
            "error": scale.number(Some(m.clock_error)),
        },
        "caveats": c.caveats,
        "stopped": c.stopped_by,
        "exits": m.exits.iter().map(|e| exit(e, &scale)).collect::<Vec<_>>(),
        "control_writes": m.writes.iter().map(|w| writes(w, &scale)).collect::<Vec<_>>(),
    })
}

/// ns per TSC cycle; none if the frequency is unknown.
struct Scale(Option<f64>);

impl Scale {
    fn number(&self, cycles: Option<f64>) -> Value {
        json!({ "tsc": cycles, "ns": cycles.and_then(|c| Some(c * self.0?)) })
    }

    fn distribution(&self, d: Option<Distribution>) -> Value {
        d.map_or(Value::Null, |d| json!({ "tsc": d, "ns": self.0.map(|f| d.scaled(f)) }))
    }

    fn interval(&self, i: Option<MedianInterval>) -> Value {
        i.map_or(Value::Null, |i| json!({ "tsc": i, "ns": self.0.map(|f| i.scaled(f)) }))
    }
}

fn exit(e: &ExitCost, scale: &Scale) -> Value {
    json!({
        "exit": e.exit,
        "policy": e.policy,
        "unavailable": e.unavailable,
        "exit_latency": scale.distribution(e.exit_latency),
        "host": scale.distribution(e.host),
        "entry_latency": scale.distribution(e.entry_latency),
        "entry_latency_clean": scale.distribution(e.clean),
        "entry_latency_dirty": scale.distribution(e.dirty),
        "guest": scale.distribution(e.guest),
        "round_trip": scale.distribution(e.round_trip),
        "round_trip_untraced": scale.distribution(e.untraced),
        "tracing": scale.number(e.tracing()),
        "iteration_untraced": scale.number(e.per_iteration),
        "transition": scale.distribution(e.transition),
        "set_apart": e.excluded,
        "consistent": e.consistent,
        "inconsistent": e.inconsistent,
    })
}

fn writes(w: &WriteCost, scale: &Scale) -> Value {
    json!({
        "control": w.control,
        "how": w.how,
        "unavailable": w.unavailable,
        "rounds": w.rounds,
        "dirty": scale.distribution(w.dirty),
        "clean": scale.distribution(w.clean),
        "cost": scale.interval(w.cost),
        "ratio": w.ratio,
        "control_ratio": w.control_ratio,
        "untraced_cost": scale.interval(w.untraced),
        "unexpected": w.unexpected,
        "set_apart": w.excluded,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::text::tests::calibration, *};

    #[test]
    fn every_duration_is_given_in_both_units_and_unknown_values_are_null() {
        let json = render(&calibration());
        let cpuid = &json["exits"][0];
        assert_eq!(
            (&cpuid["entry_latency"]["tsc"]["p50"], &cpuid["entry_latency"]["ns"]["p50"]),
            (&json!(400.0), &json!(200.0))
        );
        assert_eq!(cpuid["tracing"], json!({ "tsc": 200.0, "ns": 100.0 }));
        assert_eq!(json["exits"][2]["entry_latency"], Value::Null);
        assert_eq!(json["exits"][2]["unavailable"], "made up");
        let pin = &json["control_writes"][0];
        assert_eq!((&pin["untraced_cost"]["ns"]["value"], &pin["rounds"]), (&json!(250.0), &json!(12)));
        assert_eq!(json["format"], "vmentry-calibration/1");
    }
}
