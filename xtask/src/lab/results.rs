//! Reads the files that a script leaves: text, JSON, and histograms of ftrace.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The folder with the files that a script left.
#[derive(Clone, Copy)]
pub(crate) struct Results<'a>(pub(crate) &'a Path);

impl Results<'_> {
    /// Reads the text of a file.
    pub(crate) fn text(self, name: &str) -> Result<String> {
        text(&self.0.join(name))
    }

    /// Reads the text of a file without space around it.
    pub(crate) fn word(self, name: &str) -> Result<String> {
        Ok(self.text(name)?.trim().to_owned())
    }

    /// Reads the JSON of a file.
    pub(crate) fn json(self, name: &str) -> Result<Value> {
        json(&self.0.join(name))
    }

    /// Reads the counts by key of an ftrace histogram.
    pub(crate) fn histogram(self, name: &str) -> Result<BTreeMap<u64, u64>> {
        histogram(&self.text(name)?)
    }

    /// Reads the counts by several keys of an ftrace histogram.
    pub(crate) fn histogram_of_keys(self, name: &str) -> Result<BTreeMap<Vec<u64>, u64>> {
        histogram_of_keys(&self.text(name)?)
    }
}

/// Returns an unsigned number, or 0 for anything else.
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Reads a file's text.
pub(crate) fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Reads a file's JSON.
pub(crate) fn json(path: &Path) -> Result<Value> {
    serde_json::from_str(&text(path)?).with_context(|| format!("read {}", path.display()))
}

/// Returns the counts by key of an ftrace histogram, with lines "{ exit_reason:  52 } hitcount:  30".
pub(crate) fn histogram(text: &str) -> Result<BTreeMap<u64, u64>> {
    Ok(histogram_of_keys(text)?.into_iter().map(|(keys, n)| (keys[0], n)).collect())
}

/// Returns the counts by several keys, with lines "{ field:  16384, vmcs02:  0 } hitcount:  30". Fails if ftrace has
/// dropped some.
fn histogram_of_keys(text: &str) -> Result<BTreeMap<Vec<u64>, u64>> {
    ensure!(text.lines().any(|l| l.trim() == "Dropped: 0"), "read a histogram of ftrace: it has dropped hits:\n{text}");
    let entry = |line: &str| {
        let (keys, count) = line.strip_prefix('{')?.split_once('}')?;
        let number = |part: &str| part.rsplit(':').next()?.trim().parse().ok();
        let keys: Option<Vec<u64>> = keys.split(',').map(number).collect();
        Some((keys?, number(count)?))
    };
    Ok(text.lines().filter_map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTOGRAM: &str = "# event histogram\n\n{ exit_reason:         52 } hitcount:         30\n\
        { exit_reason:         10 } hitcount:         97\n\nTotals:\n    Hits: 127\n    Dropped: 0\n";

    #[test]
    fn a_histogram_that_dropped_hits_is_an_error() {
        assert!(histogram(&HISTOGRAM.replace("Dropped: 0", "Dropped: 3")).is_err());
        assert!(histogram("").is_err());
    }

    #[test]
    fn counts_are_read_by_key_and_by_several_keys() {
        assert_eq!(histogram(HISTOGRAM).unwrap(), BTreeMap::from([(10, 97), (52, 30)]));
        let two_keys = "{ field:      16384, vmcs02:          1 } hitcount:          3\nDropped: 0\n";
        assert_eq!(histogram_of_keys(two_keys).unwrap(), BTreeMap::from([(vec![16384, 1], 3)]));
    }
}
