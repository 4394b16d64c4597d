//! Numbers the VMs that entries belong to, by their process and their `struct kvm`, and has them named.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::Result;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::{
    host::{
        labels::rules::LabelRules,
        naming::{Names, Naming},
        pid_namespace::shows_host_processes,
        roots::Roots,
    },
    model::interval::{Interval, MAX_VMS, Vm},
};

/// Slots of VMs that are found without a hash map, as a power of two.
const RECENT_BITS: u32 = 5;
/// Most VMs of one process that are remembered: one that creates and destroys VMs leaves room for those of others.
const MAX_OF_PROCESS: usize = 4096;
/// How often it is asked whether processes still run.
const EVERY: Duration = Duration::from_secs(1);
/// A VM's identity: the process and the address of its `struct kvm`.
type Identity = (u32, u64);

/// A VM, and its name.
#[derive(Clone, Default)]
pub(super) struct Found {
    /// nameless in the interval of its first entry
    pub(super) vm: Arc<Vm>,
    /// the name that it gets
    pub(super) naming: Arc<Naming>,
}

/// A process with VMs.
struct Process {
    naming: Arc<Naming>,
    /// addresses of the `struct kvm` of its VMs that are remembered, the oldest first
    kvms: VecDeque<u64>,
    next_ordinal: u32,
    /// it has ended, and no interval since then has an entry of it
    has_ended: bool,
}

/// The VMs so far.
pub(super) struct Vms {
    /// none where the processes below /proc are not those that the programs report
    names: Option<Names>,
    /// found last, by some bits of the address; no process has number 0
    recent: [(Identity, Found); 1 << RECENT_BITS],
    by_identity: FxHashMap<Identity, u32>,
    /// by number: those of `by_identity` and of `forgotten`
    by_id: FxHashMap<u32, Found>,
    /// numbers of VMs that were forgotten in the current interval
    forgotten: Vec<u32>,
    processes: FxHashMap<u32, Process>,
    /// VMs of processes that have ended, which nobody took yet
    ended: FxHashSet<Identity>,
    /// names that have not been asked for, as too many questions wait
    to_ask: VecDeque<Arc<Naming>>,
    /// names that have not come, the oldest question first
    waiting: VecDeque<Arc<Naming>>,
    /// when it was asked last which processes still run
    asked: Instant,
    /// the answer to that has not come
    is_asked: bool,
    next: u32,
}

/// An interval some of whose VMs may still have no name.
pub(super) struct Unnamed {
    interval: Interval,
    waiting: Vec<(u32, Arc<Naming>)>,
}

impl Unnamed {
    /// Whether all names have come, or were given up.
    pub(super) fn is_complete(&self) -> bool {
        self.waiting.iter().all(|(_, naming)| naming.get().is_some())
    }

    /// The interval with the names of its VMs; waits for those that have not come.
    pub(super) fn complete(mut self) -> Interval {
        for (id, naming) in self.waiting {
            self.interval.vms.entry(id).and_modify(|vm| *vm = naming.wait(vm));
        }
        self.interval
    }
}

impl Vms {
    /// Without any VM. Processes are read from procfs below `roots`, and labelled by `rules`, too.
    pub(super) fn new(roots: &Roots, rules: LabelRules) -> Result<Self> {
        let are_named = shows_host_processes(&roots.proc) != Some(false);
        Ok(Self {
            names: are_named.then(|| Names::start(&roots.proc, rules)).transpose()?,
            recent: Default::default(),
            by_identity: FxHashMap::default(),
            by_id: FxHashMap::default(),
            forgotten: Vec::new(),
            processes: FxHashMap::default(),
            ended: FxHashSet::default(),
            to_ask: VecDeque::new(),
            waiting: VecDeque::new(),
            asked: Instant::now(),
            is_asked: false,
            next: 0,
        })
    }

    /// The VM of an entry. A new one is numbered, and named later after its process.
    #[inline]
    pub(super) fn get(&mut self, tgid: u32, kvm: u64) -> &Found {
        let at = recent_slot(kvm);
        if self.recent[at].0 != (tgid, kvm) {
            self.recent[at] = ((tgid, kvm), self.find(tgid, kvm));
        }
        &self.recent[at].1
    }

    fn find(&mut self, tgid: u32, kvm: u64) -> Found {
        if let Some(id) = self.by_identity.get(&(tgid, kvm)) {
            return self.by_id[id].clone();
        }
        if self.by_identity.len() >= MAX_VMS {
            self.make_room();
        }
        let Self { names, to_ask, waiting, processes, .. } = self;
        let process = processes.entry(tgid).or_insert_with(|| {
            let naming = match names {
                Some(_) => Arc::new(Naming::new(tgid)),
                // The process of this id in another PID namespace is a stranger.
                None => Arc::new(Naming::known(tgid, format!("tgid {tgid}"))),
            };
            if names.is_some() {
                to_ask.push_back(Arc::clone(&naming));
                waiting.push_back(Arc::clone(&naming));
            }
            Process { naming, kvms: VecDeque::new(), next_ordinal: 0, has_ended: false }
        });
        process.kvms.push_back(kvm);
        let ordinal = process.next_ordinal;
        process.next_ordinal += 1;
        let naming = Arc::clone(&process.naming);
        if process.kvms.len() > MAX_OF_PROCESS {
            let oldest = process.kvms.pop_front();
            self.forget_vms(oldest.into_iter().map(|kvm| (tgid, kvm)));
        }
        let vm = Vm { id: self.next, tgid, ordinal, ..Vm::default() };
        let vm = naming.get().map_or_else(|| Arc::new(vm.clone()), |named| named.name(&vm));
        let found = Found { vm, naming };
        self.by_identity.insert((tgid, kvm), self.next);
        self.by_id.insert(self.next, found.clone());
        self.next += 1;
        found
    }
    /// Asks for names, and gives up those that have not come for too long. To be called often.
    pub(super) fn keep_asking(&mut self) {
        let Some(names) = &self.names else { return };
        while self.to_ask.pop_front_if(|naming| names.ask(naming)).is_some() {}
        let is_done = |naming: &mut Arc<Naming>| {
            if naming.is_overdue() {
                naming.give_up();
            }
            naming.get().is_some()
        };
        while self.waiting.pop_front_if(is_done).is_some() {}
    }

    /// Waits until every name has come or is given up.
    pub(super) fn wait_for_names(&mut self) {
        self.keep_asking();
        while !self.waiting.is_empty() {
            sleep(Duration::from_millis(1));
            self.keep_asking();
        }
    }

    /// Names the VMs of the interval that ends now, and forgets those of processes that have ended before it.
    pub(super) fn end(&mut self, mut interval: Interval) -> Unnamed {
        self.keep_asking();
        let mut waiting = Vec::new();
        for (id, vm) in &mut interval.vms {
            if let Some(process) = self.processes.get_mut(&vm.tgid) {
                process.has_ended = false;
            }
            let Some(found) = self.by_id.get_mut(id) else { continue };
            match found.naming.get() {
                Some(named) if found.vm.name.is_empty() => found.vm = named.name(vm),
                Some(_) => {}
                None => waiting.push((*id, Arc::clone(&found.naming))),
            }
            *vm = Arc::clone(&found.vm);
        }
        self.forget_ended();
        for id in self.forgotten.drain(..) {
            self.by_id.remove(&id);
        }
        Unnamed { interval, waiting }
    }

    /// Forgets processes whose number belongs to another one by now, and those that are gone. The last records of one that is gone may still
    /// be in the rings, so it is forgotten a second later, if no interval has an entry of it. Without that, a new process of the same number
    /// would get a dead one's name.
    fn forget_ended(&mut self) {
        let Some(names) = &self.names else { return };
        let starts = names.starts();
        self.is_asked &= starts.is_none();
        if !self.is_asked && self.asked.elapsed() >= EVERY {
            self.is_asked = names.ask_starts(self.processes.keys().copied().collect());
            self.asked = Instant::now();
        }
        for (tgid, start_ticks) in starts.unwrap_or_default() {
            let Some(process) = self.processes.get_mut(&tgid) else { continue };
            let Some(named) = process.naming.get() else { continue };
            match start_ticks {
                Some(ticks) if ticks == named.start_ticks => {}
                // It could not be read before, either.
                None if named.start_ticks == 0 => {}
                None if !process.has_ended => process.has_ended = true,
                None => {
                    self.ended.extend(process.kvms.iter().map(|kvm| (tgid, *kvm)));
                    self.forget(tgid);
                }
                // Some of its VMs may be those of the new process.
                Some(_) => self.forget(tgid),
            }
        }
    }

    /// The VMs of processes that have ended since the last call: they will never enter again.
    pub(super) fn take_ended(&mut self) -> FxHashSet<Identity> {
        std::mem::take(&mut self.ended)
    }

    /// Forgets the VMs of the processes that have the most.
    fn make_room(&mut self) {
        let most = self.processes.values().map(|process| process.kvms.len()).max().unwrap_or_default();
        let with_many = self.processes.iter().filter(|(_, process)| 2 * process.kvms.len() > most);
        let tgids: Vec<_> = with_many.map(|(tgid, _)| *tgid).collect();
        tgids.into_iter().for_each(|tgid| self.forget(tgid));
    }

    /// Forgets a process: an entry of it will be of a new VM.
    fn forget(&mut self, tgid: u32) {
        let kvms = self.processes.remove(&tgid).map(|process| process.kvms).unwrap_or_default();
        self.forget_vms(kvms.into_iter().map(|kvm| (tgid, kvm)));
    }

    fn forget_vms(&mut self, identities: impl Iterator<Item = Identity>) {
        self.forgotten.extend(identities.filter_map(|identity| self.by_identity.remove(&identity)));
        self.recent = Default::default();
    }
}

impl Drop for Vms {
    /// Nobody waits for names that nobody asks for any more.
    fn drop(&mut self) {
        self.waiting.iter().for_each(|naming| naming.give_up());
    }
}

/// A slot of `recent`: the highest bits of a product, which depend on all bits of the address.
fn recent_slot(kvm: u64) -> usize {
    let [.., highest] = kvm.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    usize::from(highest >> (u8::BITS - RECENT_BITS))
}

#[cfg(test)]
mod tests;
