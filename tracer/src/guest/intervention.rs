//! The ways in which user space treats a vCPU between two runs, so that its next VM entry or exit is of a certain kind.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kvm_bindings::KVM_VCPUEVENT_VALID_NMI_PENDING;
use kvm_ioctls::{VcpuExit, VcpuFd};

use super::image::INJECTED_VECTOR;
use super::{machine, vcpu};

/// Type of a task-state segment that is not in use. A VM entry demands a busy one (SDM volume 3, "Checks on Guest Segment
/// Registers"), and KVM lets user space set it.
const AVAILABLE_TASK_STATE_SEGMENT: u8 = 9;
/// The exit reason of a VM entry that failed for the guest's state.
const INVALID_GUEST_STATE: u64 = 1 << 31 | 33;

/// How user space treats a vCPU whose guest wrote the work port or the work address, or shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intervention {
    /// Run the guest on. A guest that shut down has failed.
    None,
    /// Inject an interrupt and an NMI, which makes KVM force an immediate exit at the next VM entry.
    ForceImmediateExit,
    /// Send two NMIs, so that KVM has to wait for the guest's IRET from the first.
    SendNmis,
    /// Try a VM entry with a state that the CPU refuses.
    FailEntry,
    /// Start a vCPU again that shut down.
    Restart,
}

/// VM entries that an intervention itself tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    /// How many of them ended with an exit to user space.
    pub(super) user_exits: u64,
    /// Time in KVM_RUN.
    pub(super) in_kvm_run: Duration,
}

impl Intervention {
    /// Treats a vCPU after a port write.
    pub(super) fn after_port_write(self, vcpu: &mut VcpuFd) -> Result<Entries> {
        match self {
            Self::None | Self::Restart => Ok(Entries::default()),
            Self::ForceImmediateExit => force_immediate_exit(vcpu).map(|()| Entries::default()),
            Self::SendNmis => send_nmis(vcpu).map(|()| Entries::default()),
            Self::FailEntry => fail_entry(vcpu),
        }
    }

    /// Starts vCPU `id` again after a triple fault, or fails.
    pub(super) fn after_shutdown(self, fd: &VcpuFd, id: u32) -> Result<()> {
        if self != Self::Restart {
            bail!("guest shut down (triple fault) at {}", vcpu::location(fd));
        }
        // kvm_amd resets the vCPU (shutdown_interception), so all registers are set again.
        machine::start_in_protected_mode(fd, id).context("start after a triple fault")
    }
}

/// Makes KVM force an immediate exit at the next VM entry: it injects the interrupt first and must get control back to inject
/// the NMI (kvm_check_and_inject_events, called inject_pending_event before Linux 6.1).
fn force_immediate_exit(vcpu: &mut VcpuFd) -> Result<()> {
    complete_port_write(vcpu)?;
    let mut events = vcpu.get_vcpu_events().context("get vCPU events")?;
    events.interrupt.injected = 1;
    events.interrupt.nr = INJECTED_VECTOR;
    events.interrupt.soft = 0;
    events.nmi.pending = 1;
    events.nmi.masked = 0;
    events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING;
    vcpu.set_vcpu_events(&events).context("inject interrupt and NMI")
}

/// Sends two NMIs. KVM keeps two only while none is blocked (process_nmi), as after the last iteration's.
fn send_nmis(vcpu: &mut VcpuFd) -> Result<()> {
    complete_port_write(vcpu)?;
    for _ in 0..2 {
        vcpu.nmi().context("send NMI")?;
    }
    Ok(())
}

/// Makes a VM entry fail, and sets the guest's state right again.
fn fail_entry(vcpu: &mut VcpuFd) -> Result<Entries> {
    complete_port_write(vcpu)?;
    let right = vcpu.get_sregs().context("get system registers")?;
    let mut wrong = right;
    wrong.tr.type_ = AVAILABLE_TASK_STATE_SEGMENT;
    vcpu.set_sregs(&wrong).context("set an invalid task-state segment")?;
    let start = Instant::now();
    loop {
        match vcpu.run() {
            Ok(VcpuExit::FailEntry(INVALID_GUEST_STATE, _)) => break,
            Ok(exit) => bail!("enter with an invalid task-state segment: {exit:?} instead of a failed VM entry"),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(error) => return Err(error).context("enter with an invalid task-state segment"),
        }
    }
    let in_kvm_run = start.elapsed();
    vcpu.set_sregs(&right).context("set system registers")?;
    Ok(Entries { user_exits: 1, in_kvm_run })
}

/// Lets KVM complete the OUT without a VM entry, which must not come between what follows and the guest's next instruction.
fn complete_port_write(vcpu: &mut VcpuFd) -> Result<()> {
    vcpu.set_kvm_immediate_exit(1);
    let completion = vcpu.run().map(|exit| format!("{exit:?}"));
    vcpu.set_kvm_immediate_exit(0);
    let interrupted = matches!(&completion, Err(error) if error.errno() == libc::EINTR);
    ensure!(interrupted, "complete port write: {completion:?}");
    Ok(())
}
