//! Settings that `vmentry ab --arm` switches by itself: their form on the command line, and the files that hold them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::file::KernelFile;
use crate::{
    host::{process::text, roots::Roots},
    model::suggestion::did_you_mean,
    output::shown,
};

/// A kind of setting, by its name before the '='.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// MODULE.PARAMETER
    Parameter { module: String, parameter: String },
    /// a file below /sys: its path there
    Sys(PathBuf),
    /// a file below /proc/sys: its path there
    Sysctl(PathBuf),
    /// a file below /sys/fs/cgroup: its path there
    Cgroup(PathBuf),
    /// of cpufreq, on all CPUs
    Governor,
    /// transparent huge pages
    Thp,
}

/// The ways to write a setting.
pub(crate) const FORMS: &str = "MODULE.PARAMETER, /sys/FILE, /proc/sys/FILE, cgroup:PATH/FILE, governor or thp";

const NOHZ: &str = "the tick is chosen by boot parameters (nohz=, nohz_full=), which no running kernel can change: boot with each, record \
                    under each, and compare with 'vmentry compare'; what can be tried at once: --arm kvm.halt_poll_ns=VALUE, or guests \
                    on other CPUs by --arm cgroup:PATH/cpuset.cpus=LIST";

impl Kind {
    /// The kind of `NAME=VALUE`; none for a command, whose name is free. A path or a control group needs no other sign. The other names
    /// are those of a setting only before a plain word: a command has blanks or a slash.
    pub(crate) fn parse(name: &str, value: &str) -> Result<Option<Self>, String> {
        if name.starts_with('/') {
            return of_path(name).map(Some);
        }
        if let Some(path) = name.strip_prefix("cgroup:") {
            return below(path.trim_start_matches('/')).map(|path| Some(Self::Cgroup(path)));
        }
        if !value.chars().all(|c| c.is_ascii_alphanumeric() || "_-+.,:".contains(c)) {
            return Ok(None);
        }
        match name {
            "governor" => return Ok(Some(Self::Governor)),
            "thp" => return Ok(Some(Self::Thp)),
            "nohz" | "nohz_full" => return Err(NOHZ.into()),
            _ => {}
        }
        let is_word = |word: &str, also: char| {
            word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == also)
        };
        let parameter =
            name.split_once('.').filter(|(module, parameter)| is_word(module, '-') && is_word(parameter, '_'));
        // The kernel names a module's folder so.
        Ok(parameter.map(|(module, parameter)| Self::Parameter {
            module: module.replace('-', "_"),
            parameter: parameter.into(),
        }))
    }

    /// The files that hold the setting, the reason and the fix where there is none.
    pub(super) fn files(&self, roots: &Roots) -> Result<Vec<KernelFile>> {
        let one = |path: PathBuf, without: String| -> Result<Vec<KernelFile>> {
            if !path.exists() {
                bail!("{} does not exist\n  -> {without}", shown(&path));
            }
            Ok(vec![KernelFile::find(roots, &path)?])
        };
        let look = |folder: &Path| format!("look for the file's name: ls {}", shown(folder.parent().unwrap_or(folder)));
        match self {
            Self::Parameter { module, parameter } => {
                let folder = roots.sys.join("module").join(module);
                let files =
                    one(folder.join("parameters").join(parameter), without_parameter(&folder, module, parameter))?;
                ensure!(
                    !files[0].is_read_only(),
                    "{module}.{parameter} is read-only: it is set only when the module is loaded\n  -> load the module with each \
                     value, record under each, and compare: 'vmentry compare A B'"
                );
                Ok(files)
            }
            Self::Sys(path) => one(roots.sys.join(path), look(&Path::new("/sys").join(path))),
            Self::Sysctl(path) => one(roots.proc.join("sys").join(path), look(&Path::new("/proc/sys").join(path))),
            Self::Cgroup(path) => {
                let group = Path::new("/sys/fs/cgroup").join(path);
                let why =
                    "systemd-cgls shows the groups; the parent's cgroup.subtree_control enables a controller's files";
                one(roots.sys.join("fs/cgroup").join(path), format!("{}; {why}", look(&group)))
            }
            Self::Governor => governors(roots),
            Self::Thp => one(
                roots.sys.join("kernel/mm/transparent_hugepage/enabled"),
                "use a kernel with CONFIG_TRANSPARENT_HUGEPAGE=y".into(),
            ),
        }
    }

    /// The values that a file takes, where another file lists them; empty where nothing does.
    pub(super) fn choices(&self, file: &KernelFile) -> Vec<String> {
        let list = file.path().with_file_name("scaling_available_governors");
        let listed = if *self == Self::Governor { text(&list).unwrap_or_default() } else { String::new() };
        listed.split_whitespace().map(str::to_owned).collect()
    }
}

/// A file by its whole path.
fn of_path(name: &str) -> Result<Kind, String> {
    let path = Path::new(name);
    if let Ok(path) = path.strip_prefix("/proc/sys") {
        return below(&path.to_string_lossy()).map(Kind::Sysctl);
    }
    if let Ok(path) = path.strip_prefix("/sys") {
        return below(&path.to_string_lossy()).map(Kind::Sys);
    }
    Err("only files below /sys and /proc/sys can be switched; anything else by a command: NAME=COMMAND".into())
}

/// A path that stays below the folder that it is in.
fn below(path: &str) -> Result<PathBuf, String> {
    let is_below = !path.is_empty() && path.split('/').all(|part| ![".", "..", ""].contains(&part));
    if is_below { Ok(path.into()) } else { Err("write the path of a file, without '.' and '..'".into()) }
}

/// The fix where a module has no such parameter.
fn without_parameter(folder: &Path, module: &str, parameter: &str) -> String {
    let command = "a command's NAME has no '.' before a plain word";
    if !folder.exists() {
        let meant = did_you_mean(module, ["kvm", "kvm_intel", "kvm_amd"]);
        return format!("{meant}load the module: modprobe {module} ({command})");
    }
    let entries = std::fs::read_dir(folder.join("parameters")).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| shown(Path::new(&entry.file_name()))).collect();
    names.sort();
    format!(
        "{}{module} has: {} ({command})",
        did_you_mean(parameter, &names),
        if names.is_empty() { "no parameters".into() } else { names.join(", ") }
    )
}

/// The governor of each group of CPUs, in order. A group whose CPUs are all offline has none.
fn governors(roots: &Roots) -> Result<Vec<KernelFile>> {
    let folder = roots.sys.join("devices/system/cpu/cpufreq");
    let number = |name: &str| name.strip_prefix("policy").and_then(|number| number.parse::<u32>().ok());
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut policies: Vec<_> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    policies.sort_unstable();
    let paths = policies.iter().map(|policy| folder.join(format!("policy{policy}/scaling_governor")));
    let files: Vec<_> = paths.filter(|path| text(path).is_ok()).map(|path| KernelFile::find(roots, &path)).collect();
    ensure!(
        !files.is_empty(),
        "this machine has no CPU frequency governor ({} has no policy)\n  -> in a VM, switch it on the host; else load a driver of \
         cpufreq",
        shown(&folder)
    );
    files.into_iter().collect::<Result<_>>().context("find the governors")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::roots::made_up::Folder;

    fn kind(text: &str) -> Option<Kind> {
        let (name, value) = text.split_once('=').unwrap();
        Kind::parse(name, value).unwrap()
    }

    fn parameter(module: &str, parameter: &str) -> Kind {
        Kind::Parameter { module: module.into(), parameter: parameter.into() }
    }

    #[test]
    fn settings_are_told_from_commands_by_their_form() {
        for (text, expected) in [
            ("kvm.halt_poll_ns=0", parameter("kvm", "halt_poll_ns")),
            ("kvm-intel.nested=Y", parameter("kvm_intel", "nested")),
            ("/sys/kernel/mm/ksm/run=1", Kind::Sys("kernel/mm/ksm/run".into())),
            ("/proc/sys/vm/swappiness=10", Kind::Sysctl("vm/swappiness".into())),
            ("cgroup:machine.slice/cpu.weight=50", Kind::Cgroup("machine.slice/cpu.weight".into())),
            ("cgroup:/vms/cpu.max=50000 100000", Kind::Cgroup("vms/cpu.max".into())),
            ("governor=performance", Kind::Governor),
            ("thp=always", Kind::Thp),
        ] {
            assert_eq!(kind(text), Some(expected), "{text}");
        }
        for command in [
            "haltpoll=echo 200000 > /sys/module/kvm/parameters/halt_poll_ns",
            "none=true",
            "thp=echo always > /sys/kernel/mm/transparent_hugepage/enabled",
            "governor=cpupower frequency-set -g performance",
            "kvm.on=./switch",
            "v1.2=true",
            "nohz=./boot-again.sh",
            "a.b.c=1",
        ] {
            assert_eq!(kind(command), None, "{command}");
        }
    }

    #[test]
    fn a_boot_parameter_and_paths_elsewhere_are_refused() {
        assert!(Kind::parse("nohz", "off").unwrap_err().contains("boot parameters"));
        assert!(Kind::parse("nohz_full", "1-3").unwrap_err().contains("cpuset.cpus"));
        for name in [
            "/etc/passwd",
            "/proc/sysrq-trigger",
            "/sysx/a",
            "/sys",
            "/sys/../etc/passwd",
            "/proc/sys/../1/mem",
            "cgroup:",
            "cgroup:../x",
            "cgroup:a//b",
        ] {
            assert!(Kind::parse(name, "1").is_err(), "{name}");
        }
    }

    #[test]
    fn every_kind_names_its_files() {
        let host = Folder::new();
        let files = |text: &str| {
            let files = kind(text).unwrap().files(&host.roots).unwrap();
            let base = host.roots.sys.parent().unwrap().canonicalize().unwrap();
            files.iter().map(|file| shown(file.path().strip_prefix(&base).unwrap())).collect::<Vec<_>>()
        };
        for (text, path) in [
            ("kvm.halt_poll_ns=0", "sys/module/kvm/parameters/halt_poll_ns"),
            ("/sys/kernel/mm/ksm/run=1", "sys/kernel/mm/ksm/run"),
            ("/proc/sys/vm/swappiness=10", "proc/sys/vm/swappiness"),
            ("cgroup:a/cpu.weight=50", "sys/fs/cgroup/a/cpu.weight"),
            ("thp=never", "sys/kernel/mm/transparent_hugepage/enabled"),
        ] {
            host.write(path, "1\n");
            assert_eq!(files(text), [path]);
        }
        for policy in [10, 0, 2] {
            host.write(&format!("sys/devices/system/cpu/cpufreq/policy{policy}/scaling_governor"), "powersave\n");
        }
        host.write("sys/devices/system/cpu/cpufreq/policy7/other", "1\n");
        let governor = |n: u32| format!("sys/devices/system/cpu/cpufreq/policy{n}/scaling_governor");
        assert_eq!(files("governor=powersave"), [0, 2, 10].map(governor));
    }

    #[test]
    fn a_setting_that_is_missing_or_read_only_is_refused_with_the_fix() {
        use std::os::unix::fs::PermissionsExt;
        let host = Folder::new();
        let refused = |text: &str| format!("{:#}", kind(text).unwrap().files(&host.roots).unwrap_err());
        assert!(refused("kvm.halt_poll_ns=0").contains("modprobe kvm"));
        host.write("sys/module/kvm/parameters/halt_poll_ns", "1\n");
        assert!(refused("kvm.halt_pol_ns=0").contains("did you mean halt_poll_ns? kvm has: halt_poll_ns"));
        assert!(refused("kvn_intel.nested=Y").contains("did you mean kvm_intel? load the module"));
        assert!(refused("thp=never").contains("CONFIG_TRANSPARENT_HUGEPAGE"));
        assert!(refused("governor=performance").contains("no CPU frequency governor"));
        assert!(refused("cgroup:a/cpu.weight=1").contains("systemd-cgls"));
        assert!(refused("/sys/kernel/nothing=1").contains("ls /sys/kernel"));
        let file = host.roots.sys.join("module/kvm/parameters/halt_poll_ns");
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o444)).unwrap();
        assert!(refused("kvm.halt_poll_ns=0").contains("only when the module is loaded"));
    }
}
