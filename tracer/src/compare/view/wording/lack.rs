//! What a comparison without verdicts lacks, and what to do for some.

use super::{
    answer::{has_values, is_conclusive},
    names::reason,
    numbers::counted,
    sides::entries,
};
use crate::{
    compare::{Comparison, Setting, Side},
    model::{
        figures::{Unit, human},
        number::truncated_u64,
    },
    output::grouped,
};

/// What there is too little of.
pub(super) fn lack(c: &Comparison) -> String {
    if c.unit == "round" && c.units[0] == 0 {
        return "it ended before the first round did".into();
    }
    if let Some(empty) = side_without_entries(c) {
        return format!("{empty} no entries");
    }
    let ([a, b], needed) = (c.units, c.needed);
    if a.min(b) >= needed {
        // A maximum never has an interval.
        let why = c.rows.iter().filter(|r| has_values(r) && r.stat != "max").find_map(reason);
        return why.unwrap_or_else(|| "there are no figures".into());
    }
    let ns = |ns: u64| human(Some(ns as f64), Unit::Ns);
    match c.unit {
        "round" => format!("{a} of the {needed} rounds that are needed"),
        "block" if [a, b] == [1, 1] => {
            let (a, b) = (ns(c.a.length_ns), ns(c.b.length_ns));
            format!("{a} and {b} are one block each; {needed} a side are needed")
        }
        unit => format!("{} of A and {b} of B; {needed} a side are needed", counted(a as u64, unit)),
    }
}

fn side_without_entries(c: &Comparison) -> Option<&'static str> {
    match [0, 1].map(|side| entries(c, side) == 0) {
        [true, true] => Some("both sides have"),
        [true, false] => Some("A has"),
        [false, true] => Some("B has"),
        [false, false] => None,
    }
}

/// What to do for a verdict, if more units give one.
pub(crate) fn advice(c: &Comparison, setting: &Setting) -> Option<String> {
    if is_conclusive(c) {
        return None;
    }
    if side_without_entries(c).is_some() && (c.unit != "round" || c.units[0] > 0) {
        return Some("record while a VM runs".into());
    }
    let needed = c.needed;
    if c.units[0].min(c.units[1]) >= needed {
        return Some("record longer".into());
    }
    Some(match c.unit {
        "round" => again(setting, needed),
        "block" => {
            let length = about(needed as u64 * longest_block_ns(c, setting));
            format!("record about {length} a side, or {needed} recordings a side, or: sudo vmentry ab")
        }
        _ => format!("make {needed} recordings a side, or: sudo vmentry ab"),
    })
}

/// The command line that makes the experiment once more, with so many rounds and into another file: with the options that it had.
fn again(setting: &Setting, needed: usize) -> String {
    let command = setting.sources[0].first().map(|source| source.header.command.as_slice()).unwrap_or_default();
    let ours = command.split(|word| word == "--").next().unwrap_or_default();
    let (rest, mut ours) = (&command[ours.len()..], ours.iter().skip_while(|word| *word != "ab").skip(1));
    let mut kept: Vec<&str> = Vec::new();
    let mut is_until_decided = false;
    while let Some(word) = ours.next() {
        let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
        match name {
            "--overwrite" => {}
            "--rounds" | "--until" | "--output" | "-o" => {
                let value = value.or_else(|| ours.next().map(String::as_str));
                is_until_decided |= name == "--until" && value == Some("decided");
            }
            _ if name.starts_with("-o") => {}
            _ => kept.push(word),
        }
    }
    let rounds = if is_until_decided { "--until decided".to_owned() } else { format!("--rounds {needed}") };
    let words = kept.into_iter().map(shell_word);
    let line = words.chain([rounds, "-o NEW.hlog".into()]).chain(rest.iter().map(|word| shell_word(word)));
    let more = if is_until_decided { "" } else { ", or more rounds" };
    format!("sudo vmentry ab {}{more}", line.collect::<Vec<_>>().join(" "))
}

/// A word as the shell takes it.
fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-+=./,:%@".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The length of a block, ns: that of the side with the longer ones, and an interval at least.
fn longest_block_ns(c: &Comparison, setting: &Setting) -> u64 {
    let of = |(side, units): (&Side, usize)| side.recorded_ns / units.max(1) as u64;
    let blocks = [&c.a, &c.b].into_iter().zip(c.units).map(of);
    let intervals = setting.sources.iter().flatten().map(|s| s.header.interval_ns);
    blocks.chain(intervals).max().unwrap_or(0)
}

/// A duration, rounded up to what people type: "20 s", "2 min", "3 h".
fn about(ns: u64) -> String {
    let seconds = truncated_u64((ns as f64 / 1e9).ceil());
    match seconds {
        s if s <= 60 => format!("{} s", s.div_ceil(10).max(1) * 10),
        s if s <= 7200 => format!("{} min", s.div_ceil(60)),
        s => format!("{} h", grouped(s.div_ceil(3600))),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::summary, *};
    use crate::compare::{
        Verdict,
        fixture::{comparison, setting},
    };

    /// Recordings without any verdict, made one after the other.
    fn inconclusive(unit: &'static str, units: [usize; 2]) -> (Comparison, Setting) {
        let (mut c, mut s) = (comparison(), setting());
        c.rows.iter_mut().for_each(|r| r.verdict = Verdict::NotEnoughData);
        (c.unit, c.units, c.needed) = (unit, units, 6);
        (c.a.length_ns, c.a.recorded_ns) = (15_600_000_000, 15_600_000_000);
        (c.b.length_ns, c.b.recorded_ns) = (17_000_000_000, 17_000_000_000);
        s.experiment = None;
        (c, s)
    }

    #[test]
    fn what_is_missing_is_said_once_with_what_to_do() {
        let said = |unit, units| {
            let (c, s) = inconclusive(unit, units);
            (summary(&c, &s), advice(&c, &s).unwrap())
        };
        let (text, next) = said("block", [1, 1]);
        assert_eq!(
            text,
            "NOT ENOUGH DATA to compare B (hard) with A (soft): 15.6s and 17.0s are one block each; 6 a side are needed (EMULATED)"
        );
        assert_eq!(next, "record about 2 min a side, or 6 recordings a side, or: sudo vmentry ab");
        let (text, next) = said("block", [3, 2]);
        assert!(text.contains(": 3 blocks of A and 2 of B; 6 a side are needed"), "{text}");
        assert!(next.starts_with("record about 60 s a side"), "{next}");
        assert!(said("block", [1, 2]).0.contains(": 1 block of A and 2 of B; 6 a side are needed"));
        let (text, next) = said("recording", [4, 5]);
        assert!(text.contains(": 4 recordings of A and 5 of B; 6 a side are needed"), "{text}");
        assert_eq!(next, "make 6 recordings a side, or: sudo vmentry ab");
        let (text, next) = said("round", [3, 3]);
        assert!(text.contains(": 3 of the 6 rounds that are needed"), "{text}");
        assert_eq!(next, "sudo vmentry ab --rounds 6 -o NEW.hlog, or more rounds");
        let (text, next) = said("round", [0, 0]);
        assert!(text.contains(": it ended before the first round did"), "{text}");
        assert_eq!(next, "sudo vmentry ab --rounds 6 -o NEW.hlog, or more rounds");
        let (mut c, s) = inconclusive("block", [1, 1]);
        c.mix.rows.iter_mut().for_each(|r| r.entries[1] = 0);
        assert!(summary(&c, &s).contains(": B has no entries"));
        assert_eq!(advice(&c, &s).unwrap(), "record while a VM runs");
        assert_eq!(advice(&comparison(), &s), None);
    }

    #[test]
    fn an_experiment_is_made_again_with_its_options() {
        let said = |line: &[&str]| {
            let (c, mut s) = inconclusive("round", [3, 3]);
            s.sources[0][0].header.command = line.iter().map(|&word| word.to_owned()).collect();
            advice(&c, &s).unwrap()
        };
        let arms = ["--arm", "a=echo 'x' > /y", "--arm=b=true"];
        let line =
            [&["vmentry", "ab"], &arms[..], &["--rounds", "3", "-o", "x.hlog", "--overwrite", "--vm", "web1"]].concat();
        assert_eq!(
            said(&line),
            r"sudo vmentry ab --arm 'a=echo '\''x'\'' > /y' --arm=b=true --vm web1 --rounds 6 -o NEW.hlog, or more rounds"
        );
        assert_eq!(
            said(&["vmentry", "ab", "--until", "decided", "-oy", "--", "qemu", "--rounds", "..."]),
            "sudo vmentry ab --until decided -o NEW.hlog -- qemu --rounds ..."
        );
        assert!(said(&["vmentry", "ab", "--until=10m"]).starts_with("sudo vmentry ab --rounds 6 -o NEW.hlog,"));
    }

    #[test]
    fn durations_are_rounded_up_to_what_people_type() {
        let texts = [0, 11_000_000_000, 61_000_000_000, 7_201_000_000_000].map(about);
        assert_eq!(texts, ["10 s", "20 s", "2 min", "3 h"]);
    }
}
