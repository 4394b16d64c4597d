//! The command line: types only.

use std::{
    ffi::OsString,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use clap::{
    ArgGroup, Args, Parser, Subcommand, ValueEnum,
    builder::{OsStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser},
};

use clap_complete::{ArgValueCandidates, CompletionCandidate, Shell};
use rustix::param::page_size;

use crate::{
    calibrate::exits::Exit,
    compare::{assemble, condition::Condition},
    export::{allowed_hosts::parse_name, listener::Address, vm_label::VmLabel},
    guest::{MAX_VCPUS, Scenario},
    host::{
        labels::rules::LabelRules,
        roots::Roots,
        setting::{FORMS, Kind},
        vmm,
    },
    kernel::options::DEFAULT_RING_BYTES,
    model::{
        figures::{Column, Figure},
        measurement::Aggregation,
        policy::Policy,
        quantity::{duration_ns, split_unit},
        suggestion::did_you_mean,
        vcpu_range::vcpu_range,
    },
    output::shown,
    recording::MaxBuckets,
    report::{Dimension, Filter, text::ColumnSet},
    trace::trigger::Clause,
};

/// Measures VM-entry latency, pin-control VMCS writes per entry and spurious VMX-preemption-timer exits of KVM hosts.
#[derive(Debug, Parser)]
#[command(name = "vmentry", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// The command; live if there is none
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The recording of `record` and `report` where none is named.
pub(crate) const DEFAULT_RECORDING: &str = "vmentry.hlog";

const EXAMPLES: &str = "\
Examples:
  vmentry check                           what can be measured on this host?
  vmentry                                 watch it; ? shows the keys
  vmentry record --duration 30s           trace every VM for 30 seconds
  vmentry report                          what was seen, by VM and exit reason
  vmentry report -o vmentry.html          the same as a page with charts
  vmentry report a.hlog --by reason,entry --sort entry_to_exit_ns.p99
  vmentry help figures                    a page of the manual; 'vmentry help'
                                          lists them

Exit codes: 0 done; 1 failed, the message says what to do; 2 wrong command
line; of 'compare --fail-if': 3 a condition holds, 4 inconclusive. Of record,
ab and policy with '-- COMMAND': the command's code, or 128 plus the number of
the signal that ended it; 126 it cannot be run; 127 there is no such program.";

/// A command and its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check what can be measured on this host, and how to fix what cannot
    Check(CheckArgs),
    /// Watch VM entries as they happen (also: 'vmentry' alone)
    Live(LiveArgs),
    /// Record VM entries into a file
    Record(RecordArgs),
    /// Report on recordings
    Report(ReportArgs),
    /// A/B-test a KVM setting under running VMs (randomised, interleaved)
    Ab(AbArgs),
    /// Compare recordings: is B better than A, and how certain is that?
    Compare(CompareArgs),
    /// Merge recordings, of one host or of many, into one
    Merge(MergeArgs),
    /// Serve metrics to Prometheus, live or from a recording
    Export(ExportArgs),
    /// Show or set the timer policy (companion patch)
    Policy(PolicyArgs),
    /// Run a built-in guest with a known number of exits (to validate a tracer)
    Exercise(ExerciseArgs),
    /// Measure VM-entry and VM-exit latency alone, with a guest that stamps the TSC
    Calibrate(CalibrateArgs),
    /// Survey this host in two minutes: one page and one JSON file, without names
    Survey(SurveyArgs),
    /// Print the definitions that complete command lines in a shell
    Completions(CompletionsArgs),
    /// Write the man pages, for packages
    #[command(hide = true)]
    Man(ManArgs),
    /// Print the help of a command, or a page of the manual
    Help(HelpArgs),
}

/// Arguments of `help`.
#[derive(Debug, Args)]
pub struct HelpArgs {
    /// A command, or a topic of the manual; both are listed without one
    #[arg(value_name = "COMMAND|TOPIC")]
    pub subject: Option<String>,
}

/// Text for people or JSON for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// for people
    #[default]
    Text,
    /// for programs; 'vmentry help formats' has the fields
    Json,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// for people, in a terminal
    #[default]
    Text,
    /// for programs; 'vmentry help formats' has the fields
    Json,
    /// for people: one self-contained page with charts
    Html,
    /// for spreadsheets: one line per row
    Csv,
    /// for Prometheus: the metrics of 'vmentry export'
    #[value(alias = "prom")]
    Openmetrics,
}

impl ReportFormat {
    /// The format that a file of this name has.
    fn of_suffix(path: &Path) -> Result<Self, String> {
        let suffix = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match suffix.as_str() {
            "txt" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "html" | "htm" => Ok(Self::Html),
            "csv" => Ok(Self::Csv),
            "prom" => Ok(Self::Openmetrics),
            _ => Err(format!(
                "-o {}: no format has this suffix: use .txt, .html, .csv, .json or .prom, or say --format",
                shown(path)
            )),
        }
    }
}

/// JSON in fewer letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Json {
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl Json {
    /// The format that was asked for: JSON, or else `other`.
    fn or<F>(self, json: F, other: F) -> F {
        if self.json { json } else { other }
    }
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Also measure the tracing overhead: for some seconds, alternately runs a small guest with and without tracing; needs root
    #[arg(long)]
    pub overhead: bool,
    /// Leave out the proof, for which a small guest makes 23 exits while the programs are attached
    #[arg(long)]
    pub no_proof: bool,
    /// Also try, in a fifth of a second, whether a guest's far timers fire early (Intel's erratum EMR158)
    #[arg(long)]
    pub probe: bool,
    /// How to print: text, or json (fields: 'vmentry help formats')
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    format: Format,
    /// JSON in fewer letters
    #[command(flatten)]
    json: Json,
}

impl CheckArgs {
    /// How to print.
    pub(crate) fn format(&self) -> Format {
        self.json.or(Format::Json, self.format)
    }
}

/// VMs and vCPUs to trace; without arguments, all.
#[derive(Debug, Default, PartialEq, Eq, Args)]
pub struct Targets {
    /// Only VMs of this name or process [repeatable]
    #[arg(long, value_name = "NAME|PID", add = ArgValueCandidates::new(running_vms))]
    pub vm: Vec<String>,
    /// Only VMs of this process [repeatable]
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Only these vCPU numbers, e.g. 0-3,7
    #[arg(long, value_name = "N|N-M,..", value_delimiter = ',', value_parser = vcpu_range)]
    pub vcpu: Vec<RangeInclusive<u32>>,
}

/// The file of rules for labels of VMs.
#[derive(Debug, Default, Args)]
pub struct LabelRulesFile {
    /// File of rules for labels ('vmentry help metrics')
    #[arg(long, value_name = "F")]
    pub vm_label_rules: Option<PathBuf>,
}

impl LabelRulesFile {
    /// Reads the rules; there are none without a file.
    pub(crate) fn read(&self) -> Result<LabelRules> {
        self.vm_label_rules.as_deref().map(LabelRules::read).transpose().map(Option::unwrap_or_default)
    }
}

/// Which details of exits are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DetailKind {
    /// what registers and the VMCS tell
    Exits,
    /// also guest-physical addresses of accesses that KVM emulates, by its tracepoints kvm_mmio and kvm_fast_mmio
    Addresses,
}

/// Whether exits are looked at beyond their reasons.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Details {
    /// Tell exits apart by MSR, port, CPUID leaf, vector, etc.; =addresses adds those of emulated accesses
    #[arg(long, value_name = "WHAT", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "exits",
          hide_possible_values = true)]
    pub detail: Option<DetailKind>,
}

impl Details {
    /// Whether details were asked for.
    pub(crate) fn are_wanted(self) -> bool {
        self.detail.is_some()
    }

    /// Whether addresses were asked for, too.
    pub(crate) fn have_addresses(self) -> bool {
        self.detail == Some(DetailKind::Addresses)
    }
}

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
    /// Size of each CPU's ring in KiB, a power of two; an entry takes 96 or 136 bytes
    #[arg(long, value_name = "KIB", default_value_t = DEFAULT_RING_BYTES / 1024, value_parser = ring_kib)]
    pub ring_kib: u32,
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
    /// Keep COMMAND's arguments in the recording, too
    #[arg(long, requires = "command")]
    pub full_command: bool,
    /// Run COMMAND as this user, by name or number
    #[arg(long, value_name = "USER", requires = "command")]
    pub user: Option<String>,
    /// Run this command and stop when it ends
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

impl RecordArgs {
    /// The file to write.
    pub(crate) fn output(&self) -> &Path {
        self.output.as_deref().unwrap_or(Path::new(DEFAULT_RECORDING))
    }
}

/// Arguments of `live`.
#[derive(Debug, Default, Args)]
#[command(after_help = "\
Examples:
  vmentry live                          every VM on this host; ? shows the keys
  vmentry live --vm web1
  vmentry live before.hlog              play a recording, on any machine
  vmentry live | tee log                one line per second without a terminal
  vmentry live --once --format jsonl    the next second, for a script
  vmentry live --count 6 --interval 10s a minute, in lines of ten seconds")]
pub struct LiveArgs {
    /// Play this recording instead of tracing
    #[arg(value_name = "FILE", conflicts_with_all = ["vm", "pid", "vcpu", "detail"])]
    pub file: Option<PathBuf>,
    /// What stood before FILE when it was an option; scripts have it
    #[arg(long, hide = true, requires = "file")]
    replay: bool,
    /// Leave out the intervals of damaged lines, say so first, and end with exit code 1
    #[arg(long, requires = "file")]
    pub skip_damaged: bool,
    /// What is told about exits
    #[command(flatten)]
    pub details: Details,
    /// Print lines, on a terminal as well
    #[arg(long)]
    pub lines: bool,
    /// Print one line and end
    #[arg(long, conflicts_with = "count")]
    pub once: bool,
    /// Print N lines and end
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Print a line per D [default: 1s; of a recording, each interval]
    #[arg(long, value_name = "D", value_parser = duration)]
    pub interval: Option<Duration>,
    /// Print lines in this format [default: text]
    #[arg(long, value_name = "FORMAT")]
    format: Option<LinesFormat>,
    /// The same as --format jsonl
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// VMs and vCPUs to trace
    #[command(flatten)]
    pub targets: Targets,
}

/// How the lines of `live` are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LinesFormat {
    /// for people: columns, with a heading every 20 lines
    #[default]
    Text,
    /// for programs: one JSON object per line; 'vmentry help formats' has the fields
    Jsonl,
}

impl LiveArgs {
    /// Whether lines were asked for, whatever the terminal.
    pub(crate) fn wants_lines(&self) -> bool {
        let limited = self.once || self.count.is_some();
        self.lines || limited || self.json || self.interval.is_some() || self.format.is_some()
    }

    /// How lines are printed.
    pub(crate) fn format(&self) -> LinesFormat {
        if self.json { LinesFormat::Jsonl } else { self.format.unwrap_or_default() }
    }

    /// How many lines were asked for; none for no limit.
    pub(crate) fn lines_wanted(&self) -> Option<u64> {
        if self.once { Some(1) } else { self.count }
    }
}

/// Arguments of `report`.
#[derive(Debug, Args)]
#[command(after_help = "\
Dimensions: host, vm, vcpu, level (L1, L2), reason, entry (clean, dirty), cause
(of timer exits), detail (MSR, port, ... of record --detail; with its reason). A
filter takes exit reasons by name or number, and '-' for a value that is not
known; one that no entry passes is refused with what the recordings have.

Examples:
  vmentry report a.hlog b.hlog                   several recordings as one
  vmentry report a.hlog --by vm,vcpu,reason --top 10
  vmentry report a.hlog --by reason,detail       which MSR, which port?
  vmentry report a.hlog --filter reason=PREEMPTION_TIMER --by cause,entry
  vmentry report a.hlog --json | jq .totals
  vmentry report a.hlog -o a.html                a page with charts")]
pub struct ReportArgs {
    /// Recordings; '-' for standard input
    #[arg(value_name = "FILE", default_value = DEFAULT_RECORDING)]
    pub files: Vec<PathBuf>,
    /// How to print: text, html, csv, json or openmetrics [default: by -o's suffix, or text]
    #[arg(long, value_enum, hide_possible_values = true)]
    format: Option<ReportFormat>,
    /// JSON in fewer letters
    #[command(flatten)]
    json: Json,
    /// File to write: *.txt, html, csv, json or prom
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file to write if it exists
    #[arg(long, requires = "output")]
    pub overwrite: bool,
    /// Dimensions to group by; JSON has all but detail by default
    #[arg(long, value_name = "DIM,..", value_delimiter = ',', value_parser = dimensions(), hide_possible_values = true)]
    pub by: Vec<Dimension>,
    /// Keep only rows with these values [repeatable]
    #[arg(long, value_name = "DIM=VALUE,..")]
    pub filter: Vec<Filter>,
    /// Column to sort by, highest first: time (the sum of host times), exits, a statistic of host time such as mean, p99 or
    /// p99.9, or FIGURE.STATISTIC such as guest.p99
    #[arg(long, value_name = "COLUMN", default_value = "time", value_parser = column)]
    pub sort: Column,
    /// Columns of the text: time, phases (of host time), latency (percentiles), timer (pin writes, timer exits), or all
    #[arg(long, value_enum, value_name = "SET", hide_possible_values = true)]
    pub columns: Option<ColumnSet>,
    /// Check each claim of commit 804939ea20 against these recordings
    #[arg(long, conflicts_with_all = ["by", "filter", "sort", "top", "columns"])]
    pub claims: bool,
    /// Show only the first N rows, or all; by default, text sums rows below 0.1 %, and shows 20 on a terminal
    #[arg(long, value_name = "N|all", value_parser = top)]
    pub top: Option<usize>,
    /// Use no pager on a terminal ($PAGER, or less)
    #[arg(long)]
    pub no_pager: bool,
    /// Leave out the intervals of damaged lines, say so first, and end with exit code 1
    #[arg(long)]
    pub skip_damaged: bool,
    /// Keep at most N histogram buckets in memory, 16 bytes each; recordings that have more are refused
    #[arg(long, value_name = "N", default_value_t, value_parser = max_buckets())]
    pub max_buckets: MaxBuckets,
}

impl ReportArgs {
    /// How to print: as asked, else by the suffix of the file to write; fails where the suffix says nothing.
    pub(crate) fn format(&self) -> Result<ReportFormat, String> {
        let asked = self.json.or(Some(ReportFormat::Json), self.format);
        match (asked, &self.output) {
            (Some(format), _) => Ok(format),
            (None, Some(path)) if path != Path::new("-") => ReportFormat::of_suffix(path),
            (None, _) => Ok(ReportFormat::Text),
        }
    }
}

/// How a comparison is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ComparisonFormat {
    /// for terminals
    #[default]
    Text,
    /// for programs; 'vmentry help formats' has the fields
    Json,
    /// one self-contained page
    Html,
    /// a table for mails and pull requests
    Markdown,
}

/// When an experiment stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// when every primary figure is decided
    Decided,
    /// after the last round that fits into this time
    Time(Duration),
    /// after so many rounds
    Rounds(u32),
}

/// A setting to compare, as `--arm` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arm {
    /// as shown
    pub name: String,
    /// a command for `sh -c`, or the value of a setting that is switched without one
    pub switch: String,
    /// the setting that takes the value; none for a command
    pub(crate) kind: Option<Kind>,
}

/// Arguments of `ab`.
#[derive(Debug, PartialEq, Args)]
#[command(after_help = "\
Each round has four windows, ABBA or BAAB at random. Policies need the
companion patch; --arm compares any other setting. It is one of
  MODULE.PARAMETER=VALUE     a module's parameter that can be written
  /sys/FILE=VALUE            any file of one value; also /proc/sys/FILE=VALUE
  cgroup:PATH/FILE=VALUE     below /sys/fs/cgroup
  governor=NAME              of CPU frequency, on all CPUs
  thp=WORD                   transparent huge pages
which need no command and restore themselves, or else NAME=COMMAND.

Examples:
  vmentry ab                                    soft against hard, 4.5 minutes
  vmentry ab --policies soft,soft               A/A test: differences by chance
  vmentry ab --until decided --ignore-below 2%  no longer than it takes
  vmentry ab --window 1s --format html > ab.html
  vmentry ab --arm kvm.halt_poll_ns=0 --arm kvm.halt_poll_ns=200000
  vmentry ab --arm 'a=tuned-adm off' --arm 'b=tuned-adm profile virtual-host'
  vmentry ab --restore                          after kill -9")]
pub struct AbArgs {
    /// The policies to compare, A first
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_value = "soft,hard", value_parser = policies(), hide_possible_values = true)]
    pub policies: Vec<Policy>,
    /// A setting and its value, or a name and the command that switches; twice, A first; see below
    #[arg(long, value_name = "SETTING=VALUE|NAME=COMMAND", value_parser = arm, conflicts_with = "policies")]
    pub arm: Vec<Arm>,
    /// Command that restores what --arm's commands switch, on every way out [default: A's]. Alone, without a command: restore what a
    /// killed 'vmentry ab' left behind, and do nothing else
    #[arg(long, value_name = "COMMAND", num_args = 0..=1)]
    pub restore: Option<Option<String>>,
    /// Length of a window
    #[arg(long, value_name = "D", value_parser = duration, default_value = "5s")]
    pub window: Duration,
    /// Rounds of four windows; with --until decided at most [default: 12; 60 with --until decided]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: Option<u32>,
    /// Stop as soon as every primary figure is decided ("decided"), or after a time such as 10m, or after N rounds; the verdicts hold
    /// whenever it stops
    #[arg(long, value_name = "decided|TIME|N", value_parser = until)]
    pub until: Option<Until>,
    /// Figures that are tested first, in this order, each at the full level [default for policies: pin_writes.mean, transition_ns.p50,
    /// entry_to_exit_ns.p50, early and spurious timer exits]
    #[arg(long, value_name = "FIGURE.STATISTIC,..", value_delimiter = ',', value_parser = statistic)]
    pub primary: Vec<String>,
    /// Say before the start how small a change the rounds can find, from the spread in this recording of the same load
    #[arg(long, value_name = "FILE")]
    pub like: Option<PathBuf>,
    /// Call no change of less than N % better or worse, and a figure decided whose whole interval is within it
    #[arg(long, value_name = "N%", value_parser = share, default_value = "0%")]
    pub ignore_below: f64,
    /// Time left out before the first window
    #[arg(long, value_name = "D", value_parser = duration, default_value = "2s")]
    pub warmup: Duration,
    /// Time left out after each switch
    #[arg(long, value_name = "D", value_parser = duration, default_value = "500ms")]
    pub washout: Duration,
    /// Seed of the order of windows [default: from the clock, and printed]
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,
    /// File to record into
    #[arg(short, long, value_name = "FILE", default_value = "vmentry-ab.hlog")]
    pub output: PathBuf,
    /// Replace FILE if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// Name of the recording, shown in reports
    #[arg(long, value_name = "L")]
    pub label: Option<String>,
    /// How to print the comparison: text, json, html or markdown
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    format: ComparisonFormat,
    /// JSON in fewer letters
    #[command(flatten)]
    json: Json,
    /// Only record; 'vmentry compare' can do the statistics later, on any machine
    #[arg(long, conflicts_with = "format")]
    pub no_compare: bool,
    /// VMs and vCPUs to trace
    #[command(flatten)]
    pub targets: Targets,
    /// Size of each CPU's ring in KiB, a power of two; an entry takes 96 bytes
    #[arg(long, value_name = "KIB", default_value_t = DEFAULT_RING_BYTES / 1024, value_parser = ring_kib)]
    pub ring_kib: u32,
    /// Keep COMMAND's arguments in the recording, too
    #[arg(long, requires = "command")]
    pub full_command: bool,
    /// Run COMMAND as this user, by name or number
    #[arg(long, value_name = "USER", requires = "command")]
    pub user: Option<String>,
    /// Run this command and stop when it ends
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

impl AbArgs {
    /// How to print the comparison.
    pub(crate) fn format(&self) -> ComparisonFormat {
        self.json.or(ComparisonFormat::Json, self.format)
    }
}

/// Arguments of `compare`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmentry compare vmentry-ab.hlog                 an experiment of 'vmentry ab'
  vmentry compare soft.hlog hard.hlog             A, then B
  vmentry compare a1.hlog a2.hlog --with b1.hlog b2.hlog
  vmentry compare a.hlog b.hlog --method          every figure and the method
  vmentry compare a.hlog b.hlog --fail-if 'entry_to_exit_ns.p99>+3%'

Exit codes with --fail-if: 0 no condition holds; 3 one holds, significantly;
4 inconclusive: record longer. Both come before the 1 of --skip-damaged.")]
pub struct CompareArgs {
    /// Recordings: those of 'vmentry ab', or A and B, or those of A before --with
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Recordings of B
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub with: Vec<PathBuf>,
    /// Keep only entries with these values, e.g. reason=CPUID,HLT [repeatable]
    #[arg(long, value_name = "DIM=VALUE,..")]
    pub filter: Vec<Filter>,
    /// Fail if B is that much above (>) or below (<) A: FIGURE.STATISTIC>+N%, or >+N with ns, us, ms, or pp of
    /// a share, for a difference [repeatable]
    #[arg(long, value_name = "CONDITION")]
    pub fail_if: Vec<Condition>,
    /// Call no change of less than N % better or worse
    #[arg(long, value_name = "N%", value_parser = share, default_value = "0%")]
    pub ignore_below: f64,
    /// Print every figure with its MDE and A/A noise, the exit mixes, distributions, checks and the method (HTML and JSON have them
    /// anyway)
    #[arg(long)]
    pub method: bool,
    /// Leave out the intervals of damaged lines, say so first, and end with exit code 1
    #[arg(long)]
    pub skip_damaged: bool,
    /// Keep at most N histogram buckets in memory, 16 bytes each; recordings that have more are refused
    #[arg(long, value_name = "N", default_value_t, value_parser = max_buckets())]
    pub max_buckets: MaxBuckets,
    /// Seed of the statistics
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// How to print: text, json (fields: 'vmentry help formats'), html, or markdown for mails and pull requests
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    format: ComparisonFormat,
    /// JSON in fewer letters
    #[command(flatten)]
    json: Json,
}

impl CompareArgs {
    /// How to print the comparison.
    pub(crate) fn format(&self) -> ComparisonFormat {
        self.json.or(ComparisonFormat::Json, self.format)
    }
}

/// Arguments of `merge`.
#[derive(Debug, Args)]
#[command(after_help = "\
A report on the result equals a report on the recordings; hosts stay apart.

Examples:
  vmentry merge -o fleet.hlog host1.hlog host2.hlog host3.hlog
  vmentry report fleet.hlog --by host,reason
  vmentry report fleet.hlog --filter host=host2")]
pub struct MergeArgs {
    /// Recordings, or merges
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// File to write; '-' for standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the file to write if it exists
    #[arg(long)]
    pub overwrite: bool,
    /// Leave out the intervals of damaged lines, say so first, and end with exit code 1
    #[arg(long)]
    pub skip_damaged: bool,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmentry export                          http://127.0.0.1:9753/metrics
  vmentry export --listen 10.0.0.7:9753   for a Prometheus elsewhere
  vmentry export --textfile /var/lib/node_exporter/vmentry.prom --interval 15s
  vmentry export --replay a.hlog          what was recorded, on any machine
  curl -s localhost:9753/metrics | grep spurious

There is no encryption and no password: beyond 127.0.0.1, restrict access by a
firewall or a proxy. Sockets that systemd hands over replace the default.")]
pub struct ExportArgs {
    /// Where to serve metrics: IP:PORT (0 takes a free one) or unix:PATH (mode 0660) [repeatable; default: 127.0.0.1:9753, or
    /// nothing with --textfile]
    #[arg(long, value_name = "ADDRESS", value_parser = OsStringValueParser::new().try_map(|text| Address::parse(&text)))]
    pub listen: Vec<Address>,
    /// Answer requests whose Host header has this name. Loopback addresses answer to IP addresses, localhost and this host's name;
    /// others to every name unless this is given [repeatable]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub allow_host: Vec<String>,
    /// Write metrics here every interval, for node_exporter's textfile collector
    #[arg(long, value_name = "PATH")]
    pub textfile: Option<PathBuf>,
    /// Labels that identify VMs: name, uid (not in recordings), manager, uuid, namespace, vmi, pod_uid, sandbox, instance, vmid, jail,
    /// those of --vm-label-rules; pid and ordinal create new series at every start
    #[arg(long, value_name = "LABEL,..", value_delimiter = ',', default_value = "name", add = ArgValueCandidates::new(vm_labels))]
    pub vm_labels: Vec<String>,
    /// Further labels of VMs
    #[command(flatten)]
    pub rules: LabelRulesFile,
    /// Histograms, at most, each of some 30 series; the rest counts as vm="other"
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_series: u32,
    /// How often metrics are updated
    #[arg(long, value_name = "D", value_parser = duration, default_value = "1s")]
    pub interval: Duration,
    /// Serve a whole recording instead of tracing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vm", "pid", "vcpu", "detail"])]
    pub replay: Option<PathBuf>,
    /// Leave out the intervals of damaged lines, say so first, and end with exit code 1
    #[arg(long, requires = "replay")]
    pub skip_damaged: bool,
    /// Replay at the speed of the recording; the sum stays at the end
    #[arg(long, requires = "replay")]
    pub paced: bool,
    /// What is told about exits
    #[command(flatten)]
    pub details: Details,
    /// VMs and vCPUs to trace
    #[command(flatten)]
    pub targets: Targets,
    /// Print the table of metrics as JSON
    #[arg(long)]
    pub list_metrics: bool,
}

/// Arguments of `policy`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmentry policy                                which policy is in force?
  vmentry policy hard                           set it, until it is set again
  vmentry policy hard -- vmentry record -o hard.hlog --duration 30s
                                                set it for that time only")]
pub struct PolicyArgs {
    /// soft: a disabled timer keeps running, loaded with the longest timer delay; hard: its bit in the pin controls is toggled
    #[arg(value_name = "soft|hard", value_parser = policies(), hide_possible_values = true)]
    pub policy: Option<Policy>,
    /// Run COMMAND as this user, by name or number
    #[arg(long, value_name = "USER", requires = "command")]
    pub user: Option<String>,
    /// Run this command under the policy, then restore the previous one: also after errors and signals, not after kill -9
    #[arg(last = true, value_name = "COMMAND", requires = "policy")]
    pub command: Vec<OsString>,
}

/// Arguments of `calibrate`.
#[derive(Debug, Args)]
#[command(after_help = "\
The guest is built in; running VMs are not traced. With the companion patch,
both timer policies are measured alternately, and the previous policy is
restored on every way out (not after kill -9: 'vmentry check' says so).

Examples:
  vmentry calibrate                        every exit
  vmentry calibrate --cpu 5 --samples 100000
  vmentry calibrate --exit cpuid,hlt --format json | jq .exits")]
pub struct CalibrateArgs {
    /// CPU to pin the guest to [default: the last allowed CPU]
    #[arg(long, value_name = "N")]
    pub cpu: Option<u32>,
    /// Samples of each exit: so many traced, and so many untraced
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(20..=1_000_000))]
    pub samples: u64,
    /// Only these exits: cpuid, vmcall, out, msr, hlt, tsc-deadline, immediate
    #[arg(long, value_name = "EXIT,..", value_delimiter = ',', hide_possible_values = true)]
    pub exit: Vec<Exit>,
    /// Loop instructions that the guest executes between its two stamps
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub work: u32,
    /// How to print: text, or json (fields: 'vmentry help formats')
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    format: Format,
    /// JSON in fewer letters
    #[command(flatten)]
    json: Json,
}

impl CalibrateArgs {
    /// How to print.
    pub(crate) fn format(&self) -> Format {
        self.json.or(Format::Json, self.format)
    }
}

/// Arguments of `survey`.
#[derive(Debug, Args)]
#[command(after_help = "\
It runs check, exercise early, check --overhead, calibrate, and, if VMs run,
record for 30 s. Parts that this host cannot have are n/a, with the reason.
No names of VMs, users or hosts are written: 'vmentry help hosts'.

Examples:
  sudo vmentry survey -o host.html      writes host.html and host.json
  vmentry survey --check host.json      the host's row of that page's table")]
pub struct SurveyArgs {
    /// Page to write; the JSON is written beside it, with the suffix .json
    #[arg(short, long, value_name = "FILE.html", required_unless_present = "check")]
    pub output: Option<PathBuf>,
    /// Replace the files if they exist
    #[arg(long, conflicts_with = "check")]
    pub overwrite: bool,
    /// Check a survey instead, and print its row of the table in 'vmentry help hosts'
    #[arg(long, value_name = "FILE.json", conflicts_with = "output")]
    pub check: Option<PathBuf>,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
The deb and the rpm have them installed. Otherwise, for this user:
  vmentry completions bash > ~/.local/share/bash-completion/completions/vmentry
  vmentry completions zsh > ~/.zfunc/_vmentry       a folder in fpath
  vmentry completions fish > ~/.config/fish/completions/vmentry.fish")]
pub struct CompletionsArgs {
    /// bash, zsh or fish
    #[arg(value_name = "SHELL", value_parser = shells(), hide_possible_values = true)]
    pub shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Folder to write to
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Replace pages that are there
    #[arg(long)]
    pub overwrite: bool,
}

/// Largest ring of a CPU in KiB; where those of all CPUs do not fit, they are made smaller.
const MAX_RING_KIB: u32 = 1 << 19;

/// Arguments of `exercise`.
#[derive(Debug, Args)]
pub struct ExerciseArgs {
    /// Scenario that the guest runs
    #[arg(value_name = "SCENARIO", value_parser = works())]
    pub work: Work,
    /// Repetitions by each vCPU [default: 100; 3 for early]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// Number of vCPUs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_VCPUS.into()))]
    pub vcpus: u32,
    /// TSC cycles to a timer's deadline, or iterations of the loops of spin and pause [default: by scenario, and further ahead where exits take long]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub delta: Option<u32>,
    /// For early: TSC cycles after which the CPU's timer begins anew [default: 2^32 ticks of the crystal clock, by CPUID.15H]
    #[arg(long, value_name = "CYCLES", hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// How to print the counts: text, or json
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    format: Format,
    /// JSON in fewer letters
    #[command(flatten)]
    json: Json,
}

impl ExerciseArgs {
    /// How to print.
    pub(crate) fn format(&self) -> Format {
        self.json.or(Format::Json, self.format)
    }
}

/// The work of `exercise`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// exits whose number is known
    Scenario(Scenario),
    /// timers that are far ahead, to see whether they fire early
    EarlyTimers,
}

impl Work {
    /// The name of [`Work::EarlyTimers`].
    const EARLY: &'static str = "early";

    fn parse(name: &str) -> Result<Self, String> {
        if name == Self::EARLY { Ok(Self::EarlyTimers) } else { name.parse().map(Self::Scenario) }
    }
}

fn works() -> impl TypedValueParser<Value = Work> {
    let early =
        PossibleValue::new(Work::EARLY).help("see whether far timers fire early (Intel's erratum EMR158, VMX only)");
    let values = Scenario::ALL.map(|s| PossibleValue::new(s.name()).help(s.description())).into_iter().chain([early]);
    PossibleValuesParser::new(values).try_map(|name| Work::parse(&name))
}

/// The VMs that run here, for a shell that completes `--vm`.
fn running_vms() -> Vec<CompletionCandidate> {
    vmm::words(&Roots::default().proc).into_iter().map(CompletionCandidate::new).collect()
}

/// The labels of `--vm-labels`, for a shell.
fn vm_labels() -> Vec<CompletionCandidate> {
    VmLabel::names().map(CompletionCandidate::new).collect()
}

/// The shells whose completions are tested.
fn shells() -> impl TypedValueParser<Value = Shell> {
    PossibleValuesParser::new(["bash", "zsh", "fish"]).try_map(|name| name.parse::<Shell>())
}

/// The policies that can be switched to.
fn policies() -> impl TypedValueParser<Value = Policy> {
    let names = [Policy::Soft, Policy::Hard].map(Policy::name);
    PossibleValuesParser::new(names).try_map(|name| Policy::parse(&name).ok_or("neither soft nor hard"))
}

/// From "decided", "10m" or "20".
fn until(text: &str) -> Result<Until, String> {
    match text {
        "decided" => Ok(Until::Decided),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => match text.parse() {
            Ok(rounds @ 1..=1000) => Ok(Until::Rounds(rounds)),
            _ => Err("rounds: 1 to 1000".into()),
        },
        _ if text.starts_with(|first: char| first.is_ascii_digit()) => duration(text).map(Until::Time),
        _ => Err("write decided, a time such as 10m, or a number of rounds".into()),
    }
}

/// The name of a statistic that a comparison has.
fn statistic(name: &str) -> Result<String, String> {
    let names: Vec<_> = assemble::statistics().into_iter().map(|(name, _)| name).collect();
    if names.iter().any(|known| known == name) {
        return Ok(name.into());
    }
    Err(format!("there is no '{name}': {}there are {}", did_you_mean(name, &names), names.join(", ")))
}

/// From "NAME=COMMAND".
fn arm(text: &str) -> Result<Arm, String> {
    match text.split_once('=').map(|(name, switch)| (name.trim(), switch.trim())) {
        Some((name, switch)) if !name.is_empty() && !switch.is_empty() => {
            let kind = Kind::parse(name, switch)?;
            let name = if kind.is_some() { format!("{name}={switch}") } else { name.into() };
            Ok(Arm { name, switch: switch.into(), kind })
        }
        _ => Err(format!("write NAME=COMMAND, or SETTING=VALUE with {FORMS}")),
    }
}

fn dimensions() -> impl TypedValueParser<Value = Dimension> {
    let names = Dimension::ALL.map(Dimension::name);
    PossibleValuesParser::new(names).try_map(|name| Dimension::parse(&name).ok_or("no dimension"))
}

/// A column by its name; the error suggests one that is written like it.
fn column(name: &str) -> Result<Column, String> {
    Column::parse(name).ok_or_else(|| {
        format!(
            "{}there are time, exits, mean, min, p50, p90, p99, p99.9, max, and FIGURE.STATISTIC such as entry_to_exit_ns.p99; \
             figures are {}",
            did_you_mean(name, Column::names()),
            Figure::ALL.map(Figure::name).join(", ")
        )
    })
}

/// A number of rows; all are as many as there can be.
fn top(text: &str) -> Result<usize, String> {
    match text.parse() {
        _ if text == "all" => Ok(usize::MAX),
        Ok(rows) if rows > 0 => Ok(rows),
        _ => Err("write a number of rows from 1, or all".into()),
    }
}

/// A ring's size in KiB: a power of two of at least a page, whose bytes fit into 32 bits.
fn max_buckets() -> impl TypedValueParser<Value = MaxBuckets> {
    clap::value_parser!(u64).range(1..).map(MaxBuckets)
}

fn ring_kib(text: &str) -> Result<u32, String> {
    let page_kib = u32::try_from(page_size() / 1024).unwrap_or(4);
    let kib: u32 = text.parse().map_err(|_| format!("must be a power of two, e.g. {}", DEFAULT_RING_BYTES / 1024))?;
    if !kib.is_power_of_two() || !(page_kib..=MAX_RING_KIB).contains(&kib) {
        let near = kib.checked_next_power_of_two().unwrap_or(MAX_RING_KIB).clamp(page_kib, MAX_RING_KIB);
        return Err(format!("must be a power of two from {page_kib} (a page) to {MAX_RING_KIB}, e.g. {near}"));
    }
    Ok(kib)
}

/// From "0.5%"; as a share.
fn share(text: &str) -> Result<f64, String> {
    match split_unit(text) {
        Ok((percent, "%")) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("write a percentage from 0% to 100%, such as 0.5%".into()),
    }
}

/// From "500ms", "30s", "1h30m"; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let seconds = duration_ns(text)? / 1e9;
    if !(0.01..=1e9).contains(&seconds) {
        return Err("must be between 10ms and 30 years".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_ring_is_a_power_of_two_of_at_least_a_page() {
        assert_eq!((ring_kib("4"), ring_kib("524288")), (Ok(4), Ok(524_288)));
        for (bad, near) in
            [("3", "e.g. 4"), ("5", "e.g. 8"), ("0", "e.g. 4"), ("1048576", "e.g. 524288"), ("-1", "power")]
        {
            let error = ring_kib(bad).unwrap_err();
            assert!(error.contains(near), "{bad}: {error}");
        }
    }

    #[test]
    fn a_share_is_a_percentage() {
        assert_eq!((share("0.5%"), share("0 %"), share("100%")), (Ok(0.005), Ok(0.0), Ok(1.0)));
        for bad in ["", "0.5", "-1%", "101%", "nan%", "5ms"] {
            assert!(share(bad).unwrap_err().contains("such as 0.5%"), "{bad}");
        }
    }

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        for bad in ["", "s", "5d", "-1s", "0", "1e99", "nan"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
