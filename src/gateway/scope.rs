//! The part of the vault that a token may see (`serve token add --only PATH`). Decided before a request is handled,
//! from what the request asks for. A request that is not known to stay within that part is refused.

use axum::http::{HeaderMap, Uri};

use super::dav::{DavPath, ROUTES};
use super::query::Query;
use super::s3_key::S3Key;
use super::upload::DIRECTORY;

/// A directory or file: the path itself and everything below it are within the scope.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Scope(S3Key);

impl Scope {
    /// Parses a path as a user types it; `None` if it is invalid, or the root, which limits nothing.
    pub(super) fn parse(path: &[u8]) -> Option<Self> {
        let key = S3Key::parse_directory(path.strip_prefix(b"/").unwrap_or(path)).ok()?;
        (!key.names().is_empty()).then_some(Self(key))
    }

    /// The directory or file.
    pub(super) fn key(&self) -> &S3Key {
        &self.0
    }

    /// `a/b/c`.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.bytes()
    }

    /// Whether everything that this request can touch is within the scope. `route`: the route that the router matched.
    pub(super) fn allows(&self, route: &str, uri: &Uri, headers: &HeaderMap) -> bool {
        let asked = match route {
            route if ROUTES.contains(&route) => {
                let target = DavPath::of_destination(uri, headers);
                let within = |path: DavPath| self.has(path.key());
                return DavPath::of_request(uri).is_ok_and(within)
                    && target.is_none_or(|target| target.is_ok_and(within));
            }
            "/files/{*path}" => S3Key::of_request(uri).ok(),
            "/files" | "/files/" => return self.lists(uri),
            "/download" | "/download/" => {
                value(uri, "s3_key").and_then(|key| S3Key::parse(&key).ok())
            }
            "/upload" | "/upload/" => {
                let directory = value(uri, "directory").unwrap_or_else(|| DIRECTORY.to_vec());
                S3Key::parse_directory(&directory).ok()
            }
            "/" => return self.shows(uri),
            "/page/upload"
            | "/page/folder"
            | "/page/move"
            | "/page/delete"
            | "/page/history"
            | "/page/look"
            | "/page/past"
            | "/page/restore"
            | "/page/chosen"
            | "/page/chosen/delete"
            | "/page/chosen/move" => place(uri, "name"),
            // Routes that tell nothing about the vault, and the log-out.
            "/openapi.json" | "/healthz" | "/login" | "/logout" | "/page/assets/{word}/{name}" => {
                return true;
            }
            _ => None,
        };
        asked.is_some_and(|key| self.has(&key))
    }

    /// Whether a path is within the scope.
    pub(super) fn has(&self, key: &S3Key) -> bool {
        key.names().starts_with(self.0.names())
    }

    /// Whether the page may be shown. Without a query it redirects to the scope.
    fn shows(&self, uri: &Uri) -> bool {
        uri.query().is_none_or(str::is_empty)
            || place(uri, "file").is_some_and(|key| self.has(&key))
    }

    /// Whether a listing stays within. A prefix is plain text: without a slash at its end, it could match names beside
    /// the directory.
    fn lists(&self, uri: &Uri) -> bool {
        let within = [self.bytes(), b"/".to_vec()].concat();
        value(uri, "prefix").is_some_and(|prefix| {
            prefix.starts_with(&within) && S3Key::parse_directory(&directory_of(&prefix)).is_ok()
        })
    }
}

/// File names stay out of logs.
impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scope(..)")
    }
}

/// The path that a page request is about: `path`, and perhaps a name in it.
fn place(uri: &Uri, name: &str) -> Option<S3Key> {
    let known = ["path", "name", "file", "at", "sort", "order", "cursor", "done", "time", "csrf"];
    let query = Query::parse(uri.query(), &known).ok()?;
    let path = query.bytes("path")?;
    let directory = S3Key::parse_directory(path).ok()?;
    match query.bytes(name).filter(|name| !name.is_empty()) {
        Some(name) => directory.join(name).ok(),
        None => Some(directory),
    }
}

fn directory_of(prefix: &[u8]) -> Vec<u8> {
    let slash = prefix.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    prefix[..slash].to_vec()
}

/// A parameter as the handler will read it; `None` also if the query is malformed, for example if it is given twice.
fn value(uri: &Uri, name: &str) -> Option<Vec<u8>> {
    let known = [
        "prefix",
        "name",
        "sort",
        "order",
        "recursive",
        "limit",
        "cursor",
        "s3_key",
        "directory",
        "wait",
    ];
    let query = Query::parse(uri.query(), &known).ok()?;
    query.bytes(name).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_stay_within_is_refused() {
        let scope = Scope::parse(b"/photos/2026/").unwrap();
        let allows =
            |route: &str, uri: &str| scope.allows(route, &uri.parse().unwrap(), &HeaderMap::new());
        let moves = |uri: &str, to: &str| {
            let headers = [("destination", to), ("host", "h")].map(|(name, value)| {
                (axum::http::HeaderName::from_static(name), value.parse().unwrap())
            });
            let uri = uri.parse().unwrap();
            scope.allows("/dav/{*path}", &uri, &headers.into_iter().collect())
        };
        assert!(moves("/dav/photos/2026/a", "http://h/dav/photos/2026/b"));
        for (from, to) in [
            ("/dav/photos/2026/a", "/dav/photos/b"),
            ("/dav/photos/2026/a", "http://h/dav/secret"),
            ("/dav/photos/2026/a", "http://other/dav/photos/2026/b"),
            ("/dav/photos/2026/a", "/files/photos/2026/b"),
            ("/dav/photos/2026/a", "/dav/photos/2026/../b"),
            ("/dav/secret", "/dav/photos/2026/b"),
        ] {
            assert!(!moves(from, to), "{from} {to}");
        }
        for (route, uri) in [
            ("/files/{*path}", "/files/photos/2026/a.jpg"),
            ("/files/{*path}", "/files/photos/2026"),
            ("/files/{*path}", "/files/photos%2F2026/x?download=1".replace("%2F", "/").as_str()),
            ("/files/", "/files/?prefix=photos/2026/&limit=3"),
            ("/files", "/files?prefix=photos%2F2026%2Fsummer/b"),
            ("/download/", "/download/?s3_key=photos/2026/a"),
            ("/upload/", "/upload/?directory=photos/2026&wait=durable"),
            ("/openapi.json", "/openapi.json"),
            ("/dav/{*path}", "/dav/photos/2026/"),
            ("/dav/{*path}", "/dav/photos/2026/a"),
        ] {
            assert!(allows(route, uri), "{uri}");
        }
        for (route, uri) in [
            ("/files/{*path}", "/files/photos/2026x/a.jpg"),
            ("/files/{*path}", "/files/photos/a"),
            ("/files/{*path}", "/files/photos/2026/../secret"),
            ("/files/{*path}", "/files/photos/2026/%2e%2e/secret"),
            ("/files/", "/files/"),
            ("/files/", "/files/?prefix=photos/2026"),
            ("/files/", "/files/?prefix=photos/2026/../"),
            ("/files/", "/files/?prefix=photos/2026/&prefix=secret/"),
            ("/files/", "/files/?prefix=photos/2026/&directory=x&what=1"),
            ("/download/", "/download/?s3_key=secret"),
            ("/download/", "/download/"),
            ("/dav/", "/dav/"),
            ("/dav", "/dav"),
            ("/dav/{*path}", "/dav/photos/"),
            ("/dav/{*path}", "/dav/photos/2026/%2e%2e/secret"),
            ("/upload/", "/upload/"),
            ("/upload/", "/upload/?directory="),
            ("/metrics", "/metrics"),
            ("(none)", "/files/photos/2026/a"),
        ] {
            assert!(!allows(route, uri), "{uri}");
        }
        assert!(Scope::parse(b"").is_none() && Scope::parse(b"/").is_none());
        assert!(Scope::parse(b"a/../b").is_none() && Scope::parse(b"a\0").is_none());
    }

    #[test]
    fn the_page_shows_and_changes_what_is_within() {
        let scope = Scope::parse(b"photos/2026").unwrap();
        let allows =
            |route: &str, uri: &str| scope.allows(route, &uri.parse().unwrap(), &HeaderMap::new());
        for (route, uri) in [
            ("/", "/"),
            ("/", "/?path=photos/2026"),
            ("/", "/?path=photos/2026/&name=x&sort=size&order=desc"),
            ("/", "/?path=photos&file=2026&at=7"),
            ("/page/move", "/page/move?path=photos/2026&name=a&csrf=w"),
            ("/page/folder", "/page/folder?path=photos/2026&csrf=w"),
            ("/page/past", "/page/past?path=photos/2026&name=a&at=3"),
            ("/page/chosen", "/page/chosen?path=photos/2026&csrf=w"),
            ("/page/chosen/move", "/page/chosen/move?path=photos/2026/summer&csrf=w"),
            ("/page/assets/{word}/{name}", "/page/assets/0/main.js"),
        ] {
            assert!(allows(route, uri), "{uri}");
        }
        for (route, uri) in [
            ("/", "/?path=photos"),
            ("/", "/?path="),
            ("/", "/?name=x"),
            ("/", "/?path=photos/2026&path="),
            ("/", "/?path=photos/2026&file=.."),
            ("/", "/?path=photos&file=2027"),
            ("/page/move", "/page/move?path=photos&name=a"),
            ("/page/delete", "/page/delete?path=&name=photos"),
            ("/page/restore", "/page/restore?path=photos/2026/../x&name=y&at=3"),
            ("/page/history", "/page/history"),
            ("/page/chosen", "/page/chosen?path=&csrf=w"),
            ("/page/chosen/delete", "/page/chosen/delete?path=photos&csrf=w"),
            ("/page/chosen/delete", "/page/chosen/delete?csrf=w"),
            ("/page/past", "/page/past?path=secret&name=a&at=3"),
            ("/page/snapshots", "/page/snapshots"),
            ("/page/snapshots/delete", "/page/snapshots/delete?name=x&csrf=w"),
            ("/page/snapshots/delete", "/page/snapshots/delete?path=photos/2026&name=x&csrf=w"),
        ] {
            assert!(!allows(route, uri), "{uri}");
        }
    }
}
