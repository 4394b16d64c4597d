//! Settings of the host that an experiment switches by itself: values in files of the kernel's. They are read before the first switch, and
//! written back however the process ends; after SIGKILL a note tells `vmentry check` and `vmentry ab --restore` what they were.

mod file;
mod kind;
pub(crate) mod left_behind;
pub(crate) mod note;

use std::io;

use anyhow::{Context, Result, bail, ensure};

use crate::{
    host::roots::Roots,
    output::{MAX_NAME, printable, shown},
    say,
};
use file::{KernelFile, is_same};
pub(crate) use kind::{FORMS, Kind};
use note::{Kept, Note};

/// A setting that can be switched: its files and their values now.
#[derive(Debug)]
pub(crate) struct Setting(Vec<(KernelFile, String)>);

impl Setting {
    /// Finds the files of a setting, and fails, with the fix, where they cannot take one of the values. Nothing is written.
    pub(crate) fn find(roots: &Roots, kind: &Kind, values: [&str; 2]) -> Result<Self> {
        note::ensure_none(roots)?;
        let mut found = Vec::new();
        for file in kind.files(roots)? {
            let name = shown(file.path());
            ensure!(
                !file.is_read_only(),
                "{name} is read-only\n  -> choose a setting that a running kernel lets change"
            );
            let content = file.read().with_context(|| format!("read {name}")).with_context(hint)?;
            let choices = if content.choices.is_empty() { kind.choices(&file) } else { content.choices };
            for value in values {
                ensure!(
                    choices.is_empty() || choices.iter().any(|choice| choice == value),
                    "{name} does not take {} (it is {})\n  -> choose one of: {}",
                    printable(value, MAX_NAME),
                    printable(&content.now, MAX_NAME),
                    printable(&choices.join(", "), MAX_NAME)
                );
            }
            found.push((file, content.now));
        }
        Ok(Self(found))
    }

    /// Writes each value that is in force once more: what cannot be written now could not be restored later.
    pub(crate) fn rewrite(&self) -> Result<()> {
        self.0.iter().try_for_each(|(file, now)| file.set(now)).with_context(hint)
    }

    /// Notes the values, which are restored when the result is dropped. Nothing is switched yet.
    pub(crate) fn hold(self, roots: &Roots) -> Result<Held> {
        let name = shown(&note::path(roots));
        match Kept::new(roots, &self.0, None) {
            Ok(note) => Ok(Held { before: self.0, note, done: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                note::ensure_none(roots)?;
                bail!("note the values to restore in {name}: {error}")
            }
            Err(error) => Err(error).with_context(|| format!("note the values to restore in {name}")),
        }
    }
}

/// Said where a file cannot be switched.
fn hint() -> &'static str {
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        "the setting cannot be switched and restored here"
    } else {
        "the setting cannot be switched: run as root"
    }
}

/// Restores the values from before when it is dropped: at the end, on an error, on a panic.
#[must_use]
#[derive(Debug)]
pub(crate) struct Held {
    before: Vec<(KernelFile, String)>,
    note: Kept,
    done: bool,
}

impl Held {
    /// Writes a value to all files, and reads it back.
    pub(crate) fn switch(&self, value: &str) -> Result<()> {
        self.before.iter().try_for_each(|(file, _)| file.set(value))
    }

    /// Fails if a file no longer has the value.
    pub(crate) fn ensure(&self, value: &str) -> Result<()> {
        for (file, _) in &self.before {
            let name = shown(file.path());
            let now = file.read().with_context(|| format!("read {name}"))?.now;
            ensure!(
                is_same(&now, value),
                "{name} is no longer {}, but {}: something else switched it during a window, which is left out",
                printable(value, MAX_NAME),
                printable(&now, MAX_NAME)
            );
        }
        Ok(())
    }

    /// Restores now. A file that is gone meanwhile has nothing to restore.
    pub(crate) fn restore(mut self) -> Result<()> {
        self.try_restore()
    }

    fn try_restore(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(());
        }
        let failed: Vec<_> = put_back(&self.before).into_iter().filter_map(|(_, done)| done.err()).collect();
        if failed.is_empty() {
            self.note.remove();
            return Ok(());
        }
        let failed: Vec<_> = failed.iter().map(|error| format!("{error:#}")).collect();
        self.note.failed(&failed.join("; "));
        bail!("THE SETTING WAS NOT RESTORED: {}\n  -> vmentry ab --restore", failed.join("\n"))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.try_restore() {
            say!("vmentry: {error:#}");
        }
    }
}

/// Writes each value back, whatever becomes of the others; returns for each file what was done, or how it failed and the command to type.
fn put_back(before: &[(KernelFile, String)]) -> Vec<(String, Result<String>)> {
    let back = |(file, value): &(KernelFile, String)| {
        let shown_value = printable(value, MAX_NAME).into_owned();
        let done = match file.read() {
            _ if file.is_gone() => Ok("gone: nothing to restore".into()),
            // Written also then: another value may be on its way.
            Ok(content) if is_same(&content.now, value) => file.set(value).map(|()| format!("{shown_value} as before")),
            Ok(content) => file.set(value).map(|()| format!("{} -> {shown_value}", printable(&content.now, MAX_NAME))),
            Err(_) => file.set(value).map(|()| format!("-> {shown_value}")),
        };
        (shown(file.path()), done)
    };
    before.iter().map(back).collect()
}

/// Writes back what a killed experiment left behind, and removes its note once all of it is restored: not if a write failed, nor if a
/// command restores it, which is not run. Returns for each file what was done.
pub(crate) fn restore_left_behind(roots: &Roots, note: &Note) -> Result<Vec<(String, Result<String>)>> {
    let done = put_back(&note.files);
    if note.command.is_none() && done.iter().all(|(_, done)| done.is_ok()) {
        note::remove(roots)?;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::roots::made_up::Folder;

    const POLL: &str = "sys/module/kvm/parameters/halt_poll_ns";
    const THP: &str = "sys/kernel/mm/transparent_hugepage/enabled";
    const NOTE: &str = "run/vmentry-setting.json";

    fn host() -> Folder {
        let mut host = Folder::new();
        let base = host.roots.run.parent().unwrap().canonicalize().unwrap();
        (host.roots.sys, host.roots.run) = (base.join("sys"), base.join("run"));
        host.write(POLL, "200000\n");
        host.write(THP, "always [madvise] never\n");
        host
    }

    fn find(host: &Folder, name: &str, values: [&str; 2]) -> Result<Setting> {
        Setting::find(&host.roots, &Kind::parse(name, values[0]).unwrap().unwrap(), values)
    }

    fn held(host: &Folder) -> Held {
        find(host, "kvm.halt_poll_ns", ["0", "5"]).unwrap().hold(&host.roots).unwrap()
    }

    #[test]
    fn a_setting_is_restored_on_return_and_on_panic() {
        let host = host();
        let held_now = held(&host);
        assert_eq!((host.read(POLL).trim(), host.has(NOTE)), ("200000", true), "noted before anything is switched");
        held_now.switch("0").unwrap();
        held_now.switch("5").unwrap();
        assert_eq!(host.read(POLL), "5");
        held_now.restore().unwrap();
        assert_eq!((host.read(POLL).as_str(), host.has(NOTE)), ("200000", false));
        let again = held(&host);
        let panicked = std::panic::catch_unwind(move || {
            again.switch("0").unwrap();
            panic!("in the middle");
        });
        assert!(panicked.is_err());
        assert_eq!((host.read(POLL).as_str(), host.has(NOTE)), ("200000", false));
    }

    #[test]
    fn all_files_of_a_setting_are_switched_and_get_their_own_values_back() {
        let host = host();
        let governor = |n: u32| format!("sys/devices/system/cpu/cpufreq/policy{n}/scaling_governor");
        for (n, now) in [(0, "powersave\n"), (1, "schedutil\n")] {
            host.write(&governor(n), now);
            let choices = governor(n).replace("scaling_governor", "scaling_available_governors");
            host.write(&choices, "performance powersave schedutil\n");
        }
        let refused = find(&host, "governor", ["performance", "fast"]).unwrap_err().to_string();
        assert!(refused.contains("does not take fast") && refused.contains("performance, powersave"), "{refused}");
        let held = find(&host, "governor", ["performance", "powersave"]).unwrap().hold(&host.roots).unwrap();
        held.switch("performance").unwrap();
        assert_eq!([0, 1].map(|n| host.read(&governor(n))), ["performance", "performance"]);
        drop(held);
        assert_eq!([0, 1].map(|n| host.read(&governor(n))), ["powersave", "schedutil"]);
    }

    #[test]
    fn a_list_takes_only_its_words_and_gets_the_bracketed_one_back() {
        let host = host();
        let refused = find(&host, "thp", ["always", "sometimes"]).unwrap_err().to_string();
        assert!(refused.contains("it is madvise") && refused.contains("always, madvise, never"), "{refused}");
        let held = find(&host, "thp", ["always", "never"]).unwrap().hold(&host.roots).unwrap();
        held.switch("never").unwrap();
        drop(held);
        assert_eq!(host.read(THP), "madvise");
    }

    #[test]
    fn what_somebody_else_switches_during_a_window_is_noticed() {
        let host = host();
        let held = held(&host);
        held.switch("0").unwrap();
        held.ensure("0").unwrap();
        host.write(POLL, "7\n");
        let error = held.ensure("0").unwrap_err().to_string();
        assert!(error.contains("is no longer 0, but 7"), "{error}");
    }

    #[test]
    fn what_cannot_be_restored_is_said_and_stays_noted() {
        let host = host();
        let held = held(&host);
        held.switch("0").unwrap();
        // Neither gone nor writable.
        let file = host.roots.sys.join("module/kvm/parameters/halt_poll_ns");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        let error = format!("{:#}", held.restore().unwrap_err());
        assert!(error.starts_with("THE SETTING WAS NOT RESTORED") && error.contains("--restore"), "{error}");
        let left = left_behind::left_behind(&host.roots).unwrap().what();
        assert!(left.contains("which could not restore 200000: ") && !left.contains("killed"), "{left}");
    }

    #[test]
    fn a_file_that_is_gone_has_nothing_to_restore() {
        let host = host();
        let held = held(&host);
        std::fs::remove_file(host.roots.sys.join("module/kvm/parameters/halt_poll_ns")).unwrap();
        held.restore().unwrap();
        assert!(!host.has(NOTE));
    }

    #[test]
    fn what_a_killed_experiment_left_is_put_back_before_another_one_starts() {
        let host = host();
        let held_then = held(&host);
        held_then.switch("0").unwrap();
        // As after kill -9: the made-up /proc has no process.
        std::mem::forget(held_then);
        let refused = find(&host, "kvm.halt_poll_ns", ["0", "5"]).unwrap_err().to_string();
        assert!(refused.contains("ended without restoring"), "{refused}");
        assert_eq!(left_behind::left_behind(&host.roots).unwrap().files[0].before, "200000");
        let note = note::to_restore(&host.roots).unwrap().unwrap();
        let done = restore_left_behind(&host.roots, &note).unwrap();
        assert_eq!(done[0].1.as_ref().unwrap(), "0 -> 200000");
        assert_eq!((host.read(POLL).as_str(), host.has(NOTE)), ("200000", false));
        drop(held(&host));
    }

    #[test]
    fn a_file_that_does_not_take_its_own_value_is_refused() {
        let host = host();
        let setting = find(&host, "kvm.halt_poll_ns", ["0", "5"]).unwrap();
        setting.rewrite().unwrap();
        std::fs::remove_file(host.roots.sys.join("module/kvm/parameters/halt_poll_ns")).unwrap();
        assert!(setting.rewrite().is_err());
    }
}
