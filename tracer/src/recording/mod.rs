//! Recordings on disk: an HDR interval log, which HdrHistogram tools open. Comment lines hold JSON: header, VMs, counts, end. Each JSON
//! line has a checksum of all bytes since the one before. docs/formats.md documents it.
//!
//! ```text
//! #{"format":"vmentry-recording","version":3,...}              header, first line
//! #{"vm":{"id":0,"name":"web1",...}}                           before the first interval with a series of it
//! Tag=vm=0;vcpu=0;level=L1;isa=vmx;reason=52;entry=clean;cause=deadline;figure=entry_to_exit_ns,<start>,<length>,<max>,HIST...
//! Tag=vm=0;vcpu=0;level=L1;isa=vmx;reason=32;entry=clean;detail=msr.6e0;figure=exit_to_entry_ns,...    exits alone
//! #{"interval":{"start_ns":...,"length_ns":...,"totals":{...},"times":[[guest,host],[guest,host,user,polled,idle,steal],...],"number":1,...}}
//!                                                              completes an interval; with "window" one of an experiment
//! #index {"offset":[...],...}                                  where intervals begin, in a large recording
//! #{"end":{...,"intervals":1,...}}                             only where the recording ended in order
//! ```

mod adler32;
pub(crate) mod ahead;
mod bits;
mod block;
mod coverage;
mod damage;
mod encoder;
mod excerpt;
mod file;
mod fixed_huffman;
mod foreign;
pub(crate) mod hdr;
mod header;
mod huffman;
mod index;
mod index_line;
mod inflate;
mod limits;
mod lines;
mod note;
mod own_huffman;
mod provenance;
mod reader;
mod readings;
mod seal;
mod sums;
mod tag;
pub(crate) mod tape;
mod writer;

pub(crate) use coverage::{Coverage, Spans, on_one_clock};
pub(crate) use damage::damage;
pub use damage::{Damage, OnDamage};
pub(crate) use excerpt::Excerpt;
pub(crate) use file::{open_file, similar};
pub use header::{End, Header};
pub(crate) use header::{Experiment, FORMAT, Label, VERSION};
pub use limits::MaxBuckets;
pub(crate) use provenance::{Provenance, aggregation, longest_timer_delay_s, other_tracers};
pub use reader::Reader;
pub(crate) use readings::{Reading, Readings, is_same};
pub use writer::Writer;

#[cfg(test)]
pub mod tests {
    //! Tests, and made-up values for those of other modules.

    use std::collections::BTreeSet;

    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use tracer_common::{
        Event, Isa,
        detail::{RawDetail, Source},
    };

    use super::{
        limits::{LIMITS, Limits},
        *,
    };
    use crate::{
        host::{clock::Anchor, machine::Host},
        model::{
            accounting::{Accounting, CpuAccount},
            interval::{
                Interval,
                tests::{event, vm},
            },
            measurement::{Aggregation, Latency, PinSource},
            policy::Policy,
            series::{Key, Series},
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
            soft_delay: None,
            tickless_cpus: Some(String::new()),
            stopwatch: None,
            phases: true,
            detail: true,
            sites: vec![],
            missing: vec![],
            unknown: None,
            other_tracers: None,
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
        w.finish(end()).unwrap();
        bytes
    }

    /// A last line for tests.
    pub fn end() -> End {
        End {
            reason: "duration".into(),
            accounting: Accounting::default(),
            tsc_khz: None,
            policy_changed: false,
            other_tracers: None,
        }
    }

    #[test]
    fn an_exit_with_a_detail_that_began_in_the_interval_before_leaves_no_empty_series() {
        // Its own entry was in the interval before: of its reason, this interval has the exit of the detail and nothing else.
        let mut i = Interval { length_ns: 1_000_000_000, ..Interval::starting(2_000) };
        let mut after_msr = event(0, 10, 900, 0);
        after_msr.previous = event(0, 32, 5, 0).outline();
        after_msr.previous_detail = RawDetail::new(Source::of_exit(Isa::Vmx, 32), 0x6e0);
        i.record(&after_msr, &vm(0));
        i.totals = Totals { entries: 1, delivered: 1, ..Totals::default() };
        let reasons: BTreeSet<_> = i.series.keys().map(|key| (key.reason, key.detail.is_some())).collect();
        assert_eq!(reasons, [(Some(10), false), (Some(32), true)].into());
        // Whatever makes one, the reader takes the file.
        let whole = i.clone();
        i.series.insert(Key { reason: Some(12), ..Key::default() }, Series::default());
        let mut bytes = Vec::new();
        Writer::new(&mut bytes, &header()).unwrap().write(&i).unwrap();
        assert_eq!(read(&bytes).0[0].series, whole.series);
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
    fn every_prefix_tells_the_same_of_its_intervals_without_their_series() {
        let bytes = recording();
        let all = |mut reader: Reader<&[u8]>| -> (Vec<_>, Option<String>, bool, u64) {
            let mut known = Vec::new();
            let error = loop {
                match reader.read_interval() {
                    Ok(Some(i)) => known.push((i.start_ns, i.length_ns, i.totals, reader.source(), reader.has_more())),
                    Ok(None) => break None,
                    Err(error) => break Some(error.to_string()),
                }
            };
            (known, error, reader.is_torn(), reader.line())
        };
        for end in 0..=bytes.len() {
            let Ok(reader) = Reader::new(&bytes[..end]) else { continue };
            let without = all(Reader::new(&bytes[..end]).unwrap().without_series());
            assert_eq!(without, all(reader), "{end} of {} bytes", bytes.len());
        }
        // A changed byte is found by its checksum.
        let mut changed = bytes.clone();
        let at = changed.windows(4).position(|text| text == b"HIST").unwrap();
        changed[at + 20] ^= 1;
        assert!(all(Reader::new(&changed[..]).unwrap().without_series()).1.is_some_and(|e| e.contains("is damaged")));
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

    /// Reads what can be read; intervals and what was left out.
    fn skim(bytes: &[u8]) -> Result<(Vec<Interval>, Option<Damage>), String> {
        let mut reader = Reader::careful(bytes, OnDamage::Skip).map_err(|e| format!("{e:#}"))?;
        let mut intervals = Vec::new();
        while let Some(i) = reader.read_interval().map_err(|e| format!("{e:#}"))? {
            intervals.push(i);
        }
        Ok((intervals, reader.damage_of("")))
    }

    fn error(bytes: &[u8]) -> Option<String> {
        let mut reader = match Reader::new(bytes) {
            Ok(reader) => reader,
            Err(e) => return Some(format!("{e:#}")),
        };
        loop {
            match reader.read_interval() {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(e) => return Some(format!("{e:#}")),
            }
        }
    }

    /// The lines of a recording as its first writers wrote it: without checksums and numbers.
    fn unsealed(bytes: &[u8]) -> Vec<String> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let without = |line: &str| {
            let mut line = line.to_owned();
            for field in [",\"crc32\":", ",\"number\":", ",\"intervals\":"] {
                if let Some(at) = line.rfind(field) {
                    let digits = line[at + field.len()..].bytes().take_while(u8::is_ascii_digit).count();
                    line.replace_range(at..at + field.len() + digits, "");
                }
            }
            line
        };
        text.split_inclusive('\n').map(without).collect()
    }

    #[test]
    fn a_recording_without_checksums_is_read_and_a_line_that_changes_its_sums_is_found() {
        let lines = unsealed(&recording());
        let whole = skim(lines.concat().as_bytes()).unwrap();
        assert_eq!(whole, (read(&recording()).0, None));
        let mut found = 0;
        for at in 1..lines.len() {
            let mut twice = lines.clone();
            twice.insert(at, lines[at].clone());
            let mut without = lines.clone();
            without.remove(at);
            let of_figure = |name: &str| lines[at].contains(name);
            if lines[at].starts_with("Tag=") {
                assert!(error(twice.concat().as_bytes()).unwrap().contains("twice"), "{}", lines[at]);
                if of_figure("entry_to_exit_ns") || of_figure("pin_writes") {
                    assert!(error(without.concat().as_bytes()).is_some(), "{}", lines[at]);
                    found += 1;
                }
            } else if lines[at].starts_with("#{\"vm\"") {
                assert!(error(twice.concat().as_bytes()).unwrap().contains("twice"));
            }
        }
        assert!(found > 10, "{found}");
    }

    #[test]
    fn a_lost_doubled_or_moved_line_is_found_by_its_number_and_costs_its_interval_only() {
        let bytes = recording();
        let lines: Vec<_> = bytes.split_inclusive(|&b| b == b'\n').collect();
        let whole = read(&bytes).0;
        let check = |changed: Vec<&[u8]>, what: &str, at: usize| {
            let changed = changed.concat();
            let message = error(&changed).unwrap_or_default();
            let last = at + 1 == lines.len();
            assert!(last && what == "lost" || message.contains("--skip-damaged"), "line {at} {what}: {message}");
            let (intervals, damage) = skim(&changed).unwrap();
            // The name of a VM is lost with its line.
            let same =
                |a: &Interval, b: &Interval| (a.start_ns, a.totals, &a.series) == (b.start_ns, b.totals, &b.series);
            assert!(intervals.iter().all(|i| whole.iter().any(|w| same(i, w))), "line {at} {what}");
            // Without the line between them, two intervals are one that does not add up.
            let between = lines[at - 1..=at].iter().any(|line| line.starts_with(b"#{\"interval\""));
            assert!(whole.len() - intervals.len() <= 1 + usize::from(between), "line {at} {what}");
            // Behind the last whole interval, only the last line tells how many there were.
            if let Some(damage) = damage.filter(|_| at + 2 < lines.len()) {
                assert_eq!(damage.intervals, (whole.len() - intervals.len()) as u64, "line {at} {what}: {damage:?}");
            }
        };
        for at in 1..lines.len() {
            let (mut lost, mut doubled, mut swapped) = (lines.clone(), lines.clone(), lines.clone());
            lost.remove(at);
            check(lost, "lost", at);
            doubled.insert(at, lines[at]);
            check(doubled, "doubled", at);
            if at > 1 && lines[at - 1] != lines[at] {
                swapped.swap(at - 1, at);
                check(swapped, "swapped", at);
            }
        }
        // A whole interval cut out, its last line included.
        let ends: Vec<_> = (0..lines.len()).filter(|&n| lines[n].starts_with(b"#{\"interval\"")).collect();
        let cut_out = [&lines[..=ends[0]], &lines[ends[1] + 1..]].concat().concat();
        assert!(error(&cut_out).unwrap().contains("interval 3 comes after interval 1"));
        assert_eq!(skim(&cut_out).unwrap().1.unwrap().intervals, 1);
        // The file ends early, but has its last line.
        let shortened = [&lines[..=ends[1]], &lines[lines.len() - 1..]].concat().concat();
        assert!(error(&shortened).unwrap().contains("the recording has 3 intervals, and this file 2"));
        assert_eq!(skim(&shortened).unwrap().1.unwrap().intervals, 1);
    }

    #[test]
    fn a_damaged_line_is_an_error_with_its_number() {
        let text = String::from_utf8(recording()).unwrap().replacen(",HISTFAAA", ",HISTXAAA", 1);
        let mut reader = Reader::new(text.as_bytes()).unwrap();
        let message = format!("{:#}", reader.read_interval().err().unwrap());
        assert!(message.starts_with("line "), "{message}");
    }

    /// An interval of so many series of one entry each.
    fn of_series(n: u32) -> Interval {
        let mut i = Interval { length_ns: 5, ..Interval::starting(2_000) };
        for vcpu in 0..n {
            i.record(&Event { exit_to_entry_ns: Event::UNKNOWN_NS, ..event(vcpu, 10, 900, 1) }, &vm(0));
        }
        let entries = u64::from(n);
        i.totals = Totals { entries: entries + 3, delivered: entries, dropped: 3, ..i.totals };
        i
    }

    /// Writes an interval within the limits and reads it again within them: all intervals read, and their merge.
    fn through(interval: &Interval, limits: Limits) -> Result<(usize, Interval), String> {
        let mut bytes = Vec::new();
        let mut writer = Writer::with_limits(&mut bytes, &header(), limits).map_err(|e| e.to_string())?;
        writer.write(interval).map_err(|e| e.to_string())?;
        let mut reader = Reader::with_limits(bytes.as_slice(), OnDamage::Refuse, limits).unwrap();
        let (mut parts, mut whole) = (0, Interval::default());
        while let Some(part) = reader.read_interval().unwrap() {
            assert_eq!(reader.continues(), parts > 0);
            parts += 1;
            whole.merge(&part);
        }
        assert!(!reader.is_torn() && !reader.has_more());
        Ok((parts, whole))
    }

    #[test]
    fn a_header_over_the_limit_is_called_that() {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes, &header()).unwrap().write(&of_series(1)).unwrap();
        let length = bytes.iter().position(|&b| b == b'\n').unwrap() + 1;
        let first = length as u64;
        let read = |bytes: &[u8], line| {
            let limits = Limits { line, ..LIMITS };
            Reader::with_limits(bytes, OnDamage::Refuse, limits).map(|_| ()).map_err(|e| e.to_string())
        };
        assert_eq!(read(&bytes, first), Ok(()));
        assert!(read(&bytes, first - 1).unwrap_err().contains(&format!("more than {} bytes, the limit", first - 1)));
        assert!(read(&bytes[..length / 2], first).unwrap_err().contains("cut off or damaged"));
        assert!(read(&vec![b'x'; 500], 400).unwrap_err().contains("not a vmentry recording"));
    }

    #[test]
    fn the_writer_keeps_each_limit_of_the_reader() {
        // One pin write and one guest time of every series: two buckets.
        for n in [0, 1, 2, 3, 4, 5, 9] {
            let interval = of_series(n);
            for most in 1..6 {
                let limits = Limits { series: most, ..LIMITS };
                let parts = (n as usize).div_ceil(most).max(1);
                assert_eq!(through(&interval, limits).unwrap(), (parts, interval.clone()), "{n} series, {most} each");
                let limits = Limits { buckets: 2 * most, ..LIMITS };
                assert_eq!(through(&interval, limits).unwrap(), (parts, interval.clone()), "{n} series, {most} each");
                let limits = Limits { buckets: 2 * most + 1, ..LIMITS };
                assert_eq!(through(&interval, limits).unwrap().0, parts);
            }
        }
        let interval = of_series(4);
        let all: u64 = 4 * 2 + interval.totals.counts().sum::<u64>();
        assert_eq!(through(&interval, Limits { counts: all, ..LIMITS }).unwrap(), (1, interval.clone()));
        assert!(through(&interval, Limits { counts: all - 1, ..LIMITS }).unwrap_err().contains("add up to more than"));
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).unwrap();
        writer.write(&interval).unwrap();
        let longest = bytes.split_inclusive(|&b| b == b'\n').map(<[u8]>::len).max().unwrap() as u64;
        assert_eq!(through(&interval, Limits { line: longest, ..LIMITS }).unwrap(), (1, interval.clone()));
        assert!(through(&interval, Limits { line: longest - 1, ..LIMITS }).unwrap_err().contains("line"));
    }

    /// A recording of two intervals of three series, each in three parts.
    fn split() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::with_limits(&mut bytes, &header(), Limits { series: 1, ..LIMITS }).unwrap();
        for start_ns in [2_000, 3_000] {
            writer.write(&Interval { start_ns, ..of_series(3) }).unwrap();
        }
        drop(writer);
        bytes
    }

    #[test]
    fn the_parts_of_an_interval_are_joined() {
        let bytes = split();
        let mut reader = Reader::new(bytes.as_slice()).unwrap();
        for start_ns in [2_000, 3_000] {
            assert_eq!(reader.read_joined().unwrap().unwrap(), Interval { start_ns, ..of_series(3) });
        }
        assert!(reader.read_joined().unwrap().is_none());
    }

    #[test]
    fn an_interval_after_a_damaged_part_goes_on_with_nothing() {
        let text = String::from_utf8(split()).unwrap();
        // The last part of the first interval is the one that nothing goes on with.
        let end = text.lines().find(|line| line.contains("\"number\":3")).unwrap();
        let damaged = text.replace(end, &end.replace("\"number\":3", "\"number\":X"));
        let mut reader = Reader::careful(damaged.as_bytes(), OnDamage::Skip).unwrap();
        let first = reader.read_joined().unwrap().unwrap();
        assert_eq!((first.start_ns, first.length_ns, first.series.len()), (2_000, 5, 2));
        assert!(!reader.continues());
        assert_eq!(reader.read_joined().unwrap().unwrap(), Interval { start_ns: 3_000, ..of_series(3) });
        assert!(reader.read_joined().unwrap().is_none());
        assert_eq!(reader.damage_of("").unwrap().intervals, 1);
    }

    #[test]
    fn an_interval_that_does_not_add_up_is_not_written() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, &header()).unwrap();
        let mut odd = interval(2_000);
        odd.totals.delivered += 1;
        assert!(writer.write(&odd).unwrap_err().to_string().contains("does not add up"));
        writer.write(&interval(2_000)).unwrap();
        drop(writer);
        assert_eq!(read(&bytes).0, [interval(2_000)]);
    }

    #[test]
    fn a_recorder_that_dies_before_its_first_interval_writes_nothing() {
        let mut bytes = Vec::new();
        drop(Writer::new(&mut bytes, &header()).unwrap());
        assert!(bytes.is_empty());
    }

    #[test]
    fn hdr_tools_open_a_recording() {
        let bytes = recording();
        let histograms = IntervalLogIterator::new(&bytes).filter(|e| matches!(e, Ok(LogEntry::Interval(_)))).count();
        assert!(IntervalLogIterator::new(&bytes).all(|e| e.is_ok()));
        assert_eq!(histograms, bytes.windows(4).filter(|w| w == b"Tag=").count());
    }

    /// A recording of two intervals that began at another moment; its end accounts for so many entries more than it has.
    fn accounted(unix_ns: u64, more: u64) -> Vec<u8> {
        let (mut bytes, mut header) = (Vec::new(), header());
        header.anchor.unix_ns += unix_ns;
        let mut writer = Writer::new(&mut bytes, &header).unwrap();
        [2_000, 3_000].iter().for_each(|start| writer.write(&interval(*start)).unwrap());
        let cpu = CpuAccount { cpu: 0, entries: 2 * 205 + more, delivered: 2 * 201 + more, dropped: 2 * 4 };
        let accounting = Accounting { exact: true, cpus: vec![cpu], ..Accounting::default() };
        let reason = "duration".into();
        writer.finish(End { reason, accounting, tsc_khz: None, policy_changed: false, other_tracers: None }).unwrap();
        bytes
    }

    #[test]
    fn the_intervals_are_held_against_the_accounting_at_the_end() {
        assert_eq!(read(&accounted(0, 0)).0.len(), 2);
        let odd = accounted(0, 60);
        assert!(error(&odd).unwrap().contains("the intervals have 410 entries, and the recording had 470"));
        let (intervals, damage) = skim(&odd).unwrap();
        assert_eq!((intervals.len(), damage.unwrap().intervals), (2, 0));
        // Without checksums and numbers nothing else shows that an interval is lost.
        let old = unsealed(&accounted(0, 0)).concat();
        assert_eq!(read(old.as_bytes()).0.len(), 2);
        let first = old.find("Tag=").unwrap();
        let second = old.find("#{\"interval\"").unwrap();
        let second = second + old[second..].find('\n').unwrap() + 1;
        assert!(error((old[..first].to_owned() + &old[second..]).as_bytes()).unwrap().contains("had 410"));
    }

    #[test]
    fn no_line_of_another_recording_passes() {
        let (a, b) = (accounted(0, 0), accounted(1, 0));
        let header_of = |bytes: &[u8]| bytes.iter().position(|&b| b == b'\n').unwrap() + 1;
        let spliced = [&a[..header_of(&a)], &b[header_of(&b)..]].concat();
        assert!(error(&spliced).unwrap().contains("checksum"));
    }

    #[test]
    fn a_split_interval_without_its_first_part_is_left_out() {
        let mut bytes = Vec::new();
        let limits = Limits { series: 2, ..LIMITS };
        let mut writer = Writer::with_limits(&mut bytes, &header(), limits).unwrap();
        writer.write(&of_series(4)).unwrap();
        writer.write(&of_series(1)).unwrap();
        drop(writer);
        let text = String::from_utf8(bytes).unwrap();
        let damaged = text.replacen("\"start_ns\":2000", "\"start_ns\":2001", 1);
        let (intervals, damage) = skim(damaged.as_bytes()).unwrap();
        assert_eq!((intervals.len(), intervals[0].length_ns, damage.unwrap().intervals), (1, 5, 2));
    }
}
