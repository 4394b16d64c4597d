//! A comparison for readers: the page, the text, the JSON, and the words that all three share.

pub(crate) mod html;
pub(crate) mod json;
mod plot;
pub(crate) mod text;
pub(crate) mod wording;
