//! The figures that a survey keeps of a recording of running VMs: VMs by number, exits by reason.

use serde_json::Value;

use super::{
    projection::field,
    reason::Reason,
    values::{ExitReason, Percentiles, Recording, TimerExits, Vm},
};
use crate::{
    recording::OnDamage,
    report::{Dimension, Report, View, input::read_from, json::render},
};

/// Of the bytes that `record -o -` writes.
pub(super) fn recording(bytes: &[u8]) -> Result<Recording, Reason> {
    let mut report = Report::default();
    read_from(bytes, "survey".into(), OnDamage::Refuse, &mut report).map_err(|_| Reason::Failed)?;
    let by = |dimension| render(&report, &View { by: vec![dimension], ..View::default() }, Some(&[dimension]));
    let [vms, reasons] = [by(Dimension::Vm), by(Dimension::Reason)];
    let rows = |json: &Value| json["series"].as_array().cloned().ok_or(Reason::Failed);
    let totals = &vms["totals"];
    let count = |name| field::<u64>(totals, &[name]);
    let cause = |name| field(totals, &["timer_exits", name]);
    if count("entries")? == 0 {
        return Err(Reason::NoVms);
    }
    let length_ns: u64 = field(&vms, &["length_ns"])?;
    Ok(Recording {
        length_s: length_ns as f64 / 1e9,
        entries: count("entries")?,
        delivered: count("delivered")?,
        dropped: count("dropped")?,
        not_kept: count("malformed")? + count("not_kept")?,
        exact: field(&vms, &["exact"])?,
        pin_writes: field(totals, &["pin_writes"])?,
        pin_writes_source: field(totals, &["pin_writes_source"])?,
        unknown_pin_writes: count("entries_with_unknown_pin_writes")?,
        timer_exits: TimerExits {
            deadline: cause("deadline")?,
            immediate: cause("immediate")?,
            spurious: cause("spurious")?,
            early: cause("early")?,
            unknown: cause("unknown")?,
        },
        vms: rows(&vms)?.iter().map(vm).collect::<Result<_, _>>()?,
        reasons: rows(&reasons)?.iter().map(exit_reason).collect::<Result<_, _>>()?,
    })
}

fn vm(row: &Value) -> Result<Vm, Reason> {
    Ok(Vm {
        entries: field(row, &["entries"])?,
        host_time_share: field(row, &["host_time_share"])?,
        pin_writes: percentiles(&row["pin_writes"])?,
    })
}

fn exit_reason(row: &Value) -> Result<ExitReason, Reason> {
    Ok(ExitReason {
        reason: field(row, &["exit_reason"])?,
        entries: field(row, &["entries"])?,
        exit_share: field(row, &["exit_share"])?,
        host_time_share: field(row, &["host_time_share"])?,
        guest_time_ns: percentiles(&row["entry_to_exit_ns"])?,
        host_time_ns: percentiles(&row["exit_to_entry_ns"])?,
    })
}

fn percentiles(figure: &Value) -> Result<Option<Percentiles>, Reason> {
    if figure.is_null() {
        return Ok(None);
    }
    Ok(Some(Percentiles {
        count: field(figure, &["count"])?,
        p50: field(figure, &["p50"])?,
        p99: field(figure, &["p99"])?,
        mean: field(figure, &["mean"])?,
    }))
}
