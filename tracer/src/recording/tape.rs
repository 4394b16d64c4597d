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
/// Time of which intervals are read for that, ns.
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
    /// bytes before the first interval that is read
    from: u64,
    /// ns of what was read
    length_ns: u64,
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
            from: place.mark.offset.saturating_sub(MEMORY_BYTES),
            length_ns: 0,
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
                    let by_ns = Duration::try_from_secs_f64(seconds.abs()).map_or(u128::MAX, |by| by.as_nanos());
                    let by_ns = u64::try_from(by_ns).unwrap_or(u64::MAX);
                    let to_ns =
                        if seconds < 0.0 { from_ns.saturating_sub(by_ns) } else { from_ns.saturating_add(by_ns) };
                    places.partition_point(|place| place.played_ns <= to_ns)
                }
                Seek::To(moment_ns) => places[..=last].partition_point(|place| place.start_ns <= moment_ns),
            };
            let at = at.saturating_sub(1).min(last);
            if !index.prove(&mut self.file, at)? && !index.prove(&mut self.file, at + 1)? {
                let (place, next) = (index.places[at], index.places[at + 1]);
                let end_ns = place.start_ns.saturating_add(next.played_ns - place.played_ns);
                // Nothing was observed then: between two parts of a recording, or two of its windows.
                let is_in_gap = at < last && matches!(to, Seek::To(moment_ns) if end_ns <= moment_ns);
                return Ok(Some(if is_in_gap { next } else { place }));
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
        let has_room = memory.length_ns < MEMORY_NS && memory.buckets <= MEMORY_BUCKETS;
        let Some(place) = place.filter(|place| has_room && place.mark.offset >= memory.from) else {
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
        let length_ns = memory.length_ns.saturating_add(interval.as_ref().map_or(0, |interval| interval.length_ns));
        self.memory = Some(Memory { until: place.mark.offset, buckets, length_ns, ..memory });
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
mod tests;
