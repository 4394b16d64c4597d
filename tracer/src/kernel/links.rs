//! The BPF links of this host that are on a tracepoint of kvm's hot path, whoever made them. Asks the kernel by bpf(2), because aya shows
//! neither a link's tracepoint nor a link that another process made.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use crate::kernel::bpf::{
    self,
    command::{LINK_GET_FD_BY_ID, LINK_GET_NEXT_ID, OBJ_GET_INFO_BY_FD, PROG_GET_FD_BY_ID},
    put_address,
};

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

fn next_id(after: u32) -> io::Result<u32> {
    let mut attr = [0; 16];
    attr[0] = after;
    // SAFETY: this command takes no address.
    unsafe { bpf::call(LINK_GET_NEXT_ID, &mut attr) }?;
    Ok(attr[1])
}

fn fd_of(command: u64, id: u32) -> io::Result<OwnedFd> {
    let mut attr = [0; 16];
    attr[0] = id;
    // SAFETY: PROG_GET_FD_BY_ID and LINK_GET_FD_BY_ID take a number and return a new descriptor.
    unsafe { bpf::descriptor(command, attr) }
}

/// The kernel's information on a link or a program, in `info`. Addresses in it are of buffers that outlive the call.
fn info(fd: &OwnedFd, info: &mut [u32; 64]) -> io::Result<()> {
    let mut attr = [0; 16];
    attr[0] = fd.as_raw_fd().cast_unsigned();
    attr[1] = u32::try_from(size_of_val(info)).map_err(io::Error::other)?;
    put_address(&mut attr, 2, info.as_mut_ptr().addr());
    // SAFETY: the address is that of `info`, whose length is beside it; addresses in `info` are of buffers that outlive the call, as
    // every caller here sees to, with their lengths beside them.
    unsafe { bpf::call(OBJ_GET_INFO_BY_FD, &mut attr) }.map(|_| ())
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
