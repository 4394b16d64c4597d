//! Lists the patches of a flavour in order, and applies them.

use crate::build;
use crate::patches::Flavour;
use crate::process::output;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns the kernel series that have patches.
pub(crate) fn known() -> Result<Vec<String>> {
    let folder = folder();
    let entries = fs::read_dir(&folder).with_context(|| format!("read folder {}", folder.display()))?;
    let mut series: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("linux-").map(str::to_owned))
        .collect();
    series.sort();
    Ok(series)
}

/// Returns the patch files of a flavour for a kernel series, in order.
pub(crate) fn files(series: &str, flavour: Flavour) -> Result<Vec<PathBuf>> {
    let companion = folder().join(format!("linux-{series}"));
    let and_more = |flavour: &str| {
        let more = folder().join(flavour).join(format!("linux-{series}"));
        anyhow::Ok([in_order(&companion)?, in_order(&more)?].concat())
    };
    match flavour {
        Flavour::Unpatched => Ok(Vec::new()),
        Flavour::Companion => in_order(&companion),
        Flavour::Stopwatch | Flavour::TestOnly => and_more(flavour.name()),
    }
}

/// Applies a patch to a source tree without fuzz. Returns patch's messages about hunks that have moved: none if the
/// patch was made for this source.
pub(crate) fn apply(file: &Path, tree: &Path) -> Result<Vec<String>> {
    let mut patch = Command::new("patch");
    patch.args(["--batch", "--forward", "--strip=1", "--fuzz=0", "--no-backup-if-mismatch"]);
    patch.arg("--directory").arg(tree).arg("--input").arg(file);
    let messages = output(&mut patch).with_context(|| format!("apply {}", name(file)))?;
    Ok(moved(&messages))
}

/// Returns a patch's file name.
pub(crate) fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn folder() -> PathBuf {
    build::root().join("patches")
}

fn in_order(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read folder {}", folder.display()))?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "patch"))
        .collect();
    ensure!(!files.is_empty(), "find patches in {}: none", folder.display());
    files.sort();
    Ok(files)
}

/// Returns the messages of patch(1) about hunks that it found at other lines.
fn moved(messages: &str) -> Vec<String> {
    messages.lines().filter(|line| !line.starts_with("patching file ")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_applies_at_other_lines_but_never_with_fuzz() {
        let folder = tempfile::tempdir().unwrap();
        let (patch, file) = (folder.path().join("p.patch"), folder.path().join("f"));
        fs::write(&patch, "--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three\n").unwrap();
        let attempt = |content: &str| {
            fs::write(&file, content).unwrap();
            apply(&patch, folder.path()).map(|moved| (fs::read_to_string(&file).unwrap(), moved.len()))
        };
        let results = [attempt("one\ntwo\nthree\n"), attempt("zero\none\ntwo\nthree\n"), attempt("one\ntwo\nTHREE\n")];
        assert_eq!(*results[0].as_ref().unwrap(), ("one\nTWO\nthree\n".to_owned(), 0));
        assert_eq!(*results[1].as_ref().unwrap(), ("zero\none\nTWO\nthree\n".to_owned(), 1));
        assert!(format!("{:#}", results[2].as_ref().unwrap_err()).starts_with("apply p.patch: "));
    }

    #[test]
    fn every_series_has_companion_stopwatch_and_test_patches() {
        assert_eq!(known().unwrap(), ["6.1", "6.12"]);
        for series in known().unwrap() {
            let companion = files(&series, Flavour::Companion).unwrap();
            for flavour in [Flavour::Stopwatch, Flavour::TestOnly] {
                let more = files(&series, flavour).unwrap();
                assert!(more.len() > companion.len() && more.starts_with(&companion));
            }
            assert!(files(&series, Flavour::Unpatched).unwrap().is_empty());
        }
    }
}
