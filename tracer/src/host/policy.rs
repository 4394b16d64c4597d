//! The timer policy in force: read, switched (companion patch only), and restored on every way out.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{host::machine::Roots, output, say};

/// The companion patch's parameter, below /sys.
pub const PARAMETER: &str = "module/kvm_intel/parameters/preemption_timer_policy";
/// Says, while a switch is temporary, what to go back to.
const NOTE: &str = "/run/vmentry-policy.json";

/// What a temporary switch must restore, and who has to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// process that switched
    pub pid: u32,
    /// start of that process in clock ticks after boot
    pub start_ticks: u64,
    /// policy before
    pub before: String,
}

/// Where the policy is read and written.
pub(crate) struct Switch {
    parameter: PathBuf,
    note: PathBuf,
}

impl Switch {
    /// This host's.
    pub(crate) fn of_host() -> Self {
        Self { parameter: Roots::default().sys.join(PARAMETER), note: NOTE.into() }
    }

    fn get(&self) -> Result<String> {
        match fs::read_to_string(&self.parameter) {
            Ok(policy) => Ok(policy.trim().to_owned()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => bail!(
                "this kvm_intel has no switchable policy ({} is missing)\n  \
                 -> build and load the companion patch: see patches/README.md ('cargo xtask patches build --kernel running')",
                self.parameter.display()
            ),
            Err(e) => Err(e).with_context(|| format!("read {}", self.parameter.display())),
        }
    }

    fn set(&self, policy: &str) -> Result<()> {
        let before = self.get()?;
        if let Err(e) = fs::write(&self.parameter, policy) {
            let fix = if e.kind() == io::ErrorKind::PermissionDenied { "\n  -> run as root" } else { "" };
            bail!("switch the policy from {before} to {policy}: {e}{fix}");
        }
        let now = self.get()?;
        if now != policy {
            bail!("switch the policy from {before} to {policy}: it reads {now} afterwards");
        }
        Ok(())
    }

    /// Sets the policy to stay; returns the one before. Refused while another process has set one that it will restore.
    pub(crate) fn set_to_stay(&self, policy: &str) -> Result<String> {
        let before = self.get()?;
        if let Some(note) = noted(&self.note).filter(|n| n.is_alive(Path::new("/proc"))) {
            bail!(
                "process {} has set the policy for a while and restores {} at its end: wait for it, or end it",
                note.pid,
                note.before
            );
        }
        self.set(policy)?;
        // Set on purpose: there is nothing to restore any more.
        let _ = fs::remove_file(&self.note);
        Ok(before)
    }

    /// Sets the policy until the guard is dropped.
    pub(crate) fn set_for_a_while(self, policy: &str) -> Result<Restore> {
        let before = self.get()?;
        if let Some(note) = left_behind_at(&self.note, Path::new("/proc")) {
            bail!(
                "the policy is {before} because process {} was killed before it restored {}: run 'vmentry policy {}' first",
                note.pid,
                note.before,
                note.before
            );
        }
        let me = std::process::id();
        let start_ticks =
            crate::host::vmm::read_process(Path::new("/proc"), me).map(|p| p.start_time_ticks).unwrap_or(0);
        let note = Note { pid: me, start_ticks, before: before.clone() };
        // Before the switch: a kill in between must not leave a policy that nobody knows of. In one write, for the same reason.
        let noted = output::create_new(&self.note).and_then(|mut file| file.write_all(&serde_json::to_vec(&note)?));
        noted.with_context(|| {
            format!("note the policy to restore in {} (another vmentry may be switching it now)", self.note.display())
        })?;
        let restore = Restore { switch: self, before, done: false };
        restore.switch.set(policy)?;
        Ok(restore)
    }
}

/// The policy that the companion patch's parameter names; none where there is no such parameter.
pub fn now() -> Option<String> {
    fs::read_to_string(Switch::of_host().parameter).ok()
}

/// Fails, with the way to it, where the policy cannot be switched.
pub fn check_switchable() -> Result<()> {
    Switch::of_host().get().map(|_| ())
}

/// Restores the policy when it is dropped: at the end, on an error, on a panic.
#[must_use]
pub struct Restore {
    switch: Switch,
    before: String,
    done: bool,
}

impl Restore {
    /// The policy that will be restored.
    pub(crate) fn before(&self) -> &str {
        &self.before
    }

    /// Restores now; a module that was unloaded meanwhile has nothing to restore.
    pub fn restore(mut self) -> Result<()> {
        self.try_restore()
    }

    fn try_restore(&mut self) -> Result<()> {
        if !self.done {
            self.done = true;
            if self.switch.parameter.exists() {
                self.switch
                    .set(&self.before)
                    .with_context(|| format!("THE POLICY WAS NOT RESTORED to {}", self.before))?;
            }
            // Gone already where nothing needs it.
            let _ = fs::remove_file(&self.switch.note);
        }
        Ok(())
    }

    /// Switches the host's policy until the result is dropped.
    pub fn after(policy: &str) -> Result<Self> {
        Switch::of_host().set_for_a_while(policy)
    }

    /// Switches once more; what is restored stays the policy before the first switch.
    pub fn switch(&self, policy: &str) -> Result<()> {
        self.switch.set(policy)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Err(error) = self.try_restore() {
            say!("vmentry: {error:#}");
        }
    }
}

/// A switch whose process is gone; none while it runs or when there is none.
pub fn left_behind() -> Option<Note> {
    left_behind_at(Path::new(NOTE), Path::new("/proc"))
}

fn left_behind_at(path: &Path, proc: &Path) -> Option<Note> {
    noted(path).filter(|note| !note.is_alive(proc))
}

/// The note, if there is one. One that cannot be read was cut off by a kill: soft is what a kernel begins with.
fn noted(path: &Path) -> Option<Note> {
    let text = fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).unwrap_or(Note { pid: 0, start_ticks: 0, before: "soft".into() }))
}

impl Note {
    fn is_alive(&self, proc: &Path) -> bool {
        crate::host::vmm::read_process(proc, self.pid).is_ok_and(|p| p.start_time_ticks == self.start_ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A parameter file that takes any policy, as the kernel's would.
    fn switch(name: &str) -> (PathBuf, Switch) {
        let dir = std::env::temp_dir().join(format!("vmentry-policy-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let parameter = dir.join("parameter");
        fs::write(&parameter, "soft\n").unwrap();
        (dir.clone(), Switch { parameter, note: dir.join("note") })
    }

    #[test]
    fn a_switch_for_a_while_is_restored_on_return_and_on_panic() {
        let (dir, s) = switch("restore");
        let read = || fs::read_to_string(dir.join("parameter")).unwrap();
        let restore = s.set_for_a_while("hard").unwrap();
        assert_eq!(read().trim(), "hard");
        assert!(dir.join("note").exists());
        restore.restore().unwrap();
        assert_eq!((read().trim(), dir.join("note").exists()), ("soft", false));
        let again = Switch { parameter: dir.join("parameter"), note: dir.join("note") };
        let panicked = std::panic::catch_unwind(move || {
            let _restore = again.set_for_a_while("hard").unwrap();
            panic!("in the middle");
        });
        assert!(panicked.is_err());
        assert_eq!(read().trim(), "soft");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_killed_switch_is_noticed_and_a_running_one_is_not() {
        let (dir, s) = switch("killed");
        let note = |pid: u32, start_ticks| {
            let note = Note { pid, start_ticks, before: "soft".into() };
            fs::write(dir.join("note"), serde_json::to_string(&note).unwrap()).unwrap();
            left_behind_at(&dir.join("note"), Path::new("/proc")).map(|n| n.before)
        };
        let me = std::process::id();
        let start = crate::host::vmm::read_process(Path::new("/proc"), me).unwrap().start_time_ticks;
        assert_eq!(note(me, start), None);
        assert_eq!(note(me, start + 1).as_deref(), Some("soft"));
        fs::write(dir.join("note"), "{\"pid\":7,").unwrap();
        assert_eq!(left_behind_at(&dir.join("note"), Path::new("/proc")).map(|n| n.before).as_deref(), Some("soft"));
        assert!(s.set_for_a_while("hard").err().unwrap().to_string().contains("was killed"));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn without_the_patch_the_way_to_it_is_named() {
        let s = Switch { parameter: "/no/such/parameter".into(), note: "/no/such/note".into() };
        assert!(s.get().unwrap_err().to_string().contains("patches/README.md"));
    }
}
