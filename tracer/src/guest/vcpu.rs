//! Runs one vCPU until its guest is done.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kvm_bindings::{
    KVM_INTERNAL_ERROR_DELIVERY_EV, KVM_INTERNAL_ERROR_EMULATION, KVM_INTERNAL_ERROR_SIMUL_EX,
    KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::image::{END_PORT, WORK_ADDRESS, WORK_PORT};
use super::intervention::Intervention;
use super::statistics::Statistics;
use crate::host::clock::thread_cpu_ns;

/// How a vCPU's run ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// The guest wrote the end port.
    Done(RunTotals),
    /// The run was stopped from outside.
    Stopped {
        /// Location of the guest, as text.
        location: String,
    },
}

/// Exits and times of a whole run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunTotals {
    /// Exits to user space, the last one included.
    pub(crate) user_exits: u64,
    /// From the first KVM_RUN to the return of the last, in ns of CLOCK_MONOTONIC.
    pub(crate) run_ns: u64,
    /// CPU time of the thread in that time, in ns: guest, KVM and user space.
    pub(crate) cpu_ns: u64,
    /// From each return of KVM_RUN to the next call, in ns of CLOCK_MONOTONIC.
    pub(crate) user_ns: u64,
    /// KVM's and the scheduler's own sums; none where the kernel does not have them.
    pub(crate) statistics: Option<Statistics>,
}

/// The result of one KVM_RUN.
enum RunExit {
    WorkPort,
    WorkAddress,
    Shutdown,
    EndPort,
    Interrupted,
    Unexpected(String),
}

/// Runs vCPU `id` until its guest writes the end port, or until `stop` is set and a signal interrupts KVM_RUN. Any exit other
/// than a write to one of the two ports or the work address, or the intervention's own, is an error that names the RIP.
pub(crate) fn run_to_end(vcpu: &mut VcpuFd, id: u32, intervention: Intervention, stop: &AtomicBool) -> Result<End> {
    let (start, cpu_before) = (Instant::now(), thread_cpu_ns());
    let mut user_exits = 0;
    let mut user = Duration::ZERO;
    let mut returned: Option<Instant> = None;
    let mut in_interventions = Duration::ZERO;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(End::Stopped { location: location(vcpu) });
        }
        user += returned.map_or(Duration::ZERO, |at| at.elapsed()).saturating_sub(mem::take(&mut in_interventions));
        let exit = run_once(vcpu)?;
        returned = Some(Instant::now());
        match exit {
            RunExit::Interrupted => continue,
            RunExit::Unexpected(exit) => bail!("{exit} at {}", location(vcpu)),
            RunExit::WorkPort => {
                let entries = intervention.after_port_write(vcpu)?;
                user_exits += 1 + entries.user_exits;
                in_interventions += entries.in_kvm_run;
            }
            RunExit::WorkAddress => user_exits += 1,
            RunExit::Shutdown => {
                user_exits += 1;
                intervention.after_shutdown(vcpu, id)?;
            }
            RunExit::EndPort => {
                let run_ns = u64::try_from(start.elapsed().as_nanos())?;
                let cpu_ns = thread_cpu_ns() - cpu_before;
                let (user_ns, statistics) = (u64::try_from(user.as_nanos())?, Statistics::of(vcpu));
                let user_exits = user_exits + 1;
                return Ok(End::Done(RunTotals { user_exits, run_ns, cpu_ns, user_ns, statistics }));
            }
        }
    }
}

fn run_once(vcpu: &mut VcpuFd) -> Result<RunExit> {
    let exit = match vcpu.run() {
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
            return Ok(RunExit::Interrupted);
        }
        Err(error) => {
            return Err(error).with_context(|| format!("run vCPU at {}", location(vcpu)));
        }
        Ok(exit) => exit,
    };
    let unexpected = match exit {
        VcpuExit::IoOut(WORK_PORT, _) => return Ok(RunExit::WorkPort),
        VcpuExit::IoOut(END_PORT, _) => return Ok(RunExit::EndPort),
        VcpuExit::MmioWrite(address, _) if address == u64::from(WORK_ADDRESS) => return Ok(RunExit::WorkAddress),
        VcpuExit::Shutdown => return Ok(RunExit::Shutdown),
        VcpuExit::FailEntry(reason, cpu) => {
            format!("VM entry failed with hardware reason {reason:#x} on CPU {cpu}")
        }
        VcpuExit::InternalError => internal_error(vcpu),
        VcpuExit::Unknown => {
            // SAFETY: `hw` is the union's valid field after KVM_EXIT_UNKNOWN. Its only field is an integer, for which any
            // bytes are valid.
            let reason = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.hw }.hardware_exit_reason;
            format!("exit unknown to KVM with hardware reason {reason:#x}")
        }
        other => format!("unexpected exit {other:?}"),
    };
    Ok(RunExit::Unexpected(unexpected))
}

fn internal_error(vcpu: &mut VcpuFd) -> String {
    // SAFETY: `internal` is the union's valid field after KVM_EXIT_INTERNAL_ERROR. It consists of integers, for which any
    // bytes are valid.
    let error = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal };
    let name = match error.suberror {
        KVM_INTERNAL_ERROR_EMULATION => "cannot emulate an instruction",
        KVM_INTERNAL_ERROR_SIMUL_EX => "simultaneous exceptions",
        KVM_INTERNAL_ERROR_DELIVERY_EV => "exit while an event was delivered",
        KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => "unexpected hardware exit reason",
        _ => "unknown suberror",
    };
    let count = (error.ndata as usize).min(error.data.len());
    format!("KVM internal error {} ({name}, data {:x?})", error.suberror, &error.data[..count])
}

/// The guest's RIP, as text.
pub(super) fn location(vcpu: &VcpuFd) -> String {
    match vcpu.get_regs() {
        Ok(regs) => format!("RIP {:#x}", regs.rip),
        Err(error) => format!("an unknown RIP ({error})"),
    }
}
