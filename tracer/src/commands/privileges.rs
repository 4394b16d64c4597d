//! The privileges that each command keeps once its programs are attached and its command runs. Nothing is attached again later: tracepoints
//! outlive a reload of the vendor's module, and another build of it ends the command.

use anyhow::{Result, bail};

use crate::{
    host::{
        capabilities::{CapabilitySet, keep_only},
        system_calls::{Serving, forbid_all_but_tracing},
    },
    say,
};

/// To find the VMs and tracers of other users' processes below /proc, whatever its hidepid.
const PROCESSES: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);
/// To make and replace files in other users' folders, and to give them to whoever called sudo.
const FILES: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::CHOWN).union(CapabilitySet::FOWNER);

/// A command that writes a recording of this host.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recording {
    /// counts of probes are read from a map, or processes are limited through one
    pub(crate) uses_map: bool,
    /// a command was started, which may be another user's and has to be ended
    pub(crate) ends_command: bool,
}

impl Recording {
    /// Of the calling thread and those that it will start: capabilities but those for /proc, files, the command, and the look at other
    /// tracers at the end. Of this process: the calls that would attach or start anything.
    pub(crate) fn give_up_the_rest(self) -> Result<()> {
        keep_only(self.kept())?;
        note_missing(forbid_all_but_tracing());
        Ok(())
    }

    /// Does something on a thread of its own with the capabilities that will be left, to see whether they are enough.
    pub(crate) fn rehearse(self, work: impl FnOnce() -> Result<()> + Send) -> Result<()> {
        let rehearsal = || keep_only(self.kept()).and_then(|()| work());
        std::thread::scope(|scope| scope.spawn(rehearsal).join()).unwrap_or_else(|_| bail!("the rehearsal panicked"))
    }

    fn kept(self) -> CapabilitySet {
        // The kernel tells of others' links only to CAP_SYS_ADMIN.
        let mut keep = PROCESSES | FILES | CapabilitySet::SYS_ADMIN;
        keep.set(CapabilitySet::BPF, self.uses_map);
        keep.set(CapabilitySet::KILL, self.ends_command);
        keep
    }
}

/// The live view, which names VMs and may save files.
pub(crate) fn of_live_view() -> Result<()> {
    keep_only(PROCESSES | FILES)?;
    note_missing(forbid_all_but_tracing());
    Ok(())
}

/// The thread that follows VMs: it looks through /proc and changes a map of the programs.
pub(crate) fn of_following() -> Result<()> {
    keep_only(PROCESSES | CapabilitySet::BPF)
}

/// An exporter, which strangers talk to: nothing, but for what a file of metrics in another user's folder needs.
pub(crate) fn of_exporter(serving: Serving) -> Result<()> {
    keep_only(if serving.changes_files { CapabilitySet::DAC_OVERRIDE } else { CapabilitySet::empty() })?;
    note_missing(serving.allow_only());
    Ok(())
}

/// Without seccomp in the kernel, capabilities alone are given up.
fn note_missing(filtered: Result<()>) {
    if let Err(error) = filtered {
        say!("{error:#}; it goes on without a filter");
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::capabilities;

    use super::*;

    #[test]
    fn a_rehearsal_has_the_capabilities_that_are_kept_and_this_thread_stays_as_it_is() {
        let before = capabilities(None).unwrap();
        let recording = Recording { uses_map: false, ends_command: true };
        let work = || {
            let held = capabilities(None)?;
            assert_eq!(
                held.effective,
                before.effective & (PROCESSES | FILES | CapabilitySet::SYS_ADMIN | CapabilitySet::KILL)
            );
            bail!("in the middle")
        };
        assert_eq!(recording.rehearse(work).unwrap_err().to_string(), "in the middle");
        assert_eq!(capabilities(None).unwrap(), before);
    }
}
