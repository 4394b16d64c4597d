//! Tests on small and on malformed BTF.

use super::{build::Builder, *};

#[test]
fn a_member_is_found_through_split_btf_typedefs_and_unnamed_unions() {
    let mut base = Builder::new();
    let u32_type = base.int("unsigned int", 4);
    let alias = base.typedef("u32", u32_type);
    let mut module = Builder::split(&base);
    let reason = module.union(4, &[("full", alias)]);
    let unnamed = module.structure("", 8, &[("pad", alias, 0), ("exit_reason", reason, 4)]);
    module.structure("vcpu_vmx", 32, &[("first", alias, 0), ("", unnamed, 16)]);
    let (base, module) = (base.bytes(), module.bytes());
    let base = Btf::parse(&base, None).unwrap();
    let btf = Btf::parse(&module, Some(&base)).unwrap();
    assert_eq!(btf.field("vcpu_vmx", "exit_reason.full"), Some(Field { offset: 20, size: 4 }));
    assert_eq!(btf.field("vcpu_vmx", "exit_reason.half"), None);
    assert_eq!(btf.field("vcpu_svm", "first"), None);
    assert!(btf.has_struct("vcpu_vmx") && !btf.has_struct("first"));
}

#[test]
fn a_structure_is_found_by_its_whole_name_and_looked_for_once() {
    let mut b = Builder::new();
    let int = b.int("int", 4);
    b.structure("vcpu_vmx_more", 8, &[("first", int, 0)]);
    b.structure("vcpu_vmx", 16, &[("first", int, 8), ("second", int, 12)]);
    let bytes = b.bytes();
    let btf = Btf::parse(&bytes, None).unwrap();
    let offset = |name, path| btf.field(name, path).map(|field| field.offset);
    assert_eq!((offset("vcpu_vmx", "first"), offset("vcpu_vmx", "second")), (Some(8), Some(12)));
    assert_eq!((offset("vcpu_v", "first"), offset("vcpu_v", "second")), (None, None));
    assert_eq!(btf.found.borrow().len(), 2, "each name once, found or not");
}

#[test]
fn a_tracepoints_arguments_are_read() {
    let mut b = Builder::new();
    let vcpu = b.structure("kvm_vcpu", 8, &[]);
    let vcpu = b.ptr(vcpu);
    let flag = b.int("bool", 1);
    b.tracepoint("kvm_entry", &[vcpu, flag]);
    let bytes = b.bytes();
    let btf = Btf::parse(&bytes, None).unwrap();
    assert_eq!(
        btf.tracepoint("kvm_entry"),
        Some(vec![Argument::StructPointer("kvm_vcpu".into()), Argument::Scalar(1)])
    );
    assert_eq!(btf.tracepoint("kvm_exit"), None);
}

#[test]
fn no_prefix_of_btf_panics_or_passes_for_the_whole() {
    let mut b = Builder::new();
    let int = b.int("int", 4);
    b.structure("s", 8, &[("a", int, 0), ("b", int, 4)]);
    let bytes = b.bytes();
    assert!(Btf::parse(&bytes, None).is_ok());
    for end in 0..bytes.len() {
        assert!(Btf::parse(&bytes[..end], None).is_err(), "{end} bytes passed");
    }
}

#[test]
fn types_of_unknown_kinds_are_stepped_over_where_a_layout_section_tells_their_length() {
    let build = |builder: Builder| {
        let mut b = builder;
        let int = b.int("int", 4);
        b.of_new_kind("s", 0);
        b.of_new_kind("new", 3);
        b.structure("s", 8, &[("a", int, 0), ("b", int, 4)]);
        b
    };
    let base = build(Builder::new().with_layout());
    let mut module = Builder::split(&base);
    module.of_new_kind("t", 2);
    module.structure("t", 8, &[("b", 1, 4)]);
    let (base, module) = (base.bytes(), module.bytes());
    let kernel = Btf::parse(&base, None).unwrap();
    let btf = Btf::parse(&module, Some(&kernel)).unwrap();
    for name in ["s", "t"] {
        assert_eq!(btf.field(name, "b"), Some(Field { offset: 4, size: 4 }), "{name}");
    }
    let without_layout = build(Builder::new()).bytes();
    assert_eq!(Btf::parse(&without_layout, None).err(), Some(BtfError::UnknownKind(0x7f)));
}

#[test]
fn a_structure_may_have_more_members_than_16_bits_count() {
    const MEMBERS: u32 = 0x1_0001;
    let mut b = Builder::new();
    let byte = b.int("char", 1);
    let names: Vec<_> = (0..MEMBERS).map(|n| format!("m{n}")).collect();
    let members: Vec<_> = (0..).zip(&names).map(|(at, name)| (name.as_str(), byte, at)).collect();
    b.structure("large", MEMBERS, &members);
    b.structure("after", 2, &[("a", byte, 1)]);
    let bytes = b.bytes();
    let btf = Btf::parse(&bytes, None).unwrap();
    assert_eq!(btf.field("large", "m65536"), Some(Field { offset: 65536, size: 1 }));
    assert_eq!(btf.field("after", "a"), Some(Field { offset: 1, size: 1 }));
}

#[test]
fn a_member_outside_its_structure_is_not_found() {
    let mut b = Builder::new();
    let int = b.int("int", 4);
    let inner = b.structure("", 8, &[("c", int, 4)]);
    b.structure("s", 8, &[("a", int, 4), ("b", int, 6), ("", inner, 4), ("far", int, 1 << 28)]);
    let bytes = b.bytes();
    let btf = Btf::parse(&bytes, None).unwrap();
    let at = |name| btf.field("s", name).map(|field| field.offset);
    assert_eq!((at("a"), at("b"), at("c"), at("far")), (Some(4), None, None, None));
}

#[test]
fn structures_that_contain_themselves_end() {
    let mut b = Builder::new();
    b.structure("s", 8, &[("", 1, 0); 40]);
    let bytes = b.bytes();
    assert_eq!(Btf::parse(&bytes, None).unwrap().field("s", "a"), None);
}

#[test]
fn no_byte_of_btf_can_be_changed_so_that_reading_it_panics() {
    let mut b = Builder::new().with_layout();
    let int = b.int("int", 4);
    let array = b.array(int, 3);
    let inner = b.union(12, &[("x", array), ("y", int)]);
    b.of_new_kind("new", 1);
    let s = b.structure("kvm_vcpu", 32, &[("a", int, 0), ("", inner, 8)]);
    let pointer = b.ptr(s);
    b.tracepoint("kvm_entry", &[pointer, int]);
    let bytes = b.bytes();
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 1, bytes[at].wrapping_add(4)] {
            let mut changed = bytes.clone();
            changed[at] = value;
            let Ok(btf) = Btf::parse(&changed, None) else { continue };
            for path in ["a", "x", "y.z", "x.x"] {
                if let Some(Field { offset, size }) = btf.field("kvm_vcpu", path) {
                    assert!(offset.checked_add(size).is_some(), "byte {at} as {value}");
                }
            }
            let _ = btf.tracepoint("kvm_entry");
            assert!(btf.array_lengths().count() <= 10);
        }
    }
}

#[test]
fn a_version_that_is_not_known_is_refused() {
    let mut bytes = Builder::new().bytes();
    bytes[2] = 2;
    assert_eq!(Btf::parse(&bytes, None).err(), Some(BtfError::UnknownVersion(2)));
}

#[test]
fn a_circular_typedef_ends() {
    let mut b = Builder::new();
    b.typedef("loop", 1);
    b.structure("s", 4, &[("a", 1, 0)]);
    let bytes = b.bytes();
    let btf = Btf::parse(&bytes, None).unwrap();
    assert_eq!(btf.field("s", "a"), None);
}

#[test]
fn the_running_kernels_own_btf_gives_task_structs_pid() {
    let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
        eprintln!("skipped: this kernel has no BTF");
        return;
    };
    let btf = Btf::parse(&bytes, None).unwrap();
    let pid = btf.field("task_struct", "pid").unwrap();
    assert_eq!(pid.size, 4);
    assert!(pid.offset > 0);
}
