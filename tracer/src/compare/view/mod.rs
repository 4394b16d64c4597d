//! A comparison for readers: the page, the text, the JSON, the Markdown, and the words that they share.

pub(crate) mod html;
pub(crate) mod json;
mod markdown;
mod plot;
pub(crate) mod text;
pub(crate) mod wording;
