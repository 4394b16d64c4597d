//! Families of samples, which text and protobuf encode.

use std::borrow::Cow;

use super::{distribution::Distribution, state::State};
use crate::{
    export::metrics::{self, Metric},
    host::machine::Host,
    model::{knowledge::Knowledge, measurement::Aggregation, policy::Policy, vendor::Vendor},
};

/// Names and values of labels.
pub(crate) type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// A sample's value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    /// a number
    Number(f64),
    /// an exact count
    Count(u64),
    /// durations
    Histogram(&'a Distribution),
}

/// The current value of one series.
#[derive(Clone, Debug)]
pub(crate) struct Sample<'a> {
    /// labels, unique within the family
    pub(crate) labels: Labels<'a>,
    /// the value
    pub(crate) value: Value<'a>,
    /// start of counting, ns since the epoch; none for gauges
    pub(crate) created_ns: Option<u64>,
}

/// All samples of a metric.
#[derive(Clone, Debug)]
pub(crate) struct Family<'a> {
    /// the metric
    pub(crate) metric: &'static Metric,
    /// its samples
    pub(crate) samples: Vec<Sample<'a>>,
}

impl<'a> Family<'a> {
    /// A family without samples.
    pub(crate) fn new(metric: &'static Metric) -> Self {
        Self { metric, samples: Vec::new() }
    }

    /// A family of one sample without labels.
    pub(crate) fn one(metric: &'static Metric, value: Value<'a>, created_ns: Option<u64>) -> Self {
        Self { metric, samples: vec![Sample { labels: Vec::new(), value, created_ns }] }
    }
}

/// Facts on the hosts, without figures.
#[derive(Clone, Debug)]
pub(crate) struct About {
    /// all hosts; more than one only in reports
    pub(crate) hosts: Vec<Host>,
    /// timer policy; unknown if hosts differ
    pub(crate) policy: Policy,
    /// place that counted entries, which decides the precision of values
    pub(crate) aggregation: Aggregation,
    /// what is known about the entries
    pub(crate) knowledge: Knowledge,
}

impl About {
    /// Families of version, hosts and policy.
    pub(crate) fn families(&self) -> Vec<Family<'_>> {
        let info = |labels| Sample { labels, value: Value::Count(1), created_ns: None };
        let build = info(vec![("version", Cow::Borrowed(env!("CARGO_PKG_VERSION")))]);
        // A host may have been recorded more than once.
        let mut hosts: Vec<Labels<'_>> = Vec::new();
        for host in self.hosts.iter().map(host_labels) {
            let host = [host, vec![("counted", Cow::Borrowed(self.aggregation.name()))]].concat();
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        let policy = |policy: Policy| Sample {
            labels: vec![("policy", Cow::Borrowed(policy.name()))],
            value: Value::Count(u64::from(policy == self.policy)),
            created_ns: None,
        };
        vec![
            Family { metric: &metrics::BUILD_INFO, samples: vec![build] },
            Family { metric: &metrics::HOST_INFO, samples: hosts.into_iter().map(info).collect() },
            Family { metric: &metrics::POLICY, samples: Policy::ALL.into_iter().map(policy).collect() },
        ]
    }
}

/// Families that reports and the exporter share.
pub(crate) fn families<'a>(about: &'a About, state: &'a State) -> Vec<Family<'a>> {
    let mut families = about.families();
    families.extend(state.figures(&about.knowledge));
    families.extend(state.totals());
    families
}

fn host_labels(host: &Host) -> Labels<'_> {
    let vendor = match host.vendor {
        Some(Vendor::Intel) => "intel",
        Some(Vendor::Amd) => "amd",
        Some(Vendor::Other) => "other",
        None => "",
    };
    vec![
        ("host", Cow::Borrowed(host.name.as_str())),
        ("kernel", Cow::Borrowed(host.kernel.as_str())),
        ("cpu", Cow::Borrowed(host.cpu.as_str())),
        ("microcode", Cow::Borrowed(host.microcode.as_deref().unwrap_or_default())),
        ("vendor", Cow::Borrowed(vendor)),
        ("emulated", Cow::Borrowed(if host.emulated { "true" } else { "false" })),
        ("virtualized", Cow::Borrowed(host.virtualized.as_deref().unwrap_or_default())),
    ]
}
