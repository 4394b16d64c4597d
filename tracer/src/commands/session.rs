//! The steps that `record`, `live`, `ab`, `export`, `calibrate` and `check --overhead` share: check that tracing is possible here,
//! select VMs, make a recording's header, detach.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::sync::mpsc;
use tracer_common::{Config, Isa, Slot};

use crate::{
    collect::collector::Collection,
    commands::args::{RingKib, Targets},
    host::{
        clock::Anchor,
        clock_mapping::measured_khz,
        erratum::Erratum,
        facts::{self, Facts},
        machine::Host,
        pid_namespace, problems,
        process::read_process,
        roots::Roots,
        vmm,
    },
    kernel::{kvm_module::Watch, layout::Layout, options::Options, tracer::ring_bytes_of_host},
    model::{
        accounting::Accounting,
        interval::Interval,
        measurement::{Latency, PinSource, SoftDelay, Timer},
        suggestion::did_you_mean,
        vendor::Vendor,
        vm_labels::KEYS,
    },
    output::{self, Background, MAX_NAME},
    recording::{FORMAT, Header, VERSION},
    say,
};

/// Facts and layout of this host, or every reason why it cannot be traced, each with its fix. The error names `command` and ends
/// with `hint`. With `ask_kvm`, a VM is created for a moment to ask KVM for its TSC frequency.
pub(crate) fn traceable_host(command: &str, hint: &str, ask_kvm: bool) -> Result<(Facts, Layout)> {
    let facts = facts::gather(ask_kvm);
    if let Some(errors) = problems::errors(&facts.problems()) {
        bail!("cannot {command} here:\n{errors}\n  'vmentry check' shows everything{hint}");
    }
    if facts.shows_host_processes == Some(false) {
        say!("VMs are named 'tgid N': this process is in a PID namespace of its own\n  -> {}", pid_namespace::FIX);
    }
    if let Some(shared) = facts.other_tracers.shared("are") {
        say!("SHARED: {shared}");
    }
    let layout = facts.layout.clone().context("no layout, and no error about it")?;
    Ok((facts, layout))
}

/// Watches whether the vendor's KVM module is unloaded or replaced; none if the vendor has no such module.
pub(crate) fn watch_module(host: &Host) -> Option<Watch> {
    host.vendor.and_then(Vendor::module).map(|module| Watch::new(&Roots::default().sys, module))
}

/// Fails if the kernel's count of entries and the delivered records disagree; `figures` names what must not be trusted then.
pub(crate) fn ensure_exact(accounting: &Accounting, figures: &str) -> Result<()> {
    ensure!(
        accounting.exact,
        "the kernel's count of entries and the delivered records disagree: do not trust {figures}, and report this as a bug"
    );
    Ok(())
}

/// Detaches the programs, waits until the rings are drained, and checks the accounting. An error of the collector comes before one in
/// `result`, and that before a wrong account.
pub(crate) async fn detach(mut collection: Collection, result: Result<()>, figures: &str) -> Result<()> {
    collection.stop();
    while collection.intervals.recv().await.is_some() {}
    let accounting = collection.join()?;
    result?;
    ensure_exact(&accounting, figures)
}

/// The next interval, once there is room to write it. Without room none is taken, so that the collector makes its interval longer.
pub(crate) async fn next_writable(out: &Background, intervals: &mut mpsc::Receiver<Interval>) -> Option<Interval> {
    out.room().await;
    intervals.recv().await
}

/// A command's async runtime: one thread, with timers, signals and sockets.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("start")
}

/// Size of one CPU's ring in bytes.
pub(crate) fn ring_bytes(ring: RingKib) -> Result<u32> {
    match ring {
        RingKib::Auto => ring_bytes_of_host(),
        RingKib::Kib(kib) => Ok(kib * 1024),
    }
}

/// vCPU numbers to trace; none for all.
pub(crate) fn selected_vcpus(targets: &Targets) -> Option<Vec<u32>> {
    let ids: BTreeSet<u32> = targets.vcpu.iter().cloned().flatten().collect();
    (!ids.is_empty()).then(|| ids.into_iter().collect())
}

/// The command line as a recording keeps it. Of `command`, the end of it, only the program's name is kept unless `full` is set: recordings
/// are passed on, and arguments may be passwords. Bytes that are not UTF-8 become U+FFFD.
pub(crate) fn command_line(command: &[OsString], full: bool) -> Vec<String> {
    kept(&std::env::args_os().collect::<Vec<_>>(), command, full)
}

/// In place of arguments that are not kept.
const LEFT_OUT: &str = "...";

fn kept(all: &[OsString], command: &[OsString], full: bool) -> Vec<String> {
    let (own, program) = match command.split_first() {
        Some((program, _)) if !full => (&all[..all.len().saturating_sub(command.len())], Some(program)),
        _ => (all, None),
    };
    let text = |part: &OsStr| part.to_string_lossy().into_owned();
    let name = |program: &OsString| text(Path::new(program).file_name().unwrap_or(program));
    let mut line: Vec<_> = own.iter().take(1).map(name).chain(own.iter().skip(1).map(|part| text(part))).collect();
    line.extend(program.map(name));
    line.extend((program.is_some() && command.len() > 1).then(|| LEFT_OUT.into()));
    line
}

/// The header of a recording of this host; `command` is from [`command_line`].
pub(crate) fn header(
    facts: &Facts,
    layout: &Layout,
    options: &Options,
    interval: Duration,
    command: Vec<String>,
) -> Header {
    let mut header = Header {
        format: FORMAT.into(),
        version: VERSION,
        tool: format!("vmentry {}", env!("CARGO_PKG_VERSION")),
        command,
        label: None,
        anchor: Anchor::now(),
        interval_ns: nanoseconds(interval),
        ring_bytes: options.ring_bytes,
        host: facts.host.clone(),
        policy: facts.policy,
        pin_writes_source: if options.exact_writes { PinSource::Tracepoint } else { pin_source(&layout.config) },
        latency: Latency::Clean,
        aggregation: options.aggregation,
        timer: facts.timer.clone(),
        soft_delay: soft_delay(facts),
        tickless_cpus: Some(facts.tickless_cpus.clone()),
        stopwatch: options.stopwatch,
        phases: options.phases,
        detail: options.detail,
        sites: options.sites.clone(),
        missing: facts.missing.clone(),
        unknown: None,
        other_tracers: Some(facts.other_tracers.clone()),
        experiment: None,
        sources: Vec::new(),
    };
    header.unknown = Some(header.knowledge().to_file());
    header
}

/// How long a soft-disabled timer runs here; none without VMX, where it is unknown, and with the companion's stopwatch, which restarts it.
fn soft_delay(facts: &Facts) -> Option<SoftDelay> {
    let timer = facts.timer.as_ref().filter(|_| facts.stopwatch != Some(true))?;
    let timer = Timer { tsc_khz: timer.tsc_khz.or_else(measured_khz), ..timer.clone() };
    Erratum::gather(&Roots::default(), &facts.host, &timer).soft_delay()
}

/// The command line that looks at a recording which was written to `path`; none where that cannot be read again: standard output, a device.
pub(crate) fn look_again(command: &str, path: &Path) -> Option<String> {
    (path != Path::new("-") && path.is_file()).then(|| format!("vmentry {command} {}", output::shown(path)))
}

/// A duration of the command line in ns.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Source of pin writes with these globals, without the companion patch.
pub(crate) fn pin_source(config: &Config) -> PinSource {
    match (config.get(Slot::VmxLoadedVmcs), config.get(Slot::VmcsPin)) {
        (Some(_), Some(_)) => PinSource::Shadow,
        _ => PinSource::None,
    }
}

/// Says which details that were asked for cannot be known on this kernel.
pub(crate) fn say_missing_details(options: &Options, config: &Config) {
    if options.detail
        && let Some(missing) = missing_details(config)
    {
        say!("{missing}");
    }
}

/// The details of exits that this kernel's BTF does not tell; none where it tells all.
fn missing_details(config: &Config) -> Option<&'static str> {
    let lacks = |slots: &[Slot]| slots.iter().any(|slot| config.get(*slot).is_none());
    match config.layout_isa() {
        Some(Isa::Vmx) if lacks(&[Slot::QualificationRead, Slot::VmxQualification]) => Some(
            "details of I/O, control registers, interrupts and faults are n/a: this kernel's BTF does not say which fields KVM has \
             read",
        ),
        Some(Isa::Svm) if lacks(&[Slot::VmcbExitInfo1]) => {
            Some("details of I/O, MSRs and faults are n/a: field vmcb.control.exit_info_1 is not in this kernel's BTF")
        }
        _ => None,
    }
}

/// Processes to trace; none for all.
pub(crate) fn selected_tgids(targets: &Targets) -> Result<Option<Vec<u32>>> {
    let Targets { vm: names, pid: pids, .. } = targets;
    if names.is_empty() && pids.is_empty() {
        return Ok(None);
    }
    let Roots { proc, .. } = Roots::default();
    if pid_namespace::shows_host_processes(&proc) == Some(false) {
        let given = if pids.is_empty() { "--vm" } else { "--pid" };
        bail!(
            "{given}: this process is in a PID namespace of its own, whose process ids are not those of the host\n  -> {}",
            pid_namespace::FIX
        );
    }
    let mut tgids = Vec::new();
    for pid in pids {
        // The id of a thread, as `top -H` shows it, selects its process.
        let process = read_process(&proc, *pid);
        tgids.push(process.map_err(|_| anyhow!("--pid {pid}: there is no such process"))?.tgid);
    }
    let vmm::Running { vms: running, unseen } = vmm::find_vms(&proc);
    for name in names {
        let shown = output::printable(name, MAX_NAME);
        let of_name = running.iter().filter(|v| v.is_called(name) || v.process.tgid.to_string() == *name);
        let before = tgids.len();
        tgids.extend(of_name.map(|v| v.process.tgid));
        if tgids.len() == before {
            let known: Vec<_> = running.iter().map(|v| format!("{} (pid {})", v.name, v.process.tgid)).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            let known = known + &label_meant(name);
            match &unseen {
                None => bail!("--vm {shown}: no such VM is running (running: {known})"),
                Some(why) => {
                    bail!("--vm {shown}: no such VM is seen (seen: {known})\n  -> {why}; or choose it by --pid")
                }
            }
        }
    }
    Ok(Some(tgids))
}

/// "; did you mean uuid? labels are ..." of a word that names a label which no VM has; empty of any other.
fn label_meant(word: &str) -> String {
    match word.split_once('=') {
        Some((key, _)) if !KEYS.contains(&key) => {
            format!("; {}labels are {}", did_you_mean(key, KEYS), KEYS.join(", "))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn details_that_a_kernel_does_not_tell_are_named_once_for_its_module() {
        let mut vmx = Config::empty();
        assert_eq!(missing_details(&vmx), None, "no module's fields are read");
        vmx.set(Slot::LayoutIsa, Isa::Vmx as u8);
        assert!(missing_details(&vmx).unwrap().starts_with("details of I/O, control registers"));
        vmx.set(Slot::VmxQualification, 8);
        assert!(
            missing_details(&vmx).is_some(),
            "a qualification is not used where nobody tells that it is this exit's"
        );
        vmx.set(Slot::QualificationRead, 8);
        assert_eq!(missing_details(&vmx), None);
        let mut svm = Config::empty();
        svm.set(Slot::LayoutIsa, Isa::Svm as u8);
        assert!(missing_details(&svm).unwrap().contains("exit_info_1"));
        svm.set(Slot::VmcbExitInfo1, 8);
        assert_eq!(missing_details(&svm), None);
    }

    #[test]
    fn a_label_that_there_is_not_is_told_from_a_value_that_no_vm_has() {
        assert!(label_meant("namespce=prod").starts_with("; did you mean namespace? labels are manager, uuid"));
        assert_eq!([label_meant("namespace=prod"), label_meant("web1")], ["", ""]);
    }

    #[test]
    fn a_recording_keeps_no_arguments_of_the_command_unless_asked() {
        let all: Vec<OsString> = ["/root/bin/vmentry", "record", "--label", "--", "--", "/opt/bin/qemu", "password=x"]
            .into_iter()
            .map(Into::into)
            .collect();
        let own = ["vmentry", "record", "--label", "--", "--"];
        let line = |from: usize, full| kept(&all, &all[from..], full);
        assert_eq!(line(5, false), [&own[..], &["qemu", "..."]].concat());
        assert_eq!(kept(&all[..6], &all[5..6], false), [&own[..], &["qemu"]].concat());
        assert_eq!(line(5, true), [&own[..], &["/opt/bin/qemu", "password=x"]].concat());
        assert_eq!(line(7, false), line(5, true), "without a command");
        let name = [OsString::from_vec(b"n\xff".to_vec())];
        assert_eq!(kept(&name, &[], false), ["n\u{fffd}"]);
    }
}
