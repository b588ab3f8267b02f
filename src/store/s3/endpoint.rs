//! The host and port that a URL names.

use std::net::IpAddr;

/// Where the requests for a URL go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Whether by TLS.
    pub encrypted: bool,
    /// The host.
    pub host: Destination,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    /// The endpoint of a URL; `http` if it has no scheme.
    pub(super) fn of(url: &str) -> Self {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let encrypted = scheme.eq_ignore_ascii_case("https");
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        let (host, port) = split_port(authority);
        let port = port.unwrap_or(if encrypted { 443 } else { 80 });
        Self { encrypted, host: Destination::of(host), port }
    }

    /// Whether requests stay on this machine. A name does not count, not even `localhost`: the machine may resolve it to
    /// anything.
    pub(super) fn is_here(&self) -> bool {
        matches!(self.host, Destination::Address(address) if address.is_loopback())
    }
}

/// Splits `:port` off; the brackets of an IPv6 address stay. An invalid port stays where it is.
pub(super) fn split_port(place: &str) -> (&str, Option<u16>) {
    let bare = place.parse::<std::net::Ipv6Addr>().is_ok();
    match place.rsplit_once(':') {
        Some((host, port)) if !bare && (!host.contains(':') || host.ends_with(']')) => {
            match port.parse() {
                Ok(port) => (host, Some(port)),
                Err(_) if port.is_empty() => (host, None),
                Err(_) => (place, None),
            }
        }
        _ => (place, None),
    }
}

/// A host.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Address(IpAddr),
    /// In lower case, without a dot at either end.
    Name(String),
}

impl Destination {
    pub(super) fn of(text: &str) -> Self {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        match bare.parse() {
            Ok(address) => Self::Address(address),
            Err(_) => Self::Name(text.trim_matches('.').to_ascii_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_loopback_is_here() {
        let is_here = |url: &str| Endpoint::of(url).is_here();
        for url in
            ["http://127.0.0.1:9000", "http://127.8.8.8", "http://[::1]:8333/path", "127.0.0.1"]
        {
            assert!(is_here(url), "{url}");
        }
        for url in [
            "http://example.com",
            "http://localhost:9000",
            "http://localhost@example.com",
            "http://127.0.0.1@example.com:80",
            "http://example.com/localhost",
            "http://example.com?@127.0.0.1",
            "http://128.0.0.1",
            "http://[::2]",
            "http://0.0.0.0",
            "",
        ] {
            assert!(!is_here(url), "{url}");
        }
    }
}
