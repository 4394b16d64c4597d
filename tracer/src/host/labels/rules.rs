//! A file of rules that find further labels of VMs: `LABEL FIELD REGEX` in each line, and the value is what the first group matches.

use std::{collections::BTreeSet, fs::File, io::Read, path::Path};

use anyhow::{Context, Result, anyhow, bail, ensure};
use regex_lite::{Regex, RegexBuilder};

use crate::{
    host::process::Process,
    model::{suggestion::did_you_mean, vm_labels::KEYS},
    output::{MAX_NAME, printable, shown},
};

/// Bytes of a file at most.
const MOST_BYTES: u64 = 64 << 10;
/// Rules of a file at most.
const MOST_RULES: usize = 64;
/// Bytes of a compiled regular expression at most: the time that a byte of text takes grows with them.
const MOST_COMPILED: usize = 16 << 10;
/// Bytes of a text that all rules together search, at most. A VM is named when its labels are known, and waits no longer than a second.
const MOST_SEARCHED: usize = 64 << 10;
/// Characters of a label's name at most.
const MOST_NAME: usize = 64;
/// Names of labels that metrics have already, or that only a cgroup may tell.
pub(crate) const TAKEN: [&str; 19] = [
    "vm",
    "name",
    "host",
    "pid",
    "uid",
    "ordinal",
    "level",
    "exit_reason",
    "entry",
    "cause",
    "phase",
    "detail",
    "le",
    "quantile",
    "job",
    "policy",
    "version",
    "vcpu",
    "manager",
];

/// Rules that find labels of VMs.
#[derive(Debug, Default)]
pub struct LabelRules(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    label: String,
    field: Field,
    regex: Regex,
}

/// The text of a process that a rule searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    /// the VM's name
    Name,
    /// the command line, with a space between arguments
    Arguments,
    /// /proc/PID/cgroup
    Cgroup,
}

impl Field {
    const ALL: [(&str, Self); 3] = [("name", Self::Name), ("arguments", Self::Arguments), ("cgroup", Self::Cgroup)];

    fn text(self, process: &Process) -> String {
        match self {
            Self::Name => process.name(),
            Self::Arguments => process.arguments.iter().collect::<Vec<_>>().join(" "),
            Self::Cgroup => process.cgroup.trim_end().to_owned(),
        }
    }

    fn parse(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, field)| field);
        known.with_context(|| {
            let meant = did_you_mean(name, Self::ALL.map(|(known, _)| known));
            format!("{}: no such field: {meant}write name, arguments or cgroup", printable(name, MAX_NAME))
        })
    }
}

impl LabelRules {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let mut bytes = Vec::new();
            let file = File::open(path).map_err(|error| {
                anyhow!("{error}: name a file of rules that you may read, see 'vmentry help metrics'")
            })?;
            file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
            ensure!(bytes.len() as u64 <= MOST_BYTES, "the file has more than {MOST_BYTES} bytes: shorten it");
            let text = String::from_utf8(bytes).ok().context("the file is not UTF-8: save it as UTF-8")?;
            // Some editors begin a file with a byte-order mark.
            let rules = Self::parse(text.strip_prefix('\u{feff}').unwrap_or(&text))?;
            ensure!(!rules.0.is_empty(), "no rule is in it: write LABEL FIELD REGEX, as: customer name ^([a-z]+)-");
            Ok(rules)
        };
        read().with_context(|| format!("--vm-label-rules {}", shown(path)))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut rules = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            ensure!(rules.len() < MOST_RULES, "line {number}: more than {MOST_RULES} rules: leave some out");
            rules.push(Rule::parse(line).with_context(|| format!("line {number}"))?);
        }
        Ok(Self(rules))
    }

    /// The names of their labels.
    pub(crate) fn keys(&self) -> BTreeSet<&str> {
        self.0.iter().map(|rule| rule.label.as_str()).collect()
    }

    /// The labels that they find; of each, the first counts.
    pub(super) fn labels<'a>(&'a self, process: &Process) -> Vec<(&'a str, String)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let texts = self.texts(process);
        let mut found: Vec<(&str, String)> = Vec::new();
        for rule in &self.0 {
            if found.iter().any(|(label, _)| *label == rule.label) {
                continue;
            }
            let value = rule.regex.captures(&texts[rule.field as usize]).and_then(|groups| groups.get(1));
            found.extend(
                value.map(|value| (rule.label.as_str(), value.as_str().to_owned())).filter(|f| !f.1.is_empty()),
            );
        }
        found
    }

    /// The text of each field, in the order of [`Field::ALL`], cut so that its rules search no more than [`MOST_SEARCHED`] together.
    fn texts(&self, process: &Process) -> [String; 3] {
        Field::ALL.map(|(_, field)| {
            let rules = self.0.iter().filter(|rule| rule.field == field).count();
            if rules == 0 {
                return String::new();
            }
            let mut text = field.text(process);
            text.truncate(text.floor_char_boundary(MOST_SEARCHED / rules));
            text
        })
    }
}

impl Rule {
    fn parse(line: &str) -> Result<Self> {
        let mut rest = line;
        let mut word = || {
            let (word, after) = rest.split_once(char::is_whitespace)?;
            rest = after.trim_start();
            Some(word)
        };
        let (Some(label), Some(field)) = (word(), word()) else {
            bail!("{}: write LABEL FIELD REGEX, as: customer name ^([a-z]+)-", printable(line, MAX_NAME));
        };
        check_label(label)?;
        let field = Field::parse(field)?;
        let shown = printable(rest, MAX_NAME);
        let regex = RegexBuilder::new(rest).size_limit(MOST_COMPILED).build();
        let regex = regex.map_err(|error| anyhow::anyhow!("{shown}: {error}: correct the regular expression"))?;
        ensure!(
            regex.captures_len() > 1,
            "{shown}: no group, which would be the value: put parentheses around the part that is the value"
        );
        Ok(Self { label: label.to_owned(), field, regex })
    }
}

fn check_label(label: &str) -> Result<()> {
    let shown = printable(label, MAX_NAME);
    let is_sign = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    ensure!(
        label.len() <= MOST_NAME && label.bytes().all(is_sign) && label.starts_with(|c: char| c.is_ascii_lowercase()),
        "{shown}: no name of a label: write lower-case letters, digits and _, a letter first, {MOST_NAME} at most"
    );
    ensure!(
        // Prometheus renames labels of the target that a metric has, too.
        !TAKEN.contains(&label) && !label.starts_with("exported_"),
        "{shown}: metrics have this label already: choose another name, as vm_{shown}, or one of {}",
        KEYS[1..].join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{labels::labels, process::Arguments};

    fn process(name: &str, cgroup: &str) -> Process {
        Process {
            tgid: 1,
            parent: 1,
            uid: None,
            start_time_ticks: 0,
            comm: "qemu".into(),
            arguments: Arguments::of_cmdline(format!("qemu\0-name\0{name}\0-m\01G\0").as_bytes()),
            cgroup: cgroup.into(),
        }
    }

    fn refused(text: &str) -> String {
        format!("{:#}", LabelRules::parse(text).unwrap_err())
    }

    #[test]
    fn the_first_rule_of_a_label_that_matches_gives_its_value() {
        let rules = LabelRules::parse(
            "# customers\n\n  customer name ^([a-z]+)-\ncustomer cgroup /customer-([^/.]+)\\.slice/\n\
             memory\targuments  -m (\\S+)\nempty name ^(x?)\nservice cgroup (?m)^0::.*/vm@([^/]+)\\.service$\n",
        )
        .unwrap();
        assert_eq!(rules.keys().into_iter().collect::<Vec<_>>(), ["customer", "empty", "memory", "service"]);
        let found = labels(&process("acme-web1", "0::/customer-zeta.slice/x.scope\n"), &rules);
        let of = |key| found.get(key);
        assert_eq!((of("customer"), of("memory"), of("empty")), (Some("acme"), Some("1G"), None));
        let found = labels(&process("web1", "1:cpu:/x\n0::/customer-zeta.slice/vm@web1.service\n"), &rules);
        assert_eq!((found.get("customer"), found.get("service")), (Some("zeta"), Some("web1")));
    }

    #[test]
    fn a_manager_comes_before_the_rules_and_nobody_but_a_cgroup_names_it() {
        let rules = LabelRules::parse("vmid name ([0-9]+)\nnamespace cgroup /ns-([a-z]+)/\n").unwrap();
        let found = labels(&process("7", "0::/qemu.slice/101.scope"), &rules);
        assert_eq!(found.get("vmid"), Some("101"));
        let found = labels(&process("7", "0::/ns-prod/x"), &rules);
        assert_eq!((found.get("vmid"), found.get("namespace")), (Some("7"), Some("prod")));
        assert!(refused("manager name (.*)").contains("metrics have this label already"));
    }

    #[test]
    fn a_value_is_one_printable_line_of_bounded_length() {
        let rules = LabelRules::parse("all arguments (?s)(.*)").unwrap();
        let found = labels(&process(&format!("a\nb\u{202e}\x1b[2J{}", "x".repeat(10_000)), ""), &rules);
        let value = found.get("all").unwrap();
        assert!(value.len() <= 128 && value.contains("a\u{fffd}b\u{fffd}\u{fffd}[2J"), "{value}");
    }

    #[test]
    fn sixty_four_rules_search_no_more_text_than_four_do_and_few_search_all_of_it() {
        let process = process(&"\u{e9}".repeat(5 << 10), &"/x".repeat(8 << 10));
        let searched = |rules: &LabelRules| -> usize {
            let texts = rules.texts(&process);
            rules.0.iter().map(|rule| texts[rule.field as usize].len()).sum()
        };
        let of = |rules: usize, field: &str| {
            let lines = (0..rules).map(|n| format!("label{n} {field} (x)\n"));
            searched(&LabelRules::parse(&lines.collect::<String>()).unwrap())
        };
        let whole = process.arguments.iter().collect::<Vec<_>>().join(" ").len();
        assert!(whole > 8 << 10);
        assert_eq!([of(1, "arguments"), of(3, "arguments")], [whole, 3 * whole]);
        for field in ["arguments", "cgroup"] {
            let all = of(MOST_RULES, field);
            assert!((MOST_SEARCHED - MOST_RULES..=MOST_SEARCHED).contains(&all), "{field}: {all}");
        }
        assert!(of(MOST_RULES, "name") <= MOST_SEARCHED);
    }

    #[test]
    fn each_wrong_line_is_named_with_its_fix() {
        for (text, expected) in [
            ("\n\ncustomer", "line 3: customer: write LABEL FIELD REGEX"),
            ("customer name", "line 1: customer name: write LABEL FIELD REGEX"),
            ("Customer name (x)", "line 1: Customer: no name of a label: write lower-case letters"),
            ("__x name (x)", "no name of a label"),
            ("level name (x)", "line 1: level: metrics have this label already: choose another name, as vm_level"),
            ("exported_job name (x)", "line 1: exported_job: metrics have this label already"),
            ("customer argument (x)", "line 1: argument: no such field: did you mean arguments? write name"),
            ("customer name ^web", "line 1: ^web: no group"),
            ("customer name (x", "correct the regular expression"),
            ("customer name (a{1000}){1000}", "correct the regular expression"),
            ("customer arguments ([a-z]{1000})", "correct the regular expression"),
            ("customer\u{1b} name (x)", "customer\u{fffd}: no name of a label"),
        ] {
            assert!(refused(text).contains(expected), "{text}: {}", refused(text));
        }
        let many = "a name (x)\n".repeat(MOST_RULES);
        assert_eq!(LabelRules::parse(&many).unwrap().0.len(), MOST_RULES);
        assert!(refused(&(many + "# and\nb name (x)")).starts_with("line 66: more than 64 rules"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules");
        let error = || format!("{:#}", LabelRules::read(&path).unwrap_err());
        assert!(error().starts_with("--vm-label-rules /") && error().contains("No such file"), "{}", error());
        std::fs::write(&path, vec![b'#'; (64 << 10) + 1]).unwrap();
        assert!(error().contains("more than 65536 bytes"), "{}", error());
        std::fs::write(&path, b"a name (\xff)").unwrap();
        assert!(error().contains("not UTF-8"), "{}", error());
        std::fs::write(&path, vec![b'#'; 64 << 10]).unwrap();
        assert!(error().contains("no rule is in it"), "{}", error());
        std::fs::write(&path, "\u{feff}customer name (x)\n").unwrap();
        assert_eq!(LabelRules::read(&path).unwrap().keys().into_iter().collect::<Vec<_>>(), ["customer"]);
    }
}
