//! The figures that a survey keeps of the JSON of this program's other commands. Only named fields are taken, so that a name of a VM or a
//! host, the text of an error, or a field of a later version stays behind.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    reason::Reason,
    values::{Calibration, Distribution, Exit, FarTimer, Mode, Overhead, Probe, Proof, Write},
    words,
};
use crate::host::facts::Facts;

/// The value below this path of field names.
pub(super) fn field<T: DeserializeOwned>(json: &Value, path: &[&str]) -> Result<T, Reason> {
    let value = path.iter().fold(json, |value, name| &value[*name]);
    T::deserialize(value).map_err(|_| Reason::Failed)
}

/// These fields of an object, and no others.
fn fields<T: DeserializeOwned>(json: &Value, names: &[&str]) -> Result<T, Reason> {
    let kept = names.iter().map(|name| ((*name).to_owned(), json[*name].clone())).collect();
    serde_json::from_value(Value::Object(kept)).map_err(|_| Reason::Failed)
}

/// The ns of a distribution; none where the command has none.
fn distribution(json: &Value, name: &str) -> Result<Option<Distribution>, Reason> {
    let ns = &json[name]["ns"];
    if ns.is_null() {
        return Ok(None);
    }
    fields(ns, &["count", "floor", "p50", "p90", "p99", "max", "mean"]).map(Some)
}

/// The JSON that a command printed.
fn parse(bytes: &[u8]) -> Result<Value, Reason> {
    serde_json::from_slice(bytes).map_err(|_| Reason::Failed)
}

/// Of `check --format json`.
pub(super) fn proof(bytes: &[u8]) -> Result<Proof, Reason> {
    let proof = &parse(bytes)?["proof"];
    let passed = match proof["outcome"].as_str() {
        Some("passed") => true,
        Some("failed") if proof["seen"].is_object() => false,
        _ => return Err(Reason::Failed),
    };
    let seen = if passed { proof } else { &proof["seen"] };
    let count = |name| field(seen, &[name]);
    Ok(Proof {
        passed,
        exits: count("exits")?,
        entries: count("entries")?,
        dropped: count("dropped")?,
        cpuid: count("cpuid")?,
        with_reason: count("with_reason")?,
        with_level: count("with_level")?,
        with_pin_writes: count("with_pin_writes")?,
    })
}

/// Of `exercise early --format json`.
pub(super) fn probe(bytes: &[u8]) -> Result<Probe, Reason> {
    let json = parse(bytes)?;
    let early = match json["verdict"].as_str() {
        Some("yes") => true,
        Some("no") => false,
        _ => return Err(Reason::of_probe(json["why"].as_str().unwrap_or_default())),
    };
    let timer = |timer: &Value| fields::<FarTimer>(timer, &["offset_ns", "after_ns", "armed"]);
    let timers = json["timers"].as_array().ok_or(Reason::Failed)?.iter().map(timer);
    Ok(Probe { early, timers: timers.collect::<Result<_, _>>()? })
}

/// Of `check --overhead --format json`.
pub(super) fn overhead(bytes: &[u8]) -> Result<Overhead, Reason> {
    let json = &parse(bytes)?["overhead"];
    let names = ["aggregation", "vcpu_ns", "collector_ns", "speed", "dropped", "counted"];
    let modes = json["modes"].as_array().ok_or(Reason::Failed)?.iter().map(|mode| fields::<Mode>(mode, &names));
    Ok(Overhead {
        exits: field(json, &["exits"])?,
        rounds: field(json, &["rounds"])?,
        untraced_ns: field(json, &["untraced_ns"])?,
        direct_loads: field(json, &["direct_loads"])?,
        modes: modes.collect::<Result<_, _>>()?,
    })
}

/// Of `calibrate --format json`.
pub(super) fn calibration(bytes: &[u8], facts: &Facts) -> Result<Calibration, Reason> {
    let json = parse(bytes)?;
    let all = |name: &str| json[name].as_array().cloned().ok_or(Reason::Failed);
    let exits =
        all("exits")?.iter().filter(|exit| exit["unavailable"].is_null()).map(exit).collect::<Result<_, _>>()?;
    let writes = all("control_writes")?.iter().map(|write| self::write(write, facts)).collect::<Result<_, _>>()?;
    let calibration = Calibration {
        clock_source: words::clock_source(&field::<String>(&json, &["clock", "source"])?),
        tsc_khz: field(&json, &["clock", "tsc_khz"])?,
        clock_error_ns: field(&json, &["clock", "error", "ns"])?,
        samples: field(&json, &["samples"])?,
        exits,
        writes,
    };
    if calibration.exits.is_empty() { Err(Reason::Failed) } else { Ok(calibration) }
}

fn exit(json: &Value) -> Result<Exit, Reason> {
    let apart = json["set_apart"].as_object().ok_or(Reason::Failed)?;
    Ok(Exit {
        exit: field(json, &["exit"])?,
        policy: field(json, &["policy"])?,
        entry_latency_ns: distribution(json, "entry_latency")?,
        exit_latency_ns: distribution(json, "exit_latency")?,
        transition_ns: distribution(json, "transition")?,
        round_trip_untraced_ns: distribution(json, "round_trip_untraced")?,
        tracing_ns: field(json, &["tracing", "ns"])?,
        set_apart: apart.values().filter_map(Value::as_u64).sum(),
        inconsistent: field(json, &["inconsistent"])?,
    })
}

fn write(json: &Value, facts: &Facts) -> Result<Write, Reason> {
    let control: String = field(json, &["control"])?;
    let cost = &json["cost"]["ns"];
    let cost_ns = if cost.is_null() { None } else { Some(fields(cost, &["value", "low", "high"])?) };
    Ok(Write {
        unavailable: cost_ns.is_none().then(|| Reason::no_write(facts, &control)),
        control,
        rounds: field(json, &["rounds"])?,
        dirty_ns: distribution(json, "dirty")?,
        clean_ns: distribution(json, "clean")?,
        cost_ns,
        unexpected: field(json, &["unexpected"])?,
    })
}
