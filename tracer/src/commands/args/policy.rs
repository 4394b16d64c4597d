//! The command line of `policy`.

use std::ffi::OsString;

use clap::Args;

use crate::model::policy::Policy;

use super::{candidates::command, value::policies};

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
    #[arg(last = true, value_name = "COMMAND", add = command(), requires = "policy")]
    pub command: Vec<OsString>,
}
