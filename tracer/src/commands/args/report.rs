//! The command line of `report`.

use std::path::PathBuf;

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::{
    model::{
        figures::{Column, Figure, figure_meant},
        suggestion::did_you_mean,
    },
    recording::MaxBuckets,
    report::{Dimension, Filter, text::ColumnSet},
};

use super::{
    DEFAULT_RECORDING,
    candidates::{columns, filters, recordings},
    document_file::DocumentFile,
    format::{Json, ReportFormat, chosen},
    moment::{Moment, moment},
    targets::VmLabelNames,
    value::max_buckets,
};

/// Arguments of `report`.
#[derive(Debug, Args)]
#[command(after_help = "\
Dimensions: host, vm, vcpu, level (L1, L2), reason, entry (clean, dirty), cause
(of timer exits), detail (MSR, port, ... of record --detail; with its reason).
A filter takes exit reasons by name or number, and '-' for what is not known.

Examples:
  vmentry report a.hlog b.hlog                   several recordings as one
  vmentry report a.hlog --by vm,vcpu,reason --top 10
  vmentry report a.hlog --by reason,detail       which MSR, which port?
  vmentry report a.hlog --filter reason=PREEMPTION_TIMER --by cause,entry
  vmentry report a.hlog --since -5m --by vm      the last five minutes
  vmentry report a.hlog -o a.html                a page with charts")]
pub struct ReportArgs {
    /// Recordings; '-' for standard input
    #[arg(value_name = "FILE", default_value = DEFAULT_RECORDING, add = recordings())]
    pub files: Vec<PathBuf>,
    /// How to print: text, html, csv, json or openmetrics [default: by -o's suffix, or text]
    #[arg(long, value_enum, ignore_case = true, hide_possible_values = true)]
    format: Option<ReportFormat>,
    /// JSON in fewer letters
    #[command(flatten)]
    json: Json,
    /// The file to write
    #[command(flatten)]
    pub document: DocumentFile,
    /// Dimensions to group by; JSON has all but detail by default
    #[arg(long, value_name = "DIM,..", value_delimiter = ',', value_parser = dimensions(), hide_possible_values = true)]
    pub by: Vec<Dimension>,
    /// Keep only rows with these values [repeatable]
    #[arg(long, value_name = "DIM=VALUE,..", add = filters())]
    pub filter: Vec<Filter>,
    /// Column to sort by, highest first: time (the sum of host times), exits, mean, p99 and such of host time, or guest.p99
    #[arg(long, value_name = "COLUMN", default_value = "time", value_parser = column, add = columns())]
    pub sort: Column,
    /// Columns of the text: time, phases (of host time), latency (percentiles), timer (pin writes, timer exits), or all
    #[arg(long, value_enum, ignore_case = true, value_name = "SET", hide_possible_values = true)]
    pub columns: Option<ColumnSet>,
    /// Only intervals that begin from TIME on: 90s, -30s before the end, 14:03:05 (UTC), or with a date
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with = "claims", value_parser = moment)]
    pub since: Option<Moment>,
    /// Only intervals that begin before TIME
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with = "claims", value_parser = moment)]
    pub until: Option<Moment>,
    /// Labels of VMs, for openmetrics
    #[command(flatten)]
    pub labels: VmLabelNames,
    /// Check the claims of commit 804939ea20 on them
    #[arg(long, conflicts_with_all = ["by", "filter", "sort", "top", "columns"])]
    pub claims: bool,
    /// Show N rows, or all; by default, text sums rows below 0.1 %, and shows 20 on a terminal
    #[arg(long, value_name = "N|all", value_parser = top)]
    pub top: Option<usize>,
    /// Use no pager on a terminal ($PAGER, or less)
    #[arg(long)]
    pub no_pager: bool,
    /// Leave out the intervals of damaged lines, say so first, and end with exit code 1
    #[arg(long)]
    pub skip_damaged: bool,
    /// Refuse more than N histogram buckets in memory, 8 bytes each
    #[arg(long, value_name = "N", default_value_t, value_parser = max_buckets())]
    pub max_buckets: MaxBuckets,
}

impl ReportArgs {
    /// How to print: as asked, else by the suffix of the file to write; fails where the suffix says nothing.
    pub(crate) fn format(&self) -> Result<ReportFormat, String> {
        chosen(self.json.or(Some(ReportFormat::Json), self.format), self.document.output.as_deref())
    }
}

/// The dimensions by their names.
fn dimensions() -> impl TypedValueParser<Value = Dimension> {
    let names = Dimension::ALL.map(Dimension::name);
    PossibleValuesParser::new(names).try_map(|name| Dimension::parse(&name).ok_or("no dimension"))
}

/// A column by its name; the error suggests one that is written like it.
fn column(name: &str) -> Result<Column, String> {
    Column::parse(name).ok_or_else(|| {
        format!(
            "{}there are time, exits, mean, min, p50, p90, p99, p99.9, max, and FIGURE.STATISTIC such as entry_to_exit_ns.p99; \
             figures are {}",
            figure_meant(name, &Column::names()),
            Figure::ALL.map(Figure::name).join(", ")
        )
    })
}

/// A number of rows; all are as many as there can be.
fn top(text: &str) -> Result<usize, String> {
    match text.parse() {
        _ if text == "all" => Ok(usize::MAX),
        Ok(rows) if rows > 0 => Ok(rows),
        _ => Err(format!("{}write a number of rows from 1, or all", did_you_mean(text, ["all"]))),
    }
}
