//! The one event: a VM entry, complete when its kvm_exit has come.

use core::ops::{BitOr, BitOrAssign};

use crate::{
    Isa,
    rules::{TimerCause, Writes},
};

/// What is known about an event, and its yes/no facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Flags(pub u16);

impl Flags {
    /// nothing known
    pub const NONE: Flags = Flags(0);
    /// `level` was determined
    pub const LEVEL_KNOWN: Flags = Flags(1);
    /// the entry was into L2; only with LEVEL_KNOWN
    pub const L2: Flags = Flags(1 << 1);
    /// KVM's wish for an immediate exit was determined
    pub const IMMEDIATE_KNOWN: Flags = Flags(1 << 2);
    /// KVM forced an immediate exit: no guest instruction ran; only with IMMEDIATE_KNOWN
    pub const IMMEDIATE: Flags = Flags(1 << 3);
    /// the timer's soft-disabled state was read (done at preemption-timer exits only)
    pub const SOFT_KNOWN: Flags = Flags(1 << 4);
    /// the timer was soft-disabled; only with SOFT_KNOWN
    pub const SOFT_DISABLED: Flags = Flags(1 << 5);
    /// `pin_entry` and `pin_exit` were read
    pub const PIN_READ: Flags = Flags(1 << 6);
    /// `pin_writes` is known
    pub const PIN_WRITES_KNOWN: Flags = Flags(1 << 7);
    /// `exit_reason` was read
    pub const REASON_KNOWN: Flags = Flags(1 << 8);
    /// `writes` is exact and complete, and `pin_writes` comes from it: the companion patch told
    pub const WRITES_EXACT: Flags = Flags(1 << 9);
    /// `shadow_pin_writes` is known
    pub const SHADOW_KNOWN: Flags = Flags(1 << 10);
    /// `transition_ns` is known: the companion patch's stopwatch ran
    pub const TRANSITION_KNOWN: Flags = Flags(1 << 11);

    /// True when every flag of `other` is set.
    #[must_use]
    #[inline(always)]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Flags {
    type Output = Flags;
    #[inline(always)]
    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    #[inline(always)]
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

/// One VM entry. Clocks are CLOCK_MONOTONIC in ns, as `bpf_ktime_get_ns` gives it. A record is the first [`Event::SHORT`] bytes of it, a
/// cache line, or, where details are asked for, the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// when the program on kvm_entry ended: the program's own time counts as the host's
    pub entry_ns: u64,
    /// when the program on kvm_exit began; `exit_ns - entry_ns` is `entry_to_exit_ns`
    pub exit_ns: u64,
    /// ns from this vCPU's previous kvm_exit to this kvm_entry, halts included: the host's handling of the previous
    /// exit, which `previous` describes; [`Event::UNKNOWN_NS`] for the first entry seen of a vCPU
    pub exit_to_entry_ns: u64,
    /// address of `struct kvm`: tells VMs of one process apart; never written to a file
    pub kvm: u64,
    /// KVM's number of the vCPU
    pub vcpu: u32,
    /// process of the VMM
    pub tgid: u32,
    /// VMX: the full 32-bit exit reason, bit 31 set for a failed VM entry; SVM: the exit code; valid with
    /// REASON_KNOWN
    pub exit_reason: u32,
    /// what of all this is known
    pub flags: Flags,
    /// pin-control writes to this VMCS since the previous kvm_exit (of this VMCS, when nested), from the best source there is;
    /// valid with PIN_WRITES_KNOWN
    pub pin_writes: u8,
    /// [`Isa`] as a number
    pub isa: u8,
    /// the exit that `exit_to_entry_ns` handled; all zero where that is unknown
    pub previous: Outline,
    /// number of this round on its CPU, from 1: gaps are records that were dropped
    pub seq: u64,
    /// writes to the controls of this VMCS as the companion patch told them, lanes of [`CONTROLS`](crate::rules::CONTROLS); valid
    /// with WRITES_EXACT
    pub writes: Writes,
    /// ns from right before the VM entry to right after the VM exit without what the guest ran, by the companion patch's stopwatch;
    /// stays at `u32::MAX`; valid with TRANSITION_KNOWN
    pub transition_ns: u32,
    /// pin-control writes by the shadow method: 0, 1 or 2; valid with SHADOW_KNOWN
    pub shadow_pin_writes: u32,
    /// thread of the vCPU; 0 in a short record
    pub tid: u32,
    /// CPU of the kvm_exit; in a short record 0, for its ring tells
    pub cpu: u32,
    /// shadow of the pin controls at kvm_entry; valid with PIN_READ, 0 in a short record
    pub pin_entry: u32,
    /// shadow of the pin controls at kvm_exit; valid with PIN_READ, 0 in a short record
    pub pin_exit: u32,
}

/// A VM entry of the calibration guest, with the stamps that it left in its registers (`tracer/src/guest/calibration.S`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StampedEvent {
    /// the entry
    pub event: Event,
    /// R8: guest TSC at its first instruction after a VM entry; of an earlier entry where an interrupt of the host came first
    pub entry_tsc: u64,
    /// R9: low half of the guest TSC at its last stamp before a VM exit
    pub exit_tsc: u64,
    /// R10: number of the exit that the guest was about to cause, from 1
    pub number: u64,
    /// R11: what the guest was doing
    pub mark: u64,
    /// shadow of the primary execution controls at kvm_entry; 0 where there is none
    pub exec_entry: u32,
    /// the same at kvm_exit
    pub exec_exit: u32,
}

/// What tells apart how one round went: one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Outline {
    /// as [`Event::exit_reason`]
    pub exit_reason: u32,
    /// as [`Event::flags`]
    pub flags: Flags,
    /// as [`Event::pin_writes`]
    pub pin_writes: u8,
    /// as [`Event::isa`]
    pub isa: u8,
}

impl Event {
    /// Bytes of a whole event.
    pub const SIZE: usize = 96;

    /// Bytes of a short record.
    pub const SHORT: usize = core::mem::offset_of!(Event, writes);

    /// Where a record has `seq`, which is written last.
    pub const NUMBER_AT: usize = core::mem::offset_of!(Event, seq);

    /// `exit_to_entry_ns` of an entry whose previous exit was not seen.
    pub const UNKNOWN_NS: u64 = u64::MAX;

    /// Decodes a record; none when its length is neither [`Event::SHORT`] nor [`Event::SIZE`], or its clocks run backwards.
    #[must_use]
    #[inline]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<{ Self::SHORT }>()?;
        let (u64_at, u32_at) = (|at| u64_at(head, at), |at| u32_at(head, at));
        let mut event = Self {
            entry_ns: u64_at(0),
            exit_ns: u64_at(8),
            exit_to_entry_ns: u64_at(16),
            kvm: u64_at(24),
            vcpu: u32_at(32),
            tgid: u32_at(36),
            exit_reason: u32_at(40),
            flags: Flags(u16::from_ne_bytes([head[44], head[45]])),
            pin_writes: head[46],
            isa: head[47],
            previous: Outline {
                exit_reason: u32_at(48),
                flags: Flags(u16::from_ne_bytes([head[52], head[53]])),
                pin_writes: head[54],
                isa: head[55],
            },
            seq: u64_at(56),
            // What a short record leaves out is what the other source of pin writes would say.
            shadow_pin_writes: head[46].into(),
            ..Self::default()
        };
        if let Some(tail) = tail.as_array::<{ Self::SIZE - Self::SHORT }>() {
            event.writes = Writes(self::u64_at(tail, 0));
            event.transition_ns = self::u32_at(tail, 8);
            event.shadow_pin_writes = self::u32_at(tail, 12);
            event.tid = self::u32_at(tail, 16);
            event.cpu = self::u32_at(tail, 20);
            event.pin_entry = self::u32_at(tail, 24);
            event.pin_exit = self::u32_at(tail, 28);
        } else if !tail.is_empty() {
            return None;
        }
        (event.exit_ns >= event.entry_ns && event.seq > 0).then_some(event)
    }

    /// ns between kvm_entry and kvm_exit: timer writes, VM entry, guest and VM exit.
    #[must_use]
    pub fn entry_to_exit_ns(&self) -> u64 {
        self.exit_ns - self.entry_ns
    }

    /// Pin-control writes by the shadow method, where they are known.
    #[must_use]
    pub fn known_shadow_pin_writes(&self) -> Option<u64> {
        self.flags.has(Flags::SHADOW_KNOWN).then_some(u64::from(self.shadow_pin_writes))
    }

    /// ns of VM entry and VM exit without guest time, where they can be known: from the stopwatch; or, without it, the whole of
    /// an entry that KVM forced to exit at once, which runs no guest instruction (but contains what KVM does around both).
    #[must_use]
    pub fn known_transition_ns(&self) -> Option<u64> {
        if self.flags.has(Flags::TRANSITION_KNOWN) {
            return Some(u64::from(self.transition_ns));
        }
        (self.outline().timer_cause() == Some(TimerCause::Immediate)).then(|| self.entry_to_exit_ns())
    }

    /// Writes to all controls, where the companion patch told them.
    #[must_use]
    pub fn exact_writes(&self) -> Option<Writes> {
        self.flags.has(Flags::WRITES_EXACT).then_some(self.writes)
    }

    /// How this round went.
    #[must_use]
    #[inline(always)]
    pub const fn outline(&self) -> Outline {
        Outline { exit_reason: self.exit_reason, flags: self.flags, pin_writes: self.pin_writes, isa: self.isa }
    }
}

impl Outline {
    /// Whose exit reason it is.
    #[must_use]
    pub fn isa(&self) -> Isa {
        Isa::from_raw(u32::from(self.isa))
    }

    /// The exit reason, where it was read.
    #[must_use]
    pub fn reason(&self) -> Option<u32> {
        self.flags.has(Flags::REASON_KNOWN).then_some(self.exit_reason)
    }

    /// Pin-control writes, where they are known.
    #[must_use]
    pub fn known_pin_writes(&self) -> Option<u8> {
        self.flags.has(Flags::PIN_WRITES_KNOWN).then_some(self.pin_writes)
    }

    /// True for L2, false for L1, none where it could not be told.
    #[must_use]
    pub fn is_l2(&self) -> Option<bool> {
        self.known(Flags::LEVEL_KNOWN, Flags::L2)
    }

    /// Cause of a preemption-timer exit; none for every other exit.
    #[must_use]
    pub fn timer_cause(&self) -> Option<TimerCause> {
        let timer = self.isa() == Isa::Vmx && self.reason().is_some_and(|r| r & 0xffff == crate::VMX_PREEMPTION_TIMER);
        timer.then(|| {
            TimerCause::of(
                self.known(Flags::SOFT_KNOWN, Flags::SOFT_DISABLED),
                self.known(Flags::IMMEDIATE_KNOWN, Flags::IMMEDIATE),
            )
        })
    }

    fn known(&self, known: Flags, fact: Flags) -> Option<bool> {
        self.flags.has(known).then(|| self.flags.has(fact))
    }
}

impl StampedEvent {
    /// Bytes of a record: neither more nor less is a stamped event.
    pub const SIZE: usize = Event::SIZE + 40;

    /// Decodes a record; none when its length is not [`StampedEvent::SIZE`] or its event is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::SIZE {
            return None;
        }
        let (event, stamps) = bytes.split_at(Event::SIZE);
        Some(Self {
            event: Event::decode(event)?,
            entry_tsc: u64_at(stamps, 0),
            exit_tsc: u64_at(stamps, 8),
            number: u64_at(stamps, 16),
            mark: u64_at(stamps, 24),
            exec_entry: u32_at(stamps, 32),
            exec_exit: u32_at(stamps, 36),
        })
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut w = [0; 8];
    w.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(w)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut w = [0; 4];
    w.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(w)
}

const _: () = assert!(size_of::<Event>() == Event::SIZE && Event::SHORT == 64);
const _: () = assert!(size_of::<StampedEvent>() == StampedEvent::SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(event: &Event) -> [u8; Event::SIZE] {
        // SAFETY: Event is repr(C) without padding (its fields add up to SIZE, asserted above).
        unsafe { core::mem::transmute(*event) }
    }

    fn sample() -> Event {
        Event {
            entry_ns: 0x0102_0304_0506_0708,
            exit_ns: 0x1112_1314_1516_1718,
            exit_to_entry_ns: 0x2122_2324_2526_2728,
            kvm: 0x3132_3334_3536_3738,
            seq: 0x4142_4344_4546_4748,
            exit_reason: 0x5152_5354,
            tgid: 0x6162_6364,
            tid: 0x7172_7374,
            vcpu: 0x8182_8384,
            pin_entry: 0x9192_9394,
            pin_exit: 0xa1a2_a3a4,
            cpu: 0xb1b2_b3b4,
            flags: Flags(0xc1c2),
            isa: 1,
            pin_writes: 2,
            previous: Outline { exit_reason: 0xd1d2_d3d4, flags: Flags(0xe1e2), pin_writes: 1, isa: 2 },
            writes: Writes(0xf1f2_f3f4_f5f6_f7f8),
            transition_ns: 0x0f1f_2f3f,
            shadow_pin_writes: 0x4f5f_6f7f,
        }
    }

    #[test]
    fn a_decoded_stamped_event_is_the_one_that_the_kernel_wrote() {
        let stamped = StampedEvent {
            event: sample(),
            entry_tsc: 0x0102_0304_0506_0708,
            exit_tsc: 0x1112_1314_1516_1718,
            number: 0x2122_2324_2526_2728,
            mark: 0x3132_3334_3536_3738,
            exec_entry: 0x4142_4344,
            exec_exit: 0x5152_5354,
        };
        // SAFETY: as in bytes_of.
        let bytes: [u8; StampedEvent::SIZE] = unsafe { core::mem::transmute(stamped) };
        assert_eq!(StampedEvent::decode(&bytes), Some(stamped));
        assert_eq!(StampedEvent::decode(&bytes[..Event::SIZE]), None);
        assert_eq!(Event::decode(&bytes), None);
    }

    #[test]
    fn a_transition_is_the_stopwatchs_or_that_of_an_immediate_exit() {
        let immediate = Flags::REASON_KNOWN | Flags::SOFT_KNOWN | Flags::IMMEDIATE_KNOWN | Flags::IMMEDIATE;
        let event = Event { exit_reason: 52, flags: immediate, entry_ns: 100, exit_ns: 400, ..sample() };
        assert_eq!(event.known_transition_ns(), Some(300));
        let timed = Event { flags: immediate | Flags::TRANSITION_KNOWN, transition_ns: 200, ..event };
        assert_eq!(timed.known_transition_ns(), Some(200));
        // Asked to exit at once, but something else came first: the guest may have run.
        assert_eq!(Event { exit_reason: 1, ..event }.known_transition_ns(), None);
    }

    #[test]
    fn a_decoded_event_is_the_event_that_the_kernel_wrote() {
        assert_eq!(Event::decode(&bytes_of(&sample())), Some(sample()));
    }

    #[test]
    fn a_short_record_is_an_event_without_its_details() {
        let short = Event {
            writes: Writes(0),
            transition_ns: 0,
            shadow_pin_writes: sample().pin_writes.into(),
            tid: 0,
            cpu: 0,
            pin_entry: 0,
            pin_exit: 0,
            ..sample()
        };
        assert_eq!(Event::decode(&bytes_of(&sample())[..Event::SHORT]), Some(short));
    }

    #[test]
    fn any_other_length_is_no_event() {
        let bytes = bytes_of(&sample());
        assert_eq!(Event::decode(&bytes[..Event::SIZE - 1]), None);
        assert_eq!(Event::decode(&bytes[..Event::SHORT - 1]), None);
        assert_eq!(Event::decode(&bytes[..Event::SHORT + 1]), None);
        let mut longer = [0; Event::SIZE + 1];
        longer[..Event::SIZE].copy_from_slice(&bytes);
        assert_eq!(Event::decode(&longer), None);
        assert_eq!(Event::decode(&[]), None);
    }

    #[test]
    fn a_clock_that_runs_backwards_is_no_event() {
        let event = Event { exit_ns: 4, entry_ns: 5, ..sample() };
        assert_eq!(Event::decode(&bytes_of(&event)), None);
    }

    #[test]
    fn only_vmx_reason_52_has_a_timer_cause() {
        let timer = Event {
            exit_reason: 52,
            flags: Flags::REASON_KNOWN | Flags::SOFT_KNOWN | Flags::IMMEDIATE_KNOWN,
            ..sample()
        };
        assert_eq!(timer.outline().timer_cause(), Some(TimerCause::Deadline));
        assert_eq!(Event { isa: Isa::Svm as u8, ..timer }.outline().timer_cause(), None);
        assert_eq!(Event { exit_reason: 10, ..timer }.outline().timer_cause(), None);
        assert_eq!(Event { flags: Flags::IMMEDIATE_KNOWN, ..timer }.outline().timer_cause(), None);
    }
}
