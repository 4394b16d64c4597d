use super::*;
use crate::{
    model::{
        interval::tests::{event, vm},
        totals::Totals,
    },
    recording::{
        Writer,
        limits::{LIMITS, Limits},
        tests::{end, header},
    },
};

const SECOND_NS: u64 = 1_000_000_000;
/// A recording of any size has an index.
const INDEXED: Limits = Limits { unindexed: 0, ..LIMITS };

/// A recording of ten seconds.
fn recording(limits: Limits) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::with_limits(&mut bytes, &header(), limits).unwrap();
    for n in 0..10 {
        let mut interval = Interval { length_ns: SECOND_NS, ..Interval::starting(n * SECOND_NS) };
        // Each VM begins later than the one before.
        (0..=u32::try_from(n / 3).unwrap()).for_each(|vcpu| interval.record(&event(vcpu, 10, 900 + n, 1), &vm(vcpu)));
        let entries = n / 3 + 1;
        interval.totals = Totals { entries, delivered: entries, ..interval.totals };
        writer.write(&interval).unwrap();
    }
    writer.finish(end()).unwrap();
    bytes
}

fn open_bytes(bytes: &[u8], on_damage: OnDamage) -> Tape {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tape.hlog");
    std::fs::write(&path, bytes).unwrap();
    let tape = Tape::open(&path, on_damage).unwrap();
    while !lock(&tape.index).is_complete {
        std::thread::yield_now();
    }
    tape
}

/// A tape of ten seconds whose intervals are all known.
fn tape(change: impl Fn(&mut String), on_damage: OnDamage) -> Tape {
    let mut text = String::from_utf8(recording(LIMITS)).unwrap();
    change(&mut text);
    open_bytes(text.as_bytes(), on_damage)
}

fn is_claimed(tape: &Tape) -> bool {
    lock(&tape.index).is_claimed()
}

fn second(interval: &Interval) -> u64 {
    interval.start_ns / SECOND_NS
}

/// The second of a jump's interval, and those of all before.
fn jump(tape: &mut Tape, to: Seek) -> (u64, Vec<u64>) {
    let at = second(&tape.seek(to).unwrap().unwrap().0);
    let mut before = Vec::new();
    while let Some(interval) = tape.earlier().unwrap() {
        before.push(second(&interval));
    }
    (at, before)
}

fn next(tape: &mut Tape) -> Option<u64> {
    tape.next().unwrap().as_ref().map(second)
}

#[test]
fn a_tape_plays_every_interval_and_jumps_to_any_moment() {
    for limits in [LIMITS, INDEXED] {
        let mut tape = open_bytes(&recording(limits), OnDamage::Refuse);
        assert_eq!(is_claimed(&tape), limits.unindexed == 0);
        // 6 is read, and 5 is still on the screen.
        assert_eq!((0..7).map(|_| next(&mut tape).unwrap()).max(), Some(6));
        assert_eq!(jump(&mut tape, Seek::By(-3.0)), (2, vec![1, 0]));
        assert_eq!((next(&mut tape), tape.position()), (Some(3), 0.4));
        assert_eq!(jump(&mut tape, Seek::By(1e9)), (9, (0..9).rev().collect()));
        assert_eq!((next(&mut tape), tape.position()), (None, 1.0));
        assert_eq!(jump(&mut tape, Seek::By(-1.0)), (8, (0..8).rev().collect()));
        assert_eq!(jump(&mut tape, Seek::By(-1e9)), (0, vec![]));
        assert_eq!(next(&mut tape), Some(1));
    }
}

#[test]
fn a_jump_back_goes_back_however_long_an_interval_is() {
    let mut tape = tape(|_| {}, OnDamage::Refuse);
    assert_eq!((0..7).filter_map(|_| next(&mut tape)).count(), 7);
    assert_eq!(jump(&mut tape, Seek::By(-0.5)).0, 4);
}

#[test]
fn a_tape_jumps_to_a_moment_on_its_clock() {
    for limits in [LIMITS, INDEXED] {
        let mut tape = open_bytes(&recording(limits), OnDamage::Refuse);
        assert_eq!(tape.range_ns(), Some((0, 10 * SECOND_NS)));
        assert_eq!(jump(&mut tape, Seek::To(4_500_000_000)), (4, vec![3, 2, 1, 0]));
        assert_eq!(next(&mut tape), Some(5));
        assert_eq!(jump(&mut tape, Seek::To(0)), (0, vec![]));
        assert_eq!(jump(&mut tape, Seek::To(u64::MAX)).0, 9);
        assert_eq!(next(&mut tape), None);
        let at = tape.seek_at(|(first, last)| Ok((first + last) / 4), false).unwrap();
        assert_eq!(at.map(|(interval, position)| (second(&interval), position)), Some((2, 0.2)));
        assert!(tape.seek_at(|_| Err("outside".into()), true).unwrap_err().to_string().contains("outside"));
    }
}

#[test]
fn a_moment_that_nobody_observed_is_that_of_the_next_interval() {
    for limits in [LIMITS, INDEXED] {
        let mut bytes = Vec::new();
        let mut writer = Writer::with_limits(&mut bytes, &header(), limits).unwrap();
        for n in [0, 1, 10, 11, 20] {
            let interval = Interval { length_ns: SECOND_NS, ..Interval::starting(n * SECOND_NS) };
            writer.write(&interval).unwrap();
        }
        writer.finish(end()).unwrap();
        let mut tape = open_bytes(&bytes, OnDamage::Refuse);
        for (moment_ms, wanted) in [(1_999, 1), (2_000, 10), (9_000, 10), (10_000, 10), (12_000, 20), (30_000, 20)] {
            assert_eq!(jump(&mut tape, Seek::To(moment_ms * 1_000_000)).0, wanted, "{moment_ms} ms");
        }
    }
}

#[test]
fn with_and_without_an_index_of_any_size_every_jump_finds_the_same_intervals() {
    let all = |limits: Limits, moment_ns: u64| {
        let mut tape = open_bytes(&recording(limits), OnDamage::Refuse);
        let mut intervals = vec![tape.seek(Seek::To(moment_ns)).unwrap().unwrap().0];
        intervals.extend(std::iter::from_fn(|| tape.next().unwrap()).collect::<Vec<_>>());
        intervals.extend(std::iter::from_fn(|| tape.earlier().unwrap()).collect::<Vec<_>>());
        assert_eq!(is_claimed(&tape), limits.unindexed == 0);
        intervals
    };
    for half_second in 0..=20 {
        let moment_ns = half_second * SECOND_NS / 2;
        let plain = all(LIMITS, moment_ns);
        assert_eq!(plain.len(), 10);
        for (places, series) in [(16, 16), (4, 16), (2, 16), (16, 1), (3, 1)] {
            let limits = Limits { places, series, ..INDEXED };
            assert_eq!(all(limits, moment_ns), plain, "{places} places, {series} series at {moment_ns}");
        }
    }
}

#[test]
fn an_index_that_lies_is_not_believed() {
    let text = String::from_utf8(recording(INDEXED)).unwrap();
    let (before, index) = text.split_once("#index ").unwrap();
    let (index, last) = index.split_once('\n').unwrap();
    let index: serde_json::Value = serde_json::from_str(index).unwrap();
    // As somebody would write it who knows the checksum.
    let with = |index: &serde_json::Value| {
        let mut text = format!("{before}#index {index}\n").into_bytes();
        let sealed = before.len();
        let end = last.rsplit_once(",\"crc32\"").unwrap().0;
        text.extend(format!("{end}}}}}\n").into_bytes());
        let begin = crate::recording::seal::begin(&header());
        crate::recording::seal::seal(&mut text, sealed, begin, crate::recording::seal::Closing::Note);
        text
    };
    assert!(is_claimed(&open_bytes(&with(&index), OnDamage::Refuse)));
    let mut disbelieved = 0;
    for (column, values) in index.as_object().unwrap() {
        for at in 0..values.as_array().unwrap().len() {
            for change in [-1_i64, 1, 1000, i64::MAX] {
                for keeps_sum in [false, true] {
                    let mut lie = index.clone();
                    let mut add = |at: usize, change: i64| {
                        let Some(value) = lie[column].get_mut(at) else { return };
                        let sum = value.as_u64().unwrap().saturating_add_signed(change);
                        *value = sum.into();
                    };
                    add(at, change);
                    if keeps_sum {
                        add(at + 1, change.saturating_neg());
                    }
                    if lie == index {
                        continue;
                    }
                    let mut tape = open_bytes(&with(&lie), OnDamage::Skip);
                    for half_second in [0, 3, 9, 14, 19] {
                        let moment_ns = half_second * SECOND_NS / 2;
                        let found = tape.seek(Seek::To(moment_ns)).unwrap().unwrap().0;
                        assert_eq!(found.series.len() as u64, half_second / 6 + 1);
                        assert_eq!(second(&found), half_second / 2, "{column} {at} {change} {keeps_sum}");
                        let before: Vec<_> =
                            std::iter::from_fn(|| tape.earlier().unwrap()).map(|i| second(&i)).collect();
                        assert_eq!(before, (0..half_second / 2).rev().collect::<Vec<_>>(), "{column} {at} {change}");
                        assert_eq!(tape.damage(), None);
                    }
                    disbelieved += usize::from(!is_claimed(&tape));
                }
            }
        }
    }
    assert!(disbelieved > 300, "{disbelieved}");
}

#[test]
fn bytes_that_are_no_index_are_none() {
    let whole = recording(INDEXED);
    let at = whole.windows(7).position(|bytes| bytes == b"#index ").unwrap();
    for at in (at..whole.len() - 1).step_by(3) {
        let mut changed = whole.clone();
        changed[at] ^= 4;
        let mut tape = open_bytes(&changed, OnDamage::Skip);
        assert!(!is_claimed(&tape), "byte {at}");
        assert_eq!(jump(&mut tape, Seek::To(4 * SECOND_NS)).0, 4);
    }
    assert!(is_claimed(&open_bytes(&whole, OnDamage::Skip)));
    // As a recorder leaves it that is killed.
    assert!(!is_claimed(&open_bytes(&whole[..at], OnDamage::Refuse)));
}

#[test]
fn an_index_of_few_places_finds_every_interval() {
    let mut bytes = Vec::new();
    let limits = Limits { places: 8, ..INDEXED };
    let mut writer = Writer::with_limits(&mut bytes, &header(), limits).unwrap();
    for n in 0..1000 {
        writer.write(&Interval { length_ns: 10, ..Interval::starting(n * 10) }).unwrap();
    }
    writer.finish(end()).unwrap();
    let mut tape = open_bytes(&bytes, OnDamage::Refuse);
    // Between its first two places, and its last two, all are known.
    let places = lock(&tape.index).places.len();
    assert!(places < 300, "{places}");
    assert_eq!(tape.seek(Seek::To(7_775)).unwrap().unwrap().0.start_ns, 7_770);
    assert_eq!(tape.earlier().unwrap().unwrap().start_ns, 7_760);
    assert!(is_claimed(&tape));
}

#[test]
fn a_tape_stops_at_no_part_of_an_interval() {
    for unindexed in [u64::MAX, 0] {
        let limits = Limits { series: 1, unindexed, ..LIMITS };
        let mut tape = open_bytes(&recording(limits), OnDamage::Refuse);
        let whole = |interval: &Interval| {
            let entries = second(interval) / 3 + 1;
            (interval.length_ns, interval.totals.entries) == (SECOND_NS, entries)
        };
        while let Some(interval) = tape.next().unwrap() {
            assert!(whole(&interval));
        }
        let found = tape.seek(Seek::By(-3.0)).unwrap().unwrap().0;
        assert!(whole(&found) && second(&found) == 6);
        for before in (0..6).rev() {
            let earlier = tape.earlier().unwrap().unwrap();
            assert!(whole(&earlier) && second(&earlier) == before);
        }
        assert_eq!(next(&mut tape), Some(7));
        assert_eq!(is_claimed(&tape), unindexed == 0);
    }
}

#[test]
fn an_unknown_place_is_no_reason_to_wait() {
    let mut tape = tape(|_| {}, OnDamage::Refuse);
    {
        // As long as the thread has not come further.
        let mut index = lock(&tape.index);
        index.places.truncate(4);
        index.is_complete = false;
    }
    assert!(tape.position() < 0.5);
    assert_eq!(jump(&mut tape, Seek::By(9.0)), (2, vec![1, 0]));
    assert_eq!(next(&mut tape), Some(3));
}

#[test]
fn damage_is_left_out_and_stays_known_after_a_jump() {
    let damaged = |text: &mut String| *text = text.replace("\"start_ns\":4000000000", "\"start_ns\":400000000X");
    let wrong_sum = |text: &mut String| *text = text.replacen("HISTFAAA", "HISTXAAA", 8);
    let mut tape = tape(damaged, OnDamage::Skip);
    let played: Vec<_> = std::iter::from_fn(|| next(&mut tape)).collect();
    assert_eq!(played, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    assert_eq!(tape.damage().unwrap().intervals, 1);
    tape.seek(Seek::By(-2.0)).unwrap();
    assert_eq!(tape.damage().unwrap().intervals, 1);
    // An interval before the place is damaged, and read by nobody else.
    let mut tape = self::tape(wrong_sum, OnDamage::Skip);
    assert_eq!(tape.seek(Seek::To(9 * SECOND_NS)).unwrap().unwrap().0.start_ns, 9 * SECOND_NS);
    assert_eq!(tape.damage(), None);
    let before: Vec<_> = std::iter::from_fn(|| tape.earlier().unwrap()).map(|i| second(&i)).collect();
    assert!(before.len() < 9 && before.is_sorted_by(|a, b| a > b), "{before:?}");
    assert!(tape.damage().is_some());
}
