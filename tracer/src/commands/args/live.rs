//! The command line of `live`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::{
    candidates::recordings,
    format::LinesFormat,
    moment::{Moment, moment},
    targets::{Details, Targets},
    value::{at_least_one, duration},
};

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
    #[arg(value_name = "FILE", add = recordings(), conflicts_with_all = ["vm", "pid", "vcpu", "detail"])]
    pub file: Option<PathBuf>,
    /// What stood before FILE when it was an option; scripts have it
    #[arg(long, hide = true, requires = "file")]
    replay: bool,
    /// Leave out the intervals of damaged lines, say so first, and end with exit code 1
    #[arg(long, requires = "file")]
    pub skip_damaged: bool,
    /// Play from here on: 90s after the beginning, -30s before the end, or 14:03:05 (UTC)
    #[arg(long, value_name = "TIME", requires = "file", allow_hyphen_values = true, value_parser = moment)]
    pub at: Option<Moment>,
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
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>)]
    pub count: Option<u64>,
    /// Print a line per D [default: 1s; of a recording, each interval]
    #[arg(long, value_name = "D", value_parser = duration)]
    pub interval: Option<Duration>,
    /// Print lines in this format [default: text]
    #[arg(long, value_name = "FORMAT", ignore_case = true)]
    format: Option<LinesFormat>,
    /// The same as --format jsonl
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// VMs and vCPUs to trace
    #[command(flatten)]
    pub targets: Targets,
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
