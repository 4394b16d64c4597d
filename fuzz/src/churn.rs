//! The target of hosts whose VMs come and go: an input is a few instructions, which become a recording of up to thousands of VMs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{inputs::LAB, recording};

/// VMs of a recording at most.
const MOST_VMS: usize = 10_000;
/// Lines with a histogram of a recording at most.
const MOST_LINES: usize = 12_000;
/// A histogram of five entries.
const HISTOGRAM: &str = "HISTFAAAAB942pNpmSzMwMDAzAABMJrxPxTYf4AIHGfkAgC/2AtH";

/// Makes the recording, and takes it through every view.
pub(crate) fn run(input: &[u8]) {
    recording::show(recording_of(input).as_bytes());
}

/// The recording of instructions: each a byte and a number in two bytes, of which ten bits count.
fn recording_of(input: &[u8]) -> String {
    let mut host = Host::default();
    for &[what, low, high] in input.as_chunks::<3>().0 {
        let n = u16::from_le_bytes([low, high]) % 1024;
        match what % 5 {
            0 => (0..n).for_each(|_| host.start_vm()),
            1 => (0..n).for_each(|_| host.run_again()),
            2 => (0..n).for_each(|_| host.add_vcpu()),
            3 => host.names = n.into(),
            _ => host.end_interval(n.into()),
        }
    }
    host.end_interval(1000);
    host.text()
}

#[derive(Default)]
struct Host {
    lines: String,
    vms: usize,
    vcpus: usize,
    histograms: usize,
    /// VM whose turn it is to run again
    turn: usize,
    /// how many different names VMs have; 0: as many as VMs
    names: usize,
    /// lines of this interval
    in_interval: usize,
    intervals: u64,
}

impl Host {
    fn start_vm(&mut self) {
        if self.vms == MOST_VMS {
            return;
        }
        let id = self.vms;
        self.vms += 1;
        let name = format!("v{}", id.checked_rem(self.names).unwrap_or(id));
        let ordinal = id.checked_div(self.names).unwrap_or(0);
        let vm = json!({ "vm": { "id": id, "name": name, "tgid": 1000 + id, "start_ticks": 1, "ordinal": ordinal } });
        writeln!(self.lines, "#{vm}").unwrap();
        self.vcpus = 0;
        self.histogram(id, 0);
    }

    fn run_again(&mut self) {
        if self.vms > 0 {
            self.turn = (self.turn + 1) % self.vms;
            self.histogram(self.turn, 0);
        }
    }

    fn add_vcpu(&mut self) {
        if self.vms > 0 {
            self.vcpus += 1;
            self.histogram(self.vms - 1, self.vcpus);
        }
    }

    fn histogram(&mut self, vm: usize, vcpu: usize) {
        if self.histograms == MOST_LINES {
            return;
        }
        self.histograms += 1;
        self.in_interval += 1;
        let series =
            format!("Tag=vm={vm};vcpu={vcpu};level=L1;isa=vmx;reason=10;entry=unknown;figure=entry_to_exit_ns");
        writeln!(self.lines, "{series},1.000,1.000,1.000,{HISTOGRAM}").unwrap();
    }

    fn end_interval(&mut self, length_ms: u64) {
        let entries = std::mem::take(&mut self.in_interval) * 5;
        let interval = json!({
            "start_ns": 20_000_000_000_u64 + self.intervals * 100_000_000_000,
            "length_ns": length_ms * 1_000_000,
            "totals": { "entries": entries, "delivered": entries, "dropped": 0, "unmatched": 0, "malformed": 0, "not_kept": 0,
                        "td_entries": 0 },
        });
        writeln!(self.lines, "#{}", json!({ "interval": interval })).unwrap();
        self.intervals += 1;
    }

    /// The recording, without checksums.
    fn text(&self) -> String {
        let first = LAB.split(|&b| b == b'\n').next().unwrap_or_default();
        let mut header: Value = serde_json::from_slice(first.strip_prefix(b"#").unwrap()).unwrap();
        header.as_object_mut().unwrap().remove("crc32");
        format!("#{header}\n{}", self.lines)
    }
}

#[cfg(test)]
mod tests {
    use vmentry::{
        recording::OnDamage,
        report::{Report, input::read_from},
    };

    use super::*;

    #[test]
    fn thirty_bytes_are_a_recording_of_ten_thousand_vms() {
        let text = recording_of(include_bytes!("../corpus/churn/ten-thousand"));
        let mut report = Report::default();
        read_from(text.as_bytes(), "x".into(), OnDamage::Refuse, &mut report).unwrap();
        assert_eq!((report.whole.series.len(), report.whole.totals.delivered), (10_000, 50_000));
    }
}
