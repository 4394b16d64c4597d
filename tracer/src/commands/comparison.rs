//! Makes a comparison of recordings and prints it, for `compare` and `ab`.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, IsTerminal},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    commands::{
        args::ComparisonFormat,
        usage::{refuse, refuse_overlap},
    },
    compare::{
        Comparison, ExperimentRound, Options, Setting, Stratum, Window, Windows, compare, fairness, html, json,
        schedule, text,
    },
    model::{
        course::Course,
        interval::Interval,
        knowledge::Subject,
        series::{Key, Series},
    },
    output,
    recording::{Experiment, Label, MaxBuckets, OnDamage, Provenance, Reader, Readings},
    report::{
        Choices, Dimension, Filter, Report,
        input::{self, Input},
    },
    say,
    tui::terminal,
};

/// Windows of one recording at most; neighbours of a longer recording are merged.
const MOST_WINDOWS: usize = 512;

/// Recordings to compare, and how.
pub(crate) struct Request<'a> {
    /// A's, or A's and B's, or those of `vmentry ab`
    pub(crate) files: &'a [PathBuf],
    /// B's
    pub(crate) with: &'a [PathBuf],
    /// entries that are kept
    pub(crate) filters: &'a [Filter],
    /// of the statistics
    pub(crate) seed: u64,
    /// share of A below which a change gets no verdict
    pub(crate) ignore_below: f64,
    /// at a damaged line
    pub(crate) on_damage: OnDamage,
    /// how many histogram buckets all windows may have
    pub(crate) limit: MaxBuckets,
}

/// Compares the two settings of an experiment, and prints.
pub(crate) fn print_experiment(file: &Path, format: ComparisonFormat) -> Result<()> {
    let files = [file.to_owned()];
    let request = Request {
        files: &files,
        with: &[],
        filters: &[],
        seed: Options::default().seed,
        ignore_below: 0.0,
        on_damage: OnDamage::Refuse,
        limit: MaxBuckets::default(),
    };
    let (comparison, setting) = load(&request)?;
    print(&comparison, &setting, format, false)
}

/// Prints a comparison; as text, with every figure and the method if `is_full`.
pub(crate) fn print(comparison: &Comparison, setting: &Setting, format: ComparisonFormat, is_full: bool) -> Result<()> {
    match format {
        ComparisonFormat::Text if is_full => output::print(&text::full(comparison, setting, terminal::width())),
        ComparisonFormat::Text => output::print(&text::short(comparison, setting, terminal::width())),
        ComparisonFormat::Json => {
            output::print(&(serde_json::to_string_pretty(&json::render(comparison, setting))? + "\n"))
        }
        ComparisonFormat::Html => output::print(&html::render(comparison, setting)),
        ComparisonFormat::Markdown => output::print(&text::markdown(comparison, setting)),
    }
}

/// A recording and its windows.
struct Recording {
    source: Provenance,
    /// an earlier file had all of it, or it has no entry of a VM or host that is asked for
    is_left_out: bool,
    windows: Vec<(Option<Label>, Window)>,
}

/// Reads recordings, refuses those that cannot be compared, and compares.
pub(crate) fn load(request: &Request) -> Result<(Comparison, Setting)> {
    let (mut windows, mut setting) = read_sides(request)?;
    setting.names = fairness::names(&setting);
    let [a, b] = &setting.sources;
    if !request.filters.is_empty() {
        let only: Vec<_> = request.filters.iter().map(ToString::to_string).collect();
        setting.warnings.push(format!("only entries with {} are compared; loss is that of all", only.join(" and ")));
    }
    setting.warnings.extend(fairness::warnings(a, b, setting.experiment.is_some()));
    let options = Options { seed: request.seed, ignore_below: request.ignore_below, ..fairness::options(a, b) };
    if options.knowledge.iter().any(|known| known.known(Subject::Deadline).is_err()) {
        windows.fold_early();
    }
    // The statistics take a second or two.
    if std::io::stderr().is_terminal() {
        say!("comparing ...");
    }
    Ok((compare(&windows, &options), setting))
}

/// The windows of both sides, and where they come from.
fn read_sides(request: &Request) -> Result<(Windows, Setting)> {
    let all = request.files.iter().chain(request.with);
    refuse_overlap(all.clone().map(PathBuf::as_path), Path::new("-"))?;
    let files = all.map(|path| Ok((path, input::open(path, request.on_damage)?))).collect::<Result<Vec<_>>>()?;
    let experiments = files.iter().filter(|(_, file)| file.header().experiment.is_some()).count();
    let are_experiments = experiments == files.len() && request.with.is_empty();
    if experiments > 0 && !are_experiments {
        return refuse("a recording of 'vmentry ab' has both sides in it: compare it alone");
    }
    let of_a = if request.with.is_empty() { 1 } else { request.files.len() };
    if request.with.is_empty() && files.len() != 2 && !are_experiments {
        let number = if files.len() == 1 { "one recording".into() } else { format!("{} recordings", files.len()) };
        return refuse(format!(
            "{number}: name A and B, or the recordings of A and then --with those of B, or one of 'vmentry ab'"
        ));
    }
    let mut reading = Together { filters: request.filters, limit: request.limit, ..Together::default() };
    let mut a = files.into_iter().map(|(path, file)| reading.read(path, file)).collect::<Result<Vec<_>>>()?;
    let mut b = if are_experiments { Vec::new() } else { a.split_off(of_a) };
    let sources = |side: &[Recording]| side.iter().map(|r| r.source.clone()).collect::<Vec<_>>();
    if let Some(why) = fairness::refusal(&sources(&a), &sources(&b), are_experiments) {
        bail!(why);
    }
    if let Some(why) = reading.choices.refusal(request.filters) {
        return refuse(why);
    }
    for (name, side) in [("A", &mut a), ("B", &mut b)] {
        side.retain(|recording| !recording.is_left_out);
        if side.is_empty() && !(are_experiments && name == "B") {
            let only: Vec<_> = request.filters.iter().map(|f| format!("--filter {f}")).collect();
            return refuse(format!("{}: no entry of {name} passes", only.join(" ")));
        }
    }
    let (windows, mut setting) = if are_experiments { rounds(a)? } else { runs(a, b) };
    setting.warnings.extend(reading.warnings);
    Ok((windows, setting))
}

/// Recordings made one after the other.
fn runs(a: Vec<Recording>, b: Vec<Recording>) -> (Windows, Setting) {
    let split = |side: Vec<Recording>| -> (Vec<Provenance>, Vec<Vec<Window>>) {
        let windows = |r: Recording| {
            let interval_ns = r.source.header.interval_ns;
            (r.source, merge_neighbours(r.windows.into_iter().map(|(_, w)| w).collect(), interval_ns))
        };
        side.into_iter().map(windows).unzip()
    };
    let ((a, of_a), (b, of_b)) = (split(a), split(b));
    let setting = Setting { names: Default::default(), sources: [a, b], experiment: None, warnings: Vec::new() };
    (Windows::Runs { a: of_a, b: of_b }, setting)
}

/// Merges a short window at the end into its neighbour, and neighbours into at most [`MOST_WINDOWS`] windows.
fn merge_neighbours(mut windows: Vec<Window>, interval_ns: u64) -> Vec<Window> {
    if windows.len() > 1
        && windows.last().is_some_and(|w| w.length_ns < interval_ns / 2)
        && let (Some(stub), Some(last)) = (windows.pop(), windows.last_mut())
    {
        last.merge(&stub);
    }
    let together = windows.len().div_ceil(MOST_WINDOWS).max(1);
    let mut merged: Vec<Window> = Vec::new();
    for (at, window) in windows.into_iter().enumerate() {
        match merged.last_mut().filter(|_| at % together > 0) {
            Some(last) => last.merge(&window),
            None => merged.push(window),
        }
    }
    merged
}

/// The rounds of experiments of 'vmentry ab', which must be of the same settings.
fn rounds(recordings: Vec<Recording>) -> Result<(Windows, Setting)> {
    let (mut rounds, mut sources, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let mut experiment: Option<Experiment> = None;
    for recording in recordings {
        let Some(this) = &recording.source.header.experiment else { continue };
        match &experiment {
            Some(first) if (&first.arms, &first.switches) != (&this.arms, &this.switches) => bail!(
                "the experiments compare different settings: {} against {}, and {} against {}",
                first.arms[0],
                first.arms[1],
                this.arms[0],
                this.arms[1]
            ),
            Some(_) => {}
            None => experiment = Some(this.clone()),
        }
        let name = &recording.source.name;
        let asked_for = this.rounds as usize;
        let (whole, left_out) = whole_rounds(recording.windows);
        if left_out > 0 {
            warnings.push(format!("{name}: {left_out} windows of a round that did not end are left out"));
        }
        let with_entries = whole.iter().filter(|round| has_entries(round)).count();
        if with_entries < whole.len() {
            let empty = whole.len() - with_entries;
            warnings.push(format!("{name}: {empty} rounds in which no VM entered are left out"));
        }
        if whole.len() < asked_for {
            warnings.push(format!("{name}: {} of {asked_for} rounds; it ended early", whole.len()));
        }
        rounds.extend(whole.into_iter().filter(has_entries));
        sources.push(recording.source);
    }
    let setting = Setting { names: Default::default(), sources: [sources.clone(), sources], experiment, warnings };
    Ok((Windows::Rounds(rounds), setting))
}

/// Whether any VM entered in a round.
fn has_entries(round: &ExperimentRound) -> bool {
    round.a.iter().chain(&round.b).any(|window| window.totals.entries > 0)
}

/// Rounds with all their windows, and the number of windows of others.
fn whole_rounds(windows: Vec<(Option<Label>, Window)>) -> (Vec<ExperimentRound>, usize) {
    let mut by_round: BTreeMap<u32, BTreeMap<u8, (u8, Window)>> = BTreeMap::new();
    for (label, window) in windows {
        if let Some(Label { arm, round, place }) = label {
            by_round.entry(round).or_default().insert(place, (arm, window));
        }
    }
    let (mut rounds, mut left_out) = (Vec::new(), 0);
    for places in by_round.into_values() {
        let windows = places.len();
        let a_first = places.get(&0).is_some_and(|w| w.0 == 0);
        let (a, b): (Vec<_>, Vec<_>) = places.into_values().partition(|(arm, _)| *arm == 0);
        let pair = |side: Vec<(u8, Window)>| <[Window; 2]>::try_from(side.into_iter().map(|s| s.1).collect::<Vec<_>>());
        match (pair(a), pair(b)) {
            (Ok(a), Ok(b)) if windows == usize::from(schedule::PLACES) => {
                rounds.push(ExperimentRound { a, b, a_first })
            }
            _ => left_out += windows,
        }
    }
    (rounds, left_out)
}

/// What recordings that are read one after the other have in common.
#[derive(Default)]
struct Together<'a> {
    filters: &'a [Filter],
    choices: Choices,
    recordings: Vec<Provenance>,
    readings: Readings,
    warnings: Vec<String>,
    /// histogram buckets of all windows
    buckets: usize,
    /// how many they may have
    limit: MaxBuckets,
}

impl Together<'_> {
    /// Reads a recording into windows.
    fn read(&mut self, path: &Path, reader: Reader<impl BufRead>) -> Result<Recording> {
        let name = output::shown(path);
        let header = reader.header().clone();
        if !header.sources.is_empty() {
            let merged = header.sources.len();
            bail!("read {name}: it is a merge of {merged} recordings: compare the recordings themselves");
        }
        let mut input = Input::new(reader, name.clone(), &mut self.recordings, &mut self.readings)?;
        // Of the report only the VMs and the source are used: the windows stay apart.
        let mut report = Report { sources: vec![Provenance::unread(name, header)], ..Report::default() };
        // The name of a VM depends on its namesakes, which are known only at the end: until then, VMs that are filtered stay apart.
        let (by_vm, others): (Vec<_>, Vec<_>) =
            self.filters.iter().cloned().partition(|f| f.dimension == Dimension::Vm);
        let (mut vms, mut parts, mut keys) = (BTreeMap::new(), AllParts::default(), BTreeSet::new());
        let is_experiment = report.sources[0].header.experiment.is_some();
        while let Some((_, interval)) =
            input.next(&mut self.readings).with_context(|| format!("read {}", output::shown(path)))?
        {
            report.sources[0].intervals += u64::from(!input.reader.continues());
            let length_ns = &mut report.sources[0].length_ns;
            *length_ns = length_ns.saturating_add(interval.length_ns);
            let interval = report.renumber(0, interval, &mut vms);
            if !self.filters.is_empty() {
                keys.extend(interval.series.keys().copied());
            }
            let of_interval = Parts::of(&interval, &report, &others, !by_vm.is_empty());
            match input.reader.window() {
                // Between the windows of an experiment.
                None if is_experiment => {}
                label => parts.add(label, input.reader.continues(), of_interval),
            }
            let failed = || format!("read {}", output::shown(path));
            self.limit.check(self.buckets + parts.buckets, input.reader.line()).with_context(failed)?;
        }
        self.buckets += parts.buckets;
        self.choices.add(&report, keys.iter(), self.filters);
        let repeats = input.finish(&mut self.recordings);
        let is_repeated = !repeats.is_empty() && report.sources[0].intervals == 0;
        self.warnings.extend(repeats);
        let by_name = self.filters.iter().filter(|f| matches!(f.dimension, Dimension::Vm | Dimension::Host));
        let by_name: Vec<_> = by_name.cloned().collect();
        let is_other = !by_name.is_empty() && !keys.iter().any(|key| report.passes(key, &by_name));
        if is_other && !is_repeated {
            self.warnings.push(format!(
                "{}: left out, because no entry of it is of {}",
                output::shown(path),
                by_name[0]
            ));
        }
        let mut source = report.sources[0].clone();
        source.end = input.reader.end().cloned();
        source.torn = input.reader.is_torn();
        source.damage.extend(input.reader.damage_of(&source.name));
        let joined = |(label, parts): (_, Parts)| (label, parts.join(&report, &by_vm));
        let windows = parts.course.into_parts().into_iter().map(joined).collect();
        Ok(Recording { source, is_left_out: is_repeated || is_other, windows })
    }
}

/// A window whose VMs have no names yet.
struct Parts {
    window: Window,
    /// by number of the VM if VMs are filtered; else all under none
    strata: BTreeMap<Option<u32>, BTreeMap<Stratum, Series>>,
    /// VM and vCPU number of every vCPU that entered
    vcpus: BTreeSet<(u32, u32)>,
}

impl Parts {
    fn of(interval: &Interval, report: &Report, filters: &[Filter], by_vm: bool) -> Self {
        let Interval { start_ns: start_unix_ns, length_ns, totals, .. } = *interval;
        let window = Window { start_unix_ns, length_ns, totals, ..Window::default() };
        let mut parts = Self { window, strata: BTreeMap::new(), vcpus: BTreeSet::new() };
        for (key, series) in interval.series.iter().filter(|(key, _)| report.passes(key, filters)) {
            let stratum = Stratum { level: key.level, isa: key.isa, reason: key.reason, cause: key.cause };
            let strata = parts.strata.entry(by_vm.then_some(key.vm)).or_default();
            strata.entry(stratum).or_default().merge(series);
            if series.entries() > 0 {
                parts.vcpus.insert((key.vm, key.vcpu));
            }
        }
        parts
    }

    /// Takes the next part in; returns by how many histogram buckets this one grew.
    fn absorb(&mut self, next: Self) -> usize {
        self.window.merge(&next.window);
        self.vcpus.extend(next.vcpus);
        let mut grown = 0;
        for (vm, strata) in next.strata {
            let mine = self.strata.entry(vm).or_default();
            for (stratum, series) in strata {
                grown += mine.entry(stratum).or_default().absorb(&series);
            }
        }
        grown
    }

    fn buckets(&self) -> usize {
        self.strata.values().flat_map(BTreeMap::values).map(Series::buckets).sum()
    }

    /// The window of the VMs that pass the filters, when all names are known.
    fn join(self, report: &Report, filters: &[Filter]) -> Window {
        let mut window = self.window;
        let passes = |vm: u32| report.passes(&Key { vm, ..Key::default() }, filters);
        for (_, strata) in self.strata.into_iter().filter(|(vm, _)| vm.is_none_or(passes)) {
            for (stratum, series) in strata {
                window.strata.entry(stratum).or_default().merge(&series);
            }
        }
        let vcpus = self.vcpus.into_iter().filter(|(vm, _)| passes(*vm));
        window.vcpus = vcpus.map(|(vm, vcpu)| (report.vm_name(vm), vcpu)).collect();
        window
    }
}

/// The parts of one recording.
#[derive(Default)]
struct AllParts {
    course: Course<(Option<Label>, Parts)>,
    /// histogram buckets of all of them
    buckets: usize,
}

impl AllParts {
    /// Adds the next interval. `continues`: it goes on with the one before.
    fn add(&mut self, label: Option<Label>, continues: bool, parts: Parts) {
        let mut grown = parts.buckets();
        match self.course.last_mut().filter(|_| continues) {
            Some((_, last)) => grown = last.absorb(parts),
            None => self.course.add((label, parts), |(_, last), (_, next)| grown = last.absorb(next)),
        }
        self.buckets += grown;
        // The windows of an experiment stay apart. Others are merged to at most MOST_WINDOWS in the end.
        while label.is_none() && self.course.parts().len() > 2 * MOST_WINDOWS {
            self.course.halve(|(_, first), (_, second)| {
                first.absorb(second);
            });
            self.buckets = self.course.parts().iter().map(|(_, parts)| parts.buckets()).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(length_ns: u64) -> Window {
        Window { length_ns, ..Window::default() }
    }

    fn labelled(windows: &[(u8, u32, u8)]) -> Vec<(Option<Label>, Window)> {
        let label = |&(arm, round, place)| (Some(Label { arm, round, place }), window(u64::from(place) + 1));
        windows.iter().map(label).chain([(None, window(99))]).collect()
    }

    #[test]
    fn rounds_that_did_not_end_are_left_out_and_counted() {
        let abba = [(0, 0, 0), (1, 0, 1), (1, 0, 2), (0, 0, 3)];
        let baab = [(1, 1, 0), (0, 1, 1), (0, 1, 2), (1, 1, 3)];
        let (rounds, left_out) = whole_rounds(labelled(&[&abba[..], &baab[..], &[(0, 2, 0)]].concat()));
        assert_eq!((rounds.len(), left_out), (2, 1));
        assert_eq!((rounds[0].a_first, rounds[1].a_first), (true, false));
        assert_eq!(rounds[1].a, [window(2), window(3)]);
        assert_eq!(rounds[1].b, [window(1), window(4)]);
        // A damaged or foreign file may have any labels.
        assert_eq!(whole_rounds(labelled(&[(0, 0, 0), (0, 0, 1), (0, 0, 2), (1, 0, 3)])), (vec![], 4));
    }

    #[test]
    fn a_stub_joins_its_neighbour_and_a_long_recording_is_merged() {
        assert_eq!(merge_neighbours(vec![window(10), window(10), window(3)], 10), [window(10), window(13)]);
        assert_eq!(merge_neighbours(vec![window(3)], 10), [window(3)]);
        let merged = merge_neighbours(vec![window(10); 1025], 10);
        assert_eq!(merged.len(), 342);
        assert_eq!(merged.iter().map(|w| w.length_ns).sum::<u64>(), 10_250);
    }
}
