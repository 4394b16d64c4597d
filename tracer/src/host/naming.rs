//! Finds the names of VMs on a thread of its own, so that a process that is slow to be read keeps nobody from counting.

use std::{
    path::Path,
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    host::{
        labels::{labels, rules::LabelRules},
        process::{read_process, start_time},
    },
    model::{interval::Vm, vm_labels::VmLabels},
};

/// Questions that wait for the thread.
const QUEUE: usize = 1024;
/// How long a name is waited for. The kernel makes a reader of /proc/PID wait while the process changes its memory map.
const PATIENCE: Duration = Duration::from_secs(1);

/// The properties of a process that its VMs are named by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// the name of its VMs
    pub(crate) name: String,
    /// start of the process in clock ticks after boot; 0 where it could not be read
    pub(crate) start_ticks: u64,
    /// effective user id; none where it could not be read
    pub(crate) uid: Option<u32>,
    /// what its manager knows its VMs by
    pub(crate) labels: VmLabels,
}

/// The name of a process's VMs, found by another thread.
#[derive(Debug)]
pub struct Naming {
    tgid: u32,
    asked: Instant,
    found: OnceLock<Named>,
}

impl Default for Naming {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Naming {
    /// The name of the VMs of a process, not found yet.
    pub(crate) fn new(tgid: u32) -> Self {
        Self { tgid, asked: Instant::now(), found: OnceLock::new() }
    }

    /// A name that is not looked for.
    pub fn known(tgid: u32, name: String) -> Self {
        let naming = Self::new(tgid);
        naming.settle(Named { name, ..Named::default() });
        naming
    }

    /// The name; none yet.
    pub(crate) fn get(&self) -> Option<&Named> {
        self.found.get()
    }

    /// The VM with its name, which is waited for: until it is found or given up.
    pub(crate) fn wait(&self, vm: &Vm) -> Arc<Vm> {
        self.found.wait().name(vm)
    }

    /// Whether it has been waited for long enough.
    pub(crate) fn is_overdue(&self) -> bool {
        self.asked.elapsed() >= PATIENCE
    }

    /// Takes the process's number for the name, unless that was found.
    pub(crate) fn give_up(&self) {
        self.settle(Named { name: format!("pid-{}", self.tgid), ..Named::default() });
    }

    /// The first name counts.
    fn settle(&self, named: Named) {
        let _ = self.found.set(named);
    }
}

impl Named {
    /// The VM with this name.
    pub(crate) fn name(&self, vm: &Vm) -> Arc<Vm> {
        let Self { name, start_ticks, uid, labels } = self.clone();
        Arc::new(Vm { name, start_ticks, uid, labels, ..vm.clone() })
    }
}

/// A question to the thread.
enum Question {
    /// the name of a process's VMs
    Name(Arc<Naming>),
    /// the start times of these processes now
    Starts(Vec<u32>),
}

/// Start times of processes; none of one that cannot be read.
pub(crate) type Starts = Vec<(u32, Option<u64>)>;

/// The thread that reads processes. It ends when this is dropped, or later if a process keeps it waiting.
pub(crate) struct Names {
    questions: SyncSender<Question>,
    starts: Receiver<Starts>,
}

impl Names {
    /// Starts the thread, which reads processes below `proc`.
    pub(crate) fn start(proc: &Path, rules: LabelRules) -> Result<Self> {
        let (questions, asked) = sync_channel(QUEUE);
        let (answer, starts) = channel();
        let proc = proc.to_owned();
        let thread = thread::Builder::new().name("names".into()).spawn(move || run(&proc, &rules, &asked, &answer));
        thread.context("start the thread that names VMs")?;
        Ok(Self { questions, starts })
    }

    /// Asks for a name; false where too many questions wait.
    pub(crate) fn ask(&self, naming: &Arc<Naming>) -> bool {
        self.questions.try_send(Question::Name(Arc::clone(naming))).is_ok()
    }

    /// Asks for the start times of processes; false where too many questions wait.
    pub(crate) fn ask_starts(&self, tgids: Vec<u32>) -> bool {
        self.questions.try_send(Question::Starts(tgids)).is_ok()
    }

    /// The answer to [`Self::ask_starts`]; none yet.
    pub(crate) fn starts(&self) -> Option<Starts> {
        self.starts.try_recv().ok()
    }
}

fn run(proc: &Path, rules: &LabelRules, questions: &Receiver<Question>, starts: &Sender<Starts>) {
    for question in questions {
        match question {
            Question::Name(naming) => match read_process(proc, naming.tgid) {
                Ok(process) => {
                    naming.settle(Named {
                        name: process.name(),
                        start_ticks: process.start_time_ticks,
                        uid: process.uid,
                        labels: labels(&process, rules),
                    });
                }
                Err(_) => naming.give_up(),
            },
            Question::Starts(tgids) => {
                let now = tgids.into_iter().map(|tgid| (tgid, start_time(proc, tgid).ok()));
                // Nobody waits for it at the end.
                let _ = starts.send(now.collect());
            }
        }
    }
}
