//! Keeps a page of another site from using the service through a user's browser. It checks two things: the host name
//! that a request is for (an attacker's name that resolves to this machine is "DNS rebinding"), and the page that a
//! request to change something came from.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, Uri, header};

use super::ListenAt;

/// The host names that count as this service's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hosts {
    /// The address that it listens on; `None` for a Unix socket.
    address: Option<IpAddr>,
    /// `--host`, in lower case.
    names: Vec<String>,
    /// Whether any name is accepted: a web page reaches a Unix socket only through the proxy in front of it, which
    /// checks the names itself.
    any: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No `Host`, or more than one.
    NoHost,
    /// A name that is not ours.
    Host,
    /// Sent by a page elsewhere.
    Origin,
}

impl Hosts {
    /// `open`: nobody needs a token. Then a name of an attacker's that leads to the proxy would lead to the files, so
    /// only names that we know are accepted.
    pub(super) fn new(at: &ListenAt, names: &[String], open: bool) -> Self {
        let names: Vec<_> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        match at {
            ListenAt::Tcp(address) => Self { address: Some(address.ip()), names, any: false },
            ListenAt::Unix(_) => Self { address: None, any: names.is_empty() && !open, names },
        }
    }

    /// The authority (`name:port`) that this request is for, if the name is ours. Ports are ignored, since they may be
    /// forwarded. An address cannot be rebound as a name can, so a service that listens on all addresses accepts any
    /// address.
    pub(super) fn asked_for(&self, uri: &Uri, headers: &HeaderMap) -> Result<String, Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next(), uri.authority()) {
            (Some(host), None, _) => host.to_str().map_err(|_| Refusal::NoHost)?,
            // HTTP/2 carries it in the URI (`:authority`).
            (None, _, Some(own)) => own.as_str(),
            _ => return Err(Refusal::NoHost),
        };
        // A request for `GET http://name/path` is refused if `Host` says otherwise.
        if uri.authority().is_some_and(|own| !own.as_str().eq_ignore_ascii_case(host)) {
            return Err(Refusal::Host);
        }
        let name = name_of(host).ok_or(Refusal::NoHost)?.to_ascii_lowercase();
        if self.allows(&name) { Ok(host.to_ascii_lowercase()) } else { Err(Refusal::Host) }
    }

    fn allows(&self, name: &str) -> bool {
        if self.any || self.names.iter().any(|own| own == name) {
            return true;
        }
        let asked = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let Some(own) = self.address else {
            return asked.map_or(name == "localhost", |address| address.is_loopback());
        };
        let local = own.is_loopback() || own.is_unspecified();
        match asked {
            Ok(address) if own.is_unspecified() => !address.is_unspecified(),
            Ok(address) => address == own || local && address.is_loopback(),
            Err(_) => local && name == "localhost",
        }
    }
}

/// The name in `name`, `name:port` or `[address]:port`.
fn name_of(authority: &str) -> Option<&str> {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if !authority.ends_with(']') => {
            port.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)?
        }
        _ => authority,
    };
    (!name.is_empty() && !name.contains(['/', '@', ' '])).then_some(name)
}

/// Whether a method changes nothing.
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) || method == "PROPFIND"
}

/// Whether a browser sent this: every current browser sends one of these headers with a request to change something.
pub(super) fn is_from_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site")
}

/// Refuses a request that a page of another site sent, by the browser's headers. `asked_for`: our authority in it.
pub(super) fn check_origin(headers: &HeaderMap, asked_for: &str, tls: bool) -> Result<(), Refusal> {
    if let Some(site) = headers.get("sec-fetch-site")
        && site != "same-origin"
        && site != "none"
    {
        return Err(Refusal::Origin);
    }
    for origin in headers.get_all(header::ORIGIN) {
        let own = origin.to_str().ok().and_then(|origin| origin.split_once("://")).is_some_and(
            // A proxy in front of us may speak TLS where we do not.
            |(scheme, authority)| {
                (scheme == "https" || scheme == "http" && !tls)
                    && authority.eq_ignore_ascii_case(asked_for)
            },
        );
        if !own {
            return Err(Refusal::Origin);
        }
    }
    Ok(())
}

/// Refuses even reads that a page of another site makes. It could not read the answer, but it would make us work, and
/// the time that takes would tell it which paths exist. Links to our page are allowed. (Another port of this machine is
/// another site, too.)
pub(super) fn check_page(
    headers: &HeaderMap,
    uri: &Uri,
    asked_for: &str,
    tls: bool,
) -> Result<(), Refusal> {
    let says = |name: &str, word: &str| headers.get(name).is_some_and(|value| value == word);
    let is_shown = says("sec-fetch-mode", "navigate") && says("sec-fetch-dest", "document");
    if is_shown && matches!(uri.path(), "/" | "/login") {
        return Ok(());
    }
    check_origin(headers, asked_for, tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(listen: &str, names: &[&str], host: &str) -> Result<String, Refusal> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        Hosts::new(&listen.parse().unwrap(), &names, false)
            .asked_for(&Uri::from_static("/x"), &headers)
    }

    #[test]
    fn only_our_own_names_are_heard() {
        for host in ["localhost:8000", "LOCALHOST", "127.0.0.1:9", "127.0.0.1", "[::1]:8000"] {
            assert!(asked("127.0.0.1:8000", &[], host).is_ok(), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8000",
            "127.0.0.1.evil.example",
            "192.168.0.7:8000",
            "localhost.evil.example",
            "xlocalhost",
        ] {
            assert_eq!(asked("127.0.0.1:8000", &[], host), Err(Refusal::Host), "{host}");
            assert_eq!(asked("[::1]:8000", &[], host), Err(Refusal::Host), "{host}");
        }
        for host in ["", ":8000", "a/b", "user@localhost", "localhost:80x"] {
            assert!(asked("127.0.0.1:8000", &[], host).is_err(), "{host}");
        }
        assert!(asked("10.1.2.3:80", &[], "10.1.2.3").is_ok());
        assert!(asked("10.1.2.3:80", &[], "localhost").is_err());
        assert!(asked("0.0.0.0:80", &[], "10.1.2.3:80").is_ok());
        assert!(asked("0.0.0.0:80", &[], "files.example").is_err());
        assert!(asked("0.0.0.0:80", &["Files.example"], "files.EXAMPLE:443").is_ok());
    }

    #[test]
    fn behind_a_proxy_any_name_is_ours_unless_some_are_given_or_all_may_come() {
        let asked = |names: &[&str], open, host: &str| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            let headers = [(header::HOST, host.parse().unwrap())].into_iter().collect();
            let hosts = Hosts::new(&"unix:/s".parse().unwrap(), &names, open);
            hosts.asked_for(&Uri::from_static("/x"), &headers).is_ok()
        };
        assert!(asked(&[], false, "files.example") && asked(&[], true, "localhost"));
        assert!(!asked(&[], true, "files.example") && !asked(&["a"], false, "files.example"));
        for open in [false, true] {
            assert!(asked(&["a.example"], open, "A.example:443"));
            assert!(asked(&["a.example"], open, "127.0.0.1"));
        }
        assert!(!asked(&[], true, "127.0.0.1.evil.example"));
    }

    #[test]
    fn a_host_is_said_once_and_the_same_everywhere() {
        let hosts = Hosts::new(&"127.0.0.1:8000".parse().unwrap(), &[], false);
        let mut headers = HeaderMap::new();
        let plain = Uri::from_static("/");
        assert_eq!(hosts.asked_for(&plain, &headers), Err(Refusal::NoHost));
        // In HTTP/2's form.
        let second = Uri::from_static("https://localhost:1/");
        assert_eq!(hosts.asked_for(&second, &headers).unwrap(), "localhost:1");
        let evil = Uri::from_static("https://evil.example/");
        assert_eq!(hosts.asked_for(&evil, &headers), Err(Refusal::Host));
        headers.append(header::HOST, "localhost".parse().unwrap());
        let other = Uri::from_static("http://evil.example/");
        assert_eq!(hosts.asked_for(&other, &headers), Err(Refusal::Host));
        assert!(hosts.asked_for(&Uri::from_static("http://localhost/"), &headers).is_ok());
        headers.append(header::HOST, "localhost".parse().unwrap());
        assert_eq!(hosts.asked_for(&plain, &headers), Err(Refusal::NoHost));
    }

    #[test]
    fn pages_elsewhere_are_refused_and_programs_are_not() {
        let check = |tls: bool, list: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in list {
                headers.append(*name, value.parse().unwrap());
            }
            check_origin(&headers, "localhost:8000", tls).is_ok()
        };
        assert!(check(false, &[]));
        assert!(check(false, &[("origin", "http://localhost:8000")]));
        assert!(check(false, &[("sec-fetch-site", "same-origin")]));
        assert!(check(false, &[("sec-fetch-site", "none")]));
        assert!(check(true, &[("origin", "https://localhost:8000")]));
        assert!(!check(true, &[("origin", "http://localhost:8000")]));
        for origin in
            ["null", "http://localhost:8001", "http://localhost", "http://evil.example", ""]
        {
            assert!(!check(false, &[("origin", origin)]), "{origin}");
        }
        let own = ("origin", "http://localhost:8000");
        for site in ["cross-site", "same-site", ""] {
            assert!(!check(false, &[own, ("sec-fetch-site", site)]), "{site}");
        }
        assert!(!check(false, &[own, ("origin", "http://evil.example")]));
    }
    #[test]
    fn a_page_elsewhere_may_lead_here_and_ask_for_nothing() {
        let check = |path: &'static str, list: &[(&'static str, &'static str)]| {
            let headers = list.iter().map(|(name, value)| {
                (header::HeaderName::from_static(name), header::HeaderValue::from_static(value))
            });
            check_page(&headers.collect(), &Uri::from_static(path), "localhost:8000", false).is_ok()
        };
        let (link, document) = (("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"));
        assert!(check("/files/a", &[]), "a program");
        assert!(check("/files/a", &[("sec-fetch-site", "same-origin")]));
        assert!(check("/files/a", &[("sec-fetch-site", "none")]), "typed");
        for site in ["cross-site", "same-site", ""] {
            let site = ("sec-fetch-site", site);
            assert!(check("/", &[site, link, document]));
            assert!(!check("/files/a", &[site, link, document]), "a download");
            assert!(!check("/", &[site, link, ("sec-fetch-dest", "iframe")]));
            assert!(!check(
                "/",
                &[site, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]
            ));
            assert!(!check("/healthz", &[site]));
        }
    }
}
