//! What is exported: figures summed over the process's life (`state`), as families of samples (`family`), as text and
//! protobuf. Pure; `exporting.rs` does the I/O.

pub mod bodies;
pub mod distribution;
pub(crate) mod exporter;
pub mod family;
pub(crate) mod http;
pub mod metrics;
pub mod negotiate;
pub mod protobuf;
pub mod state;
pub mod text;
pub(crate) mod textfile;
