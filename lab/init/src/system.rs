//! The system around the script: file systems, modules, the end.

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

/// Mounts file systems, gives busybox its names, brings the loopback interface up and loads the modules.
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
    // SAFETY: all pointers are valid strings, or null where the file system takes no data.
    let result = unsafe { libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, ptr::null()) };
    ensure!(result == 0, io::Error::last_os_error());
    Ok(())
}

fn load(file: &str, parameters: &str) -> Result<()> {
    let module = File::open(file)?;
    let parameters = CString::new(parameters)?;
    // SAFETY: the descriptor is open and the parameters are a valid string for the time of the call.
    let result =
        unsafe { libc::syscall(libc::SYS_finit_module, module.as_raw_fd(), parameters.as_ptr().cast::<c_char>(), 0) };
    ensure!(result == 0, "{}; see the kernel's messages", io::Error::last_os_error());
    Ok(())
}

/// Reaps every process that ends, orphans included, until the one with this id has ended.
pub fn reap_until(pid: u32) {
    loop {
        // SAFETY: a null status pointer is allowed.
        let ended = unsafe { libc::waitpid(-1, ptr::null_mut(), 0) };
        if ended < 0 || ended.unsigned_abs() == pid {
            return;
        }
    }
}

/// Ends the machine.
pub fn power_off() -> ! {
    // SAFETY: no preconditions; there is no file system that would have to be synced.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    loop {
        std::thread::park();
    }
}
