//! A recording that is played: interval after interval, with jumps to any moment.

use std::{
    fs::File,
    io::BufReader,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Damage, End, Header, OnDamage, Reader,
    file::open_file,
    index::{Index, Place, Scan, tail},
};
use crate::{model::interval::Interval, output::shown};

/// Most bytes that are read to fill the screen after a jump: less than a second's work, in the background.
const MEMORY_BYTES: u64 = 24 << 20;
/// Most histogram buckets of the intervals that were read for that, 256 MB.
const MEMORY_BUCKETS: usize = 32 << 20;
/// Time before the destination of a jump of which intervals are read, ns.
const MEMORY_NS: u64 = 600_000_000_000;
/// How often it is looked whether a moment was found.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Opens the recording in a file.
pub(crate) fn open(path: &Path, on_damage: OnDamage) -> Result<Reader<BufReader<File>>> {
    let failed = || format!("read {}", shown(path));
    if path == Path::new("-") {
        bail!("'-' is standard input, in which nobody can go back: save it in a file, and name that file");
    }
    let file = open_file(path).with_context(failed)?;
    Reader::careful(BufReader::new(file), on_damage).with_context(failed)
}

/// A recording and a place in it.
pub(crate) struct Tape {
    reader: Reader<BufReader<File>>,
    /// reads what came before a jump
    before: Reader<BufReader<File>>,
    /// of the same file, for the index
    file: File,
    name: String,
    /// of an index line, or filled by a thread
    index: Arc<Mutex<Index>>,
    bytes: u64,
    /// the recording's last line; none where it was cut off
    end: Option<End>,
    /// ns played
    played_ns: u64,
    /// ns before the latest interval, and before the one before it, which is on the screen until the latest one is due
    latest_ns: u64,
    shown_ns: u64,
    /// what was left out before the last jump, or is before it
    damage: Option<Damage>,
    memory: Option<Memory>,
}

/// What is still to be read of the time before a jump.
#[derive(Clone, Copy)]
struct Memory {
    /// bytes before what was read
    until: u64,
    /// ns of observation and bytes before the first interval that is read
    from_ns: u64,
    from: u64,
    /// histogram buckets of what was read
    buckets: usize,
}

/// Where a jump goes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Seek {
    /// by seconds, back if negative
    By(f64),
    /// to the interval of a moment of the recorder's CLOCK_MONOTONIC, ns
    To(u64),
}

impl Tape {
    /// Opens a file, and begins to look for its intervals where it has no index.
    pub(crate) fn open(path: &Path, on_damage: OnDamage) -> Result<Self> {
        let reader = open(path, on_damage)?;
        let before = open(path, on_damage)?;
        let failed = || format!("read {}", shown(path));
        let mut file = File::open(path).with_context(failed)?;
        let (end, index) = tail(&mut file, reader.header(), reader.offset()).with_context(failed)?;
        let bytes = file.metadata().with_context(failed)?.len();
        let is_known = index.is_some();
        let index = Arc::new(Mutex::new(index.unwrap_or_default()));
        if !is_known {
            let (filled, input) = (Arc::clone(&index), File::open(path).with_context(failed)?);
            std::thread::Builder::new()
                .name("index".into())
                .spawn(move || fill(&filled, input))
                .context("start the thread that looks for intervals")?;
        }
        let name = shown(path);
        Ok(Self {
            reader,
            before,
            file,
            name,
            index,
            bytes,
            end,
            played_ns: 0,
            latest_ns: 0,
            shown_ns: 0,
            damage: None,
            memory: None,
        })
    }

    /// The recording's header.
    pub(crate) fn header(&self) -> &Header {
        self.reader.header()
    }

    /// The recording's last line; none where it was cut off.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Share that was played, `0.0..=1.0`: of the bytes, until the length in time is known.
    pub(crate) fn position(&self) -> f64 {
        let index = lock(&self.index);
        let length_ns = index.places.last().filter(|_| index.is_complete).map(|end| end.played_ns);
        match length_ns {
            Some(length_ns) if length_ns > 0 => (self.played_ns as f64 / length_ns as f64).min(1.0),
            Some(_) => 1.0,
            None => self.reader.offset() as f64 / self.bytes.max(1) as f64,
        }
    }

    /// What was left out so far; none where nothing was.
    pub(crate) fn damage(&self) -> Option<Damage> {
        self.reader.damage_of(&self.name).or_else(|| self.damage.clone())
    }

    /// The next interval, whole where the recording has it in parts; none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Interval>> {
        let interval = self.reader.read_joined()?;
        self.shown_ns = self.latest_ns;
        if let Some(interval) = &interval {
            self.latest_ns = self.played_ns;
            self.played_ns = self.played_ns.saturating_add(interval.length_ns);
        }
        Ok(interval)
    }

    /// CLOCK_MONOTONIC of the recorder's host at the beginning and the end of what is known of the recording, ns; none where no interval
    /// is known.
    pub(crate) fn range_ns(&self) -> Option<(u64, u64)> {
        lock(&self.index).range_ns()
    }

    /// Jumps, as far as the intervals are known. Returns the interval of the new place and the share of the recording before it; none
    /// where no interval is known. [`Self::earlier`] has those before.
    pub(crate) fn seek(&mut self, to: Seek) -> Result<Option<(Interval, f64)>> {
        self.damage = self.damage();
        let from_ns = self.shown_ns;
        let jumped = self.try_seek(to, from_ns);
        let is_right = jumped.is_ok() && self.reader.damage_of("").is_none();
        if is_right || !lock(&self.index).is_claimed() {
            return jumped;
        }
        self.distrust()?;
        self.try_seek(to, from_ns)
    }

    /// Jumps to the moment that `find` finds between the beginning and the end of the recording, ns of the recorder's CLOCK_MONOTONIC, as
    /// soon as it is known. Without any interval there is none.
    pub(crate) fn seek_at(
        &mut self,
        find: impl Fn((u64, u64)) -> Result<u64, String>,
        from_end: bool,
    ) -> Result<Option<(Interval, f64)>> {
        loop {
            let (is_complete, range_ns) = {
                let index = lock(&self.index);
                (index.is_complete, index.range_ns())
            };
            let found = range_ns.map(|range_ns| (find(range_ns), range_ns.1));
            match found {
                Some((Ok(moment_ns), end_ns)) if is_complete || !from_end && moment_ns < end_ns => {
                    return self.seek(Seek::To(moment_ns));
                }
                Some((Err(why), _)) if is_complete => bail!(why),
                None if is_complete => return Ok(None),
                _ => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    fn try_seek(&mut self, to: Seek, from_ns: u64) -> Result<Option<(Interval, f64)>> {
        self.memory = None;
        let Some(place) = self.place_of(to, from_ns)? else { return Ok(None) };
        self.jump(place, |tape| &mut tape.reader)?;
        (self.played_ns, self.latest_ns) = (place.played_ns, place.played_ns);
        self.memory = Some(Memory {
            until: place.mark.offset,
            from_ns: place.played_ns.saturating_sub(MEMORY_NS),
            from: place.mark.offset.saturating_sub(MEMORY_BYTES),
            buckets: 0,
        });
        let position = self.position();
        Ok(self.next()?.map(|interval| (interval, position)))
    }

    /// The place of a jump's interval; of the last one that is known where it is beyond. None where no interval is known.
    fn place_of(&mut self, to: Seek, from_ns: u64) -> Result<Option<Place>> {
        let mut index = lock(&self.index);
        loop {
            let Some(last) = index.last() else { return Ok(None) };
            let places = &index.places;
            let at = match to {
                Seek::By(seconds) => {
                    let by_ns = (seconds.abs() * 1e9) as u64;
                    let to_ns =
                        if seconds < 0.0 { from_ns.saturating_sub(by_ns) } else { from_ns.saturating_add(by_ns) };
                    places.partition_point(|place| place.played_ns <= to_ns)
                }
                Seek::To(moment_ns) => places[..=last].partition_point(|place| place.start_ns <= moment_ns),
            };
            let at = at.saturating_sub(1).min(last);
            if !index.prove(&mut self.file, at)? && !index.prove(&mut self.file, at + 1)? {
                return Ok(Some(index.places[at]));
            }
        }
    }

    fn jump(&mut self, place: Place, of: impl Fn(&mut Self) -> &mut Reader<BufReader<File>>) -> Result<()> {
        let index = Arc::clone(&self.index);
        let vms = lock(&index).vms_before(&mut self.file, self.reader.header(), place.mark)?;
        of(self).jump(place.mark, vms)
    }

    /// The interval before those that were read since the last jump; none where those are enough.
    pub(crate) fn earlier(&mut self) -> Result<Option<Interval>> {
        while let Some(memory) = self.memory {
            let read = self.read_before(memory);
            match read {
                Err(_) if lock(&self.index).is_claimed() => self.distrust()?,
                Err(error) => return Err(error),
                Ok(None) => {}
                interval => return interval,
            }
        }
        Ok(None)
    }

    /// Reads the interval before those that were read; none where it is damaged, or not read any more.
    fn read_before(&mut self, memory: Memory) -> Result<Option<Interval>> {
        let place = {
            let mut index = lock(&self.index);
            loop {
                let before = index.places.partition_point(|place| place.mark.offset < memory.until).checked_sub(1);
                let Some(at) = before else { break None };
                if !index.prove(&mut self.file, at)? {
                    break Some(index.places[at]);
                }
            }
        };
        let is_wanted = |place: &Place| place.played_ns >= memory.from_ns && place.mark.offset >= memory.from;
        let Some(place) = place.filter(is_wanted).filter(|_| memory.buckets <= MEMORY_BUCKETS) else {
            self.memory = None;
            return Ok(None);
        };
        self.jump(place, |tape| &mut tape.before)?;
        let interval = self.before.read_joined()?;
        let damage = self.before.damage_of(&self.name);
        ensure!(damage.is_none() || !lock(&self.index).is_claimed(), "the index is wrong");
        self.damage = self.damage.take().or(damage);
        // A damaged one was left out, and the one behind it was read before.
        let interval = interval.filter(|interval| interval.start_ns == place.start_ns);
        let buckets = memory.buckets + interval.as_ref().map_or(0, Interval::buckets);
        self.memory = Some(Memory { until: place.mark.offset, buckets, ..memory });
        Ok(interval)
    }

    /// Looks for the intervals line by line, because the index is wrong.
    fn distrust(&mut self) -> Result<()> {
        let found = Index::of_lines(&mut self.file).context("look for intervals")?;
        *lock(&self.index) = found;
        Ok(())
    }
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes where each interval begins. Ends early where the file cannot be read, which the tape reports when it comes there.
fn fill(index: &Mutex<Index>, mut file: File) {
    if let Ok(mut scan) = Scan::of_file(&mut file) {
        while let Ok(Some(found)) = scan.next() {
            lock(index).add(found);
        }
    }
    lock(index).is_complete = true;
}

#[cfg(test)]
mod tests {
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
            (0..=n as u32 / 3).for_each(|vcpu| interval.record(&event(vcpu, 10, 900 + n, 1), &vm(vcpu)));
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
        assert_eq!(with(&index), text.as_bytes());
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
    fn an_index_of_many_intervals_has_a_bounded_number_of_places() {
        let mut bytes = Vec::new();
        let limits = Limits { places: 8, ..INDEXED };
        let mut writer = Writer::with_limits(&mut bytes, &header(), limits).unwrap();
        for n in 0..1000 {
            writer.write(&Interval { length_ns: 10, ..Interval::starting(n * 10) }).unwrap();
        }
        writer.finish(end()).unwrap();
        let mut tape = open_bytes(&bytes, OnDamage::Refuse);
        let places = lock(&tape.index).places.len();
        assert!((5..=9).contains(&places), "{places}");
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
}
