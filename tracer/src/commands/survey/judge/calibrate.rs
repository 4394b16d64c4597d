//! Judges a calibration: figures that contradict each other are faults, and those that chance makes are remarks.

use super::{
    super::{
        values::{Calibration, Exit, Host, Write},
        words,
    },
    Findings,
};
use crate::{
    calibrate::exits,
    model::{policy::Policy, vendor::Vendor},
    output::printable,
};

/// Fewest samples of each exit; a survey of a real CPU asks for 5000.
const FEWEST_SAMPLES: u64 = 1000;
/// How much two measurements of one frequency may differ.
const KHZ_ERROR: f64 = 0.01;
/// How much of a time may be chance.
const CHANCE: f64 = 0.1;

impl Findings {
    pub(super) fn calibration(&mut self, host: &Host, calibration: &Calibration) {
        let Calibration { clock_source, tsc_khz, clock_error_ns, samples, exits, writes } = calibration;
        let is_known = words::is_clock_source(clock_source);
        self.text(is_known, "calibrate.clock_source", clock_source, "a clock source of Linux or 'other'");
        if let (Some(khz), Some(of_host)) = (tsc_khz, host.tsc_khz) {
            let of_host = f64::from(of_host);
            let is_same = (khz - of_host).abs() <= KHZ_ERROR * of_host;
            self.unless(is_same, format!("calibrate.tsc_khz {khz} is not the host's, {of_host}"));
        }
        self.unless(tsc_khz.is_none_or(|khz| khz > 0.0), "calibrate.tsc_khz is not positive");
        self.unless(clock_error_ns.is_none_or(|ns| ns >= 0.0), "calibrate.clock_error_ns is negative");
        let is_enough = *samples >= FEWEST_SAMPLES;
        self.unless(is_enough, format!("calibrate.samples: {samples}, and a row takes {FEWEST_SAMPLES}"));
        self.unless(!exits.is_empty(), "calibrate has no exit");
        for (at, exit) in exits.iter().enumerate() {
            let is_new = exits[..at].iter().all(|other| (&other.exit, other.policy) != (&exit.exit, exit.policy));
            self.exit(host, exit, *samples, is_new);
        }
        for (at, write) in writes.iter().enumerate() {
            self.control_write(host, write, writes[..at].iter().all(|other| other.control != write.control));
        }
    }

    fn exit(&mut self, host: &Host, exit: &Exit, samples: u64, is_new: bool) {
        let Exit { entry_latency_ns, exit_latency_ns, transition_ns, round_trip_untraced_ns, tracing_ns, .. } = exit;
        let name = printable(&exit.exit, 40);
        let is_known = exits::Exit::ALL.iter().any(|known| known.name() == exit.exit);
        self.unless(is_known, format!("calibrate has an exit that is none: '{name}'"));
        self.unless(is_new, format!("calibrate has the exit {name} twice under one policy"));
        let is_policy =
            exit.policy == host.policy || host.companion_patch && [Policy::Soft, Policy::Hard].contains(&exit.policy);
        self.unless(is_policy, format!("calibrate: {name} was measured under a policy that the host does not have"));
        let figures = [
            ("entry_latency_ns", entry_latency_ns),
            ("exit_latency_ns", exit_latency_ns),
            ("transition_ns", transition_ns),
            ("round_trip_untraced_ns", round_trip_untraced_ns),
        ];
        for (of, figure) in figures {
            let Some(figure) = figure else { continue };
            let of = format!("{of} of {name}");
            self.spread(&of, figure, None);
            self.unless(figure.p50 > 0.0, format!("{of}: a median of 0"));
        }
        if let Some(entry) = entry_latency_ns {
            let of = format!(
                "entry_latency_ns of {name}: {} of {samples} samples, {} set apart",
                entry.count, exit.set_apart
            );
            let seen = entry.count.saturating_add(exit.set_apart);
            // The figure of the row; other exits lose samples to interrupts of their own.
            self.unless(exit.exit != "cpuid" || seen >= samples / 2, of.clone());
            self.remark_unless(entry.count >= samples / 4, of);
        }
        if let (Some(entry), Some(trip)) = (entry_latency_ns, round_trip_untraced_ns) {
            let longest = (trip.p50 + tracing_ns.unwrap_or(0.0).max(0.0)) * (1.0 + CHANCE);
            self.unless(
                entry.p50 <= longest,
                format!("calibrate: the round trip of {name} is shorter than its VM entry"),
            );
        }
        if let Some(added) = tracing_ns.filter(|added| *added < 0.0) {
            let trip = round_trip_untraced_ns.map_or(0.0, |trip| trip.p50);
            let text = format!("calibrate: tracing shortens the round trip of {name} by {} ns", -added);
            self.unless(-added <= CHANCE * trip, text.clone());
            self.remarks.push(text);
        }
    }

    fn control_write(&mut self, host: &Host, write: &Write, is_new: bool) {
        let Write { control, dirty_ns, clean_ns, cost_ns, unavailable, .. } = write;
        let is_known = ["pin", "exec"].contains(&control.as_str());
        self.unless(is_known, "calibrate has writes to a control that is none");
        let name = printable(control, 40);
        self.unless(is_new, format!("calibrate has writes to the {name} controls twice"));
        self.unless(
            cost_ns.is_some() != unavailable.is_some(),
            "a control write has a cost and a reason why not, or neither",
        );
        for (of, figure) in [("dirty_ns", dirty_ns), ("clean_ns", clean_ns)] {
            let Some(figure) = figure else { continue };
            let of = format!("{of} of {name}");
            self.spread(&of, figure, None);
            self.unless(figure.p50 > 0.0, format!("{of}: a median of 0"));
        }
        let Some(cost) = cost_ns else { return };
        self.unless(host.vendor == Some(Vendor::Intel), format!("a {name}-control write, which only VMX has"));
        let is_caused = control != "pin" || host.companion_patch;
        self.unless(is_caused, "pin-control writes cannot be caused without the companion patch");
        self.rising(&format!("cost_ns of {name}"), [Some(cost.low), Some(cost.value), Some(cost.high)]);
        let (Some(dirty), Some(clean)) = (dirty_ns, clean_ns) else {
            return self.unless(false, format!("the {name}-control write has a cost without dirty_ns and clean_ns"));
        };
        // The cost is a median over rounds, and need not be the difference of the medians of all entries.
        let difference = dirty.p50 - clean.p50;
        let (spread, gap) = (cost.high - cost.low, (difference - cost.value).abs());
        let text = format!(
            "the {name}-control write costs {:+.0} ns, and its median differs by {difference:+.0} ns from that without a write",
            cost.value
        );
        let chance = CHANCE * clean.p50 + spread;
        let is_opposite = difference < 0.0 && cost.low > 0.0 || difference > 0.0 && cost.high < 0.0;
        self.unless(gap <= chance.max(difference.abs() / 2.0 + spread), text.clone());
        self.unless(!is_opposite, format!("{text}: they have opposite signs"));
        self.remark_unless(gap <= chance, text);
        self.remark_unless(
            difference >= 0.0,
            format!("entries with a {name}-control write are faster, maybe by chance"),
        );
    }
}
