//! The command line of `survey`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

/// Arguments of `survey`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("task").args(["output", "check"]).required(true),
    override_usage = "vmentry survey -o FILE.html | --check FILE.json",
    after_help = "\
It runs check, exercise early, check --overhead, calibrate, and, if VMs run,
record for 30 s. Parts that this host cannot have are n/a, with the reason.
No names of VMs, users or hosts are written: 'vmentry help hosts'.

Examples:
  sudo vmentry survey -o host.html      writes host.html and host.json
  vmentry survey --check host.json      the host's row of that page's table"
)]
pub struct SurveyArgs {
    /// Page to write; the JSON is written beside it, with the suffix .json
    #[arg(short, long, value_name = "FILE.html")]
    pub output: Option<PathBuf>,
    /// Replace the files if they exist
    #[arg(long, conflicts_with = "check")]
    pub overwrite: bool,
    /// Check a survey instead ('-' for standard input), and print its row of the table in 'vmentry help hosts'
    #[arg(long, value_name = "FILE.json")]
    pub check: Option<PathBuf>,
}
