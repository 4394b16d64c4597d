//! Reads a kernel module's file. Pure: bytes in, values out.

use anyhow::{Context, Result};
use object::elf::SHF_EXECINSTR;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags};
use std::collections::BTreeMap;

/// A kernel module.
pub(crate) struct Module<'a> {
    file: ElfFile64<'a>,
}

/// A section of machine code, before the kernel fills in addresses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Code<'a> {
    /// Name of the section.
    pub(crate) name: String,
    /// Its bytes, with gaps for the addresses.
    pub(crate) bytes: &'a [u8],
    /// Addresses for the gaps: offset, type, symbol or section, addend.
    pub(crate) relocations: Vec<(u64, u32, String, i64)>,
}

impl<'a> Module<'a> {
    /// Parses the file of a 64-bit module.
    pub(crate) fn parse(content: &'a [u8]) -> Result<Module<'a>> {
        Ok(Module { file: ElfFile64::parse(content).context("read module")? })
    }

    /// Returns the values of a key in `.modinfo`, which consists of strings `KEY=VALUE`.
    pub(crate) fn information(&self, key: &str) -> Vec<String> {
        let strings = self.section(".modinfo").unwrap_or_default().split(|&byte| byte == 0);
        let values = strings.filter_map(|string| string.strip_prefix(key.as_bytes())?.strip_prefix(b"="));
        values.map(|value| String::from_utf8_lossy(value).into_owned()).collect()
    }

    /// Returns the vermagic: release and build options of the kernel that the module is for.
    pub(crate) fn version_magic(&self) -> Result<String> {
        self.information("vermagic").pop().context("find vermagic in module")
    }

    /// Returns the BTF of the module's own types.
    pub(crate) fn btf(&self) -> Option<&'a [u8]> {
        self.section(".BTF")
    }

    /// Returns the symbols imported from the kernel and other modules, with their CRCs (struct modversion_info); no CRCs
    /// if the kernel is built without CONFIG_MODVERSIONS, as Debian's are since Linux 6.18.
    pub(crate) fn imports(&self) -> Result<BTreeMap<String, Option<u64>>> {
        let Some(versions) = self.section("__versions") else {
            let names = self.file.symbols().filter(|symbol| symbol.is_undefined()).map(|symbol| symbol.name());
            // The first symbol of every file is undefined and has no name.
            return names.filter(|name| *name != Ok("")).map(|name| Ok((name?.to_owned(), None))).collect();
        };
        let (rows, _) = versions.as_chunks::<64>();
        let import = |row: &[u8; 64]| {
            let (crc, name) = row.split_first_chunk()?;
            let name = name.split(|&byte| byte == 0).next()?;
            Some((String::from_utf8_lossy(name).into_owned(), Some(u64::from_le_bytes(*crc))))
        };
        Ok(rows.iter().filter_map(import).collect())
    }

    /// Whether the module defines a symbol, global or local.
    pub(crate) fn defines(&self, name: &str) -> bool {
        self.file.symbols().any(|symbol| symbol.is_definition() && symbol.name() == Ok(name))
    }

    /// Returns all sections of machine code.
    pub(crate) fn code(&self) -> Result<Vec<Code<'a>>> {
        let sections = self.file.sections().filter(|section| {
            matches!(section.flags(), SectionFlags::Elf { sh_flags } if sh_flags & u64::from(SHF_EXECINSTR) != 0)
        });
        sections
            .map(|section| {
                let relocations = section.relocations().map(|(offset, relocation)| {
                    let target = self.name_of(relocation.target())?;
                    let RelocationFlags::Elf { r_type } = relocation.flags() else { return Ok((offset, 0, target, 0)) };
                    Ok((offset, r_type, target, relocation.addend()))
                });
                let relocations = relocations.collect::<Result<_>>()?;
                Ok(Code { name: section.name()?.to_owned(), bytes: section.data()?, relocations })
            })
            .collect()
    }

    fn name_of(&self, target: RelocationTarget) -> Result<String> {
        let RelocationTarget::Symbol(index) = target else { return Ok(format!("{target:?}")) };
        let symbol = self.file.symbol_by_index(index)?;
        match symbol.section_index() {
            // Symbols of sections have no name.
            Some(section) if symbol.name()?.is_empty() => Ok(self.file.section_by_index(section)?.name()?.to_owned()),
            _ => Ok(symbol.name()?.to_owned()),
        }
    }

    fn section(&self, name: &str) -> Option<&'a [u8]> {
        self.file.section_by_name_bytes(name.as_bytes())?.data().ok()
    }
}

/// Addresses for the gaps in a section of machine code.
type Relocations = [(u64, u32, String, i64)];

/// Compares relocations, but not which place within read-only data they are for: paths of source files are there, and
/// since Linux 6.13 they are shorter in a module that is built alone than in one that is built with the kernel.
fn same_relocations(ours: &Relocations, theirs: &Relocations) -> bool {
    ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|(our, their)| {
            our == their || ((our.0, our.1, &our.2) == (their.0, their.1, &their.2) && our.2 == ".rodata")
        })
}

/// Returns a message for each section of machine code that differs.
pub(crate) fn differences(ours: &[Code], theirs: &[Code]) -> Vec<String> {
    let by_name = |code: &Code, other: &[Code]| other.iter().position(|candidate| candidate.name == code.name);
    let mut found: Vec<_> = theirs
        .iter()
        .filter(|code| by_name(code, ours).is_none())
        .map(|code| format!("{} is missing", code.name))
        .collect();
    for code in ours {
        match by_name(code, theirs).map(|index| &theirs[index]) {
            None => found.push(format!("{} is new", code.name)),
            Some(their) if code.bytes != their.bytes => {
                let same = code.bytes.iter().zip(their.bytes).take_while(|(a, b)| a == b).count();
                found.push(format!("{} differs from {same:#x} on", code.name));
            }
            Some(their) if !same_relocations(&code.relocations, &their.relocations) => {
                found.push(format!("{} has other relocations", code.name))
            }
            Some(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::write::{Object as Writer, Relocation, Symbol, SymbolSection};
    use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

    fn module(target: &str) -> Vec<u8> {
        file(target, true)
    }

    fn file(target: &str, has_versions: bool) -> Vec<u8> {
        let mut file = Writer::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let mut section = |name: &str, kind, content: &[u8]| {
            let id = file.add_section(Vec::new(), name.as_bytes().to_vec(), kind);
            file.append_section_data(id, content, 1);
            id
        };
        section(".modinfo", SectionKind::ReadOnlyData, b"name=kvm_intel\0parm=a:x\0parm=b:y\0vermagic=6.1 SMP \0");
        if has_versions {
            let import =
                |crc: u64, name: &str| [&crc.to_le_bytes()[..], name.as_bytes(), &[0; 56][name.len()..]].concat();
            let imports = [import(7, "printk"), import(0xdead_beef, "kvm_init")].concat();
            section("__versions", SectionKind::ReadOnlyData, &imports);
        }
        let text = section(".text", SectionKind::Text, &[0xe8, 0, 0, 0, 0, 0xc3]);
        let symbol = file.add_symbol(Symbol {
            name: target.as_bytes().to_vec(),
            value: 0,
            size: 0,
            kind: SymbolKind::Text,
            scope: SymbolScope::Unknown,
            weak: false,
            section: SymbolSection::Undefined,
            flags: SymbolFlags::None,
        });
        let flags = RelocationFlags::Elf { r_type: object::elf::R_X86_64_PLT32 };
        file.add_relocation(text, Relocation { offset: 1, symbol, addend: -4, flags }).unwrap();
        file.write().unwrap()
    }

    #[test]
    fn the_values_of_a_module_are_read() {
        let content = module("printk");
        let module = Module::parse(&content).unwrap();
        assert_eq!(module.version_magic().unwrap(), "6.1 SMP ");
        assert_eq!(module.information("parm"), ["a:x", "b:y"]);
        assert!(module.information("arm").is_empty());
        assert!(module.btf().is_none());
        assert!(!module.defines("printk"), "it is only imported");
        let imports = [("kvm_init".to_owned(), Some(0xdead_beef)), ("printk".to_owned(), Some(7))];
        assert_eq!(module.imports().unwrap(), BTreeMap::from(imports));
        let content = file("printk", false);
        let without_versions = Module::parse(&content).unwrap().imports().unwrap();
        assert_eq!(without_versions, BTreeMap::from([("printk".to_owned(), None)]), "undefined symbols");
        assert!(Module::parse(b"\x7fELF").is_err());
    }

    #[test]
    fn code_is_compared_with_its_relocations() {
        let (ours, same, other) = (module("printk"), module("printk"), module("panic"));
        let code = |content| Module::parse(content).unwrap().code().unwrap();
        assert_eq!(code(&ours).len(), 1);
        assert_eq!(code(&ours)[0].relocations, [(1, object::elf::R_X86_64_PLT32, "printk".to_owned(), -4)]);
        assert!(differences(&code(&ours), &code(&same)).is_empty());
        assert_eq!(differences(&code(&ours), &code(&other)), [".text has other relocations"]);
        assert_eq!(differences(&code(&ours), &[]), [".text is new"]);
        assert_eq!(differences(&[], &code(&ours)), [".text is missing"]);
        let moved = |target: &str| {
            let mut changed = code(&same);
            changed[0].relocations[0] = (1, object::elf::R_X86_64_32S, target.to_owned(), 13);
            changed
        };
        let mut base = moved(".rodata");
        base[0].relocations[0].3 = 0;
        assert!(differences(&moved(".rodata"), &base).is_empty(), "paths of source files have other lengths");
        base[0].relocations[0].2 = ".data".to_owned();
        assert_eq!(differences(&moved(".data"), &base), [".text has other relocations"]);
        let mut changed = code(&same);
        changed[0].bytes = &[0xe8, 0, 0, 0, 0, 0xcc];
        assert_eq!(differences(&code(&ours), &changed), [".text differs from 0x5 on"]);
    }
}
