//! The test of rooms: every source file lies in a room (a folder of `src`), and imports between rooms go one way only.

mod imports;
mod order;

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{
    build,
    rooms::order::{House, Inner, Source},
};

/// The crates that are held to an order of rooms.
const HOUSES: [&House; 2] = [&XTASK, &TRACER];

/// This crate, from the commands to what every task needs.
const XTASK: House = House {
    src: "xtask/src",
    rooms: &[
        "test",
        "rooms",
        "dependencies",
        "claims",
        "demo",
        "fuzz",
        "bench",
        "kernels",
        "witness",
        "packaging",
        "prometheus",
        "dashboards",
        "patches",
        "pictures",
        "lab",
        "build",
        "debian",
        "process",
    ],
    inner: &[],
    macros: &[],
};

/// The tool, in the reverse order of an event's way from the kernel to a view.
const TRACER: House = House {
    src: "tracer/src",
    rooms: &[
        "benching",
        "fuzzing",
        "commands",
        "calibrate",
        "tui",
        "compare",
        "report",
        "export",
        "html",
        "collect",
        "trace",
        "recording",
        "guest",
        "host",
        "kernel",
        "model",
        "output",
    ],
    inner: &[
        Inner {
            room: "commands",
            levels: &[
                &["every_output"],
                &[
                    "ab",
                    "calibrate",
                    "check",
                    "compare",
                    "completions",
                    "exercise",
                    "export",
                    "help",
                    "live",
                    "merge",
                    "policy",
                    "record",
                    "report",
                    "survey",
                ],
                &["comparison"],
                &["window_parts"],
                &["following", "listening", "session"],
                &["child", "privileges"],
                &["document", "vm_labels"],
                &["args", "damaged", "descendants", "early", "progress", "usage", "user"],
                &["topics"],
            ],
        },
        Inner {
            room: "compare",
            levels: &[
                &["fixture", "tests"],
                &["view"],
                &["condition", "primary"],
                &["fairness"],
                &["assemble"],
                &["checks"],
                &["stats"],
                &["comparison"],
                &["presence"],
                &["windows"],
                &["schedule"],
            ],
        },
    ],
    macros: &[("say", "output")],
};

/// Fails with every import, file and pair of rooms that breaks the order.
pub(crate) fn check() -> Result<()> {
    let mut problems = Vec::new();
    for house in HOUSES {
        let violations = violations_in(house)?;
        if !violations.is_empty() {
            let order = order::listed(house);
            problems.push(format!("{}\n  -> in {} imports go down only: {order}", violations.join("\n"), house.src));
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

fn violations_in(house: &House) -> Result<Vec<String>> {
    let src = build::root().join(house.src);
    let mut sources = Vec::new();
    read_sources(&src, "", &mut sources)?;
    ensure!(!sources.is_empty(), "read sources in {}: there are none", src.display());
    order::violations(house, &sources)
}

/// Reads every `.rs` file of a folder; `below` is the folder's path below `src`.
fn read_sources(folder: &Path, below: &str, sources: &mut Vec<Source>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("read folder {}", folder.display()))?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if path.is_dir() {
            read_sources(&path, &format!("{below}{name}/"), sources)?;
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            sources.push(Source { path: format!("{below}{name}"), text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_keeps_the_order_of_its_rooms() {
        if let Err(problems) = check() {
            panic!("{problems:#}");
        }
    }
}
