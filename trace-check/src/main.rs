//! Reads a Perfetto trace with the official schema and prints, as JSON, its slices counted by track, name and exit
//! reason. `cargo xtask test` compares these counts with reports. Usage: `cargo run -p trace-check -- FILE`.

#![expect(clippy::unwrap_used, reason = "a program of the tests: a file that cannot be read is a failed test")]

use std::collections::BTreeMap;

use serde_json::json;

fn main() {
    let file = std::env::args().nth(1).expect("usage: trace-check FILE");
    let bytes = std::fs::read(&file).unwrap();
    let whole = trace_check::whole_packets(&bytes);
    let trace = trace_check::read(&bytes[..whole]);
    let mut counts: BTreeMap<_, u64> = BTreeMap::new();
    for slice in &trace.slices {
        *counts
            .entry((slice.track.clone(), slice.name.clone(), slice.arguments.get("exit_reason").cloned()))
            .or_default() += 1;
    }
    let counts: Vec<_> = counts
        .into_iter()
        .map(|((track, name, reason), n)| json!({"track": track, "name": name, "exit_reason": reason, "slices": n}))
        .collect();
    let instants: Vec<_> = trace
        .instants
        .iter()
        .filter(|i| i.track.len() == 1)
        .map(|i| json!({"name": i.name, "arguments": i.arguments}))
        .collect();
    // Parts of the host time lie within it; nothing else lies within a slice.
    let is_part = |name: &str| ["polled", "idle", "steal", "user"].contains(&name);
    let nested = trace.slices.iter().filter(|s| s.depth > 1 || s.depth > 0 && !is_part(&s.name)).count();
    let json = json!({
        "bytes": bytes.len(),
        "torn_bytes": bytes.len() - whole,
        "packets": trace.packets,
        "unbalanced": trace.unbalanced,
        "nested": nested,
        "unknown_fields": trace_check::unknown_fields(&trace_check::parse(&bytes[..whole])),
        "slices": counts,
        "whole": instants,
    });
    println!("{}", serde_json::to_string_pretty(&json).unwrap());
}
