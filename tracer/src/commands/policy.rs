//! `vmentry policy`: shows the timer policy, sets it, or sets it while a command runs.

use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::{
    commands::{
        args::PolicyArgs,
        child::{Endings, GRACE, command_code, end, exit_of, refuse_unknown, signal_code, start},
        session::runtime,
        user::User,
    },
    host::{facts, policy::Switch},
    model::policy::Policy,
    output, say,
};

/// Shows or sets the policy, or sets it while a command runs.
pub(super) fn run(args: &PolicyArgs) -> Result<ExitCode> {
    let Some(policy) = args.policy else {
        return show().map(|()| ExitCode::SUCCESS);
    };
    refuse_unknown(&args.command)?;
    let user = args.user.as_deref().map(User::find).transpose()?;
    let switch = Switch::of_host();
    if args.command.is_empty() {
        let before = switch.set_to_stay(policy)?;
        output::print(&format!("{} -> {}\n", before.name(), policy.name()))?;
        return Ok(ExitCode::SUCCESS);
    }
    runtime()?.block_on(async {
        // Before the switch: from here on a signal cannot kill this process between switching and restoring.
        let mut endings = Endings::new()?;
        let restore = switch.set_temporarily(policy)?;
        let mut child = start(&args.command, user, Stdio::inherit())?;
        let (code, signal) = tokio::select! {
            status = exit_of(&mut child) => (command_code(status.context("wait for the command")?), None),
            signal = endings.next() => {
                // The command may be a recorder that gives its own command time to end.
                end(&mut child, 5 * GRACE).await;
                (signal_code(signal), Some(signal))
            }
        };
        let before = restore.before().name();
        restore.restore()?;
        if let Some(signal) = signal {
            say!("ended by {signal}; policy {before} restored");
        }
        Ok(code)
    })
}

fn show() -> Result<()> {
    let facts = facts::gather(false);
    let note = match facts.policy {
        Policy::Unknown => match (&facts.module_without_btf, &facts.no_vendor) {
            (Some(why), _) => why,
            (None, Some(none)) => &none.why,
            (None, None) => "kvm_intel does not run the VMs, or does not show its policy",
        },
        Policy::Off => "KVM does not use the preemption timer (preemption_timer=N)",
        _ if facts.companion_patch => "switchable: vmentry policy soft|hard",
        _ => "not switchable: no companion patch ('vmentry help pin-controls')",
    };
    output::print(&format!("{}\n", facts.policy.name()))?;
    say!("{note}");
    Ok(())
}
