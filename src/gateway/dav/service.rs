//! What all WebDAV methods share: the service, the request, and the check whether it may change something.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::IntoResponse;
use futures_util::StreamExt;
use tokio::sync::Mutex;

use super::conditions::{IfHeader, failed};
use super::error::{DavError, DavResult};
use super::locks::{Holder, LockTable};
use super::path::DavPath;
use super::props::Resource;
use super::xml::{self, XmlElement};
use crate::files::Files;
use crate::gateway::conditions::Validators;
use crate::gateway::{Gateway, HttpProblem, Session, download};
use crate::vfs::Error;

/// The WebDAV service.
pub(super) struct DavService {
    pub(super) gateway: Arc<Gateway>,
    pub(super) files: Files,
    pub(super) locks: LockTable,
    /// Held from reading dead properties until they are written back.
    pub(super) patching: Mutex<()>,
}

/// A parsed WebDAV request.
pub(super) struct DavRequest {
    pub(super) path: DavPath,
    pub(super) uri: Uri,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    pub(super) session: Session,
    pub(super) conditions: IfHeader,
    /// The lock tokens that it names.
    pub(super) tokens: Vec<String>,
}

/// The header `Depth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    Zero,
    One,
    Infinity,
}

impl DavRequest {
    /// Whether it has conditions about what exists, besides locks.
    pub(super) fn has_conditions(&self) -> bool {
        let names = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_UNMODIFIED_SINCE];
        let asks = names.iter().any(|name| self.headers.contains_key(name));
        asks || !self.conditions.tagged(&self.path).is_empty()
    }

    pub(super) fn holder(&self) -> Holder {
        self.session.token
    }

    pub(super) fn depth(&self) -> Result<Depth, DavError> {
        match self.headers.get("depth").map(HeaderValue::as_bytes) {
            Some(b"0") => Ok(Depth::Zero),
            Some(b"1") => Ok(Depth::One),
            None => Ok(Depth::Infinity),
            Some(value) if value.eq_ignore_ascii_case(b"infinity") => Ok(Depth::Infinity),
            Some(_) => {
                Err(HttpProblem::bad_request("The header Depth is 0, 1 or infinity.").into())
            }
        }
    }
}

impl DavService {
    pub(super) fn new(gateway: Arc<Gateway>) -> Self {
        let files = Files::new(gateway.vfs.clone(), gateway.owner);
        let (locks, patching) = (LockTable::default(), Mutex::default());
        Self { gateway, files, locks, patching }
    }

    /// Looks up a path; `None` if nothing is there.
    pub(super) async fn found(&self, path: &DavPath) -> Result<Option<Resource>, DavError> {
        match self.gateway.resource(path).await {
            Ok(found) => Ok(Some(found)),
            Err(problem) if problem.status() == StatusCode::NOT_FOUND => Ok(None),
            Err(problem) => Err(problem.into()),
        }
    }

    pub(super) async fn get(&self, request: &DavRequest) -> DavResult {
        let found = self.gateway.resource(&request.path).await?;
        if found.is_collection() {
            let text = "A directory of the vault. A client of WebDAV lists what is in it.\n";
            return Ok(text.into_response());
        }
        let (key, method) = (request.path.key(), &request.method);
        Ok(download::send(&self.gateway, key, method, &request.headers).await?)
    }

    /// Whether the conditions of a request to change something hold. `there`: what the request is for.
    pub(super) async fn conditions_hold(
        &self,
        request: &DavRequest,
        there: Option<&Resource>,
    ) -> Result<(), DavError> {
        let validators = there.map(Resource::validators);
        let mut tags = Vec::new();
        for path in request.conditions.tagged(&request.path) {
            let found = self.found(path).await?;
            tags.push((path, found.and_then(|found| found.validators().etag)));
        }
        // While a file is being written, its mtime does not tell what the client saw of it.
        let is_written = there.is_some_and(Resource::is_being_written)
            && request.headers.contains_key(header::IF_UNMODIFIED_SINCE);
        if !is_written
            && Validators::allow_change(validators.as_ref(), &request.headers)
            && request.conditions.holds(&request.path, &self.locks, &tags)
        {
            return Ok(());
        }
        Err(failed().into())
    }

    /// Whether the locks allow this request to change what is at a path, and with `below` everything under it.
    pub(super) fn unlocked(
        &self,
        request: &DavRequest,
        names: &[Vec<u8>],
        below: bool,
    ) -> Result<(), DavError> {
        Ok(self.locks.check(names, below, &request.tokens, request.holder())?)
    }

    /// Whether the locks allow the request to create or remove this name, which changes the parent directory.
    pub(super) fn unlocked_name(
        &self,
        request: &DavRequest,
        path: &DavPath,
    ) -> Result<(), DavError> {
        match path.above() {
            Some(above) => self.unlocked(request, above, false),
            None => Ok(()),
        }
    }

    /// Checks that the parent directory exists; without it the status is 409, not 404.
    pub(super) async fn has_parent(&self, path: &DavPath) -> Result<(), DavError> {
        let Some(above) = path.above() else { return Ok(()) };
        match self.gateway.vfs.directory_at(above).await {
            Ok(_) => Ok(()),
            Err(Error::NotFound | Error::NotDirectory) => {
                let text = "The directory that this is to be in is not there. Make it first.";
                Err(HttpProblem::conflict("no_parent", text).into())
            }
            Err(error) => Err(HttpProblem::from(error).into()),
        }
    }
}

/// The XML document in a body; `None` if the body is empty.
pub(super) async fn document(body: Body) -> Result<Option<XmlElement>, DavError> {
    let mut body = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(part) = body.next().await {
        let part = part.map_err(|error| HttpProblem::of_body(&error))?;
        if bytes.len() + part.len() > xml::DOCUMENT_MAX {
            return Err(xml::TOO_LONG.into());
        }
        bytes.extend_from_slice(&part);
    }
    match bytes.is_empty() {
        true => Ok(None),
        false => Ok(Some(xml::parse(&bytes)?)),
    }
}
