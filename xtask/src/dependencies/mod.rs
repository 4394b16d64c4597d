//! The test of dependencies: each crate comes from crates.io with a checksum, and is licensed for a static binary. Advisories are not
//! looked up: their database is a git repository, which a machine of the test need not reach.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use spdx::{Expression, ParseMode};

use crate::{build, process::output};

/// The only source of crates.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// Licences of which one must be granted for each part of a crate: none asks for the source of the binary.
const LICENCES: [&str; 7] = ["MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "Zlib", "0BSD", "Unicode-3.0"];

/// Fails with every crate of another source or licence.
pub(crate) fn check() -> Result<()> {
    let path = build::root().join("Cargo.lock");
    let lock = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let metadata = output(&mut build::cargo(["metadata", "--quiet", "--locked", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("read cargo metadata")?;
    let mut problems = of_lock(&lock);
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let (name, licence) = (package["name"].as_str().unwrap_or_default(), package["license"].as_str());
        problems.extend(of_licence(licence).map(|problem| format!("{name}: {problem}")));
    }
    ensure!(problems.is_empty(), "check dependencies:\n{}", problems.join("\n"));
    Ok(())
}

/// What is wrong with the sources in a Cargo.lock. A package without a source is of this workspace.
fn of_lock(lock: &str) -> Vec<String> {
    let own: BTreeSet<_> =
        ["fuzz", "lab-init", "trace-check", "tracer-common", "tracer-ebpf", "vmentry", "xtask"].into();
    let mut problems = Vec::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let lines = package.lines().filter_map(|line| line.split_once(" = "));
            lines.clone().find(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'))
        };
        let name = field("name").unwrap_or_default();
        match (field("source"), field("checksum")) {
            (None, None) if own.contains(name) => {}
            (Some(SOURCE), Some(checksum)) if checksum.len() == 64 => {}
            (None, None) => problems.push(format!("{name}: a package by its path that is not of this workspace")),
            (Some(SOURCE), _) => problems.push(format!("{name}: no checksum")),
            (source, _) => problems.push(format!("{name}: from {}", source.unwrap_or_default())),
        }
    }
    problems
}

/// What is wrong with a licence; none for one that is allowed.
fn of_licence(licence: Option<&str>) -> Option<String> {
    let Some(text) = licence else { return Some("no licence".into()) };
    let Ok(expression) = Expression::parse_mode(text, ParseMode::LAX) else {
        return Some(format!("licence '{text}' is no SPDX expression"));
    };
    let is_allowed = |id: Option<spdx::LicenseId>| id.is_some_and(|id| LICENCES.contains(&id.name));
    (!expression.evaluate(|wanted| is_allowed(wanted.license.id()))).then(|| format!("licence '{text}' is not allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_other_sources_and_without_checksums_are_named() {
        let package = |name: &str, rest: &str| format!("[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\n{rest}\n");
        let sum = format!("checksum = \"{}\"", "0".repeat(64));
        let lock = [
            package("vmentry", ""),
            package("good", &format!("source = \"{SOURCE}\"\n{sum}")),
            package("unchecked", &format!("source = \"{SOURCE}\"")),
            package("branch", "source = \"git+https://example.org/branch#0\""),
            package("elsewhere", &format!("source = \"registry+https://example.org\"\n{sum}")),
            package("path", ""),
        ];
        let problems = of_lock(&lock.concat());
        let names: Vec<_> = problems.iter().filter_map(|problem| Some(problem.split_once(':')?.0)).collect();
        assert_eq!(names, ["unchecked", "branch", "elsewhere", "path"], "{problems:?}");
    }

    #[test]
    fn a_licence_is_allowed_where_one_of_its_choices_is() {
        for allowed in ["MIT", "MIT/Apache-2.0", "MIT OR LGPL-2.1-or-later", "(MIT OR GPL-2.0-only) AND Unicode-3.0"] {
            assert_eq!(of_licence(Some(allowed)), None, "{allowed}");
        }
        for refused in [Some("GPL-2.0-only"), Some("MIT AND AGPL-3.0-only"), Some("whatever"), None] {
            assert!(of_licence(refused).is_some(), "{refused:?}");
        }
    }
}
