//! Filters of entries, as `--filter` takes them, and what the recordings that were read have to filter by.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use tracer_common::rules::TimerCause;

use super::{Dimension, Report};
use crate::model::{
    detail::Detail, exit_reasons::Wanted, series::Key, suggestion::did_you_mean, vcpu_range::vcpu_range,
};

/// Values of which any run of neighbours is tried as one name with commas.
const MOST_PARTS: usize = 32;
/// Values that an error lists; the others are counted.
const MOST_LISTED: usize = 20;

/// Keeps entries whose dimension has one of the values. Case is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub(crate) dimension: Dimension,
    /// the values as the user wrote them
    text: String,
    /// the values in lower case
    values: Vec<String>,
    /// the values of [`Dimension::Reason`]
    reasons: Vec<Wanted>,
    /// whether entries pass whose value is not known
    unknown: bool,
}

impl FromStr for Filter {
    type Err = String;

    /// From "reason=CPUID,HLT".
    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Dimension::ALL.map(Dimension::name).join(", ");
        let (name, values) = text.split_once('=').ok_or("write DIMENSION=VALUE[,VALUE...], e.g. reason=CPUID,HLT")?;
        let dimension = Dimension::parse(name.trim()).ok_or_else(|| {
            let meant = did_you_mean(name.trim(), Dimension::ALL.map(Dimension::name));
            format!("there is no dimension '{}': {meant}there are {}", name.trim(), names())
        })?;
        let (text, values) = (values.trim().to_owned(), values.split(',').map(|v| v.trim().to_lowercase()));
        let values: Vec<String> = match dimension {
            Dimension::Vcpu => values.map(|value| vcpus(&value)).collect::<Result<Vec<_>, _>>()?.concat(),
            _ => values.collect(),
        };
        let mut filter = Self { dimension, text, values, reasons: vec![], unknown: false };
        for value in filter.values.clone() {
            filter.take(&value)?;
        }
        Ok(filter)
    }
}

/// The numbers of a range such as "0-3"; anything else as it is.
fn vcpus(value: &str) -> Result<Vec<String>, String> {
    let is_range = value.contains('-') && value.starts_with(|first: char| first.is_ascii_digit());
    if !is_range {
        return Ok(vec![value.to_owned()]);
    }
    Ok(vcpu_range(value)?.map(|vcpu| vcpu.to_string()).collect())
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}={}", self.dimension.name(), self.text)
    }
}

impl Filter {
    /// Checks a value, and keeps what is not kept as text.
    fn take(&mut self, value: &str) -> Result<(), String> {
        let is_unknown = self.is_unknown(value);
        self.unknown |= is_unknown;
        let known: &[&str] = match self.dimension {
            _ if value.is_empty() => return Err(format!("'{}': a value is missing", self.text)),
            _ if is_unknown => return Ok(()),
            Dimension::Reason => {
                self.reasons.push(value.parse()?);
                return Ok(());
            }
            Dimension::Vcpu if value.parse::<u32>().is_err() => {
                return Err(format!("'{value}' is not the number of a vCPU"));
            }
            Dimension::Host | Dimension::Vm | Dimension::Vcpu | Dimension::Detail => return Ok(()),
            Dimension::Level => &["L1", "L2"],
            Dimension::Entry => &["clean", "dirty"],
            Dimension::Cause => &TimerCause::ALL.map(TimerCause::name),
        };
        match known.iter().any(|k| k.eq_ignore_ascii_case(value)) {
            true => Ok(()),
            false => Err(format!("'{value}' is not one of {}", known.join(", "))),
        }
    }

    /// Whether a value stands for those that are not known: "-" in the tables, "unknown" in JSON. Of causes, "unknown" is one.
    fn is_unknown(&self, value: &str) -> bool {
        matches!(value, "-" | "n/a") || value == "unknown" && self.dimension != Dimension::Cause
    }

    /// Whether an entry passes. `value` is as shown, and `vm` is the VM's own name, which selects all VMs of that name.
    fn passes(&self, key: &Key, value: Option<&str>, vm: Option<&str>) -> bool {
        match (self.dimension, key.reason) {
            (Dimension::Reason, Some(reason)) => self.reasons.iter().any(|wanted| wanted.is(key.isa, reason)),
            // By its number or its name, too: "0x6e0" of "0x6e0 TSC_DEADLINE".
            (Dimension::Detail, _) => {
                let is_meant = |detail: Detail| self.values.iter().any(|wanted| detail.is_meant_by(wanted));
                self.passes_value(value) || key.detail.is_some_and(is_meant)
            }
            _ => self.passes_value(value) || vm.is_some_and(|vm| self.selects(vm)),
        }
    }

    /// Whether a value passes, as it is shown; none if it is not known.
    pub(super) fn passes_value(&self, value: Option<&str>) -> bool {
        value.map_or(self.unknown, |value| self.selects(value))
    }

    fn selects(&self, name: &str) -> bool {
        !self.parts_of(&name.to_lowercase()).is_empty()
    }

    /// The values that a name is made of: one, or several neighbours for a name with commas.
    fn parts_of(&self, name: &str) -> std::ops::Range<usize> {
        let most = if self.values.len() > MOST_PARTS { 1 } else { self.values.len() };
        let runs = (1..=most).flat_map(|length| (0..=self.values.len() - length).map(move |at| at..at + length));
        runs.into_iter().find(|run| self.values[run.clone()].join(",") == name).unwrap_or(0..0)
    }

    /// The first name of a host or VM that is not among `names`.
    fn missing<'a>(&'a self, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        let found: BTreeSet<usize> = names.flat_map(|name| self.parts_of(&name.to_lowercase())).collect();
        let mut values = self.values.iter().enumerate();
        values.find(|(at, value)| !found.contains(at) && !self.is_unknown(value)).map(|(_, value)| value.as_str())
    }
}

/// What recordings have to filter by.
#[derive(Debug, Default)]
pub(crate) struct Choices {
    /// names as shown
    shown: BTreeMap<Dimension, BTreeSet<String>>,
    /// VMs' own names, where several share one
    vms: BTreeSet<String>,
    any_passes: bool,
}

impl Choices {
    /// Adds the entries of a report.
    pub(crate) fn add<'a>(&mut self, report: &Report, keys: impl Iterator<Item = &'a Key>, filters: &[Filter]) {
        for key in keys {
            self.any_passes |= report.passes(key, filters);
            for filter in filters {
                let value = report.value(key, filter.dimension).unwrap_or_else(|| "-".into());
                self.shown.entry(filter.dimension).or_default().insert(value);
            }
            self.vms.extend(report.whole.vms.get(&key.vm).map(|vm| vm.name.clone()));
        }
    }

    /// Reason why filters that the user wrote cannot be meant; none if entries pass, or if there are no entries at all.
    pub(crate) fn refusal(&self, filters: &[Filter]) -> Option<String> {
        if self.shown.is_empty() {
            return None;
        }
        for filter in filters.iter().filter(|f| matches!(f.dimension, Dimension::Host | Dimension::Vm)) {
            let bare = self.vms.iter().filter(|_| filter.dimension == Dimension::Vm);
            let names = self.shown.get(&filter.dimension).into_iter().flatten().chain(bare);
            if let Some(missing) = filter.missing(names.map(String::as_str)) {
                let what = filter.dimension.name();
                let (meant, there) =
                    (did_you_mean(missing, self.values(filter.dimension)), self.there_are(filter.dimension));
                return Some(format!(
                    "--filter {filter}: no {what} of these recordings is '{missing}' ({meant}{there})"
                ));
            }
        }
        let written: Vec<_> = filters.iter().map(|f| format!("--filter {f}")).collect();
        let dimensions: BTreeSet<Dimension> = filters.iter().map(|f| f.dimension).collect();
        let there: Vec<_> = dimensions.into_iter().map(|d| format!("of {}, {}", d.name(), self.there_are(d))).collect();
        (!self.any_passes).then(|| format!("{}: no entry passes; {}", written.join(" "), there.join("; ")))
    }

    fn values(&self, dimension: Dimension) -> impl Iterator<Item = &str> {
        self.shown.get(&dimension).into_iter().flatten().map(String::as_str)
    }

    fn there_are(&self, dimension: Dimension) -> String {
        let all: Vec<&str> = self.values(dimension).collect();
        match all.len().saturating_sub(MOST_LISTED) {
            0 => format!("there are: {}", all.join(", ")),
            more => format!("there are: {}, and {more} more", all[..MOST_LISTED].join(", ")),
        }
    }
}

impl Report {
    /// Whether a key passes all filters.
    pub fn passes(&self, key: &Key, filters: &[Filter]) -> bool {
        filters.iter().all(|filter| {
            let vm = (filter.dimension == Dimension::Vm).then(|| self.whole.vms.get(&key.vm)).flatten();
            filter.passes(key, self.value(key, filter.dimension).as_deref(), vm.map(|vm| vm.name.as_str()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{super::tests::report, *};

    fn filter(text: &str) -> Filter {
        text.parse().unwrap()
    }

    fn passing(report: &Report, text: &str) -> u64 {
        let series = report.whole.series.iter().filter(|(key, _)| report.passes(key, &[filter(text)]));
        series.map(|(_, s)| s.entries()).sum()
    }

    /// What is said about a filter of a report of vm0, CPUID and PREEMPTION_TIMER.
    fn refusal(report: &Report, text: &str) -> Option<String> {
        let filters = [filter(text)];
        let mut choices = Choices::default();
        choices.add(report, report.whole.series.keys(), &filters);
        choices.refusal(&filters)
    }

    #[test]
    fn vcpus_may_be_ranges() {
        let values = |text: &str| text.parse::<Filter>().map(|filter| filter.values);
        assert_eq!(values("vcpu=0-2,7").unwrap(), ["0", "1", "2", "7"]);
        assert_eq!(values("vcpu=-").unwrap(), ["-"]);
        for bad in ["vcpu=3-0", "vcpu=0-99999", "vcpu=a-b", "vcpu=1-"] {
            assert!(values(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_filter_is_refused_with_what_there_is() {
        for (text, why) in [
            ("color=red", "host, vm, vcpu, level"),
            ("reason", "DIMENSION=VALUE"),
            ("reason=", "a value is missing"),
            ("reason=CPUID,,HLT", "a value is missing"),
            ("reason=CPUD", "not an exit reason"),
            ("level=L3", "L1, L2"),
            ("entry=wet", "clean, dirty"),
            ("cause=late", "deadline, immediate, spurious"),
            ("vcpu=two", "number of a vCPU"),
        ] {
            let error = text.parse::<Filter>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn reasons_are_selected_by_name_and_number_as_for_a_trigger() {
        let report = report();
        for text in ["reason=cpuid", "reason=10", "reason=0xa", "reason=HLT, CPUID"] {
            assert_eq!(passing(&report, text), 97, "{text}");
        }
        assert_eq!(passing(&report, "reason=52,10"), 120);
        assert_eq!(passing(&report, "cause=-"), 97, "exits without a cause");
        assert_eq!(passing(&report, "cause=unknown"), 0, "none was a timer exit of unknown cause");
        let mut failed = report;
        failed.whole.series = failed
            .whole
            .series
            .into_iter()
            .map(|(k, s)| (Key { reason: k.reason.map(|r| r | 1 << 31), ..k }, s))
            .collect();
        for text in ["reason=CPUID", "reason=CPUID (failed entry)", "reason=2147483658"] {
            assert_eq!(passing(&failed, text), 97, "{text}");
        }
    }

    #[test]
    fn a_name_with_commas_is_selected_whole_and_beside_others() {
        let mut report = report();
        Arc::make_mut(report.whole.vms.get_mut(&0).unwrap()).name = "web,1,b".into();
        for text in ["vm=web,1,b", "vm=WEB,1,B", "vm=other,web,1,b,more"] {
            assert_eq!(passing(&report, text), 120, "{text}");
        }
        assert_eq!(passing(&report, "vm=web"), 0);
        assert_eq!(refusal(&report, "vm=web,1,b"), None);
        assert!(refusal(&report, "vm=web,1,b,db").unwrap().contains("is 'db' (there are: web,1,b)"));
    }

    #[test]
    fn a_filter_that_nothing_passes_is_refused_with_what_there_is() {
        let report = report();
        assert_eq!(refusal(&report, "reason=CPUID,HLT"), None, "the one that is there passes");
        let none = refusal(&report, "reason=HLT").unwrap();
        assert_eq!(none, "--filter reason=HLT: no entry passes; of reason, there are: CPUID, PREEMPTION_TIMER");
        let vm = refusal(&report, "vm=vm0,wm1").unwrap();
        assert_eq!(vm, "--filter vm=vm0,wm1: no vm of these recordings is 'wm1' (there are: vm0)");
        assert_eq!(refusal(&Report::default(), "vm=vm0"), None, "nothing was recorded: that is said instead");
    }
}
