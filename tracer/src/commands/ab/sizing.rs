//! How small a change an experiment can find, by the spread between the rounds of it or of a recording of the same load.

use anyhow::Result;

use super::plan::{MOST, PILOT, Plan, counted};
use crate::{
    commands::{
        args::AbArgs,
        comparison::Like,
        progress::ProgressLine,
        usage::{refuse, refuse_overlap},
    },
    compare::{
        primary::{Detectable, Primaries},
        wording::{self, time},
    },
    model::{
        figures::{Unit, human},
        measurement::EMULATED,
    },
    output,
};

/// Share by which the windows of a recording may be longer or shorter than asked for: a window ends with the next look at the clock.
const LENGTH_TOLERANCE: f64 = 0.1;

impl Plan {
    /// How small a change of each primary figure its rounds can find, from the spread between `primaries`' rounds; none if that cannot
    /// be told of any.
    pub(super) fn promise(&self, primaries: &Primaries) -> Option<String> {
        let of = |Detectable { name, unit, least, is_ratio }: Detectable| {
            let (least, title) = (least?, wording::title_of_name(&name, unit));
            Some(match is_ratio {
                // How far beyond says nothing.
                true if least > 1.0 => format!("{title} only beyond 100%"),
                true => format!("{title} from {}", wording::size(least)),
                false => format!("{title} from {}", wording::signed(least, unit).replacen('+', "", 1)),
            })
        };
        let all: Vec<_> = primaries.detectable(self.rounds as usize).into_iter().filter_map(of).collect();
        let find = if self.rounds == 1 { "finds" } else { "find" };
        (!all.is_empty())
            .then(|| format!("{} {find} a change (4 times of 5) of {}", counted(self.rounds), all.join(", ")))
    }

    /// Sizes the plan by the recording of `--like`: says how it differs from the plan and what the rounds will find, or refuses the plan
    /// if that is more than `--ignore-below`.
    pub(super) fn sized(&self, args: &AbArgs) -> Result<Vec<String>> {
        let line = ProgressLine::new(true);
        let said = self.sized_with(args, &|rounds| line.show(&format!("--like: simulating {} ...", counted(rounds))));
        line.clear();
        said
    }

    /// The same; `simulates` is told the rounds before each simulation of them, because many take seconds.
    fn sized_with(&self, args: &AbArgs, simulates: &dyn Fn(u32)) -> Result<Vec<String>> {
        let Some(file) = &args.like else { return Ok(Vec::new()) };
        refuse_overlap([file.as_path()], &args.output)?;
        let (like, name) = (Like::read(file, args.window)?, output::shown(file));
        let found = u32::try_from(like.rounds.len()).unwrap_or(u32::MAX);
        if (found as usize) < PILOT {
            let has = if like.is_experiment {
                format!("has {} with entries", whole(found))
            } else {
                let ns = |ns| human(Some(ns), Unit::Ns);
                format!("has {} of four windows of {}", counted(found), ns(args.window.as_nanos() as f64))
            };
            return refuse(format!(
                "--like {name}: {has}; {PILOT} tell how much they differ\n  -> name a longer recording of the same load"
            ));
        }
        let mut said = self.unlike(&like, args, &name);
        let mut primaries = self.primaries();
        let is_experiment = like.is_experiment;
        like.rounds.into_iter().for_each(|round| primaries.take(round));
        if self.ignore_below > 0.0 {
            self.refuse_too_few(&primaries, is_experiment, simulates)?;
        }
        simulates(self.rounds);
        said.extend(self.promise(&primaries));
        Ok(said)
    }

    /// How the recording of `--like` differs from the experiment to come.
    fn unlike(&self, like: &Like, args: &AbArgs, name: &str) -> Vec<String> {
        let mut said = Vec::new();
        if like.is_emulated {
            said.push(format!("--like {name}: EMULATED: {EMULATED}, nor does their spread"));
        }
        let (theirs, ours) = (like.window_ns().unwrap_or_default(), args.window.as_nanos() as f64);
        if (theirs / ours - 1.0).abs() > LENGTH_TOLERANCE {
            let spread = if theirs < ours { "less" } else { "more" };
            let [theirs, ours] = [theirs, ours].map(|ns| human(Some(ns), Unit::Ns));
            said.push(format!(
                "--like {name}: its windows last {theirs}, and those to come {ours}: their rounds will differ {spread} as a rule"
            ));
        }
        said
    }

    /// Refuses a plan that cannot find a change of `--ignore-below` in a figure, and names the rounds that can. Windows of an experiment
    /// stay as they are, whatever `--window` says.
    fn refuse_too_few(&self, primaries: &Primaries, is_experiment: bool, simulates: &dyn Fn(u32)) -> Result<()> {
        let least = |rounds: u32| {
            simulates(rounds);
            let all = primaries.detectable(rounds as usize).into_iter().filter(|figure| figure.is_ratio);
            let ratios = all.filter_map(|f| Some((wording::title_of_name(&f.name, f.unit), f.least?)));
            ratios.max_by(|a, b| a.1.total_cmp(&b.1))
        };
        let Some((title, found)) = least(self.rounds).filter(|(_, found)| *found > self.ignore_below) else {
            return Ok(());
        };
        let mut more = (self.rounds..=MOST).step_by(4);
        let enough = more.find(|rounds| least(*rounds).is_some_and(|(_, l)| l <= self.ignore_below));
        let enough = match (enough, is_experiment) {
            (Some(rounds), _) => format!("--rounds {rounds}, which take {}", time(self.length(rounds))),
            (None, true) => format!(
                "a steadier load, or --like with an experiment of longer windows: {MOST} rounds like these do not either"
            ),
            (None, false) => format!("longer windows (--window), or a steadier load: {MOST} rounds do not either"),
        };
        refuse(format!(
            "{} find a change of {title} from {}, and --ignore-below is {}\n  -> {enough}",
            counted(self.rounds),
            wording::size(found),
            wording::size(self.ignore_below)
        ))
    }
}

/// "1 whole round".
fn whole(rounds: u32) -> String {
    counted(rounds).replacen(' ', " whole ", 1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        commands::{ab::plan::tests::args, comparison::tests::experiment},
        compare::Options,
        recording::{Reader, Writer},
    };

    #[test]
    fn a_change_that_only_a_miracle_could_find_has_no_size() {
        let plan = Plan::of(&args("")).unwrap();
        let promise = |values: &[[f64; 2]]| {
            let mut primaries = Primaries::new(&["entry_to_exit_ns.p50".to_owned()], &Options::default());
            primaries.set(values);
            plan.promise(&primaries).unwrap()
        };
        assert!(promise(&[[100.0, 101.0], [100.0, 99.0], [100.0, 100.5]]).contains("guest time p50 from 1."));
        assert!(promise(&[[100.0, 900.0], [900.0, 100.0], [100.0, 700.0]]).contains("guest time p50 only beyond 100%"));
    }

    /// What is said of an experiment of eight rounds of windows of one second, or why it is refused.
    fn sized(like: &Path, arguments: &str) -> Result<Vec<String>, String> {
        let args = args(&format!("--primary entry_to_exit_ns.p50 --like {} {arguments}", like.to_str().unwrap()));
        Plan::of(&args).unwrap().sized(&args).map_err(|error| error.to_string())
    }

    #[test]
    fn a_recording_of_other_windows_or_of_an_emulated_cpu_is_said_to_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = experiment(folder.path(), |_, _, round, _| 20 + u64::from(round));
        let said = sized(&file, "--window 1s").unwrap();
        assert!(said.len() == 1 && said[0].starts_with("12 rounds find a change"), "{said:?}");
        let said = sized(&file, "--window 5s").unwrap();
        assert!(
            said[0]
                .ends_with("its windows last 1.00s, and those to come 5.00s: their rounds will differ less as a rule"),
            "{said:?}"
        );
        assert!(
            sized(&file, "--window 500ms").unwrap()[0].contains("those to come 500ms: their rounds will differ more")
        );
        let emulated = folder.path().join("emulated.hlog");
        let mut reader = Reader::new(&*std::fs::read(&file).unwrap().leak()).unwrap();
        let mut header = reader.header().clone();
        header.host.emulated = true;
        let mut writer = Writer::new(std::fs::File::create(&emulated).unwrap(), &header).unwrap();
        while let Some(interval) = reader.read_interval().unwrap() {
            writer.write_window(&interval, reader.window()).unwrap();
        }
        drop(writer);
        let said = sized(&emulated, "--window 1s").unwrap();
        assert!(said[0].contains("EMULATED: ") && said[1].starts_with("12 rounds"), "{said:?}");
    }

    #[test]
    fn the_advice_of_a_refusal_can_help() {
        let folder = tempfile::tempdir().unwrap();
        let file =
            experiment(folder.path(), |_, _, round, place| 20 + 30 * u64::from(round * 7 % 5) * u64::from(place));
        let line = format!(
            "--primary entry_to_exit_ns.p50 --like {} --window 1s --ignore-below 0.001%",
            file.to_str().unwrap()
        );
        let (args, told) = (args(&line), std::cell::RefCell::new(Vec::new()));
        let refused = Plan::of(&args).unwrap().sized_with(&args, &|rounds| told.borrow_mut().push(rounds));
        let (refused, told) = (refused.unwrap_err().to_string(), told.into_inner());
        assert!(told.starts_with(&[12, 12, 16]) && told.len() > 100, "each simulation is told: {told:?}");
        assert!(
            refused.contains("or --like with an experiment of longer windows") && !refused.contains("--window)"),
            "{refused}"
        );
        let few = experiment(folder.path(), |_, _, round, _| u64::from(round < 2));
        let refused = sized(&few, "").unwrap_err();
        assert!(refused.contains("has 2 whole rounds with entries; 3 tell"), "{refused}");
    }
}
