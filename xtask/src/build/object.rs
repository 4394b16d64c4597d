//! Removes the parts of an eBPF object file that the loader does not need.

use anyhow::{Context, Result};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// Replaces characters that the kernel rejects in names of unions, such as `MaybeUninit<u8>` of aya-log; bpf-linker
/// 0.10 does so for structures only. Returns none if the BTF is cut off. Format: Documentation/bpf/btf.rst.
fn name_unions(btf: &mut [u8]) -> Option<()> {
    const UNION: usize = 5;
    let word = |btf: &[u8], at: usize| Some(u32::from_le_bytes(btf.get(at..at + 4)?.try_into().ok()?) as usize);
    let header = word(btf, 4)?;
    let (mut at, end) = (header + word(btf, 8)?, header + word(btf, 8)? + word(btf, 12)?);
    let strings = header + word(btf, 16)?;
    while at < end {
        let info = word(btf, at + 4)?;
        let (kind, vlen) = (info >> 24 & 0x1f, info & 0xffff);
        if kind == UNION {
            let name = strings + word(btf, at)?;
            let odd = |c: &&mut u8| !c.is_ascii_alphanumeric() && **c != b'_';
            btf.get_mut(name..)?.iter_mut().take_while(|c| **c != 0).filter(odd).for_each(|c| *c = b'_');
        }
        at += 12
            + match kind {
                // INT, VAR, DECL_TAG
                1 | 14 | 17 => 4,
                // ARRAY
                3 => 12,
                // STRUCT, UNION, DATASEC, ENUM64
                4 | UNION | 15 | 19 => vlen * 12,
                // ENUM, FUNC_PROTO
                6 | 13 => vlen * 8,
                _ => 0,
            };
    }
    Some(())
}

/// Returns an object file without its DWARF, with valid names in its BTF: code, maps and BTF remain.
pub(super) fn without_dwarf(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(bytes).context("read the object")?;
    for section in elf.sections.iter_mut() {
        let name = section.name.to_string();
        let debug = name.starts_with(".debug_") || name.starts_with(".rel.debug_");
        if name == ".BTF"
            && let SectionData::Data(btf) = &mut section.data
        {
            name_unions(btf.to_mut()).context("read the object's BTF")?;
        }
        // Relocations of BTF serve linkers only, and point at symbols of sections that are deleted here.
        section.delete = debug || name == ".rel.BTF" || name == ".rel.BTF.ext";
    }
    let dead: Vec<_> = elf.sections.iter().filter(|s| s.delete).map(|s| s.id()).collect();
    for symbol in elf.symbols.iter_mut() {
        symbol.delete = symbol.section.is_some_and(|s| dead.contains(&s));
    }
    // LLVM keeps the names of sections in .strtab; the writer wants a section of their own.
    let names = elf.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut out = Vec::new();
    elf.write(&mut out).context("write the object")?;
    Ok(out)
}
