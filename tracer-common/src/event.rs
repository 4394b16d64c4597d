//! The one event: a VM entry, complete when its kvm_exit has come.

use core::{
    mem::offset_of,
    ops::{BitOr, BitOrAssign},
};

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

/// One VM entry. Clocks are CLOCK_MONOTONIC in ns, as `bpf_ktime_get_ns` gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// An event as the programs write it. A short record is what comes before `writes`, a cache line; where details are asked for, it is
/// whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// as [`Event::entry_ns`]
    pub entry_ns: u64,
    /// as [`Event::exit_ns`]
    pub exit_ns: u64,
    /// when the program on the vCPU's previous kvm_exit began; 0 where that was not seen
    pub previous_exit_ns: u64,
    /// as [`Event::kvm`]
    pub kvm: u64,
    /// [`Event::tgid`] in the high half, [`Event::vcpu`] in the low one
    pub who: u64,
    /// how the round went
    pub outline: Outline,
    /// as [`Event::previous`]
    pub previous: Outline,
    /// as [`Event::seq`]; written last
    pub seq: u64,
    /// as [`Event::writes`]
    pub writes: Writes,
    /// as [`Event::transition_ns`]
    pub transition_ns: u32,
    /// as [`Event::shadow_pin_writes`]
    pub shadow_pin_writes: u32,
    /// as [`Event::tid`]
    pub tid: u32,
    /// as [`Event::cpu`]
    pub cpu: u32,
    /// as [`Event::pin_entry`]
    pub pin_entry: u32,
    /// as [`Event::pin_exit`]
    pub pin_exit: u32,
}

/// A stamped event as the program writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct StampedRecord {
    /// the entry
    pub record: Record,
    /// as [`StampedEvent::entry_tsc`]
    pub entry_tsc: u64,
    /// as [`StampedEvent::exit_tsc`]
    pub exit_tsc: u64,
    /// as [`StampedEvent::number`]
    pub number: u64,
    /// as [`StampedEvent::mark`]
    pub mark: u64,
    /// as [`StampedEvent::exec_entry`]
    pub exec_entry: u32,
    /// as [`StampedEvent::exec_exit`]
    pub exec_exit: u32,
}

impl Record {
    /// Bytes of a whole record.
    pub const SIZE: usize = 96;

    /// Bytes of a short record.
    pub const SHORT: usize = offset_of!(Record, writes);

    /// Where a record has `seq`.
    pub const NUMBER_AT: usize = offset_of!(Record, seq);
}

impl StampedRecord {
    /// Bytes of a stamped record.
    pub const SIZE: usize = Record::SIZE + 40;
}

/// What tells apart how one round went, in one word: from its lowest bits on [`Event::exit_reason`], [`Event::flags`],
/// [`Event::pin_writes`] and [`Event::isa`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Outline(pub u64);

impl Event {
    /// `exit_to_entry_ns` of an entry whose previous exit was not seen.
    pub const UNKNOWN_NS: u64 = u64::MAX;

    /// Decodes a record; none when its length is neither [`Record::SHORT`] nor [`Record::SIZE`], or its clocks run backwards.
    #[must_use]
    #[inline]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, tail) = bytes.split_first_chunk::<{ Record::SHORT }>()?;
        let at = |at: usize| u64_at(head, at);
        let (entry_ns, previous_exit_ns) = (at(offset_of!(Record, entry_ns)), at(offset_of!(Record, previous_exit_ns)));
        let (who, outline) = (at(offset_of!(Record, who)), Outline(at(offset_of!(Record, outline))));
        let mut event = Self {
            entry_ns,
            exit_ns: at(offset_of!(Record, exit_ns)),
            exit_to_entry_ns: match previous_exit_ns {
                0 => Self::UNKNOWN_NS,
                // The clocks of two CPUs may differ by some ns.
                _ => entry_ns.saturating_sub(previous_exit_ns),
            },
            kvm: at(offset_of!(Record, kvm)),
            vcpu: who as u32,
            tgid: (who >> 32) as u32,
            exit_reason: outline.exit_reason(),
            flags: outline.flags(),
            pin_writes: outline.pin_writes(),
            isa: outline.isa_number(),
            previous: Outline(at(offset_of!(Record, previous))),
            seq: at(Record::NUMBER_AT),
            // What a short record leaves out is what the other source of pin writes would say.
            shadow_pin_writes: outline.pin_writes().into(),
            ..Self::default()
        };
        if !tail.is_empty() {
            let tail: &[u8; Record::SIZE - Record::SHORT] = tail.try_into().ok()?;
            let at = |field: usize| u32_at(tail, field - Record::SHORT);
            event.writes = Writes(u64_at(tail, 0));
            event.transition_ns = at(offset_of!(Record, transition_ns));
            event.shadow_pin_writes = at(offset_of!(Record, shadow_pin_writes));
            event.tid = at(offset_of!(Record, tid));
            event.cpu = at(offset_of!(Record, cpu));
            event.pin_entry = at(offset_of!(Record, pin_entry));
            event.pin_exit = at(offset_of!(Record, pin_exit));
        }
        (event.exit_ns >= event.entry_ns && event.seq > 0).then_some(event)
    }

    /// The whole record that would give this event, for whoever makes up records.
    #[must_use]
    pub fn encode(&self) -> [u8; Record::SIZE] {
        let mut bytes = [0; Record::SIZE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let previous_exit_ns = match self.exit_to_entry_ns {
            Self::UNKNOWN_NS => 0,
            ns => self.entry_ns.saturating_sub(ns),
        };
        put(offset_of!(Record, entry_ns), &self.entry_ns.to_ne_bytes());
        put(offset_of!(Record, exit_ns), &self.exit_ns.to_ne_bytes());
        put(offset_of!(Record, previous_exit_ns), &previous_exit_ns.to_ne_bytes());
        put(offset_of!(Record, kvm), &self.kvm.to_ne_bytes());
        put(offset_of!(Record, who), &(u64::from(self.tgid) << 32 | u64::from(self.vcpu)).to_ne_bytes());
        put(offset_of!(Record, outline), &self.outline().0.to_ne_bytes());
        put(offset_of!(Record, previous), &self.previous.0.to_ne_bytes());
        put(offset_of!(Record, seq), &self.seq.to_ne_bytes());
        put(offset_of!(Record, writes), &self.writes.0.to_ne_bytes());
        put(offset_of!(Record, transition_ns), &self.transition_ns.to_ne_bytes());
        put(offset_of!(Record, shadow_pin_writes), &self.shadow_pin_writes.to_ne_bytes());
        put(offset_of!(Record, tid), &self.tid.to_ne_bytes());
        put(offset_of!(Record, cpu), &self.cpu.to_ne_bytes());
        put(offset_of!(Record, pin_entry), &self.pin_entry.to_ne_bytes());
        put(offset_of!(Record, pin_exit), &self.pin_exit.to_ne_bytes());
        bytes
    }

    /// ns between kvm_entry and kvm_exit: timer writes, VM entry, guest and VM exit.
    #[must_use]
    #[inline]
    pub fn entry_to_exit_ns(&self) -> u64 {
        self.exit_ns - self.entry_ns
    }

    /// Pin-control writes by the shadow method, where they are known.
    #[must_use]
    #[inline]
    pub fn known_shadow_pin_writes(&self) -> Option<u64> {
        self.flags.has(Flags::SHADOW_KNOWN).then_some(u64::from(self.shadow_pin_writes))
    }

    /// ns of VM entry and VM exit without guest time, where they can be known: from the stopwatch; or, without it, the whole of
    /// an entry that KVM forced to exit at once, which runs no guest instruction (but contains what KVM does around both).
    #[must_use]
    #[inline]
    pub fn known_transition_ns(&self) -> Option<u64> {
        if self.flags.has(Flags::TRANSITION_KNOWN) {
            return Some(u64::from(self.transition_ns));
        }
        (self.outline().timer_cause() == Some(TimerCause::Immediate)).then(|| self.entry_to_exit_ns())
    }

    /// Writes to all controls, where the companion patch told them.
    #[must_use]
    #[inline]
    pub fn exact_writes(&self) -> Option<Writes> {
        self.flags.has(Flags::WRITES_EXACT).then_some(self.writes)
    }

    /// How this round went.
    #[must_use]
    #[inline(always)]
    pub const fn outline(&self) -> Outline {
        Outline::of(self.exit_reason, self.flags, self.pin_writes, self.isa)
    }
}

impl Outline {
    /// From its parts, `isa` as a number.
    #[must_use]
    #[inline(always)]
    pub const fn of(exit_reason: u32, flags: Flags, pin_writes: u8, isa: u8) -> Self {
        Self(exit_reason as u64 | (flags.0 as u64) << 32 | (pin_writes as u64) << 48 | (isa as u64) << 56)
    }

    /// As [`Event::exit_reason`].
    #[must_use]
    #[inline(always)]
    pub const fn exit_reason(self) -> u32 {
        self.0 as u32
    }

    /// As [`Event::flags`].
    #[must_use]
    #[inline(always)]
    pub const fn flags(self) -> Flags {
        Flags((self.0 >> 32) as u16)
    }

    /// As [`Event::pin_writes`].
    #[must_use]
    #[inline(always)]
    pub const fn pin_writes(self) -> u8 {
        (self.0 >> 48) as u8
    }

    /// As [`Event::isa`].
    #[must_use]
    #[inline(always)]
    pub const fn isa_number(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// Whose exit reason it is.
    #[must_use]
    #[inline]
    pub fn isa(self) -> Isa {
        Isa::from_raw(u32::from(self.isa_number()))
    }

    /// The exit reason, where it was read.
    #[must_use]
    #[inline]
    pub fn reason(self) -> Option<u32> {
        self.flags().has(Flags::REASON_KNOWN).then_some(self.exit_reason())
    }

    /// Pin-control writes, where they are known.
    #[must_use]
    #[inline]
    pub fn known_pin_writes(self) -> Option<u8> {
        self.flags().has(Flags::PIN_WRITES_KNOWN).then_some(self.pin_writes())
    }

    /// True for L2, false for L1, none where it could not be told.
    #[must_use]
    #[inline]
    pub fn is_l2(self) -> Option<bool> {
        self.known(Flags::LEVEL_KNOWN, Flags::L2)
    }

    /// Cause of a preemption-timer exit; none for every other exit.
    #[must_use]
    #[inline]
    pub fn timer_cause(self) -> Option<TimerCause> {
        let timer = self.isa() == Isa::Vmx && self.reason().is_some_and(|r| r & 0xffff == crate::VMX_PREEMPTION_TIMER);
        timer.then(|| {
            TimerCause::of(
                self.known(Flags::SOFT_KNOWN, Flags::SOFT_DISABLED),
                self.known(Flags::IMMEDIATE_KNOWN, Flags::IMMEDIATE),
            )
        })
    }

    #[inline]
    fn known(self, known: Flags, fact: Flags) -> Option<bool> {
        self.flags().has(known).then(|| self.flags().has(fact))
    }
}

impl StampedEvent {
    /// Decodes a record; none when its length is not [`StampedRecord::SIZE`] or its event is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != StampedRecord::SIZE {
            return None;
        }
        Some(Self {
            event: Event::decode(&bytes[..Record::SIZE])?,
            entry_tsc: u64_at(bytes, offset_of!(StampedRecord, entry_tsc)),
            exit_tsc: u64_at(bytes, offset_of!(StampedRecord, exit_tsc)),
            number: u64_at(bytes, offset_of!(StampedRecord, number)),
            mark: u64_at(bytes, offset_of!(StampedRecord, mark)),
            exec_entry: u32_at(bytes, offset_of!(StampedRecord, exec_entry)),
            exec_exit: u32_at(bytes, offset_of!(StampedRecord, exec_exit)),
        })
    }
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut w = [0; 8];
    w.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(w)
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut w = [0; 4];
    w.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(w)
}

const _: () = assert!(size_of::<Record>() == Record::SIZE && Record::SHORT == 64);
const _: () = assert!(size_of::<StampedRecord>() == StampedRecord::SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            entry_ns: 0x2122_2324_2526_2728,
            exit_ns: 0x3132_3334_3536_3738,
            previous_exit_ns: 0x0102_0304_0506_0708,
            kvm: 0x3132_3334_3536_3738,
            who: 0x6162_6364_8182_8384,
            outline: Outline::of(0x5152_5354, Flags(0xc1c2), 2, 1),
            previous: Outline::of(0xd1d2_d3d4, Flags(0xe1e2), 1, 2),
            seq: 0x4142_4344_4546_4748,
            writes: Writes(0xf1f2_f3f4_f5f6_f7f8),
            transition_ns: 0x0f1f_2f3f,
            shadow_pin_writes: 0x4f5f_6f7f,
            tid: 0x7172_7374,
            cpu: 0xb1b2_b3b4,
            pin_entry: 0x9192_9394,
            pin_exit: 0xa1a2_a3a4,
        }
    }

    fn bytes_of(record: Record) -> [u8; Record::SIZE] {
        // SAFETY: repr(C) without padding: its fields add up to SIZE, asserted above.
        unsafe { core::mem::transmute(record) }
    }

    fn sample() -> Event {
        Event {
            entry_ns: 0x2122_2324_2526_2728,
            exit_ns: 0x3132_3334_3536_3738,
            exit_to_entry_ns: 0x2020_2020_2020_2020,
            kvm: 0x3132_3334_3536_3738,
            vcpu: 0x8182_8384,
            tgid: 0x6162_6364,
            exit_reason: 0x5152_5354,
            flags: Flags(0xc1c2),
            pin_writes: 2,
            isa: 1,
            previous: Outline::of(0xd1d2_d3d4, Flags(0xe1e2), 1, 2),
            seq: 0x4142_4344_4546_4748,
            writes: Writes(0xf1f2_f3f4_f5f6_f7f8),
            transition_ns: 0x0f1f_2f3f,
            shadow_pin_writes: 0x4f5f_6f7f,
            tid: 0x7172_7374,
            cpu: 0xb1b2_b3b4,
            pin_entry: 0x9192_9394,
            pin_exit: 0xa1a2_a3a4,
        }
    }

    #[test]
    fn a_decoded_stamped_event_is_the_one_that_the_kernel_wrote() {
        let written = StampedRecord {
            record: record(),
            entry_tsc: 0x0102_0304_0506_0708,
            exit_tsc: 0x1112_1314_1516_1718,
            number: 0x2122_2324_2526_2728,
            mark: 0x3132_3334_3536_3738,
            exec_entry: 0x4142_4344,
            exec_exit: 0x5152_5354,
        };
        let StampedRecord { record: _, entry_tsc, exit_tsc, number, mark, exec_entry, exec_exit } = written;
        // SAFETY: as in bytes_of.
        let bytes: [u8; StampedRecord::SIZE] = unsafe { core::mem::transmute(written) };
        let stamped = StampedEvent { event: sample(), entry_tsc, exit_tsc, number, mark, exec_entry, exec_exit };
        assert_eq!(StampedEvent::decode(&bytes), Some(stamped));
        assert_eq!(StampedEvent::decode(&bytes[..Record::SIZE]), None);
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
        assert_eq!(Event::decode(&bytes_of(record())), Some(sample()));
        assert_eq!(sample().encode(), bytes_of(record()));
        let first = Event { exit_to_entry_ns: Event::UNKNOWN_NS, ..sample() };
        assert_eq!(Event::decode(&bytes_of(Record { previous_exit_ns: 0, ..record() })), Some(first));
        assert_eq!(first.encode(), bytes_of(Record { previous_exit_ns: 0, ..record() }));
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
        assert_eq!(Event::decode(&bytes_of(record())[..Record::SHORT]), Some(short));
    }

    #[test]
    fn any_other_length_is_no_event() {
        let bytes = bytes_of(record());
        for length in [0, Record::SHORT - 1, Record::SHORT + 1, Record::SIZE - 1] {
            assert_eq!(Event::decode(&bytes[..length]), None);
        }
        let mut longer = [0; Record::SIZE + 1];
        longer[..Record::SIZE].copy_from_slice(&bytes);
        assert_eq!(Event::decode(&longer), None);
    }

    #[test]
    fn a_clock_that_runs_backwards_is_no_event() {
        assert_eq!(Event::decode(&bytes_of(Record { exit_ns: 4, entry_ns: 5, ..record() })), None);
        // Those of two CPUs may by some ns.
        let record = Record { previous_exit_ns: 6, entry_ns: 5, ..record() };
        assert_eq!(Event::decode(&bytes_of(record)).map(|event| event.exit_to_entry_ns), Some(0));
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
