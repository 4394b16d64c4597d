//! Checks that the patches fit their kernels, and that the built modules can replace the distribution's.

use crate::patches::module::{Module, differences};
use crate::patches::target::Target;
use crate::patches::{Choice, Flavour, build, series, source, toolchain};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::io::{self, Write};

/// Symbols that only patched modules define.
const TRACEPOINTS: [&str; 2] = ["__tracepoint_kvm_vmcs_write", "__tracepoint_kvm_preemption_timer_exit"];
const STOPWATCH_TRACEPOINT: &str = "__tracepoint_kvm_guest_time";
const POLICY: &str = "preemption_timer_policy";
const STOPWATCH: &str = "preemption_timer_stopwatch";
const CAP: &str = "preemption_timer_cap";
/// Parameters of the patches for tests.
const FOR_TESTS: [&str; 3] = ["preemption_timer_soft_value", "preemption_timer_wrap", "preemption_timer_max"];

/// Checks the patches for some kernels, and prints a line for each check.
pub(crate) fn run(kernels: &[Choice]) -> Result<()> {
    toolchain::install_common()?;
    let mut failed = 0;
    for &kernel in kernels {
        if let Some(reason) = kernel.cannot_build()? {
            writeln!(io::stdout(), "{:<8} {:<28} SKIPPED {reason}", kernel.name(), "all checks")
                .context("print result")?;
            continue;
        }
        let target = kernel.target().with_context(|| format!("check patches for {}", kernel.name()))?;
        let mut report = |name: &str, result: Result<String>| {
            failed += usize::from(result.is_err());
            let result = result.map_or_else(|error| format!("FAILED  {error:#}"), |detail| format!("ok      {detail}"));
            writeln!(io::stdout(), "{:<8} {name:<28} {result}", kernel.name()).context("print result")
        };
        report("patches apply", patches_apply(&target, kernel))?;
        match Built::get(&target) {
            Ok(built) => {
                report("modules build", Ok(format!("{} ({})", target.release, target.version)))?;
                for (name, check) in CHECKS {
                    report(name, check(&built))?;
                }
            }
            Err(error) => report("modules build", Err(error))?,
        }
    }
    ensure!(failed == 0, "check patches: {failed} failed");
    Ok(())
}

type Check = fn(&Built) -> Result<String>;

const CHECKS: [(&str, Check); 5] = [
    ("made for this kernel", version_magic),
    ("types for tracers", btf),
    ("imports unchanged", imports),
    ("tracepoints and parameters", additions),
    ("unpatched = distribution's", unpatched_code),
];

/// Contents of the modules.
struct Built {
    /// Whether the patches add the cap.
    caps: bool,
    distribution: Vec<u8>,
    unpatched: Vec<u8>,
    companion: Vec<u8>,
    stopwatch: Vec<u8>,
    test_only: Vec<u8>,
}

impl Built {
    fn get(target: &Target) -> Result<Built> {
        let read = |flavour| {
            let path = build::module(target, flavour)?;
            fs::read(&path).with_context(|| format!("read {}", path.display()))
        };
        Ok(Built {
            caps: series::named(&target.series)?.caps,
            distribution: target.own_module()?,
            unpatched: read(Flavour::Unpatched)?,
            companion: read(Flavour::Companion)?,
            stopwatch: read(Flavour::Stopwatch)?,
            test_only: read(Flavour::TestOnly)?,
        })
    }

    fn ours(&self) -> [(&'static str, &[u8]); 4] {
        [
            ("unpatched", &self.unpatched),
            ("companion", &self.companion),
            ("stopwatch", &self.stopwatch),
            ("test-only", &self.test_only),
        ]
    }
}

/// Applies every patch without fuzz. In the version of the source that the patches are made for, no hunk may move.
fn patches_apply(target: &Target, kernel: Choice) -> Result<String> {
    let own_version = match kernel {
        Choice::Newest(series) => series.version,
        Choice::Running => series::named(&target.series)?.version,
    };
    let source = source::unpacked(&target.series, &target.version)?;
    let (mut counts, mut hunks) = (Vec::new(), 0);
    for flavour in [Flavour::Stopwatch, Flavour::TestOnly] {
        let files = series::files(&target.series, flavour)?;
        let folder = tempfile::tempdir().context("create folder")?;
        let tree = folder.path().join("tree");
        source::copy(&source, &tree)?;
        for file in &files {
            let moved = series::apply(file, &tree)?;
            let is_own = target.version == own_version;
            ensure!(moved.is_empty() || !is_own, "apply {}: hunks move: {}", series::name(file), moved.join(" "));
            hunks += moved.len();
        }
        counts.push(format!("{} ({})", files.len(), flavour.name()));
    }
    let how = match hunks {
        0 => "to the line".to_owned(),
        hunks => format!("made for {own_version}: patch moved {hunks} hunks"),
    };
    Ok(format!("{} patches to linux-source-{} {}, {how}", counts.join(", "), target.series, target.version))
}

/// Compares the vermagic of every module with the distribution's.
fn version_magic(built: &Built) -> Result<String> {
    let theirs = Module::parse(&built.distribution)?.version_magic()?;
    for (name, content) in built.ours() {
        let ours = Module::parse(content)?.version_magic()?;
        ensure!(ours == theirs, "compare vermagic: {name} has {ours:?}, the distribution {theirs:?}");
    }
    Ok(theirs.trim().to_owned())
}

/// Looks for the types that tracers need.
fn btf(built: &Built) -> Result<String> {
    let companion = TRACEPOINTS.map(argument_list);
    let stopwatch = [companion.as_slice(), &[argument_list(STOPWATCH_TRACEPOINT)]].concat();
    let mut sizes = Vec::new();
    for (name, content) in built.ours() {
        let btf = Module::parse(content)?.btf().with_context(|| format!("find BTF in {name}"))?;
        let own = match name {
            "unpatched" => &[],
            "stopwatch" => stopwatch.as_slice(),
            _ => &companion,
        };
        // Tracers need this type, which only this module has, and the arguments of the patches' tracepoints.
        for wanted in [&["loaded_vmcs".to_owned()], own].into_iter().flatten() {
            ensure!(has_name(btf, wanted), "find type {wanted} in BTF of {name}: missing");
        }
        sizes.push(format!("{name} {} bytes", btf.len()));
    }
    Ok(sizes.join(", "))
}

/// Returns the type of a tracepoint's raw arguments, by the tracepoint's symbol.
fn argument_list(tracepoint: &str) -> String {
    tracepoint.replace("__tracepoint_", "btf_trace_")
}

/// Whether a name is one of BTF's strings, which end with a zero.
fn has_name(btf: &[u8], name: &str) -> bool {
    btf.split(|&byte| byte == 0).any(|string| string == name.as_bytes())
}

/// Compares imported symbols and their CRCs with the distribution's.
fn imports(built: &Built) -> Result<String> {
    let theirs = Module::parse(&built.distribution)?.imports()?;
    ensure!(!theirs.is_empty(), "read imports of the distribution's module: none");
    let mut more = 0;
    for (name, content) in built.ours() {
        let ours = Module::parse(content)?.imports()?;
        if let Some((symbol, crc)) =
            ours.iter().find(|(symbol, crc)| theirs.get(*symbol).is_some_and(|other| other != *crc))
        {
            bail!("compare imports: {name} wants {symbol} with CRC {crc:08x?}, the distribution's module with another");
        }
        if let Some(symbol) = theirs.keys().find(|symbol| !ours.contains_key(*symbol)) {
            bail!("compare imports: {name} does not use {symbol}");
        }
        more = ours.len() - theirs.len();
    }
    let crcs = if theirs.values().all(Option::is_some) { "with their CRCs" } else { "this kernel has no CRCs" };
    Ok(format!("{} symbols, {crcs}; the patches use {more} more", theirs.len()))
}

/// Looks for tracepoints and parameters, which each flavour must have or must not have.
fn additions(built: &Built) -> Result<String> {
    for (name, content, has_patches, has_stopwatch, is_for_tests) in [
        ("the distribution's", &built.distribution, false, false, false),
        ("unpatched", &built.unpatched, false, false, false),
        ("companion", &built.companion, true, false, false),
        ("stopwatch", &built.stopwatch, true, true, false),
        ("test-only", &built.test_only, true, false, true),
    ] {
        let module = Module::parse(content)?;
        let parameters = module.information("parm");
        let has = |parameter: &str| parameters.iter().any(|text| text.starts_with(&format!("{parameter}:")));
        let tracepoints = TRACEPOINTS.map(|tracepoint| (tracepoint, has_patches));
        for (tracepoint, expected) in tracepoints.into_iter().chain([(STOPWATCH_TRACEPOINT, has_stopwatch)]) {
            let state = module.defines(tracepoint);
            ensure!(state == expected, "look for {tracepoint} in {name}: found {state}, expected {expected}");
        }
        let own = [(POLICY, has_patches), (CAP, has_patches && built.caps), (STOPWATCH, has_stopwatch)];
        for (parameter, expected) in own.into_iter().chain(FOR_TESTS.map(|parameter| (parameter, is_for_tests))) {
            let state = has(parameter);
            ensure!(state == expected, "look for parameter {parameter} in {name}: found {state}, expected {expected}");
        }
    }
    let cap = if built.caps { format!(", {CAP}") } else { String::new() };
    Ok(format!(
        "{} tracepoints, {POLICY}{cap}; one more and {STOPWATCH} with the stopwatch; {} for tests only",
        TRACEPOINTS.len(),
        FOR_TESTS.join(", ")
    ))
}

/// Compares the code of the unpatched module with the distribution's.
fn unpatched_code(built: &Built) -> Result<String> {
    let ours = Module::parse(&built.unpatched)?.code()?;
    let theirs = Module::parse(&built.distribution)?.code()?;
    ensure!(!theirs.is_empty(), "read code of the distribution's module: none");
    let found = differences(&ours, &theirs);
    ensure!(found.is_empty(), "compare code with the distribution's: {}", found.join(", "));
    let bytes: usize = ours.iter().map(|code| code.bytes.len()).sum();
    let relocations: usize = ours.iter().map(|code| code.relocations.len()).sum();
    Ok(format!("{} sections, {bytes} bytes and {relocations} relocations of code are equal", ours.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_btf_is_compared_as_a_whole() {
        let wanted = argument_list(STOPWATCH_TRACEPOINT);
        assert_eq!(wanted, "btf_trace_kvm_guest_time");
        assert!(has_name(b"\0int\0btf_trace_kvm_guest_time\0u64\0", &wanted));
        assert!(!has_name(b"\0int\0btf_trace_kvm_guest_time_ns\0__btf_trace_kvm_guest_time\0", &wanted));
    }
}
