//! The real binary beside processes that mean it harm: whatever they say of themselves costs it little and is printed harmlessly.

#![allow(clippy::unwrap_used, reason = "a test: an error is a failure")]

mod binary;

use std::{
    fs,
    io::{self, Read},
    os::unix::process::CommandExt,
    ptr::null_mut,
};

use binary::{command, err, out};

/// Bytes of command line that the process claims to have.
const CLAIMED: usize = 1 << 30;
/// Most address space of the binary under test. With the kernel's BTF and the threads it takes some 200 MiB.
const MOST_MEMORY: u64 = 1 << 30;
/// The process's own name, with a sequence that clears a terminal, and bytes that are no UTF-8.
const COMM: &[u8] = b"x\x1b[2J\xff\xfe\0";

/// A process with a perf event, so that `check` reads its command line, which is memory that was never touched.
struct Stranger(libc::pid_t);

impl Stranger {
    /// Starts it; the error says which of its steps the kernel refused.
    fn start() -> Result<Self, String> {
        let map = memory_map();
        let (mut said, says) = io::pipe().unwrap();
        // SAFETY: until it is killed, the child makes nothing but system calls on memory of its own.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let refused = pretend(map);
            // SAFETY: one byte that lives; afterwards the child waits for its end.
            unsafe {
                libc::write(std::os::fd::AsRawFd::as_raw_fd(&says), (&raw const refused).cast(), 1);
                loop {
                    libc::pause();
                }
            }
        }
        drop(says);
        let stranger = Self(pid);
        let mut step = [0];
        said.read_exact(&mut step).unwrap();
        match step {
            [0] => Ok(stranger),
            [1] => Err("mmap of memory that is not there".into()),
            [2] => Err("perf_event_open (see kernel.perf_event_paranoid)".into()),
            _ => Err("prctl(PR_SET_MM_MAP) (CONFIG_CHECKPOINT_RESTORE)".into()),
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // SAFETY: the child is this one's, and is waited for here only.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, null_mut(), 0);
        }
    }
}

/// `struct prctl_mm_map` of this process, and of a child after fork(2).
fn memory_map() -> [u64; 13] {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let from_field_3: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let field = |n: usize| from_field_3[n - 3].trim().parse::<u64>().unwrap();
    // SAFETY: an increment of 0 returns the program break and moves nothing.
    let program_break = unsafe { libc::sbrk(0) } as u64;
    let (arguments, auxv, no_file) = ([0, 0], 0, u64::from(u32::MAX) << 32);
    [
        field(26),
        field(27),
        field(45),
        field(46),
        field(47),
        program_break,
        field(28),
        arguments[0],
        arguments[1],
        field(50),
        field(51),
        auxv,
        no_file,
    ]
}

/// Makes this process the stranger by system calls alone; returns the number of the step that was refused, 0 for none.
fn pretend(mut map: [u64; 13]) -> u8 {
    const FIRST: &[u8] = b"perf\0kvm\0stat\0";
    // A software event that never counts, of user space only.
    let event: [u64; 8] = [1 | 64 << 32, 9, 0, 0, 0, 1 | 1 << 5 | 1 << 6, 0, 0];
    // SAFETY: the memory is the child's own, and the structures live until the calls return.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let memory = libc::mmap(null_mut(), CLAIMED, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if memory == libc::MAP_FAILED {
            return 1;
        }
        memory.cast::<u8>().copy_from_nonoverlapping(FIRST.as_ptr(), FIRST.len());
        if libc::syscall(libc::SYS_perf_event_open, &raw const event, 0, -1, -1, 0) < 0 {
            return 2;
        }
        libc::prctl(libc::PR_SET_NAME, COMM.as_ptr());
        map[7] = memory as u64;
        map[8] = map[7] + CLAIMED as u64;
        let bytes = size_of_val(&map);
        if libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, &raw const map, bytes, 0) != 0 { 3 } else { 0 }
    }
}

#[test]
fn a_process_that_claims_a_gigabyte_of_arguments_costs_little_and_is_named_harmlessly() {
    let stranger = match Stranger::start() {
        Ok(stranger) => stranger,
        Err(step) => {
            eprintln!("SKIPPED: this kernel refuses {step}: nothing was tried");
            return;
        }
    };
    for format in ["text", "json"] {
        let mut check = command(&["check", "--no-proof", "--format", format]);
        let limit = libc::rlimit { rlim_cur: MOST_MEMORY, rlim_max: MOST_MEMORY };
        // SAFETY: the closure makes one system call, on a value of its own.
        unsafe {
            check.pre_exec(move || match libc::setrlimit(libc::RLIMIT_AS, &raw const limit) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let output = check.output().unwrap();
        // 1 where this host cannot be traced.
        assert!(matches!(output.status.code(), Some(0 | 1)), "{:?}: {}", output.status, err(&output));
        let shown = out(&output);
        assert!(shown.contains(&format!("(pid {}), by its command line", stranger.0)), "it was not read: {shown}");
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    }
}
