//! `GET` and `HEAD` of a file: `/download/?s3_key=` and `/files/PATH`.

use std::ops::Range;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::conditions::{Validators, Verdict};
use super::errors::Result;
use super::metadata::{self, FileInfo, UploadNote, hex, rfc3339};
use super::query::Query;
use super::ranges::{RequestedRange, requested};
use super::s3_key::S3Key;
use super::{Gateway, HttpProblem};
use crate::files::HandleGuard;
use crate::vfs::{Inspected, OpenFlags};

/// Bytes read and sent at a time. The vault does the reading ahead.
const PIECE: u64 = 1 << 20;
/// An uploaded file must not act on behalf of the service when a browser opens it.
const HARMLESS: &str = "sandbox; default-src 'none'";
/// Escapes everything but the characters that RFC 8187 allows unescaped.
const EXTENDED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// `GET /download/?s3_key=PATH`.
pub(super) async fn by_s3_key(
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response> {
    let query = Query::parse(query.as_deref(), &["s3_key"])?;
    let key = query.bytes("s3_key").ok_or_else(|| {
        HttpProblem::bad_request(
            "No file is named. Use /download/?s3_key=PATH, as in encrypted/file.txt.",
        )
    })?;
    send(&gateway, &S3Key::parse(key)?, &method, &headers).await
}

/// `GET /files/PATH`; with `?metadata=true` the file's metadata instead of its content.
pub(super) async fn by_path(
    State(gateway): State<Arc<Gateway>>,
    uri: Uri,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response> {
    let query = Query::parse(query.as_deref(), &["metadata"])?;
    let key = S3Key::of_request(&uri)?;
    if query.flag("metadata", false)? {
        let (inspected, _) = gateway.inspect(&key).await?;
        return Ok(Json(FileInfo::new(&key, &inspected)).into_response());
    }
    send(&gateway, &key, &method, &headers).await
}

/// How often the look-up is repeated if the file is replaced between look-up and open.
const TRIES: usize = 100;

pub(super) async fn send(
    gateway: &Arc<Gateway>,
    key: &S3Key,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response> {
    for _ in 0..TRIES {
        if let Some(response) = send_this(gateway, key, method, headers).await? {
            return Ok(response);
        }
    }
    Err(changed())
}

/// Sends what the key names now; `None` if it was replaced or removed before it could be opened.
async fn send_this(
    gateway: &Arc<Gateway>,
    key: &S3Key,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Option<Response>> {
    let inspected = gateway.inspect_file(key).await?;
    let validators = Validators::new(inspected.version, inspected.attributes.mtime);
    let mut about = HeaderMap::new();
    describe(&mut about, key, &inspected, &validators);
    match validators.judge(headers) {
        Verdict::Send => {}
        Verdict::NotModified => {
            // A 304 leaves out what a cache has already (RFC 9110, 15.4.5).
            for name in [header::CONTENT_TYPE, header::CONTENT_DISPOSITION, header::ACCEPT_RANGES] {
                about.remove(name);
            }
            return Ok(Some((StatusCode::NOT_MODIFIED, about).into_response()));
        }
        Verdict::Failed => {
            return Err(HttpProblem::new(
                StatusCode::PRECONDITION_FAILED,
                "precondition_failed",
                "The file is not the version that was asked for.",
            ));
        }
    }
    let size = inspected.attributes.size;
    // Ranges are defined for GET only.
    let range = (method == Method::GET && validators.allows_part(headers))
        .then(|| headers.get(header::RANGE)?.to_str().ok())
        .flatten();
    let (status, range) = match requested(range, size) {
        RequestedRange::All => (StatusCode::OK, 0..size),
        RequestedRange::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        RequestedRange::Beyond => return Ok(Some(beyond(size))),
    };
    if status == StatusCode::PARTIAL_CONTENT {
        let (first, last) = (range.start, range.end - 1);
        set(&mut about, header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}"));
    }
    about.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if *method == Method::HEAD {
        return Ok(Some((status, about, Body::empty()).into_response()));
    }
    let flags = OpenFlags { read: true, ..OpenFlags::default() };
    let handle = match gateway.vfs.open(inspected.attributes.ino, flags).await {
        Err(crate::vfs::Error::Stale) => return Ok(None),
        handle => handle?,
    };
    let open = HandleGuard::new(&gateway.vfs, handle);
    let body = content(Reading { open, inspected, range }).await?;
    Ok(Some((status, about, body).into_response()))
}

fn changed() -> HttpProblem {
    HttpProblem::unavailable("The file was changed just now. Ask again.", 1)
}

/// Adds the headers that describe a file.
fn describe(about: &mut HeaderMap, key: &S3Key, inspected: &Inspected, validators: &Validators) {
    let known = UploadNote::of(inspected);
    let kind = known.as_ref().map(|known| known.content_type.as_str());
    set(about, header::CONTENT_TYPE, metadata::content_type(kind, key.name()));
    set(about, header::CONTENT_DISPOSITION, disposition(key.name()));
    if let Some(date) = validators.last_modified() {
        set(about, header::LAST_MODIFIED, date);
    }
    if let Some(etag) = &validators.etag {
        set(about, header::ETAG, etag.clone());
    }
    let fixed = [
        (header::ACCEPT_RANGES, "bytes"),
        // A browser would keep what was decrypted on its disk.
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, HARMLESS),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fixed {
        about.insert(name, HeaderValue::from_static(value));
    }
    let state = if inspected.is_durable { "durable" } else { "uploading" };
    about.insert(HeaderName::from_static("x-s3vault-state"), HeaderValue::from_static(state));
    if let Some(known) = known {
        let digest = data_encoding::BASE64.encode(&known.sha256.0);
        let own = HeaderName::from_static;
        set(about, own("repr-digest"), format!("sha-256=:{digest}:"));
        set(about, own("x-s3vault-id"), hex(&known.id));
        set(about, own("x-s3vault-uploaded-at"), rfc3339(known.uploaded_at));
    }
}

/// Sets a header to a value that is ours or was checked before.
fn set(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

fn beyond(size: u64) -> Response {
    let problem = HttpProblem::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "range_not_satisfiable",
        format!("The file has {size} bytes, none of which are in the range that was asked for."),
    );
    let mut response = problem.into_response();
    set(response.headers_mut(), header::CONTENT_RANGE, format!("bytes */{size}"));
    response
}

/// The `Content-Disposition`: always a download under the file's name, in ASCII for old clients and in UTF-8 for all
/// others (RFC 6266, RFC 8187).
fn disposition(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let plain = |c: char| if (' '..='~').contains(&c) && !"\"\\%/".contains(c) { c } else { '_' };
    let ascii: String = text.chars().map(plain).collect();
    let extended = percent_encode(text.as_bytes(), EXTENDED);
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{extended}")
}

/// The bytes of a range, piece by piece. The first piece is read before the response begins, so that a store that does
/// not answer yields an error status. A later failure breaks the connection, which no client takes for the end of the
/// file.
async fn content(mut reading: Reading) -> Result<Body> {
    let first = reading.next().await.map_err(|failure| match failure {
        DownloadError::Vault(error) => HttpProblem::from(error),
        DownloadError::Changed => changed(),
    })?;
    let Some(first) = first else { return Ok(Body::empty()) };
    if reading.range.is_empty() {
        return Ok(Body::from(first));
    }
    let pieces = stream::unfold(Some((Some(first), reading)), |state| async {
        let (first, mut reading) = state?;
        if let Some(first) = first {
            return Some((Ok(first), Some((None, reading))));
        }
        match reading.next().await {
            Ok(piece) => Some((Ok(piece?), Some((None, reading)))),
            Err(failure) => {
                tracing::warn!(error = %failure, "a download ends early");
                Some((Err(failure), None))
            }
        }
    });
    Ok(Body::from_stream(pieces))
}

/// A download under way.
struct Reading {
    open: HandleGuard,
    /// The file as it was when the download began.
    inspected: Inspected,
    /// What is still to be sent.
    range: Range<u64>,
}

/// Why a download ends early.
#[derive(Debug, thiserror::Error)]
enum DownloadError {
    #[error(transparent)]
    Vault(#[from] crate::vfs::Error),
    #[error("the file was changed meanwhile")]
    Changed,
}

impl Reading {
    async fn next(&mut self) -> std::result::Result<Option<Bytes>, DownloadError> {
        if self.range.is_empty() {
            return Ok(None);
        }
        let size =
            u32::try_from((self.range.end - self.range.start).min(PIECE)).unwrap_or(u32::MAX);
        let piece = self.open.vfs().read_data(self.open.handle(), self.range.start, size).await?;
        if piece.len() != size as usize {
            return Err(DownloadError::Changed);
        }
        self.range.start += u64::from(size);
        // The last piece would complete the client's copy, which must never be a mix of two versions.
        if self.range.is_empty() && self.is_changed().await? {
            return Err(DownloadError::Changed);
        }
        Ok(Some(piece))
    }

    /// Whether the opened file has other content now. (Its name may refer to another file.)
    async fn is_changed(&self) -> std::result::Result<bool, DownloadError> {
        let Some(version) = self.inspected.version else { return Ok(false) };
        let ino = self.inspected.attributes.ino;
        Ok(self.open.vfs().version(ino).await? != Some(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_in_ascii_and_as_they_are() {
        assert_eq!(
            disposition("a \"b\" ü%.txt".as_bytes()),
            "attachment; filename=\"a _b_ __.txt\"; filename*=UTF-8''a%20%22b%22%20%C3%BC%25.txt"
        );
        assert_eq!(
            disposition(b"x\r\nSet-Cookie: y"),
            "attachment; filename=\"x__Set-Cookie: y\"; filename*=UTF-8''x%0D%0ASet-Cookie%3A%20y"
        );
    }
}
