//! Output that every view shares: files that are created safely, standard output and error, foreign text made printable, and plain-text
//! layout.

mod background;
mod files;
mod layout;
mod printable;
mod refusals;
mod streams;

pub(crate) use background::{Background, STALLED, Written};
pub(crate) use files::{Draft, create, create_new, draft_beside, is_same_file, lock, refuse_existing};
pub(crate) use layout::{align, one_line, wrap};
pub(crate) use printable::{MAX_NAME, MAX_TEXT, is_deceptive, name, printable, shown};
pub use streams::{print, say, survive_file_size_limit};
pub(crate) use streams::{say_over_progress, show, write_to_terminal};
