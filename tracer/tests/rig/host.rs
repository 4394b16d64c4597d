//! Hosts made up in a folder: its files are bound over /sys, /proc/cpuinfo and /run of a program that starts on the host.

use std::{
    ffi::{CString, OsStr},
    fs, io,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    ptr,
    sync::OnceLock,
};

use aya::programs::ProgramError;
use tempfile::TempDir;
use vmentry::kernel::options::Options;

use super::{
    bed::{self, Bed},
    btf,
};

/// A vendor of CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    Intel,
    Amd,
}

impl Vendor {
    pub fn module(self) -> &'static str {
        match self {
            Self::Intel => "kvm_intel",
            Self::Amd => "kvm_amd",
        }
    }
}

/// The shape of a host. A test names the fields in which its host differs from [`Shape::intel`] or [`Shape::amd`].
#[derive(Clone, Debug)]
pub struct Shape {
    /// vendor of the CPU in /proc/cpuinfo
    pub cpu: Vendor,
    /// vendor modules in /sys/module; kvm is there if one is
    pub modules: Vec<Vendor>,
    /// the modules are a part of the kernel: without build-ids and BTF of their own
    pub built_in: bool,
    /// the vendor modules have BTF; kvm has it in any case
    pub vendor_btf: bool,
    /// parameters of each vendor module
    pub parameters: Vec<(&'static str, &'static str)>,
    /// CPUs online, as in /sys; none for those of the real host
    pub online: Option<&'static str>,
}

impl Shape {
    pub fn intel() -> Self {
        Self {
            cpu: Vendor::Intel,
            modules: vec![Vendor::Intel],
            built_in: false,
            vendor_btf: true,
            parameters: vec![("nested", "Y"), ("preemption_timer", "Y")],
            online: None,
        }
    }

    pub fn amd() -> Self {
        let parameters = vec![("nested", "1"), ("npt", "Y")];
        Self { cpu: Vendor::Amd, modules: vec![Vendor::Amd], parameters, ..Self::intel() }
    }

    /// Makes the host up.
    pub fn build(&self) -> Host {
        let host = Host { folder: TempDir::new().unwrap() };
        host.write("cpuinfo", cpuinfo(self.cpu));
        fs::create_dir(host.path("run")).unwrap();
        let list = |name: &str| fs::read_to_string(format!("/sys/devices/system/cpu/{name}")).unwrap();
        host.write("sys/devices/system/cpu/possible", list("possible"));
        host.write("sys/devices/system/cpu/online", self.online.map_or_else(|| list("online"), |o| format!("{o}\n")));
        // The stub where a kernel mounts tracefs.
        fs::create_dir_all(host.path("sys/kernel/tracing")).unwrap();
        host.write("sys/kernel/btf/vmlinux", btf::vmlinux(if self.built_in { &self.modules } else { &[] }));
        if !self.modules.is_empty() {
            fs::create_dir_all(host.path("sys/module/kvm/parameters")).unwrap();
        }
        for vendor in &self.modules {
            self.load(&host, *vendor, 1);
        }
        host
    }

    /// Adds a vendor's module to a host, with this build-id.
    pub fn load(&self, host: &Host, vendor: Vendor, build_id: u8) {
        let module = vendor.module();
        for (name, value) in &self.parameters {
            host.write(&format!("sys/module/{module}/parameters/{name}"), format!("{value}\n"));
        }
        if !self.built_in {
            let mut note: Vec<u8> = [4_u32, 1, 3].iter().flat_map(|word| word.to_ne_bytes()).collect();
            note.extend([b'G', b'N', b'U', 0, build_id]);
            host.write(&format!("sys/module/{module}/notes/.note.gnu.build-id"), note);
            if self.vendor_btf {
                host.write(&format!("sys/kernel/btf/{module}"), btf::module(vendor));
            }
        }
    }
}

/// A host in a folder, removed at the end.
pub struct Host {
    folder: TempDir,
}

impl Host {
    /// A path in the host's folder, where a test may keep files, too.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn file(&self, path: &str) -> String {
        self.path(path).to_str().unwrap().to_owned()
    }

    /// Writes a file and the folders that it is in; `sys/...` is the host's /sys/...
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The module's folder and BTF vanish, as after rmmod. The folder is kept aside: a new one must not get its inode.
    pub fn unload(&self, vendor: Vendor) {
        let module = vendor.module();
        let aside = tempfile::Builder::new().prefix("aside").tempdir_in(self.folder.path()).unwrap().keep();
        fs::rename(self.path(&format!("sys/module/{module}")), aside.join("module")).unwrap();
        let _ = fs::remove_file(self.path(&format!("sys/kernel/btf/{module}")));
    }

    /// A command that runs vmentry on this host, with its output in pipes.
    pub fn vmentry(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_vmentry"));
        command.args(arguments);
        command
    }

    /// A command that runs any program on this host, with its output in pipes.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let binds = [("sys", c"/sys"), ("cpuinfo", c"/proc/cpuinfo"), ("run", c"/run")];
        let binds = binds.map(|(from, to)| (c_path(&self.path(from)), to));
        // SAFETY: the closure makes system calls alone, on strings that exist already: it takes no lock and allocates nothing, so that the
        // child of a process with several threads may run it between fork and exec.
        unsafe {
            command.pre_exec(move || {
                let mount = |from: *const libc::c_char, to: *const libc::c_char, flags| {
                    check(libc::mount(from, to, ptr::null(), flags, ptr::null()))
                };
                // Even where the tests were started so that they ignore them.
                for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                check(libc::unshare(libc::CLONE_NEWNS))?;
                mount(ptr::null(), c"/".as_ptr(), libc::MS_REC | libc::MS_PRIVATE)?;
                binds.iter().try_for_each(|(from, to)| mount(from.as_ptr(), to.as_ptr(), libc::MS_BIND))
            });
        }
        command
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

fn cpuinfo(vendor: Vendor) -> String {
    let (id, flag) = match vendor {
        Vendor::Intel => ("GenuineIntel", "vmx"),
        Vendor::Amd => ("AuthenticAMD", "svm"),
    };
    let cpu = |n| {
        format!(
            "processor\t: {n}\nvendor_id\t: {id}\nmodel name\t: Made-up CPU\nmicrocode\t: 0x1\nflags\t\t: fpu tsc {flag}\n\n"
        )
    };
    (0..2).map(cpu).collect()
}

/// Whether the running kernel's kvm_entry has a second argument, `force_immediate_exit` (Linux 6.9 and later). A program that reads it cannot
/// be attached on other kernels, so a made-up kernel must agree with the running one.
pub fn entry_has_immediate() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let mut bed = Bed::new(bed::config(), Options::default());
        let program = bed.tracer.program("kvm_entry").unwrap();
        match program.attach("kvm_entry") {
            Ok(_) => true,
            // EINVAL: the program reads beyond the tracepoint's arguments.
            Err(ProgramError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::EINVAL) => false,
            Err(error) => panic!("attach to kvm_entry: {error:?}: load the module kvm"),
        }
    })
}
