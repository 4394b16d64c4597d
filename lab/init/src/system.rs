//! Prepares the system for the script (file systems, modules), and ends it.

use anyhow::{Context, Result, ensure};
use lab_init::{MANIFEST, OUT};
use std::ffi::{CString, c_char};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::{io, ptr};

const MOUNTS: [(&str, &str); 10] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tracefs", "/sys/kernel/tracing"),
    ("debugfs", "/sys/kernel/debug"),
    ("bpf", "/sys/fs/bpf"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("tmpfs", OUT),
];

/// Mounts file systems, installs links to busybox, brings up the loopback interface and loads the modules.
pub fn prepare() -> Result<()> {
    for (kind, path) in MOUNTS {
        fs::create_dir_all(path).with_context(|| format!("create folder {path}"))?;
        mount(kind, path).with_context(|| format!("mount {kind} on {path}"))?;
    }
    fs::write("/proc/sys/kernel/hostname", "lab").context("set the host name")?;
    for arguments in [&["--install", "-s", "/bin"][..], &["ifconfig", "lo", "127.0.0.1"]] {
        let status = Command::new("/bin/busybox").args(arguments).status().context("run busybox")?;
        ensure!(status.success(), "run busybox {}: {status}", arguments.join(" "));
    }
    let manifest = fs::read_to_string(MANIFEST).with_context(|| format!("read file {MANIFEST}"))?;
    for line in manifest.lines() {
        let (file, parameters) = line.split_once(' ').unwrap_or((line, ""));
        load(file, parameters).with_context(|| format!("load module {line}"))?;
    }
    Ok(())
}

fn mount(kind: &str, path: &str) -> Result<()> {
    fs::create_dir_all(path)?;
    let (kind, path) = (CString::new(kind)?, CString::new(path)?);
    // SAFETY: the pointers are to strings that outlive the call; these file systems take no data, which may be null.
    let result = unsafe { libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, ptr::null()) };
    ensure!(result == 0, io::Error::last_os_error());
    Ok(())
}

fn load(file: &str, parameters: &str) -> Result<()> {
    let module = File::open(file)?;
    let parameters = CString::new(parameters)?;
    // SAFETY: finit_module reads the parameters, a string that outlives the call; `module` keeps the descriptor open.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), parameters.as_ptr().cast::<c_char>(), 0) };
    ensure!(result == 0, "{}; see the kernel's messages", io::Error::last_os_error());
    Ok(())
}

/// Reaps every process that ends, including orphans, until the process with this id has ended.
pub fn reap_until(pid: u32) {
    loop {
        // SAFETY: waitpid may get a null pointer, and then writes no status.
        let ended = unsafe { libc::waitpid(-1, ptr::null_mut(), 0) };
        if ended < 0 || ended.unsigned_abs() == pid {
            return;
        }
    }
}

/// Powers off the machine.
pub fn power_off() -> ! {
    // SAFETY: reboot touches no memory. No file system needs a sync, because all of them are in memory.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    loop {
        std::thread::park();
    }
}
