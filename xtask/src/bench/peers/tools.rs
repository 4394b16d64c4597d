//! The tools that are compared.

use anyhow::{Result, ensure};

use crate::debian::Need;

/// A tool to measure.
pub(super) struct Tool {
    /// Name in the script and on the command line.
    pub(super) name: &'static str,
    /// Name in the table.
    pub(super) title: &'static str,
    /// Its program and Debian package; none if the machine has it anyway.
    pub(super) need: Option<Need>,
}

pub(super) const TOOLS: [Tool; 16] = [
    Tool { name: "record", title: "vmentry record", need: None },
    Tool { name: "record_no_phases", title: "vmentry record --no-phases", need: None },
    Tool { name: "record_detail", title: "vmentry record --detail", need: None },
    Tool { name: "in_kernel", title: "vmentry record --aggregate in-kernel", need: None },
    Tool { name: "in_kernel_no_phases", title: "vmentry record --aggregate in-kernel --no-phases", need: None },
    Tool { name: "live", title: "vmentry live", need: None },
    Tool { name: "ftrace_hist", title: "ftrace hist trigger, count by reason", need: None },
    Tool { name: "ftrace_buffer", title: "ftrace buffer, no reader", need: None },
    Tool { name: "perf_stat", title: "perf stat, 2 tracepoints", need: Some(("perf", "linux-perf")) },
    Tool { name: "perf_kvm", title: "perf kvm stat record", need: Some(("perf", "linux-perf")) },
    Tool { name: "trace_cmd", title: "trace-cmd record", need: Some(("trace-cmd", "trace-cmd")) },
    Tool { name: "bcc_kvmexit", title: "bcc kvmexit, edited to run on AMD (counts)", need: Some(BCC) },
    Tool { name: "bcc_histogram", title: "bcc, exit to entry, no reason", need: Some(BCC) },
    Tool { name: "bpftrace_count", title: "bpftrace, count by reason", need: Some(BPFTRACE) },
    Tool { name: "bpftrace_guest", title: "bpftrace, entry to exit by reason", need: Some(BPFTRACE) },
    Tool { name: "bpftrace_host", title: "bpftrace, exit to entry by reason", need: Some(BPFTRACE) },
];

const BPFTRACE: Need = ("bpftrace", "bpftrace");
pub(super) const BCC: Need = ("kvmexit-bpfcc", "bpfcc-tools");

/// Returns the tools with these names, or all of them.
pub(super) fn select(names: &[String]) -> Result<Vec<&'static Tool>> {
    let known = TOOLS.map(|tool| tool.name).join(", ");
    let is_known = |name: &String| TOOLS.iter().any(|tool| tool.name == name);
    ensure!(names.iter().all(is_known), "select --tool {}: known tools are {known}", names.join(","));
    Ok(TOOLS.iter().filter(|tool| names.is_empty() || names.iter().any(|name| name == tool.name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_selected_by_name_and_an_unknown_one_is_an_error() {
        let names = |names: &[&str]| select(&names.iter().map(|&name| name.into()).collect::<Vec<_>>());
        assert_eq!(names(&[]).unwrap().len(), TOOLS.len());
        let selected: Vec<_> = names(&["live", "record"]).unwrap().iter().map(|tool| tool.name).collect();
        assert_eq!(selected, ["record", "live"]);
        assert!(names(&["strace"]).is_err());
    }
}
