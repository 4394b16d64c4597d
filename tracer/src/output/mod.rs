//! Writing to files and to standard output.

mod files;

pub use files::{create, create_new, is_same, print, print_while_read, refuse, say};
