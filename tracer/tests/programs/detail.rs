//! What exits were about, of simulated vCPUs: from the fields that KVM has read, never from one that is left over.

use tracer_common::{
    Config, Event, Slot,
    config::ABSENT,
    detail::{Outcome, RawDetail, Source},
};
use vmentry::kernel::options::Options;

use crate::bed::*;

const RAX: usize = REGISTERS;
const RCX: usize = REGISTERS + 8;

fn bed() -> Bed {
    bed_of(config_of_details())
}

fn bed_of(config: Config) -> Bed {
    let mut bed = Bed::new(config, Options { detail: true, ..Options::default() });
    for n in 0..4 {
        bed.set(n, VMCB, bed.at(n));
    }
    bed
}

/// The next round: a record has the detail of the exit before it.
fn next(bed: &mut Bed) -> Event {
    bed.round(0, 12)
}

/// Makes fields read by KVM.
fn make_available(bed: &mut Bed, bits: &[u32]) {
    bed.set(0, REGS_AVAIL, bits.iter().map(|bit| 1 << bit).sum());
}

#[test]
#[ignore = "needs root"]
fn registers_tell_msrs_leaves_and_hypercalls() {
    let mut bed = bed();
    for (reason, rax, rcx, expected) in [
        (32, 0, 0xffff_0000_0000_06e0, RawDetail::new(Source::Msr, 0x6e0)),
        (31, 0, 0xc000_0080, RawDetail::new(Source::Msr, 0xc000_0080)),
        (10, 0xffff_ffff_8000_001d, 3, RawDetail::new(Source::Cpuid, 3 << 32 | 0x8000_001d)),
        (18, 5, 0x1_0003, RawDetail::new(Source::Hypercall, 5)),
        (12, 5, 0x1_0003, RawDetail::NONE),
    ] {
        bed.set(0, RAX, rax);
        bed.set(0, RCX, rcx);
        bed.round(0, reason);
        bed.set(0, RAX, 0xdead);
        bed.set(0, RCX, 0xdead);
        assert_eq!(next(&mut bed).previous_detail, expected, "exit reason {reason}");
    }
    // A Hyper-V guest has its calls' codes in CX.
    bed.memory[KVM_AT + HYPERV_GUEST] = 1;
    bed.set(0, RCX, 0x1_0003);
    bed.round(0, 18);
    assert_eq!(next(&mut bed).previous_detail, RawDetail::new(Source::HypervCall, 3));
}

#[test]
#[ignore = "needs root"]
fn a_qualification_is_used_only_where_kvm_has_read_it_for_this_exit() {
    let mut bed = bed();
    let stale = 0x182;
    bed.set(0, QUALIFICATION, stale);
    bed.set(0, INTERRUPTION, 0x8000_00ec);
    // Nothing was read: what lies there belongs to another exit.
    for reason in [30, 28, 29, 44, 56, 0, 1, 48] {
        bed.round(0, reason);
        assert_eq!(next(&mut bed).previous_detail, RawDetail::NONE, "exit reason {reason}");
    }
    // The other field was read.
    make_available(&mut bed, &[INTERRUPTION_READ]);
    bed.round(0, 30);
    assert_eq!(next(&mut bed).previous_detail, RawDetail::NONE);
    make_available(&mut bed, &[]);
    bed.round(0, 30);
    // KVM reads it while it handles the exit.
    bed.set(0, QUALIFICATION, 0x0010_0040);
    make_available(&mut bed, &[QUALIFICATION_READ]);
    let event = next(&mut bed);
    assert_eq!(event.previous_detail, RawDetail::new(Source::Qualification, 0x0010_0040));
    // The halt after it has none, though the field is still there.
    assert_eq!(next(&mut bed).previous_detail, RawDetail::NONE);
    make_available(&mut bed, &[]);
    bed.round(0, 1);
    make_available(&mut bed, &[INTERRUPTION_READ]);
    assert_eq!(next(&mut bed).previous_detail, RawDetail::new(Source::Interruption, 0x8000_00ec));
}

#[test]
#[ignore = "needs root"]
fn without_the_bits_names_no_qualification_is_used() {
    let mut config = config_of_details();
    config.set(Slot::QualificationRead, ABSENT);
    let mut bed = bed_of(config);
    bed.set(0, QUALIFICATION, 0x0010_0040);
    make_available(&mut bed, &[QUALIFICATION_READ]);
    bed.round(0, 30);
    assert_eq!(next(&mut bed).previous_detail, RawDetail::NONE);
}

#[test]
#[ignore = "needs root"]
fn a_fault_has_its_access_and_its_outcome() {
    let mut bed = bed();
    let mut of = |field: usize, count: u64| {
        make_available(&mut bed, &[]);
        bed.round(0, 48);
        bed.set(0, QUALIFICATION, 0x182);
        make_available(&mut bed, &[QUALIFICATION_READ]);
        bed.set(0, FAULTS + field, count);
        let detail = next(&mut bed).previous_detail;
        assert_eq!(detail.value() & 0xffff_ffff, 0x182);
        Outcome((detail.value() >> 32) as u8)
    };
    assert_eq!(of(0, 7), Outcome::FIXED);
    assert_eq!(of(8, 0x1_0000_0000_0001), Outcome::FAST);
    assert_eq!(of(16, 1), Outcome::SPURIOUS);
    assert_eq!(of(24, 9), Outcome::EMULATED);
    assert_eq!(of(24, 9), Outcome(0));
}

#[test]
#[ignore = "needs root"]
fn svm_exits_tell_theirs_in_the_vmcb() {
    let mut config = config_of_details();
    config.set(Slot::LayoutIsa, 2);
    config.set(Slot::VmxQualification, ABSENT);
    let mut bed = bed_of(config);
    let mut of = |code: u64, info: u64, rcx: u64| {
        bed.set(0, EXIT_CODE, code);
        bed.set(0, EXIT_INFO_1, info);
        bed.set(0, RCX, rcx);
        bed.entry(0, HERE, false);
        bed.exit(0, HERE, SVM, 0);
        bed.set(0, EXIT_INFO_1, 0xdead);
        bed.set(0, EXIT_CODE, 0x78);
        bed.entry(0, HERE, false);
        bed.exit(0, HERE, SVM, 0);
        bed.events()[1].previous_detail
    };
    assert_eq!(of(0x7b, 0x0010_0010, 0), RawDetail::new(Source::ExitInfo, 0x0010_0010));
    assert_eq!(of(0x7c, 1, 0x10), RawDetail::new(Source::MsrWithDirection, 1 << 32 | 0x10));
    assert_eq!(of(0x400, 1 << 32 | 6, 0), RawDetail::new(Source::Fault, 6));
    assert_eq!(of(0x78, 6, 0), RawDetail::NONE);
}

#[test]
#[ignore = "needs root"]
fn the_first_emulated_address_of_an_exit_is_its_detail() {
    let options = Options { detail: true, addresses: true, ..Options::default() };
    let mut bed = Bed::new(config_of_details(), options);
    bed.round(0, 49);
    for address in [0xfed0_00f0, 0xfee0_0300] {
        bed.run("kvm_mmio", HERE, &[0, 4, address, 0]);
    }
    bed.run("kvm_fast_mmio", HERE, &[0xfebf_0000]);
    let event = next(&mut bed);
    assert_eq!(event.previous_detail, RawDetail::new(Source::Address, 0xfed0_00f0));
    bed.run("kvm_fast_mmio", HERE, &[0xfebf_0000]);
    assert_eq!(next(&mut bed).previous_detail, RawDetail::new(Source::Address, 0xfebf_0000));
    assert_eq!(next(&mut bed).previous_detail, RawDetail::NONE);
}

#[test]
#[ignore = "needs root"]
fn what_was_read_of_another_vendors_vcpu_is_no_detail() {
    let mut config = config_of_details();
    config.set(Slot::LayoutIsa, 1);
    let mut bed = bed_of(config);
    bed.set(0, INTERRUPTION, 0x8000_00ec);
    make_available(&mut bed, &[QUALIFICATION_READ, INTERRUPTION_READ]);
    bed.entry(0, HERE, false);
    bed.exit(0, HERE, SVM, 0);
    bed.entry(0, HERE, false);
    bed.exit(0, HERE, SVM, 0);
    let event = bed.events()[1];
    assert_eq!(event.previous_detail, RawDetail::NONE);
}
