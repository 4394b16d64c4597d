//! The pages of the manual, as the build script packs them.

use std::io::Read;

use anyhow::{Context, Result};
use flate2::read::DeflateDecoder;

const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pages.deflate"));

/// A page of the manual.
pub(super) struct Topic {
    /// of its file, without the suffix
    pub(super) name: String,
    /// Markdown
    pub(super) text: String,
}

impl Topic {
    /// Returns what the page answers: its title, which is `# Name: summary`.
    pub(super) fn summary(&self) -> &str {
        let title = self.text.lines().next().unwrap_or_default();
        title.split_once(": ").map_or(title, |(_, summary)| summary)
    }
}

/// All pages, by name.
pub(super) fn all() -> Result<Vec<Topic>> {
    let mut text = String::new();
    DeflateDecoder::new(PACKED).read_to_string(&mut text).context("unpack the manual")?;
    let mut parts = text.split_terminator('\0').map(str::to_owned);
    Ok(std::iter::from_fn(|| Some(Topic { name: parts.next()?, text: parts.next()? })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_says_in_its_title_what_it_answers() {
        let topics = all().unwrap();
        assert!(topics.len() > 15);
        for Topic { name, text } in topics {
            let title = text.lines().next().unwrap_or_default();
            let (head, summary) = title.strip_prefix("# ").and_then(|t| t.split_once(": ")).unwrap_or_default();
            assert_eq!(head.to_lowercase().replace(' ', "-"), name, "docs/{name}.md: {title}");
            assert!(summary.len() > 10 && title.len() <= 100, "docs/{name}.md: {title}");
        }
    }
}
