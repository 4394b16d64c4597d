//! Reads BTF, split BTF included: as much as it takes to find members of structures and arguments of tracepoints. Pure over bytes, one pass
//! over the type section, every access checked.
//!
//! Format: Documentation/bpf/btf.rst. The crate btf-rs 2 is slower: with the 5.5 MB of Linux 6.18, its cache of names adds about ten times
//! as much to a start of `vmentry check` as this reader with all its lookups (41 alternating runs), and its mmap backend about 1.3 times as
//! much for the lookups by name alone. It is also LGPL, and vmentry is linked statically.

use std::{cell::RefCell, collections::HashMap, fmt};

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
/// Bytes of the header.
const HEADER: usize = 24;
/// The same with the place of the layout section (Linux 7.1).
const HEADER_WITH_LAYOUT: usize = 32;
/// Bytes of a kind's entry in the layout section: the fixed part's length, an element's length, flags.
const LAYOUT_ENTRY: usize = 4;

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FORWARD: u32 = 7;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const FLOAT: u32 = 16;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// Modifiers followed before the types are taken to be circular.
const MAX_DEPTH: u32 = 16;
/// Structures searched for one member, itself and unnamed ones, before they are taken to be circular.
const MAX_SEARCHED: u32 = 1000;

/// Why bytes are not BTF.
#[derive(Debug, PartialEq, Eq)]
pub enum BtfError {
    /// the header does not begin with the magic number
    NoMagic,
    /// the format is of this unknown version
    UnknownVersion(u8),
    /// the data ends at this offset, in the middle of a header, a section or a type
    Truncated(usize),
    /// a type of this unknown kind, after which nothing can be read because no layout section tells its length
    UnknownKind(u32),
}

impl fmt::Display for BtfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMagic => write!(f, "not BTF: the magic 0xeb9f is missing"),
            Self::UnknownVersion(version) => write!(f, "BTF is of version {version}: only {VERSION} is known"),
            Self::Truncated(at) => write!(f, "BTF is cut off at byte {at}"),
            Self::UnknownKind(kind) => {
                write!(f, "BTF has a type of unknown kind {kind}, and no layout section that tells its length")
            }
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
    /// lengths by kind, for kinds that are not known here; empty before Linux 7.1
    layout: &'a [u8],
    /// offset in `types` of each type, from the first of this BTF on
    offsets: Vec<u32>,
    first_id: u32,
    first_string: u32,
    /// what was looked for by kind and name: a layout asks for the members of the same few structures again and again
    found: RefCell<HashMap<(u32, String), Option<u32>>>,
}

/// A member of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// bytes from the beginning of the structure
    pub offset: u32,
    /// size in bytes; 0 where the type has none
    pub size: u32,
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

/// Kind, number of elements and flag of a type. Before Linux 7.1 the number had 16 bits and the kind 5, and the bits between were 0.
#[derive(Clone, Copy)]
struct Info(u32);

impl Info {
    const fn kind(self) -> u32 {
        self.0 >> 24 & 0x7f
    }

    const fn elements(self) -> usize {
        (self.0 & 0xff_ffff) as usize
    }

    const fn flag(self) -> bool {
        self.0 >> 31 != 0
    }

    /// Bytes after the common twelve of the type; `layout` tells those of an unknown kind.
    fn rest_len(self, layout: &[u8]) -> Result<usize, BtfError> {
        let elements = self.elements();
        Ok(match self.kind() {
            INT | VAR | DECL_TAG => 4,
            ARRAY => 12,
            STRUCT | UNION | DATASEC | ENUM64 => elements * 12,
            ENUM | FUNC_PROTO => elements * 8,
            PTR | FORWARD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FLOAT | TYPE_TAG => 0,
            kind => {
                let entry = layout.get(kind as usize * LAYOUT_ENTRY..).filter(|_| kind > ENUM64);
                let Some([fixed, element, ..]) = entry else { return Err(BtfError::UnknownKind(kind)) };
                usize::from(*fixed) + usize::from(*element) * elements
            }
        })
    }
}

impl<'a> Btf<'a> {
    /// Finds where each type begins. `base` is the kernel's BTF for that of a module, none for the kernel's own.
    pub fn parse(bytes: &'a [u8], base: Option<&'a Btf<'a>>) -> Result<Self, BtfError> {
        match bytes.get(..2) {
            Some(magic) if u16::from_ne_bytes([magic[0], magic[1]]) == MAGIC => {}
            _ => return Err(BtfError::NoMagic),
        }
        match bytes.get(2) {
            Some(&VERSION) => {}
            Some(&version) => return Err(BtfError::UnknownVersion(version)),
            None => return Err(BtfError::Truncated(2)),
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
        let own_layout = if header < HEADER_WITH_LAYOUT { &[] } else { section(24)? };
        // A module's types are of its kernel's kinds.
        let layout = base.filter(|_| own_layout.is_empty()).map_or(own_layout, |base| base.layout);
        let mut offsets = Vec::with_capacity(types.len() / 32);
        let mut at = 0;
        while at < types.len() {
            let next = at + 12 + Info(u32_at(types, at + 4)?).rest_len(layout)?;
            if next > types.len() {
                return Err(BtfError::Truncated(header + types.len()));
            }
            offsets.push(len_u32(at)?);
            at = next;
        }
        Ok(Self {
            types,
            types_at: header + u32_at(bytes, 8)? as usize,
            strings,
            layout,
            offsets,
            first_id: base.map_or(Ok(1), |b| Ok(b.first_id + len_u32(b.offsets.len())?))?,
            first_string: base.map_or(Ok(0), |b| Ok(b.first_string + len_u32(b.strings.len())?))?,
            base,
            found: RefCell::default(),
        })
    }

    /// The member `path` ("a.b.c") of structure `name`, also inside unnamed structures and unions; none for a bit field.
    pub fn field(&self, name: &str, path: &str) -> Option<Field> {
        let mut id = self.find(STRUCT, name)?;
        let mut offset = 0;
        for part in path.split('.') {
            let (at, member_type) = self.member(id, part, &mut { MAX_SEARCHED })?;
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
            let is_array = Info(u32_at(self.types, at + 4).ok()?).kind() == ARRAY;
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

    /// The value of a constant of an enumeration, of 32 bits.
    pub(crate) fn enumerator(&self, enumeration: &str, name: &str) -> Option<i32> {
        let enumeration = self.get(self.find(ENUM, enumeration)?)?;
        let mut constants = enumeration.rest.chunks_exact(8);
        let found = constants.find(|c| u32_at(c, 0).is_ok_and(|at| self.name(at) == name))?;
        u32_at(found, 4).ok().map(u32::cast_signed)
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
                Some((_, s)) if s.kind == STRUCT || s.kind == FORWARD => {
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
        let wanted = (kind, name.to_owned());
        if let Some(found) = self.found.borrow().get(&wanted) {
            return *found;
        }
        // Of most types, of which a kernel has 150 000, only the kind is read.
        let is_wanted = |at: &u32| {
            let word = |at| u32_at(self.types, at).ok();
            let at = *at as usize;
            word(at + 4).is_some_and(|info| Info(info).kind() == kind)
                && word(at).is_some_and(|at| self.is_name(at, name))
        };
        let own = (self.first_id..).zip(&self.offsets).find(|(_, at)| is_wanted(at)).map(|(id, _)| id);
        let found = own.or_else(|| self.base?.find(kind, name));
        self.found.borrow_mut().insert(wanted, found);
        found
    }

    /// Whether the string at this offset is `name`.
    fn is_name(&self, offset: u32, name: &str) -> bool {
        if offset < self.first_string {
            return self.base.is_some_and(|base| base.is_name(offset, name));
        }
        let tail = self.strings.get((offset - self.first_string) as usize..).unwrap_or_default();
        tail.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    fn get(&self, id: u32) -> Option<Type<'a>> {
        if id < self.first_id {
            return self.base?.get(id);
        }
        let at = *self.offsets.get((id - self.first_id) as usize)? as usize;
        let info = Info(u32_at(self.types, at + 4).ok()?);
        let len = info.rest_len(self.layout).ok()?;
        Some(Type {
            name: u32_at(self.types, at).ok()?,
            kind: info.kind(),
            kind_flag: info.flag(),
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

    /// Byte offset and type of a member, also inside unnamed members; none where it is a bit field, or does not lie inside the structure.
    /// `left` is how many more structures may be searched.
    fn member(&self, id: u32, name: &str, left: &mut u32) -> Option<(u32, u32)> {
        let t = self.get(id).filter(|t| matches!(t.kind, STRUCT | UNION))?;
        *left = left.checked_sub(1)?;
        for member in t.rest.chunks_exact(12) {
            let (member_name, member_type) = (u32_at(member, 0).ok()?, u32_at(member, 4).ok()?);
            let raw = u32_at(member, 8).ok()?;
            let (bits, bit_field) = if t.kind_flag { (raw & 0xff_ffff, raw >> 24 != 0) } else { (raw, false) };
            let (member_name, at) = (self.name(member_name), bits / 8);
            let is_inside = |at: u32, of: u32| at.checked_add(self.size(of)).is_some_and(|end| end <= t.size_or_type);
            if member_name == name {
                let is_whole = !bit_field && bits % 8 == 0 && is_inside(at, self.strip(member_type)?);
                return is_whole.then_some((at, member_type));
            }
            if member_name.is_empty()
                && let Some(inner) = self.strip(member_type).filter(|inner| is_inside(at, *inner))
                && let Some((inner_at, found)) = self.member(inner, name, left)
            {
                return Some((at + inner_at, found));
            }
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod build;

#[cfg(test)]
mod tests;
