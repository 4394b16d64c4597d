//! Builds small BTF for tests. Integration tests include this file by its path, so it stands alone.

const MAGIC: u16 = 0xeb9f;
/// Bytes of the header.
const HEADER: usize = 24;
/// The same with the place of the layout section (Linux 7.1).
const HEADER_WITH_LAYOUT: usize = 32;

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const FUNC_PROTO: u32 = 13;
/// A kind that no kernel has yet: the highest. Its fixed bytes, and bytes per element.
const NEW_KIND: u32 = 0x7f;
const NEW_KIND_BYTES: [u8; 2] = [8, 20];

fn word(length: usize) -> u32 {
    length.try_into().unwrap()
}

/// BTF under construction.
pub(crate) struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    next_id: u32,
    first_string: u32,
    /// fixed bytes and bytes per element of each kind; none for BTF without a layout section
    layout: Option<Vec<[u8; 2]>>,
}

impl Builder {
    /// For a kernel.
    pub(crate) fn new() -> Self {
        Self { types: vec![], strings: vec![0], next_id: 1, first_string: 0, layout: None }
    }

    /// For a module on top of `base`.
    pub(crate) fn split(base: &Builder) -> Self {
        Self {
            types: vec![],
            strings: vec![],
            next_id: base.next_id,
            first_string: base.first_string + word(base.strings.len()),
            layout: None,
        }
    }

    /// As Linux 7.1 and later: with a layout section, whose last kind is that of [`Self::of_new_kind`].
    #[allow(dead_code, reason = "integration tests include this file, too")]
    pub(crate) fn with_layout(mut self) -> Self {
        let of_kind = |kind| if kind == NEW_KIND { NEW_KIND_BYTES } else { [0, 0] };
        self.layout = Some((0..=NEW_KIND).map(of_kind).collect());
        self
    }

    /// A type of a kind that no reader knows, with so many elements.
    #[allow(dead_code, reason = "integration tests include this file, too")]
    pub(crate) fn of_new_kind(&mut self, name: &str, elements: usize) -> u32 {
        let [fixed, element] = NEW_KIND_BYTES.map(usize::from);
        let rest = vec![u32::MAX; (fixed + element * elements) / size_of::<u32>()];
        self.add(name, NEW_KIND, elements, 0, &rest)
    }

    fn string(&mut self, s: &str) -> u32 {
        if s.is_empty() {
            return 0;
        }
        let at = self.first_string + word(self.strings.len());
        self.strings.extend(s.as_bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, kind: u32, vlen: usize, size_or_type: u32, rest: &[u32]) -> u32 {
        let name = self.string(name);
        for w in [name, kind << 24 | word(vlen), size_or_type].iter().chain(rest) {
            self.types.extend(w.to_ne_bytes());
        }
        self.next_id += 1;
        self.next_id - 1
    }

    pub(crate) fn int(&mut self, name: &str, size: u32) -> u32 {
        self.add(name, INT, 0, size, &[size * 8])
    }

    pub(crate) fn ptr(&mut self, to: u32) -> u32 {
        self.add("", PTR, 0, to, &[])
    }

    pub(crate) fn typedef(&mut self, name: &str, to: u32) -> u32 {
        self.add(name, TYPEDEF, 0, to, &[])
    }

    /// Members: name, type, offset in bytes.
    pub(crate) fn structure(&mut self, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let rest: Vec<u32> = members.iter().flat_map(|&(n, t, at)| [self.string(n), t, at * 8]).collect();
        self.add(name, STRUCT, members.len(), size, &rest)
    }

    /// Constants of 32 bits: name, value.
    #[allow(dead_code, reason = "integration tests include this file, too")]
    pub(crate) fn enumeration(&mut self, name: &str, constants: &[(&str, u32)]) -> u32 {
        let rest: Vec<u32> = constants.iter().flat_map(|&(n, value)| [self.string(n), value]).collect();
        self.add(name, ENUM, constants.len(), 4, &rest)
    }

    pub(crate) fn array(&mut self, of: u32, count: u32) -> u32 {
        self.add("", ARRAY, 0, 0, &[of, 0, count])
    }

    pub(crate) fn union(&mut self, size: u32, members: &[(&str, u32)]) -> u32 {
        let rest: Vec<u32> = members.iter().flat_map(|&(n, t)| [self.string(n), t, 0]).collect();
        self.add("", UNION, members.len(), size, &rest)
    }

    /// A tracepoint with these argument types.
    pub(crate) fn tracepoint(&mut self, name: &str, arguments: &[u32]) {
        let void_ptr = self.ptr(0);
        let rest: Vec<u32> = [void_ptr].iter().chain(arguments).flat_map(|&t| [0, t]).collect();
        let proto = self.add("", FUNC_PROTO, arguments.len() + 1, 0, &rest);
        let pointer = self.ptr(proto);
        self.typedef(&format!("btf_trace_{name}"), pointer);
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(MAGIC.to_ne_bytes());
        out.extend([1, 0]);
        let layout: Vec<u8> =
            self.layout.iter().flatten().flat_map(|[fixed, element]| [*fixed, *element, 0, 0]).collect();
        let (t, l, s) = (word(self.types.len()), word(layout.len()), word(self.strings.len()));
        let header = if layout.is_empty() { HEADER } else { HEADER_WITH_LAYOUT };
        // The sections lie in another order than the header names them: types, layout, strings.
        let words = [word(header), 0, t, t + l, s, t, l];
        for word in &words[..(header - 4) / size_of::<u32>()] {
            out.extend(word.to_ne_bytes());
        }
        out.extend(&self.types);
        out.extend(&layout);
        out.extend(&self.strings);
        out
    }
}
