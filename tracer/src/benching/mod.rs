//! What the bench `scale` calls that nothing else outside this crate does: the collector with intervals that end when asked, the
//! exporter without a port, and the reader.

use std::path::Path;

use anyhow::{Context, Result};
use hyper::body::Bytes;
use tokio::runtime::Runtime;

use crate::{
    collect::collector::{Attached, Collection},
    export::{bodies::Form, exporter::Exporter, family::About, negotiate::Format},
    host::clock::Anchor,
    kernel::tracer::Tracer,
    model::{accounting::Accounting, interval::Interval},
    recording::{Header, OnDamage, Reader},
};

/// A running collector.
pub struct Collector {
    runtime: Runtime,
    collection: Collection,
}

impl Collector {
    /// Attaches the programs and collects. Processes are read below `proc`, laid out as /proc.
    pub fn start(tracer: Tracer, proc: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")?;
        let collection = Collection::start(Attached::new(tracer)?.with_processes_below(proc), None)?;
        Ok(Self { runtime, collection })
    }

    /// Ends the current interval and returns it, with the names of its VMs.
    pub fn cut(&mut self) -> Result<Interval> {
        self.runtime.block_on(self.collection.cut()).context("the collector ended")
    }

    /// Detaches, and returns the last interval and the accounting.
    pub fn finish(mut self) -> Result<(Interval, Accounting)> {
        self.collection.stop();
        let last = self.runtime.block_on(self.collection.intervals.recv()).context("the collector ended")?;
        Ok((last, self.collection.join()?))
    }
}

/// The exporter's sums and answers.
pub struct Scraped(Exporter);

impl Scraped {
    /// Of a host as a recording's header describes it, with this many histograms at most.
    pub fn new(header: &Header, max_series: usize) -> Self {
        let about = About {
            hosts: vec![header.host.clone()],
            policy: header.policy,
            aggregation: header.aggregation,
            knowledge: header.knowledge(),
        };
        Self(Exporter::new(max_series, about, vec![], None))
    }

    /// Adds an interval that ended `now_ns` after the clock's zero.
    pub fn add(&mut self, interval: &Interval, now_ns: u64) {
        self.0.add_at(interval, Anchor { monotonic_ns: now_ns, unix_ns: now_ns });
    }

    /// An answer, as protobuf or text.
    pub fn scrape(&mut self, protobuf: bool, gzip: bool) -> Bytes {
        self.0.scrape(Form { format: if protobuf { Format::Protobuf } else { Format::Classic }, gzip })
    }
}

/// The first interval of a recording, together with those that go on with it; none in an empty one.
pub fn first_interval(recording: &[u8]) -> Result<Option<Interval>> {
    Reader::careful(recording, OnDamage::Refuse)?.read_joined()
}
