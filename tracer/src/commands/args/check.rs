//! The command line of `check`.

use clap::Args;

use super::format::{Format, Json};

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
    #[arg(long, value_enum, ignore_case = true, default_value_t, hide_possible_values = true)]
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
