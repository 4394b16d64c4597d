//! How commands print.

use std::path::Path;

use clap::{Args, ValueEnum};

use crate::output::shown;

/// Text for people or JSON for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// for people
    #[default]
    Text,
    /// for programs; 'vmentry help formats' has the fields
    Json,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// for people, in a terminal
    #[default]
    Text,
    /// for programs; 'vmentry help formats' has the fields
    Json,
    /// for people: one self-contained page with charts
    Html,
    /// for spreadsheets: one line per row
    Csv,
    /// for Prometheus: the metrics of 'vmentry export'
    #[value(alias = "prom")]
    Openmetrics,
}

impl ReportFormat {
    /// The format that a file of this name has.
    pub(super) fn of_suffix(path: &Path) -> Result<Self, String> {
        let suffix = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match suffix.as_str() {
            "txt" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "html" | "htm" => Ok(Self::Html),
            "csv" => Ok(Self::Csv),
            "prom" => Ok(Self::Openmetrics),
            _ => Err(format!(
                "-o {}: no format has this suffix: use .txt, .html, .csv, .json or .prom, or say --format",
                shown(path)
            )),
        }
    }
}

/// How a comparison is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ComparisonFormat {
    /// for terminals
    #[default]
    Text,
    /// for programs; 'vmentry help formats' has the fields
    Json,
    /// one self-contained page
    Html,
    /// a table for mails and pull requests
    Markdown,
}

/// How the lines of `live` are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LinesFormat {
    /// for people: columns, with a heading every 20 lines
    #[default]
    Text,
    /// for programs: one JSON object per line; 'vmentry help formats' has the fields
    Jsonl,
}

/// JSON in fewer letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub(super) struct Json {
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub(super) json: bool,
}

impl Json {
    /// The format that was asked for: JSON, or else `other`.
    pub(super) fn or<F>(self, json: F, other: F) -> F {
        if self.json { json } else { other }
    }
}
