//! The sockets of `vmentry export`: those that systemd hands over, and those of `--listen`.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
};

use anyhow::{Context, Result};

use crate::{
    export::listener::{Address, Listener},
    output, say,
};

/// Address without `--listen` and without a socket of systemd.
const DEFAULT: Address = Address::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9753));

/// Listens on the addresses, besides the inherited sockets; on the default address if there are neither and `needs_address`.
pub(super) fn listen(inherited: Vec<OwnedFd>, addresses: &[Address], needs_address: bool) -> Result<Vec<Listener>> {
    let take = |fd| Listener::inherited(fd).context("take a socket of systemd");
    let mut listeners = inherited.into_iter().map(take).collect::<Result<Vec<_>>>()?;
    let of_systemd = listeners.len();
    for address in addresses {
        // OPTIONS of the service may repeat the address of its socket unit.
        if !listeners.iter().any(|l| l.address == *address) {
            let listener = Listener::bind(address).map_err(|error| advise(error, address, &listeners[..of_systemd]))?;
            listeners.push(listener);
        }
    }
    if listeners.is_empty() && needs_address {
        listeners.push(Listener::bind(&DEFAULT).map_err(|error| advise(error, &DEFAULT, &[]))?);
    }
    Ok(listeners)
}

/// The error of an address, with the fix.
fn advise(error: anyhow::Error, address: &Address, of_systemd: &[Listener]) -> anyhow::Error {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let fix = match (address, of_systemd) {
        (Address::Tcp(address), _) if kind == Some(io::ErrorKind::AddrNotAvailable) => &format!(
            " (no interface of this host has the address {}: 'ip address' lists those that there are, and 0.0.0.0 means all)",
            address.ip()
        ),
        (Address::Unix(_), _) => "",
        (Address::Tcp(_), [first, ..]) => &format!(
            " (systemd listens on {} for it: change ListenStream= of that socket unit, or choose another address with --listen)",
            first.address
        ),
        (Address::Tcp(_), []) => {
            " (is another exporter running? Choose another address with --listen; port 0 takes a free one)"
        }
    };
    error.context(format!("listen on {address}{fix}"))
}

/// Says where metrics are served, from now on.
pub(super) fn announce(listener: &Listener) {
    match &listener.address {
        Address::Tcp(address) => {
            if !address.ip().to_canonical().is_loopback() {
                say!("anyone who can reach {} can read these metrics: there is no password", address.ip());
            }
            say!("metrics on http://{address}/metrics");
        }
        Address::Unix(path) => {
            say!("metrics on {}: curl --unix-socket {0} http://localhost/metrics", output::shown(path))
        }
    }
}
