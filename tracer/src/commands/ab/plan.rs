//! The plan of an experiment: its rounds and its primary figures.

use std::time::Duration;

use anyhow::Result;

use crate::{
    commands::{
        args::{AbArgs, Until},
        usage::refuse,
    },
    compare::{
        Options,
        assemble::first_rounds,
        primary::{OF_OTHERS, OF_POLICIES, Primaries},
        schedule::PLACES,
        wording::{self, time},
    },
    output::grouped,
};

/// Rounds of an experiment.
const ROUNDS: u32 = 12;
/// Most rounds of one that stops when it is decided.
const MOST_ROUNDS: u32 = 60;
/// Most rounds of any.
pub(super) const MOST: u32 = 1000;
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
    pub(super) ignore_below: f64,
}

impl Plan {
    /// The plan that was asked for. One that cannot decide anything is refused, unless its rounds are only recorded.
    pub(super) fn of(args: &AbArgs) -> Result<Self> {
        let round = args.window.saturating_add(args.washout).saturating_mul(u32::from(PLACES));
        let stops_when_decided = args.until == Some(Until::Decided);
        let rounds = match (args.until, args.rounds) {
            (Some(Until::Time(_) | Until::Rounds(_)), Some(rounds)) => {
                return refuse(format!("--rounds {rounds}: --until says already when to stop: leave out one of them"));
            }
            (None, rounds) => rounds.unwrap_or(ROUNDS),
            (Some(Until::Decided), rounds) => rounds.unwrap_or(MOST_ROUNDS),
            (Some(Until::Rounds(rounds)), None) => rounds,
            (Some(Until::Time(limit)), None) => {
                let rounds = limit.saturating_sub(args.warmup).as_nanos() / round.as_nanos().max(1);
                match u32::try_from(rounds) {
                    Ok(rounds) if rounds <= MOST => rounds,
                    _ => {
                        return refuse(format!(
                            "--until {}: has time for {} rounds, and {MOST} is the limit\n  -> --until {MOST}, which takes {}, or longer \
                             windows (--window)",
                            time(limit),
                            grouped(u64::try_from(rounds).unwrap_or(u64::MAX)),
                            time(args.warmup.saturating_add(round.saturating_mul(MOST)))
                        ));
                    }
                }
            }
        };
        let needed = first_rounds(1);
        if rounds < needed && !args.no_compare {
            let given = match (args.until, args.rounds) {
                (Some(Until::Time(limit)), _) => {
                    format!("--until {}: has time for {}, which", time(limit), counted(rounds))
                }
                (Some(Until::Rounds(_)), _) => format!("--until {rounds}: {}", counted(rounds)),
                _ => format!("--rounds {rounds}: {}", counted(rounds)),
            };
            let length = time(args.warmup.saturating_add(round.saturating_mul(needed)));
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
            "; the others take more rounds".to_owned()
        } else {
            format!(", and the others from about round {others}")
        };
        format!(
            "{up_to}{}, {}: decides a primary figure from round {} on{others}",
            counted(self.rounds),
            time(warmup.saturating_add(self.length(self.rounds))),
            first_rounds(1)
        )
    }

    /// The length of so many rounds.
    pub(super) fn length(&self, rounds: u32) -> Duration {
        self.round.saturating_mul(rounds)
    }

    /// How much longer some rounds take.
    pub(super) fn time_of(&self, rounds: usize) -> String {
        time(self.length(u32::try_from(rounds).unwrap_or(u32::MAX)))
    }
}

/// "1 round", "12 rounds".
pub(super) fn counted(rounds: u32) -> String {
    wording::counted(rounds.into(), "round")
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;
    use crate::commands::args::{Cli, Command};

    pub(in crate::commands::ab) fn args(arguments: &str) -> AbArgs {
        let line = ["vmentry", "ab"].into_iter().chain(arguments.split_whitespace());
        let Some(Command::Ab(args)) = Cli::try_parse_from(line).unwrap().command else { panic!("{arguments}") };
        args
    }

    fn plan(arguments: &str) -> Result<Plan> {
        Plan::of(&args(arguments))
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
        assert_eq!(rounds("--until 22002s"), 1000);
        assert!(plan("--until decided").unwrap().stops_when_decided && !plan("--until 7").unwrap().stops_when_decided);
    }

    #[test]
    fn rounds_that_decide_nothing_are_refused_with_those_that_do() {
        let few = refusal("--rounds 5");
        assert!(few.contains("6 are needed") && few.contains("2 min 14 s") && few.contains("--rounds 6"), "{few}");
        assert!(refusal("--until 1m").contains("has time for 2 rounds"));
        assert!(refusal("--until 30s").contains("has time for 1 round, which"));
        assert!(refusal("--until 3").contains("-> --until 6 or more"));
        assert!(refusal("--primary pin_writes.mean,pin_writes.mean").contains("named twice"));
        let six = plan("--rounds 6").unwrap().design(Duration::ZERO);
        assert_eq!(six, "6 rounds, 2 min 12 s: decides a primary figure from round 6 on; the others take more rounds");
        assert!(refusal("--until 9 --rounds 9").contains("leave out one"));
        assert_eq!(plan("--rounds 2 --no-compare").unwrap().rounds, 2);
    }

    #[test]
    fn a_time_for_more_rounds_than_there_may_be_is_refused_and_not_cut() {
        let many = refusal("--until 30h");
        assert!(many.contains("--until 30 h: has time for 4,909 rounds, and 1000 is the limit"), "{many}");
        assert!(many.contains("-> --until 1000, which takes 6 h 7 min, or longer windows"), "{many}");
        assert!(refusal("--until 1000000000s --window 10ms --washout 10ms").contains("12,499,999,975 rounds"));
        // Nor does any length overflow.
        let long = plan("--window 1000000000s --rounds 1000").unwrap().design(Duration::from_secs(2));
        assert!(long.starts_with("1,000 rounds, 1,111,111,111 h"), "{long}");
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
