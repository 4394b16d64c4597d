//! BTF of made-up kernels. The fields lie where the test bed lays its vCPUs out.

#[path = "../../src/kernel/btf/build.rs"]
mod build;

use build::Builder;

use super::{
    bed,
    host::{Vendor, entry_has_immediate},
};

/// `vcpu_vmx.req_immediate_exit` of kernels before Linux 6.9.
pub const REQUESTS_IMMEDIATE: usize = 64;

/// A kernel's types that modules refer to.
struct Types {
    builder: Builder,
    u32: u32,
    u64: u32,
    flag: u32,
    vcpu: u32,
}

fn at(offset: usize) -> u32 {
    offset.try_into().unwrap()
}

/// Kernel types, with kvm built in, which every made-up kernel has.
fn kernel() -> Types {
    let mut b = Builder::new();
    let (u32, u64, flag) = (b.int("unsigned int", 4), b.int("unsigned long long", 8), b.int("_Bool", 1));
    let arch = b.structure("kvm_arch", 8, &[("vm_type", flag, at(bed::VM_TYPE))]);
    let kvm = b.structure("kvm", 64, &[("arch", arch, 0)]);
    let kvm = b.ptr(kvm);
    let registers = b.array(u64, 17);
    let vcpu_arch = b.structure("kvm_vcpu_arch", 136, &[("regs", registers, 0)]);
    let stat = [("exits", u64, 0), ("guest_mode", u64, at(bed::GUEST_MODE - bed::EXITS))];
    let stat = b.structure("kvm_vcpu_stat", 16, &stat);
    let vcpu = [
        ("kvm", kvm, at(bed::KVM)),
        ("vcpu_id", u32, at(bed::ID)),
        ("stat", stat, at(bed::EXITS)),
        ("arch", vcpu_arch, at(bed::REGISTERS)),
    ];
    let vcpu = b.structure("kvm_vcpu", at(bed::VCPU), &vcpu);
    let pointer = b.ptr(vcpu);
    let arguments = [pointer, flag];
    b.tracepoint("kvm_entry", &arguments[..if entry_has_immediate() { 2 } else { 1 }]);
    b.tracepoint("kvm_exit", &[pointer, u32]);
    Types { builder: b, u32, u64, flag, vcpu }
}

/// Adds the structures of a vendor's module.
fn add(b: &mut Builder, kernel: &Types, vendor: Vendor) {
    match vendor {
        Vendor::Intel => {
            let shadow = [("pin", kernel.u32, 0), ("exec", kernel.u32, at(bed::EXEC - bed::PIN))];
            let shadow = b.structure("vmcs_controls_shadow", 32, &shadow);
            let vmcs =
                [("controls_shadow", shadow, at(bed::PIN)), ("hv_timer_soft_disabled", kernel.flag, at(bed::SOFT))];
            let vmcs = b.structure("loaded_vmcs", 64, &vmcs);
            let pointer = b.ptr(vmcs);
            let reason = b.union(4, &[("full", kernel.u32)]);
            let mut fields = vec![
                ("vcpu", kernel.vcpu, 0),
                ("exit_reason", reason, at(bed::REASON)),
                ("loaded_vmcs", pointer, at(bed::LOADED_VMCS)),
                ("vmcs01", vmcs, at(bed::VMCS01)),
                ("hv_deadline_tsc", kernel.u64, at(bed::DEADLINE)),
            ];
            if !entry_has_immediate() {
                fields.push(("req_immediate_exit", kernel.flag, at(REQUESTS_IMMEDIATE)));
            }
            b.structure("vcpu_vmx", at(bed::VCPU), &fields);
        }
        Vendor::Amd => {
            let control = b.structure("vmcb_control_area", 1024, &[("exit_code", kernel.u32, at(bed::EXIT_CODE))]);
            let vmcb = b.structure("vmcb", 4096, &[("control", control, 0)]);
            let vmcb = b.ptr(vmcb);
            let info = b.structure("kvm_vmcb_info", 32, &[("ptr", vmcb, 0)]);
            let fields = [("vcpu", kernel.vcpu, 0), ("vmcb", vmcb, at(bed::VMCB)), ("vmcb01", info, at(bed::VMCB01))];
            b.structure("vcpu_svm", at(bed::VCPU), &fields);
        }
    }
}

/// A kernel into which the modules of these vendors are built.
pub fn vmlinux(built_in: &[Vendor]) -> Vec<u8> {
    let mut types = kernel();
    for vendor in built_in {
        let mut b = std::mem::replace(&mut types.builder, Builder::new());
        add(&mut b, &types, *vendor);
        types.builder = b;
    }
    types.builder.bytes()
}

/// A vendor's module for a kernel without built-in ones.
pub fn module(vendor: Vendor) -> Vec<u8> {
    let kernel = kernel();
    let mut b = Builder::split(&kernel.builder);
    add(&mut b, &kernel, vendor);
    b.bytes()
}
