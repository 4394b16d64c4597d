//! The command line of `ab`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use crate::{
    compare::assemble,
    host::setting::{FORMS, Kind},
    model::{policy::Policy, suggestion::did_you_mean},
};

use super::{
    candidates::{ends, figures, recordings, settings},
    format::{ComparisonFormat, Json},
    run_command::RunCommand,
    targets::Targets,
    value::{RingKib, duration, policies, ring_kib, share},
};

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
    #[arg(long, value_name = "SETTING=VALUE|NAME=COMMAND", value_parser = arm, conflicts_with = "policies", add = settings())]
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
    #[arg(long, value_name = "decided|TIME|N", value_parser = until, add = ends())]
    pub until: Option<Until>,
    /// Figures that are tested first, in this order, each at the full level [default for policies: pin_writes.mean, transition_ns.p50,
    /// entry_to_exit_ns.p50, early and spurious timer exits]
    #[arg(long, value_name = "FIGURE.STATISTIC,..", value_delimiter = ',', value_parser = statistic, add = figures())]
    pub primary: Vec<String>,
    /// Say before the start how small a change the rounds can find, from the spread in this recording of the same load
    #[arg(long, value_name = "FILE", add = recordings())]
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
    #[arg(long, value_enum, ignore_case = true, default_value_t, hide_possible_values = true)]
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
    /// Size of each CPU's ring in KiB, a power of two; auto: 1024, less beyond 256 CPUs
    #[arg(long, value_name = "KIB", default_value = "auto", value_parser = ring_kib)]
    pub ring_kib: RingKib,
    /// A command to run meanwhile
    #[command(flatten)]
    pub run: RunCommand,
}

impl AbArgs {
    /// How to print the comparison.
    pub(crate) fn format(&self) -> ComparisonFormat {
        self.json.or(ComparisonFormat::Json, self.format)
    }
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

/// From "decided", "10m" or "20".
fn until(text: &str) -> Result<Until, String> {
    match text {
        "decided" => Ok(Until::Decided),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => match text.parse() {
            Ok(rounds @ 1..=1000) => Ok(Until::Rounds(rounds)),
            _ => Err("rounds: 1 to 1000".into()),
        },
        _ if text.starts_with(|first: char| first.is_ascii_digit()) => duration(text).map(Until::Time),
        _ => {
            let meant = did_you_mean(text, ["decided"]);
            Err(format!("{meant}write decided, a time such as 10m, or a number of rounds"))
        }
    }
}

/// The name of a statistic that a comparison has.
fn statistic(name: &str) -> Result<String, String> {
    assemble::named(name).map(|(name, _)| name)
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
