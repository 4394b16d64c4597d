//! The sockets on which metrics are served: TCP ports, Unix sockets, and those that systemd hands over.

use std::{
    ffi::OsStr,
    fmt, fs,
    io::{self, ErrorKind},
    net::SocketAddr,
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt},
            net,
        },
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{
    fs::Mode,
    net::{AddressFamily, SocketType, sockopt},
    process::umask,
};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use crate::output;

/// Connections that wait in the kernel at most; the kernel allows no more than net.core.somaxconn, 4096 since Linux 5.4.
const BACKLOG: u32 = 4096;
/// What the kernel buffers of an answer at most (it counts twice this, for its own overhead): 128 connections take 32 MiB. Enough for
/// 2.5 MB/s over a network with a round trip of 50 ms.
const SEND_BUFFER: usize = 128 << 10;
/// The kernel drops a connection whose client acknowledges nothing for this time, ms; also one that was closed with unread data.
const USER_TIMEOUT_MS: u32 = 20_000;

/// An argument of `--listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// IP address and port; port 0 takes a free one
    Tcp(SocketAddr),
    /// path of a Unix socket
    Unix(PathBuf),
}

impl Address {
    /// From `IP:PORT` or `unix:PATH`.
    pub(crate) fn parse(text: &OsStr) -> Result<Self, String> {
        if let Some(path) = text.as_bytes().strip_prefix(b"unix:") {
            let path = Path::new(OsStr::from_bytes(path));
            // Longer ones do not fit into sockaddr_un.
            net::SocketAddr::from_pathname(path).map_err(|error| error.to_string())?;
            return match path.file_name() {
                Some(_) => Ok(Self::Unix(path.to_owned())),
                None => Err("the path of a socket is expected after unix:".into()),
            };
        }
        let address = text.to_str().and_then(|text| text.parse().ok());
        address
            .map(Self::Tcp)
            .ok_or_else(|| "an address is expected, as 127.0.0.1:9753, [::1]:9753 or unix:/run/vmentry.sock".into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", output::shown(path)),
        }
    }
}

/// A socket that listens.
pub(crate) struct Listener {
    pub(crate) socket: Socket,
    pub(crate) address: Address,
    /// of a Unix socket that this process has made
    file: Option<SocketFile>,
}

/// The socket itself.
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Listens on an address.
    pub(crate) fn bind(address: &Address) -> Result<Self> {
        match address {
            Address::Tcp(address) => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                // A port whose last connections are still being closed may be taken.
                socket.set_reuseaddr(true)?;
                socket.bind(*address)?;
                Self::tcp(socket.listen(BACKLOG)?)
            }
            Address::Unix(path) => {
                let (socket, file) = bind_unix(path)?;
                Self::unix(socket, Some(file))
            }
        }
    }

    /// Takes over a socket that listens already.
    pub(crate) fn inherited(fd: OwnedFd) -> Result<Self> {
        ensure!(
            sockopt::socket_type(&fd)? == SocketType::STREAM && sockopt::socket_acceptconn(&fd)?,
            "it is no listening stream socket: its unit needs ListenStream= and Accept=no"
        );
        match sockopt::socket_domain(&fd)? {
            AddressFamily::INET | AddressFamily::INET6 => {
                let socket = std::net::TcpListener::from(fd);
                socket.set_nonblocking(true)?;
                Self::tcp(TcpListener::from_std(socket)?)
            }
            AddressFamily::UNIX => Self::unix(fd.into(), None),
            _ => bail!("it is neither a TCP nor a Unix socket"),
        }
    }

    /// Whether a file is removed at the end.
    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    fn tcp(socket: TcpListener) -> Result<Self> {
        // Accepted connections inherit both.
        sockopt::set_socket_send_buffer_size(socket.as_fd(), SEND_BUFFER)?;
        sockopt::set_tcp_user_timeout(socket.as_fd(), USER_TIMEOUT_MS)?;
        let address = Address::Tcp(socket.local_addr()?);
        Ok(Self { socket: Socket::Tcp(socket), address, file: None })
    }

    fn unix(socket: net::UnixListener, file: Option<SocketFile>) -> Result<Self> {
        socket.set_nonblocking(true)?;
        let path = socket.local_addr()?.as_pathname().map(Path::to_owned).unwrap_or_default();
        Ok(Self { socket: Socket::Unix(UnixListener::from_std(socket)?), address: Address::Unix(path), file })
    }
}

/// The sockets that systemd hands over (sd_listen_fds(3)), or the error of its environment variables. Must be called once, before this
/// process opens any descriptor.
pub(crate) fn handed_over() -> Result<Vec<OwnedFd>> {
    let fds = sd_notify::listen_fds().context("take the sockets of systemd (LISTEN_FDS)")?;
    // SAFETY: `listen_fds` has found each of these numbers to be an open descriptor. Nothing in this process has opened one yet, so that
    // they come from the parent, which says by LISTEN_PID that they are for this process; nobody else here owns or closes them.
    Ok(fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect())
}

/// Binds a Unix socket with mode 0660. The file of one on which nobody listens any more is replaced; nothing else is.
fn bind_unix(path: &Path) -> Result<(net::UnixListener, SocketFile)> {
    // bind(2) follows no symbolic link and replaces nothing.
    let socket = match with_mode_0660(|| net::UnixListener::bind(path)) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(path)?;
            with_mode_0660(|| net::UnixListener::bind(path))?
        }
        result => result?,
    };
    let file = SocketFile { path: path.to_owned(), inode: inode(path)? };
    Ok((socket, file))
}

/// Creates a file with mode 0660 from its first moment. The process has one thread yet.
fn with_mode_0660<T>(create: impl FnOnce() -> T) -> T {
    let before = umask(Mode::from_raw_mode(0o117));
    let result = create();
    umask(before);
    result
}

/// Removes a Unix socket on which nobody listens.
fn remove_stale(path: &Path) -> Result<()> {
    let found = path.symlink_metadata()?;
    ensure!(found.file_type().is_socket(), "{} exists and is no socket: choose another path", output::shown(path));
    match net::UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        Err(error) => bail!("{} exists, and it is unknown whether anybody listens on it: {error}", output::shown(path)),
        Ok(_) => bail!("another process listens on {}: choose another path", output::shown(path)),
    }
    ensure!(inode(path)? == (found.dev(), found.ino()), "another process has just replaced {}", output::shown(path));
    fs::remove_file(path).with_context(|| format!("remove {}, on which nobody listens", output::shown(path)))
}

/// Device and inode of a file, not of the file that a link names.
fn inode(path: &Path) -> io::Result<(u64, u64)> {
    path.symlink_metadata().map(|m| (m.dev(), m.ino()))
}

/// The file of a Unix socket, removed at the end unless another one is there by then.
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
