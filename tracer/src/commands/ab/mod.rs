//! `vmentry ab`: alternates a setting of the host while its VMs run, records every window, restores the setting on every way out,
//! and compares.

mod guests;
mod live;
mod plan;
mod progress;
mod recording;
mod restore;
mod run;
mod setting;
mod sizing;
mod unknown;

use std::{path::Path, process::ExitCode};

use anyhow::{Result, ensure};

use crate::{
    collect::collector::{Attached, Collection},
    commands::{
        args::AbArgs,
        child::{Ended, Endings, command_code, default_endings, or_end, refuse_unknown, start, stdout_beside},
        comparison,
        following::follow,
        privileges,
        session::{
            command_line, header, nanoseconds, ring_bytes, runtime, selected_tgids, selected_vcpus, traceable_host,
            watch_module,
        },
        usage::refuse,
        user::User,
    },
    compare::schedule,
    host::{clock::TscMeter, facts::RunningVm, other_tracers, roots::Roots, stopwatch},
    kernel::{options::Options, tracer::Tracer},
    output,
    recording::{End, Experiment, Header},
    say,
    tui::terminal,
};
use guests::Guests;
use live::Live;
use plan::Plan;
use progress::Progress;
use recording::Recording;
use run::{Run, interruption};
use setting::{Switch, ensure_switchable, runs_commands, settings};

/// Runs the experiment and compares.
pub(super) fn run(args: &AbArgs) -> Result<ExitCode> {
    if args.restore == Some(None) {
        return restore::run(args);
    }
    if args.output == Path::new("-") {
        return refuse("-o -: standard output is for the comparison: name a file");
    }
    let (arms, switches) = settings(args)?;
    let plan = Plan::of(args)?;
    let (facts, layout) = traceable_host("record", "", false)?;
    ensure_switchable(args)?;
    refuse_unknown(&args.run.command)?;
    let user = args.run.user.as_deref().map(User::find).transpose()?;
    let tgids = selected_tgids(&args.targets)?;
    if args.run.command.is_empty() {
        let may_be_more = facts.vms_unseen.is_some() || facts.shows_host_processes == Some(false);
        ensure_vm(&facts.vms, may_be_more, tgids.as_deref())?;
    }
    let options = Options {
        ring_bytes: ring_bytes(args.ring_kib)?,
        tgids,
        vcpu_ids: selected_vcpus(&args.targets),
        stopwatch: stopwatch::start(&facts)?,
        ..Options::default()
    };
    let experiment = Experiment {
        arms,
        switches,
        window_ns: nanoseconds(args.window),
        washout_ns: nanoseconds(args.washout),
        rounds: plan.rounds,
        seed: args.seed.unwrap_or_else(seed_of_now),
        primary: plan.primary.clone(),
    };
    let command = command_line(&args.run.command, args.run.full_command);
    let mut header = header(&facts, &layout, &options, args.window, command);
    header.label = args.label.clone();
    header.experiment = Some(experiment.clone());
    if !args.no_compare {
        let sized = plan.sized(args)?;
        let unknown = unknown::unknown(&plan.primary, &header.knowledge());
        let said = [plan.design(args.warmup)].into_iter().chain(unknown).chain(sized);
        said.for_each(|text| say!("{}", terminal::fitted(&text)));
    }
    let mut tracer = Tracer::load(&layout, &options)?;
    let _following = follow(&args.targets, options.tgids.as_deref(), &mut tracer, output::say_over_progress)?;
    let code = runtime()?.block_on(attached(args, &plan, &header, &experiment, tracer, user))?;
    default_endings();
    if !args.no_compare {
        comparison::print_experiment(&args.output, args.format(), args.ignore_below)?;
    }
    Ok(code)
}

/// Fails if no VM runs that the experiment could be about. Where some may not be seen, the first round shows it.
fn ensure_vm(seen: &[RunningVm], may_be_more: bool, tgids: Option<&[u32]>) -> Result<()> {
    let is_meant = |vm: &RunningVm| tgids.is_none_or(|tgids| tgids.contains(&vm.tgid));
    let none = if tgids.is_some() { "none of these processes runs a VM" } else { "no VM is running" };
    ensure!(
        may_be_more || seen.iter().any(is_meant),
        "{none}: an experiment compares what VMs do under each setting\n  -> start a guest first, or let the command start one: \
         vmentry ab ... -- COMMAND"
    );
    Ok(())
}

/// A seed from the clock: it only has to differ from the last one.
fn seed_of_now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_micros()) + now.as_secs() % 1000 * 1_000_000
}

async fn attached(
    args: &AbArgs,
    plan: &Plan,
    header: &Header,
    experiment: &Experiment,
    tracer: Tracer,
    user: Option<User>,
) -> Result<ExitCode> {
    let tsc = TscMeter::start();
    // Before the first switch: from here on a signal cannot kill this process between switching and restoring.
    let mut endings = Endings::new()?;
    let module = watch_module(&header.host);
    let recording = Recording::new(&args.output, args.overwrite, header)?;
    let first = schedule::windows(experiment.seed, 1).next().map_or(0, |l| usize::from(l.arm));
    let switch = Switch::new(args, &experiment.switches, first, &mut endings).await?;
    let attached = Attached::new(tracer)?;
    // Before privileges are given up, so that the command has the caller's.
    let mut child = start(&args.run.command, user, stdout_beside(!args.no_compare))?;
    let collection = confined(args).and_then(|()| Collection::start(attached, None));
    let collection = or_end(&mut child, collection).await?;
    let progress = Progress::new(experiment, args.run.command.is_empty());
    let guests = Guests::default();
    let live = Live::new(plan);
    let mut run = Run { args, experiment, switch, module, collection, recording, progress, live, guests };
    // From here on an error must not return before the setting is restored and the collector has detached.
    let is_started_here = child.is_some();
    let ended = tokio::select! {
        biased;
        ended = interruption(&mut endings, &mut child) => ended,
        done = run.windows(is_started_here) => done.map(|reason| Ended { reason, status: None }),
    };
    let last_line = |accounting, reason: &str| End {
        reason: reason.into(),
        accounting,
        tsc_khz: tsc.khz(),
        policy_changed: false,
        other_tracers: Some(other_tracers::look(&Roots::default())),
    };
    let status = run.finish(ended, child, &mut endings, last_line).await?;
    Ok(status.map_or(ExitCode::SUCCESS, command_code))
}

/// Gives up what the rest of an experiment does not need; nothing where it runs the user's commands to switch, which have the caller's rights.
fn confined(args: &AbArgs) -> Result<()> {
    if runs_commands(args) {
        return Ok(());
    }
    kept(args).give_up_the_rest()
}

/// The privileges that an experiment keeps unless it runs commands.
fn kept(args: &AbArgs) -> privileges::Recording {
    privileges::Recording { uses_map: false, ends_command: !args.run.command.is_empty() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::vm_labels::VmLabels;

    #[test]
    fn an_experiment_without_a_vm_is_refused_with_the_fix_unless_some_may_not_be_seen() {
        let web = [RunningVm { name: "web1".into(), tgid: 7, labels: VmLabels::default() }];
        assert!(ensure_vm(&web, false, None).is_ok() && ensure_vm(&web, false, Some(&[5, 7])).is_ok());
        let refused = |seen: &[RunningVm], tgids| ensure_vm(seen, false, tgids).unwrap_err().to_string();
        assert!(refused(&[], None).starts_with("no VM is running: ") && refused(&[], None).contains("-- COMMAND"));
        assert!(refused(&web, Some(&[5])).starts_with("none of these processes runs a VM: "));
        assert!(ensure_vm(&[], true, None).is_ok());
    }
}
