//! The setting that an experiment switches: the timer policy, or whatever the user's commands change. Restored on every way out.

use std::{os::unix::process::CommandExt, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    commands::{args::AbArgs, descendants::without_adopting, usage::refuse},
    host::{
        policy::{self, Restore},
        roots::Roots,
    },
    model::policy::Policy,
    say,
};

/// How long a command that switches may take.
const SWITCH_TIME: Duration = Duration::from_secs(30);

/// Names of both settings, A first, and what switches to each: a policy's name, or a command.
pub(super) fn settings(args: &AbArgs) -> Result<([String; 2], [String; 2])> {
    if let [a, b] = args.arm.as_slice() {
        return Ok(([a.name.clone(), b.name.clone()], [a.command.clone(), b.command.clone()]));
    }
    if !args.arm.is_empty() {
        let number = args.arm.len();
        return refuse(format!("--arm: needs two settings, and not {number}: --arm 'A=COMMAND' --arm 'B=COMMAND'"));
    }
    let [a, b] = args.policies.as_slice() else {
        let given: Vec<_> = args.policies.iter().map(|policy| policy.name()).collect();
        return refuse(format!("--policies {}: needs two policies, e.g. soft,hard", given.join(",")));
    };
    let names = [a, b].map(|policy| policy.name().to_owned());
    Ok((names.clone(), names))
}

/// Fails if this host has no policy that can be switched, and policies are compared.
pub(super) fn ensure_switchable(args: &AbArgs) -> Result<()> {
    if !args.arm.is_empty() {
        return Ok(());
    }
    policy::check_switchable()
        .context("--policies (other settings can be compared by --arm 'A=COMMAND' --arm 'B=COMMAND')")
}

/// The policy of a setting's name.
fn named_policy(name: &str) -> Result<Policy> {
    Policy::parse(name).with_context(|| format!("--policies {name}: is neither soft nor hard"))
}

/// Switches between the settings; dropping it restores the setting from before.
pub(super) enum Switch {
    Policy(Restore),
    Commands(Commands),
}

/// Settings that the user's commands switch between. The setting from before is unknown: A's command restores unless --restore is
/// given.
pub(super) struct Commands {
    restore: String,
    done: bool,
}

impl Switch {
    /// Switches for the first time.
    pub(super) fn new(args: &AbArgs, to: &str) -> Result<Self> {
        let Some(first) = args.arm.first() else { return Ok(Self::Policy(Restore::after(named_policy(to)?)?)) };
        let restore = args.restore.clone().unwrap_or_else(|| first.command.clone());
        let switch = Self::Commands(Commands { restore, done: false });
        switch.to(to)?;
        Ok(switch)
    }

    /// Switches to a setting.
    pub(super) fn to(&self, to: &str) -> Result<()> {
        match self {
            Self::Policy(restore) => restore.switch(named_policy(to)?),
            Self::Commands(_) => run(to).context("--arm: the command must succeed to compare its setting"),
        }
    }

    /// Whether the setting is still in force; taken for granted of a command's setting, which cannot be read back.
    pub(super) fn is(&self, setting: &str) -> bool {
        match self {
            Self::Policy(_) => policy::now(&Roots::default()).is_none_or(|now| now.name() == setting),
            Self::Commands(_) => true,
        }
    }

    /// Restores the setting from before.
    pub(super) fn restore(self) -> Result<()> {
        match self {
            Self::Policy(restore) => restore.restore(),
            Self::Commands(mut commands) => commands.restore(),
        }
    }
}

impl Commands {
    fn restore(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(());
        }
        run(&self.restore).context("THE SETTING WAS NOT RESTORED: restore it by hand")
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            say!("vmentry: {error:#}");
        }
    }
}

/// Runs a switching command by `sh -c` and waits for it, whatever signals come: a half-made switch could overlap the next one. The
/// terminal's Ctrl-C does not reach it, and its output goes to standard error, apart from the comparison. Processes that it leaves behind
/// belong to the setting.
fn run(command: &str) -> Result<()> {
    without_adopting(|| run_to_end(command))
}

fn run_to_end(command: &str) -> Result<()> {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(std::io::stderr()).process_group(0);
    let mut child = shell.spawn().with_context(|| format!("run sh -c '{command}'"))?;
    let started = std::time::Instant::now();
    loop {
        match child.try_wait().with_context(|| format!("wait for '{command}'"))? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("'{command}' failed ({status})"),
            None if started.elapsed() > SWITCH_TIME => {
                if let Ok(group) = libc::pid_t::try_from(child.id()) {
                    // SAFETY: kill has no memory effects; the child leads its own group and has not been waited for, so the number of
                    // the group cannot have been reused.
                    unsafe { libc::kill(-group, libc::SIGKILL) };
                }
                let _ = child.wait();
                bail!("'{command}' did not end within {} s", SWITCH_TIME.as_secs());
            }
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}
