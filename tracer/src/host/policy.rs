//! The timer policy in force: read, switched (companion patch only), and restored however the process ends, except by SIGKILL.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{
    host::{
        process::{read_process, text},
        roots::Roots,
        vendor,
    },
    model::{policy::Policy, vendor::Vendor},
    output, say,
};

/// The companion patch's parameter, below /sys.
const PARAMETER: &str = "module/kvm_intel/parameters/preemption_timer_policy";
/// The note of a temporary switch, below /run.
const NOTE: &str = "vmentry-policy.json";
/// More bytes than a note has.
const NOTE_BYTES: u64 = 4096;

/// Note of a temporary switch: the policy to restore, and the process that has to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// process that switched
    pub(crate) pid: u32,
    /// start of that process in clock ticks since boot
    pub(crate) start_ticks: u64,
    /// policy before the switch
    pub(crate) before: Policy,
}

/// Reads and switches the policy.
pub(crate) struct Switch {
    parameter: PathBuf,
    note: PathBuf,
    proc: PathBuf,
    /// kvm_intel runs VMs here; built in, it has its parameters on other CPUs, too
    in_force: bool,
}

/// The policy that the companion patch's parameter names: soft, hard, or unknown for any other text.
pub(super) fn parse(text: &str) -> Policy {
    match Policy::parse(text.trim()) {
        Some(policy @ (Policy::Soft | Policy::Hard)) => policy,
        _ => Policy::Unknown,
    }
}

impl Switch {
    /// The switch of the host below these folders.
    fn of(roots: &Roots) -> Self {
        Self {
            parameter: roots.sys.join(PARAMETER),
            note: roots.run.join(NOTE),
            proc: roots.proc.clone(),
            in_force: vendor::find(roots) == Ok(Vendor::Intel),
        }
    }

    /// This host's.
    pub(crate) fn of_host() -> Self {
        Self::of(&Roots::default())
    }

    fn get(&self) -> Result<Policy> {
        let parameter = output::shown(&self.parameter);
        let content = match text(&self.parameter) {
            Ok(content) => content,
            Err(e) if e.kind() == io::ErrorKind::NotFound => bail!(
                "this kvm_intel has no switchable policy ({parameter} is missing)\n  \
                 -> build and load the companion patch: 'vmentry help pin-controls'"
            ),
            Err(e) => return Err(e).with_context(|| format!("read {parameter}")),
        };
        if !self.in_force {
            bail!(
                "read {parameter}: kvm_intel does not run the VMs of this host ('vmentry check' shows what does): it has no policy"
            );
        }
        match parse(&content) {
            Policy::Unknown => bail!("read {parameter}: '{}' is neither soft nor hard", content.trim()),
            policy => Ok(policy),
        }
    }

    fn set(&self, policy: Policy) -> Result<()> {
        let (before, to) = (self.get()?.name(), policy.name());
        if let Err(e) = fs::write(&self.parameter, to) {
            bail!("switch the policy from {before} to {to}: {e}{}", fix(&e));
        }
        let now = self.get()?;
        if now != policy {
            bail!("switch the policy from {before} to {to}: it reads {} afterwards", now.name());
        }
        Ok(())
    }

    /// Sets the policy to stay; returns the one before. Fails while another process is going to restore one.
    pub(crate) fn set_to_stay(&self, policy: Policy) -> Result<Policy> {
        let before = self.get()?;
        if let Some(note) = self.note().filter(|note| note.is_alive(&self.proc)) {
            bail!(
                "process {} has switched the policy temporarily and will restore {} when it ends: wait for it, or end it",
                note.pid,
                note.before.name()
            );
        }
        self.set(policy)?;
        // Set on purpose: there is nothing to restore any more.
        let _ = fs::remove_file(&self.note);
        Ok(before)
    }

    /// Sets the policy until the result is dropped.
    pub(crate) fn set_temporarily(self, policy: Policy) -> Result<Restore> {
        let before = self.get()?;
        if let Some(note) = self.left_behind() {
            let (now, restored) = (before.name(), note.before.name());
            bail!(
                "the policy is {now} because process {} was killed before it restored {restored}: run 'vmentry policy {restored}' first",
                note.pid
            );
        }
        let pid = std::process::id();
        let start_ticks = read_process(&self.proc, pid).map(|p| p.start_time_ticks).unwrap_or(0);
        let note = Note { pid, start_ticks, before };
        // Before the switch and in one write, so that a kill in between leaves no switched policy without a note.
        let noted = output::create_new(&self.note).and_then(|mut file| file.write_all(&serde_json::to_vec(&note)?));
        if let Err(error) = noted {
            let note = output::shown(&self.note);
            if error.kind() == io::ErrorKind::AlreadyExists {
                match self.note() {
                    Some(Note { pid, .. }) => bail!(
                        "vmentry (pid {pid}) has switched the policy and will restore it, as {note} says: wait for its end"
                    ),
                    None => {
                        bail!("note the policy to restore in {note}: it is not a file that vmentry made: remove it")
                    }
                }
            }
            return Err(error).with_context(|| format!("note the policy to restore in {note}"));
        }
        let restore = Restore { switch: self, before, done: false };
        restore.switch.set(policy)?;
        Ok(restore)
    }

    /// The note; none where there is none, or something else: a link, a pipe, a file of another user than root and this one. A note that does
    /// not say soft or hard was cut off by a kill; its policy is taken to be soft, the default.
    fn note(&self) -> Option<Note> {
        let file =
            OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&self.note).ok()?;
        let about = file.metadata().ok()?;
        let is_ours = about.is_file() && [0, rustix::process::geteuid().as_raw()].contains(&about.uid());
        let mut bytes = Vec::new();
        file.take(NOTE_BYTES).read_to_end(&mut bytes).ok().filter(|_| is_ours)?;
        let cut_off = Note { pid: 0, start_ticks: 0, before: Policy::Soft };
        let note = serde_json::from_slice(&bytes).unwrap_or(cut_off.clone());
        Some(if matches!(note.before, Policy::Soft | Policy::Hard) { note } else { cut_off })
    }

    fn left_behind(&self) -> Option<Note> {
        self.note().filter(|note| !note.is_alive(&self.proc))
    }
}

/// The policy that the companion patch's parameter names now; none where there is no such parameter.
pub(crate) fn now(roots: &Roots) -> Option<Policy> {
    let switch = Switch::of(roots);
    text(&switch.parameter).ok().filter(|_| switch.in_force).map(|text| parse(&text))
}

/// Fails, with the fix, where the policy cannot be switched.
pub(crate) fn check_switchable() -> Result<()> {
    Switch::of_host().get().map(|_| ())
}

/// The note of a switch whose process is gone; none while it runs, or without a note.
pub(crate) fn left_behind(roots: &Roots) -> Option<Note> {
    Switch::of(roots).left_behind()
}

/// Restores a policy that a killed process left behind; returns what was done, none without its note.
pub(crate) fn restore_left_behind(roots: &Roots) -> Result<Option<String>> {
    let switch = Switch::of(roots);
    let Some(note) = switch.left_behind() else { return Ok(None) };
    if !switch.parameter.exists() {
        fs::remove_file(&switch.note).with_context(|| format!("remove {}", output::shown(&switch.note)))?;
        return Ok(Some("gone: nothing to restore".into()));
    }
    let now = switch.set_to_stay(note.before)?;
    Ok(Some(format!("{} -> {}", now.name(), note.before.name())))
}

/// Restores the policy when it is dropped: at the end, on an error, on a panic.
#[must_use]
pub(crate) struct Restore {
    switch: Switch,
    before: Policy,
    done: bool,
}

impl Restore {
    /// Switches this host's policy until the result is dropped.
    pub(crate) fn after(policy: Policy) -> Result<Self> {
        Switch::of_host().set_temporarily(policy)
    }

    /// Switches once more; the policy to restore stays the one before the first switch.
    pub(crate) fn switch(&self, policy: Policy) -> Result<()> {
        self.switch.set(policy)
    }

    /// The policy that will be restored.
    pub(crate) fn before(&self) -> Policy {
        self.before
    }

    /// Restores now. If the module was unloaded meanwhile, there is nothing to restore.
    pub(crate) fn restore(mut self) -> Result<()> {
        self.try_restore()
    }

    fn try_restore(&mut self) -> Result<()> {
        if !self.done {
            self.done = true;
            if self.switch.parameter.exists() {
                let restored = self.switch.set(self.before);
                restored.with_context(|| format!("THE POLICY WAS NOT RESTORED to {}", self.before.name()))?;
            }
            // It may be gone already: 'vmentry policy' removes it.
            let _ = fs::remove_file(&self.switch.note);
        }
        Ok(())
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if let Err(error) = self.try_restore() {
            say!("vmentry: {error:#}");
        }
    }
}

impl Note {
    fn is_alive(&self, proc: &Path) -> bool {
        read_process(proc, self.pid).is_ok_and(|process| process.start_time_ticks == self.start_ticks)
    }
}

/// Returns what to do about an error of a write to the parameter.
fn fix(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => "\n  -> run as root",
        Some(libc::EOPNOTSUPP) => {
            "\n  -> KVM does not use the VMX-preemption timer: load kvm_intel without preemption_timer=0"
        }
        Some(libc::EBUSY) => {
            "\n  -> the stopwatch needs the soft policy: load kvm_intel without preemption_timer_stopwatch=1"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::roots::made_up::Folder;

    const PARAMETER_FILE: &str = "sys/module/kvm_intel/parameters/preemption_timer_policy";

    const STATE_FILE: &str = "sys/module/kvm_intel/initstate";

    /// A host whose parameter file takes any policy, as the kernel's does, and whose processes are the real ones.
    fn host() -> Folder {
        let mut host = Folder::new();
        host.roots.proc = Roots::default().proc;
        host.write(PARAMETER_FILE, "soft\n");
        host.write(STATE_FILE, "live\n");
        host
    }

    #[test]
    fn a_refused_switch_says_what_to_do() {
        for (errno, words) in [
            (libc::EACCES, "run as root"),
            (libc::EOPNOTSUPP, "without preemption_timer=0"),
            (libc::EBUSY, "without preemption_timer_stopwatch=1"),
        ] {
            assert!(fix(&io::Error::from_raw_os_error(errno)).contains(words), "{errno}");
        }
        assert_eq!(fix(&io::Error::from_raw_os_error(libc::EINVAL)), "");
    }

    #[test]
    fn a_temporary_switch_is_restored_on_return_and_on_panic() {
        let host = host();
        let read = || host.read(PARAMETER_FILE).trim().to_owned();
        let has_note = || host.has("run/vmentry-policy.json");
        let restore = Switch::of(&host.roots).set_temporarily(Policy::Hard).unwrap();
        assert_eq!((read().as_str(), has_note(), restore.before()), ("hard", true, Policy::Soft));
        restore.restore().unwrap();
        assert_eq!((read().as_str(), has_note()), ("soft", false));
        let again = Switch::of(&host.roots);
        let panicked = std::panic::catch_unwind(move || {
            let _restore = again.set_temporarily(Policy::Hard).unwrap();
            panic!("in the middle");
        });
        assert!(panicked.is_err());
        assert_eq!(read(), "soft");
    }

    #[test]
    fn a_killed_switch_is_noticed_and_a_running_one_is_not() {
        let host = host();
        let left = |pid: u32, start_ticks: u64| {
            host.write(
                "run/vmentry-policy.json",
                format!(r#"{{"pid":{pid},"start_ticks":{start_ticks},"before":"soft"}}"#),
            );
            left_behind(&host.roots).map(|n| n.before)
        };
        let me = std::process::id();
        let start = read_process(&host.roots.proc, me).unwrap().start_time_ticks;
        assert_eq!(left(me, start), None);
        assert_eq!(left(me, start + 1), Some(Policy::Soft));
        host.write("run/vmentry-policy.json", "{\"pid\":7,");
        assert_eq!(left_behind(&host.roots).map(|n| n.before), Some(Policy::Soft));
        let refused = Switch::of(&host.roots).set_temporarily(Policy::Hard);
        assert!(refused.err().unwrap().to_string().contains("was killed"));
    }

    #[test]
    fn a_policy_left_behind_is_restored_and_its_note_removed() {
        let host = host();
        assert_eq!(restore_left_behind(&host.roots).unwrap(), None);
        let left = |before: &str| {
            host.write("run/vmentry-policy.json", format!(r#"{{"pid":0,"start_ticks":0,"before":"{before}"}}"#));
        };
        left("hard");
        assert_eq!(restore_left_behind(&host.roots).unwrap().as_deref(), Some("soft -> hard"));
        assert_eq!((host.read(PARAMETER_FILE).as_str(), host.has("run/vmentry-policy.json")), ("hard", false));
        left("soft");
        fs::remove_file(host.roots.sys.join(PARAMETER)).unwrap();
        assert!(restore_left_behind(&host.roots).unwrap().unwrap().contains("gone"), "the module was unloaded");
        assert!(!host.has("run/vmentry-policy.json"));
    }

    #[test]
    fn only_a_file_of_this_user_that_says_soft_or_hard_is_a_note_and_a_pipe_holds_nobody_up() {
        let host = host();
        let note = host.roots.run.join(NOTE);
        let left = || left_behind(&host.roots).map(|note| note.before);
        let refusal = || Switch::of(&host.roots).set_temporarily(Policy::Hard).err().unwrap().to_string();
        host.write("run/elsewhere", r#"{"pid":0,"start_ticks":0,"before":"hard"}"#);
        host.link("run/vmentry-policy.json", "elsewhere");
        assert_eq!(left(), None, "a link");
        assert!(refusal().contains("is not a file that vmentry made"), "{}", refusal());
        fs::remove_file(&note).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &note, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(left(), None, "a pipe");
        assert!(refusal().contains("is not a file that vmentry made"));
        assert_eq!(host.read(PARAMETER_FILE), "soft\n", "nothing was switched");
        fs::remove_file(&note).unwrap();
        for before in [r"hard\u001b[2J; rm -rf /", "off", "unknown"] {
            host.write("run/vmentry-policy.json", format!(r#"{{"pid":0,"start_ticks":0,"before":"{before}"}}"#));
            assert_eq!(left(), Some(Policy::Soft), "{before}");
        }
        if rustix::process::geteuid().is_root() {
            fs::write(&note, r#"{"pid":0,"start_ticks":0,"before":"hard"}"#).unwrap();
            assert_eq!(left(), Some(Policy::Hard));
            std::os::unix::fs::chown(&note, Some(65534), None).unwrap();
            assert_eq!(left(), None, "another user's");
        }
    }

    #[test]
    fn a_note_is_written_as_it_always_was() {
        let note = Note { pid: 7, start_ticks: 1, before: Policy::Hard };
        assert_eq!(serde_json::to_string(&note).unwrap(), r#"{"pid":7,"start_ticks":1,"before":"hard"}"#);
    }

    #[test]
    fn a_policy_that_is_neither_soft_nor_hard_is_unknown_and_never_switched() {
        let host = host();
        assert_eq!(now(&host.roots), Some(Policy::Soft));
        for odd in ["off", "odd", ""] {
            host.write(PARAMETER_FILE, odd);
            assert_eq!(now(&host.roots), Some(Policy::Unknown));
            let error = Switch::of(&host.roots).set_to_stay(Policy::Hard).unwrap_err().to_string();
            assert!(error.contains("neither soft nor hard"), "{error}");
        }
        assert_eq!(now(&Folder::new().roots), None);
    }

    #[test]
    fn a_kvm_intel_that_runs_no_vm_has_no_policy() {
        let host = host();
        host.write(STATE_FILE, "coming\n");
        host.write("sys/module/kvm_amd/initstate", "live\n");
        assert_eq!(now(&host.roots), None);
        let error = Switch::of(&host.roots).set_to_stay(Policy::Hard).unwrap_err().to_string();
        assert!(error.contains("does not run the VMs of this host"), "{error}");
        assert_eq!(host.read(PARAMETER_FILE), "soft\n");
    }

    #[test]
    fn without_the_patch_the_way_to_it_is_named() {
        let error = Switch::of(&Folder::new().roots).get().unwrap_err();
        assert!(error.to_string().contains("companion patch"));
    }
}
