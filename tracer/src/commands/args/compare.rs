//! The command line of `compare`.

use std::path::PathBuf;

use clap::Args;

use crate::{compare::condition::Condition, recording::MaxBuckets, report::Filter};

use super::{
    candidates::{conditions, filters, recordings},
    document_file::DocumentFile,
    format::{ComparisonFormat, Json, chosen},
    value::{max_buckets, share},
};

/// Arguments of `compare`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmentry compare vmentry-ab.hlog                 an experiment of 'vmentry ab'
  vmentry compare soft.hlog hard.hlog             A, then B
  vmentry compare a1.hlog a2.hlog --with b1.hlog b2.hlog
  vmentry compare a.hlog b.hlog --method          every figure and the method
  vmentry compare a.hlog b.hlog -o ab.html        a page with charts
  vmentry compare a.hlog b.hlog --fail-if 'entry_to_exit_ns.p99>+3%'

Exit codes with --fail-if: 0 no condition holds; 3 one holds, significantly;
4 inconclusive: record longer. Both come before the 1 of --skip-damaged.")]
pub struct CompareArgs {
    /// Recordings: those of 'vmentry ab', or A and B, or those of A before --with
    #[arg(required = true, value_name = "FILE", add = recordings())]
    pub files: Vec<PathBuf>,
    /// Recordings of B
    #[arg(long, value_name = "FILE", num_args = 1.., add = recordings())]
    pub with: Vec<PathBuf>,
    /// Keep only entries with these values, e.g. reason=CPUID,HLT [repeatable]
    #[arg(long, value_name = "DIM=VALUE,..", add = filters())]
    pub filter: Vec<Filter>,
    /// Fail if B is that much above (>) or below (<) A: FIGURE.STATISTIC>+N%, or >+N with ns, us, ms, or pp of
    /// a share, for a difference [repeatable]
    #[arg(long, value_name = "CONDITION", add = conditions())]
    pub fail_if: Vec<Condition>,
    /// Call no change of less than N % better or worse
    #[arg(long, value_name = "N%", value_parser = share, default_value = "0%")]
    pub ignore_below: f64,
    /// Print every figure with its MDE and A/A noise, the exit mixes, distributions, checks and the method (HTML and JSON have them
    /// anyway)
    #[arg(long)]
    pub method: bool,
    /// Leave out the intervals of damaged lines, say so first, and end with exit code 1
    #[arg(long)]
    pub skip_damaged: bool,
    /// Refuse more than N histogram buckets in memory, 8 bytes each
    #[arg(long, value_name = "N", default_value_t, value_parser = max_buckets())]
    pub max_buckets: MaxBuckets,
    /// Seed of the statistics
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// How to print: text (*.txt), json (fields: 'vmentry help formats'), html, or markdown (*.md) for mails and pull requests
    /// [default: by -o's suffix, or text]
    #[arg(long, value_enum, ignore_case = true, hide_possible_values = true)]
    format: Option<ComparisonFormat>,
    /// JSON in fewer letters
    #[command(flatten)]
    json: Json,
    /// The file to write
    #[command(flatten)]
    pub document: DocumentFile,
}

impl CompareArgs {
    /// How to print: as asked, else by the suffix of the file to write.
    pub(crate) fn format(&self) -> Result<ComparisonFormat, String> {
        chosen(self.json.or(Some(ComparisonFormat::Json), self.format), self.document.output.as_deref())
    }
}
