//! The file that a command writes its finished document to, for `report -o` and `compare -o`.

use std::{io::Write, path::Path};

use anyhow::{Context, Result};

use crate::{
    output::{self, WholeFile},
    say,
};

/// Creates the file of `-o`, before any work; none for standard output.
pub(crate) fn create(path: Option<&Path>, overwrite: bool) -> Result<Option<WholeFile>> {
    path.filter(|path| *path != Path::new("-")).map(|path| WholeFile::create(path, overwrite)).transpose()
}

/// Writes the document into the file of this name, which then takes its place.
pub(crate) fn write(mut file: WholeFile, text: &str, path: Option<&Path>) -> Result<()> {
    let name = path.map(output::shown).unwrap_or_default();
    let written = file.write_all(text.as_bytes()).and_then(|()| file.take_place());
    written.with_context(|| format!("write {name}"))?;
    say!("wrote {name}");
    Ok(())
}
