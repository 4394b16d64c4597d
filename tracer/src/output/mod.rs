//! Output that every view shares: files that are created safely, standard output and error, and plain-text layout.

mod files;
mod layout;
mod streams;

pub(crate) use files::{Draft, create, create_new, is_same_file, lock, refuse_existing};
pub(crate) use layout::{align, wrap};
pub use streams::{print, say};
pub(crate) use streams::{print_while_read, say_over_progress};
