//! What the lab's guest and its host agree on.

pub mod frame;

/// The modules to load, in order, one per line: the path of the file, then parameters.
pub const MANIFEST: &str = "/lab/manifest";
/// What the guest runs; when absent it gives a shell on the console.
pub const SCRIPT: &str = "/lab/script";
/// What is left here goes back to the host; the script finds it in `$OUT`.
pub const OUT: &str = "/out";
