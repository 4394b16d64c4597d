//! The command after `--` that a command runs while it traces.

use std::ffi::OsString;

use clap::Args;

use super::candidates::command;

/// A command to run, and as whom.
#[derive(Debug, Default, PartialEq, Args)]
pub struct RunCommand {
    /// Keep COMMAND's arguments in the recording, too
    #[arg(long, requires = "command")]
    pub full_command: bool,
    /// Run COMMAND as this user, by name or number
    #[arg(long, value_name = "USER", requires = "command")]
    pub user: Option<String>,
    /// Run this command and stop when it ends
    #[arg(last = true, value_name = "COMMAND", add = command())]
    pub command: Vec<OsString>,
}
