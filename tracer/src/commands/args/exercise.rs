//! The command line of `exercise`.

use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};

use crate::guest::{MAX_VCPUS, Scenario};

use super::{
    format::{Format, Json},
    value::at_least_one,
};

/// Arguments of `exercise`.
#[derive(Debug, Args)]
pub struct ExerciseArgs {
    /// Scenario that the guest runs
    #[arg(value_name = "SCENARIO", value_parser = works())]
    pub work: Work,
    /// Repetitions by each vCPU [default: 100; 3 for early]
    #[arg(long, value_name = "N", value_parser = at_least_one::<u32>)]
    pub count: Option<u32>,
    /// Number of vCPUs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_VCPUS.into()))]
    pub vcpus: u32,
    /// TSC cycles to a timer's deadline, or iterations of the loops of spin and pause [default: by scenario, and further ahead where exits take long]
    #[arg(long, value_name = "N", value_parser = at_least_one::<u32>)]
    pub delta: Option<u32>,
    /// For early: TSC cycles after which the CPU's timer begins anew [default: 2^32 ticks of the crystal clock, by CPUID.15H]
    #[arg(long, value_name = "CYCLES", hide = true, value_parser = at_least_one::<u64>)]
    pub limit: Option<u64>,
    /// How to print the counts: text, or json
    #[arg(long, value_enum, ignore_case = true, default_value_t, hide_possible_values = true)]
    format: Format,
    /// JSON in fewer letters
    #[command(flatten)]
    json: Json,
}

impl ExerciseArgs {
    /// How to print.
    pub(crate) fn format(&self) -> Format {
        self.json.or(Format::Json, self.format)
    }
}

/// The work of `exercise`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// exits whose number is known
    Scenario(Scenario),
    /// timers that are far ahead, to see whether they fire early
    EarlyTimers,
}

impl Work {
    /// The name of [`Work::EarlyTimers`].
    const EARLY: &'static str = "early";

    fn parse(name: &str) -> Result<Self, String> {
        if name == Self::EARLY { Ok(Self::EarlyTimers) } else { name.parse().map(Self::Scenario) }
    }
}

fn works() -> impl TypedValueParser<Value = Work> {
    let early =
        PossibleValue::new(Work::EARLY).help("see whether far timers fire early (Intel's erratum EMR158, VMX only)");
    let values = Scenario::ALL.map(|s| PossibleValue::new(s.name()).help(s.description())).into_iter().chain([early]);
    PossibleValuesParser::new(values).try_map(|name| Work::parse(&name))
}
