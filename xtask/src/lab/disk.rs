//! The boot disk of Bochs: a master boot record (lab/boot.S) that loads the kernel, its parameters and the initramfs.

use crate::lab::kernel::Image;
use anyhow::{Result, ensure};

core::arch::global_asm!(
    ".pushsection .rodata.lab_boot_sector,\"a\",@progbits",
    ".globl lab_boot_sector",
    "lab_boot_sector:",
    include_str!("../../../lab/boot.S"),
    ".popsection",
    options(att_syntax)
);

unsafe extern "C" {
    static lab_boot_sector: [u8; SECTOR];
}

const SECTOR: usize = 512;
/// Bytes that the boot sector reads per command.
const CHUNK: usize = 128 * SECTOR;
/// Bytes per cylinder of the disk's geometry: 16 heads of 63 sectors.
const CYLINDER: usize = 16 * 63 * SECTOR;

/// Offsets in the boot sector (see the end of lab/boot.S).
const ENTRY: usize = 0x178;
const START_INFO_POINTER: usize = 0x17c;
const EXTENTS: usize = 0x180;

/// Addresses of `struct hvm_start_info` and of the initramfs in guest memory; the kernel must end below.
const START_INFO: u32 = 0x700_0000;
const INITRAMFS: u32 = 0x800_0000;
const MODULE_LIST: usize = 0x100;
const MEMORY_MAP: usize = 0x200;
const COMMAND_LINE: usize = 0x1000;
/// Limit of the kernel: COMMAND_LINE_SIZE of x86.
const COMMAND_LINE_MAX: usize = 2048;

/// A flat disk image.
#[derive(Debug)]
pub(crate) struct Disk {
    /// Content of the file.
    pub(crate) bytes: Vec<u8>,
    /// Cylinders of its geometry; 16 heads and 63 sectors are fixed.
    pub(crate) cylinders: usize,
}

/// Lays out a disk that boots `kernel` in a machine with `memory` bytes of RAM.
pub(crate) fn lay_out(kernel: &Image, initramfs: &[u8], command_line: &str, memory: u64) -> Result<Disk> {
    ensure!(
        u64::from(kernel.base) + kernel.memory_size <= u64::from(START_INFO),
        "place kernel: it ends at {:#x}, above {START_INFO:#x}",
        u64::from(kernel.base) + kernel.memory_size
    );
    ensure!(
        u64::from(INITRAMFS) + initramfs.len() as u64 <= memory - (1 << 20),
        "place initramfs: {} MB do not fit into the {} MB of the machine; add less with --add",
        initramfs.len() >> 20,
        memory >> 20
    );
    let parameters = parameters(initramfs.len() as u64, command_line, memory)?;
    // SAFETY: the assembly above defines the symbol with 512 bytes in read-only data: it ends with `.org 510` and a
    // word.
    let mut bytes = unsafe { lab_boot_sector }.to_vec();
    put(&mut bytes, ENTRY, &kernel.entry.to_le_bytes());
    put(&mut bytes, START_INFO_POINTER, &START_INFO.to_le_bytes());
    let extents = [(START_INFO, &parameters[..]), (kernel.base, &kernel.bytes), (INITRAMFS, initramfs)];
    for (i, (address, content)) in extents.into_iter().enumerate() {
        bytes.resize(bytes.len().next_multiple_of(CHUNK), 0);
        let first = bytes.len() / SECTOR;
        let sectors = content.len().next_multiple_of(CHUNK) / SECTOR;
        let row = [address, u32::try_from(first)?, u32::try_from(sectors)?];
        put(&mut bytes, EXTENTS + i * 12, &row.map(u32::to_le_bytes).concat());
        bytes.extend_from_slice(content);
    }
    let cylinders = bytes.len().next_multiple_of(CHUNK).div_ceil(CYLINDER);
    bytes.resize(cylinders * CYLINDER, 0);
    Ok(Disk { bytes, cylinders })
}

/// Returns `struct hvm_start_info`, version 1, with the data it points to: the command line, one module (the initramfs)
/// and a memory map.
fn parameters(initramfs: u64, command_line: &str, memory: u64) -> Result<Vec<u8>> {
    const RAM: u32 = 1;
    const RESERVED: u32 = 2;
    const ACPI: u32 = 3;
    let map = [
        (0, 0x9_f000, RAM),
        (0x9_f000, 0x1000, RESERVED),
        (0xe_8000, 0x1_8000, RESERVED),
        (0x10_0000, memory - 0x11_0000, RAM),
        (memory - 0x1_0000, 0x1_0000, ACPI),
    ];
    ensure!(command_line.len() < COMMAND_LINE_MAX, "pass kernel command line: longer than {COMMAND_LINE_MAX} bytes");
    let at = |offset: usize| (u64::from(START_INFO) + offset as u64).to_le_bytes();
    let mut bytes = vec![0; COMMAND_LINE + COMMAND_LINE_MAX];
    put(&mut bytes, 0, &[0x336e_c578_u32, 1, 0, 1].map(u32::to_le_bytes).concat());
    put(&mut bytes, 16, &[at(MODULE_LIST), at(COMMAND_LINE), [0; 8], at(MEMORY_MAP)].concat());
    put(&mut bytes, 48, &(map.len() as u32).to_le_bytes());
    put(&mut bytes, MODULE_LIST, &[u64::from(INITRAMFS), initramfs].map(u64::to_le_bytes).concat());
    for (i, (address, size, kind)) in map.into_iter().enumerate() {
        put(&mut bytes, MEMORY_MAP + 24 * i, &[address, size, u64::from(kind)].map(u64::to_le_bytes).concat());
    }
    put(&mut bytes, COMMAND_LINE, command_line.as_bytes());
    Ok(bytes)
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes[offset..offset + value.len()].copy_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        Image { base: 0x100_0000, entry: 0x123_4567, memory_size: 0x2000, bytes: vec![0x90; 0x1800] }
    }

    fn word(bytes: &[u8], offset: usize) -> usize {
        u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap()) as usize
    }

    #[test]
    fn the_boot_sector_begins_with_cli_and_ends_with_the_signature() {
        let disk = lay_out(&image(), b"ramdisk", "quiet", 512 << 20).unwrap();
        assert_eq!(disk.bytes[0], 0xfa);
        assert_eq!(disk.bytes[510..512], [0x55, 0xaa]);
        assert_eq!(word(&disk.bytes, ENTRY), 0x123_4567);
        assert_eq!(disk.bytes.len(), disk.cylinders * CYLINDER);
    }

    #[test]
    fn every_extent_lies_where_the_table_says() {
        let disk = lay_out(&image(), b"ramdisk", "quiet", 512 << 20).unwrap();
        let content = |row: usize| &disk.bytes[word(&disk.bytes, EXTENTS + 12 * row + 4) * SECTOR..];
        assert_eq!(word(&disk.bytes, EXTENTS), START_INFO as usize);
        assert_eq!(word(content(0), 0), 0x336e_c578);
        assert_eq!(&content(0)[COMMAND_LINE..COMMAND_LINE + 6], b"quiet\0");
        assert_eq!(content(1)[..0x1800], vec![0x90; 0x1800]);
        assert_eq!(&content(2)[..7], b"ramdisk");
        assert_eq!(word(&disk.bytes, EXTENTS + 12 * 3), 0, "the table must end");
        for row in 0..3 {
            let sectors = word(&disk.bytes, EXTENTS + 12 * row + 8);
            assert!(sectors > 0 && sectors.is_multiple_of(128), "row {row}: {sectors} sectors");
        }
    }

    #[test]
    fn a_kernel_initramfs_or_command_line_that_is_too_large_is_an_error() {
        assert!(lay_out(&Image { memory_size: 0x700_0000, ..image() }, b"", "", 512 << 20).is_err());
        assert!(lay_out(&image(), &vec![0; 2 << 20], "", 129 << 20).is_err());
        assert!(lay_out(&image(), b"", &"x".repeat(4000), 512 << 20).is_err());
    }
}
