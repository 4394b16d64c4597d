//! The plan of an experiment: its rounds, its primary figures, and how small a change these can find.

use std::time::Duration;

use anyhow::Result;

use crate::{
    commands::{
        args::{AbArgs, Until},
        comparison,
        usage::{refuse, refuse_overlap},
    },
    compare::{
        Options, Windows,
        assemble::first_rounds,
        primary::{Detectable, OF_OTHERS, OF_POLICIES, Primaries},
        schedule::PLACES,
        wording,
    },
    model::number::truncated_u64,
    output,
};

/// Rounds of an experiment.
const ROUNDS: u32 = 12;
/// Most rounds of one that stops when it is decided.
const MOST_ROUNDS: u32 = 60;
/// Rounds from which the spread of a figure can be told.
pub(super) const PILOT: usize = 3;

/// The plan of an experiment.
pub(super) struct Plan {
    /// rounds at most
    pub(super) rounds: u32,
    /// primary figures in their order, as FIGURE.STATISTIC
    pub(super) primary: Vec<String>,
    /// whether it ends as soon as every primary figure is decided
    pub(super) stops_when_decided: bool,
    /// length of a round
    round: Duration,
    ignore_below: f64,
}

impl Plan {
    /// The plan that was asked for. One that cannot decide anything is refused, unless its rounds are only recorded.
    pub(super) fn of(args: &AbArgs) -> Result<Self> {
        let round = (args.window + args.washout) * u32::from(PLACES);
        let stops_when_decided = args.until == Some(Until::Decided);
        let rounds = match (args.until, args.rounds) {
            (Some(Until::Time(_) | Until::Rounds(_)), Some(rounds)) => {
                return refuse(format!("--rounds {rounds}: --until says already when to stop: leave out one of them"));
            }
            (None, rounds) => rounds.unwrap_or(ROUNDS),
            (Some(Until::Decided), rounds) => rounds.unwrap_or(MOST_ROUNDS),
            (Some(Until::Rounds(rounds)), None) => rounds,
            (Some(Until::Time(time)), None) => {
                let rounds = time.saturating_sub(args.warmup).as_nanos() / round.as_nanos().max(1);
                u32::try_from(rounds).unwrap_or(u32::MAX).min(1000)
            }
        };
        let needed = first_rounds(1);
        if rounds < needed && !args.no_compare {
            let given = match (args.until, args.rounds) {
                (Some(Until::Time(time)), _) => format!("--until {}: has time for {rounds} rounds, which", text(time)),
                (Some(Until::Rounds(_)), _) => format!("--until {rounds}: {rounds} rounds"),
                _ => format!("--rounds {rounds}: {rounds} rounds"),
            };
            let length = text(args.warmup + round * needed);
            let option = if args.until.is_some() { "--until" } else { "--rounds" };
            return refuse(format!(
                "{given} cannot decide a small change: even if all of them agree, {needed} are needed for a primary figure, which take \
                 {length}\n  -> {option} {needed} or more, shorter windows (--window), or --no-compare to record rounds that are compared \
                 together with others"
            ));
        }
        let defaults: &[&str] = if args.arm.is_empty() { &OF_POLICIES } else { &OF_OTHERS };
        let defaults = defaults.iter().map(|name| (*name).to_owned());
        let primary: Vec<String> = if args.primary.is_empty() { defaults.collect() } else { args.primary.clone() };
        if let Some(twice) = primary.iter().enumerate().find(|(at, name)| primary[..*at].contains(name)) {
            return refuse(format!("--primary {}: is named twice: the order decides which is tested first", twice.1));
        }
        Ok(Self { rounds, primary, stops_when_decided, round, ignore_below: args.ignore_below })
    }

    /// The primary figures, without any round yet.
    pub(super) fn primaries(&self) -> Primaries {
        Primaries::new(&self.primary, &Options { ignore_below: self.ignore_below, ..Options::default() })
    }

    /// What the rounds can decide at all, and how long they take.
    pub(super) fn design(&self, warmup: Duration) -> String {
        let others = first_rounds(20).max(first_rounds(1));
        let up_to = if self.stops_when_decided { "up to " } else { "" };
        let others = if others > self.rounds {
            "not the others, which takes more rounds".to_owned()
        } else {
            format!("the others from about round {others}")
        };
        format!(
            "{up_to}{} rounds, {}: decides a primary figure from round {} on, and {others}",
            self.rounds,
            text(warmup + self.round * self.rounds),
            first_rounds(1)
        )
    }

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
        (!all.is_empty()).then(|| format!("{} rounds find a change (4 times of 5) of {}", self.rounds, all.join(", ")))
    }

    /// Sizes the plan by a recording of the same load: says what its rounds will find, or refuses it if that is more than
    /// `--ignore-below`.
    pub(super) fn sized(&self, args: &AbArgs) -> Result<Option<String>> {
        let Some(like) = &args.like else { return Ok(None) };
        refuse_overlap([like.as_path()], &args.output)?;
        let Windows::Rounds(rounds) = comparison::rounds_of(like, args.window)? else { return Ok(None) };
        let found = rounds.len();
        if found < PILOT {
            return refuse(format!(
                "--like {}: has {found} rounds of four windows of {}; {PILOT} tell how much they differ: name a longer recording",
                output::shown(like),
                text(args.window)
            ));
        }
        let mut primaries = self.primaries();
        rounds.into_iter().for_each(|round| primaries.take(round));
        if self.ignore_below > 0.0 {
            self.refuse_too_few(&primaries)?;
        }
        Ok(self.promise(&primaries))
    }

    /// Refuses a plan that cannot find a change of `--ignore-below` in a figure, and names the rounds that can.
    fn refuse_too_few(&self, primaries: &Primaries) -> Result<()> {
        let least = |rounds: u32| {
            let all = primaries.detectable(rounds as usize).into_iter().filter(|figure| figure.is_ratio);
            let ratios = all.filter_map(|f| Some((wording::title_of_name(&f.name, f.unit), f.least?)));
            ratios.max_by(|a, b| a.1.total_cmp(&b.1))
        };
        let Some((title, found)) = least(self.rounds).filter(|(_, found)| *found > self.ignore_below) else {
            return Ok(());
        };
        let enough =
            (self.rounds..=1000).step_by(4).find(|rounds| least(*rounds).is_some_and(|(_, l)| l <= self.ignore_below));
        let enough = match enough {
            Some(rounds) => format!("--rounds {rounds}, which take {}", text(self.round * rounds)),
            None => "longer windows (--window), or a steadier load: 1000 rounds do not either".to_owned(),
        };
        refuse(format!(
            "{} rounds find a change of {title} from {}, and --ignore-below is {}\n  -> {enough}",
            self.rounds,
            wording::size(found),
            wording::size(self.ignore_below)
        ))
    }

    /// How much longer some rounds take.
    pub(super) fn time_of(&self, rounds: usize) -> String {
        text(self.round * u32::try_from(rounds).unwrap_or(u32::MAX))
    }
}

/// "6 min 24 s".
fn text(time: Duration) -> String {
    let seconds = truncated_u64(time.as_secs_f64().round());
    match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, s) => format!("{minutes} min {s} s"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::commands::args::{Cli, Command};

    fn plan(arguments: &str) -> Result<Plan> {
        let line = ["vmentry", "ab"].into_iter().chain(arguments.split_whitespace());
        let Some(Command::Ab(args)) = Cli::try_parse_from(line).unwrap().command else { panic!("{arguments}") };
        Plan::of(&args)
    }

    fn refusal(arguments: &str) -> String {
        plan(arguments).err().expect("refused").to_string()
    }

    #[test]
    fn rounds_are_the_default_or_those_that_were_asked_for_or_that_fit() {
        let rounds = |arguments| plan(arguments).unwrap().rounds;
        assert_eq!(
            [rounds(""), rounds("--rounds 23"), rounds("--until 7"), rounds("--until decided")],
            [12, 23, 7, 60]
        );
        // 2 s of warmup, and 22 s a round.
        assert_eq!([rounds("--until 10m"), rounds("--until decided --rounds 9")], [27, 9]);
        assert!(plan("--until decided").unwrap().stops_when_decided && !plan("--until 7").unwrap().stops_when_decided);
    }

    #[test]
    fn a_change_that_only_a_miracle_could_find_has_no_size() {
        let plan = plan("").unwrap();
        let promise = |values: &[[f64; 2]]| {
            let mut primaries = Primaries::new(&["entry_to_exit_ns.p50".to_owned()], &Options::default());
            primaries.set(values);
            plan.promise(&primaries).unwrap()
        };
        assert!(promise(&[[100.0, 101.0], [100.0, 99.0], [100.0, 100.5]]).contains("guest time p50 from 1."));
        assert!(promise(&[[100.0, 900.0], [900.0, 100.0], [100.0, 700.0]]).contains("guest time p50 only beyond 100%"));
    }

    #[test]
    fn rounds_that_decide_nothing_are_refused_with_those_that_do() {
        let few = refusal("--rounds 5");
        assert!(few.contains("6 are needed") && few.contains("2 min 14 s") && few.contains("--rounds 6"), "{few}");
        assert!(refusal("--until 1m").contains("has time for 2 rounds"));
        assert!(refusal("--until 3").contains("-> --until 6 or more"));
        assert!(refusal("--primary pin_writes.mean,pin_writes.mean").contains("named twice"));
        let six = plan("--rounds 6").unwrap().design(Duration::ZERO);
        assert_eq!(
            six,
            "6 rounds, 2 min 12 s: decides a primary figure from round 6 on, and not the others, which takes more rounds"
        );
        assert!(refusal("--until 9 --rounds 9").contains("leave out one"));
        assert_eq!(plan("--rounds 2 --no-compare").unwrap().rounds, 2);
    }

    #[test]
    fn primary_figures_are_the_policys_or_those_of_other_settings_or_the_given_ones() {
        assert_eq!(plan("").unwrap().primary[0], "pin_writes.mean");
        assert_eq!(plan("--arm a=true --arm b=true").unwrap().primary, OF_OTHERS);
        assert_eq!(
            plan("--primary time.steal.share,entries.per_second").unwrap().primary,
            ["time.steal.share", "entries.per_second"]
        );
        let design = plan("").unwrap().design(Duration::from_secs(2));
        assert_eq!(
            design,
            "12 rounds, 4 min 26 s: decides a primary figure from round 6 on, and the others from about round 11"
        );
    }
}
