//! The only file that knows aya: load, globals, attach, rings, counters.

use std::{
    fs::File,
    io,
    mem::offset_of,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{Arc, atomic::Ordering::Acquire},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{KProbe, RawTracePoint, kprobe::KProbeLinkId, raw_trace_point::RawTracePointLinkId},
    util::{nr_cpus, online_cpus},
};
use aya_log::EbpfLogger;
use aya_obj::generated::{BPF_PSEUDO_KFUNC_CALL, BPF_PSEUDO_MAP_VALUE};
use object::{Object as _, ObjectSection as _};
use tracer_common::{
    Config, Counters, Record, Region, Slot, StampedRecord,
    config::{ABSENT, CAST_HELPER, FILTER_TGIDS, FILTER_VCPUS, PLACE, REGION},
    in_kernel_series::MAX_IN_KERNEL_SERIES,
    rules::tsc_to_ns_factor,
    state::{MAX_STATES, Phase, VcpuState},
};

use crate::{
    kernel::{
        btf::Btf,
        in_kernel_series::Tallies,
        layout::{Cast, ExitArguments, Layout},
        ring::{Mapping, Ring, Shape},
        vmwrite_sites::{MAX_SITES, Site},
    },
    model::measurement::{Aggregation, Stopwatch},
    say,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("VMENTRY_BPF_DIR"), "/vmentry.bpf.o"));

/// The same programs with rare diagnostics, whose map is of a kind that libbpf's tools refuse.
static OBJECT_WITH_LOG: &[u8] = aya::include_bytes_aligned!(concat!(env!("VMENTRY_BPF_DIR"), "/vmentry-log.bpf.o"));

/// Most bytes of one CPU's ring where nothing else is asked for: 8192 records.
pub const DEFAULT_RING_BYTES: u32 = 512 * 1024;

/// How the programs are loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// most bytes of one CPU's ring, which has the highest power of two of records that fits: a power of two, at least a page
    pub ring_bytes: u32,
    /// thread groups to trace; none for all
    pub tgids: Option<Vec<u32>>,
    /// vCPU numbers to trace; none for all
    pub vcpu_ids: Option<Vec<u32>>,
    /// print the programs' rare diagnostics on standard error
    pub kernel_log: bool,
    /// attach to the companion patch's kvm_vmcs_write: exact writes, but work between kvm_entry and the VM entry
    pub exact_writes: bool,
    /// attach to the companion patch's kvm_preemption_timer_exit: a second witness of the causes
    pub timer_exits: bool,
    /// attach to the stopwatch's kvm_guest_time: transition_ns of every entry, but work between the VM exit and kvm_exit
    pub stopwatch: Option<Stopwatch>,
    /// where entries are counted
    pub aggregation: Aggregation,
    /// records are whole, with thread, CPU and pin shadows, as they are also where one of the companion patch's tracepoints is asked for
    pub details: bool,
    /// records are [`StampedRecord`]s: for the calibration guest, which leaves stamps in its registers
    pub stamps: bool,
    /// VMWRITE sites in kvm_intel to count, at most [`MAX_SITES`]; also work before the VM entry
    pub sites: Vec<Site>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ring_bytes: DEFAULT_RING_BYTES,
            tgids: None,
            vcpu_ids: None,
            kernel_log: false,
            exact_writes: false,
            timer_exits: false,
            stopwatch: None,
            aggregation: Aggregation::Records,
            details: false,
            stamps: false,
            sites: Vec::new(),
        }
    }
}

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
    tallies: Option<Tallies>,
    reads_directly: bool,
    cpus: usize,
    counters: Mapping,
    states: Mapping,
    passed: PerCpuArray<MapData, u64>,
    log: Option<EbpfLogger<Stderr>>,
}

impl Tracer {
    /// Loads the programs and makes the rings. Attaches nothing.
    pub fn load(layout: &Layout, options: &Options) -> Result<Self> {
        // A kernel that has the function may still not let programs call it: without JIT, say. They are the same without, but slower.
        if let Some(cast) = layout.cast
            && let Ok(tracer) = Self::load_with(layout, options, Some(cast))
        {
            return Ok(tracer);
        }
        Self::load_with(layout, options, None)
    }

    fn load_with(layout: &Layout, options: &Options, cast: Option<Cast>) -> Result<Self> {
        let ring_bytes = options.ring_bytes;
        // SAFETY: sysconf reads a constant.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u32;
        if !ring_bytes.is_power_of_two() || ring_bytes < page {
            bail!("ring of {ring_bytes} bytes: must be a power of two and at least a page ({page})");
        }
        if options.sites.len() > MAX_SITES {
            bail!("{} VMWRITE sites: there are programs for {MAX_SITES}", options.sites.len());
        }
        let whole = options.details || options.exact_writes || options.stopwatch.is_some();
        let record_bytes = match (options.stamps, whole) {
            (true, _) => StampedRecord::SIZE,
            (false, true) => Record::SIZE,
            (false, false) => Record::SHORT,
        };
        let in_kernel = options.aggregation == Aggregation::InKernel;
        let online = online_cpus().map_err(|(path, error)| anyhow!("read {path}: {error}"))?;
        let ring_cpus = online.iter().copied().max().unwrap_or(0) + 1;
        let cpus = nr_cpus().map_err(|(path, error)| anyhow!("read {path}: {error}"))?;
        let wanted = Shape::within(ring_bytes, record_bytes);
        let wanted = if in_kernel { Shape { records: 1, ..wanted } } else { wanted };
        // What is known to be too much, or turns out to be.
        let smaller = |most: u32, why: &str| {
            let shape = Shape::within(most / ring_cpus, record_bytes);
            say!("rings of {} records instead of {}: {why}", shape.records, wanted.records);
            shape
        };
        let wanted = match wanted.bytes(ring_cpus) > MOST as usize {
            true => smaller(MOST, "those of all CPUs together may have 512 MiB"),
            false => wanted,
        };
        let names = Names::reserve()?;
        let make = |shape: Shape| {
            let mut config = configure(&layout.config, options, shape, cast);
            config.set(Slot::Details, options.stamps || whole);
            config.set(Slot::Cpus, cpus as u32);
            config.set(Slot::RingCpus, ring_cpus);
            let length = |region| match region {
                Region::States => MAX_STATES,
                Region::Counters => cpus,
                Region::Records => shape.bytes(ring_cpus) / size_of::<u64>(),
                Region::Taken => ring_cpus as usize,
                Region::Series if in_kernel => MAX_IN_KERNEL_SERIES,
                // Code that is never reached still names it.
                Region::Series => 1,
            };
            let object = if options.kernel_log { OBJECT_WITH_LOG } else { OBJECT };
            let object = with_lengths(with_constants(object, &config, cast, &names), length)?;
            // Nothing is relocated against the kernel's BTF; parsing it would be the longest part of the start.
            let loaded = EbpfLoader::new().btf(None).load(&object);
            loaded.map(|ebpf| (ebpf, shape)).context("load the eBPF object")
        };
        let (mut ebpf, shape) = make(wanted).or_else(|error| match too_large(&error) {
            Some("RECORDS") => {
                make(smaller(MOST_BEFORE_6_1, "before Linux 6.1, those of all CPUs together may have 4 MiB"))
            }
            Some("SERIES") => Err(error.context("--aggregate in-kernel needs Linux 6.1 or later")),
            _ => Err(error),
        })?;
        let map = |region: Region, name: &str, writable| {
            let Some(Map::Array(map)) = ebpf.map(name) else { bail!("array {name} is not in the object") };
            names.give(region, map.fd().as_fd()).with_context(|| format!("name array {name}"))?;
            let bytes = map.info().with_context(|| format!("ask for the size of array {name}"))?.value_size();
            Mapping::new(map.fd().as_fd(), bytes as usize, writable)
                .with_context(|| format!("map array {name} ({bytes} bytes)"))
        };
        let (counters, states) = (map(Region::Counters, "COUNTERS", false)?, map(Region::States, "STATES", false)?);
        let (records, taken) = (map(Region::Records, "RECORDS", false)?, map(Region::Taken, "TAKEN", true)?);
        let tallies = map(Region::Series, "SERIES", false)?;
        let (records, taken) = (Arc::new(records), Arc::new(taken));
        let rings =
            online.into_iter().map(|cpu| Ring::new(cpu, shape, Arc::clone(&records), Arc::clone(&taken))).collect();
        let tallies = in_kernel.then(|| Tallies::new(tallies));
        let wake = take(&mut ebpf, "WAKE")?;
        fill(&mut ebpf, "TGIDS", options.tgids.as_deref())?;
        fill(&mut ebpf, "VCPU_IDS", options.vcpu_ids.as_deref())?;
        let log = match options.kernel_log {
            true => Some(EbpfLogger::init_with_logger(&mut ebpf, Stderr).context("open the programs' log")?),
            false => None,
        };

        let exit_program = match layout.exit_arguments {
            ExitArguments::VcpuIsa => "kvm_exit",
            ExitArguments::ReasonVcpuIsa => "kvm_exit_5_15",
        };
        let mut programs = Vec::new();
        // Before kvm_entry: the first entry that is seen shall find its writes counted.
        programs.extend(options.exact_writes.then_some(("kvm_vmcs_write", "kvm_vmcs_write")));
        programs.extend(options.timer_exits.then_some(("kvm_preemption_timer_exit", "kvm_preemption_timer_exit")));
        programs.extend(options.stopwatch.map(|_| ("kvm_guest_time", "kvm_guest_time")));
        programs.extend([(exit_program, "kvm_exit"), ("kvm_entry", "kvm_entry")]);
        let passed = take(&mut ebpf, "SITES")?;
        let (sites, links, probes) = (options.sites.clone(), Vec::new(), Vec::new());
        let mut tracer = Self {
            ebpf,
            programs,
            sites,
            links,
            probes,
            rings,
            wake,
            tallies,
            reads_directly: cast.is_some(),
            cpus,
            counters,
            states,
            passed,
            log,
        };
        for (name, _) in tracer.programs.clone() {
            tracer.program(name)?.load().with_context(|| format!("load program {name}"))?;
        }
        for index in 0..tracer.sites.len() {
            let name = site_program(index);
            tracer.probe(&name)?.load().with_context(|| format!("load program {name}"))?;
        }
        Ok(tracer)
    }

    /// Attaches the programs: from here on events come.
    pub fn attach(&mut self) -> Result<()> {
        for (index, site) in self.sites.clone().into_iter().enumerate() {
            let name = site_program(index);
            // With the module's name: other modules may have a function of the same one.
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
    pub fn detach(&mut self) -> Result<()> {
        while let Some((name, link)) = self.links.pop() {
            self.program(name)?.detach(link).with_context(|| format!("detach {name}"))?;
        }
        while let Some((name, link)) = self.probes.pop() {
            self.probe(&name)?.detach(link).with_context(|| format!("detach {name}"))?;
        }
        Ok(())
    }

    /// How often each VMWRITE site was passed since loading, in the order of the options.
    pub fn sites(&self) -> Result<Vec<u64>> {
        let count = |index| Ok(self.passed.get(&index, 0).context("read the sites' counts")?.iter().sum());
        (0..self.sites.len() as u32).map(count).collect()
    }

    /// Whether the companion patch's kvm_preemption_timer_exit is listened to.
    pub fn traces_timer_exits(&self) -> bool {
        self.programs.iter().any(|p| p.0 == "kvm_preemption_timer_exit")
    }

    fn probe(&mut self, name: &str) -> Result<&mut KProbe> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("program {name} is not in the object"))?;
        program.try_into().with_context(|| format!("program {name}"))
    }

    /// The rings, in the order of their CPUs.
    pub fn rings(&mut self) -> &mut [Ring] {
        &mut self.rings
    }

    /// Where entries are counted.
    pub fn aggregation(&self) -> Aggregation {
        if self.tallies.is_some() { Aggregation::InKernel } else { Aggregation::Records }
    }

    /// What the programs count themselves, where they do.
    pub fn tallies(&mut self) -> Option<&mut Tallies> {
        self.tallies.as_mut()
    }

    /// A descriptor of its own that becomes readable when the programs wake user space.
    pub fn wake_up(&self) -> io::Result<OwnedFd> {
        self.wake.as_fd().try_clone_to_owned()
    }

    /// Forgets the wake-ups that were; whether there were any.
    pub fn forget_wake_ups(&mut self) -> bool {
        let mut woken = false;
        while self.wake.next().is_some() {
            woken = true;
        }
        woken
    }

    /// Whether the programs load from kernel memory themselves, instead of through a helper.
    pub fn reads_directly(&self) -> bool {
        self.reads_directly
    }

    /// Prints the diagnostics that have come.
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

    /// vCPUs that are between kvm_entry and kvm_exit.
    pub fn open_rounds(&self) -> u64 {
        let places = (0..MAX_STATES).map(|place| place * VcpuState::SIZE);
        places.filter(|at| self.states.byte(at + offset_of!(VcpuState, phase)) == Phase::OPEN.0).count() as u64
    }

    /// The program on a tracepoint, for tests that run it with made-up arguments.
    pub fn program(&mut self, name: &str) -> Result<&mut RawTracePoint> {
        let program = self.ebpf.program_mut(name).with_context(|| format!("program {name} is not in the object"))?;
        program.try_into().with_context(|| format!("program {name}"))
    }
}

fn site_program(index: usize) -> String {
    format!("write_site_{index}")
}

/// Prints the programs' diagnostics where progress goes too.
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

/// The object with the configuration's values, the addresses of the regions, and calls of `bpf_rdonly_cast`, where it has the constants
/// that stand for them. Format: Documentation/bpf/standardization/instruction-set.rst.
fn with_constants(object: &[u8], config: &Config, cast: Option<Cast>, names: &Names) -> Vec<u8> {
    const CALL: u8 = 0x85;
    /// takes two instructions, each with half of the value; the first one's first byte, and its second one says where to
    const LOAD: u8 = 0x18;
    let mut object = object.to_vec();
    let (instructions, _) = object.as_chunks_mut::<8>();
    for at in 0..instructions.len() {
        let immediate = |i: &[u8; 8]| u32::from_le_bytes([i[4], i[5], i[6], i[7]]);
        let first = instructions[at];
        if first[0] == CALL && immediate(&first) == CAST_HELPER {
            if let Some(cast) = cast {
                instructions[at][1] |= (BPF_PSEUDO_KFUNC_CALL << 4) as u8;
                instructions[at][4..].copy_from_slice(&cast.function.to_le_bytes());
            }
        } else if first[0] == LOAD
            && let Some(second) = instructions.get(at + 1)
        {
            let constant = u64::from(immediate(second)) << 32 | u64::from(immediate(&first));
            let index = |from: u64| constant.checked_sub(from).and_then(|index| usize::try_from(index).ok());
            let value = if let Some(name) = index(REGION).and_then(|region| names.of(region)) {
                // Low half: the map's descriptor; high half: an offset in its value.
                instructions[at][1] |= (BPF_PSEUDO_MAP_VALUE << 4) as u8;
                i64::from(name)
            } else if let Some(value) = index(PLACE).and_then(|slot| config.0.get(slot)) {
                *value
            } else {
                continue;
            };
            let [low @ .., e, f, g, h] = value.to_le_bytes();
            instructions[at][4..].copy_from_slice(&low);
            instructions[at + 1][4..].copy_from_slice(&[e, f, g, h]);
        }
    }
    object
}

/// The most of an array's value that the verifier lets a program reach (BPF_MAX_VAR_OFF).
const MOST: u32 = 1 << 29;
/// The most that an array's value had before "bpf: remove obsolete KMALLOC_MAX_SIZE restriction on array map value size" (July 2022).
const MOST_BEFORE_6_1: u32 = 4 << 20;

/// The map of which the kernel says that it is too large.
fn too_large(error: &anyhow::Error) -> Option<&str> {
    let Some(EbpfError::MapError(MapError::CreateError { name, io_error })) = error.downcast_ref() else { return None };
    (io_error.raw_os_error() == Some(libc::E2BIG)).then_some(name)
}

/// Descriptors by which the code names the regions: it is written before their maps are made, and read after.
struct Names([OwnedFd; Region::ALL.len()]);

impl Names {
    fn reserve() -> Result<Self> {
        let nothing = || File::open("/dev/null").map(OwnedFd::from).context("open /dev/null");
        Ok(Self([nothing()?, nothing()?, nothing()?, nothing()?, nothing()?]))
    }

    fn of(&self, region: usize) -> Option<i32> {
        self.0.get(region).map(AsRawFd::as_raw_fd)
    }

    fn give(&self, region: Region, map: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: both descriptors are open; what the second one stood for is nobody's.
        let done = unsafe { libc::dup3(map.as_raw_fd(), self.0[region as usize].as_raw_fd(), libc::O_CLOEXEC) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// The object whose BTF has these lengths of the regions' arrays, from which their maps are made.
fn with_lengths(mut object: Vec<u8>, length: impl Fn(Region) -> usize) -> Result<Vec<u8>> {
    let elf = object::File::parse(&*object).context("read the eBPF object")?;
    let section = elf.section_by_name(".BTF").context("find the object's BTF")?;
    let (start, _) = section.file_range().context("find the object's BTF")?;
    let btf = Btf::parse(section.data().context("read the object's BTF")?, None)?;
    let region = |now: u32| Region::ALL.into_iter().find(|region| region.length() == now as usize);
    let places: Vec<_> =
        btf.array_lengths().filter_map(|(at, now)| Some((start as usize + at, region(now)?))).collect();
    ensure!(places.len() == Region::ALL.len(), "the object has {} of {} arrays", places.len(), Region::ALL.len());
    for (at, region) in places {
        let length = u32::try_from(length(region)).with_context(|| format!("array {region:?}: too long"))?;
        object[at..at + 4].copy_from_slice(&length.to_ne_bytes());
    }
    Ok(object)
}

/// The values, with the filters and the number of records after which user space is woken: a quarter of a ring.
fn configure(found: &Config, options: &Options, shape: Shape, cast: Option<Cast>) -> Config {
    let mut config = *found;
    config.set(Slot::RingRecords, shape.records);
    config.set(Slot::RecordBytes, shape.record_bytes as u32);
    // Of entries counted in the kernel only a vCPU's first one wakes.
    let in_kernel = options.aggregation == Aggregation::InKernel;
    config.set(Slot::WakeEvery, if in_kernel { u32::MAX } else { (shape.records / 4).max(1) });
    config.set(Slot::CastType, cast.map_or(ABSENT, |cast| cast.structure.into()));
    config.set(Slot::InKernel, options.aggregation == Aggregation::InKernel);
    config.set(Slot::ExactWrites, options.exact_writes);
    config.set(Slot::TscToNs, options.stopwatch.and_then(|s| tsc_to_ns_factor(s.tsc_khz)).map_or(ABSENT, i64::from));
    if !options.stamps {
        config.set(Slot::GuestR8, ABSENT);
    }
    let filter = |bit, is_set| if is_set { bit } else { 0 };
    config.set(
        Slot::Filter,
        filter(FILTER_TGIDS, options.tgids.is_some()) | filter(FILTER_VCPUS, options.vcpu_ids.is_some()),
    );
    config
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
