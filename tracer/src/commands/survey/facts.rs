//! The facts of a host that a survey keeps: of hardware, kernel and module, and none that names it.

use super::{
    values::{ErratumLimit, Expected, Host, Known},
    words,
};
use crate::{
    host::{
        erratum::{Erratum, seconds},
        facts::Facts,
    },
    model::soft_timer::{Named, Reach},
};

/// What is kept.
pub(super) fn of(facts: &Facts) -> Host {
    let (host, timer) = (&facts.host, facts.timer.as_ref());
    // "FIELD: FIGURES n/a"
    let field = |missing: &String| missing.split(':').next().filter(|name| words::is_field(name)).map(str::to_owned);
    let parameters = host.parameters.iter().filter(|(name, _)| words::is_parameter(name));
    Host {
        cpu: host.cpu.clone(),
        microcode: host.microcode.clone().filter(|revision| words::is_microcode(revision)),
        cpus: host.cpus,
        kernel: words::kernel(&host.kernel),
        vendor: host.vendor,
        parameters: parameters.map(|(name, value)| (name.clone(), words::parameter_value(value))).collect(),
        emulated: host.emulated,
        virtualized: host.virtualized.as_deref().map(words::hypervisor),
        policy: facts.policy,
        companion_patch: facts.companion_patch,
        stopwatch: facts.stopwatch,
        missing: facts.missing.iter().filter_map(field).collect(),
        tsc_khz: timer.and_then(|timer| timer.tsc_khz),
        timer_rate: timer.and_then(|timer| timer.rate),
        tickless_cpus: facts.tickless_cpus.clone(),
        erratum: facts.erratum.as_ref().map(expected),
    }
}

fn expected(erratum: &Erratum) -> Expected {
    let (reach, limit_s) = match erratum.reach {
        None => (None, None),
        Some(Reach::Never) => (Some(ErratumLimit::Never), None),
        Some(Reach::Avoided(limit)) => (Some(ErratumLimit::Avoided), Some(seconds(limit.ns))),
        Some(Reach::Reached(limit)) => (Some(ErratumLimit::Reached), Some(seconds(limit.ns))),
    };
    let known = |named| match named {
        Named::Published(_) => Known::Published,
        Named::Inferred(_) => Known::Inferred,
        Named::No => Known::No,
    };
    Expected { cpu: erratum.cpu.map(known), reach, limit_s, soft_delay_s: erratum.real_delay_s().ok() }
}
