//! The gateway's parsers, for hostile bytes (`tests/fuzz`).

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use futures_util::{FutureExt, StreamExt};

use super::auth::{Gate, Requirement};
use super::conditions::Validators;
use super::dav::dav_fuzzed;
use super::metadata::UploadNote;
use super::options::ListenAt;
use super::order::{Order, Sort};
use super::query::Query;
use super::ranges::requested;
use super::s3_key::S3Key;
use super::scope::Scope;
use super::tokens::Tokens;
use super::upload_form::UploadForm;
use super::{HttpProblem, ServeOptions};
use crate::types::{Hash, Timestamp};

/// Whether `bytes` are accepted as a `kind`; `None`: no parser of this kind is here.
pub fn fuzzed(kind: &str, bytes: &[u8]) -> Option<bool> {
    let text = std::str::from_utf8(bytes).ok();
    Some(match kind {
        "query" => text.is_some_and(query),
        "range" => text.is_some_and(|text| {
            [0, 1, 1000, u64::MAX].iter().all(|size| {
                let _ = requested(Some(text), *size);
                true
            })
        }),
        "form" => form(bytes).is_some_and(|done| done.is_ok()),
        "tokens" => text.is_some_and(|text| {
            Tokens::parse(text).is_ok_and(|tokens| Tokens::parse(&tokens.text()).is_ok())
        }),
        "upload-note" => minicbor::decode::<UploadNote>(bytes).is_ok(),
        "request" => request(bytes).is_some(),
        "key" => {
            let is_key = S3Key::parse(bytes).is_ok();
            Scope::parse(bytes).is_some()
                | text.is_some_and(|t| S3Key::from_url(t).is_ok())
                | is_key
        }
        kind => return dav_fuzzed(kind, bytes),
    })
}

fn query(text: &str) -> bool {
    let known = ["path", "limit", "cursor", "sort", "recursive"];
    let Ok(query) = Query::parse(Some(text), &known) else { return false };
    let limit = query.number("limit", 1..=1000, 100).is_ok();
    let flag = query.flag("recursive", false).is_ok();
    let order = Order { sort: Sort::Size, is_descending: true, directories_first: true };
    let cursor = query.bytes("cursor").is_none_or(|cursor| order.parse(cursor).is_ok());
    limit & flag & cursor
}

/// A multipart body, given in two pieces; `None`: the parser waited although all bytes were there.
fn form(bytes: &[u8]) -> Option<Result<(), HttpProblem>> {
    let (cut, body) = bytes.split_first().unwrap_or((&0, &[]));
    let (first, second) = body.split_at(usize::from(*cut).min(body.len()));
    let pieces = [first.to_vec(), second.to_vec()].map(Ok::<_, std::io::Error>);
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let request = Request::builder()
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=XX")
        .body(body)
        .ok()?;
    let work = async {
        let mut form = UploadForm::of(request).await?;
        while let Some(mut part) = form.next().await? {
            let _ = (part.name(), part.file_name(), part.content_type());
            while let Some(piece) = part.next().await {
                piece.map_err(|error| HttpProblem::of_body(&error))?;
            }
        }
        Ok(())
    };
    work.now_or_never()
}

/// A method, a URL and headers, one per line: checks who asks, from which page, and for what.
fn request(bytes: &[u8]) -> Option<()> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let method = lines.next()?;
    let uri = Uri::try_from(lines.next()?).ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(&line[colon + 1..]).ok()?);
    }
    let validators = Validators::new(Some(Hash([4; 32])), Timestamp { seconds: 1, nanos: 0 });
    let _ = (validators.judge(&headers), validators.allows_part(&headers));
    let _ = (S3Key::of_request(&uri), requested(text(&headers), 1000));
    let mut request = Request::builder().method(method).uri(uri).body(Body::empty()).ok()?;
    *request.headers_mut() = headers;
    let address = ListenAt::Tcp(std::net::SocketAddr::from(([127, 0, 0, 1], 8080)));
    for open in [true, false] {
        let options = ServeOptions {
            listen: address.clone(),
            socket_mode: 0o600,
            only_metrics: false,
            open,
            hosts: vec!["name.example".to_owned()],
            tls: None,
            max_upload: 0,
            client_timeout: 1,
            tokens: std::path::PathBuf::new(),
        };
        let _ = Gate::new(&options, &address).admit(&mut request, Requirement::Access).is_ok();
    }
    Some(())
}

fn text(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::RANGE)?.to_str().ok()
}
