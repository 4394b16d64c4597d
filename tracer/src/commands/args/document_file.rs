//! The file that a finished document is written to.

use std::path::PathBuf;

use clap::Args;

/// A file for the document instead of standard output.
#[derive(Debug, Default, Args)]
pub struct DocumentFile {
    /// File to write, in the format of its suffix
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file to write if it exists
    #[arg(long, requires = "output")]
    pub overwrite: bool,
}
