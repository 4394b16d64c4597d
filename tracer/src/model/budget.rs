//! Where the time of vCPUs went: exact sums of guest time, host time, and the parts of the host time.

use tracer_common::{Event, in_kernel_series::TimeSums};

use crate::model::{figures::Figure, series::Series, totals::add};

/// A part of the host time. Together they are the host time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// KVM's work on the exit, and what no other part has
    Kernel,
    /// KVM_RUN had returned: the VMM's work, with the way back into KVM_RUN
    User,
    /// halt polling
    Polled,
    /// halted in the kernel
    Idle,
    /// runnable, and waiting for a CPU
    Steal,
}

impl Phase {
    /// Each one.
    pub const ALL: [Self; 5] = [Self::Kernel, Self::User, Self::Polled, Self::Idle, Self::Steal];

    /// Name in reports and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::User => "user",
            Self::Polled => "polled",
            Self::Idle => "idle",
            Self::Steal => "steal",
        }
    }

    /// From its name with the unit: "steal_ns".
    pub(crate) fn of_ns(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| name.strip_suffix("_ns") == Some(phase.name()))
    }

    /// Its part of an event's host time, ns; none where the previous exit was not seen.
    pub(crate) fn of_event(self, event: &Event) -> Option<u64> {
        let kernel_ns = event.kernel_ns()?;
        Some(match self {
            Self::Kernel => kernel_ns,
            Self::User => event.phases.user_ns,
            Self::Polled => event.phases.polled_ns.into(),
            Self::Idle => event.phases.idle_ns,
            Self::Steal => event.phases.steal_ns.into(),
        })
    }

    /// What it contains, in a line.
    pub const fn help(self) -> &'static str {
        match self {
            Self::Kernel => "KVM's work on exits, and what no other part has",
            Self::User => "from the return of KVM_RUN to the next kvm_entry: the VMM's work",
            Self::Polled => "halt polling: the guest halted, and KVM looked for its wake-up without giving up the CPU",
            Self::Idle => "the guest halted, and the thread slept",
            Self::Steal => "the vCPU's thread was runnable and waited for a CPU",
        }
    }
}

/// Sums of the times of some entries, ns. They end at 2^64 - 1, which is 584 years of vCPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// guest time
    pub guest_ns: u64,
    /// host time
    pub host_ns: u64,
    /// of the host time: [`Phase::User`]
    pub user_ns: u64,
    /// of the host time: [`Phase::Polled`]
    pub polled_ns: u64,
    /// of the host time: [`Phase::Idle`]
    pub idle_ns: u64,
    /// of the host time: [`Phase::Steal`]
    pub steal_ns: u64,
}

impl Budget {
    /// Adds the guest time of an event.
    #[inline]
    pub(crate) fn add_guest_time(&mut self, event: &Event) {
        add(&mut self.guest_ns, event.entry_to_exit_ns());
    }

    /// Adds the host time of an event and its parts; nothing where it is not known.
    #[inline]
    pub(crate) fn add_host_time(&mut self, event: &Event) {
        if event.exit_to_entry_ns == Event::UNKNOWN_NS {
            return;
        }
        let phases = event.phases;
        add(&mut self.host_ns, event.exit_to_entry_ns);
        add(&mut self.user_ns, phases.user_ns);
        add(&mut self.polled_ns, phases.polled_ns.into());
        add(&mut self.idle_ns, phases.idle_ns);
        add(&mut self.steal_ns, phases.steal_ns.into());
    }

    /// Adds another's sums.
    pub fn merge(&mut self, other: &Self) {
        add(&mut self.guest_ns, other.guest_ns);
        add(&mut self.host_ns, other.host_ns);
        add(&mut self.user_ns, other.user_ns);
        add(&mut self.polled_ns, other.polled_ns);
        add(&mut self.idle_ns, other.idle_ns);
        add(&mut self.steal_ns, other.steal_ns);
    }

    /// Sum of a part of the host time, ns.
    pub fn of(&self, phase: Phase) -> u64 {
        match phase {
            Phase::Kernel => self.host_ns.saturating_sub(self.named_ns()),
            Phase::User => self.user_ns,
            Phase::Polled => self.polled_ns,
            Phase::Idle => self.idle_ns,
            Phase::Steal => self.steal_ns,
        }
    }

    /// Leaves a part of the host time to [`Phase::Kernel`], because not all of it is known.
    pub(crate) fn forget(&mut self, phase: Phase) {
        match phase {
            Phase::Kernel => {}
            Phase::User => self.user_ns = 0,
            Phase::Polled => self.polled_ns = 0,
            Phase::Idle => self.idle_ns = 0,
            Phase::Steal => self.steal_ns = 0,
        }
    }

    /// Guest and host time, ns: all that the vCPUs' time was measured.
    pub fn total_ns(&self) -> u64 {
        self.guest_ns.saturating_add(self.host_ns)
    }

    /// Sum of the parts of the host time that are not the kernel's, ns.
    pub(crate) fn named_ns(&self) -> u64 {
        [self.user_ns, self.polled_ns, self.idle_ns, self.steal_ns].into_iter().fold(0, u64::saturating_add)
    }

    /// From distributions of times, of recordings without sums: to 0.1 %, or 1.6 % where the programs counted.
    pub(crate) fn of_distributions(series: &Series) -> Self {
        let sum = |figure: Figure| {
            let terms = series[figure].buckets().map(|(low, width, n)| (low + width / 2).saturating_mul(n));
            terms.fold(0, u64::saturating_add)
        };
        Self { guest_ns: sum(Figure::EntryToExit), host_ns: sum(Figure::ExitToEntry), ..Self::default() }
    }
}

impl From<TimeSums> for Budget {
    fn from(sums: TimeSums) -> Self {
        let TimeSums { guest_ns, host_ns, user_ns, idle_ns, polled_ns, steal_ns } = sums;
        Self { guest_ns, host_ns, user_ns, polled_ns, idle_ns, steal_ns }
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::host_time::Phases;

    use super::*;
    use crate::model::interval::tests::event;

    #[test]
    fn the_parts_of_the_host_time_are_the_host_time_to_the_nanosecond() {
        let mut budget = Budget::default();
        for ns in [1000_u32, 77, 12_345] {
            let phases = Phases { user_ns: 1, idle_ns: (ns / 3).into(), polled_ns: 7, steal_ns: ns / 5 };
            let event = Event { exit_to_entry_ns: ns.into(), phases, ..event(0, 12, 50, 0) };
            budget.add_guest_time(&event);
            budget.add_host_time(&event);
        }
        budget.add_host_time(&Event { exit_to_entry_ns: Event::UNKNOWN_NS, ..event(0, 12, 50, 0) });
        assert_eq!((budget.guest_ns, budget.host_ns), (150, 13_422));
        assert_eq!(Phase::ALL.map(|phase| budget.of(phase)).iter().sum::<u64>(), 13_422);
        assert_eq!(budget.of(Phase::Steal), 200 + 15 + 2469);
        let mut twice = budget;
        twice.merge(&budget);
        assert_eq!(twice.of(Phase::Kernel), 2 * budget.of(Phase::Kernel));
    }
}
