//! Paths and frames that the lab's guest and its host share.

pub mod frame;

/// File with the modules to load, in order, one per line: the path of the file, then its parameters.
pub const MANIFEST: &str = "/lab/manifest";
/// The script that the guest runs. Without this file, it starts a shell on the console.
pub const SCRIPT: &str = "/lab/script";
/// Folder whose files go to the host; `$OUT` in the script.
pub const OUT: &str = "/out";
