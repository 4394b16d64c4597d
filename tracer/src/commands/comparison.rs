//! Makes a comparison of recordings and prints it, for `compare` and `ab`.

mod rounds;

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
        window_parts::{AllParts, Apart, MOST_WINDOWS, Names, Parts},
    },
    compare::{Comparison, Options, Setting, Window, Windows, compare, fairness, html, json, presence, text},
    model::knowledge::Subject,
    output::{self, Paint},
    recording::{Label, MaxBuckets, OnDamage, Provenance, Reader, Readings, ahead::IntervalRead},
    report::{
        Choices, Dimension, Filter, Report,
        input::{self, Input},
    },
    say,
    tui::terminal,
};
pub(crate) use rounds::Like;
use rounds::rounds;

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
pub(crate) fn print_experiment(file: &Path, format: ComparisonFormat, ignore_below: f64) -> Result<()> {
    let files = [file.to_owned()];
    let request = Request {
        files: &files,
        with: &[],
        filters: &[],
        seed: Options::default().seed,
        ignore_below,
        on_damage: OnDamage::Refuse,
        limit: MaxBuckets::default(),
    };
    let (comparison, setting) = load(&request)?;
    output::print(&render(&comparison, &setting, format, false, true)?)
}

/// A comparison in a format; as text, with every figure and the method if `is_full`, in lines that fit the terminal it is for, if any.
pub(crate) fn render(
    comparison: &Comparison,
    setting: &Setting,
    format: ComparisonFormat,
    is_full: bool,
    to_stdout: bool,
) -> Result<String> {
    Ok(match format {
        ComparisonFormat::Text => {
            let (width, on_terminal) =
                if to_stdout { (terminal::width(), terminal::is_output()) } else { (100, false) };
            let text = if is_full {
                text::full(comparison, setting, width)
            } else {
                text::short(comparison, setting, width, on_terminal)
            };
            text::painted(&text, if to_stdout { terminal::paint() } else { Paint::default() })
        }
        ComparisonFormat::Json => serde_json::to_string_pretty(&json::render(comparison, setting))? + "\n",
        ComparisonFormat::Html => html::render(comparison, setting),
        ComparisonFormat::Markdown => text::markdown(comparison, setting),
    })
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
        let (number, first) = (files.len(), output::shown(files[0].0));
        let number = if number == 1 { "one recording".into() } else { format!("{number} recordings") };
        return refuse(format!(
            "{number}: name A and B, or the recordings of A and then --with those of B, or one of 'vmentry ab'\n  -> vmentry compare {first} \
             B.hlog"
        ));
    }
    let are_several = files.len() > 1;
    let mut reading = Together { filters: request.filters, limit: request.limit, are_several, ..Together::default() };
    let mut a = files.into_iter().map(|(path, file)| reading.read(path, file)).collect::<Result<Vec<_>>>()?;
    let mut b = if are_experiments { Vec::new() } else { a.split_off(of_a) };
    let sources = |side: &[Recording]| side.iter().map(|r| r.source.clone()).collect::<Vec<_>>();
    if !are_experiments && let Some(why) = fairness::on_both_sides(&sources(&a), &sources(&b)) {
        return refuse(why);
    }
    if let Some(why) = fairness::refusal(&sources(&a), &sources(&b)) {
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

/// What recordings that are read one after the other have in common.
#[derive(Default)]
struct Together<'a> {
    filters: &'a [Filter],
    /// whether there is more than one
    are_several: bool,
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
    fn read(&mut self, path: &Path, reader: Reader<impl BufRead + Send + 'static>) -> Result<Recording> {
        let name = output::shown(path);
        let header = reader.header().clone();
        if !header.sources.is_empty() {
            let merged = header.sources.len();
            bail!("read {name}: it is a merge of {merged} recordings: compare the recordings themselves");
        }
        let mut input = Input::new(reader, name.clone(), &mut self.recordings, &mut self.readings)?;
        // Of the report only the VMs and the source are used: the windows stay apart.
        let mut report = Report { sources: vec![Provenance::unread(name, header)], ..Report::default() };
        let (by_vm, others): (Vec<_>, Vec<_>) =
            self.filters.iter().cloned().partition(|f| f.dimension == Dimension::Vm);
        let (mut vms, mut parts, mut keys) = (BTreeMap::new(), AllParts::default(), BTreeSet::new());
        let (mut keeps_vms, mut held) = (false, 0);
        let is_experiment = report.sources[0].header.experiment.is_some();
        let apart = match (is_experiment, by_vm.is_empty()) {
            (true, _) => Apart::ByVcpu,
            (false, false) => Apart::ByVm,
            (false, true) => Apart::No,
        };
        while let Some((_, IntervalRead { interval, window, continues, line, .. })) =
            input.next(&mut self.readings).with_context(|| format!("read {}", output::shown(path)))?
        {
            report.sources[0].intervals += u64::from(!continues);
            let length_ns = &mut report.sources[0].length_ns;
            *length_ns = length_ns.saturating_add(interval.length_ns);
            let interval = report.renumber(0, interval, &mut vms);
            if !self.filters.is_empty() {
                keys.extend(interval.series.keys().copied());
            }
            let of_interval = Parts::of(&interval, &report, &others, apart);
            match window {
                // Between the windows of an experiment.
                None if is_experiment => {}
                label => parts.add(label, continues, of_interval),
            }
            let failed = || format!("read {}", output::shown(path));
            // In the end those of each VM are kept, too.
            keeps_vms = is_experiment && (vms.len() > 1 || self.are_several);
            held = parts.buckets * if keeps_vms { 2 } else { 1 };
            self.limit.check(self.buckets + held, line).with_context(failed)?;
        }
        self.buckets += held;
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
        source.end = input.file.end().cloned();
        source.torn = input.file.is_torn();
        source.damage.extend(input.file.damage_of(&source.name));
        let (windows, left_out) = parts.into_windows(&Names { report: &report, filters: &by_vm }, keeps_vms);
        let of_file = if self.are_several { format!("{}: ", output::shown(path)) } else { String::new() };
        self.warnings.extend(presence::lines(&left_out).into_iter().map(|line| of_file.clone() + &line));
        Ok(Recording { source, is_left_out: is_repeated || is_other, windows })
    }
}

#[cfg(test)]
pub(crate) mod tests;
