//! The command line of `help`.

use clap::Args;

use super::candidates::subjects;

/// Arguments of `help`.
#[derive(Debug, Args)]
pub struct HelpArgs {
    /// A command, or a topic of the manual; both are listed without one
    #[arg(value_name = "COMMAND|TOPIC", add = subjects())]
    pub subject: Option<String>,
}
