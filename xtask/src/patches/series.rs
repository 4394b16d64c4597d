//! The kernel series that have patches: one table, and the patch files of each.

use crate::build;
use crate::lab::Kernel;
use crate::patches::Flavour;
use crate::process::output;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel series that has patches, in `patches/linux-NAME`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Series {
    /// Name, as in Debian's package names: `6.12`.
    pub(crate) name: &'static str,
    /// Version of Debian's source that the patches are made for: `6.12.117-1~deb12u1`.
    pub(crate) version: &'static str,
    /// Whether the first patch caps the timer's values. From 7.3 on the kernel does it itself (0aaedada606a).
    pub(crate) caps: bool,
    /// The reason why Debian's packages do not suffice for a build; none if they do.
    pub(crate) no_build: Option<&'static str>,
    /// Whether the short test builds and boots it; if not, only the whole test does.
    pub(crate) in_short_test: bool,
}

/// Every series, from old to new. patches/README.md has the same rows.
pub(crate) const ALL: [Series; 5] = [
    Series { name: "6.1", version: "6.1.192-2", caps: true, no_build: None, in_short_test: true },
    Series { name: "6.12", version: "6.12.117-1~deb12u1", caps: true, no_build: None, in_short_test: true },
    Series {
        name: "6.18",
        version: "6.18.15-1~bpo13+1",
        caps: true,
        no_build: Some("Debian has withdrawn linux-source-6.18 and its headers; only upstream's tarball is left"),
        in_short_test: false,
    },
    Series { name: "7.2", version: "7.2.12-1~bpo13+1", caps: true, no_build: None, in_short_test: false },
    Series { name: "7.3", version: "7.3.4-1~bpo13+1", caps: false, no_build: None, in_short_test: true },
];

impl Series {
    /// The series as the lab names it.
    pub(crate) fn kernel(&self) -> Result<Kernel> {
        self.name.parse().map_err(anyhow::Error::msg)
    }
}

/// Returns the series of this name. The error lists those that have patches.
pub(crate) fn named(name: &str) -> Result<&'static Series> {
    let found = ALL.iter().find(|series| series.name == name);
    found.with_context(|| format!("find patches for Linux {name}: there are some for {}", names()))
}

/// Returns the names of all series, for messages.
pub(crate) fn names() -> String {
    ALL.iter().map(|series| series.name).collect::<Vec<_>>().join(", ")
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
        for series in &ALL {
            series.kernel().unwrap();
            let companion = files(series.name, Flavour::Companion).unwrap();
            for flavour in [Flavour::Stopwatch, Flavour::TestOnly] {
                let more = files(series.name, flavour).unwrap();
                assert!(more.len() > companion.len() && more.starts_with(&companion));
            }
            assert!(files(series.name, Flavour::Unpatched).unwrap().is_empty());
            assert_eq!(companion.len(), 3 + usize::from(series.caps), "{}", series.name);
            assert_eq!(name(&companion[0]).contains("cap-the-VMX-preemption"), series.caps, "{}", series.name);
        }
        assert_eq!(named("6.12").unwrap().version, ALL[1].version);
        let error = format!("{:#}", named("5.10").unwrap_err());
        assert!(error.contains("5.10") && error.contains("6.1, 6.12, "), "{error}");
    }

    #[test]
    fn the_readme_and_the_folders_have_the_series_of_the_table() {
        let readme = fs::read_to_string(folder().join("README.md")).unwrap();
        for Series { name, version, .. } in &ALL {
            assert!(readme.contains(&format!("| `linux-{name}` | {version} |")), "{name} {version}");
        }
        for parent in ["", "stopwatch", "test-only"] {
            let entries = fs::read_dir(folder().join(parent)).unwrap();
            let names = entries.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
            let mut series: Vec<_> = names.filter_map(|name| name.strip_prefix("linux-").map(str::to_owned)).collect();
            series.sort_by_key(|name| name.parse::<Kernel>().unwrap());
            assert_eq!(series, ALL.each_ref().map(|series| series.name), "patches/{parent}");
        }
    }

    #[test]
    fn patches_are_numbered_and_have_no_placeholder() {
        for parent in ["", "stopwatch", "test-only"] {
            for series in &ALL {
                let files = in_order(&folder().join(parent).join(format!("linux-{}", series.name))).unwrap();
                for (at, file) in files.iter().enumerate() {
                    let text = fs::read_to_string(file).unwrap();
                    let number = match files.len() {
                        1 => String::new(),
                        all => format!(" {}/{all}", at + 1),
                    };
                    assert!(text.contains(&format!("\nSubject: [PATCH{number}] KVM: VMX: ")), "{}", file.display());
                    assert!(name(file).starts_with(&format!("{:04}-", at + 1)), "{}", file.display());
                    assert!(!text.contains("TEXT"), "{}", file.display());
                }
            }
        }
    }
}
