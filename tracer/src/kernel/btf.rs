//! Reads BTF, split BTF included: as much as it takes to find members of structures and arguments of tracepoints. Pure over bytes, one pass
//! over the type section, every access checked.
//!
//! Format: Documentation/bpf/btf.rst. The crate btf-rs 2 is slower: with the 5.5 MB of Linux 6.18, its cache of names adds about ten times
//! as much to a start of `vmentry check` as this reader with all its lookups (41 alternating runs), and its mmap backend about 1.3 times as
//! much for the lookups by name alone. It is also LGPL, and vmentry is linked statically.

use std::fmt;

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// Modifiers and unnamed members followed before the types are taken to be circular.
const MAX_DEPTH: u32 = 16;

/// Why bytes are not BTF.
#[derive(Debug, PartialEq, Eq)]
pub enum BtfError {
    /// the header does not begin with the magic number
    NoMagic,
    /// the data ends at this offset, in the middle of a header, a section or a type
    Truncated(usize),
    /// a type of this unknown kind, after which nothing can be read because its length is unknown
    UnknownKind(u32),
}

impl fmt::Display for BtfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMagic => write!(f, "not BTF: the magic 0xeb9f is missing"),
            Self::Truncated(at) => write!(f, "BTF is cut off at byte {at}"),
            Self::UnknownKind(kind) => write!(f, "BTF has a type of unknown kind {kind}"),
        }
    }
}

impl std::error::Error for BtfError {}

/// BTF of the kernel, or of one module on top of the kernel's.
pub struct Btf<'a> {
    base: Option<&'a Btf<'a>>,
    types: &'a [u8],
    /// offset of `types` in the bytes that were parsed
    types_at: usize,
    strings: &'a [u8],
    /// offset in `types` of each type, from the first of this BTF on
    offsets: Vec<u32>,
    first_id: u32,
    first_string: u32,
}

/// A member of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// bytes from the beginning of the structure
    pub(crate) offset: u32,
    /// size in bytes; 0 where the type has none
    pub(crate) size: u32,
}

/// Type of a tracepoint's argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Argument {
    /// pointer to the structure of this name
    StructPointer(String),
    /// integer, bool or enum of this size in bytes
    Scalar(u32),
    /// anything else
    Other,
}

#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    kind: u32,
    kind_flag: bool,
    size_or_type: u32,
    /// the bytes after the common part
    rest: &'a [u8],
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let word = bytes.get(at..at + 4).ok_or(BtfError::Truncated(at))?;
    Ok(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
}

/// A length as BTF counts, in 32 bits.
fn len_u32(len: usize) -> Result<u32, BtfError> {
    u32::try_from(len).map_err(|_| BtfError::Truncated(len))
}

/// Bytes after the common twelve of a type.
fn rest_len(kind: u32, vlen: usize) -> Result<usize, BtfError> {
    Ok(match kind {
        INT | VAR | DECL_TAG => 4,
        ARRAY => 12,
        STRUCT | UNION | DATASEC | ENUM64 => vlen * 12,
        ENUM | FUNC_PROTO => vlen * 8,
        PTR | 7 | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | 16 | TYPE_TAG => 0,
        _ => return Err(BtfError::UnknownKind(kind)),
    })
}

impl<'a> Btf<'a> {
    /// Finds where each type begins. `base` is the kernel's BTF for that of a module, none for the kernel's own.
    pub fn parse(bytes: &'a [u8], base: Option<&'a Btf<'a>>) -> Result<Self, BtfError> {
        match bytes.get(..2) {
            Some(magic) if u16::from_ne_bytes([magic[0], magic[1]]) == MAGIC => {}
            _ => return Err(BtfError::NoMagic),
        }
        let header = u32_at(bytes, 4)? as usize;
        let section = |at: usize| -> Result<&'a [u8], BtfError> {
            let start = header.saturating_add(u32_at(bytes, at)? as usize);
            let end = start.saturating_add(u32_at(bytes, at + 4)? as usize);
            bytes.get(start..end).ok_or(BtfError::Truncated(bytes.len()))
        };
        if header < HEADER {
            return Err(BtfError::Truncated(header));
        }
        let (types, strings) = (section(8)?, section(16)?);
        let mut offsets = Vec::with_capacity(types.len() / 32);
        let mut at = 0;
        while at < types.len() {
            let info = u32_at(types, at + 4)?;
            let next = at + 12 + rest_len(info >> 24 & 0x1f, (info & 0xffff) as usize)?;
            if next > types.len() {
                return Err(BtfError::Truncated(HEADER + types.len()));
            }
            offsets.push(len_u32(at)?);
            at = next;
        }
        Ok(Self {
            types,
            types_at: header + u32_at(bytes, 8)? as usize,
            strings,
            offsets,
            first_id: base.map_or(Ok(1), |b| Ok(b.first_id + len_u32(b.offsets.len())?))?,
            first_string: base.map_or(Ok(0), |b| Ok(b.first_string + len_u32(b.strings.len())?))?,
            base,
        })
    }

    /// The member `path` ("a.b.c") of structure `name`, also inside unnamed structures and unions; none for a bit field.
    pub(crate) fn field(&self, name: &str, path: &str) -> Option<Field> {
        let mut id = self.find(STRUCT, name)?;
        let mut offset = 0;
        for part in path.split('.') {
            let (at, member_type) = self.member(id, part, MAX_DEPTH)?;
            offset += at;
            id = self.strip(member_type)?;
        }
        Some(Field { offset, size: self.size(id) })
    }

    /// Whether a structure has this name.
    pub(crate) fn has_struct(&self, name: &str) -> bool {
        self.structure(name).is_some()
    }

    /// The length of every array type, and its offset in the bytes that were parsed; it takes four bytes.
    pub(crate) fn array_lengths(&self) -> impl Iterator<Item = (usize, u32)> {
        self.offsets.iter().filter_map(|at| {
            let at = *at as usize;
            let is_array = u32_at(self.types, at + 4).ok()? >> 24 & 0x1f == ARRAY;
            is_array.then(|| Some((self.types_at + at + 20, u32_at(self.types, at + 20).ok()?)))?
        })
    }

    /// The kernel's own BTF: for that of a module, its base.
    pub(crate) fn kernel(&self) -> &Btf<'a> {
        self.base.map_or(self, Btf::kernel)
    }

    /// Id of a function.
    pub(crate) fn function(&self, name: &str) -> Option<u32> {
        self.find(FUNC, name)
    }

    /// Id of a structure.
    pub(crate) fn structure(&self, name: &str) -> Option<u32> {
        self.find(STRUCT, name)
    }

    /// The arguments of a tracepoint as raw-tracepoint programs get them; none where there is no such tracepoint.
    pub(crate) fn tracepoint(&self, name: &str) -> Option<Vec<Argument>> {
        let typedef = self.find(TYPEDEF, &format!("btf_trace_{name}"))?;
        let pointer = self.get(self.strip(typedef)?)?;
        let proto = self.get(self.strip(pointer.size_or_type)?)?;
        if pointer.kind != PTR || proto.kind != FUNC_PROTO {
            return None;
        }
        // The first parameter is the tracepoint's private `void *__data`.
        let parameters = proto.rest.chunks_exact(8).skip(1);
        Some(parameters.map(|p| u32_at(p, 4).map_or(Argument::Other, |id| self.argument(id))).collect())
    }

    fn argument(&self, id: u32) -> Argument {
        let resolve = |id| self.strip(id).and_then(|id| Some((id, self.get(id)?)));
        match resolve(id) {
            Some((_, t)) if t.kind == PTR => match resolve(t.size_or_type) {
                Some((_, s)) if s.kind == STRUCT || s.kind == 7 => {
                    Argument::StructPointer(self.name(s.name).to_owned())
                }
                _ => Argument::Other,
            },
            Some((id, t)) if matches!(t.kind, INT | ENUM | ENUM64) => Argument::Scalar(self.size(id)),
            _ => Argument::Other,
        }
    }

    /// The type of this kind and name, in this BTF first, then in its base.
    fn find(&self, kind: u32, name: &str) -> Option<u32> {
        let own = (self.first_id..)
            .take(self.offsets.len())
            .find(|&id| self.get(id).is_some_and(|t| t.kind == kind && self.name(t.name) == name));
        own.or_else(|| self.base?.find(kind, name))
    }

    fn get(&self, id: u32) -> Option<Type<'a>> {
        if id < self.first_id {
            return self.base?.get(id);
        }
        let at = *self.offsets.get((id - self.first_id) as usize)? as usize;
        let info = u32_at(self.types, at + 4).ok()?;
        let kind = info >> 24 & 0x1f;
        let len = rest_len(kind, (info & 0xffff) as usize).ok()?;
        Some(Type {
            name: u32_at(self.types, at).ok()?,
            kind,
            kind_flag: info >> 31 != 0,
            size_or_type: u32_at(self.types, at + 8).ok()?,
            rest: self.types.get(at + 12..at + 12 + len)?,
        })
    }

    fn name(&self, offset: u32) -> &'a str {
        if offset < self.first_string {
            return self.base.map_or("", |b| b.name(offset));
        }
        let tail = self.strings.get((offset - self.first_string) as usize..).unwrap_or_default();
        let end = tail.iter().position(|&b| b == 0).unwrap_or(tail.len());
        std::str::from_utf8(&tail[..end]).unwrap_or_default()
    }

    /// Follows typedefs and qualifiers.
    fn strip(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            let t = self.get(id)?;
            if !matches!(t.kind, TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG) {
                return Some(id);
            }
            id = t.size_or_type;
        }
        None
    }

    fn size(&self, id: u32) -> u32 {
        match self.get(id) {
            Some(t) if t.kind == PTR => 8,
            Some(t) if matches!(t.kind, INT | STRUCT | UNION | ENUM | ENUM64) => t.size_or_type,
            Some(t) if t.kind == ARRAY => self.array_size(&t).unwrap_or(0),
            _ => 0,
        }
    }

    /// Size of an array; none where its elements are arrays, too.
    fn array_size(&self, array: &Type<'_>) -> Option<u32> {
        let element = self.strip(u32_at(array.rest, 0).ok()?)?;
        let count = u32_at(array.rest, 8).ok()?;
        let is_array = self.get(element).is_none_or(|t| t.kind == ARRAY);
        if is_array { None } else { self.size(element).checked_mul(count) }
    }

    /// Byte offset and type of a member, also inside unnamed members.
    fn member(&self, id: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        let t = self.get(id)?;
        if !matches!(t.kind, STRUCT | UNION) || depth == 0 {
            return None;
        }
        for member in t.rest.chunks_exact(12) {
            let (member_name, member_type) = (u32_at(member, 0).ok()?, u32_at(member, 4).ok()?);
            let raw = u32_at(member, 8).ok()?;
            let (bits, bit_field) = if t.kind_flag { (raw & 0xff_ffff, raw >> 24 != 0) } else { (raw, false) };
            let member_name = self.name(member_name);
            if member_name == name {
                return (!bit_field && bits % 8 == 0).then_some((bits / 8, member_type));
            }
            if member_name.is_empty()
                && let Some((at, found)) = self.strip(member_type).and_then(|id| self.member(id, name, depth - 1))
            {
                return Some((bits / 8 + at, found));
            }
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod build;

#[cfg(test)]
mod tests {
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
}
