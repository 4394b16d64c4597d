//! `vmentry compare`: recordings in, windows out of them, a comparison printed.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{
    commands::{
        args::{CompareArgs, ComparisonFormat},
        report::{open, source},
    },
    compare::{
        Comparison, ExperimentRound, Options, Setting, Stratum, Window, Windows, compare,
        condition::{Condition, ConditionResult},
        fairness, html, json, schedule, text, wording,
    },
    model::interval::{Interval, Key, Series},
    output,
    recording::{Experiment, Label, Provenance, Reader},
    report::{Dimension, Filter, Report},
    say,
    tui::terminal,
};

/// Windows of one recording that are kept apart; neighbours of a longer one are merged.
const MOST_WINDOWS: usize = 512;
/// Exit codes of `--fail-if`.
const HOLDS: u8 = 3;
const INCONCLUSIVE: u8 = 4;

/// Compares as the arguments say.
pub fn run(args: &CompareArgs) -> Result<ExitCode> {
    let filters: Vec<_> =
        args.filter.iter().map(|f| Filter::parse(f)).collect::<Result<_, _>>().map_err(|e| anyhow!(e))?;
    let (comparison, setting) = load(&args.files, &args.with, &filters, args.seed)?;
    show(&comparison, &setting, args.format)?;
    judge(&args.fail_if, &comparison)
}

/// Compares an experiment's sides, and prints.
pub fn print(file: &Path, format: ComparisonFormat) -> Result<()> {
    let (comparison, setting) = load(&[file.to_owned()], &[], &[], Options::default().seed)?;
    show(&comparison, &setting, format)
}

fn show(comparison: &Comparison, setting: &Setting, format: ComparisonFormat) -> Result<()> {
    match format {
        ComparisonFormat::Text => output::print(&text::render(comparison, setting, terminal::width())),
        ComparisonFormat::Json => {
            output::print(&(serde_json::to_string_pretty(&json::render(comparison, setting))? + "\n"))
        }
        ComparisonFormat::Html => output::print(&html::render(comparison, setting)),
    }
}

fn judge(conditions: &[Condition], comparison: &Comparison) -> Result<ExitCode> {
    let mut code = 0;
    let observed_ns = comparison.a.length_ns.saturating_add(comparison.b.length_ns);
    for condition in conditions {
        let (result, row) = condition.judge(&comparison.rows).map_err(|e| anyhow!(e))?;
        if let Some(message) = wording::condition(condition, row, result, observed_ns) {
            say!("{message}");
        }
        code = match result {
            ConditionResult::Holds => HOLDS,
            ConditionResult::Inconclusive if code != HOLDS => INCONCLUSIVE,
            _ => code,
        };
    }
    Ok(ExitCode::from(code))
}

/// A recording as a comparison needs it.
struct Recording {
    source: Provenance,
    windows: Vec<(Option<Label>, Window)>,
}

fn load(files: &[PathBuf], with: &[PathBuf], filters: &[Filter], seed: u64) -> Result<(Comparison, Setting)> {
    let read_all = |files: &[PathBuf]| -> Result<Vec<Recording>> {
        files.iter().map(|f| read(f, filters).with_context(|| format!("read {}", f.display()))).collect()
    };
    let mut a = read_all(files)?;
    let mut b = read_all(with)?;
    let experiments = a.iter().chain(&b).filter(|r| r.source.header.experiment.is_some()).count();
    let (windows, mut setting) = if experiments == a.len() && b.is_empty() {
        rounds(a)?
    } else if experiments > 0 {
        bail!("a recording of 'vmentry ab' has both sides in it: compare it alone");
    } else {
        if with.is_empty() {
            if a.len() != 2 {
                let number = if a.len() == 1 { "one recording".into() } else { format!("{} recordings", a.len()) };
                bail!("{number}: name A's and B's, or A's and then --with B's, or one of 'vmentry ab'");
            }
            b = a.split_off(1);
        }
        runs(a, b)
    };
    setting.names = fairness::names(&setting);
    let [a, b] = &setting.sources;
    if let Some(why) = fairness::refusal(a, b, setting.experiment.is_some()) {
        bail!(why);
    }
    if !filters.is_empty() {
        let only: Vec<_> = filters.iter().map(|f| format!("{}={}", f.dimension.name(), f.values.join(","))).collect();
        setting.warnings.push(format!("only entries with {} are compared; loss is of all", only.join(" and ")));
    }
    setting.warnings.extend(fairness::warnings(a, b, setting.experiment.is_some()));
    let options = Options { seed, ..fairness::options(a, b) };
    // A screenful of statistics takes a second or two.
    if std::io::stderr().is_terminal() {
        say!("comparing ...");
    }
    Ok((compare(&windows, &options), setting))
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

/// Bounds the number of windows, and takes a stub at the end into its neighbour.
fn merge_neighbours(mut windows: Vec<Window>, interval_ns: u64) -> Vec<Window> {
    if windows.len() > 1
        && windows.last().is_some_and(|w| w.length_ns < interval_ns / 2)
        && let (Some(stub), Some(last)) = (windows.pop(), windows.last_mut())
    {
        last.merge(&stub);
    }
    let together = windows.len().div_ceil(MOST_WINDOWS).max(1);
    let merged = |group: &[Window]| {
        let mut whole = group[0].clone();
        group[1..].iter().for_each(|w| whole.merge(w));
        whole
    };
    if together == 1 { windows } else { windows.chunks(together).map(merged).collect() }
}

/// Experiments of 'vmentry ab': several of the same settings are one.
fn rounds(recordings: Vec<Recording>) -> Result<(Windows, Setting)> {
    let (mut rounds, mut sources, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let mut experiment: Option<Experiment> = None;
    for recording in recordings {
        let Some(this) = &recording.source.header.experiment else { continue };
        match &experiment {
            Some(first) if (&first.arms, &first.switches) != (&this.arms, &this.switches) => bail!(
                "the experiments are not of the same settings: {} against {}, and {} against {}",
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
        if whole.len() < asked_for {
            warnings.push(format!("{name}: {} of {asked_for} rounds; it ended early", whole.len()));
        }
        rounds.extend(whole);
        sources.push(recording.source);
    }
    let setting = Setting { names: Default::default(), sources: [sources.clone(), sources], experiment, warnings };
    Ok((Windows::Rounds(rounds), setting))
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

fn read(path: &Path, filters: &[Filter]) -> Result<Recording> {
    let mut reader = Reader::new(open(path)?)?;
    if !reader.header().sources.is_empty() {
        bail!("it is a merge of {} recordings: compare those themselves", reader.header().sources.len());
    }
    // Only its VMs and its source: the windows stay apart.
    let mut report = Report { sources: vec![source(path.display().to_string(), reader.header())], ..Report::default() };
    let anchor = reader.header().anchor;
    // A VM's name depends on its namesakes, which are known only at the end: what is filtered by it is kept apart until then.
    let (by_vm, others): (Vec<_>, Vec<_>) = filters.iter().cloned().partition(|f| f.dimension == Dimension::Vm);
    let (mut vms, mut parts) = (BTreeMap::new(), Vec::new());
    while let Some(interval) = reader.read_interval()? {
        report.sources[0].intervals += 1;
        let length_ns = &mut report.sources[0].length_ns;
        *length_ns = length_ns.saturating_add(interval.length_ns);
        let interval = report.renumber(0, interval, &mut vms);
        let start_unix_ns = anchor.to_unix_ns(interval.start_ns);
        parts.push((reader.window(), Parts::of(&interval, &report, &others, !by_vm.is_empty(), start_unix_ns)));
    }
    let windows = parts.into_iter().map(|(label, parts)| (label, parts.join(&report, &by_vm))).collect();
    let mut source = report.sources.remove(0);
    source.end = reader.end().cloned();
    source.torn = reader.is_torn();
    Ok(Recording { source, windows })
}

/// An interval on its way to a window.
struct Parts {
    window: Window,
    /// by a key of the VM, where VMs are filtered; else all under one
    strata: BTreeMap<Option<Key>, BTreeMap<Stratum, Series>>,
    /// a key of each vCPU that entered
    vcpus: BTreeMap<(u32, u32), Key>,
}

impl Parts {
    fn of(interval: &Interval, report: &Report, filters: &[Filter], by_vm: bool, start_unix_ns: u64) -> Self {
        let window =
            Window { start_unix_ns, length_ns: interval.length_ns, totals: interval.totals, ..Window::default() };
        let mut parts = Self { window, strata: BTreeMap::new(), vcpus: BTreeMap::new() };
        let mut of_vm = BTreeMap::new();
        for (key, series) in interval.series.iter().filter(|(key, _)| report.passes(key, filters)) {
            let vm = by_vm.then(|| *of_vm.entry(key.vm).or_insert(*key));
            let stratum = Stratum { level: key.level, isa: key.isa, reason: key.reason, cause: key.cause };
            parts.strata.entry(vm).or_default().entry(stratum).or_default().merge(series);
            if series.entries() > 0 {
                parts.vcpus.insert((key.vm, key.vcpu), *key);
            }
        }
        parts
    }

    /// The window, once all names are known.
    fn join(self, report: &Report, filters: &[Filter]) -> Window {
        let mut window = self.window;
        let passes = |key: &Key| report.passes(key, filters);
        for (_, strata) in self.strata.into_iter().filter(|(vm, _)| vm.as_ref().is_none_or(passes)) {
            for (stratum, series) in strata {
                window.strata.entry(stratum).or_default().merge(&series);
            }
        }
        let vcpus = self.vcpus.into_values().filter(passes);
        window.vcpus = vcpus.map(|key| (report.vm_name(key.vm), key.vcpu)).collect();
        window
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
        // A foreign file may label as it likes.
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
