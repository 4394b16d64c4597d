//! Loads, attaches and detaches the programs, and reads their rings and counters. The only file that uses aya.

use std::{
    fs, io,
    mem::offset_of,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

use anyhow::{Context, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{KProbe, ProgramError, RawTracePoint, kprobe::KProbeLinkId, raw_trace_point::RawTracePointLinkId},
    util::online_cpus,
};
use aya_log::EbpfLogger;
use rustix::{io::Errno, param::page_size};
use tracer_common::{
    Counters, Isa, Region,
    clock::ClockBase,
    in_kernel_series::MAX_IN_KERNEL_SERIES,
    state::{MAX_STATES, Owner, Phase, VcpuState},
};

use crate::{
    kernel::{
        in_kernel_series::{InKernelSeries, Sharing},
        layout::{Cast, Layout},
        options::{Cpus, Options, auto_ring_bytes},
        patch::{PlaceholderFds, patched},
        ring::{Mapping, Ring, Shape},
        vmwrite_sites::Site,
    },
    model::measurement::Aggregation,
    say,
};

pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("VMENTRY_BPF_DIR"), "/vmentry.bpf.o"));

/// The same programs with rare diagnostics. Their log is a map of a kind that libbpf's tools refuse.
static OBJECT_WITH_LOG: &[u8] = aya::include_bytes_aligned!(concat!(env!("VMENTRY_BPF_DIR"), "/vmentry-log.bpf.o"));

/// Size limit of the rings of all CPUs together before Linux 6.1, commit "bpf: remove obsolete KMALLOC_MAX_SIZE restriction on array map value size" of July 2022.
const MAX_RINGS_BYTES_BEFORE_6_1: usize = 4 << 20;

/// Places of [`ClockBase`]s: the programs use one while the other changes.
const CLOCK_BASES: usize = 2;

/// The loaded programs, their rings and counters. Dropping it detaches them.
pub struct Tracer {
    ebpf: Ebpf,
    /// programs and their tracepoints, in the order of attaching
    programs: Vec<(&'static str, &'static str)>,
    sites: Vec<Site>,
    links: Vec<(&'static str, RawTracePointLinkId)>,
    probes: Vec<(String, KProbeLinkId)>,
    rings: Vec<Ring>,
    wake: RingBuf<MapData>,
    in_kernel_series: Option<InKernelSeries>,
    reads_directly: bool,
    /// of the vendor whose fields the programs read
    layout_isa: Option<Isa>,
    splits_host_time: bool,
    timer_exits_have_lateness: bool,
    /// CPUs that have counters
    cpus: usize,
    counters: Mapping,
    states: Mapping,
    clock: Mapping,
    /// how often each VMWRITE site was passed
    passed: PerCpuArray<MapData, u64>,
    log: Option<EbpfLogger<Stderr>>,
}

/// The thread groups that loaded programs trace; may be changed while they run.
pub(crate) struct TgidFilter(HashMap<MapData, u32, u8>);

impl TgidFilter {
    /// Traces a thread group, too.
    pub(crate) fn add(&mut self, tgid: u32) -> Result<()> {
        self.0.insert(tgid, 1, 0).with_context(|| format!("filter TGIDS: add {tgid}"))
    }

    /// Traces a thread group no more.
    pub(crate) fn remove(&mut self, tgid: u32) -> Result<()> {
        self.0.remove(&tgid).with_context(|| format!("filter TGIDS: remove {tgid}"))
    }
}

/// The thread groups that get no further series from the programs, and the rounds that they lost for it.
pub(crate) struct Limits(HashMap<MapData, u32, u64>);

impl Limits {
    /// From now on, a thread group gets no further series.
    pub(crate) fn begin(&mut self, tgid: u32) -> Result<()> {
        self.0.insert(tgid, 0, 0).with_context(|| format!("map LIMITED: add {tgid}"))
    }

    /// A thread group gets series again; returns the rounds that it lost.
    pub(crate) fn end(&mut self, tgid: u32) -> Result<u64> {
        let lost = self.lost(tgid)?;
        self.0.remove(&tgid).with_context(|| format!("map LIMITED: remove {tgid}"))?;
        Ok(lost)
    }

    /// Rounds that a thread group lost since its limit began.
    pub(crate) fn lost(&self, tgid: u32) -> Result<u64> {
        self.0.get(&tgid, 0).with_context(|| format!("map LIMITED: read {tgid}"))
    }
}

/// One attempt at loading: with or without calls of `bpf_rdonly_cast`.
struct Attempt<'a> {
    layout: &'a Layout,
    options: &'a Options,
    cpus: &'a Cpus,
    cast: Option<Cast>,
}

/// The regions in memory.
struct Regions {
    states: Mapping,
    counters: Mapping,
    records: Arc<Mapping>,
    taken: Arc<Mapping>,
    series: Mapping,
    clock: Mapping,
}

impl Attempt<'_> {
    fn load(&self) -> Result<Tracer> {
        let mut placeholders = PlaceholderFds::reserve()?;
        let (mut ebpf, shape) = self.create_maps(&placeholders)?;
        let regions = map_regions(&ebpf, &mut placeholders)?;
        let ring = |cpu| Ring::new(cpu, shape, Arc::clone(&regions.records), Arc::clone(&regions.taken));
        fill(&mut ebpf, "TGIDS", self.options.tgids.as_deref())?;
        fill(&mut ebpf, "VCPU_IDS", self.options.vcpu_ids.as_deref())?;
        let mut tracer = Tracer {
            programs: self.options.programs(self.layout, self.cast),
            sites: self.options.sites.clone(),
            links: Vec::new(),
            probes: Vec::new(),
            rings: (0..self.cpus.possible).map(ring).collect(),
            wake: take(&mut ebpf, "WAKE")?,
            in_kernel_series: self.in_kernel_series(&mut ebpf, regions.series)?,
            reads_directly: self.cast.is_some(),
            layout_isa: self.layout.config.layout_isa(),
            splits_host_time: self.options.phases,
            timer_exits_have_lateness: self.layout.companion.timer_exit_late,
            cpus: self.cpus.possible as usize,
            counters: regions.counters,
            states: regions.states,
            clock: regions.clock,
            passed: take(&mut ebpf, "SITES")?,
            log: self.options.kernel_log.then(|| open_log(&mut ebpf)).transpose()?,
            ebpf,
        };
        tracer.load_programs()?;
        Ok(tracer)
    }

    /// The series that the programs count; none where they write records.
    fn in_kernel_series(&self, ebpf: &mut Ebpf, places: Mapping) -> Result<Option<InKernelSeries>> {
        if !self.options.counts_in_kernel() {
            return Ok(None);
        }
        let sharing = Sharing::new(Limits(take(ebpf, "LIMITED")?))?;
        Ok(Some(InKernelSeries::new(places, Some(sharing))))
    }

    /// Creates the maps, with smaller rings where this host has no room for those asked for; returns the rings' shape, too.
    fn create_maps(&self, placeholders: &PlaceholderFds) -> Result<(Ebpf, Shape)> {
        let mut shape = self.options.ring_shape();
        let most = self.cpus.most_ring_bytes(shape);
        if shape.bytes(self.cpus.possible) > most {
            let Cpus { online, possible } = self.cpus;
            let why =
                format!("those of all {possible} CPUs, of which {online} are online, may have {} MiB", most >> 20);
            shape = self.smaller_rings(most, &why);
        }
        let error = match self.create_maps_for(shape, placeholders) {
            Ok(ebpf) => return Ok((ebpf, shape)),
            Err(error) => error,
        };
        match map_too_large(&error) {
            Some("RECORDS") => {
                let why = "before Linux 6.1, those of all CPUs together may have 4 MiB";
                shape = self.smaller_rings(MAX_RINGS_BYTES_BEFORE_6_1, why);
                Ok((self.create_maps_for(shape, placeholders)?, shape))
            }
            Some("SERIES") => Err(error.context("--aggregate in-kernel needs Linux 6.1 or later")),
            _ => Err(error),
        }
    }

    fn smaller_rings(&self, max_bytes: usize, why: &str) -> Shape {
        let wanted = self.options.ring_shape();
        let shape = Shape::within(max_bytes / self.cpus.possible as usize, wanted.record_bytes);
        say!("rings of {} records instead of {}: {why}", shape.records, wanted.records);
        shape
    }

    fn create_maps_for(&self, shape: Shape, placeholders: &PlaceholderFds) -> Result<Ebpf> {
        let config = self.options.config(&self.layout.config, shape, self.cpus, self.cast)?;
        let length = |region| match region {
            Region::States => MAX_STATES,
            Region::Counters | Region::Taken => self.cpus.possible as usize,
            Region::Records => shape.bytes(self.cpus.possible) / size_of::<u64>(),
            Region::Series if self.options.counts_in_kernel() => MAX_IN_KERNEL_SERIES,
            // Code that is never reached still names it.
            Region::Series => 1,
            Region::Clock => CLOCK_BASES,
        };
        let object = if self.options.kernel_log { OBJECT_WITH_LOG } else { OBJECT };
        let object = patched(object, &config, self.cast, placeholders, length)?;
        // Nothing is relocated against the kernel's BTF. aya 0.14 reads and parses it all the same, in `new`.
        EbpfLoader::new().btf(None).load(&object).context("load the eBPF object")
    }
}

/// Maps the regions into memory, and makes their placeholder descriptors refer to them.
fn map_regions(ebpf: &Ebpf, placeholders: &mut PlaceholderFds) -> Result<Regions> {
    let mut map = |region: Region, name: &str, writable| {
        let Some(Map::Array(map)) = ebpf.map(name) else { bail!("array {name} is not in the object") };
        placeholders.replace(region, map.fd().as_fd()).with_context(|| format!("put array {name} into the code"))?;
        let bytes = map.info().with_context(|| format!("ask for the size of array {name}"))?.value_size();
        Mapping::new(map.fd().as_fd(), bytes as usize, writable)
            .with_context(|| format!("map array {name} ({bytes} bytes)"))
    };
    Ok(Regions {
        counters: map(Region::Counters, "COUNTERS", false)?,
        states: map(Region::States, "STATES", true)?,
        records: Arc::new(map(Region::Records, "RECORDS", false)?),
        taken: Arc::new(map(Region::Taken, "TAKEN", true)?),
        series: map(Region::Series, "SERIES", true)?,
        clock: map(Region::Clock, "CLOCK", true)?,
    })
}

/// The map that was refused because it is too large.
fn map_too_large(error: &anyhow::Error) -> Option<&str> {
    let Some(EbpfError::MapError(MapError::CreateError { name, io_error })) = error.downcast_ref() else { return None };
    (Errno::from_io_error(io_error) == Some(Errno::TOOBIG)).then_some(name)
}

/// The outcome of a load with calls of `bpf_rdonly_cast`, or, where they may be why it failed, of the same load without. Where that fails
/// as well, the first error comes first: it is about the programs that this kernel should run.
fn or_without_cast<T>(with_cast: Result<T>, without_cast: impl FnOnce() -> Result<T>) -> Result<T> {
    let first = match with_cast {
        Err(error) if cast_may_be_refused(&error) => error,
        other => return other,
    };
    without_cast().map_err(|second| {
        let (with, without) = (format!("{first:#}"), format!("{second:#}"));
        if with == without { first } else { anyhow!("{with}\n  and without bpf_rdonly_cast: {without}") }
    })
}

/// Whether the kernel refused a program for what may be a call of `bpf_rdonly_cast`. A kernel that has the function may still not let
/// programs call it: without JIT, say, when the verifier returns ENOTSUPP. Missing rights and memory are no reason, nor is anything
/// that fails before a program is loaded (maps, rings that are too large): that would fail the same way without the call.
fn cast_may_be_refused(error: &anyhow::Error) -> bool {
    let Some(ProgramError::LoadError { io_error, .. }) = error.downcast_ref() else { return false };
    !matches!(Errno::from_io_error(io_error), Some(Errno::PERM | Errno::NOMEM | Errno::MFILE | Errno::NFILE))
}

/// The cause instead of the verifier's words where it refused the helper that reads kernel memory: lockdown takes it away
/// (LOCKDOWN_BPF_READ_KERNEL), and a program without it is refused like one that calls a helper that does not exist.
fn or_lockdown(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    // The second since Linux 6.10.
    let refusals = ["unknown func bpf_probe_read_kernel#", "cannot use helper bpf_probe_read_kernel#"];
    if !refusals.iter().any(|refusal| text.contains(refusal)) {
        return error;
    }
    anyhow!(
        "load the programs: this kernel lets none read kernel memory (bpf_probe_read_kernel is refused), as with kernel lockdown \
         'confidentiality'\n  -> boot with lockdown=integrity or without lockdown; cat /sys/kernel/security/lockdown shows the mode"
    )
}

impl Cpus {
    fn of_host() -> Result<Self> {
        const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
        let online = online_cpus().map_err(|(path, error)| anyhow!("read {path}: {error}"))?;
        let possible = fs::read_to_string(POSSIBLE).with_context(|| format!("read {POSSIBLE}"))?;
        Self::of_lists(online.len(), &possible).with_context(|| format!("read {POSSIBLE}: {}", possible.trim()))
    }
}

/// Size limit of one CPU's ring on this host, in bytes, unless the user names one.
pub(crate) fn ring_bytes_of_host() -> Result<u32> {
    Ok(auto_ring_bytes(Cpus::of_host()?.possible, u32::try_from(page_size()).context("size of a page")?))
}

impl Tracer {
    /// Loads the programs and makes the rings. Attaches nothing.
    pub fn load(layout: &Layout, options: &Options) -> Result<Self> {
        Self::load_for(layout, options, &Cpus::of_host()?)
    }

    /// As [`Self::load`], with counters and a ring for each of these CPUs.
    pub fn load_for(layout: &Layout, options: &Options, cpus: &Cpus) -> Result<Self> {
        options.check(page_size())?;
        let load = |cast| Attempt { layout, options, cpus, cast }.load();
        let loaded = match layout.cast {
            // The programs are the same without it, but slower.
            Some(cast) => or_without_cast(load(Some(cast)), || load(None)),
            None => load(None),
        };
        loaded.map_err(or_lockdown)
    }

    fn load_programs(&mut self) -> Result<()> {
        for (name, _) in self.programs.clone() {
            self.program(name)?.load().with_context(|| format!("load program {name}"))?;
        }
        for index in 0..self.sites.len() {
            let name = site_program(index);
            self.probe(&name)?.load().with_context(|| format!("load program {name}"))?;
        }
        Ok(())
    }

    /// Attaches the programs, which count and write records as soon as they are. Later only [`Self::sites`] and [`TgidFilter`] call bpf(2):
    /// everything else is mapped memory, and detaching closes descriptors.
    pub(crate) fn attach(&mut self) -> Result<()> {
        for (index, site) in self.sites.clone().into_iter().enumerate() {
            let name = site_program(index);
            // With the module's name, because another module may have a function of the same name.
            let function = format!("kvm_intel:{}", site.symbol);
            let attached = self.probe(&name)?.attach(&function, site.offset);
            let link = attached.with_context(|| format!("probe the VMWRITE at {}", site.name()))?;
            self.probes.push((name, link));
        }
        for (name, tracepoint) in self.programs.clone() {
            let link = self.program(name)?.attach(tracepoint).with_context(|| format!("attach to {tracepoint}"))?;
            self.links.push((name, link));
        }
        Ok(())
    }

    /// Detaches the programs; rings and counters can still be read.
    pub(crate) fn detach(&mut self) -> Result<()> {
        while let Some((name, link)) = self.links.pop() {
            self.program(name)?.detach(link).with_context(|| format!("detach {name}"))?;
        }
        while let Some((name, link)) = self.probes.pop() {
            self.probe(&name)?.detach(link).with_context(|| format!("detach {name}"))?;
        }
        Ok(())
    }

    /// The program on a tracepoint; tests and benches run it with made-up arguments.
    pub fn program(&mut self, name: &str) -> Result<&mut RawTracePoint> {
        let chosen = self.programs.iter().find(|(_, tracepoint)| *tracepoint == name);
        let name = chosen.map_or(name, |(program, _)| program);
        let program = self.ebpf.program_mut(name).with_context(|| format!("program {name} is not in the object"))?;
        program.try_into().with_context(|| format!("program {name}"))
    }

    fn probe(&mut self, name: &str) -> Result<&mut KProbe> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("program {name} is not in the object"))?;
        program.try_into().with_context(|| format!("program {name}"))
    }

    /// How often each VMWRITE site was passed since loading, in the order of the options.
    pub(crate) fn sites(&self) -> Result<Vec<u64>> {
        let count = |index| Ok(self.passed.get(&index, 0).context("read the sites' counts")?.iter().sum());
        (0..).take(self.sites.len()).map(count).collect()
    }

    /// Gives the programs a new tie of CLOCK_MONOTONIC to the TSC, later than all before. A program may still use the one before, which
    /// therefore must be a second old.
    pub fn renew_clock(&mut self, base: &ClockBase) {
        let word = |place: usize, field: usize| self.clock.word(place * size_of::<ClockBase>() + field);
        let ns = |place| word(place, offset_of!(ClockBase, ns));
        let older = usize::from(ns(0).load(Relaxed) > ns(1).load(Relaxed));
        // Programs use the other place until the new moment is there.
        ns(older).store(0, Release);
        word(older, offset_of!(ClockBase, tsc)).store(base.tsc, Release);
        word(older, offset_of!(ClockBase, cycles_per_ns)).store(base.cycles_per_ns, Release);
        word(older, offset_of!(ClockBase, margin)).store(base.margin, Release);
        ns(older).store(base.ns, Release);
    }

    /// Whether a program is attached to the companion patch's kvm_preemption_timer_exit.
    pub(crate) fn traces_timer_exits(&self) -> bool {
        self.has_program("kvm_preemption_timer_exit")
    }

    /// Whether host time is split into its parts.
    pub(crate) fn splits_host_time(&self) -> bool {
        self.splits_host_time
    }

    /// Whether a program is attached to the stopwatch's kvm_guest_time.
    pub(crate) fn has_stopwatch(&self) -> bool {
        self.has_program("kvm_guest_time")
    }

    fn has_program(&self, name: &str) -> bool {
        self.programs.iter().any(|program| program.0 == name)
    }

    /// Whether that tracepoint also tells the lateness of timers.
    pub(crate) fn traces_lateness(&self) -> bool {
        self.traces_timer_exits() && self.timer_exits_have_lateness
    }

    /// Takes the filter of thread groups, which has an effect only where [`Options::tgids`] are some.
    pub(crate) fn take_tgid_filter(&mut self) -> Result<TgidFilter> {
        take(&mut self.ebpf, "TGIDS").map(TgidFilter)
    }

    /// The rings, in the order of their CPUs.
    pub fn rings(&mut self) -> &mut [Ring] {
        &mut self.rings
    }

    /// Returns the place that counts entries.
    pub(crate) fn aggregation(&self) -> Aggregation {
        if self.in_kernel_series.is_some() { Aggregation::InKernel } else { Aggregation::Records }
    }

    /// The series that the programs count; none where they write records.
    pub fn in_kernel_series(&mut self) -> Option<&mut InKernelSeries> {
        self.in_kernel_series.as_mut()
    }

    /// A new descriptor that becomes readable when the programs wake user space.
    pub fn wake_up(&self) -> io::Result<OwnedFd> {
        self.wake.as_fd().try_clone_to_owned()
    }

    /// Consumes the wake-ups so far; returns whether there were any.
    pub fn forget_wake_ups(&mut self) -> bool {
        let mut woken = false;
        while self.wake.next().is_some() {
            woken = true;
        }
        woken
    }

    /// Whether the programs load from kernel memory themselves, through `bpf_rdonly_cast`, instead of through a helper.
    pub fn reads_directly(&self) -> bool {
        self.reads_directly
    }

    /// Instruction set of the vendor whose fields the programs read; of entries of another one they read none. None where they read no
    /// vendor's fields.
    pub(crate) fn layout_isa(&self) -> Option<Isa> {
        self.layout_isa
    }

    /// Prints the programs' diagnostics since the last call.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Each CPU's counters; the index is the CPU.
    pub fn counters(&self) -> Vec<Counters> {
        let word = |cpu: usize, n: usize| self.counters.word(8 * (cpu * Counters::WORDS + n)).load(Acquire);
        (0..self.cpus).map(|cpu| Counters::from_words(std::array::from_fn(|n| word(cpu, n)))).collect()
    }

    /// Frees the states of vCPUs that will never enter again: those of VMs, by process and address of their `struct kvm`, of which `is_gone`
    /// holds. Otherwise a new vCPU would take the place of a living one that was quiet for longer than the dead ones.
    ///
    /// The programs may give a place to another vCPU at any time, so it is freed only if it still has the owner that it had before its VM was
    /// read. In between, a new vCPU at the address of the dead one can have taken the place over: it then loses one round, as unmatched.
    pub fn free_states(&self, is_gone: impl Fn(u32, u64) -> bool) {
        for at in (0..MAX_STATES).map(|place| place * VcpuState::SIZE) {
            let word = |offset| self.states.word(at + offset);
            let owner = word(offset_of!(VcpuState, owner)).load(Acquire);
            if [Owner::NONE, Owner::CLAIMED].contains(&Owner(owner)) {
                continue;
            }
            let (who, kvm) = (word(offset_of!(VcpuState, who)), word(offset_of!(VcpuState, kvm)));
            if is_gone((who.load(Relaxed) >> 32) as u32, kvm.load(Relaxed)) {
                // Where it fails, the place has another owner already.
                let _ = word(offset_of!(VcpuState, owner)).compare_exchange(owner, Owner::NONE.0, AcqRel, Relaxed);
            }
        }
    }

    /// vCPUs that are between kvm_entry and kvm_exit.
    pub fn open_rounds(&self) -> u64 {
        let places = (0..MAX_STATES).map(|place| place * VcpuState::SIZE);
        let has_owner = |at: &usize| self.states.word(at + offset_of!(VcpuState, owner)).load(Acquire) != Owner::NONE.0;
        let is_open = |at: &usize| self.states.byte(at + offset_of!(VcpuState, phase)) == Phase::OPEN.0;
        places.filter(|at| has_owner(at) && is_open(at)).count() as u64
    }
}

fn site_program(index: usize) -> String {
    format!("write_site_{index}")
}

/// Prints the programs' diagnostics on standard error, as progress is.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        say!("vmentry: kernel side: {}: {}", record.level().as_str().to_lowercase(), record.args());
    }

    fn flush(&self) {}
}

fn open_log(ebpf: &mut Ebpf) -> Result<EbpfLogger<Stderr>> {
    EbpfLogger::init_with_logger(ebpf, Stderr).context("open the programs' log")
}

fn take<T>(ebpf: &mut Ebpf, name: &str) -> Result<T>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).with_context(|| format!("map {name} is not in the object"))?;
    T::try_from(map).with_context(|| format!("map {name}"))
}

fn fill(ebpf: &mut Ebpf, name: &str, keys: Option<&[u32]>) -> Result<()> {
    let map = ebpf.map_mut(name).with_context(|| format!("map {name} is not in the object"))?;
    let mut map: HashMap<_, u32, u8> = HashMap::try_from(map).with_context(|| format!("map {name}"))?;
    for key in keys.unwrap_or_default() {
        map.insert(key, 1, 0).with_context(|| format!("filter {name}: add {key}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aya_obj::VerifierLog;

    use super::*;

    /// ENOTSUPP, which no user-space header has: the verifier's answer to a call of a kernel function without JIT.
    const ENOTSUPP: i32 = 524;

    fn refused_program(errno: i32, log: &str) -> anyhow::Error {
        let io_error = io::Error::from_raw_os_error(errno);
        let error = ProgramError::LoadError { io_error, verifier_log: VerifierLog::new(log.into()) };
        anyhow::Error::from(error).context("load program kvm_exit")
    }

    fn refused_map(errno: i32) -> anyhow::Error {
        let io_error = io::Error::from_raw_os_error(errno);
        let error = EbpfError::MapError(MapError::CreateError { name: "RECORDS".into(), io_error });
        anyhow::Error::from(error).context("load the eBPF object")
    }

    #[test]
    fn a_load_is_repeated_without_the_cast_only_where_the_cast_may_have_been_refused() {
        for errno in [ENOTSUPP, Errno::INVAL.raw_os_error(), Errno::ACCESS.raw_os_error()] {
            assert_eq!(or_without_cast(Err(refused_program(errno, "")), || Ok(7)).unwrap(), 7, "{errno}");
        }
        let unrelated = [
            refused_program(Errno::PERM.raw_os_error(), ""),
            refused_program(Errno::NOMEM.raw_os_error(), ""),
            refused_map(Errno::INVAL.raw_os_error()),
            refused_map(Errno::TOOBIG.raw_os_error()),
            anyhow!("open /dev/null"),
        ];
        for error in unrelated {
            let message = error.to_string();
            let kept = or_without_cast::<()>(Err(error), || panic!("repeated after: {message}"));
            assert_eq!(kept.unwrap_err().to_string(), message);
        }
        assert_eq!(or_without_cast(Ok(1), || panic!("repeated after a success")).unwrap(), 1);
    }

    #[test]
    fn a_kernel_that_lets_no_program_read_its_memory_is_explained_without_the_verifiers_words() {
        let log = "0: (85) call bpf_probe_read_kernel#113\nunknown func bpf_probe_read_kernel#113";
        let newer = "program of this type cannot use helper bpf_probe_read_kernel#113";
        for log in [log, newer] {
            let error = refused_program(Errno::INVAL.raw_os_error(), log);
            let error = or_without_cast::<()>(Err(refused_program(22, "unknown opcode")), || Err(error)).unwrap_err();
            let message = format!("{:#}", or_lockdown(error));
            assert!(message.contains("lockdown=integrity") && !message.contains("#113"), "{message}");
        }
        let other = or_lockdown(refused_program(Errno::INVAL.raw_os_error(), "unknown func bpf_loop#181"));
        assert!(format!("{other:#}").contains("bpf_loop"));
    }

    #[test]
    fn the_first_error_of_two_is_shown_first() {
        let both = |first, second| {
            let error = or_without_cast::<()>(Err(first), || Err(second)).unwrap_err();
            format!("{error:#}")
        };
        let message = both(refused_program(22, "unknown opcode"), refused_program(22, "R1 is a scalar"));
        let (first, second) = (message.find("unknown opcode").unwrap(), message.find("R1 is a scalar").unwrap());
        assert!(message.starts_with("load program kvm_exit") && first < second, "{message}");
        assert!(message.contains("without bpf_rdonly_cast"));
        let message = both(refused_program(22, "the same"), refused_program(22, "the same"));
        assert!(!message.contains("without bpf_rdonly_cast"), "{message}");
    }

    #[test]
    fn a_map_that_is_too_large_is_named() {
        assert_eq!(map_too_large(&refused_map(Errno::TOOBIG.raw_os_error())), Some("RECORDS"));
        assert_eq!(map_too_large(&refused_map(Errno::NOMEM.raw_os_error())), None);
    }
}
