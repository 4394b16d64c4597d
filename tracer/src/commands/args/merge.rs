//! The command line of `merge`.

use std::path::PathBuf;

use clap::Args;

use super::candidates::recordings;

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
    #[arg(required = true, value_name = "FILE", add = recordings())]
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
