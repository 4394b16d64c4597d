//! The event of one VM entry, complete when its kvm_exit has come, and the record that carries it out of the kernel.

use core::{
    mem::offset_of,
    ops::{BitOr, BitOrAssign},
};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    Isa,
    detail::RawDetail,
    high32,
    host_time::Phases,
    low32,
    rules::{TimerCause, Writes},
};

/// Which fields of an event are known, and its yes/no facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct Flags(pub u16);

impl Flags {
    /// nothing known
    pub const NONE: Flags = Flags(0);
    /// the level (L1 or L2) was determined
    pub const LEVEL_KNOWN: Flags = Flags(1);
    /// the entry was into L2; only with LEVEL_KNOWN
    pub const L2: Flags = Flags(1 << 1);
    /// it was determined whether KVM forced an immediate exit
    pub const IMMEDIATE_KNOWN: Flags = Flags(1 << 2);
    /// KVM forced an immediate exit: no guest instruction ran; only with IMMEDIATE_KNOWN
    pub const IMMEDIATE: Flags = Flags(1 << 3);
    /// the timer's soft-disabled state was read (only at preemption-timer exits)
    pub const SOFT_KNOWN: Flags = Flags(1 << 4);
    /// the timer was soft-disabled; only with SOFT_KNOWN
    pub const SOFT_DISABLED: Flags = Flags(1 << 5);
    /// `pin_entry` and `pin_exit` were read
    pub const PIN_READ: Flags = Flags(1 << 6);
    /// `pin_writes` is known
    pub const PIN_WRITES_KNOWN: Flags = Flags(1 << 7);
    /// `exit_reason` was read
    pub const REASON_KNOWN: Flags = Flags(1 << 8);
    /// `writes` is exact and complete and `pin_writes` comes from it: the companion patch reported every write
    pub const WRITES_EXACT: Flags = Flags(1 << 9);
    /// `shadow_pin_writes` is known
    pub const SHADOW_KNOWN: Flags = Flags(1 << 10);
    /// `transition_ns` is known: the companion patch's stopwatch ran
    pub const TRANSITION_KNOWN: Flags = Flags(1 << 11);
    /// `deadline_tsc` was read, and compared with the TSC at kvm_exit (only at exits of a preemption timer that had a deadline)
    pub const DEADLINE_READ: Flags = Flags(1 << 12);
    /// the deadline was not due by more than [`EARLY_MARGIN_NS`](crate::clock::EARLY_MARGIN_NS); only with DEADLINE_READ
    pub const EARLY: Flags = Flags(1 << 13);
    /// `phases` of the host time before this entry is not all 0, and was written
    pub const PHASES: Flags = Flags(1 << 14);

    /// flags of events that need a closer look than times and outline: those of most entries are not among them
    pub const RARE: Flags = Flags(
        Self::IMMEDIATE.0 | Self::WRITES_EXACT.0 | Self::TRANSITION_KNOWN.0 | Self::DEADLINE_READ.0 | Self::PHASES.0,
    );

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

/// One VM entry. Clocks are CLOCK_MONOTONIC in ns, as `bpf_ktime_get_ns` returns it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// end of the program on kvm_entry: the time of the program itself is host time
    pub entry_ns: u64,
    /// start of the program on kvm_exit; `exit_ns - entry_ns` is the guest time, `entry_to_exit_ns`
    pub exit_ns: u64,
    /// host time: ns from this vCPU's previous kvm_exit to this kvm_entry, halts included. The host spent it on the previous exit,
    /// which `previous` describes. [`Event::UNKNOWN_NS`] for the first entry seen of a vCPU
    pub exit_to_entry_ns: u64,
    /// address of `struct kvm`: distinguishes the VMs of one process; never written to a file
    pub kvm: u64,
    /// KVM's number of the vCPU
    pub vcpu: u32,
    /// process of the VMM
    pub tgid: u32,
    /// VMX: the full 32-bit exit reason, bit 31 set for a failed VM entry; SVM: the exit code; valid with REASON_KNOWN
    pub exit_reason: u32,
    /// which fields are known
    pub flags: Flags,
    /// pin-control writes to this VMCS since the previous kvm_exit (of this VMCS, when nested), from the best available source;
    /// valid with PIN_WRITES_KNOWN
    pub pin_writes: u8,
    /// [`Isa`] as a number
    pub isa: u8,
    /// the exit that the host handled during `exit_to_entry_ns`; all zero where it is unknown
    pub previous: Outline,
    /// more about that exit; [`RawDetail::NONE`] where nothing is known
    pub previous_detail: RawDetail,
    /// parts of `exit_to_entry_ns`; all 0 where it is all the kernel's, and where nothing is known
    pub phases: Phases,
    /// number of this round on its CPU, from 1: gaps are dropped records
    pub seq: u64,
    /// host TSC at which the timer was to expire, cycles (`vcpu_vmx.hv_deadline_tsc`); valid with DEADLINE_READ
    pub deadline_tsc: u64,
    /// from that deadline to kvm_exit, ns; negative where it was not due yet. No part of a record: the collector fills it in, where it
    /// can map CLOCK_MONOTONIC to the TSC
    pub late_ns: Option<i64>,
    /// writes to the controls of this VMCS as the companion patch reported them, by [`Control`](crate::rules::Control); valid with
    /// WRITES_EXACT
    pub writes: Writes,
    /// VM-entry plus VM-exit without guest time, ns, by the companion patch's stopwatch; saturates at `u32::MAX`; valid with
    /// TRANSITION_KNOWN
    pub transition_ns: u32,
    /// pin-control writes by the shadow method: 0, 1 or 2; valid with SHADOW_KNOWN
    pub shadow_pin_writes: u32,
    /// thread of the vCPU; 0 in a short record
    pub tid: u32,
    /// CPU of the kvm_exit; 0 in a short record, whose ring names the CPU
    pub cpu: u32,
    /// shadow of the pin controls at kvm_entry; valid with PIN_READ, 0 in a short record
    pub pin_entry: u32,
    /// shadow of the pin controls at kvm_exit; valid with PIN_READ, 0 in a short record
    pub pin_exit: u32,
}

/// A VM entry of the calibration guest, with the stamps that the guest left in its registers (`tracer/src/guest/calibration.S`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StampedEvent {
    /// the entry
    pub event: Event,
    /// R8: guest TSC at the first instruction after a VM entry; of an earlier entry where a host interrupt came first
    pub entry_tsc: u64,
    /// R9: low half of the guest TSC at the last stamp before a VM exit
    pub exit_tsc: u64,
    /// R10: number of the exit that the guest was about to cause, from 1
    pub number: u64,
    /// R11: the guest's current activity
    pub mark: u64,
    /// shadow of the primary execution controls at kvm_entry; 0 where there is none
    pub exec_entry: u32,
    /// the same at kvm_exit
    pub exec_exit: u32,
}

/// A short record: the part of an event that every report needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct ShortRecord {
    /// as [`Event::entry_ns`]
    pub entry_ns: u64,
    /// as [`Event::exit_ns`]
    pub exit_ns: u64,
    /// start of the program on the vCPU's previous kvm_exit; 0 where that exit was not seen
    pub previous_exit_ns: u64,
    /// as [`Event::kvm`]
    pub kvm: u64,
    /// [`Event::tgid`] in the high half, [`Event::vcpu`] in the low half
    pub who: u64,
    /// outline of this round
    pub outline: Outline,
    /// as [`Event::previous`]
    pub previous: Outline,
    /// as [`Event::seq`]; written last
    pub seq: u64,
    /// as [`Event::deadline_tsc`]; whatever an earlier record left here where it is not valid
    pub deadline_tsc: u64,
    /// as [`Event::phases`]; whatever an earlier record left here without [`Flags::PHASES`]
    pub phases: Phases,
}

/// A detailed record: a short one, followed by the detail of the previous exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct DetailedRecord {
    /// the short record
    pub short: ShortRecord,
    /// as [`Event::previous_detail`]
    pub previous_detail: RawDetail,
}

/// A whole record: a detailed one, followed by the extras.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Record {
    /// the detailed record
    pub detailed: DetailedRecord,
    /// the extras
    pub extras: Extras,
}

/// The fields of a whole record that a shorter one does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Extras {
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

/// A stamped record: a whole one, followed by the calibration guest's stamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct StampedRecord {
    /// the whole record
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
    pub const SIZE: usize = size_of::<Self>();

    /// Bytes of a short record.
    pub const SHORT: usize = size_of::<ShortRecord>();

    /// Bytes of a detailed record.
    pub const DETAILED: usize = size_of::<DetailedRecord>();

    /// Offset of `seq` in every record.
    pub const NUMBER_AT: usize = offset_of!(ShortRecord, seq);
}

impl StampedRecord {
    /// Bytes of a stamped record.
    pub const SIZE: usize = size_of::<Self>();
}

/// The outline of a round, in one word: from the lowest bits on [`Event::exit_reason`], [`Event::flags`], [`Event::pin_writes`] and
/// [`Event::isa`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable)]
#[repr(transparent)]
pub struct Outline(pub u64);

impl Event {
    /// `exit_to_entry_ns` of an entry whose previous exit was not seen.
    pub const UNKNOWN_NS: u64 = u64::MAX;

    /// Decodes a short, detailed or whole record; none for any other length, and where the clock runs backwards or the number is 0.
    #[must_use]
    #[inline]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (short, rest) = ShortRecord::read_from_prefix(bytes).ok()?;
        let mut event = Self::from(&short);
        if !rest.is_empty() {
            let (detail, extras) = RawDetail::read_from_prefix(rest).ok()?;
            event.previous_detail = detail;
            if !extras.is_empty() {
                event.add(&Extras::read_from_bytes(extras).ok()?);
            }
        }
        event.is_sound().then_some(event)
    }

    /// The whole record that decodes to this event.
    #[must_use]
    pub fn encode(&self) -> [u8; Record::SIZE] {
        zerocopy::transmute!(Record::from(self))
    }

    #[inline]
    fn add(&mut self, extras: &Extras) {
        self.writes = extras.writes;
        self.transition_ns = extras.transition_ns;
        self.shadow_pin_writes = extras.shadow_pin_writes;
        self.tid = extras.tid;
        self.cpu = extras.cpu;
        self.pin_entry = extras.pin_entry;
        self.pin_exit = extras.pin_exit;
    }

    #[inline]
    fn is_sound(&self) -> bool {
        self.exit_ns >= self.entry_ns && self.seq > 0
    }

    /// The kernel's part of the host time, ns: all that no other part has; none where the previous exit was not seen.
    #[must_use]
    #[inline]
    pub fn kernel_ns(&self) -> Option<u64> {
        let host_ns = Some(self.exit_to_entry_ns).filter(|ns| *ns != Self::UNKNOWN_NS);
        host_ns.map(|ns| ns.saturating_sub(self.phases.sum_ns()))
    }

    /// Guest time, ns from kvm_entry to kvm_exit: timer VMWRITEs, VM-entry, guest and VM-exit.
    #[must_use]
    #[inline]
    pub fn entry_to_exit_ns(&self) -> u64 {
        self.exit_ns - self.entry_ns
    }

    /// Pin-control writes by the shadow method; none where they are not known.
    #[must_use]
    #[inline]
    pub fn known_shadow_pin_writes(&self) -> Option<u64> {
        self.flags.has(Flags::SHADOW_KNOWN).then_some(u64::from(self.shadow_pin_writes))
    }

    /// Host TSC of the timer's deadline, cycles; none where there was none, and where it was not read.
    #[must_use]
    #[inline]
    pub fn known_deadline_tsc(&self) -> Option<u64> {
        self.flags.has(Flags::DEADLINE_READ).then_some(self.deadline_tsc)
    }

    /// ns from the timer's deadline to kvm_exit; none where it is not known, or was not due yet.
    #[must_use]
    #[inline]
    pub fn deadline_late_ns(&self) -> Option<u64> {
        self.late_ns.and_then(|ns| u64::try_from(ns).ok())
    }

    /// ns from kvm_exit to the timer's deadline; none where it is not known, or was due.
    #[must_use]
    #[inline]
    pub fn deadline_remaining_ns(&self) -> Option<u64> {
        self.late_ns.filter(|ns| *ns < 0).map(i64::unsigned_abs)
    }

    /// VM-entry plus VM-exit without guest time, ns; none where it is not known. Comes from the stopwatch. Without it, known only for
    /// an entry that KVM forced to exit immediately: no guest instruction ran, so that all of `entry_to_exit_ns` is transition (and
    /// KVM's own work around it).
    #[must_use]
    #[inline]
    pub fn known_transition_ns(&self) -> Option<u64> {
        if self.flags.has(Flags::TRANSITION_KNOWN) {
            return Some(u64::from(self.transition_ns));
        }
        (self.outline().timer_cause() == Some(TimerCause::Immediate)).then(|| self.entry_to_exit_ns())
    }

    /// Writes to all controls; none where the companion patch did not report them.
    #[must_use]
    #[inline]
    pub fn exact_writes(&self) -> Option<Writes> {
        self.flags.has(Flags::WRITES_EXACT).then_some(self.writes)
    }

    /// The outline of this round.
    #[must_use]
    #[inline(always)]
    pub const fn outline(&self) -> Outline {
        Outline::of(self.exit_reason, self.flags, self.pin_writes, self.isa)
    }
}

impl ShortRecord {
    /// Decodes a short record without any of [`Flags::RARE`], of which the times and outlines are all that is counted; none for any other
    /// record, and for one that [`Event::decode`] refuses.
    #[must_use]
    #[inline(always)]
    pub fn decode_plain(bytes: &[u8]) -> Option<Self> {
        let record = Self::read_from_bytes(bytes).ok()?;
        let is_plain = record.outline.flags().0 & Flags::RARE.0 == 0;
        (is_plain && record.exit_ns >= record.entry_ns && record.seq > 0).then_some(record)
    }

    /// As [`Event::vcpu`].
    #[must_use]
    #[inline(always)]
    pub const fn vcpu(&self) -> u32 {
        low32(self.who)
    }

    /// As [`Event::tgid`].
    #[must_use]
    #[inline(always)]
    pub const fn tgid(&self) -> u32 {
        high32(self.who)
    }
}

impl From<&ShortRecord> for Event {
    #[inline]
    fn from(record: &ShortRecord) -> Self {
        Self {
            entry_ns: record.entry_ns,
            exit_ns: record.exit_ns,
            exit_to_entry_ns: match record.previous_exit_ns {
                0 => Self::UNKNOWN_NS,
                // The clocks of two CPUs may differ by some ns.
                previous => record.entry_ns.saturating_sub(previous),
            },
            kvm: record.kvm,
            vcpu: low32(record.who),
            tgid: high32(record.who),
            exit_reason: record.outline.exit_reason(),
            flags: record.outline.flags(),
            pin_writes: record.outline.pin_writes(),
            isa: record.outline.isa_number(),
            previous: record.previous,
            seq: record.seq,
            deadline_tsc: if record.outline.flags().has(Flags::DEADLINE_READ) { record.deadline_tsc } else { 0 },
            phases: if record.outline.flags().has(Flags::PHASES) { record.phases } else { Phases::default() },
            // A short record is only written where the shadow is the one source of pin writes.
            shadow_pin_writes: record.outline.pin_writes().into(),
            ..Self::default()
        }
    }
}

impl From<&Event> for Record {
    fn from(event: &Event) -> Self {
        Self {
            detailed: DetailedRecord {
                short: ShortRecord {
                    entry_ns: event.entry_ns,
                    exit_ns: event.exit_ns,
                    previous_exit_ns: match event.exit_to_entry_ns {
                        Event::UNKNOWN_NS => 0,
                        ns => event.entry_ns.saturating_sub(ns),
                    },
                    kvm: event.kvm,
                    who: u64::from(event.tgid) << 32 | u64::from(event.vcpu),
                    outline: event.outline(),
                    previous: event.previous,
                    seq: event.seq,
                    deadline_tsc: event.deadline_tsc,
                    phases: event.phases,
                },
                previous_detail: event.previous_detail,
            },
            extras: Extras {
                writes: event.writes,
                transition_ns: event.transition_ns,
                shadow_pin_writes: event.shadow_pin_writes,
                tid: event.tid,
                cpu: event.cpu,
                pin_entry: event.pin_entry,
                pin_exit: event.pin_exit,
            },
        }
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
        low32(self.0)
    }

    /// As [`Event::flags`].
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes 16 of the word's bits")]
    pub const fn flags(self) -> Flags {
        Flags((self.0 >> 32) as u16)
    }

    /// As [`Event::pin_writes`].
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "takes 8 of the word's bits")]
    pub const fn pin_writes(self) -> u8 {
        (self.0 >> 48) as u8
    }

    /// As [`Event::isa`].
    #[must_use]
    #[inline(always)]
    pub const fn isa_number(self) -> u8 {
        (self.0 >> 56) as u8
    }

    /// The instruction set whose exit reason this is.
    #[must_use]
    #[inline]
    pub fn isa(self) -> Isa {
        Isa::from_raw(u32::from(self.isa_number()))
    }

    /// The exit reason; none where it was not read.
    #[must_use]
    #[inline]
    pub fn reason(self) -> Option<u32> {
        self.flags().has(Flags::REASON_KNOWN).then_some(self.exit_reason())
    }

    /// Pin-control writes; none where they are not known.
    #[must_use]
    #[inline]
    pub fn known_pin_writes(self) -> Option<u8> {
        self.flags().has(Flags::PIN_WRITES_KNOWN).then_some(self.pin_writes())
    }

    /// True for L2, false for L1, none where the level is not known.
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
                self.flags().has(Flags::DEADLINE_READ | Flags::EARLY),
            )
        })
    }

    #[inline]
    fn known(self, known: Flags, fact: Flags) -> Option<bool> {
        self.flags().has(known).then(|| self.flags().has(fact))
    }
}

impl StampedEvent {
    /// Decodes a stamped record; none for any other length, and where the event does not decode.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let stamped = StampedRecord::read_from_bytes(bytes).ok()?;
        let mut event = Event::from(&stamped.record.detailed.short);
        event.previous_detail = stamped.record.detailed.previous_detail;
        event.add(&stamped.record.extras);
        event.is_sound().then_some(Self {
            event,
            entry_tsc: stamped.entry_tsc,
            exit_tsc: stamped.exit_tsc,
            number: stamped.number,
            mark: stamped.mark,
            exec_entry: stamped.exec_entry,
            exec_exit: stamped.exec_exit,
        })
    }
}

const _: () =
    assert!(Record::SHORT == 96 && Record::DETAILED == 104 && Record::SIZE == 136 && StampedRecord::SIZE == 176);

#[cfg(test)]
mod tests {
    use super::*;

    fn short() -> ShortRecord {
        ShortRecord {
            entry_ns: 0x2122_2324_2526_2728,
            exit_ns: 0x3132_3334_3536_3738,
            previous_exit_ns: 0x0102_0304_0506_0708,
            kvm: 0x3132_3334_3536_3738,
            who: 0x6162_6364_8182_8384,
            outline: Outline::of(0x5152_5354, Flags(0xd1c2), 2, 1),
            previous: Outline::of(0xd1d2_d3d4, Flags(0xe1e2), 1, 2),
            seq: 0x4142_4344_4546_4748,
            deadline_tsc: 0x0807_0605_0403_0201,
            phases: Phases {
                user_ns: 0x1817_1615_1413_1211,
                idle_ns: 0x2827_2625_2423_2221,
                polled_ns: 0x3433_3231,
                steal_ns: 0x4443_4241,
            },
        }
    }

    fn record() -> Record {
        Record {
            detailed: DetailedRecord { short: short(), previous_detail: RawDetail(0x5857_5655_5453_5251) },
            extras: Extras {
                writes: Writes(0xf1f2_f3f4_f5f6_f7f8),
                transition_ns: 0x0f1f_2f3f,
                shadow_pin_writes: 0x4f5f_6f7f,
                tid: 0x7172_7374,
                cpu: 0xb1b2_b3b4,
                pin_entry: 0x9192_9394,
                pin_exit: 0xa1a2_a3a4,
            },
        }
    }

    fn bytes_of(record: Record) -> [u8; Record::SIZE] {
        zerocopy::transmute!(record)
    }

    fn bytes_with(short: ShortRecord) -> [u8; Record::SIZE] {
        bytes_of(Record { detailed: DetailedRecord { short, ..record().detailed }, ..record() })
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
            flags: Flags(0xd1c2),
            pin_writes: 2,
            isa: 1,
            previous: Outline::of(0xd1d2_d3d4, Flags(0xe1e2), 1, 2),
            previous_detail: RawDetail(0x5857_5655_5453_5251),
            phases: short().phases,
            seq: 0x4142_4344_4546_4748,
            deadline_tsc: 0x0807_0605_0403_0201,
            late_ns: None,
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
    fn a_stamped_record_decodes_to_the_event_that_the_program_wrote() {
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
        let bytes: [u8; StampedRecord::SIZE] = zerocopy::transmute!(written);
        let stamped = StampedEvent { event: sample(), entry_tsc, exit_tsc, number, mark, exec_entry, exec_exit };
        assert_eq!(StampedEvent::decode(&bytes), Some(stamped));
        assert_eq!(StampedEvent::decode(&bytes[..Record::SIZE]), None);
        assert_eq!(Event::decode(&bytes), None);
    }

    #[test]
    fn the_transition_comes_from_the_stopwatch_or_from_an_immediate_exit() {
        let immediate = Flags::REASON_KNOWN | Flags::SOFT_KNOWN | Flags::IMMEDIATE_KNOWN | Flags::IMMEDIATE;
        let event = Event { exit_reason: 52, flags: immediate, entry_ns: 100, exit_ns: 400, ..sample() };
        assert_eq!(event.known_transition_ns(), Some(300));
        let timed = Event { flags: immediate | Flags::TRANSITION_KNOWN, transition_ns: 200, ..event };
        assert_eq!(timed.known_transition_ns(), Some(200));
        // KVM forced an immediate exit, but another exit came first: the guest may have run.
        assert_eq!(Event { exit_reason: 1, ..event }.known_transition_ns(), None);
    }

    #[test]
    fn a_record_decodes_to_the_event_that_the_program_wrote() {
        assert_eq!(Event::decode(&bytes_of(record())), Some(sample()));
        assert_eq!(sample().encode(), bytes_of(record()));
        let first = Event { exit_to_entry_ns: Event::UNKNOWN_NS, ..sample() };
        assert_eq!(Event::decode(&bytes_with(ShortRecord { previous_exit_ns: 0, ..short() })), Some(first));
        assert_eq!(first.encode(), bytes_with(ShortRecord { previous_exit_ns: 0, ..short() }));
    }

    #[test]
    fn a_shorter_record_decodes_to_an_event_without_what_it_lacks() {
        let without_extras = Event {
            writes: Writes(0),
            transition_ns: 0,
            shadow_pin_writes: sample().pin_writes.into(),
            tid: 0,
            cpu: 0,
            pin_entry: 0,
            pin_exit: 0,
            ..sample()
        };
        assert_eq!(Event::decode(&bytes_of(record())[..Record::DETAILED]), Some(without_extras));
        let short = Event { previous_detail: RawDetail::NONE, ..without_extras };
        assert_eq!(Event::decode(&bytes_of(record())[..Record::SHORT]), Some(short));
    }

    #[test]
    fn a_record_of_any_other_length_does_not_decode() {
        let bytes = bytes_of(record());
        for length in [0, Record::SHORT - 1, Record::SHORT + 1, Record::DETAILED + 1, Record::SIZE - 1] {
            assert_eq!(Event::decode(&bytes[..length]), None);
        }
        let mut longer = [0; Record::SIZE + 1];
        longer[..Record::SIZE].copy_from_slice(&bytes);
        assert_eq!(Event::decode(&longer), None);
    }

    #[test]
    fn a_record_whose_clock_runs_backwards_does_not_decode() {
        assert_eq!(Event::decode(&bytes_with(ShortRecord { exit_ns: 4, entry_ns: 5, ..short() })), None);
        // The clocks of two CPUs may differ by some ns.
        let moved = ShortRecord { previous_exit_ns: 6, entry_ns: 5, ..short() };
        assert_eq!(Event::decode(&bytes_with(moved)).map(|event| event.exit_to_entry_ns), Some(0));
    }

    #[test]
    fn what_an_earlier_record_left_in_place_of_a_deadline_is_not_one() {
        let without = |flags| Outline::of(0x5152_5354, flags, 2, 1);
        let decode = |flags| Event::decode(&bytes_with(ShortRecord { outline: without(flags), ..short() })).unwrap();
        assert_eq!(decode(Flags::DEADLINE_READ).known_deadline_tsc(), Some(0x0807_0605_0403_0201));
        let left_over = decode(Flags::NONE);
        assert_eq!((left_over.known_deadline_tsc(), left_over.deadline_tsc), (None, 0));
        assert_eq!((left_over.phases, decode(Flags::PHASES).phases), (Phases::default(), short().phases));
    }

    #[test]
    fn a_timer_is_late_or_has_time_remaining_never_both() {
        let of = |late_ns| {
            let event = Event { late_ns, ..sample() };
            (event.deadline_late_ns(), event.deadline_remaining_ns())
        };
        assert_eq!((of(Some(7)), of(Some(0))), ((Some(7), None), (Some(0), None)));
        assert_eq!((of(Some(-7)), of(Some(i64::MIN))), ((None, Some(7)), (None, Some(1 << 63))));
        assert_eq!(of(None), (None, None));
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
