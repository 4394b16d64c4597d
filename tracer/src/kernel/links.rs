//! The BPF links of this host that are on a tracepoint of kvm's hot path, whoever made them. Asks the kernel by bpf(2), because aya shows
//! neither a link's tracepoint nor a link that another process made.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// Commands of bpf(2).
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const LINK_GET_NEXT_ID: libc::c_long = 31;

/// `bpf_link_type`: raw tracepoints, tp_btf among them; and perf events, tracepoints of Linux 6.6 and later among them.
const RAW_TRACEPOINT: u32 = 1;
const PERF_EVENT: u32 = 7;
/// Bytes for a tracepoint's name: those of kvm are shorter, and longer ones are of no interest.
const NAME: u32 = 64;

/// A link on a tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// the kernel's number of the link
    pub(crate) id: u32,
    /// name of its program, at most 15 bytes; empty where it has none
    pub(crate) program: String,
}

/// The links on tracepoints of these names. Needs CAP_SYS_ADMIN, and Linux 5.8.
pub(crate) fn on(tracepoints: &[&str]) -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    let mut id = 0;
    loop {
        match next_id(id) {
            Ok(next) => id = next,
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(links),
            Err(e) => return Err(e),
        }
        // It may be gone by now.
        let Ok((tracepoint, program)) = fd_of(LINK_GET_FD_BY_ID, id).and_then(|fd| tracepoint_of(&fd)) else {
            continue;
        };
        if tracepoints.contains(&tracepoint.as_str()) {
            links.push(Link { id, program: name_of_program(program).unwrap_or_default() });
        }
    }
}

/// Calls bpf(2) with the first 16 words of `union bpf_attr`, which the kernel may write to.
fn bpf(command: libc::c_long, attr: &mut [u32; 16]) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes `attr` within the size that it is given; the addresses in it, which only `info` puts there, are
    // those of buffers that outlive the call and are as long as the lengths beside them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

fn next_id(after: u32) -> io::Result<u32> {
    let mut attr = [0; 16];
    attr[0] = after;
    bpf(LINK_GET_NEXT_ID, &mut attr)?;
    Ok(attr[1])
}

fn fd_of(command: libc::c_long, id: u32) -> io::Result<OwnedFd> {
    let mut attr = [0; 16];
    attr[0] = id;
    let fd = bpf(command, &mut attr)?;
    // SAFETY: the kernel has just made this descriptor for this call, so that nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The kernel's information on a link or a program, in `info`. Addresses in it are of buffers that outlive the call.
fn info(fd: &OwnedFd, info: &mut [u32; 64]) -> io::Result<()> {
    let mut attr = [0; 16];
    attr[0] = fd.as_raw_fd().cast_unsigned();
    attr[1] = u32::try_from(size_of_val(info)).map_err(io::Error::other)?;
    put_address(&mut attr, 2, info.as_mut_ptr().addr());
    bpf(OBJ_GET_INFO_BY_FD, &mut attr).map(|_| ())
}

/// Puts an address into two words, the lower half first.
fn put_address(words: &mut [u32], at: usize, address: usize) {
    let bytes = (address as u64).to_ne_bytes();
    for (word, half) in words[at..].iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*half);
    }
}

/// Tracepoint and program of a link; an empty name for a link of another kind.
fn tracepoint_of(link: &OwnedFd) -> io::Result<(String, u32)> {
    let mut words = [0; 64];
    info(link, &mut words)?;
    let [kind, _, program, ..] = words;
    // The place of the name's address in `struct bpf_link_info`, in words; its length follows.
    let at = match kind {
        RAW_TRACEPOINT => 4,
        PERF_EVENT => 6,
        _ => return Ok((String::new(), program)),
    };
    let mut name = [0; NAME as usize];
    let mut words = [0; 64];
    put_address(&mut words, at, name.as_mut_ptr().addr());
    words[at + 2] = NAME;
    info(link, &mut words)?;
    Ok((until_zero(&name), program))
}

fn name_of_program(id: u32) -> io::Result<String> {
    let mut words = [0; 64];
    info(&fd_of(PROG_GET_FD_BY_ID, id)?, &mut words)?;
    // `bpf_prog_info.name`, 16 bytes from byte 64.
    let bytes: Vec<u8> = words[16..20].iter().flat_map(|word| word.to_ne_bytes()).collect();
    Ok(until_zero(&bytes))
}

fn until_zero(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
