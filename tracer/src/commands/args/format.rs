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

/// A format of a document that can be written into a file.
pub(super) trait Document: ValueEnum + Default + PartialEq + 'static {
    /// Suffixes of files, each with its format; the first of a format is the one to advise.
    const SUFFIXES: &'static [(&'static str, Self)];
}

impl Document for ReportFormat {
    const SUFFIXES: &'static [(&'static str, Self)] = &[
        ("txt", Self::Text),
        ("html", Self::Html),
        ("htm", Self::Html),
        ("csv", Self::Csv),
        ("json", Self::Json),
        ("prom", Self::Openmetrics),
    ];
}

impl Document for ComparisonFormat {
    const SUFFIXES: &'static [(&'static str, Self)] =
        &[("txt", Self::Text), ("html", Self::Html), ("htm", Self::Html), ("json", Self::Json), ("md", Self::Markdown)];
}

/// The format that was asked for, else that of the suffix of the file to write. Fails where the suffix says nothing, or something else.
pub(super) fn chosen<F: Document>(asked: Option<F>, output: Option<&Path>) -> Result<F, String> {
    let Some(path) = output.filter(|path| *path != Path::new("-")) else { return Ok(asked.unwrap_or_default()) };
    let suffix = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let of_suffix = F::SUFFIXES.iter().find(|(known, _)| *known == suffix).map(|(_, format)| format.clone());
    let is_text = |format: &F| *format == F::default();
    match (asked, of_suffix) {
        // Any format may be in a *.txt.
        (Some(asked), Some(other)) if asked != other && !is_text(&other) => {
            let name = asked.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            let right = F::SUFFIXES.iter().find(|(_, format)| *format == asked).map_or("txt", |(suffix, _)| suffix);
            Err(format!(
                "-o {}: {name} is asked for, and the suffix says otherwise: leave the format out, or write -o {}",
                shown(path),
                shown(&path.with_extension(right))
            ))
        }
        (Some(format), _) | (None, Some(format)) => Ok(format),
        (None, None) => {
            let known: Vec<_> = F::SUFFIXES.iter().map(|(suffix, _)| format!(".{suffix}")).collect();
            Err(format!(
                "-o {}: no format has this suffix: use one of {}, or say --format",
                shown(path),
                known.join(", ")
            ))
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
    #[value(alias = "json")]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_names_the_format_and_must_not_contradict_the_one_that_is_asked_for() {
        let report = |asked, file: &str| chosen::<ReportFormat>(asked, Some(Path::new(file)));
        assert_eq!(report(None, "a.HTML"), Ok(ReportFormat::Html));
        assert_eq!(report(Some(ReportFormat::Csv), "a.txt"), Ok(ReportFormat::Csv));
        assert_eq!(report(Some(ReportFormat::Json), "a.log"), Ok(ReportFormat::Json));
        assert_eq!(report(None, "-"), Ok(ReportFormat::Text));
        let error = report(Some(ReportFormat::Json), "y.csv").unwrap_err();
        assert!(error.starts_with("-o y.csv: json is asked for") && error.ends_with("-o y.json"), "{error}");
        let error = report(None, "a.xls").unwrap_err();
        assert!(error.contains(".html") && error.contains("--format"), "{error}");
        assert_eq!(chosen::<ComparisonFormat>(None, Some(Path::new("a.md"))), Ok(ComparisonFormat::Markdown));
        assert!(chosen::<ComparisonFormat>(None, Some(Path::new("a.csv"))).unwrap_err().contains(".md"));
    }
}
