//! Reads the counts of each tool from its output.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::Value;

use crate::{
    bench::peers::{VMX_CPUID, runs::Run},
    lab::results::{histogram, json, number, text},
};

/// Describes the exits that a tool counted, and its lost and stored data.
pub(super) fn counted(run: &Run, count: u64, cpuid: u64) -> Result<String> {
    let beside = |suffix: &str| run.path.with_extension(suffix);
    let read = |suffix: &str| text(&beside(suffix)).unwrap_or_default();
    let stored =
        read("bytes").trim().parse::<f64>().map(|b| format!(", {:.1} B/exit", b / count as f64)).unwrap_or_default();
    Ok(match run.tool.as_str() {
        "record" | "in_kernel" => {
            let report = json(&beside("report"))?;
            let rows = report["series"].as_array().into_iter().flatten();
            let cpuids: u64 = rows.filter(|r| r["exit_reason"] == "CPUID").map(|r| number(&r["entries"])).sum();
            let totals: &Value = &report["totals"];
            format!("{cpuids} CPUID of {count}, {} lost{stored}", totals["dropped"])
        }
        "ftrace_hist" => {
            format!("{} CPUID of {count}", histogram(&read("hist"))?.get(&cpuid).copied().unwrap_or(0))
        }
        "ftrace_buffer" => read("buffer").split_whitespace().collect::<Vec<_>>().join(" "),
        "perf_stat" => {
            read("stat")
                .lines()
                .filter(|l| l.contains("kvm:"))
                .map(|l| l.split(',').next().unwrap_or(""))
                .collect::<Vec<_>>()
                .join(" and ")
                + " events"
        }
        "bcc_kvmexit" => {
            format!("{} CPUID of {count}", after(&read("bcc"), if cpuid == VMX_CPUID { "CPUID" } else { "SVM_114" }))
        }
        "bcc_histogram" => format!("{} exits of {count}", after(&read("bcc"), "all")),
        _ if run.tool.starts_with("bpftrace") => {
            format!("{} CPUID of {count}", bpftrace(&read("bpftrace")).get(&cpuid).copied().unwrap_or(0))
        }
        _ => stored.trim_start_matches(", ").to_owned(),
    })
}

/// Returns the number at the end of the line in which this word precedes it, or n/a.
fn after(printed: &str, word: &str) -> String {
    let behind = |line: &str| {
        let mut words = line.split_whitespace().rev();
        let number = words.next()?.parse::<u64>().ok()?;
        (words.next() == Some(word)).then_some(number)
    };
    printed.lines().find_map(behind).map_or("n/a".into(), |number| number.to_string())
}

/// Returns the counts by reason in bpftrace's output of its map `@`: `@[114]: 20000`, or a histogram below `@[114]:`
/// with lines such as `[512, 1K)  20000 |@@@@|`.
fn bpftrace(printed: &str) -> BTreeMap<u64, u64> {
    let mut counts = BTreeMap::new();
    let mut reason = None;
    for line in printed.lines() {
        if let Some((key, count)) = line.strip_prefix("@[").and_then(|rest| rest.split_once("]:")) {
            reason = key.parse().ok();
            if let (Some(reason), Ok(count)) = (reason, count.trim().parse()) {
                counts.insert(reason, count);
            }
        } else if let Some(reason) = reason
            && let Some((_, rest)) = line.split_once([')', ']'])
            && let Some(count) = rest.split('|').next().and_then(|count| count.trim().parse::<u64>().ok())
        {
            *counts.entry(reason).or_default() += count;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bccs_counts_are_read() {
        let printed = "Hit Ctrl-C to end.\n\nPID      TID      KVM_EXIT_REASON   COUNT\n237      238      SVM_114           20000   \n";
        assert_eq!((after(printed, "SVM_114"), after(printed, "SVM_11")), ("20000".into(), "n/a".into()));
        assert_eq!(after("below 64 ns: 3\nall 23\n", "all"), "23");
    }

    #[test]
    fn bpftraces_counts_and_histograms_are_read() {
        let printed = "Attaching 3 probes...\nready\n\n@[114]: \n[512, 1K)     19990 |@@@@@@@@|\n[1K, 2K)         10 |     |\n\n@[96]: 3\n";
        assert_eq!(bpftrace(printed), BTreeMap::from([(96, 3), (114, 20_000)]));
        assert_eq!(bpftrace("[1]  4 |@|\n"), BTreeMap::new());
    }
}
