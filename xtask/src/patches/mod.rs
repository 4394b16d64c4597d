//! The companion patches: builds kvm-intel.ko with them, and checks patches and modules.

mod build;
mod check;
mod headers;
mod module;
mod series;
mod source;
mod target;
mod toolchain;

use crate::debian;
use crate::lab::Kernel;
use crate::patches::series::Series;
use crate::patches::target::Target;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Build kvm-intel.ko with the companion patches, and check them
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(clap::Subcommand)]
enum Task {
    /// Build kvm-intel.ko and print its path
    Build {
        /// Debian's newest kernel of a series that has patches, such as 7.3, or `running`
        #[arg(long, value_name = "SERIES", default_value = "6.12")]
        kernel: Choice,
        /// Also apply the patches for tests; not for hosts
        #[arg(long, conflicts_with_all = ["unpatched", "stopwatch"])]
        test_only: bool,
        /// Also apply the stopwatch, which is off unless the module is loaded with preemption_timer_stopwatch=1
        #[arg(long, conflicts_with = "unpatched")]
        stopwatch: bool,
        /// Apply no patches: the module of the distribution
        #[arg(long)]
        unpatched: bool,
        /// Folder of kvm-intel.ko [default: target/patches/KERNEL]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Check that the patches apply, build and change nothing else of KVM
    Check {
        /// A series that has patches, or `running`; may be repeated [default: all series]
        #[arg(long, value_name = "SERIES")]
        kernel: Vec<Choice>,
    },
}

/// A kernel on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// The newest kernel of a series, which the lab boots.
    Newest(&'static Series),
    Running,
}

impl FromStr for Choice {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Choice> {
        match text {
            "running" => Ok(Choice::Running),
            series => series::named(series).map(Choice::Newest),
        }
    }
}

impl Choice {
    fn name(self) -> &'static str {
        match self {
            Choice::Newest(series) => series.name,
            Choice::Running => "running",
        }
    }

    fn cannot_build(self) -> Result<Option<String>> {
        match self {
            Choice::Newest(series) => cannot_build(series.kernel()?),
            Choice::Running => Ok(None),
        }
    }

    fn target(self) -> Result<Target> {
        match self {
            Choice::Newest(series) => Target::newest(series),
            Choice::Running => Target::running(),
        }
    }
}

/// The patches of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// No patches: the distribution's source.
    Unpatched,
    /// Tracepoints and the policy parameter.
    Companion,
    /// The companion patches and the stopwatch.
    Stopwatch,
    /// The companion patches and those for tests.
    TestOnly,
}

impl Flavour {
    /// Name as part of a file name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Flavour::Unpatched => "unpatched",
            Flavour::Companion => "companion",
            Flavour::Stopwatch => "stopwatch",
            Flavour::TestOnly => "test-only",
        }
    }
}

/// Returns the kvm-intel.ko of a flavour for the kernel that the lab boots, from the cache if it has been built before.
pub(crate) fn module(kernel: Kernel, flavour: Flavour) -> Result<PathBuf> {
    build::module(&Target::newest(series::named(&kernel.series())?)?, flavour)
}

/// Whether there are companion patches for a kernel series, and what it takes to build them.
pub(crate) fn has_module(kernel: Kernel) -> bool {
    series::named(&kernel.series()).is_ok_and(|series| series.no_build.is_none())
}

/// Returns the reason why no module can be built for a kernel series that has patches; none if one can be built.
pub(crate) fn cannot_build(kernel: Kernel) -> Result<Option<String>> {
    if let Some(reason) = series::named(&kernel.series())?.no_build {
        return Ok(Some(reason.to_owned()));
    }
    debian::withdrawn(kernel)
}

/// Checks the patches of every series, or of those in the short test.
pub(crate) fn check_series(is_short: bool) -> Result<()> {
    let wanted = series::ALL.iter().filter(|series| series.in_short_test || !is_short);
    check::run(&wanted.map(Choice::Newest).collect::<Vec<_>>())
}

/// Builds a module, or checks the patches.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.task {
        Task::Build { kernel, test_only, stopwatch, unpatched, out } => {
            let flavour = match (test_only, stopwatch, unpatched) {
                (true, ..) => Flavour::TestOnly,
                (_, true, _) => Flavour::Stopwatch,
                (.., true) => Flavour::Unpatched,
                _ => Flavour::Companion,
            };
            let folder = out.clone().unwrap_or_else(|| out_dir(*kernel, flavour));
            println!("{}", copy(&build::module(&kernel.target()?, flavour)?, &folder)?.display());
            Ok(())
        }
        Task::Check { kernel } if kernel.is_empty() => check_series(false),
        Task::Check { kernel } => check::run(kernel),
    }
}

/// Returns the folder of a kernel and flavour: `target/patches/6.1`, `target/patches/6.1-test-only`.
fn out_dir(kernel: Choice, flavour: Flavour) -> PathBuf {
    let name = match flavour {
        Flavour::Companion => kernel.name().to_owned(),
        other => format!("{}-{}", kernel.name(), other.name()),
    };
    crate::build::target_dir().join("patches").join(name)
}

/// Copies a module into a folder, and returns its path there.
fn copy(module: &Path, folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("create folder {}", folder.display()))?;
    let path = folder.join("kvm-intel.ko");
    fs::copy(module, &path).with_context(|| format!("copy module to {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn flavours_exclude_each_other_and_each_has_its_own_folder() {
        let line = |words: &str| Line::try_parse_from(words.split(' ')).map(|line| line.arguments.task);
        assert!(line("patches build --kernel 6.1 --test-only").is_ok());
        assert!(line("patches build --kernel running --unpatched --out x").is_ok());
        assert!(line("patches build --stopwatch").is_ok());
        for pair in ["--test-only --unpatched", "--test-only --stopwatch", "--stopwatch --unpatched"] {
            assert!(line(&format!("patches build {pair}")).is_err(), "{pair}");
        }
        assert!(line("patches build --kernel 5.10").is_err());
        assert!(line("patches check --kernel 6.1 --kernel 7.3").is_ok());
        let folders = [Flavour::Unpatched, Flavour::Companion, Flavour::Stopwatch, Flavour::TestOnly]
            .map(|f| out_dir("6.1".parse().unwrap(), f));
        let names = folders.each_ref().map(|path| path.file_name().unwrap().to_str().unwrap());
        assert_eq!(names, ["6.1-unpatched", "6.1", "6.1-stopwatch", "6.1-test-only"]);
    }
}
