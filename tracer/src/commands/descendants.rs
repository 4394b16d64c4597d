//! The processes that a command starts and leaves behind: this process becomes their parent, so that it can end them with the command.

use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{getpid, set_child_subreaper};

use crate::host::{
    process::{ids, read_process},
    roots::Roots,
};

/// How often the processes that were told to end are looked for.
const LOOK: Duration = Duration::from_millis(10);
/// How long the kernel may take to end killed processes.
const LAST_LOOKS: Duration = Duration::from_secs(1);

/// Becomes the parent of processes whose parent ends, instead of process 1: of all that descend from this process.
pub(crate) fn adopt() -> Result<()> {
    set_child_subreaper(Some(getpid())).context("become the parent of a command's processes")
}

/// The processes that an [`Apart`] waits for, on whatever thread.
static APART: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn apart() -> MutexGuard<'static, BTreeSet<u32>> {
    // A set of numbers is whole after any panic.
    APART.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child that its owner waits for, and whose orphans process 1 gets, until this is dropped.
pub(crate) struct Apart {
    /// orphans were adopted before
    adopts: bool,
    /// none until it is started
    child: Option<u32>,
}

impl Apart {
    /// Starts a child apart from those of the command.
    pub(crate) fn start(command: &mut std::process::Command) -> io::Result<(std::process::Child, Self)> {
        let adopts = rustix::process::child_subreaper().is_ok_and(|parent| parent.is_some());
        // The kernel refuses neither.
        let _ = set_child_subreaper(None);
        let mut started = Self { adopts, child: None };
        // Locked until it is noted: it may end at once.
        let mut all = apart();
        let child = command.spawn()?;
        all.insert(child.id());
        started.child = Some(child.id());
        drop(all);
        Ok((child, started))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(child) = self.child {
            apart().remove(&child);
        }
        if self.adopts {
            let _ = set_child_subreaper(Some(getpid()));
        }
    }
}

/// Forgets adopted processes that have ended. `own` is the process that somebody else waits for, as are those [`Apart`].
pub(crate) fn reap(own: Option<u32>) {
    let apart = apart();
    let is_kept = |id: u32| own == Some(id) || apart.contains(&id);
    while let Some(ended) = next_ended().filter(|&ended| !ended.try_into().is_ok_and(is_kept)) {
        // SAFETY: waitpid may be given no place for the status.
        unsafe { libc::waitpid(ended, std::ptr::null_mut(), libc::WNOHANG) };
    }
}

/// A child that has ended and was not waited for; it stays so.
fn next_ended() -> Option<libc::pid_t> {
    // SAFETY: a siginfo of zeros is a valid value, whose process id is 0; waitid fills it in where a child has ended.
    let id = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        if libc::waitid(libc::P_ALL, 0, &raw mut info, options) != 0 {
            return None;
        }
        info.si_pid()
    };
    (id != 0).then_some(id)
}

/// Ends all children of this process, and theirs once they have become its own: by SIGTERM, and after `grace` by SIGKILL. To be called when
/// nobody waits for a child any more.
pub(crate) async fn end_all(grace: Duration) {
    let started = Instant::now();
    let mut told = BTreeSet::new();
    loop {
        reap(None);
        let children = children();
        if children.is_empty() || started.elapsed() > grace + LAST_LOOKS {
            return;
        }
        let must_end = started.elapsed() > grace;
        for child in children {
            if must_end || told.insert(child) {
                let signal = if must_end { libc::SIGKILL } else { libc::SIGTERM };
                // SAFETY: kill has no memory effects; a child's number is its own until it is reaped, which only this thread does.
                unsafe { libc::kill(child, signal) };
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The children of this process; none where /proc shows the processes of another PID namespace.
fn children() -> Vec<libc::pid_t> {
    let Roots { proc, .. } = Roots::default();
    let me = std::process::id();
    // Numbers of another namespace are those of strangers.
    if fs::read_link(proc.join("self")).ok().as_deref() != Some(Path::new(&me.to_string())) {
        return Vec::new();
    }
    let is_child = |id: &u32| read_process(&proc, *id).is_ok_and(|process| process.parent == me);
    ids(&proc).filter(is_child).filter_map(|id| id.try_into().ok()).collect()
}
