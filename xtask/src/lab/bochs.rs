//! Bochs 2.7 of Debian, which emulates VMX.

use crate::debian::Need;
use crate::lab::disk;
use crate::lab::guest::Boot;
use crate::lab::inherited::Inherited;
use crate::lab::kernel::Image;
use anyhow::Result;
use std::process::Command;

/// Packages to install.
pub(crate) const NEEDS: &[Need] = &[
    ("bochs-bin", "bochs"),
    ("/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so", "bochs-term"),
    (BIOS, "bochsbios"),
    (VGA_BIOS, "vgabios"),
];

/// Kernel parameters. They skip the kernel's own certificates, random numbers from jitter and self-tests of ciphers,
/// which take half of the time until init.
pub(crate) const KERNEL_PARAMETERS: &str =
    "random.trust_cpu=on initcall_blacklist=load_system_certificate_list,jent_mod_init cryptomgr.notests";

const BIOS: &str = "/usr/share/bochs/BIOS-bochs-latest";
const VGA_BIOS: &str = "/usr/share/vgabios/vgabios.bin";
/// MiB of memory, unless the machine says otherwise.
const MEMORY: u32 = 512;

/// Returns a Bochs that boots the kernel, with the files that must live as long as its process. Its display is a
/// terminal, so stdin and stdout must be one.
pub(crate) fn command(kernel: &Image, boot: &Boot) -> Result<(Command, Vec<Inherited>)> {
    let disk = disk::lay_out(kernel, boot.initramfs, boot.command_line, u64::from(memory(boot)) << 20)?;
    let image = Inherited::memory(c"disk", &disk.bytes)?;
    let configuration = configuration(boot, &image.path(), disk.cylinders);
    let configuration = Inherited::memory(c"bochsrc", configuration.as_bytes())?;
    // Debian's build starts in the debugger of Bochs; `c` continues.
    let debugger = Inherited::memory(c"debugger", b"c\n")?;
    let mut command = Command::new("bochs-bin");
    command.args(["-q", "-f", &configuration.path(), "-rc", &debugger.path()]).env("TERM", "vt100");
    Ok((command, vec![image, configuration, debugger]))
}

fn memory(boot: &Boot) -> u32 {
    boot.memory.unwrap_or(MEMORY)
}

/// Returns the configuration file. The processor is the newest model that does not report its clock frequency in CPUID:
/// if KVM knew the frequency, it would disable the preemption timer, which has one tick per cycle in Bochs and so runs
/// out in less than 10 s.
fn configuration(boot: &Boot, disk: &str, cylinders: usize) -> String {
    let Boot { processors, serial, port, .. } = boot;
    let memory = memory(boot);
    format!(
        "\
config_interface: textconfig
display_library: term
cpu: model=corei7_haswell_4770, count={processors}, ips=100000000, reset_on_triple_fault=0, ignore_bad_msrs=1
memory: guest={memory}, host={memory}
romimage: file={BIOS}, options=fastboot
vgaromimage: file={VGA_BIOS}
pci: enabled=1, chipset=i440fx
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=disk, mode=flat, path={disk}, cylinders={cylinders}, heads=16, spt=63
boot: disk
clock: sync=none, time0=1700000000
log: /dev/null
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
com1: enabled=1, {serial}
parport1: enabled=1, file={port}
speaker: enabled=0
mouse: enabled=0
"
    )
}
