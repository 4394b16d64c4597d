//! What the fuzzers (package `fuzz`) call that nothing else outside this crate does: each function takes foreign bytes through the code
//! that reads them.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
    rc::Rc,
};

use tokio::{
    runtime::{Builder, Runtime},
    task::LocalSet,
};

use crate::{
    export::{
        allowed_hosts::AllowedHosts,
        connections::Connections,
        exporter::Exporter,
        http::{self, converse},
        negotiate::{Format, allows_gzip},
    },
    host::{policy, process::read_process, roots::Roots, setting::left_behind::left_behind},
    kernel::{btf::Btf, layout},
    model::vendor::Vendor,
    recording::{OnDamage, Reader, Writer},
    report::{Choices, Filter, Report, View, csv, html, openmetrics},
};

/// A report as CSV.
pub fn csv(report: &Report, view: &View) -> String {
    csv::render(report, view)
}

/// A report as a page.
pub fn html(report: &Report, view: &View) -> String {
    html::render(report, view)
}

/// A report as OpenMetrics text.
pub fn openmetrics(report: &Report, view: &View) -> String {
    openmetrics::render(report, view)
}

/// The reason why filters cannot be meant for a report; none if entries pass.
pub fn refused_filters(report: &Report, filters: &[Filter]) -> Option<String> {
    let mut choices = Choices::default();
    choices.add(report, report.whole.series.keys(), filters);
    choices.refusal(filters)
}

/// Writes the intervals of a recording that is read without an error. Returns what was written and whether it reads as the same
/// intervals; none where the recording cannot be read to its end.
pub fn rewritten(bytes: &[u8]) -> Option<(Vec<u8>, bool)> {
    let mut reader = Reader::careful(bytes, OnDamage::Refuse).ok()?;
    let mut intervals = Vec::new();
    while let Some(interval) = reader.read_joined().ok()? {
        intervals.push(interval);
    }
    // A merge's intervals name their recordings; the writer of one recording has no place for that.
    if !reader.header().sources.is_empty() {
        return None;
    }
    let mut written = Vec::new();
    let mut writer = Writer::new(&mut written, reader.header()).ok()?;
    for interval in &intervals {
        writer.write(interval).ok()?;
    }
    drop(writer);
    let mut again = Reader::careful(written.as_slice(), OnDamage::Refuse).ok()?;
    let mut same = true;
    for interval in &intervals {
        let read = again.read_joined().ok()??;
        same &= (read.start_ns, read.length_ns, read.totals, &read.series)
            == (interval.start_ns, interval.length_ns, interval.totals, &interval.series);
    }
    same &= matches!(again.read_joined(), Ok(None));
    Some((written, same))
}

/// Resolves the layout of a kernel from the BTF of itself, of kvm and of the vendor's module, and looks the types up that loading the
/// programs looks up.
pub fn layout(kernel: &[u8], kvm: &[u8], vendor: &[u8]) {
    let Ok(kernel) = Btf::parse(kernel, None) else { return };
    let kvm = Btf::parse(kvm, Some(&kernel));
    let kvm = kvm.as_ref().unwrap_or(&kernel);
    let vendor = Btf::parse(vendor, Some(&kernel));
    let vendor = vendor.as_ref().unwrap_or(&kernel);
    for of in [Vendor::Intel, Vendor::Amd] {
        let _ = layout::resolve(kvm, of, vendor);
    }
    let _ = kernel.array_lengths().count();
    let _ = kernel.function("bpf_rdonly_cast");
}

/// The name of the VM that process `tgid` below `proc`, laid out as /proc, runs.
pub fn vm_name(proc: &Path, tgid: u32) -> io::Result<String> {
    read_process(proc, tgid).map(|process| process.name())
}

/// Whether a note of a switched policy in `run` counts as left behind, as `vmentry check` asks.
pub fn is_policy_left_behind(run: &Path) -> bool {
    let roots = Roots { run: run.to_owned(), ..Roots::default() };
    policy::left_behind(&roots).is_some()
}

/// What `vmentry check` says of the note of a switched setting in `run`, on a host without files that it could name.
pub fn setting_left_behind(run: &Path) -> Option<String> {
    let none = run.join("none");
    let roots = Roots { run: run.to_owned(), sys: none.clone(), proc: none, ..Roots::default() };
    left_behind(&roots).map(|left| left.what() + left.fix())
}

/// The answer's content type, and whether it is compressed, for a request's Accept and Accept-Encoding.
pub fn negotiated(accept: &str, encodings: &str) -> (&'static str, bool) {
    (Format::negotiate(accept).content_type(), allows_gzip(encodings))
}

/// The exporter's endpoint, without a port.
pub struct Endpoint {
    runtime: Runtime,
    tasks: LocalSet,
    endpoint: Rc<http::Endpoint>,
}

impl Endpoint {
    /// Of an exporter that was given a report's entries.
    pub fn new(report: &Report) -> io::Result<Self> {
        let mut exporter = Exporter::new(1000, openmetrics::about(&report.sources), vec![], None);
        exporter.add(&report.whole);
        let endpoint = http::Endpoint {
            exporter: Rc::new(RefCell::new(exporter)),
            connections: Rc::new(Connections::default()),
            hosts: AllowedHosts::new("kvm1", &[]),
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, tasks: LocalSet::new(), endpoint: Rc::new(endpoint) })
    }

    /// Everything that a client gets which sends these bytes, at most some ten kilobytes, and then nothing more.
    pub fn answer(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let (mut client, server) = UnixStream::pair()?;
        client.write_all(request)?;
        client.shutdown(Shutdown::Write)?;
        server.set_nonblocking(true)?;
        self.tasks.block_on(&self.runtime, async {
            let server = tokio::net::UnixStream::from_std(server)?;
            converse(server, self.endpoint.connections.open(), Rc::clone(&self.endpoint), true).await;
            io::Result::Ok(())
        })?;
        let mut answer = Vec::new();
        match client.read_to_end(&mut answer) {
            // The exporter reads no more of a request that it refuses as too large.
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => Err(error),
            _ => Ok(answer),
        }
    }
}
