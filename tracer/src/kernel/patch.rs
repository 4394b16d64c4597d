//! Writes what only the running host knows into the eBPF object before aya loads it.
//!
//! The object is compiled once, for every kernel. Three things that its programs need are known only when they are loaded, and none of them
//! can be handed over by aya's own means. So the loader edits a copy of the object's bytes:
//!
//! 1. **Constants.** Field offsets, filters and sizes ([`Slot`](tracer_common::Slot)s) could be globals in `.rodata`, which aya can set and whose
//!    values the verifier knows too (commit a23740ec43ba, Linux 5.5). But a global costs a load from memory at each use. As the immediate of a
//!    64-bit load instruction (`lddw`) it costs none, and the verifier prunes every branch that the value rules out: on an AMD host no VMX code
//!    is left, and fields that this kernel does not have cost nothing. In the object, slot `n` is the immediate `PLACE + n`;
//!    [`write_constants`] replaces it by the slot's value. `PLACE + n` is negative as a signed number, and a negative value means absent:
//!    in an object that was not patched, every slot is absent and the programs do nothing.
//!
//!    The call of `bpf_rdonly_cast` is patched the same way: the kernel's BTF id of that function replaces a helper number that does not
//!    exist. The call is dead code where the kernel lacks the function.
//!
//! 2. **Addresses of maps.** Each big array ([`Region`]) is the only value of an array map. A look-up by helper takes ten instructions and a
//!    key on the stack at each use; an `lddw` with the pseudo source `BPF_PSEUDO_MAP_VALUE` gives the value's address at once. That
//!    instruction names the map by its file descriptor. aya writes it for data sections only (`.data`, `.rodata`, `.bss`), not for other
//!    maps, and takes a program's code as it is when it parses the object, before it creates the maps. So the descriptor must stand in
//!    the code before there is a map. [`PlaceholderFds`] opens one descriptor per region (of /dev/null), whose numbers are written into the
//!    code. After aya has created the maps and before it loads a program, `dup3` makes each number refer to its map; the kernel resolves the
//!    numbers when it verifies a program. The descriptors may be closed once all programs are loaded, because a program holds its maps.
//!
//! 3. **Lengths of arrays.** How long a region must be depends on the CPUs and on `--ring-kib`. aya can override the number of entries of a
//!    map, but not the size of its values, and here the value is the array. aya (like libbpf) takes the value size from the BTF type of the map's
//!    definition. Each region is therefore declared with a length of its own that occurs nowhere else ([`Region::length`]), and
//!    [`write_lengths`] finds the BTF array of that length and writes the length that is wanted.
//!
//! Only immediates and source registers in executable sections change, and the lengths in `.BTF`. Other sections may contain the same byte
//! patterns by chance (debug information, strings) and are never touched; a test holds both.
//!
//! Formats: Documentation/bpf/standardization/instruction-set.rst and Documentation/bpf/btf.rst of the kernel.

use std::{
    fs::File,
    ops::Range,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use anyhow::{Context, Result, ensure};
use aya_obj::generated::{BPF_PSEUDO_KFUNC_CALL, BPF_PSEUDO_MAP_VALUE};
use object::{Object as _, ObjectSection as _, SectionKind};
use rustix::io::{DupFlags, dup3};
use tracer_common::{
    Config, Region,
    config::{CAST_HELPER, PLACE, REGION},
};

use crate::kernel::{btf::Btf, layout::Cast};

/// Opcode of a call; the immediate says which function.
const CALL: u8 = 0x85;
/// Opcode of a 64-bit load (`lddw`): two instructions, each with one half of the value as its immediate.
const LOAD: u8 = 0x18;

/// An instruction: opcode, registers (source in the high half), offset (2 bytes), immediate (4 bytes).
type Instruction = [u8; 8];

/// File descriptors that stand in the code for the maps of the regions until the maps exist.
pub(super) struct PlaceholderFds([OwnedFd; Region::ALL.len()]);

impl PlaceholderFds {
    /// Opens a descriptor for each region.
    pub(super) fn reserve() -> Result<Self> {
        let open = || File::open("/dev/null").map(OwnedFd::from).context("open /dev/null");
        Ok(Self([open()?, open()?, open()?, open()?, open()?, open()?]))
    }

    /// Makes a region's descriptor refer to its map.
    pub(super) fn replace(&mut self, region: Region, map: BorrowedFd<'_>) -> rustix::io::Result<()> {
        dup3(map, &mut self.0[region as usize], DupFlags::CLOEXEC)
    }

    fn number(&self, region: usize) -> Option<RawFd> {
        self.0.get(region).map(AsRawFd::as_raw_fd)
    }
}

/// A copy of `object` with its constants, map descriptors and array lengths replaced. `length` gives the elements of a region's array.
pub(super) fn patched(
    object: &[u8],
    config: &Config,
    cast: Option<Cast>,
    placeholders: &PlaceholderFds,
    length: impl Fn(Region) -> usize,
) -> Result<Vec<u8>> {
    let mut object = object.to_vec();
    for section in code_sections(&object)? {
        write_constants(&mut object[section], config, cast, placeholders);
    }
    write_lengths(&mut object, length)?;
    Ok(object)
}

/// Returns the ranges of the executable sections in the file.
fn code_sections(object: &[u8]) -> Result<Vec<Range<usize>>> {
    let elf = object::File::parse(object).context("read the eBPF object")?;
    let code = elf.sections().filter(|section| section.kind() == SectionKind::Text);
    code.map(|section| file_range(&section)).collect()
}

fn file_range<'data>(section: &impl object::ObjectSection<'data>) -> Result<Range<usize>> {
    let (start, size) =
        section.file_range().context("find a section of the eBPF object: it has no bytes in the file")?;
    let (start, size) = (usize::try_from(start)?, usize::try_from(size)?);
    Ok(start..start + size)
}

/// Replaces the immediates that stand for slots, regions and `bpf_rdonly_cast` in a section of code.
fn write_constants(code: &mut [u8], config: &Config, cast: Option<Cast>, placeholders: &PlaceholderFds) {
    let (instructions, _) = code.as_chunks_mut::<8>();
    for at in 0..instructions.len() {
        match &mut instructions[at..] {
            [call, ..] if call[0] == CALL && immediate(call) == CAST_HELPER => {
                if let Some(cast) = cast {
                    set_source(call, BPF_PSEUDO_KFUNC_CALL);
                    set_immediate(call, cast.function);
                }
            }
            [low, high, ..] if low[0] == LOAD => {
                let constant = u64::from(immediate(high)) << 32 | u64::from(immediate(low));
                let index = |from: u64| constant.checked_sub(from).and_then(|index| usize::try_from(index).ok());
                if let Some(fd) = index(REGION).and_then(|region| placeholders.number(region)) {
                    // Low half: the map's descriptor; high half: an offset in its value.
                    set_source(low, BPF_PSEUDO_MAP_VALUE);
                    set_immediate(low, fd.cast_unsigned());
                    set_immediate(high, 0);
                } else if let Some(value) = index(PLACE).and_then(|slot| config.0.get(slot)) {
                    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
                    low[4..].copy_from_slice(&[a, b, c, d]);
                    high[4..].copy_from_slice(&[e, f, g, h]);
                }
            }
            _ => {}
        }
    }
}

fn immediate(instruction: &Instruction) -> u32 {
    let [_, _, _, _, immediate @ ..] = *instruction;
    u32::from_le_bytes(immediate)
}

fn set_immediate(instruction: &mut Instruction, value: u32) {
    instruction[4..].copy_from_slice(&value.to_le_bytes());
}

/// Sets the pseudo source register, which says what the immediate means; it is 0 before.
fn set_source(instruction: &mut Instruction, pseudo: u32) {
    instruction[1] |= pseudo.to_le_bytes()[0] << 4;
}

/// Replaces the lengths of the regions' arrays in the object's BTF.
fn write_lengths(object: &mut [u8], length: impl Fn(Region) -> usize) -> Result<()> {
    for (at, region) in length_places(object)? {
        let length = u32::try_from(length(region)).with_context(|| format!("array {region:?}: too long"))?;
        object[at..at + 4].copy_from_slice(&length.to_ne_bytes());
    }
    Ok(())
}

/// Returns the offsets in the file of the lengths of the regions' arrays: four bytes each.
fn length_places(object: &[u8]) -> Result<Vec<(usize, Region)>> {
    let elf = object::File::parse(object).context("read the eBPF object")?;
    let section = elf.section_by_name(".BTF").context("find the object's BTF")?;
    let start = file_range(&section)?.start;
    let btf = Btf::parse(section.data().context("read the object's BTF")?, None)?;
    let region = |length: u32| Region::ALL.into_iter().find(|region| region.length() == length as usize);
    let places: Vec<_> = btf.array_lengths().filter_map(|(at, now)| Some((start + at, region(now)?))).collect();
    ensure!(places.len() == Region::ALL.len(), "the object has {} of {} arrays", places.len(), Region::ALL.len());
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::tracer::OBJECT;

    const CAST: Cast = Cast { function: 0x0123_4567, structure: 77 };

    /// Every slot has another value, none of which is a placeholder.
    fn config() -> Config {
        let mut config = Config::empty();
        for (value, slot) in (1000..).zip(&mut config.0) {
            *slot = value;
        }
        config
    }

    fn patch(object: &[u8]) -> Vec<u8> {
        let placeholders = PlaceholderFds::reserve().unwrap();
        patched(object, &config(), Some(CAST), &placeholders, |region| 17 + region as usize).unwrap()
    }

    fn section(object: &[u8], name: &str) -> Range<usize> {
        let elf = object::File::parse(object).unwrap();
        file_range(&elf.section_by_name(name).unwrap()).unwrap()
    }

    /// The two instructions that load `value`, as the programs load a slot.
    fn load(value: u64) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        [LOAD, 1, 0, 0, a, b, c, d, 0, 0, 0, 0, e, f, g, h]
    }

    #[test]
    fn bytes_outside_code_sections_and_array_lengths_stay_as_they_are() {
        let after = patch(OBJECT);
        assert_eq!(after.len(), OBJECT.len());
        let code = code_sections(OBJECT).unwrap();
        let lengths: Vec<_> = length_places(OBJECT).unwrap().into_iter().map(|(at, _)| at..at + 4).collect();
        let changed = |range: &Range<usize>| OBJECT[range.clone()] != after[range.clone()];
        assert!(code.iter().any(changed) && lengths.iter().all(changed));
        let may_change = |at: &usize| code.iter().chain(&lengths).any(|range| range.contains(at));
        let strays: Vec<_> =
            (0..OBJECT.len()).filter(|&at| OBJECT[at] != after[at]).filter(|at| !may_change(at)).collect();
        assert!(strays.is_empty(), "changed: {strays:x?}");
    }

    #[test]
    fn a_word_that_looks_like_a_constant_is_replaced_in_code_only() {
        let mut object = OBJECT.to_vec();
        let (text, data) = (section(OBJECT, ".text"), section(OBJECT, ".maps"));
        assert!(data.start.is_multiple_of(8), "the planted word must lie where instructions could");
        for planted in [&text, &data] {
            object[planted.start..][..16].copy_from_slice(&load(PLACE + 3));
        }
        let after = patch(&object);
        assert_eq!(after[text.start..][..16], load(1003));
        assert_eq!(after[data.start..][..16], load(PLACE + 3));
    }

    #[test]
    fn no_placeholder_is_left_in_the_code() {
        let after = patch(OBJECT);
        let (mut constants, mut calls) = (0, 0);
        let patched_ones = |object: &[u8], constants: &mut u32, calls: &mut u32| {
            for section in code_sections(object).unwrap() {
                let (instructions, _) = object[section].as_chunks::<8>();
                for pair in instructions.windows(2) {
                    let value = u64::from(immediate(&pair[1])) << 32 | u64::from(immediate(&pair[0]));
                    *constants += u32::from(pair[0][0] == LOAD && (PLACE..REGION + 256).contains(&value));
                    *calls += u32::from(pair[0][0] == CALL && immediate(&pair[0]) == CAST_HELPER);
                }
            }
        };
        patched_ones(OBJECT, &mut constants, &mut calls);
        assert!(constants > 0 && calls > 0);
        (constants, calls) = (0, 0);
        patched_ones(&after, &mut constants, &mut calls);
        assert_eq!((constants, calls), (0, 0));
    }

    #[test]
    fn a_region_is_loaded_by_its_placeholders_number() {
        let placeholders = PlaceholderFds::reserve().unwrap();
        let mut code = load(REGION + Region::Records as u64);
        write_constants(&mut code, &config(), None, &placeholders);
        let (instructions, _) = code.as_chunks::<8>();
        let fd = placeholders.0[Region::Records as usize].as_raw_fd();
        assert_eq!((immediate(&instructions[0]), immediate(&instructions[1])), (fd.cast_unsigned(), 0));
        assert_eq!(u32::from(instructions[0][1] >> 4), BPF_PSEUDO_MAP_VALUE);
    }

    #[test]
    fn array_lengths_are_those_asked_for() {
        let after = patch(OBJECT);
        for (at, region) in length_places(OBJECT).unwrap() {
            let length = u32::from_ne_bytes(after[at..at + 4].try_into().unwrap());
            assert_eq!(length as usize, 17 + region as usize);
        }
    }
}
