//! Output that every view shares: files that are created safely, standard output and error, foreign text made printable, and plain-text
//! layout.

mod aside;
mod background;
mod draft;
mod files;
mod layout;
mod number;
mod pager;
mod paint;
mod printable;
mod refusals;
mod same;
mod spot;
mod streams;
mod sudo;

pub(crate) use aside::create_keeping;
pub(crate) use background::{Background, STALLED, Written};
pub(crate) use draft::Draft;
pub(crate) use files::{WholeFile, create, create_at, create_new, lock, spot};
pub(crate) use layout::{align, cells, one_line, wrap};
pub(crate) use number::grouped;
pub(crate) use pager::page;
pub(crate) use paint::{Ink, Paint};
pub(crate) use printable::{MAX_NAME, MAX_TEXT, is_deceptive, name, printable, shown};
pub(crate) use refusals::explain;
pub(crate) use same::{is_both, is_same_file};
pub(crate) use spot::Spot;
pub use streams::{print, say, survive_file_size_limit};
pub(crate) use streams::{say_over_progress, show, write_to_terminal};
