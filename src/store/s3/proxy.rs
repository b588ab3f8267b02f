//! Which requests go through a proxy: the environment variables, with the meaning that they have for `aws` and curl.
//!
//! Where these two differ: lower case takes precedence (both), `HTTP_PROXY` is used (aws; curl uses only `http_proxy`),
//! and so is `ALL_PROXY` (curl); `NO_PROXY` supports networks (curl) and ports (aws). An unusable proxy is an error and
//! is never ignored, because the requests would bypass it.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;

use zeroize::Zeroizing;

use super::endpoint::{Destination, Endpoint, split_port};

/// Where instances and containers ask for their own credentials. A proxy cannot answer for another machine, and must not
/// learn of it.
const METADATA: [&str; 5] =
    ["169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd00:ec2::23"];

/// The environment's proxies.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    http: Option<ProxySetting>,
    https: Option<ProxySetting>,
    except: Vec<Exception>,
}

/// The proxy that a variable names, or why it cannot be used.
type ProxySetting = std::result::Result<Proxy, String>;

/// One proxy.
#[derive(Clone)]
pub(super) struct Proxy {
    /// With user and password, if given.
    url: Zeroizing<String>,
    /// Without user and password.
    shown: String,
}

impl Proxy {
    /// The URL for use, not for display.
    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// For people: `http://host:port (HTTPS_PROXY)`.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Proxies {
    /// The proxies of an environment.
    pub(super) fn of(environment: impl Fn(&str) -> Option<OsString>) -> Self {
        // An empty variable counts as not set.
        let get = |name: &'static str| {
            let value = environment(name).filter(|value| !value.is_empty())?;
            Some((name, value.into_string().ok()))
        };
        let first = |names: &[&'static str]| names.iter().find_map(|name| get(name));
        let entry = |names: &[&'static str]| first(names).map(|(name, text)| parse(name, text));
        // In a CGI program, `HTTP_PROXY` is the client's header `Proxy`.
        let upper = if get("REQUEST_METHOD").is_some() { "http_proxy" } else { "HTTP_PROXY" };
        let except = first(&["no_proxy", "NO_PROXY"]).and_then(|(_, text)| text);
        Self {
            http: entry(&["http_proxy", upper, "all_proxy", "ALL_PROXY"]),
            https: entry(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            except: exceptions(except.as_deref().unwrap_or_default()),
        }
    }

    /// Whether nothing goes through a proxy.
    pub(super) fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }

    /// The usable proxies: for `http://`, and for `https://`.
    pub(super) fn usable(&self) -> (Option<&Proxy>, Option<&Proxy>) {
        fn usable(entry: Option<&ProxySetting>) -> Option<&Proxy> {
            entry?.as_ref().ok()
        }
        (usable(self.http.as_ref()), usable(self.https.as_ref()))
    }

    /// The proxy for requests to a URL; an error says why the proxy that is set cannot be used.
    pub(super) fn of_url(&self, url: &str) -> std::result::Result<Option<&Proxy>, String> {
        let Endpoint { encrypted, host, port } = Endpoint::of(url);
        let Some(entry) = (if encrypted { &self.https } else { &self.http }) else {
            return Ok(None);
        };
        let own = METADATA.iter().any(|address| host == Destination::of(address));
        if own || self.except.iter().any(|exception| exception.covers(&host, port)) {
            return Ok(None);
        }
        entry.as_ref().map(Some).map_err(Clone::clone)
    }
}

/// Parses a variable: `[http[s]://][user[:password]@]host[:port]`. The error quotes nothing of it, because it may hold a
/// password.
fn parse(name: &str, text: Option<String>) -> ProxySetting {
    let no = |why: &str| {
        format!(
            "{name} does not name a proxy that can be used: {why} (http://[USER:PASSWORD@]HOST:PORT)"
        )
    };
    let text = Zeroizing::new(text.ok_or_else(|| no("it is not UTF-8"))?);
    let (scheme, rest) = text.trim().split_once("://").unwrap_or(("http", text.trim()));
    let scheme = match scheme.to_ascii_lowercase() {
        known if known == "http" || known == "https" => known,
        socks if socks.starts_with("socks") => {
            return Err(no("proxies that speak SOCKS are not supported"));
        }
        _ => return Err(no("it begins with neither http:// nor https://")),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    let sound = |c: char| c.is_ascii_alphanumeric() || "-._~%!$&'()*+,;=:".contains(c);
    if !user.unwrap_or_default().chars().all(sound) {
        return Err(no(
            "in its user and password, other characters than letters and digits are written %XX",
        ));
    }
    let (host, port) = split_port(place);
    let named = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(named),
    };
    if !is_host || port == Some(0) {
        return Err(no("its host or port cannot be made out"));
    }
    let port = port.unwrap_or(if scheme == "https" { 443 } else { 80 });
    let at = user.map_or_else(String::new, |user| format!("{user}@"));
    Ok(Proxy {
        url: format!("{scheme}://{at}{host}:{port}").into(),
        shown: format!("{scheme}://{host}:{port} ({name})"),
    })
}

/// One entry of `NO_PROXY`.
#[derive(Debug, PartialEq, Eq)]
enum Exception {
    Everything,
    /// This host, and for a name all names below it; only at this port, if one is given.
    Host(Destination, Option<u16>),
    /// Addresses that begin with this many bits of the address.
    Network(IpAddr, u8),
}

/// Entries are separated by commas or blanks.
fn exceptions(text: &str) -> Vec<Exception> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter_map(exception).collect()
}

fn exception(word: &str) -> Option<Exception> {
    if word.is_empty() {
        return None;
    }
    if word == "*" {
        return Some(Exception::Everything);
    }
    if let Some((address, bits)) = word.split_once('/') {
        let address = address.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        let bits = bits.parse().ok()?;
        return (bits <= width(&address)).then_some(Exception::Network(address, bits));
    }
    let (host, port) = split_port(word);
    match Destination::of(host.strip_prefix("*.").unwrap_or(host)) {
        Destination::Name(name) if name.is_empty() => None,
        host => Some(Exception::Host(host, port)),
    }
}

fn width(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// An address as one number.
fn bits(address: &IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(*address).into(),
        IpAddr::V6(address) => u128::from(*address),
    }
}

impl Exception {
    fn covers(&self, host: &Destination, port: u16) -> bool {
        match (self, host) {
            (Self::Everything, _) => true,
            (Self::Host(_, Some(only)), _) if *only != port => false,
            (Self::Host(Destination::Name(name), _), Destination::Name(host)) => host
                .strip_suffix(name.as_str())
                .is_some_and(|before| before.is_empty() || before.ends_with('.')),
            (Self::Host(named, _), host) => named == host,
            (Self::Network(network, length), Destination::Address(address)) => {
                let shift = u32::from(width(network) - length);
                let front = |address| bits(address).checked_shr(shift).unwrap_or(0);
                network.is_ipv4() == address.is_ipv4() && front(network) == front(address)
            }
            (Self::Network(..), Destination::Name(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(crate::types::cases(256))]
        /// Whatever a variable holds, the result is a proxy or an error, and no password is shown.
        #[test]
        fn any_text_is_a_proxy_or_an_error_and_shows_no_password(
            text in "[ -~é]{0,30}",
            password in "[A-Z%:#@/ ]{0,4}S3CRET[A-Z%:#@/ ]{0,4}",
            url in "(https?://)?[a-z0-9@:/.\\[\\]]{0,30}",
        ) {
            for value in [text.clone(), format!("http://user:{password}@host:1"), format!("{password}{text}")] {
                let proxies = of(&[("ALL_PROXY", &value), ("NO_PROXY", &text)]);
                let asked = proxies.of_url(&url);
                let shown = format!("{proxies:?} {:?}", asked.as_ref().map(|proxy| proxy.map(ToString::to_string)));
                // A host is shown. A password that nothing separates from the host counts as host, and so does what
                // follows the last @.
                let is_host = proxies.usable().0.is_some_and(|proxy| {
                    let (_, place) = proxy.url().rsplit_once('@').unwrap_or(("", proxy.url()));
                    place == proxy.url() || place.contains("S3CRET")
                });
                prop_assert!(is_host || !shown.contains("S3CRET"), "{shown}");
            }
        }
    }

    fn of(variables: &[(&str, &str)]) -> Proxies {
        Proxies::of(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    fn through(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.of_url(url).unwrap().map(|proxy| proxy.url().to_owned())
    }

    #[test]
    fn lower_case_comes_first_and_all_proxy_last() {
        let proxies = of(&[
            ("HTTPS_PROXY", "http://upper:1"),
            ("https_proxy", "http://lower:2"),
            ("ALL_PROXY", "all:3"),
            ("http_proxy", ""),
        ]);
        assert_eq!(through(&proxies, "https://x/").unwrap(), "http://lower:2");
        assert_eq!(through(&proxies, "http://x/").unwrap(), "http://all:3");
        assert!(of(&[("NO_PROXY", "x")]).is_empty());
        // Only requests that it is meant for.
        let proxies = of(&[("HTTPS_PROXY", "https://p")]);
        assert_eq!(through(&proxies, "HTTPS://x:8333/a?b").unwrap(), "https://p:443");
        assert_eq!(through(&proxies, "http://x/"), None);
        // Anybody can set this in a CGI program by sending it a header `Proxy`.
        let cgi = of(&[("HTTP_PROXY", "http://evil"), ("REQUEST_METHOD", "GET")]);
        assert_eq!(through(&cgi, "http://x/"), None);
        assert_eq!(
            through(&of(&[("HTTP_PROXY", "http://p")]), "http://x/").unwrap(),
            "http://p:80"
        );
    }

    #[test]
    fn what_goes_past_the_proxy() {
        let goes_past = |list: &str, url: &str| {
            let proxies = of(&[("ALL_PROXY", "http://p:1"), ("NO_PROXY", list)]);
            through(&proxies, url).is_none()
        };
        for (list, url) in [
            ("*", "https://x/"),
            ("a, b ,x.org", "https://x.org/"),
            ("a b x.org", "https://x.org:8333/"),
            ("X.org", "https://sub.x.ORG./"),
            (".x.org", "https://x.org/"),
            ("*.x.org", "https://sub.x.org/"),
            ("x.org.", "https://x.org/"),
            ("x.org:8333", "https://x.org:8333/"),
            ("x.org:443", "https://x.org/"),
            ("127.0.0.1", "http://127.0.0.1:9000/"),
            ("10.0.0.0/8", "http://10.200.3.4/"),
            ("0.0.0.0/0", "http://10.200.3.4/"),
            ("::1", "http://[::1]:9000/"),
            ("[::1]:9000", "http://[::1]:9000/"),
            ("fd00::/8", "http://[fd12::1]/"),
            // These are for this machine alone, whatever the list says.
            ("", "http://169.254.169.254/latest/meta-data/"),
            ("", "http://[fd00:ec2::254]/latest"),
        ] {
            assert!(goes_past(list, url), "{list} {url}");
        }
        for (list, url) in [
            ("", "https://x.org/"),
            (",, .", "https://x.org/"),
            ("x.org", "https://notx.org/"),
            ("x.org", "https://x.org.evil/"),
            ("x.org:8333", "https://x.org/"),
            ("10.0.0.0/8", "http://11.0.0.1/"),
            ("10.0.0.0/33", "http://10.0.0.1/"),
            ("::/0", "http://10.0.0.1/"),
            ("0.0.0.0/0", "http://x.org/"),
            // As with curl, there are no implicit exceptions.
            ("", "http://127.0.0.1:9000/"),
            ("", "http://localhost/"),
            ("127.0.0.1", "http://user@127.0.0.2:9000/127.0.0.1"),
        ] {
            assert!(!goes_past(list, url), "{list} {url}");
        }
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_never_passed_over_and_no_password_is_shown() {
        for (text, why) in [
            ("socks5h://u:s3cret@p:1080", "SOCKS"),
            ("ftp://u:s3cret@p", "neither"),
            ("http://u:s3cret#@p:1", "cannot be made out"),
            ("http://u:s3cret @p:1", "%XX"),
            ("http://u:s3cret@", "cannot be made out"),
            ("http://p:port", "cannot be made out"),
            ("http://p:99999", "cannot be made out"),
            ("http://[::zz]:1", "cannot be made out"),
        ] {
            let proxies = of(&[("HTTPS_PROXY", text), ("NO_PROXY", "near")]);
            let error = proxies.of_url("https://x/").unwrap_err();
            assert!(error.contains(why) && error.contains("HTTPS_PROXY"), "{text}: {error}");
            assert!(!format!("{error} {proxies:?}").contains("s3cret"), "{error} {proxies:?}");
            assert!(proxies.of_url("https://near/").unwrap().is_none());
        }
        let proxies = of(&[("https_proxy", "http://user:s3cr%40t@[::1]:3128/")]);
        let proxy = proxies.of_url("https://x/").unwrap().unwrap();
        assert_eq!(proxy.url(), "http://user:s3cr%40t@[::1]:3128");
        assert_eq!(proxy.to_string(), "http://[::1]:3128 (https_proxy)");
        assert!(!format!("{proxies:?}").contains("s3cr"));
    }
}
