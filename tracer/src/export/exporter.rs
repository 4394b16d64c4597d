//! The exporter: running sums of a host, and answers to scrapes.

use std::{fs, time::Duration};

use hyper::body::Bytes;

use super::{
    bodies::{Bodies, Form},
    family::{About, Family, Value, families},
    metrics,
    negotiate::Format,
    protobuf,
    state::State,
    text::{self, Dialect},
    vm_label::VmLabel,
};
use crate::{
    host::clock::{Anchor, monotonic_ns, process_cpu_ns},
    model::interval::Interval,
    say,
};

/// Everything that clients are shown.
pub(crate) struct Exporter {
    state: State,
    pub(crate) about: About,
    bodies: Bodies,
    started: Anchor,
    scrapes: u64,
    /// longest healthy silence of the collector; none for a replay, which is silent after its end
    pub(crate) silence: Option<Duration>,
    /// CLOCK_MONOTONIC of the last interval, or of the start, ns
    heard_ns: u64,
}

impl Exporter {
    /// Starts empty. `max_series` limits the exported series of VMs and exit reasons.
    pub(crate) fn new(max_series: usize, about: About, labels: Vec<VmLabel>, silence: Option<Duration>) -> Self {
        let started = Anchor::now();
        Self {
            state: State::new(labels, max_series, started),
            about,
            bodies: Bodies::default(),
            started,
            scrapes: 0,
            silence,
            heard_ns: started.monotonic_ns,
        }
    }

    /// Adds an interval to the sums. Says which VMs find no room for their series.
    pub(crate) fn add(&mut self, interval: &Interval) {
        self.add_at(interval, Anchor::now());
    }

    /// As [`Self::add`], for an interval that ended `now`.
    pub(crate) fn add_at(&mut self, interval: &Interval, now: Anchor) {
        self.heard_ns = now.monotonic_ns;
        if let Some(message) = self.state.add(interval, now) {
            say!("{message}");
        }
    }

    /// Metrics in a form.
    pub(crate) fn scrape(&mut self, form: Form) -> Bytes {
        self.scrapes += 1;
        let mut bodies = std::mem::take(&mut self.bodies);
        let body = bodies.get(form, || self.encode(form.format));
        self.bodies = bodies;
        body
    }

    fn encode(&self, format: Format) -> Vec<u8> {
        let mut families = self.families();
        families.extend(self.process());
        match format {
            Format::Protobuf => protobuf::encode(&families),
            Format::OpenMetrics => text::encode(&families, Dialect::OpenMetrics).into_bytes(),
            Format::Classic => text::encode(&families, Dialect::Classic).into_bytes(),
        }
    }

    /// All families but those of this process, because node_exporter has metrics of the same names.
    pub(crate) fn families(&self) -> Vec<Family<'_>> {
        let mut families = families(&self.about, &self.state);
        families.extend(self.state.health());
        families
    }

    /// Families of this process.
    pub(crate) fn process(&self) -> Vec<Family<'static>> {
        let created = Some(self.started.unix_ns);
        let mut families = vec![
            Family::one(&metrics::SCRAPES, Value::Count(self.scrapes), created),
            Family::one(&metrics::PROCESS_CPU, Value::Number(process_cpu_ns() as f64 / 1e9), created),
        ];
        families.extend(resident().map(|bytes| Family::one(&metrics::PROCESS_MEMORY, Value::Count(bytes), None)));
        let started_s = self.started.unix_ns as f64 / 1e9;
        families.push(Family::one(&metrics::PROCESS_START, Value::Number(started_s), None));
        families
    }

    /// A line for a healthy exporter, and one for each of some VMs whose entries count for "other"; or the problem.
    pub(crate) fn health(&self) -> Result<String, String> {
        let age = Duration::from_nanos(monotonic_ns().saturating_sub(self.heard_ns));
        let text = format!("last interval {:.1} s ago\n", age.as_secs_f64());
        match self.silence {
            Some(silence) if age > silence => Err(format!("the collector is silent: {text}")),
            _ => Ok(format!("ok, {text}{}", self.state.folded())),
        }
    }
}

/// Resident memory of this process, bytes; none if /proc does not say.
pub(crate) fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    // SAFETY: sysconf reads and writes no memory of the caller, and returns -1 for a name that it does not know.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(pages * u64::try_from(page).ok()?)
}

#[cfg(test)]
pub(crate) mod tests {
    use tracer_common::{
        Event,
        detail::{RawDetail, Source},
    };

    use super::{
        super::{
            family::Labels,
            metrics::{METRICS, VM_LABELS},
        },
        *,
    };
    use crate::{
        host::machine::Host,
        model::{
            interval::tests::{event, vm},
            knowledge::Knowledge,
            measurement::Aggregation,
            policy::Policy,
        },
    };

    /// An exporter of an unknown host.
    pub(crate) fn exporter(labels: &[VmLabel]) -> Exporter {
        let about = About {
            hosts: vec![Host::default()],
            policy: Policy::Soft,
            aggregation: Aggregation::Records,
            knowledge: Knowledge::complete(),
        };
        Exporter::new(10_000, about, labels.to_vec(), None)
    }

    #[test]
    fn every_metric_of_the_table_is_exported_with_its_labels_and_no_other() {
        let mut exporter = exporter(&[VmLabel::Pid, VmLabel::Ordinal]);
        let mut interval = Interval::default();
        let round = event(0, 52, 900, 2);
        interval.record(&round, &vm(0));
        let previous_detail = RawDetail::new(Source::Address, 7);
        interval.record(&Event { previous: round.outline(), previous_detail, ..round }, &vm(0));
        interval.totals.evicted = Some(0);
        exporter.add(&interval);
        let mut families = exporter.families();
        families.extend(exporter.process());
        let names: Vec<_> = families.iter().map(|f| f.metric.name).collect();
        assert_eq!(names, METRICS.map(|m| m.name));
        for family in &families {
            fn of<'a>(labels: &Labels<'a>, own: &[&str]) -> Vec<&'a str> {
                labels.iter().map(|l| l.0).filter(|l| !VM_LABELS.contains(l) || own.contains(l)).collect()
            }
            let own = family.metric.labels;
            assert!(family.samples.iter().all(|s| of(&s.labels, own) == own), "{}", family.metric.name);
        }
        assert!(resident().unwrap() > 1 << 20);
    }

    #[test]
    fn a_silent_collector_is_unhealthy() {
        let mut exporter = exporter(&[]);
        exporter.silence = Some(Duration::from_nanos(1));
        assert!(exporter.health().unwrap_err().contains("silent"));
        exporter.silence = None;
        assert!(exporter.health().unwrap().starts_with("ok"));
    }
}
