//! How the programs are loaded: filters, ring sizes, tracepoints, and the constants that follow from them.

use anyhow::{Context, Result, bail};
use tracer_common::{
    Config, Isa, Record, Slot, StampedRecord,
    config::{ABSENT, FILTER_TGIDS, FILTER_VCPUS, MAX_SITES},
    rules::tsc_to_ns_factor,
};

use crate::{
    kernel::{
        layout::{Cast, ExitArguments, Layout},
        ring::Shape,
        vmwrite_sites::Site,
    },
    model::measurement::{Aggregation, Stopwatch},
};

/// Size limit of one CPU's ring, in bytes, unless another one is asked for: 8192 short records.
pub(crate) const DEFAULT_RING_BYTES: u32 = 1024 * 1024;

/// Size limit of the rings of all CPUs together that [`auto_ring_bytes`] chooses. The collector folds some ten million records a second: rings
/// of as many records as it folds in a tenth of a second are filled by a host that it cannot keep up with, however large they are.
const AUTO_RINGS_BYTES: u32 = 256 << 20;

/// Size limit of the rings of all CPUs together: the verifier lets a program reach no more of an array's value (BPF_MAX_VAR_OFF).
const MAX_RINGS_BYTES: usize = 1 << 29;

/// Size limit of the rings of all CPUs together where not all possible CPUs are online, unless twice those of the CPUs online are larger.
/// Every possible CPU has a ring, because one that comes online cannot be given one then, and the kernel allocates the whole array at once:
/// virtual machines with 4 CPUs and room for 240 would pay 120 MiB.
const MAX_RINGS_BYTES_OF_ABSENT: usize = 64 << 20;

/// Size limit of one CPU's ring, in bytes, for so many CPUs that have one: [`DEFAULT_RING_BYTES`] up to 256 CPUs, then less, so that all rings
/// together stay below [`AUTO_RINGS_BYTES`]; at least `page_bytes`.
pub fn auto_ring_bytes(cpus: u32, page_bytes: u32) -> u32 {
    let share = (AUTO_RINGS_BYTES / cpus.max(1)).max(1);
    (1 << share.ilog2()).clamp(page_bytes, DEFAULT_RING_BYTES)
}

/// How the programs are loaded.
#[derive(Clone, Debug)]
pub struct Options {
    /// size limit of one CPU's ring, in bytes: a power of two, at least a page. A ring holds the largest power of two of records that fits
    pub ring_bytes: u32,
    /// thread groups to trace; none for all
    pub tgids: Option<Vec<u32>>,
    /// vCPU numbers to trace; none for all
    pub vcpu_ids: Option<Vec<u32>>,
    /// print the programs' rare diagnostics on standard error
    pub kernel_log: bool,
    /// attach to the companion patch's kvm_vmcs_write: exact pin-control writes, at the cost of work between kvm_entry and VM-entry
    pub exact_writes: bool,
    /// attach to the companion patch's kvm_preemption_timer_exit: a second witness of the timer exits' causes
    pub timer_exits: bool,
    /// attach to the stopwatch's kvm_guest_time: transition_ns of every entry, at the cost of work between VM-exit and kvm_exit
    pub stopwatch: Option<Stopwatch>,
    /// place that counts entries
    pub aggregation: Aggregation,
    /// split host time into its parts; attaches to kvm_userspace_exit, where there is one
    pub phases: bool,
    /// look at exits beyond their reasons
    pub detail: bool,
    /// attach to kvm_mmio and kvm_fast_mmio, for the addresses of emulated accesses; only with `detail`
    pub addresses: bool,
    /// records are whole, with thread, CPU and pin shadows; they also are with `exact_writes` or `stopwatch`
    pub extras: bool,
    /// records are [`StampedRecord`]s: for the calibration guest, which leaves time stamps in its registers
    pub stamps: bool,
    /// VMWRITE sites in kvm_intel to count, at most [`MAX_SITES`], at the cost of a trap before VM-entry
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
            phases: true,
            detail: false,
            addresses: false,
            extras: false,
            stamps: false,
            sites: Vec::new(),
        }
    }
}

/// CPUs of this host, for which maps are sized.
#[derive(Debug, PartialEq, Eq)]
pub struct Cpus {
    /// how many are online
    pub online: u32,
    /// one more than the highest number of a CPU that may come online: each number below has counters and a ring
    pub possible: u32,
}

impl Cpus {
    /// From how many are online, and the kernel's list of those that may be ("0-3,8-11"), whose numbers ascend.
    pub(super) fn of_lists(online: usize, possible: &str) -> Result<Self> {
        let highest = possible.trim().rsplit([',', '-']).next().unwrap_or_default();
        let highest: u32 = highest.parse().context("find the highest CPU")?;
        Ok(Self { online: u32::try_from(online).context("count the CPUs")?, possible: highest.saturating_add(1) })
    }

    /// Bytes that the rings of all CPUs may have together, where those wanted are of this shape.
    pub(super) fn most_ring_bytes(&self, wanted: Shape) -> usize {
        if self.online < self.possible {
            MAX_RINGS_BYTES_OF_ABSENT.max(2 * wanted.bytes(self.online)).min(MAX_RINGS_BYTES)
        } else {
            MAX_RINGS_BYTES
        }
    }
}

impl Options {
    /// Fails where no kernel can load the programs like this. `page_bytes` is the size of a page.
    pub(super) fn check(&self, page_bytes: usize) -> Result<()> {
        let ring_bytes = self.ring_bytes;
        if !ring_bytes.is_power_of_two() || (ring_bytes as usize) < page_bytes {
            bail!("ring of {ring_bytes} bytes: must be a power of two and at least a page ({page_bytes})");
        }
        if self.sites.len() > MAX_SITES {
            bail!("{} VMWRITE sites: there are programs for {MAX_SITES}", self.sites.len());
        }
        Ok(())
    }

    /// Entries are counted by the programs; no records are written.
    pub(super) fn counts_in_kernel(&self) -> bool {
        self.aggregation == Aggregation::InKernel
    }

    /// Shape of the rings that these options ask for.
    pub(super) fn ring_shape(&self) -> Shape {
        let shape = Shape::within(self.ring_bytes as usize, self.record_bytes());
        if self.counts_in_kernel() { Shape { records: 1, ..shape } } else { shape }
    }

    fn has_whole_records(&self) -> bool {
        self.extras || self.exact_writes || self.stopwatch.is_some()
    }

    fn record_bytes(&self) -> usize {
        match (self.stamps, self.has_whole_records()) {
            (true, _) => StampedRecord::SIZE,
            (false, true) => Record::SIZE,
            (false, false) if self.detail => Record::DETAILED,
            (false, false) => Record::SHORT,
        }
    }

    /// Programs and their tracepoints, in the order of attaching.
    pub(super) fn programs(&self, layout: &Layout, cast: Option<Cast>) -> Vec<(&'static str, &'static str)> {
        let in_kernel = self.counts_in_kernel();
        let (entry_program, exit_program) = match (self.usual_isa(layout, cast), layout.exit_arguments) {
            (Some(Isa::Vmx), _) if in_kernel => ("kvm_entry_vmx", "kvm_exit_vmx_in_kernel"),
            (Some(Isa::Vmx), _) => ("kvm_entry_vmx", "kvm_exit_vmx_records"),
            (Some(Isa::Svm), _) if in_kernel => ("kvm_entry_svm", "kvm_exit_svm_in_kernel"),
            (Some(Isa::Svm), _) => ("kvm_entry_svm", "kvm_exit_svm_records"),
            (_, ExitArguments::VcpuIsa) => ("kvm_entry", "kvm_exit"),
            (_, ExitArguments::ReasonVcpuIsa) => ("kvm_entry", "kvm_exit_5_15"),
        };
        let mut programs = Vec::new();
        // kvm_vmcs_write comes before kvm_entry, so that the first entry has its writes counted.
        programs.extend(self.exact_writes.then_some(("kvm_vmcs_write", "kvm_vmcs_write")));
        programs.extend(self.timer_exits.then_some(("kvm_preemption_timer_exit", "kvm_preemption_timer_exit")));
        programs.extend(self.stopwatch.map(|_| ("kvm_guest_time", "kvm_guest_time")));
        let has_addresses = self.detail && self.addresses;
        programs.extend((has_addresses && layout.mmio).then_some(("kvm_mmio", "kvm_mmio")));
        programs.extend((has_addresses && layout.fast_mmio).then_some(("kvm_fast_mmio", "kvm_fast_mmio")));
        programs.extend((self.phases && layout.userspace_exit).then_some(("kvm_userspace_exit", "kvm_userspace_exit")));
        programs.extend([(exit_program, "kvm_exit"), (entry_program, "kvm_entry")]);
        programs
    }

    /// The instruction set whose programs for the usual options do; none where options or this kernel need those for all.
    fn usual_isa(&self, layout: &Layout, cast: Option<Cast>) -> Option<Isa> {
        let isa = layout.config.layout_isa()?;
        let mut needed = match isa {
            Isa::Vmx => vec![Slot::VmxExitReason, Slot::VmxLoadedVmcs, Slot::VmxVmcs01, Slot::VmcsPin],
            Isa::Svm => vec![Slot::SvmVmcb, Slot::SvmVmcb01, Slot::VmcbExitCode],
            Isa::Other => return None,
        };
        needed.push(Slot::StatExits);
        if self.phases {
            needed.extend([Slot::HaltPollSuccess, Slot::RunCount]);
        }
        let is_usual = cast.is_some()
            && layout.exit_arguments == ExitArguments::VcpuIsa
            && (self.counts_in_kernel() || !self.detail)
            && !self.stamps
            && !self.has_whole_records();
        (is_usual && needed.into_iter().all(|slot| layout.config.get(slot).is_some())).then_some(isa)
    }

    /// The programs' constants: the kernel's offsets in `found`, and these options.
    pub(super) fn config(&self, found: &Config, shape: Shape, cpus: &Cpus, cast: Option<Cast>) -> Result<Config> {
        let mut config = *found;
        config.set(Slot::RingRecords, shape.records);
        config.set(Slot::RecordBytes, i64::try_from(shape.record_bytes).context("size of a record")?);
        // A quarter of a ring; with in-kernel counting, only the first entry of a vCPU wakes user space.
        let in_kernel = self.counts_in_kernel();
        config.set(Slot::WakeEvery, if in_kernel { u32::MAX } else { (shape.records / 4).max(1) });
        config.set(Slot::CastType, cast.map_or(ABSENT, |cast| cast.structure.into()));
        config.set(Slot::InKernel, in_kernel);
        config.set(Slot::ExactWrites, self.exact_writes);
        let tsc_to_ns = self.stopwatch.and_then(|stopwatch| tsc_to_ns_factor(stopwatch.tsc_khz));
        config.set(Slot::TscToNs, tsc_to_ns.map_or(ABSENT, i64::from));
        if !self.stamps {
            config.set(Slot::GuestR8, ABSENT);
        }
        let tgids = if self.tgids.is_some() { FILTER_TGIDS } else { 0 };
        let vcpus = if self.vcpu_ids.is_some() { FILTER_VCPUS } else { 0 };
        config.set(Slot::Filter, tgids | vcpus);
        config.set(Slot::Extras, self.stamps || self.has_whole_records());
        config.set(Slot::Phases, self.phases);
        config.set(Slot::Detail, self.detail && !in_kernel);
        config.set(Slot::Cpus, cpus.possible);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus() -> Cpus {
        Cpus { online: 2, possible: 8 }
    }

    #[test]
    fn rings_and_sites_beyond_the_limits_are_refused() {
        let check = |options: Options| options.check(4096).map_err(|e| e.to_string());
        assert_eq!(check(Options::default()), Ok(()));
        assert!(check(Options { ring_bytes: 2048, ..Options::default() }).unwrap_err().contains("at least a page"));
        assert!(check(Options { ring_bytes: 12_288, ..Options::default() }).unwrap_err().contains("a power of two"));
        let sites = vec![Site { symbol: "f".into(), offset: 0 }; MAX_SITES + 1];
        assert!(check(Options { sites, ..Options::default() }).unwrap_err().contains("VMWRITE sites"));
    }

    #[test]
    fn records_are_as_long_as_the_options_need() {
        let bytes = |options: Options| options.ring_shape().record_bytes;
        assert_eq!(bytes(Options::default()), Record::SHORT);
        assert_eq!(bytes(Options { exact_writes: true, ..Options::default() }), Record::SIZE);
        assert_eq!(bytes(Options { stamps: true, ..Options::default() }), StampedRecord::SIZE);
    }

    #[test]
    fn in_kernel_counting_needs_no_room_for_records_and_wakes_once() {
        let options = Options { aggregation: Aggregation::InKernel, ..Options::default() };
        let shape = options.ring_shape();
        assert_eq!(shape.records, 1);
        let config = options.config(&Config::empty(), shape, &cpus(), None).unwrap();
        assert_eq!((config.get(Slot::InKernel), config.get(Slot::WakeEvery)), (Some(1), Some(u32::MAX.into())));
    }

    #[test]
    fn filters_are_set_where_they_are_asked_for_even_if_empty() {
        let filter = |tgids, vcpu_ids| {
            let options = Options { tgids, vcpu_ids, ..Options::default() };
            options.config(&Config::empty(), options.ring_shape(), &cpus(), None).unwrap().get(Slot::Filter)
        };
        assert_eq!(filter(None, None), Some(0));
        assert_eq!(filter(Some(vec![]), None), Some(FILTER_TGIDS));
        assert_eq!(filter(Some(vec![1]), Some(vec![0])), Some(FILTER_TGIDS | FILTER_VCPUS));
    }

    #[test]
    fn every_cpu_that_may_come_online_has_a_place() {
        let cpus = |online, possible| Cpus::of_lists(online, possible).ok();
        assert_eq!(cpus(2, "0-7\n"), Some(Cpus { online: 2, possible: 8 }));
        assert_eq!(cpus(1, "0\n"), Some(Cpus { online: 1, possible: 1 }));
        assert_eq!(cpus(8, "0-3,8-11\n"), Some(Cpus { online: 8, possible: 12 }), "a number, not a count");
        assert_eq!((cpus(1, ""), cpus(1, "0-x")), (None, None));
        let options = Options::default();
        let config = options.config(&Config::empty(), options.ring_shape(), &self::cpus(), None).unwrap();
        assert_eq!(config.get(Slot::Cpus), Some(8));
    }

    #[test]
    fn rings_of_many_cpus_are_smaller_so_that_their_memory_is_bounded() {
        let ring_bytes = |cpus| auto_ring_bytes(cpus, 4096);
        assert_eq!([1, 2, 256].map(ring_bytes), [DEFAULT_RING_BYTES; 3], "as without many CPUs");
        assert_eq!([257, 512, 640, 8192].map(|cpus| ring_bytes(cpus) >> 10), [512, 512, 256, 32]);
        for cpus in 1..=8192 {
            let options = Options { ring_bytes: ring_bytes(cpus), ..Options::default() };
            assert!(options.check(4096).is_ok() && options.ring_shape().bytes(cpus) <= AUTO_RINGS_BYTES as usize);
        }
        assert_eq!((ring_bytes(0), ring_bytes(1 << 30)), (DEFAULT_RING_BYTES, 4096));
    }

    #[test]
    fn cpus_that_are_not_online_do_not_multiply_the_memory_of_rings() {
        let wanted = Options::default().ring_shape();
        let most = |online, possible| Cpus { online, possible }.most_ring_bytes(wanted) >> 20;
        assert_eq!((most(4, 240), most(240, 240)), (64, 512));
        // Half of the CPUs, as with SMT off: the rings are as large as with all of them.
        assert!(most(256, 512) >= wanted.bytes(512) >> 20);
        assert_eq!(most(2000, 4000), 512);
    }
}
