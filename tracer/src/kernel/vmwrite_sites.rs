//! Finds the instructions of a kvm_intel module that write a VMCS field, in its machine code, as symbol and offset: places for kprobes on a
//! kernel without the companion patch. Pure over the module's bytes.
//!
//! VMWRITE takes the field in a register, which compilers load with a constant right before it:
//! `[41] b8+r imm32(field)  [40-4f] 0f 79 modrm`, where modrm.reg is the register that was loaded. Seven distribution builds of 6.1
//! and 6.12 have no other form and no false match. VMWRITEs with a variable field (copies between vmcs12 and a shadow VMCS,
//! emulated VMWRITEs) write other VMCSs; the pattern leaves them out.

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};
use serde::{Deserialize, Serialize};
use tracer_common::rules::Control;

/// Encoding of the pin-based VM-execution controls (SDM vol. 3, appendix B).
pub(crate) const PIN_CONTROLS: u32 = Control::Pin.encoding();

/// An instruction sequence in a module's code that writes a VMCS field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// the function
    pub symbol: String,
    /// bytes from its beginning to the instruction that loads the field's encoding; a probe there costs one trap, on the VMWRITE two
    pub offset: u64,
}

impl Site {
    /// "function+0x1f"
    pub fn name(&self) -> String {
        format!("{}+{:#x}", self.symbol, self.offset)
    }
}

/// All sites that write the field of this encoding, in the order of the code.
pub(crate) fn find(module: &[u8], field: u32) -> Result<Vec<Site>> {
    let elf = object::File::parse(module).context("read the module")?;
    let mut sites = Vec::new();
    for section in elf.sections().filter(|s| s.kind() == SectionKind::Text) {
        let code = section.data().context("read the module's code")?;
        for at in matches(code, field) {
            let at = at as u64;
            let function = elf.symbols().find(|s| {
                s.kind() == SymbolKind::Text
                    && s.section_index() == Some(section.index())
                    && (s.address()..s.address() + s.size().max(1)).contains(&at)
            });
            // Code outside functions cannot be probed by name. No known build has any there.
            let function = function.with_context(|| format!("site at {at:#x}: no function there"))?;
            sites.push(Site {
                symbol: function.name().context("read a symbol")?.to_owned(),
                offset: at - function.address(),
            });
        }
    }
    Ok(sites)
}

/// Offsets of the instructions that load the field for a VMWRITE.
fn matches(code: &[u8], field: u32) -> Vec<usize> {
    let constant = field.to_le_bytes();
    let candidates = code.windows(4).enumerate().filter(|(_, w)| *w == constant).map(|(at, _)| at);
    candidates.filter_map(|at| match_at(code, at)).collect()
}

/// Offset of the loading instruction whose constant is at `at`; none where no VMWRITE of it follows.
fn match_at(code: &[u8], at: usize) -> Option<usize> {
    let opcode = *code.get(at.checked_sub(1)?)?;
    if !(0xb8..=0xbf).contains(&opcode) {
        return None;
    }
    let extended = at >= 2 && code[at - 2] == 0x41;
    let loaded = opcode - 0xb8 + if extended { 8 } else { 0 };
    let mut next = at + 4;
    let rex = code.get(next).copied().filter(|b| b & 0xf0 == 0x40).unwrap_or(0);
    next += usize::from(rex != 0);
    if code.get(next..next + 2)? != [0x0f, 0x79] {
        return None;
    }
    // ModRM.reg of VMWRITE is the register with the field, extended by REX.R.
    let modrm = *code.get(next + 2)?;
    let register = (modrm >> 3 & 7) | (rex & 4) << 1;
    (register == loaded).then_some(at - 1 - usize::from(extended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_load_before_its_vmwrite_is_a_site() {
        // mov $0x4000,%eax; vmwrite %rsi,%rax
        assert_eq!(matches(&[0x90, 0xb8, 0, 0x40, 0, 0, 0x0f, 0x79, 0xc6], 0x4000), [1]);
        // mov $0x4000,%r10d; vmwrite %rbx,%r10
        assert_eq!(matches(&[0x41, 0xba, 0, 0x40, 0, 0, 0x4c, 0x0f, 0x79, 0xd3], 0x4000), [0]);
        // mov $0x4000,%ecx; vmwrite 0x10(%rsp),%rcx: clang's form
        assert_eq!(matches(&[0xb9, 0, 0x40, 0, 0, 0x0f, 0x79, 0x4c, 0x24, 0x10], 0x4000), [0]);
    }

    #[test]
    fn other_code_is_not_a_site() {
        // VMREAD (0f 78)
        assert!(matches(&[0xb8, 0, 0x40, 0, 0, 0x0f, 0x78, 0xc6], 0x4000).is_empty());
        // the field is in another register
        assert!(matches(&[0xb8, 0, 0x40, 0, 0, 0x0f, 0x79, 0xce], 0x4000).is_empty());
        // another field
        assert!(matches(&[0xb8, 2, 0x40, 0, 0, 0x0f, 0x79, 0xc6], 0x4000).is_empty());
        // no load at all
        assert!(matches(&[0x90, 0, 0x40, 0, 0, 0x0f, 0x79, 0xc6], 0x4000).is_empty());
        // cut off
        for end in 0..9 {
            assert!(matches(&[0xb8, 0, 0x40, 0, 0, 0x0f, 0x79, 0xc6][..end.min(7)], 0x4000).is_empty());
        }
    }

    #[test]
    fn bytes_that_are_not_a_module_are_an_error() {
        assert!(find(b"not an ELF file", PIN_CONTROLS).is_err());
    }
}
