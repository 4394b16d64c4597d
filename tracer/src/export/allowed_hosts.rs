//! The Host header of a request, which a browser fills with the name in its address bar: a page whose name was made to resolve to this
//! host (DNS rebinding) is told from a scrape by it.

use std::net::{Ipv4Addr, Ipv6Addr};

use hyper::{Request, header};

/// The names by which this exporter is asked, besides IP addresses and `localhost`, which no page of another host can have.
pub(crate) struct AllowedHosts {
    /// lower case, without a dot at the end
    names: Vec<String>,
    /// names are checked on every address, not on loopback ones only
    pub(crate) everywhere: bool,
}

/// Text of a refusal.
pub(crate) const REFUSAL: &str = "the Host header names another host than this one: ask by IP address, or start the exporter with \
                                  --allow-host NAME\n";

impl AllowedHosts {
    /// This host's own name, and those that the user names. With any of those, names are checked on every address: without them, only on
    /// loopback ones, because an exporter that others can reach is scraped by names that it does not know.
    pub(crate) fn new(own_name: &str, named: &[String]) -> Self {
        let names = named.iter().map(String::as_str).chain([own_name]).map(plain).filter(|n| !n.is_empty()).collect();
        Self { names, everywhere: !named.is_empty() }
    }

    /// Whether a request may be answered. One without a host (HTTP/1.0) is no browser's.
    pub(crate) fn allow<B>(&self, request: &Request<B>) -> bool {
        // A whole URI in the request line replaces the header (RFC 9112, 3.2.2).
        if let Some(authority) = request.uri().authority() {
            return self.allow_authority(authority.as_str());
        }
        let mut hosts = request.headers().get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (None, _) => true,
            (Some(host), None) => host.to_str().is_ok_and(|host| self.allow_authority(host)),
            (Some(_), Some(_)) => false,
        }
    }

    fn allow_authority(&self, text: &str) -> bool {
        let (is_address, host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((ip, port))) => (ip.parse::<Ipv6Addr>().is_ok(), "", port),
            Some(None) => return false,
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                (host.parse::<Ipv4Addr>().is_ok(), host, port)
            }
        };
        let has_port = port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
        let name = plain(host);
        (port.is_empty() || has_port) && (is_address || name == "localhost" || self.names.contains(&name))
    }
}

/// A host's name as it is compared.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// A name for [`AllowedHosts`], from the command line.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err("the name of a host is expected, without a port".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(named: &[&str], host: &str) -> bool {
        let named: Vec<_> = named.iter().map(|n| (*n).to_owned()).collect();
        let request = Request::builder().uri("/metrics").header(header::HOST, host).body(()).unwrap();
        AllowedHosts::new("Node7", &named).allow(&request)
    }

    #[test]
    fn addresses_localhost_and_this_hosts_own_name_are_allowed_with_any_port() {
        for host in [
            "127.0.0.1:9753",
            "127.0.0.1:",
            "127.0.0.1",
            "10.0.0.7:80",
            "[::1]:9753",
            "[::1]",
            "localhost:9753",
            "LOCALHOST",
            "node7:9753",
            "node7.",
            "NODE7",
        ] {
            assert!(allows(&[], host), "{host}");
        }
    }

    #[test]
    fn other_names_are_refused_unless_they_are_given() {
        for host in [
            "evil.example:9753",
            "localhost.evil.example",
            "node7.evil.example",
            "127.0.0.1.evil.example",
            "127.1",
            "2130706433",
            "0x7f000001",
            "",
            ":9753",
            "a b",
            "localhost@evil.example",
            "evil.example@localhost",
            "[::1].evil.example",
            "[localhost]",
            "[::1",
            "[::1]9753",
            "::1",
            "localhost:9753:1",
            "localhost:evil",
            "127.0.0.1:9753.evil.example",
        ] {
            assert!(!allows(&[], host), "{host}");
        }
        assert!(allows(&["Metrics.Example.org"], "metrics.example.org:443"));
        assert!(!allows(&["metrics.example.org"], "evil.example"));
    }

    #[test]
    fn a_request_with_two_hosts_or_a_foreign_uri_is_refused_and_one_without_a_host_is_not() {
        let hosts = AllowedHosts::new("node7", &[]);
        let twice = Request::builder().header(header::HOST, "localhost").header(header::HOST, "localhost");
        assert!(!hosts.allow(&twice.body(()).unwrap()));
        let foreign = Request::builder().uri("http://evil.example/metrics").header(header::HOST, "localhost");
        assert!(!hosts.allow(&foreign.body(()).unwrap()));
        assert!(hosts.allow(&Request::builder().uri("/metrics").body(()).unwrap()));
    }

    #[test]
    fn a_name_on_the_command_line_has_no_port_and_no_path() {
        assert_eq!(parse_name("metrics.example.org").as_deref(), Ok("metrics.example.org"));
        for name in ["", "a:80", "http://a", "a/b", "a b", "u@a", "[::1]"] {
            assert!(parse_name(name).is_err(), "{name}");
        }
    }
}
