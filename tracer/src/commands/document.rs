//! The file that a command writes its finished document to, for `report -o` and `compare -o`.

use std::{io::Write, path::Path};

use anyhow::{Context, Result};

use crate::{
    commands::args::DocumentFile,
    output::{self, WholeFile},
    say,
};

/// Creates the file of `-o`, before any work; none for standard output.
pub(crate) fn create(to: &DocumentFile) -> Result<Option<WholeFile>> {
    let path = to.output.as_deref().filter(|path| *path != Path::new("-"));
    path.map(|path| WholeFile::create(path, to.overwrite)).transpose()
}

/// Writes the document into the file of this name, which then takes its place.
pub(crate) fn write(mut file: WholeFile, text: &str, to: &DocumentFile) -> Result<()> {
    let name = to.output.as_deref().map(output::shown).unwrap_or_default();
    let written = file.write_all(text.as_bytes()).and_then(|()| file.take_place());
    written.with_context(|| format!("write {name}"))?;
    say!("wrote {name}");
    Ok(())
}
