//! The command line of `record`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ArgGroup, Args};

use crate::{model::measurement::Aggregation, trace::trigger::Clause};

use super::{
    DEFAULT_RECORDING,
    run_command::RunCommand,
    targets::{Details, LabelRulesFile, Targets},
    value::{RingKib, duration, ring_kib},
};

/// Arguments of `record`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("hooks").args(["exact_writes", "verify_writes"]).multiple(true))]
#[command(after_help = "\
Conditions: entry_to_exit_ns>1ms, exit_to_entry_ns<9us or a part of it:
kernel_ns, user_ns, polled_ns, idle_ns, steal_ns; detail=0x6e0, reason=HLT,
level=L1|L2, pin_writes>1, entry=dirty|clean, deadline_late_ns>9us,
deadline_remaining_ns>1s, cause=spurious|early|deadline|immediate

Examples:
  vmentry record -o all.hlog                          until Ctrl-C
  vmentry record -o web1.hlog --vm web1 --detail --duration 1m
  vmentry record -o x.hlog -- vmentry exercise tsc-deadline --count 23
  vmentry record --flight-recorder 2s --trigger 'entry_to_exit_ns>1ms'")]
pub struct RecordArgs {
    /// File to write; - for stdout [default: vmentry.hlog; one that is there is kept under another name]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// Stop after this time, e.g. 500ms, 30s, 5m, 1h30m
    #[arg(long, value_name = "D", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Interval; kill -9 loses at most one
    #[arg(long, value_name = "D", value_parser = duration, default_value = "1s")]
    pub interval: Duration,
    /// Name of the recording, shown in reports
    #[arg(long, value_name = "L")]
    pub label: Option<String>,
    /// VMs and vCPUs to trace
    #[command(flatten)]
    pub targets: Targets,
    /// What is told about exits
    #[command(flatten)]
    pub details: Details,
    /// Further labels of VMs
    #[command(flatten)]
    pub rules: LabelRulesFile,
    /// Do not split host time (kernel, user, halts, steal)
    #[arg(long)]
    pub no_phases: bool,
    /// Size of each CPU's ring in KiB, a power of two; auto: 1024, less beyond 256 CPUs
    #[arg(long, value_name = "KIB", default_value = "auto", value_parser = ring_kib)]
    pub ring_kib: RingKib,
    /// Count 'in-kernel': no rings, no collector's CPU; values to 1.6 % instead of 0.1 %
    #[arg(long, value_name = "WHERE", value_enum, default_value = "records", hide_possible_values = true,
          conflicts_with_all = ["exact_writes", "verify_writes", "events", "flight_recorder"])]
    pub aggregate: Aggregation,
    /// Count control writes (companion patch); no times
    #[arg(long)]
    pub exact_writes: bool,
    /// Also count pin-control writes by kprobes on kvm_intel's VMWRITEs; reports then show no times
    #[arg(long)]
    pub verify_writes: bool,
    /// Show times although hooks ran before VM entries
    #[arg(long, requires = "hooks")]
    pub with_latency: bool,
    /// Print rare diagnostics of the eBPF programs
    #[arg(long)]
    pub kernel_log: bool,
    /// Also write every event into a Perfetto trace
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// Keep the events of the last D; when --trigger matches, write them to --events or vmentry.pftrace
    #[arg(long, value_name = "D", value_parser = duration, requires = "trigger")]
    pub flight_recorder: Option<Duration>,
    /// Conditions on one event, see below [repeatable]
    #[arg(long, value_name = "C,..", requires = "flight_recorder")]
    pub trigger: Vec<Clause>,
    /// A command to run meanwhile
    #[command(flatten)]
    pub run: RunCommand,
}

impl RecordArgs {
    /// The file to write.
    pub(crate) fn output(&self) -> &Path {
        self.output.as_deref().unwrap_or(Path::new(DEFAULT_RECORDING))
    }
}
