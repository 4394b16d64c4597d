//! Runs one vCPU until its guest is done.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::{
    KVM_INTERNAL_ERROR_DELIVERY_EV, KVM_INTERNAL_ERROR_EMULATION, KVM_INTERNAL_ERROR_SIMUL_EX,
    KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, KVM_VCPUEVENT_VALID_NMI_PENDING,
};
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::image::{END_PORT, INJECTED_VECTOR, WORK_PORT};
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
}

/// How user space handles a write to the work port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtPortWrite {
    /// Run the guest again.
    Continue,
    /// Inject an interrupt and an NMI, which makes KVM force an immediate exit at the next VM entry.
    ForceImmediateExit,
}

/// The result of one KVM_RUN.
enum RunExit {
    WorkPort,
    EndPort,
    Interrupted,
    Unexpected(String),
}

/// Runs the vCPU until its guest writes the end port, or until `stop` is set and a signal interrupts KVM_RUN.
/// Any exit other than a write to one of the two ports is an error that names the RIP.
pub(crate) fn run_to_end(vcpu: &mut VcpuFd, at_port_write: AtPortWrite, stop: &AtomicBool) -> Result<End> {
    let (start, cpu_before) = (Instant::now(), thread_cpu_ns());
    let mut user_exits = 0;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Ok(End::Stopped { location: location(vcpu) });
        }
        match run_once(vcpu)? {
            RunExit::Interrupted => continue,
            RunExit::Unexpected(exit) => bail!("{exit} at {}", location(vcpu)),
            RunExit::WorkPort => {
                user_exits += 1;
                if at_port_write == AtPortWrite::ForceImmediateExit {
                    force_immediate_exit(vcpu)?;
                }
            }
            RunExit::EndPort => {
                let run_ns = u64::try_from(start.elapsed().as_nanos())?;
                let cpu_ns = thread_cpu_ns() - cpu_before;
                return Ok(End::Done(RunTotals { user_exits: user_exits + 1, run_ns, cpu_ns }));
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
        VcpuExit::Shutdown => "guest shut down (triple fault)".into(),
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

/// Makes KVM force an immediate exit at the next VM entry: it injects the interrupt first and must get control back to inject
/// the NMI (kvm_check_and_inject_events, called inject_pending_event before Linux 6.1).
fn force_immediate_exit(vcpu: &mut VcpuFd) -> Result<()> {
    // Complete the OUT first: its completion must not come between the injection and the VM entry.
    vcpu.set_kvm_immediate_exit(1);
    let completion = vcpu.run().map(|exit| format!("{exit:?}"));
    vcpu.set_kvm_immediate_exit(0);
    let interrupted = matches!(&completion, Err(error) if error.errno() == libc::EINTR);
    ensure!(interrupted, "complete port write: {completion:?}");

    let mut events = vcpu.get_vcpu_events().context("get vCPU events")?;
    events.interrupt.injected = 1;
    events.interrupt.nr = INJECTED_VECTOR;
    events.interrupt.soft = 0;
    events.nmi.pending = 1;
    events.nmi.masked = 0;
    events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING;
    vcpu.set_vcpu_events(&events).context("inject interrupt and NMI")
}

fn location(vcpu: &VcpuFd) -> String {
    match vcpu.get_regs() {
        Ok(regs) => format!("RIP {:#x}", regs.rip),
        Err(error) => format!("an unknown RIP ({error})"),
    }
}
