//! `POST /upload/` and `PUT /files/PATH`.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};

use super::errors::Result;
use super::incoming::{Incoming, Kept, OnConflict};
use super::metadata::{FileInfo, FileState};
use super::query::Query;
use super::s3_key::S3Key;
use super::upload_form::{FormPart, UploadForm};
use super::{Gateway, HttpProblem};

/// Where a POST puts files by default.
pub(super) const DIRECTORY: &[u8] = b"encrypted";
/// The most files in one POST: each stays open until all are complete.
const FILES_MAX: usize = 100;
/// The pause before another attempt to get data into the bucket while a client waits for it.
const DURABLE_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// The answer to an upload of several files.
#[derive(Serialize)]
struct Several {
    files: Vec<FileInfo>,
}

/// `POST /upload/`: multipart, the field `file` once or several times.
pub(super) async fn post(
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response> {
    let query = Query::parse(query.as_deref(), &["wait", "directory"])?;
    let waits = waits(&query)?;
    let directory = S3Key::parse_directory(query.bytes("directory").unwrap_or(DIRECTORY))?;
    let kept = take(&gateway, &directory, request).await?;
    let location = kept.first().map(|kept| kept.key.url());
    let mut files: Vec<_> = kept.into_iter().map(|kept| kept.info).collect();
    if waits {
        in_bucket(&gateway).await?;
        files.iter_mut().for_each(|file| file.state = FileState::Durable);
    }
    let mut response = match files.len() {
        1 => (StatusCode::CREATED, Json(files.pop())).into_response(),
        _ => return Ok((StatusCode::CREATED, Json(Several { files })).into_response()),
    };
    locate(&mut response, location);
    Ok(response)
}

/// Receives all files of a multipart body, and then names all of them, so that a body that ends early leaves nothing.
pub(super) async fn take(
    gateway: &Arc<Gateway>,
    directory: &S3Key,
    request: Request,
) -> Result<Vec<Kept>> {
    gateway.may_make(directory.names()).await?;
    let mut form = UploadForm::of(request).await?;
    let mut whole = Vec::new();
    while let Some(part) = form.next().await? {
        if part.name() != Some("file") {
            part.skip().await?;
            continue;
        }
        if whole.len() == FILES_MAX {
            return Err(HttpProblem::bad_request(format!(
                "More than {FILES_MAX} files in one request. Nothing was kept; send fewer at a time."
            )));
        }
        let key = directory.join(&file_name(&part)?)?;
        let said = part.content_type().map(str::to_owned);
        whole.push((Incoming::receive(gateway, key.name(), said.as_deref(), part).await?, key));
    }
    if whole.is_empty() {
        return Err(HttpProblem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no_file",
            "The form has no field `file` with a file. With curl: -F 'file=@PATH'.",
        ));
    }
    let mut kept = Vec::new();
    for (file, key) in whole {
        let named = file.keep(key, OnConflict::Number).await;
        kept.push(named.map_err(|problem| half_done(problem, &kept))?);
    }
    Ok(kept)
}

/// What is told when the file after these could not be kept: who sends all again would have these twice.
fn half_done(problem: HttpProblem, kept: &[Kept]) -> HttpProblem {
    if kept.is_empty() {
        return problem;
    }
    let shown = |kept: &Kept| String::from_utf8_lossy(&kept.key.bytes()).into_owned();
    let names: Vec<_> = kept.iter().map(shown).collect();
    problem
        .after(&format!("Kept, and there now: {}. Send only the others again.", names.join(", ")))
}

/// Browsers and curl escape these three characters in a file name, and no others (HTML, "multipart/form-data").
fn file_name(part: &FormPart<'_>) -> Result<Vec<u8>> {
    let name = part.file_name().filter(|name| !name.is_empty()).ok_or_else(|| {
        HttpProblem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no_file_name",
            "A field `file` has no file name. Nothing was kept. With curl: -F 'file=@PATH;filename=NAME'.",
        )
    })?;
    Ok(name.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n").into_bytes())
}

/// `PUT /files/PATH`: the body is the file.
pub(super) async fn put(
    State(gateway): State<Arc<Gateway>>,
    uri: Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let query = Query::parse(query.as_deref(), &["wait"])?;
    let waits = waits(&query)?;
    let key = S3Key::of_request(&uri)?;
    let on_conflict = condition(&headers)?;
    replaceable(&gateway, &key).await?;
    let said = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let file = Incoming::receive(&gateway, key.name(), said, body.into_data_stream()).await?;
    let kept = file.keep(key, on_conflict).await.map_err(|problem| match on_conflict {
        OnConflict::Fail if problem.status() == StatusCode::CONFLICT => HttpProblem::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition_failed",
            "There is something of this name already, and If-None-Match: * was asked for. Nothing was changed.",
        ),
        _ => problem,
    })?;
    let mut info = kept.info;
    if waits {
        in_bucket(&gateway).await?;
        info.state = FileState::Durable;
    }
    if kept.has_replaced {
        return Ok((StatusCode::OK, Json(info)).into_response());
    }
    let mut response = (StatusCode::CREATED, Json(info)).into_response();
    locate(&mut response, Some(kept.key.url()));
    Ok(response)
}

/// Refuses a PUT whose body is not the plain whole file.
pub(super) fn is_whole(headers: &HeaderMap) -> Result<()> {
    // RFC 9112, 6.1: a coding besides `chunked` is not undone here, and its bytes are not the file's.
    let coded = headers.get_all(header::TRANSFER_ENCODING).iter();
    if coded.into_iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        let text = "The body comes in a Transfer-Encoding other than chunked. Nothing was changed.";
        return Err(HttpProblem::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", text));
    }
    if headers.contains_key(header::CONTENT_RANGE) {
        return Err(HttpProblem::bad_request(
            "A part of a file cannot be put (Content-Range). Send all of it.",
        ));
    }
    let encoding = headers.get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        return Err(HttpProblem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "content_encoding",
            "The body is encoded (Content-Encoding), and would be stored that way. Send it without that encoding.",
        ));
    }
    Ok(())
}

/// What the headers of a PUT ask for. Conditions that are not supported are refused rather than ignored.
fn condition(headers: &HeaderMap) -> Result<OnConflict> {
    is_whole(headers)?;
    if headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_UNMODIFIED_SINCE) {
        return Err(HttpProblem::bad_request(
            "This service supports no If-Match and no If-Unmodified-Since on PUT, only If-None-Match: *. \
             Nothing was changed.",
        ));
    }
    match headers.get(header::IF_NONE_MATCH).map(HeaderValue::as_bytes) {
        None => Ok(OnConflict::Replace),
        Some(b"*") => Ok(OnConflict::Fail),
        Some(_) => Err(HttpProblem::bad_request(
            "This service supports If-None-Match on PUT only as If-None-Match: *. Nothing was changed.",
        )),
    }
}

/// Called before a long body is read: the name must be a file's, or free.
async fn replaceable(gateway: &Gateway, key: &S3Key) -> Result<()> {
    gateway.may_make(key.split().map_or(&[], |(directories, _)| directories)).await?;
    match gateway.inspect_file(key).await {
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => Ok(()),
        other => other.map(|_| ()),
    }
}

/// `?wait=durable`.
fn waits(query: &Query) -> Result<bool> {
    query.word("wait", &[("durable", true)], false)
}

/// Returns when everything named before is in the bucket.
async fn in_bucket(gateway: &Gateway) -> Result<()> {
    let until = Instant::now() + gateway.durable_deadline;
    let waiting = async {
        loop {
            let Err(error) = gateway.vfs.in_bucket().await else { return Ok(()) };
            // Another machine took over, or the disk failed: waiting longer does not help.
            if let Some(reason) = gateway.vault.status().read_only {
                return Err(format!("and the vault is read-only now ({reason})"));
            }
            tracing::warn!(%error, "a client waits for the bucket");
            sleep(DURABLE_AGAIN).await;
        }
    };
    let why = match timeout_at(until, waiting).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(why)) => why,
        Err(_) => "after the longest time that a request may wait".to_owned(),
    };
    Err(HttpProblem::unavailable(
        format!(
            "The file is kept on this machine under its name, but is not in the bucket yet, {why}. Do not send it again; its state tells when it is durable."
        ),
        60,
    ))
}

fn locate(response: &mut Response, location: Option<String>) {
    // A URL is ASCII.
    if let Some(Ok(value)) = location.map(HeaderValue::try_from) {
        response.headers_mut().insert(header::LOCATION, value);
    }
}
