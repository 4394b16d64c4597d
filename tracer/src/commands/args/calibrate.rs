//! The command line of `calibrate`.

use clap::Args;

use crate::calibrate::exits::Exit;

use super::format::{Format, Json};

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
    #[arg(long, value_enum, ignore_case = true, default_value_t, hide_possible_values = true)]
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
