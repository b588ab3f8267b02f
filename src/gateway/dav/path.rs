//! Paths below `/dav/`, in a request's URL and in its headers.

use axum::http::{HeaderMap, StatusCode, Uri, header};

use crate::gateway::HttpProblem;
use crate::gateway::errors::Result;
use crate::gateway::s3_key::{S3Key, escape};

/// The prefix of every path.
pub(in crate::gateway) const ROOT: &str = "/dav";

/// What a WebDAV URL names in the vault: the root, or something below it. A trailing slash means nothing, since clients
/// are careless with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::gateway) struct DavPath(S3Key);

impl DavPath {
    /// Parses a URL's path; `None` if it is not below `/dav`.
    fn of(path: &str) -> Option<Result<Self>> {
        let path = path.strip_prefix(ROOT)?;
        let path = match path.strip_prefix('/') {
            Some(path) => path,
            None if path.is_empty() => path,
            None => return None,
        };
        Some(match path {
            "" => S3Key::parse_directory(b"").map(Self),
            path => S3Key::from_url(path.strip_suffix('/').unwrap_or(path)).map(Self),
        })
    }

    /// The path that a request is for.
    pub(in crate::gateway) fn of_request(uri: &Uri) -> Result<Self> {
        Self::of(uri.path()).unwrap_or_else(|| Err(elsewhere()))
    }

    /// The path that a URL in a header names: `/dav/...`, or a full URL of this service. `asked_for`: the service's
    /// authority in this request. (A proxy may speak another scheme than we do, so the scheme is ignored.)
    pub(super) fn of_url(url: &str, asked_for: Option<&str>) -> Result<Self> {
        let not_understood =
            || HttpProblem::bad_request("A URL in the request's headers is not understood.");
        // The parser would drop the fragment, and the rest names something else.
        if url.contains('#') {
            return Err(not_understood());
        }
        let uri: Uri = url.trim().parse().map_err(|_| not_understood())?;
        match uri.authority() {
            Some(host) if !asked_for.is_some_and(|own| host.as_str().eq_ignore_ascii_case(own)) => {
                Err(elsewhere())
            }
            None if !uri.path().starts_with('/') => Err(elsewhere()),
            _ => Self::of_request(&uri),
        }
    }

    /// The target of a request (`Destination`); `None` if it has none.
    pub(in crate::gateway) fn of_destination(
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Option<Result<Self>> {
        let url = headers.get("destination")?.to_str();
        let url = url.map_err(|_| HttpProblem::bad_request("The Destination is not a URL."));
        Some(url.and_then(|url| Self::of_url(url, asked_for(uri, headers))))
    }

    pub(in crate::gateway) fn key(&self) -> &S3Key {
        &self.0
    }

    pub(in crate::gateway) fn names(&self) -> &[Vec<u8>] {
        self.0.names()
    }

    /// The components of the parent directory; `None` for the root.
    pub(super) fn above(&self) -> Option<&[Vec<u8>]> {
        self.0.split().map(|(above, _)| above)
    }

    pub(super) fn is_root(&self) -> bool {
        self.names().is_empty()
    }
}

/// The authority that the request is for; the gate has checked it.
pub(super) fn asked_for<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    host.or(uri.authority().map(|own| own.as_str()))
}

/// The URL path of a resource.
pub(super) fn href(names: &[Vec<u8>], is_collection: bool) -> String {
    let path = escape(&names.join(&b'/'));
    let slash = if is_collection && !path.is_empty() { "/" } else { "" };
    format!("{ROOT}/{path}{slash}")
}

fn elsewhere() -> HttpProblem {
    HttpProblem::new(
        StatusCode::BAD_GATEWAY,
        "elsewhere",
        "A URL in the request's headers leads out of /dav/ on this service. If a proxy is before it, have it pass the \
         header Host on as it came. Nothing was changed.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(url: &str) -> Option<String> {
        let path = DavPath::of_url(url, Some("Host:80")).ok()?;
        Some(String::from_utf8(path.key().bytes()).unwrap())
    }

    #[test]
    fn urls_lead_into_the_vault_or_nowhere() {
        for (url, key) in [
            ("/dav", ""),
            ("/dav/", ""),
            ("/dav/a", "a"),
            ("/dav/a/b%20c/", "a/b c"),
            ("http://host:80/dav/a", "a"),
            ("https://HOST:80/dav/a/", "a"),
        ] {
            assert_eq!(path(url).as_deref(), Some(key), "{url}");
        }
        for url in [
            "/davx",
            "/files/a",
            "http://other/dav/a",
            "http://host/dav/a",
            "//other/dav/a",
            "/dav/a/../b",
            "/dav/%2e%2e/b",
            "/dav/a%2Fb",
            "/dav//",
            "/dav/a//b",
            "dav/a",
            "",
            "/dav/a\u{1}",
        ] {
            assert_eq!(path(url), None, "{url}");
        }
        assert!(DavPath::of_url("http://host/dav/a", None).is_err());
        assert_eq!(href(&[], true), "/dav/");
        assert_eq!(href(&["a b".into(), "\u{fc}".into()], true), "/dav/a%20b/%C3%BC/");
    }
}
