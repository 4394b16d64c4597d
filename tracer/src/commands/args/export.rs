//! The command line of `export`.

use std::{path::PathBuf, time::Duration};

use clap::{
    Args,
    builder::{OsStringValueParser, TypedValueParser},
};

use crate::export::{allowed_hosts::parse_name, listener::Address};

use super::{
    candidates::{addresses, recordings},
    targets::{Details, LabelRulesFile, Targets, VmLabelNames},
    value::duration,
};

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vmentry export                          http://127.0.0.1:9753/metrics
  vmentry export --listen 10.0.0.7:9753   for a Prometheus elsewhere
  vmentry export --textfile /var/lib/node_exporter/vmentry.prom --interval 15s
  vmentry export --replay a.hlog          what was recorded, on any machine
  curl -s localhost:9753/metrics | grep spurious

There is no encryption and no password: beyond 127.0.0.1, restrict access by a
firewall or a proxy. Sockets that systemd hands over replace the default.")]
pub struct ExportArgs {
    /// Where to serve metrics: IP:PORT (0 takes a free one) or unix:PATH (mode 0660) [repeatable; default: 127.0.0.1:9753, or
    /// nothing with --textfile]
    #[arg(long, value_name = "ADDRESS", value_parser = OsStringValueParser::new().try_map(|text| Address::parse(&text)), add = addresses())]
    pub listen: Vec<Address>,
    /// Answer requests whose Host header has this name. Loopback addresses answer to IP addresses, localhost and this host's name;
    /// others to every name unless this is given [repeatable]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    pub allow_host: Vec<String>,
    /// Write metrics here every interval, for node_exporter's textfile collector
    #[arg(long, value_name = "PATH")]
    pub textfile: Option<PathBuf>,
    /// Labels of VMs in the metrics
    #[command(flatten)]
    pub labels: VmLabelNames,
    /// Further labels of VMs
    #[command(flatten)]
    pub rules: LabelRulesFile,
    /// Histograms, at most, each of some 30 series; the rest counts as vm="other"
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_series: u32,
    /// How often metrics are updated
    #[arg(long, value_name = "D", value_parser = duration, default_value = "1s")]
    pub interval: Duration,
    /// Serve a whole recording instead of tracing
    #[arg(long, value_name = "FILE", add = recordings(), conflicts_with_all = ["vm", "pid", "vcpu", "detail"])]
    pub replay: Option<PathBuf>,
    /// Leave out the intervals of damaged lines, say so first, and end with exit code 1
    #[arg(long, requires = "replay")]
    pub skip_damaged: bool,
    /// Replay at the speed of the recording; the sum stays at the end
    #[arg(long, requires = "replay")]
    pub paced: bool,
    /// What is told about exits
    #[command(flatten)]
    pub details: Details,
    /// VMs and vCPUs to trace
    #[command(flatten)]
    pub targets: Targets,
    /// Print the table of metrics as JSON
    #[arg(long)]
    pub list_metrics: bool,
}
