//! The companion patch's stopwatch: whether it is on, and the TSC frequency that converts its cycles to ns.

use std::time::Duration;

use anyhow::{Context, Result};
use tracer_common::rules::tsc_to_ns_factor;

use crate::{
    host::{clock::TscMeter, facts::Facts},
    model::measurement::Stopwatch,
};

/// Parameter of a kvm_intel that has the stopwatch's patch.
pub(crate) const PARAMETER: &str = "preemption_timer_stopwatch";

/// How long the TSC's frequency is measured: exact to 1e-6 where reading the clocks takes 100 ns.
const METERING: Duration = Duration::from_millis(110);

/// The stopwatch, for [`Options::stopwatch`](crate::kernel::options::Options::stopwatch); none where it is off. Measures the TSC's frequency
/// for a tenth of a second where it is on.
pub(crate) fn start(facts: &Facts) -> Result<Option<Stopwatch>> {
    if facts.stopwatch != Some(true) {
        return Ok(None);
    }
    let meter = TscMeter::start();
    std::thread::sleep(METERING);
    let tsc_khz = meter.khz().context("measure the TSC's frequency")?;
    tsc_to_ns_factor(tsc_khz).with_context(|| format!("use a TSC of {tsc_khz} kHz"))?;
    let rate = facts.timer.as_ref().and_then(|t| t.rate);
    Ok(Some(Stopwatch { rate, tsc_khz }))
}
