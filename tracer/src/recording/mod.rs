//! Recordings on disk: an HDR interval log, which HdrHistogram tools open. Comment lines hold JSON: header, VMs, counts, end.
//! Documented in the README's format section.
//!
//! ```text
//! #{"format":"vmentry-recording","version":2,...}              header, first line
//! #{"vm":{"id":0,"name":"web1",...}}                           before the first interval with a series of it
//! Tag=vm=0;vcpu=0;level=L1;isa=vmx;reason=52;entry=clean;cause=deadline;figure=entry_to_exit_ns,<start>,<length>,<max>,HIST...
//! #{"interval":{"start_ns":...,"length_ns":...,"totals":{...}}} completes an interval; with "window" one of an experiment
//! #{"end":{...}}                                               only where the recording ended in order
//! ```

mod coverage;
pub(crate) mod hdr;
mod header;
mod limits;
mod note;
mod provenance;
mod reader;
mod readings;
mod tag;
pub(crate) mod tape;
mod writer;

pub(crate) use coverage::{Coverage, Spans, on_one_clock};
pub use header::{End, Header};
pub(crate) use header::{Experiment, FORMAT, Label, VERSION};
pub(crate) use limits::MAX_LINE;
pub(crate) use provenance::{Provenance, aggregation};
pub use reader::Reader;
pub(crate) use readings::{Reading, Readings, is_same};
pub use writer::Writer;

#[cfg(test)]
pub mod tests {
    //! Tests, and made-up values for those of other modules.

    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use tracer_common::Event;

    use super::*;
    use crate::{
        host::{clock::Anchor, machine::Host},
        model::{
            accounting::Accounting,
            interval::{
                Interval,
                tests::{event, vm},
            },
            measurement::{Aggregation, Latency, PinSource},
            policy::Policy,
            totals::Totals,
        },
    };

    /// A header for tests.
    pub fn header() -> Header {
        Header {
            format: FORMAT.into(),
            version: VERSION,
            tool: "vmentry test".into(),
            command: vec!["vmentry".into(), "record".into()],
            label: Some("a label".into()),
            anchor: Anchor { monotonic_ns: 1_000, unix_ns: 1_700_000_000_000_000_000 },
            interval_ns: 1_000_000_000,
            ring_bytes: 4096,
            host: Host::default(),
            policy: Policy::Soft,
            pin_writes_source: PinSource::Shadow,
            latency: Latency::Clean,
            aggregation: Aggregation::Records,
            timer: None,
            tickless_cpus: String::new(),
            stopwatch: None,
            sites: vec![],
            missing: vec![],
            experiment: None,
            sources: vec![],
        }
    }

    fn interval(start_ns: u64) -> Interval {
        let mut i = Interval::starting(start_ns);
        i.length_ns = 1_000_000_000;
        for n in 0..100 {
            i.record(&event(0, 10, 900 + n * n * n, 0), &vm(0));
            i.record(&event(1, 52, 1 << (n % 60), (n % 3) as u8), &vm(3));
        }
        i.record(&Event { exit_to_entry_ns: Event::UNKNOWN_NS, ..event(0, 0x8000_0021, 0, 0) }, &vm(0));
        i.totals = Totals { entries: 205, delivered: 201, dropped: 4, unmatched: 1, ..Totals::default() };
        i
    }

    fn recording() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut w = Writer::new(&mut bytes, &header()).unwrap();
        w.write(&interval(2_000)).unwrap();
        w.write(&Interval::starting(7)).unwrap();
        w.write(&interval(3_000)).unwrap();
        w.finish(End {
            reason: "duration".into(),
            accounting: Accounting::default(),
            tsc_khz: None,
            policy_changed: false,
        })
        .unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> (Vec<Interval>, Reader<&[u8]>) {
        let mut reader = Reader::new(bytes).unwrap();
        let mut intervals = Vec::new();
        while let Some(i) = reader.read_interval().unwrap() {
            intervals.push(i);
        }
        (intervals, reader)
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let bytes = recording();
        let (intervals, reader) = read(&bytes);
        assert_eq!(intervals, [interval(2_000), Interval::starting(7), interval(3_000)]);
        assert_eq!(reader.header(), &header());
        assert_eq!(reader.end().map(|e| e.reason.as_str()), Some("duration"));
        assert!(!reader.is_torn());
    }

    #[test]
    fn every_prefix_gives_its_whole_intervals_or_a_clear_error() {
        let bytes = recording();
        let header_end = bytes.iter().position(|&b| b == b'\n').unwrap();
        let whole: Vec<_> = read(&bytes).0;
        for end in (0..bytes.len()).step_by(7) {
            if end < header_end {
                assert!(Reader::new(&bytes[..end]).is_err(), "{end}");
                continue;
            }
            let (intervals, reader) = read(&bytes[..end]);
            assert_eq!(intervals, whole[..intervals.len()], "{end}");
            assert_eq!(reader.end(), None, "{end}");
        }
    }

    #[test]
    fn an_interval_without_its_last_line_is_torn() {
        let text = String::from_utf8(recording()).unwrap();
        let cut = text.rfind("#{\"interval\"").unwrap();
        let (intervals, reader) = read(&text.as_bytes()[..cut]);
        assert_eq!(intervals.len(), 2);
        assert!(reader.is_torn());
    }

    #[test]
    fn foreign_files_are_named_as_such() {
        let message = |bytes: &[u8]| Reader::new(bytes).err().unwrap().to_string();
        assert!(message(b"PERFILE2\0\0").contains("not a vmentry recording"));
        assert!(message(b"#[StartTime: 1.0]\n").contains("not a vmentry recording"));
        assert!(message(b"#{\"format\":\"x\",\"version\":1}\n").contains("format is 'x'"));
        assert!(message(b"#{\"format\":\"vmentry-recording\",\"version\":99}\n").contains("99"));
        assert!(message(b"").contains("empty"));
    }

    #[test]
    fn a_damaged_line_is_an_error_with_its_number() {
        let text = String::from_utf8(recording()).unwrap().replacen(",HISTFAAA", ",HISTXAAA", 1);
        let mut reader = Reader::new(text.as_bytes()).unwrap();
        let message = format!("{:#}", reader.read_interval().err().unwrap());
        assert!(message.starts_with("line "), "{message}");
    }

    #[test]
    fn hdr_tools_open_a_recording() {
        let bytes = recording();
        let histograms = IntervalLogIterator::new(&bytes).filter(|e| matches!(e, Ok(LogEntry::Interval(_)))).count();
        assert!(IntervalLogIterator::new(&bytes).all(|e| e.is_ok()));
        assert_eq!(histograms, bytes.windows(4).filter(|w| w == b"Tag=").count());
    }
}
