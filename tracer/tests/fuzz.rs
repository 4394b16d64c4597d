//! Damaged and hostile input: recordings, events, triggers. Nothing panics, loops, or takes memory without bound.
//! PROPTEST_CASES=100000 makes it long; the seed is fixed, so that a failure comes again.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test: an error is a failure, and nobody imports it")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    io::{Read, Write},
    sync::Arc,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngSeed, TestRunner},
};
use tracer_common::{Event, Flags, Record};
use vmentry::{
    model::{
        accounting::Accounting,
        figures::Column,
        interval::{Interval, Vm},
    },
    recording::{End, OnDamage, Reader, Writer},
    report::{Dimension, Report, View, claims, input::read_from, json, text},
    trace::trigger::Clause,
};

/// Counts allocated bytes.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged, and the counters are atomics, which do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller promises a layout of nonzero size, which is all that the system's allocator demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller promises that `alloc` returned `at` for this layout, and `alloc` had it from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LAB: &[u8] = include_bytes!("data/lab.hlog");
/// Far more than a recording of some kilobytes can need, far less than a length that lies asks for.
const MOST_MEMORY: usize = 256 << 20;

/// Runs a property, for some seconds at most unless the number of cases was asked for.
fn check<S: Strategy>(cases: u32, strategy: S, property: impl Fn(S::Value)) {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let config = Config { failure_persistence: None, rng_seed: RngSeed::Fixed(804_939), ..Config::default() };
    let config = Config { cases: if asked { config.cases } else { cases }, ..config };
    let start = Instant::now();
    let ran = AtomicUsize::new(0);
    let result = TestRunner::new(config).run(&strategy, |value| {
        if asked || start.elapsed() < Duration::from_secs(3) {
            property(value);
            ran.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
    // Seen with --nocapture: how much of it the time allowed.
    println!("{} cases in {:.1} s", ran.into_inner(), start.elapsed().as_secs_f64());
}

/// A recording of little: two intervals of every kind of line.
fn small() -> Vec<u8> {
    let header = Reader::new(LAB).unwrap().header().clone();
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &header).unwrap();
    let vm = Arc::new(Vm { id: 0, name: "web".into(), tgid: 5, start_ticks: 7, ordinal: 0, uid: None, host: None });
    for at in [1_000, 2_000] {
        let mut interval = Interval::starting(at);
        interval.length_ns = 1_000;
        let known = Flags::REASON_KNOWN | Flags::PIN_WRITES_KNOWN | Flags::SOFT_KNOWN | Flags::IMMEDIATE_KNOWN;
        for (exit_reason, pin_writes) in [(52, 2), (10, 0), (12, 1)] {
            let mut event = Event {
                entry_ns: at,
                exit_ns: at + 50,
                seq: 1,
                exit_reason,
                flags: known,
                isa: 1,
                pin_writes,
                ..Event::default()
            };
            event.previous = event.outline();
            interval.record(&event, &vm);
        }
        interval.totals.entries = 3;
        interval.totals.delivered = 3;
        writer.write(&interval).unwrap();
    }
    bytes
}

#[derive(Clone, Debug)]
enum Damage {
    Cut(Index),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, u8),
    Splice(Index, Index),
    Repeat(Index, u8),
    Swap(Index, Index),
    /// the n-th number becomes one that is absurd
    Number(Index, &'static str),
    /// bytes of a histogram as encoded
    Encoded(Index, Index, u8),
    /// bytes of a histogram below the deflate
    Histogram(Index, Index, Vec<u8>),
    /// one of the ten words before a histogram's counts, or the first of these
    Word(Index, u8, u32),
    Deep(Index, u16),
}

fn damage() -> impl Strategy<Value = Damage> {
    let i = || any::<Index>();
    let absurd = prop::sample::select(vec![
        "18446744073709551615",
        "9223372036854775807",
        "9007199254740993",
        "4294967295",
        "-1",
        "1e308",
        "1e999",
        "0",
        "0.5",
        "null",
        "\"x\"",
        "[]",
    ]);
    let bytes = || prop::collection::vec(any::<u8>(), 1..12);
    let odd = prop_oneof![
        bytes(),
        Just(vec![0xff; 9]),
        Just(vec![0xff, 0xff, 0xff, 0xff]),
        Just(vec![0x80; 8]),
        Just(vec![0; 8])
    ];
    prop_oneof![
        1 => i().prop_map(Damage::Cut),
        2 => (i(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        1 => (i(), bytes()).prop_map(|(at, b)| Damage::Insert(at, b)),
        1 => (i(), any::<u8>()).prop_map(|(at, n)| Damage::Remove(at, n)),
        1 => (i(), i()).prop_map(|(a, b)| Damage::Splice(a, b)),
        2 => (i(), 1..40u8).prop_map(|(at, n)| Damage::Repeat(at, n)),
        1 => (i(), i()).prop_map(|(a, b)| Damage::Swap(a, b)),
        5 => (i(), absurd).prop_map(|(at, n)| Damage::Number(at, n)),
        2 => (i(), i(), any::<u8>()).prop_map(|(l, at, b)| Damage::Encoded(l, at, b)),
        5 => (i(), i(), odd).prop_map(|(l, at, b)| Damage::Histogram(l, at, b)),
        3 => (i(), 0..12u8, prop::sample::select(vec![0, 1, 2, 3, 5, 255, 1 << 30, 0xfff_ffff, u32::MAX])).prop_map(|(l, at, n)| Damage::Word(l, at, n)),
        1 => (i(), any::<u16>()).prop_map(|(at, n)| Damage::Deep(at, n)),
    ]
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|&b| b == b'\n').map(<[u8]>::to_vec).collect()
}

/// A line's histogram, decoded by `way` and encoded again.
fn with_histogram(bytes: &[u8], which: &Index, way: impl Fn(Vec<u8>) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut lines = lines(bytes);
    let with: Vec<_> = (0..lines.len()).filter(|&n| lines[n].starts_with(b"Tag=")).collect();
    let line = lines.get_mut(*with.get(which.index(with.len().max(1)))?)?;
    let comma = line.iter().rposition(|&b| b == b',')?;
    let encoded = String::from_utf8_lossy(&line[comma + 1..]).trim().to_owned();
    let changed = way(STANDARD.decode(encoded).ok()?)?;
    line.truncate(comma + 1);
    line.extend(STANDARD.encode(changed).bytes().chain(*b"\n"));
    Some(lines.concat())
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (place, byte) in bytes.iter_mut().skip(at).zip(with) {
        *place = *byte;
    }
}

/// Returns an encoded histogram after a change to its deflated content.
fn inflated(histogram: Vec<u8>, change: impl Fn(&mut Vec<u8>)) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    ZlibDecoder::new(histogram.get(8..)?).take(1 << 20).read_to_end(&mut plain).ok()?;
    change(&mut plain);
    let mut deflated = ZlibEncoder::new(histogram[..8].to_vec(), Compression::fast());
    deflated.write_all(&plain).ok()?;
    let mut all = deflated.finish().ok()?;
    all[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    Some(all)
}

fn damaged(bytes: &[u8], damage: &Damage) -> Option<Vec<u8>> {
    if bytes.is_empty() {
        return None;
    }
    let mut out = bytes.to_vec();
    match damage {
        Damage::Cut(at) => out.truncate(at.index(bytes.len())),
        Damage::Flip(at, bit) => out[at.index(bytes.len())] ^= 1 << bit,
        Damage::Insert(at, with) => {
            drop(out.splice(at.index(bytes.len())..at.index(bytes.len()), with.iter().copied()))
        }
        Damage::Remove(at, n) => {
            let at = at.index(bytes.len());
            out.drain(at..(at + usize::from(*n)).min(bytes.len()));
        }
        Damage::Splice(a, b) => {
            out.truncate(a.index(bytes.len()));
            out.extend(&LAB[b.index(LAB.len())..]);
        }
        Damage::Repeat(line, n) => {
            let mut lines = lines(bytes);
            let at = line.index(lines.len());
            let again = vec![lines[at].clone(); usize::from(*n)];
            lines.splice(at..at, again);
            out = lines.concat();
        }
        Damage::Swap(a, b) => {
            let mut lines = lines(bytes);
            let (a, b) = (a.index(lines.len()), b.index(lines.len()));
            lines.swap(a, b);
            out = lines.concat();
        }
        Damage::Number(which, absurd) => {
            // Not those of the header, which are many.
            let header = bytes.iter().position(|&b| b == b'\n').unwrap_or(0);
            let begins = |n: &usize| bytes[*n].is_ascii_digit() && b":=[,;".contains(&bytes[n - 1]);
            let numbers: Vec<_> = (header + 1..bytes.len()).filter(begins).collect();
            let at = *numbers.get(which.index(numbers.len().max(1)))?;
            let end = at + bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
            out.splice(at..end, absurd.bytes());
        }
        Damage::Encoded(line, at, byte) => {
            return with_histogram(bytes, line, |mut histogram| {
                let at = at.index(histogram.len().max(1));
                overwrite(&mut histogram, at, &[*byte]);
                Some(histogram)
            });
        }
        Damage::Histogram(line, at, with) => {
            return with_histogram(bytes, line, |histogram| {
                inflated(histogram, |plain| {
                    let at = at.index(plain.len() + 1);
                    plain.resize(plain.len().max(at + with.len()), 0);
                    overwrite(plain, at, with);
                })
            });
        }
        Damage::Word(line, at, word) => {
            return with_histogram(bytes, line, |histogram| {
                inflated(histogram, |plain| overwrite(plain, 4 * usize::from(*at), &word.to_be_bytes()))
            });
        }
        Damage::Deep(at, n) => {
            let deep = [b"#{\"vm\":".as_slice(), &b"[".repeat(usize::from(*n)), b"\n"].concat();
            let mut lines = lines(bytes);
            lines.insert(at.index(lines.len()), deep);
            out = lines.concat();
        }
    }
    Some(out)
}

/// All that is done with a recording: read, merged with itself, shown in every way.
fn consume(bytes: &[u8]) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let mut report = Report::default();
    for name in ["a", "b"] {
        // What was read before an error is shown nevertheless.
        let _ = read_from(bytes, name.into(), OnDamage::Refuse, &mut report);
    }
    for by in [vec![Dimension::Vm, Dimension::Level, Dimension::Reason], vec![Dimension::Cause, Dimension::Entry]] {
        let view = View { by, filters: vec![], sort: Column::Entries, top: None };
        let _ = text::render(&report, &view);
        let _ = json::render(&report, &view, None).to_string();
    }
    let evidence = claims::Evidence { whole: report, by_policy: BTreeMap::new() };
    let _ = claims::text(&evidence);
    let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    assert!(peak < MOST_MEMORY + 4 * bytes.len(), "{peak} bytes for a file of {}", bytes.len());
}

#[test]
fn a_damaged_recording_is_read_or_refused() {
    let (small, lab) = (small(), LAB.to_vec());
    // The undamaged ones are read to their end.
    for whole in [&small, &lab] {
        read_from(whole.as_slice(), "x".into(), OnDamage::Refuse, &mut Report::default()).unwrap();
    }
    check(600, (any::<bool>(), prop::collection::vec(damage(), 1..5)), |(of_lab, damages)| {
        let mut bytes = if of_lab { lab.clone() } else { small.clone() };
        for d in &damages {
            bytes = damaged(&bytes, d).unwrap_or(bytes);
        }
        consume(&bytes);
    });
}

/// Intervals of [`whole`].
const INTERVALS: u32 = 4;

/// A recording that ended in order. Interval n has 2^n entries, so that a sum tells which intervals are in it.
fn whole() -> Vec<u8> {
    let header = Reader::new(LAB).unwrap().header().clone();
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &header).unwrap();
    let vm = |id| {
        Arc::new(Vm { id, name: format!("web{id}"), tgid: 5 + id, start_ticks: 7, ordinal: 0, uid: None, host: None })
    };
    for n in 0..INTERVALS {
        let mut interval = Interval::starting(u64::from(n) * 1_000);
        interval.length_ns = 1_000;
        let known = Flags::REASON_KNOWN | Flags::PIN_WRITES_KNOWN | Flags::SOFT_KNOWN | Flags::IMMEDIATE_KNOWN;
        for at in 0..1 << n {
            let (exit_reason, pin_writes) = [(52, 2), (10, 0), (12, 1)][at % 3];
            let exit_ns = 50 << at;
            let mut event =
                Event { exit_ns, seq: 1, exit_reason, flags: known, isa: 1, pin_writes, ..Event::default() };
            event.previous = event.outline();
            interval.record(&event, &vm(n % 2));
        }
        (interval.totals.entries, interval.totals.delivered) = (1 << n, 1 << n);
        writer.write(&interval).unwrap();
    }
    let accounting = Accounting { exact: true, ..Accounting::default() };
    let end = End { reason: "duration".into(), accounting, tsc_khz: None, policy_changed: false, other_tracers: None };
    writer.finish(end).unwrap();
    bytes
}

/// What a report says about a recording: its figures; whether it has its last line; what was left out.
type Said = (serde_json::Value, bool, Option<u64>);

fn said(bytes: &[u8], on_damage: OnDamage) -> Option<Said> {
    let mut report = Report::default();
    read_from(bytes, "x".into(), on_damage, &mut report).ok()?;
    // A VM's name is lost with its line, and its entries are not.
    let by = vec![Dimension::Vcpu, Dimension::Level, Dimension::Reason, Dimension::Entry, Dimension::Cause];
    let view = View { by: by.clone(), filters: vec![], sort: Column::Entries, top: None };
    let json = json::render(&report, &view, Some(&by));
    let figures = serde_json::json!([json["totals"], json["series"], json["policy"], json["host"], json["length_ns"]]);
    let source = &report.sources[0];
    Some((figures, source.end.is_some(), source.damage.first().map(|damage| damage.intervals)))
}

/// The figures of some intervals of [`whole`]: those whose bits are set.
fn figures_of(intervals: u32) -> serde_json::Value {
    let bytes = whole();
    let lines = lines(&bytes);
    let mut kept = lines[..1].to_vec();
    let mut n = 0;
    for line in &lines[1..] {
        let is_vm = line.starts_with(b"#{\"vm\"");
        if is_vm || n < INTERVALS && intervals >> n & 1 == 1 {
            kept.push(line.clone());
        }
        n += u32::from(line.starts_with(b"#{\"interval\""));
    }
    said(&kept.concat(), OnDamage::Skip).unwrap().0
}

/// Holds a report on a changed recording against those on its intervals: nothing else is ever said in silence.
fn is_true(changed: &[u8], of: &BTreeMap<u32, serde_json::Value>, header_end: usize, at: usize) {
    let all = (1 << INTERVALS) - 1;
    let which =
        |figures: &serde_json::Value| of.iter().find(|(_, known)| *known == figures).map(|(intervals, _)| *intervals);
    if let Some((figures, ended, damage)) = said(changed, OnDamage::Refuse) {
        let intervals = which(&figures).unwrap_or_else(|| panic!("byte {at}: other figures in silence"));
        assert!(intervals.trailing_ones() == intervals.count_ones(), "byte {at}: {intervals:b} in silence");
        assert!(damage.is_none() && (!ended || intervals == all), "byte {at}: {intervals:b} as if whole");
    }
    match said(changed, OnDamage::Skip) {
        Some((figures, ended, damage)) if at >= header_end => {
            let intervals = which(&figures).unwrap_or_else(|| panic!("byte {at}: other figures"));
            let left_out = u64::from(INTERVALS - intervals.count_ones());
            assert!(!ended || damage.unwrap_or(0) == left_out, "byte {at}: {left_out} left out, {damage:?} said");
            assert!(left_out <= 2, "byte {at}: {intervals:b} of what is whole");
        }
        Some((_, _, damage)) => assert!(damage.is_some(), "byte {at}: a changed header in silence"),
        None => assert!(at < header_end, "byte {at}: nothing can be had"),
    }
}

fn every_figure() -> BTreeMap<u32, serde_json::Value> {
    (0..1 << INTERVALS).map(|intervals| (intervals, figures_of(intervals))).collect()
}

#[test]
fn no_block_of_zeros_anywhere_changes_a_figure_in_silence() {
    let (whole, of) = (whole(), every_figure());
    let header_end = whole.iter().position(|&b| b == b'\n').unwrap() + 1;
    for (length, step) in [(1, 23), (16, 29), (512, 31)] {
        for at in (0..whole.len()).step_by(step) {
            let mut changed = whole.clone();
            let end = whole.len().min(at + length);
            changed[at..end].fill(0);
            // A block costs the lines that it is in.
            if length < 512 || at < header_end {
                is_true(&changed, &of, header_end, at);
            } else if let Some((figures, ended, _)) = said(&changed, OnDamage::Refuse) {
                assert!(!ended && of.values().any(|known| *known == figures), "byte {at}: other figures in silence");
            }
        }
    }
}

#[test]
fn no_changed_bit_changes_a_figure_in_silence() {
    let (whole, of) = (whole(), every_figure());
    let header_end = whole.iter().position(|&b| b == b'\n').unwrap() + 1;
    check(600, (any::<Index>(), 0..8u8), |(at, bit)| {
        let mut changed = whole.clone();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        is_true(&changed, &of, header_end, at);
    });
}

#[test]
fn a_block_of_zeros_in_a_recording_without_checksums_changes_no_sum_in_silence() {
    let whole = said(LAB, OnDamage::Refuse).unwrap().0;
    for at in (0..LAB.len()).step_by(64) {
        let mut changed = LAB.to_vec();
        changed[at..LAB.len().min(at + 512)].fill(0);
        if let Some((figures, ended, _)) = said(&changed, OnDamage::Refuse) {
            assert!(!ended || figures == whole, "byte {at}");
        }
    }
}

#[test]
fn a_line_without_end_is_refused() {
    let line = vec![b'7'; 64 << 20];
    let bytes = [LAB, &line].concat();
    let error = read_from(bytes.as_slice(), "x".into(), OnDamage::Refuse, &mut Report::default()).unwrap_err();
    assert!(format!("{error:#}").contains("longer than"), "{error:#}");
}

#[test]
fn random_bytes_after_a_header_are_read_or_refused() {
    let header_end = LAB.iter().position(|&b| b == b'\n').unwrap() + 1;
    let word = prop_oneof![
        any::<u8>().prop_map(|b| vec![b]),
        prop::sample::select(vec![
            "Tag=",
            "vm=0;",
            "#{\"interval\":",
            "#{\"end\":",
            "#[",
            "\n",
            ",",
            "HISTFAAA",
            "0.000,",
            "{",
            "}",
            "\"totals\":"
        ])
        .prop_map(|s| s.as_bytes().to_vec()),
    ];
    check(600, (any::<bool>(), prop::collection::vec(word, 0..200)), |(with_header, words)| {
        let start = if with_header { &LAB[..header_end] } else { &[] };
        consume(&[start, &words.concat()].concat());
    });
}

#[test]
fn any_bytes_are_an_event_or_none() {
    let event =
        prop_oneof![prop::collection::vec(any::<u8>(), Record::SIZE), prop::collection::vec(any::<u8>(), 0..200)];
    let vm = Arc::new(Vm { id: 0, name: "x".into(), tgid: 1, start_ticks: 0, ordinal: 0, uid: None, host: None });
    check(2000, event, |bytes| {
        let Some(event) = Event::decode(&bytes) else { return };
        let _ = event.entry_to_exit_ns();
        Interval::starting(0).record(&event, &vm);
        let trigger: Clause = "pin_writes>1,reason=HLT,cause=spurious,level=L2,entry_to_exit_ns<1s".parse().unwrap();
        let _ = trigger.matches(&event);
        let mut trace = vmentry::trace::perfetto::Trace::new(Vec::new(), Reader::new(LAB).unwrap().header()).unwrap();
        let vm_event = vmentry::trace::vm_event::VmEvent { vm: 0, event };
        trace.write([vm_event, vm_event], &BTreeMap::new()).unwrap();
    });
}

#[test]
fn any_text_is_a_trigger_or_an_error_that_says_why() {
    let word = prop::sample::select(vec![
        "entry_to_exit_ns",
        "exit_to_entry_ns",
        "pin_writes",
        "reason",
        "cause",
        "entry",
        "level",
        ">",
        "<",
        "=",
        ",",
        "1",
        "ms",
        "-",
        "1e400",
        "nan",
        "HLT",
        "0x",
        "spurious",
        "é",
        " ",
        "0x7fffffffffff",
        "L2",
    ]);
    let text = prop_oneof![prop::collection::vec(word, 0..8).prop_map(|w| w.concat()), ".{0,40}"];
    check(4000, text, |text| {
        if let Err(error) = text.parse::<Clause>() {
            assert!(!error.is_empty());
        }
    });
}
