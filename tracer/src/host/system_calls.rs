//! Filters of the system calls that this process may still make (seccomp). A call that is not allowed fails with EPERM, and its caller says
//! what it could not do.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction,
    SeccompCmpArgLen::Dword,
    SeccompCmpOp::{Eq, MaskedEq, Ne},
    SeccompCondition, SeccompFilter, SeccompRule, apply_filter_all_threads,
};

use crate::kernel::bpf::command;

/// All that a running exporter does, as strace shows it, and all that the C library does in its place on other versions: memory, threads,
/// time, sockets that are open already, reading files.
const SERVING: &[c_long] = &[
    // memory
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // threads, time, signals, the end
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_membarrier,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_time,
    libc::SYS_uname,
    // descriptors
    libc::SYS_close,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_fcntl,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    // sockets
    libc::SYS_accept4,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    // files
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_lstat,
    libc::SYS_newfstatat,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_stat,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getppid,
];

/// Changes of files, which only some exporters make.
const CHANGING_FILES: &[c_long] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_umask,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
];

/// Calls that no tracer makes once it has attached: they run programs, look into other processes, change the kernel or the namespaces, or
/// reach the network.
const NOT_FOR_TRACING: &[c_long] = &[
    // programs and processes
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // programs and modules in the kernel
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_perf_event_open,
    // file systems and namespaces
    libc::SYS_acct,
    libc::SYS_chroot,
    libc::SYS_fanotify_init,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // users
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setuid,
    // the machine
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_modify_ldt,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // much of the kernel that nobody here asks
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_userfaultfd,
    // the network
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_socket,
];

/// The bit of system calls of the x32 ABI, which are not told from others by the architecture.
const X32: c_long = 0x4000_0000;
/// Calls that have a number of their own there: execve, ptrace, kexec_load, process_vm_readv, process_vm_writev, execveat.
const ONLY_X32: [c_long; 6] = [520, 521, 528, 539, 540, 545];

/// The system calls of an exporter after it has attached, or of one that plays a recording.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Serving {
    /// it follows VMs: it changes a map of the programs, and compares descriptors of processes
    pub(crate) follows: bool,
    /// it makes, replaces or removes files
    pub(crate) changes_files: bool,
}

impl Serving {
    /// Allows nothing else, to all threads of this process, for good.
    pub(crate) fn allow_only(self) -> Result<()> {
        apply_both(self.program())
    }

    fn program(self) -> Result<BpfProgram> {
        let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = SERVING.iter().map(|&call| (call, Vec::new())).collect();
        rules.insert(libc::SYS_clone, vec![all([has(0, libc::CLONE_THREAD as u64)?])?]);
        // Nothing that is mapped may be run.
        for call in [libc::SYS_mmap, libc::SYS_mprotect] {
            rules.insert(call, vec![all([lacks(2, libc::PROT_EXEC as u64)?])?]);
        }
        // Whether a stream is a terminal, and sockets that do not block.
        let requests = [libc::TCGETS, libc::FIONBIO].map(|request| all([is(1, request)?]));
        rules.insert(libc::SYS_ioctl, requests.into_iter().collect::<Result<_>>()?);
        rules.insert(libc::SYS_prctl, vec![all([is(0, libc::PR_SET_NAME as u64)?])?]);
        // abort(3) sends itself a signal.
        let this_process = u64::from(std::process::id());
        rules.insert(libc::SYS_tgkill, vec![all([is(0, this_process)?])?]);
        let writing = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC) as u64;
        for (call, flags) in [(libc::SYS_open, 1), (libc::SYS_openat, 2)] {
            let only_reads = if self.changes_files { Vec::new() } else { vec![all([lacks(flags, writing)?])?] };
            rules.insert(call, only_reads);
        }
        if self.changes_files {
            rules.extend(CHANGING_FILES.iter().map(|&call| (call, Vec::new())));
        }
        if self.follows {
            let commands = [command::MAP_UPDATE_ELEM, command::MAP_DELETE_ELEM];
            let commands = commands.map(|command| all([is(0, command)?])).into_iter().collect::<Result<_>>()?;
            rules.insert(libc::SYS_bpf, commands);
            rules.insert(libc::SYS_kcmp, Vec::new());
        }
        filter(rules, SeccompAction::Errno(libc::EPERM as u32), SeccompAction::Allow)
    }
}

/// Forbids what a recorder or the live view, which have attached and started their command, never do; to all threads of this process, for
/// good. Programs in the kernel cannot be loaded or attached any more, and no program can be started.
pub(crate) fn forbid_all_but_tracing() -> Result<()> {
    apply_both(tracing())
}

fn tracing() -> Result<BpfProgram> {
    let with_x32 = |call| [call, call | X32];
    let forbidden = NOT_FOR_TRACING.iter().copied().flat_map(with_x32).chain(ONLY_X32.map(|call| call | X32));
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = forbidden.map(|call| (call, Vec::new())).collect();
    // Of a map that is open, and those that only tell of links and programs.
    let commands = [
        command::MAP_LOOKUP_ELEM,
        command::MAP_UPDATE_ELEM,
        command::MAP_DELETE_ELEM,
        command::PROG_GET_FD_BY_ID,
        command::OBJ_GET_INFO_BY_FD,
        command::LINK_GET_FD_BY_ID,
        command::LINK_GET_NEXT_ID,
    ];
    for call in with_x32(libc::SYS_bpf) {
        let others = commands.map(|command| condition(0, Ne, command)).into_iter().collect::<Result<Vec<_>>>()?;
        rules.insert(call, vec![SeccompRule::new(others)?]);
    }
    for call in with_x32(libc::SYS_clone) {
        rules.insert(call, vec![all([lacks(0, libc::CLONE_THREAD as u64)?])?]);
    }
    filter(rules, SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32))
}

/// Applies [`without_clone3`], and then a filter that may not allow to apply another one.
fn apply_both(filter: Result<BpfProgram>) -> Result<()> {
    let filter = filter.context("make the filter of system calls")?;
    apply(&without_clone3()?)?;
    apply(&filter)
}

/// Lets clone3 fail as on a kernel that lacks it: no filter can see its flags. The C library then starts threads by clone.
fn without_clone3() -> Result<BpfProgram> {
    let rules = [libc::SYS_clone3, libc::SYS_clone3 | X32].map(|call| (call, Vec::new())).into();
    filter(rules, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS as u32))
}

fn filter(
    rules: BTreeMap<c_long, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram> {
    let architecture = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, otherwise, matching, architecture)?.try_into()?)
}

fn apply(program: &BpfProgram) -> Result<()> {
    apply_filter_all_threads(program).map_err(|error| anyhow!("filter system calls: {error}"))
}

fn all<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule> {
    Ok(SeccompRule::new(conditions.into())?)
}

/// The argument at `index` is `value`.
fn is(index: u8, value: u64) -> Result<SeccompCondition> {
    condition(index, Eq, value)
}

/// The argument at `index` has all bits of `mask`.
fn has(index: u8, mask: u64) -> Result<SeccompCondition> {
    condition(index, MaskedEq(mask), mask)
}

/// The argument at `index` has no bit of `mask`.
fn lacks(index: u8, mask: u64) -> Result<SeccompCondition> {
    condition(index, MaskedEq(mask), 0)
}

/// A condition on the lower half of an argument: all of these are of 32 bits for the kernel, too.
fn condition(index: u8, operator: seccompiler::SeccompCmpOp, value: u64) -> Result<SeccompCondition> {
    Ok(SeccompCondition::new(index, Dword, operator, value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error of a call in a process of its own that has these filters; 0 for none.
    fn error_of(filters: &[&BpfProgram], call: impl FnOnce() -> c_long) -> i32 {
        // SAFETY: the child is a copy of this thread alone. It makes system calls, and starts a thread at most, for which the C library has
        // put its locks in order; it ends without running anything of this process.
        unsafe {
            let child = libc::fork();
            assert!(child >= 0);
            if child == 0 {
                if filters.iter().any(|filter| apply(filter).is_err()) {
                    libc::_exit(255);
                }
                let failed = call() < 0;
                libc::_exit(if failed { *libc::__errno_location() } else { 0 });
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
            assert!(libc::WIFEXITED(status), "the child was killed: {status:#x}");
            libc::WEXITSTATUS(status)
        }
    }

    fn call(number: c_long, arguments: [c_long; 3]) -> impl FnOnce() -> c_long {
        // SAFETY: the tests pass numbers, and addresses of constants.
        move || unsafe { libc::syscall(number, arguments[0], arguments[1], arguments[2], 0, 0, 0) }
    }

    fn open(flags: i32) -> impl FnOnce() -> c_long {
        call(libc::SYS_openat, [libc::AT_FDCWD.into(), c"/dev/null".as_ptr() as c_long, flags.into()])
    }

    fn starts_a_thread() -> c_long {
        std::thread::Builder::new().spawn(|| 7).map_or(-1, |thread| thread.join().unwrap())
    }

    const UNIX_SOCKET: [c_long; 3] = [libc::AF_UNIX as c_long, libc::SOCK_STREAM as c_long, 0];

    #[test]
    fn an_exporter_reads_and_starts_threads_and_does_nothing_else() {
        let filter = Serving::default().program().unwrap();
        let clone3 = without_clone3().unwrap();
        let error = |of: &dyn Fn() -> c_long| error_of(&[&clone3, &filter], of);
        assert_eq!(error(&starts_a_thread), 0);
        assert_eq!(error(&|| open(libc::O_RDONLY | libc::O_CLOEXEC)()), 0);
        for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_CREAT, libc::O_TRUNC] {
            assert_eq!(error(&|| open(flags)()), libc::EPERM, "{flags:#o}");
        }
        let refused = [
            (libc::SYS_bpf, [0, 0, 0]),
            (libc::SYS_bpf, [command::MAP_UPDATE_ELEM.cast_signed(), 0, 0]),
            (libc::SYS_ptrace, [libc::PTRACE_TRACEME.into(), 0, 0]),
            (libc::SYS_execve, [c"/bin/true".as_ptr() as c_long, 0, 0]),
            (libc::SYS_socket, UNIX_SOCKET),
            (libc::SYS_perf_event_open, [0; 3]),
            (libc::SYS_fork, [0; 3]),
            (libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0]),
            (libc::SYS_tgkill, [1, 1, 0]),
            (libc::SYS_kill, [0, 0, 0]),
            (libc::SYS_mprotect, [0, 0, libc::PROT_EXEC.into()]),
            (libc::SYS_unlink, [c"/no/such/file".as_ptr() as c_long, 0, 0]),
        ];
        for (number, arguments) in refused {
            assert_eq!(error(&|| call(number, arguments)()), libc::EPERM, "system call {number}");
        }
    }

    #[test]
    fn an_exporter_may_follow_vms_and_replace_files_where_it_was_asked_to() {
        let following = Serving { follows: true, changes_files: false }.program().unwrap();
        // The kernel refuses it for another reason, unless it lets only some users make the call.
        if rustix::process::geteuid().is_root() {
            let update = call(libc::SYS_bpf, [command::MAP_UPDATE_ELEM.cast_signed(), 0, 0]);
            assert_ne!(error_of(&[&following], update), libc::EPERM);
        }
        assert_eq!(error_of(&[&following], call(libc::SYS_bpf, [5, 0, 0])), libc::EPERM, "BPF_PROG_LOAD");
        let writing = Serving { follows: false, changes_files: true }.program().unwrap();
        assert_eq!(error_of(&[&writing], open(libc::O_WRONLY)), 0);
        let unlink = call(libc::SYS_unlink, [c"/no/such/file".as_ptr() as c_long, 0, 0]);
        assert_eq!(error_of(&[&writing], unlink), libc::ENOENT);
    }

    #[test]
    fn a_recorder_starts_and_attaches_nothing_any_more() {
        let (filter, clone3) = (tracing().unwrap(), without_clone3().unwrap());
        let error = |of: &dyn Fn() -> c_long| error_of(&[&clone3, &filter], of);
        assert_eq!(error(&starts_a_thread), 0);
        assert_eq!(error(&|| open(libc::O_WRONLY)()), 0);
        assert_eq!(error(&|| call(libc::SYS_kill, [0, 0, 0])()), 0);
        let refused = [
            (libc::SYS_bpf, [0, 0, 0]),
            (libc::SYS_bpf, [5, 0, 0]),
            (libc::SYS_bpf | X32, [5, 0, 0]),
            (libc::SYS_ptrace, [libc::PTRACE_TRACEME.into(), 0, 0]),
            (libc::SYS_execve, [c"/bin/true".as_ptr() as c_long, 0, 0]),
            (libc::SYS_fork, [0; 3]),
            (libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0]),
            (libc::SYS_socket, UNIX_SOCKET),
        ];
        for (number, arguments) in refused {
            assert_eq!(error(&|| call(number, arguments)()), libc::EPERM, "system call {number:#x}");
        }
        if rustix::process::geteuid().is_root() {
            let next_link = call(libc::SYS_bpf, [command::LINK_GET_NEXT_ID.cast_signed(), 0, 0]);
            assert_ne!(error_of(&[&filter], next_link), libc::EPERM);
        }
    }
}
