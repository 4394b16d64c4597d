//! The setting that an experiment switches: the timer policy, values in files of the kernel's, or whatever the user's commands change.
//! Restored on every way out.

mod commands;

use anyhow::{Context, Result, ensure};

use crate::{
    commands::{
        args::{AbArgs, Arm},
        child::Endings,
        usage::refuse,
    },
    host::{
        policy::{self, Restore},
        roots::Roots,
        setting::{Held, Kind, Setting, note},
    },
    model::{policy::Policy, suggestion::did_you_mean},
};
use commands::Commands;

/// Names of both settings, A first, and what switches to each: a policy's name, a value, or a command.
pub(super) fn settings(args: &AbArgs) -> Result<([String; 2], [String; 2])> {
    if let [a, b] = args.arm.as_slice() {
        ensure_comparable(a, b, args.restore.is_some())?;
        return Ok(([a.name.clone(), b.name.clone()], [a.switch.clone(), b.switch.clone()]));
    }
    if !args.arm.is_empty() {
        let number = args.arm.len();
        return refuse(format!(
            "--arm: needs two settings, and not {number}: --arm kvm.halt_poll_ns=0 --arm kvm.halt_poll_ns=200000, or --arm 'A=COMMAND' \
             --arm 'B=COMMAND'"
        ));
    }
    if args.restore.is_some() {
        return refuse(
            "--restore COMMAND: restores what --arm's commands switch; alone, without COMMAND, what was left behind",
        );
    }
    let [a, b] = args.policies.as_slice() else {
        let given: Vec<_> = args.policies.iter().map(|policy| policy.name()).collect();
        return refuse(format!("--policies {}: needs two policies, e.g. soft,hard", given.join(",")));
    };
    let names = [a, b].map(|policy| policy.name().to_owned());
    Ok((names.clone(), names))
}

/// Refuses arms of different settings, which would both be switched at once.
fn ensure_comparable(a: &Arm, b: &Arm, has_restore: bool) -> Result<()> {
    match (&a.kind, &b.kind) {
        (None, None) if a.name == b.name && (a.switch != b.switch || !setting_meant(a).is_empty()) => refuse(format!(
            "--arm {}: is the name of both commands: {}give each command a name of its own",
            a.name,
            setting_meant(a)
        )),
        (None, None) => Ok(()),
        (Some(_), Some(_)) if a.kind != b.kind => refuse(format!(
            "--arm {} and --arm {}: both must be values of the same setting, written alike",
            a.name, b.name
        )),
        (Some(_), Some(_)) if has_restore => {
            refuse(format!("--restore: {} restores itself: leave --restore out", a.name))
        }
        (Some(_), Some(_)) => Ok(()),
        (None, Some(_)) | (Some(_), None) => {
            let meant = if a.kind.is_none() { setting_meant(a) } else { setting_meant(b) };
            refuse(format!(
                "--arm {} and --arm {}: one is a value and one a command: {meant}write both alike",
                a.name, b.name
            ))
        }
    }
}

/// "did you mean governor? " of a command whose name is written like a setting's, before the word of a value; else empty.
fn setting_meant(arm: &Arm) -> String {
    if arm.switch.contains([' ', '/']) {
        return String::new();
    }
    match arm.name.split_once(':') {
        Some((begin, path)) => {
            let meant = did_you_mean(begin, ["cgroup"]);
            if meant.is_empty() { meant } else { format!("did you mean cgroup:{path}? ") }
        }
        None => did_you_mean(&arm.name, ["governor", "thp"]),
    }
}

/// Whether the experiment runs the user's commands to switch.
pub(super) fn runs_commands(args: &AbArgs) -> bool {
    args.arm.iter().any(|arm| arm.kind.is_none())
}

/// The setting whose values are compared, and these; none for policies and commands.
fn values(args: &AbArgs) -> Option<(&Kind, [&str; 2])> {
    let [a, b] = args.arm.as_slice() else { return None };
    Some((a.kind.as_ref()?, [&a.switch, &b.switch]))
}

/// Fails if this host has no such setting, if it could not be restored with the privileges that are left later, or if a setting is left
/// behind.
pub(super) fn ensure_switchable(args: &AbArgs) -> Result<()> {
    let roots = Roots::default();
    note::ensure_none(&roots)?;
    if let Some((kind, values)) = values(args) {
        let setting = Setting::find(&roots, kind, values).context("--arm")?;
        return super::kept(args).rehearse(|| setting.rewrite()).context("--arm");
    }
    if !args.arm.is_empty() {
        return Ok(());
    }
    policy::check_switchable().context("--policies (other settings can be compared by --arm SETTING=VALUE)")
}

/// The policy of a setting's name.
fn named_policy(name: &str) -> Result<Policy> {
    Policy::parse(name).with_context(|| format!("--policies {name}: is neither soft nor hard"))
}

/// Switches between the settings; dropping it restores the setting from before.
pub(super) enum Switch {
    Policy(Restore),
    Values(Held),
    Commands(Commands),
}

impl Switch {
    /// Switches for the first time, to the setting of number `first`.
    pub(super) async fn new(
        args: &AbArgs,
        switches: &[String; 2],
        first: usize,
        endings: &mut Endings,
    ) -> Result<Self> {
        let roots = Roots::default();
        let to = &switches[first];
        if let Some((kind, values)) = values(args) {
            let held = Setting::find(&roots, kind, values)?.hold(&roots)?;
            // A value that the kernel refuses must not come to light only in the second window.
            for value in [&switches[1 - first], to] {
                held.switch(value).context("--arm")?;
            }
            return Ok(Self::Values(held));
        }
        let Some(a) = args.arm.first() else { return Ok(Self::Policy(Restore::after(named_policy(to)?)?)) };
        let restore = args.restore.clone().flatten().unwrap_or_else(|| a.switch.clone());
        Ok(Self::Commands(Commands::begin(&roots, restore, to, endings).await?))
    }

    /// Switches to a setting. Dropped before its end, it ends the command that switches.
    pub(super) async fn to(&self, to: &str) -> Result<()> {
        match self {
            Self::Policy(restore) => restore.switch(named_policy(to)?),
            Self::Values(held) => held.switch(to),
            Self::Commands(_) => commands::switch(to).await,
        }
    }

    /// Fails if the setting is no longer in force; that of a command is taken for granted, because it cannot be read back.
    pub(super) fn ensure(&self, setting: &str) -> Result<()> {
        match self {
            Self::Policy(_) => {
                ensure!(
                    policy::now(&Roots::default()).is_none_or(|now| now.name() == setting),
                    "the policy is no longer {setting}: something else switched it during a window, which is left out"
                );
                Ok(())
            }
            Self::Values(held) => held.ensure(setting),
            Self::Commands(_) => Ok(()),
        }
    }

    /// Restores the setting from before. A signal ends a command that hangs in it.
    pub(super) async fn restore(self, endings: &mut Endings) -> Result<()> {
        match self {
            Self::Policy(restore) => restore.restore(),
            Self::Values(held) => held.restore(),
            Self::Commands(mut commands) => commands.restore(endings).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;

    use super::*;
    use crate::commands::{args::Cli, privileges::Recording};

    fn parsed(arguments: &[&str]) -> Result<([String; 2], [String; 2]), String> {
        let parsed =
            Cli::try_parse_from([&["vmentry", "ab"], arguments].concat()).map_err(|error| error.to_string())?;
        let Some(crate::commands::args::Command::Ab(args)) = parsed.command else { panic!() };
        settings(&args).map_err(|error| error.to_string())
    }

    #[test]
    fn two_values_of_one_setting_are_compared_and_named_by_their_text() {
        let (names, switches) = parsed(&["--arm", "kvm.halt_poll_ns=0", "--arm", "kvm.halt_poll_ns=5"]).unwrap();
        assert_eq!(
            (names, switches),
            (["kvm.halt_poll_ns=0", "kvm.halt_poll_ns=5"].map(Into::into), ["0", "5"].map(Into::into))
        );
        assert!(parsed(&["--arm", "thp=never", "--arm", "thp=never"]).is_ok(), "an A/A test");
        let commands = parsed(&["--arm", "a=echo 1 > /x", "--arm", "b=true", "--restore", "echo 0 > /x"]).unwrap();
        assert_eq!(commands, (["a", "b"].map(Into::into), ["echo 1 > /x", "true"].map(Into::into)));
    }

    #[test]
    fn arms_that_do_not_fit_each_other_are_refused() {
        for (arguments, why) in [
            (&["--arm", "thp=never", "--arm", "governor=powersave"][..], "the same setting"),
            (&["--arm", "thp=never", "--arm", "b=echo never > /x"], "one is a value and one a command"),
            (
                &["--arm", "governer=powersave", "--arm", "governor=performance"],
                "did you mean governor? write both alike",
            ),
            (&["--arm", "governer=powersave", "--arm", "governer=performance"], "did you mean governor? give each"),
            (&["--arm", "cgrup:a/cpu.max=1", "--arm", "cgrup:a/cpu.max=2"], "did you mean cgroup:a/cpu.max? give each"),
            (
                &["--arm", "a=echo 1 > /x", "--arm", "a=echo 2 > /x"],
                "both commands: give each command a name of its own",
            ),
            (&["--arm", "thp=never"], "needs two settings, and not 1"),
            (&["--arm", "thp=never", "--arm", "thp=always", "--restore", "true"], "restores itself"),
            (&["--restore", "true"], "alone, without COMMAND"),
            (&["--arm", "nohz=on", "--arm", "nohz=off"], "boot parameters"),
            (&["--arm", "/etc/passwd=x", "--arm", "/etc/passwd=y"], "only files below /sys and /proc/sys"),
            (&["--arm", "word"], "SETTING=VALUE"),
        ] {
            let said = parsed(arguments).unwrap_err();
            assert!(said.contains(why), "{arguments:?}: {said}");
        }
    }

    /// To be run alone, because it gives up this process's privileges for good.
    #[test]
    #[ignore = "needs root, and switches settings of this host for a moment"]
    fn real_settings_are_switched_and_restored_with_the_privileges_that_are_kept() {
        let file = |path: &str| fs::read_to_string(path).unwrap();
        let cases = [
            ("/proc/sys/kernel/hung_task_warnings", ["11", "12"], "/proc/sys/kernel/hung_task_warnings"),
            ("thp", ["always", "never"], "/sys/kernel/mm/transparent_hugepage/enabled"),
            ("printk.time", ["1", "0"], "/sys/module/printk/parameters/time"),
        ];
        let hold = |(name, values, path): (&str, [&'static str; 2], &'static str)| {
            let run = tempfile::tempdir().unwrap();
            let roots = Roots { run: run.path().to_owned(), ..Roots::default() };
            let setting = Setting::find(&roots, &Kind::parse(name, values[0]).unwrap().unwrap(), values).unwrap();
            Recording::default().rehearse(|| setting.rewrite()).unwrap();
            let before = file(path);
            let held = setting.hold(&roots).unwrap();
            held.switch(values[0]).unwrap();
            (held, values[1], path, before, run)
        };
        let all = cases.map(hold);
        Recording::default().give_up_the_rest().unwrap();
        for (held, value, path, before, _run) in all {
            held.switch(value).unwrap();
            held.ensure(value).unwrap();
            assert_ne!(file(path), before, "{path}");
            held.restore().unwrap();
            assert_eq!(file(path), before, "{path}");
        }
    }
}
