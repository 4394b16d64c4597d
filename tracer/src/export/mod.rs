//! The exporter: figures summed over the process's life (`state`), as families of samples (`family`), encoded as text and protobuf,
//! served over HTTP or written to a file.

pub(crate) mod allowed_hosts;
pub(crate) mod bodies;
pub(crate) mod connections;
pub(crate) mod distribution;
pub(crate) mod exporter;
pub(crate) mod family;
mod folded;
pub(crate) mod http;
pub(crate) mod listener;
pub(crate) mod metrics;
pub(crate) mod negotiate;
pub(crate) mod protobuf;
mod shares;
pub(crate) mod state;
mod sums;
pub(crate) mod text;
pub(crate) mod textfile;
pub(crate) mod vm_label;
