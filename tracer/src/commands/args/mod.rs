//! The command line: types only, a file for each command.

use clap::{CommandFactory, Parser, Subcommand};

mod ab;
mod calibrate;
pub(super) mod candidates;
mod check;
mod compare;
mod completions;
mod document_file;
mod exercise;
mod export;
mod format;
mod help;
mod live;
mod merge;
mod moment;
mod policy;
mod record;
mod report;
mod run_command;
mod survey;
mod targets;
mod value;

pub use ab::{AbArgs, Arm, Until};
pub use calibrate::CalibrateArgs;
pub use check::CheckArgs;
pub use compare::CompareArgs;
pub use completions::{CompletionsArgs, ManArgs};
pub use document_file::DocumentFile;
pub use exercise::{ExerciseArgs, Work};
pub use export::ExportArgs;
pub use format::{ComparisonFormat, Format, LinesFormat, ReportFormat};
pub use help::HelpArgs;
pub use live::LiveArgs;
pub use merge::MergeArgs;
pub use moment::Moment;
pub use policy::PolicyArgs;
pub use record::RecordArgs;
pub use report::ReportArgs;
pub use run_command::RunCommand;
pub use survey::SurveyArgs;
pub use targets::{DetailKind, Details, LabelRulesFile, Targets, VmLabelNames};
pub use value::RingKib;

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

/// The names of the commands.
pub(crate) fn commands() -> Vec<String> {
    let command = Cli::command();
    command.get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

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
    Man(ManArgs),
    /// Print the help of a command, or a page of the manual
    Help(HelpArgs),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
