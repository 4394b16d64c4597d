//! The made-up host: VMs that begin and end, their processes below a folder laid out as /proc, and their rounds.

use std::{collections::VecDeque, fs, path::Path, sync::Arc};

use tempfile::TempDir;
use tracer_common::{Event, Flags, Outline};
use vmentry::{compare::random::Random, model::interval::Vm};

pub const CPUS: u32 = 640;
pub const VCPUS: u32 = 4096;
pub const VMS: u32 = 500;
/// VMs that end, and as many that begin, each second.
pub const CHURN: u32 = 10;

/// Basic VMX exit reasons: CPUID, HLT, I/O, WRMSR, EPT violation, external interrupt, preemption timer.
const REASONS: [u32; 8] = [10, 12, 30, 32, 48, 1, 52, 12];
/// A VM of the host.
pub struct Guest {
    vm: Arc<Vm>,
    kvm: u64,
    /// outline of each vCPU's last round
    previous: Vec<Outline>,
}

/// The host.
pub struct Host {
    proc: TempDir,
    guests: VecDeque<Guest>,
    begun: u32,
    random: Random,
    now_ns: u64,
    known: Flags,
}

impl Host {
    pub fn new() -> Self {
        let mut host = Self {
            proc: TempDir::new().unwrap(),
            guests: VecDeque::new(),
            begun: 0,
            random: Random::new(23),
            now_ns: 1_000_000_000,
            known: Flags::LEVEL_KNOWN
                | Flags::IMMEDIATE_KNOWN
                | Flags::SOFT_KNOWN
                | Flags::PIN_READ
                | Flags::PIN_WRITES_KNOWN
                | Flags::REASON_KNOWN,
        };
        (0..VMS).for_each(|_| host.begin());
        host
    }

    /// The folder that is laid out as /proc.
    pub fn proc(&self) -> &Path {
        self.proc.path()
    }

    /// The oldest VMs end, and as many others begin.
    pub fn churn(&mut self) {
        for _ in 0..CHURN {
            let Some(ended) = self.guests.pop_front() else { return };
            fs::remove_dir_all(self.proc.path().join(ended.vm.tgid.to_string())).unwrap();
            self.begin();
        }
    }

    /// A VM begins. The first ones have a vCPU more each, so that there are [`VCPUS`] at any time.
    fn begin(&mut self) {
        let id = self.begun;
        self.begun += 1;
        let vcpus = VCPUS / VMS + u32::from(id % VMS < VCPUS % VMS);
        // Process ids that Linux cannot give, so that nothing is mistaken for a real process.
        let tgid = 5_000_000 + id;
        let folder = self.proc.path().join(tgid.to_string());
        fs::create_dir(&folder).unwrap();
        let zeros = "0 ".repeat(18);
        for (file, text) in [
            ("status", format!("Name:\tqemu\nTgid:\t{tgid}\nPid:\t{tgid}\nPPid:\t1\nUid:\t0\t64055\t0\t0\n")),
            ("stat", format!("{tgid} (qemu) S {zeros}{} 0 0\n", 1000 + id)),
            ("comm", "qemu\n".into()),
            ("cmdline", format!("qemu-system-x86_64\0-name\0guest=web{id},debug-threads=on\0")),
            ("cgroup", format!("0::/machine.slice/machine-qemu\\x2d{id}\\x2dweb{id}.scope\n")),
        ] {
            fs::write(folder.join(file), text).unwrap();
        }
        self.guests.push_back(Guest {
            vm: Arc::new(Vm { id, tgid, name: format!("web{id}"), start_ticks: 1, ..Vm::default() }),
            kvm: 0xffff_c900_0000_0000 + u64::from(id % 4096) * 0xa000,
            previous: vec![Outline::default(); vcpus as usize],
        });
    }

    /// Each vCPU makes a round; gets the CPU and the event, whose number is still 1, and the VM.
    pub fn rounds(&mut self, mut event_of: impl FnMut(u32, Event, &Arc<Vm>)) {
        let mut cpu = 0;
        for guest in &mut self.guests {
            for (vcpu, previous) in (0..).zip(&mut guest.previous) {
                let random = self.random.below(1 << 30);
                let reason = REASONS[random % REASONS.len()];
                let (guest_ns, host_ns) = (500 + (random >> 3) as u64 % 4096, 800 + (random >> 15) as u64 % 8192);
                let event = Event {
                    entry_ns: self.now_ns,
                    exit_ns: self.now_ns + guest_ns,
                    exit_to_entry_ns: if *previous != Outline::default() { host_ns } else { Event::UNKNOWN_NS },
                    kvm: guest.kvm,
                    tgid: guest.vm.tgid,
                    vcpu,
                    exit_reason: reason,
                    flags: self.known,
                    isa: 1,
                    pin_writes: u8::from(reason == 52),
                    previous: *previous,
                    seq: 1,
                    ..Event::default()
                };
                *previous = event.outline();
                event_of(cpu, event, &guest.vm);
                cpu = (cpu + 1) % CPUS;
            }
        }
        self.now_ns += 50_000;
    }
}
