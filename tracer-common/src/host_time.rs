//! The split of a round's host time: what the vCPU's thread spent in user space, polling, halted and waiting for a CPU. The rest is the
//! kernel's work on the exit.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::low32;

/// Parts of a round's host time, ns. Their sum is at most the host time; the kernel's part is the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Phases {
    /// from the first return of KVM_RUN to kvm_entry, without what the other parts have of it. The way back into KVM_RUN is in it
    pub user_ns: u64,
    /// halted in the kernel, without the wait for a CPU after the wake-up
    pub idle_ns: u64,
    /// halt polling; saturates at `u32::MAX`
    pub polled_ns: u32,
    /// the thread was runnable and waited for a CPU; saturates at `u32::MAX`
    pub steal_ns: u32,
}

impl Phases {
    /// Sum of the parts, ns.
    #[must_use]
    #[inline]
    pub const fn sum_ns(&self) -> u64 {
        self.user_ns
            .saturating_add(self.idle_ns)
            .saturating_add(self.polled_ns as u64)
            .saturating_add(self.steal_ns as u64)
    }
}

/// Running sums of a vCPU and of the thread that runs it, or what they grew by, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// `stat.generic.halt_poll_success_ns + halt_poll_fail_ns`
    pub polled_ns: u64,
    /// `stat.generic.halt_wait_ns`: halted, until the thread runs again
    pub waited_ns: u64,
    /// `sched_info.run_delay` of the thread: on a run queue, without a CPU
    pub delayed_ns: u64,
}

/// Parts of a round's host time before they are held against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// halt polling, ns
    pub polled_ns: u64,
    /// halted without the wait for a CPU, ns
    pub idle_ns: u64,
    /// waiting for a CPU, ns
    pub steal_ns: u64,
    /// of these, how much lies after the first return of KVM_RUN, ns
    pub after_return_ns: u64,
}

impl Parts {
    /// From the growth of the sums until the first return of KVM_RUN and after it; all is until then where KVM_RUN did not return.
    ///
    /// A halt ends with a wait for a CPU, which KVM counts as a part of the halt. A wait for a CPU is therefore taken to be the one after a
    /// halt, as far as there was a halt.
    #[must_use]
    #[inline(always)]
    pub const fn of(until: Sums, after: Sums) -> Self {
        let idle_after = after.waited_ns.saturating_sub(after.delayed_ns);
        let steal_ns = until.delayed_ns.wrapping_add(after.delayed_ns);
        Self {
            polled_ns: until.polled_ns.wrapping_add(after.polled_ns),
            idle_ns: until.waited_ns.saturating_sub(until.delayed_ns).wrapping_add(idle_after),
            steal_ns,
            after_return_ns: after.polled_ns.wrapping_add(idle_after).wrapping_add(after.delayed_ns),
        }
    }

    /// The parts of a host time, and whether they had to be cut, because they add up to more: KVM, the scheduler and the programs do not read
    /// one clock. `since_return_ns` is the time from the first return of KVM_RUN to kvm_entry, 0 where it did not return.
    #[must_use]
    #[inline(always)]
    pub const fn within(self, host_ns: u64, since_return_ns: u64) -> (Phases, bool) {
        let wanted = [
            low32_saturating(self.steal_ns),
            low32_saturating(self.polled_ns),
            self.idle_ns,
            since_return_ns.saturating_sub(self.after_return_ns),
        ];
        let steal = least(wanted[0], host_ns);
        let left = host_ns - steal;
        let polled = least(wanted[1], left);
        let left = left - polled;
        let idle = least(wanted[2], left);
        let left = left - idle;
        let user = least(wanted[3], left);
        let is_cut = steal != self.steal_ns || polled != self.polled_ns || idle != self.idle_ns || user != wanted[3];
        (Phases { user_ns: user, idle_ns: idle, polled_ns: low32(polled), steal_ns: low32(steal) }, is_cut)
    }
}

#[inline(always)]
const fn least(a: u64, b: u64) -> u64 {
    if a < b { a } else { b }
}

#[inline(always)]
const fn low32_saturating(ns: u64) -> u64 {
    least(ns, u32::MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(polled_ns: u64, waited_ns: u64, delayed_ns: u64) -> Sums {
        Sums { polled_ns, waited_ns, delayed_ns }
    }

    fn phases(user_ns: u64, idle_ns: u64, polled_ns: u32, steal_ns: u32) -> Phases {
        Phases { user_ns, idle_ns, polled_ns, steal_ns }
    }

    #[test]
    fn a_halt_is_polling_idleness_and_the_wait_for_a_cpu_after_it() {
        let halt = Parts::of(sums(200, 1000, 30), Sums::default());
        assert_eq!(halt.within(1500, 0), (phases(0, 970, 200, 30), false));
        // The thread waited longer than KVM halted: the rest was before or after.
        assert_eq!(Parts::of(sums(0, 20, 50), Sums::default()).within(100, 0), (phases(0, 0, 0, 50), false));
    }

    #[test]
    fn user_time_is_what_follows_the_first_return_without_halts_and_waits() {
        let none = Parts::of(Sums::default(), Sums::default());
        assert_eq!(none.within(1000, 600), (phases(600, 0, 0, 0), false));
        // 100 of a halt before the return, then 50 of a halt and 20 + 5 of waiting after it.
        let both = Parts::of(sums(0, 100, 0), sums(10, 50, 25));
        assert_eq!(both.within(1000, 600), (phases(600 - 10 - 50, 125, 10, 25), false));
    }

    #[test]
    fn parts_never_add_up_to_more_than_the_host_time_and_what_was_cut_is_said() {
        for host_ns in [0, 1, 40, 100, 119] {
            let (cut, is_cut) = Parts::of(sums(20, 70, 30), Sums::default()).within(host_ns, 50);
            assert!(is_cut && cut.sum_ns() == host_ns, "{host_ns}: {cut:?}");
        }
        let (whole, is_cut) = Parts::of(sums(20, 70, 30), Sums::default()).within(140, 50);
        assert_eq!((whole.sum_ns(), is_cut), (140, false));
        let (long, is_cut) = Parts::of(sums(0, 0, 1 << 33), Sums::default()).within(1 << 34, 0);
        assert_eq!((long, is_cut), (phases(0, 0, 0, u32::MAX), true));
    }
}
