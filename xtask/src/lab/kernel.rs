//! Kernel images: from vmlinuz to vmlinux to one flat piece of memory with its PVH entry.

use anyhow::{Context, Result, bail, ensure};

/// A kernel's memory.
#[derive(Debug)]
pub(crate) struct Image {
    /// Physical address of the first byte.
    pub(crate) base: u32,
    /// Physical address of the PVH entry point.
    pub(crate) entry: u32,
    /// Bytes of memory that it takes, zeroed parts included.
    pub(crate) memory_size: u64,
    /// Content of the memory up to the last byte that is not zero.
    pub(crate) bytes: Vec<u8>,
}

/// Returns the compressed vmlinux inside a vmlinuz, and the command that decompresses it.
pub(crate) fn payload(vmlinuz: &[u8]) -> Result<(&'static [&'static str], &[u8])> {
    // Documentation/arch/x86/boot.rst: setup_sects, header magic, payload_offset, payload_length.
    ensure!(vmlinuz.get(0x202..0x206) == Some(b"HdrS"), "read setup header: not a vmlinuz");
    let setup_sectors = match vmlinuz[0x1f1] {
        0 => 4,
        n => usize::from(n),
    };
    let offset = (setup_sectors + 1) * 512 + word(vmlinuz, 0x248)? as usize;
    let length = word(vmlinuz, 0x24c)? as usize;
    let payload = vmlinuz.get(offset..offset.saturating_add(length)).context("read payload: vmlinuz is too short")?;
    // The last four bytes are the size of the decompressed kernel, not part of the compressed stream.
    let stream = &payload[..payload.len().saturating_sub(4)];
    for (magic, command) in [
        (&b"\x28\xb5\x2f\xfd"[..], &["zstd", "-dcq"][..]),
        (b"\xfd7zXZ", &["xz", "-dcq"]),
        (b"\x1f\x8b", &["gzip", "-dcq"]),
        // LZMA has no magic: these are its usual properties, and the low bytes of the dictionary's size.
        (b"\x5d\0\0", &["xz", "--format=lzma", "-dcq"]),
    ] {
        if stream.starts_with(magic) {
            return Ok((command, stream));
        }
    }
    bail!("read payload: unknown compression {:02x?}", &stream[..stream.len().min(4)])
}

/// Lays out the loadable segments of a vmlinux as memory.
pub(crate) fn flatten(elf: &[u8]) -> Result<Image> {
    const PT_LOAD: u32 = 1;
    const PT_NOTE: u32 = 4;
    ensure!(elf.starts_with(b"\x7fELF\x02\x01"), "read vmlinux: not a 64-bit little-endian ELF file");
    let table = usize::try_from(long(elf, 32)?)?;
    let rows = u16::from_le_bytes(field(elf, 56)?);
    let mut loads = Vec::new();
    let mut entry = None;
    for row in 0..usize::from(rows) {
        let at = table + 56 * row;
        let offset = usize::try_from(long(elf, at + 8)?)?;
        let file_size = usize::try_from(long(elf, at + 32)?)?;
        let content =
            elf.get(offset..offset.saturating_add(file_size)).context("read vmlinux: a segment is cut off")?;
        match word(elf, at)? {
            PT_LOAD => loads.push((long(elf, at + 24)?, long(elf, at + 40)?, content)),
            PT_NOTE => entry = entry.or(pvh_entry(content)?),
            _ => {}
        }
    }
    let base = loads.iter().map(|&(address, ..)| address).min().context("read vmlinux: no loadable segment")?;
    let end = loads.iter().map(|&(address, size, _)| address.saturating_add(size)).max().unwrap_or(base);
    ensure!(end <= 1 << 32, "read vmlinux: segments lie above 4 GB");
    let mut bytes = Vec::new();
    for &(address, _, content) in &loads {
        let start = (address - base) as usize;
        bytes.resize(bytes.len().max(start + content.len()), 0);
        bytes[start..start + content.len()].copy_from_slice(content);
    }
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(used);
    Ok(Image {
        base: u32::try_from(base)?,
        entry: entry.context("find PVH entry: kernel is built without CONFIG_PVH")?,
        memory_size: end - base,
        bytes,
    })
}

/// Returns the address in the note XEN_ELFNOTE_PHYS32_ENTRY, if it is among these notes.
fn pvh_entry(mut notes: &[u8]) -> Result<Option<u32>> {
    const PHYS32_ENTRY: u32 = 18;
    while notes.len() >= 12 {
        let (name_size, size, kind) = (word(notes, 0)? as usize, word(notes, 4)? as usize, word(notes, 8)?);
        let start = 12 + name_size.next_multiple_of(4);
        let name = notes.get(12..12 + name_size).context("read notes: cut off")?;
        if name == b"Xen\0" && kind == PHYS32_ENTRY {
            return word(notes, start).map(Some);
        }
        notes = notes.get(start + size.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(None)
}

fn word(bytes: &[u8], offset: usize) -> Result<u32> {
    field(bytes, offset).map(u32::from_le_bytes)
}

fn long(bytes: &[u8], offset: usize) -> Result<u64> {
    field(bytes, offset).map(u64::from_le_bytes)
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N]> {
    let field = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    field.copied().with_context(|| format!("read kernel image: ends before {offset:#x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with two loadable segments and a note segment with a foreign note before Xen's.
    fn elf(note_kind: u32) -> Vec<u8> {
        let notes = [&[4, 2, 7_u32].map(u32::to_le_bytes).concat()[..], b"GNU\0", b"ab\0\0"].concat();
        let notes =
            [&notes[..], &[4, 4, note_kind].map(u32::to_le_bytes).concat(), b"Xen\0", &[0x78, 0x56, 0x34, 0x12]];
        let notes = notes.concat();
        let mut elf = vec![0; 0x400];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32..40].copy_from_slice(&64_u64.to_le_bytes());
        elf[56..58].copy_from_slice(&3_u16.to_le_bytes());
        // kind, flags | offset | virtual address | physical address | file size | memory size | alignment
        let rows: [[u64; 7]; 3] = [
            [1, 0x300, 0xffff_0000, 0x100_1000, 4, 0x3000, 0],
            [1, 0x310, 0xffff_0000, 0x100_0000, 8, 8, 0],
            [4, 0x200, 0, 0, notes.len() as u64, 0, 0],
        ];
        for (i, row) in rows.into_iter().enumerate() {
            elf[64 + 56 * i..64 + 56 * (i + 1)].copy_from_slice(&row.map(u64::to_le_bytes).concat());
        }
        elf[0x300..0x304].copy_from_slice(b"wxy\0");
        elf[0x310..0x318].copy_from_slice(b"abcdefgh");
        elf[0x200..0x200 + notes.len()].copy_from_slice(&notes);
        elf
    }

    #[test]
    fn segments_lie_at_their_physical_addresses() {
        let image = flatten(&elf(18)).unwrap();
        assert_eq!((image.base, image.memory_size), (0x100_0000, 0x4000));
        assert_eq!(&image.bytes[..8], b"abcdefgh");
        assert!(image.bytes[8..0x1000].iter().all(|&byte| byte == 0));
        assert_eq!(&image.bytes[0x1000..], b"wxy", "zeros at the end take no space on the disk");
    }

    #[test]
    fn the_entry_is_taken_from_xens_note() {
        assert_eq!(flatten(&elf(18)).unwrap().entry, 0x1234_5678);
        assert!(format!("{:#}", flatten(&elf(17)).unwrap_err()).contains("PVH"));
    }

    #[test]
    fn a_cut_off_file_is_an_error_at_any_length() {
        let whole = elf(18);
        for length in 0..0x318 {
            assert!(flatten(&whole[..length]).is_err(), "{length} bytes");
        }
    }

    /// A vmlinuz with an eight-byte payload, which its size follows.
    fn vmlinuz(payload: &[u8; 8]) -> Vec<u8> {
        let mut vmlinuz = vec![0; 0x800];
        vmlinuz[0x1f1] = 1;
        vmlinuz[0x202..0x206].copy_from_slice(b"HdrS");
        vmlinuz[0x248..0x24c].copy_from_slice(&0x10_u32.to_le_bytes());
        vmlinuz[0x24c..0x250].copy_from_slice(&12_u32.to_le_bytes());
        vmlinuz[0x410..0x41c].copy_from_slice(&[&payload[..], b"size"].concat());
        vmlinuz
    }

    #[test]
    fn the_payload_is_found_through_the_setup_header() {
        let zstd = vmlinuz(b"\x28\xb5\x2f\xfd....");
        let (command, stream) = payload(&zstd).unwrap();
        assert_eq!((command[0], stream), ("zstd", &b"\x28\xb5\x2f\xfd...."[..]));
        assert!(payload(&zstd[..0x418]).is_err());
        assert!(payload(b"MZ").is_err());
    }

    #[test]
    fn an_lzma_payload_has_no_magic_but_known_properties() {
        let lzma = vmlinuz(b"\x5d\0\0\0\x02\xff\xff\xff");
        let (command, stream) = payload(&lzma).unwrap();
        assert_eq!((command, stream.len()), (&["xz", "--format=lzma", "-dcq"][..], 8));
        assert!(payload(&vmlinuz(b"\x5d\xc0\0\0....")).is_err());
    }
}
