//! Inputs that fail: run again to learn why, one kept for each cause.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::fuzz::libfuzzer::{Fuzzer, failed};

/// Characters of a message at most.
const MOST_CHARACTERS: usize = 200;

/// An input that fails.
#[derive(Debug)]
pub(super) struct Find {
    pub(super) input: PathBuf,
    /// the place and message of the panic, or what libFuzzer says
    cause: Cause,
    reproduction: String,
}

/// Why an input fails.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cause {
    place: String,
    message: String,
}

impl fmt::Display for Find {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { cause: Cause { place, message }, reproduction, .. } = self;
        write!(f, "{place}: {message}\n  {reproduction}")
    }
}

impl Cause {
    /// From what a process prints that ends for an input.
    fn of_output(text: &str) -> Self {
        let mut lines = text.lines();
        if let Some(place) = lines.by_ref().find_map(|line| line.split_once(" panicked at ")) {
            let place = place.1.trim_end_matches(':').to_owned();
            // It may quote the input.
            let message = lines.next().unwrap_or_default().chars().take(MOST_CHARACTERS);
            return Self { place, message: message.flat_map(char::escape_debug).collect() };
        }
        let error =
            text.lines().find(|line| line.starts_with("memory allocation of ") || line.contains("ERROR: libFuzzer"));
        let message = error.unwrap_or("the process ends").to_owned();
        // The process's number and the bytes differ from input to input.
        let place = if message.contains("timeout") { "timeout" } else { "no panic" };
        Self { place: place.to_owned(), message }
    }
}

/// Runs a target's inputs that failed. Removes those that pass, and all but the smallest for each place of the code.
pub(super) fn sort(fuzzer: &Fuzzer, target: &str) -> Result<Vec<Find>> {
    let mut smallest: BTreeMap<String, (PathBuf, Cause)> = BTreeMap::new();
    for input in by_size(&failed(target))? {
        let (text, is_failure) = fuzzer.output(target, &[input.display().to_string()])?;
        let cause = Cause::of_output(&text);
        if is_failure && !smallest.contains_key(&cause.place) {
            smallest.insert(cause.place.clone(), (input, cause));
            continue;
        }
        if !is_failure {
            eprintln!("  passes when run alone, removed: {}", input.display());
        }
        fs::remove_file(&input).with_context(|| format!("remove {}", input.display()))?;
    }
    let find =
        |(input, cause): (PathBuf, Cause)| Find { cause, reproduction: fuzzer.reproduction(target, &input), input };
    Ok(smallest.into_values().map(find).collect())
}

fn by_size(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read folder {}", folder.display()))?;
    let mut inputs: Vec<_> =
        entries.flatten().map(|entry| (entry.metadata().map_or(0, |m| m.len()), entry.path())).collect();
    inputs.sort();
    Ok(inputs.into_iter().map(|(_, path)| path).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_the_panic_or_else_what_libfuzzer_says() {
        let text = "INFO: Seed: 1\n\nthread '<unnamed>' (7) panicked at tracer/src/x.rs:3:5:\nindex \x1b[2J\nnote: run with\n\
                    ==7== ERROR: libFuzzer: deadly signal\n";
        let cause = Cause::of_output(text);
        assert_eq!((cause.place.as_str(), cause.message.as_str()), ("tracer/src/x.rs:3:5", "index \\u{1b}[2J"));
        let cause = Cause::of_output("==7== ERROR: libFuzzer: timeout after 120 seconds\n");
        assert_eq!(
            (cause.place.as_str(), cause.message.as_str()),
            ("timeout", "==7== ERROR: libFuzzer: timeout after 120 seconds")
        );
    }
}
