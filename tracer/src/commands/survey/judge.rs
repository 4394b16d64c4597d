//! Reads a survey that somebody sent, and finds what speaks against a row of docs/hosts.md: what is not whole, does not add up, or may be
//! a name.

use serde_json::Value;

use super::values::{Calibration, Distribution, FORMAT, Host, Interval, Overhead, Part, Proof, Recording, Survey};
use crate::{calibrate::exits, output::printable};

/// Reads the JSON; the error says what is wrong with it.
pub(super) fn read(text: &str) -> Result<Survey, String> {
    let json: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    if json["format"] != FORMAT {
        let format = json["format"].as_str().map_or("none".into(), |format| format!("'{}'", printable(format, 40)));
        return Err(format!("its format is {format}, not '{FORMAT}': name the JSON that 'vmentry survey -o' wrote"));
    }
    // The error names the field that a survey does not have.
    serde_json::from_value(json).map_err(|error| printable(&error.to_string(), 200).into_owned())
}

/// What speaks against a row; empty for a good survey.
pub(super) fn faults(survey: &Survey) -> Vec<String> {
    let mut faults = Faults::default();
    let Survey { host, parts, .. } = survey;
    faults.unless(!host.emulated, "the CPU is emulated: its times say nothing about real hardware");
    faults.unless(!survey.cut, "it was ended before its parts were done: run it again, to its end");
    faults.unless(parts.has_figures(), "nothing was measured");
    faults.unless(is_version(&survey.tool), "tool is not 'vmentry' and a version");
    faults.unless(is_day(&survey.day), "day is not a date");
    faults.host(host);
    faults.part("check", host, &parts.check, Faults::proof);
    faults.part("erratum", host, &parts.erratum, |_, _| {});
    faults.part("overhead", host, &parts.overhead, Faults::overhead);
    faults.part("calibrate", host, &parts.calibrate, Faults::calibration);
    faults.part("recording", host, &parts.recording, Faults::recording);
    faults.0
}

#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn unless(&mut self, is_right: bool, fault: impl Into<String>) {
        if !is_right {
            self.0.push(fault.into());
        }
    }

    fn host(&mut self, host: &Host) {
        let Host { cpu, microcode, kernel, parameters, virtualized, missing, tickless_cpus, .. } = host;
        self.text("host.cpu", cpu, " ()@.,-+/_");
        self.text("host.kernel", kernel, ".+_~-");
        self.text("host.microcode", microcode.as_deref().unwrap_or_default(), "");
        self.text("host.virtualized", virtualized.as_deref().unwrap_or_default(), " ._-");
        self.text("host.tickless_cpus", tickless_cpus, ",-");
        missing.iter().for_each(|name| self.text("host.missing", name, "._"));
        for (name, value) in parameters {
            self.text("the name of a parameter", name, "_");
            self.text(&format!("parameter {}", printable(name, 40)), value, " ,._()-");
        }
        self.unless(!cpu.is_empty() && !kernel.is_empty() && host.cpus > 0, "the host has no CPU or no kernel");
    }

    /// A text of letters, digits and these signs, that is no address and no UUID.
    fn text(&mut self, of: &str, text: &str, signs: &str) {
        let is_usual = |c: char| c.is_ascii_alphanumeric() || signs.contains(c);
        let is_right = text.len() <= 100 && text.chars().all(is_usual) && !text.contains("/home") && !has_uuid(text);
        self.unless(is_right, format!("{of} may hold a name, a path or an id: '{}'", printable(text, 60)));
    }

    fn part<T>(&mut self, name: &str, host: &Host, part: &Part<T>, judge: impl FnOnce(&mut Self, &T)) {
        let has_one = part.measured.is_some() != part.unavailable.is_some();
        self.unless(has_one, format!("{name} has figures and a reason why not, or neither"));
        self.unless(
            part.emulated == host.emulated,
            format!("{name} and the host disagree on whether the CPU is emulated"),
        );
        if let Some(measured) = &part.measured {
            judge(self, measured);
        }
    }

    fn proof(&mut self, proof: &Proof) {
        let arrived = proof.entries.saturating_add(proof.dropped);
        self.unless(!proof.passed || arrived >= proof.exits, "check passed with fewer entries than exits");
        let within = [proof.cpuid, proof.with_reason, proof.with_level, proof.with_pin_writes];
        self.unless(within.into_iter().all(|part| part <= proof.entries), "check has more of a kind than entries");
    }

    fn overhead(&mut self, overhead: &Overhead) {
        self.rising("overhead.untraced_ns", &overhead.untraced_ns);
        for mode in &overhead.modes {
            let name = mode.aggregation.name();
            [mode.vcpu_ns, mode.collector_ns, mode.speed]
                .iter()
                .for_each(|v| self.rising(&format!("overhead {name}"), v));
            let least = overhead.exits.saturating_mul(overhead.rounds);
            self.unless(
                mode.counted.saturating_add(mode.dropped) >= least,
                format!("overhead {name} counts fewer entries than exits"),
            );
        }
    }

    fn calibration(&mut self, calibration: &Calibration) {
        self.text("calibrate.clock_source", &calibration.clock_source, "_-");
        for exit in &calibration.exits {
            let is_known = exits::Exit::ALL.iter().any(|known| known.name() == exit.exit);
            self.unless(is_known, format!("calibrate has an exit that is none: '{}'", printable(&exit.exit, 40)));
            let figures =
                [exit.entry_latency_ns, exit.exit_latency_ns, exit.transition_ns, exit.round_trip_untraced_ns];
            figures.iter().flatten().for_each(|figure| self.distribution(&exit.exit, figure));
        }
        for write in &calibration.writes {
            self.unless(
                ["pin", "exec"].contains(&write.control.as_str()),
                "calibrate has writes to a control that is none",
            );
            let has_one = write.cost_ns.is_some() != write.unavailable.is_some();
            self.unless(has_one, "a control write has a cost and a reason why not, or neither");
            [write.dirty_ns, write.clean_ns]
                .iter()
                .flatten()
                .for_each(|figure| self.distribution(&write.control, figure));
            if let Some(Interval { value, low, high }) = write.cost_ns {
                self.rising(&write.control, &[low, value, high]);
            }
        }
    }

    fn recording(&mut self, recording: &Recording) {
        let Recording { entries, delivered, dropped, not_kept, .. } = *recording;
        self.unless(recording.exact, "recording: the kernel's counts and the delivered records disagree");
        self.unless(
            Some(entries) == delivered.checked_add(dropped),
            "recording: entries are not delivered and dropped",
        );
        let kept = delivered.checked_sub(not_kept);
        let of_vms = sum(recording.vms.iter().map(|vm| vm.entries));
        let of_reasons = sum(recording.reasons.iter().map(|reason| reason.entries));
        self.unless(kept == Some(of_vms), "recording: the entries of the VMs do not add up");
        self.unless(kept == Some(of_reasons), "recording: the entries of the exit reasons do not add up");
        for reason in recording.reasons.iter().filter_map(|row| row.reason.as_deref()) {
            self.text("an exit reason", reason, "_ ()-");
        }
        self.text("recording.pin_writes_source", recording.pin_writes_source.as_deref().unwrap_or_default(), "");
    }

    fn distribution(&mut self, of: &str, d: &Distribution) {
        self.rising(of, &[0.0, d.floor, d.p50, d.p90, d.p99, d.max]);
        self.rising(of, &[d.floor, d.mean, d.max]);
        self.unless(d.count > 0, format!("{}: a distribution of no values", printable(of, 40)));
    }

    /// Values that must not fall, but for what rounding does.
    fn rising(&mut self, of: &str, values: &[f64]) {
        let is_rising = values.windows(2).all(|pair| pair[0] <= pair[1] + 1e-6 * pair[1].abs());
        self.unless(is_rising, format!("{}: least, median and most are not in order", printable(of, 40)));
    }
}

/// Whoever wrote the file chose the counts.
fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// "vmentry 0.1.0"
fn is_version(tool: &str) -> bool {
    let version = tool.strip_prefix("vmentry ").map(|version| version.split('.').collect::<Vec<_>>());
    version.is_some_and(|parts| parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok()))
}

/// "2026-11-27"
fn is_day(day: &str) -> bool {
    day.len() == 10
        && day.chars().enumerate().all(|(at, c)| if [4, 7].contains(&at) { c == '-' } else { c.is_ascii_digit() })
}

/// Whether a UUID, with or without hyphens, is in a text.
fn has_uuid(text: &str) -> bool {
    let digits = text.split(|c: char| !c.is_ascii_hexdigit() && c != '-').map(|word| word.replace('-', "").len());
    digits.max().is_some_and(|most| most >= 32)
}
