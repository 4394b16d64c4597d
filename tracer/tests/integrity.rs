//! Damaged recordings: no changed byte changes a figure in silence. The package `fuzz` looks for panics, time and memory.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test: an error is a failure, and nobody imports it")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngSeed, TestRunner},
};
use tracer_common::{Event, Flags};
use vmentry::{
    model::{
        accounting::Accounting,
        figures::Column,
        interval::{Interval, Vm},
    },
    recording::{End, OnDamage, Reader, Writer},
    report::{Dimension, Report, View, input::read_from, json},
};

const LAB: &[u8] = include_bytes!("data/lab.hlog");
/// Runs a property, for some seconds at most unless the number of cases was asked for.
fn check<S: Strategy>(cases: u32, strategy: S, property: impl Fn(S::Value)) {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    let config = Config { failure_persistence: None, rng_seed: RngSeed::Fixed(804_939), ..Config::default() };
    let config = Config { cases: if asked { config.cases } else { cases }, ..config };
    let start = Instant::now();
    let result = TestRunner::new(config).run(&strategy, |value| {
        if asked || start.elapsed() < Duration::from_secs(3) {
            property(value);
        }
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
}

fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split_inclusive(|&b| b == b'\n').map(<[u8]>::to_vec).collect()
}

/// Intervals of [`whole`].
const INTERVALS: u32 = 4;

/// A recording that ended in order. Interval n has 2^n entries, so that a sum tells which intervals are in it.
fn whole() -> Vec<u8> {
    let header = Reader::new(LAB).unwrap().header().clone();
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, &header).unwrap();
    let vm = |id| Arc::new(Vm { id, name: format!("web{id}"), tgid: 5 + id, start_ticks: 7, ..Vm::default() });
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
    let error = read_from(&bytes, "x".into(), OnDamage::Refuse, &mut Report::default()).unwrap_err();
    assert!(format!("{error:#}").contains("longer than"), "{error:#}");
}
