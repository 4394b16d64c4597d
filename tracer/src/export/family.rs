//! Families of samples: what text and protobuf encode.

use std::borrow::Cow;

use super::{distribution::Distribution, state::State};
use crate::{
    export::metrics::{self, Metric},
    host::machine::Host,
    model::{measurement::Aggregation, policy::Policy, vendor::Vendor},
};

/// Names and values.
pub type Labels<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// A sample's value.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// any number
    Number(f64),
    /// exactly
    Count(u64),
    /// of durations
    Histogram(&'a Distribution),
}

/// One series' value now.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    /// what tells it apart within its family
    pub labels: Labels<'a>,
    /// the value
    pub value: Value<'a>,
    /// ns after 1970 when its counting began; none of what does not count
    pub created_ns: Option<u64>,
}

/// All samples of a metric.
#[derive(Clone, Debug)]
pub struct Family<'a> {
    /// the metric
    pub metric: &'static Metric,
    /// its samples
    pub samples: Vec<Sample<'a>>,
}

impl<'a> Family<'a> {
    /// Without a sample.
    pub fn new(metric: &'static Metric) -> Self {
        Self { metric, samples: Vec::new() }
    }

    /// With one sample without labels.
    pub fn one(metric: &'static Metric, value: Value<'a>, created_ns: Option<u64>) -> Self {
        Self { metric, samples: vec![Sample { labels: Vec::new(), value, created_ns }] }
    }
}

/// What is known of the hosts, apart from figures.
#[derive(Clone, Debug)]
pub struct About {
    /// every host; one, but in reports on several
    pub hosts: Vec<Host>,
    /// timer policy; unknown where hosts differ
    pub policy: Policy,
    /// where entries were counted, and so how well values are known
    pub aggregation: Aggregation,
    /// whether latencies are fit to be shown
    pub latencies: bool,
}

impl About {
    /// Version, hosts and policy.
    pub fn families(&self) -> Vec<Family<'_>> {
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

/// Figures and where they come from: what reports and the exporter have in common.
pub fn families<'a>(about: &'a About, state: &'a State) -> Vec<Family<'a>> {
    let mut families = about.families();
    families.extend(state.figures(about.latencies));
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
