//! `PUT`, `MKCOL` and `DELETE`.

use std::fmt::Write;
use std::ops::ControlFlow;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::answers::multistatus;
use super::conditions::failed;
use super::error::{DavError, DavResult};
use super::path::{DavPath, href};
use super::props::{DEAD, Resource};
use super::service::{DavRequest, DavService};
use super::xml::text;
use crate::files::{self, Place, TreeStep};
use crate::gateway::HttpProblem;
use crate::gateway::incoming::{Incoming, OnConflict};
use crate::gateway::upload;
use crate::types::Timestamp;
use crate::vfs::{Error, SetAttributes, SetTime};

/// How many failures of a tree operation are named in the answer.
const FAILURES_MAX: usize = 100;

impl DavService {
    pub(super) async fn put(&self, request: &DavRequest, body: Body) -> DavResult {
        upload::is_whole(&request.headers)?;
        let key = request.path.key();
        self.may_put(request).await?;
        let said = request.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let body = body.into_data_stream();
        let file = Incoming::receive(&self.gateway, key.name(), said, body).await?;
        // The body may have taken long, so what was checked before it is checked again.
        let before = self.may_put(request).await?;
        let is_new = before.is_none();
        if let Some(before) = &before {
            file.carry(before.ino(), DEAD).await?;
        }
        // The mount or another client may change the file before the rename: then the conditions were about another
        // version.
        let on_conflict = match before.as_ref().map(|before| (before.ino(), before.version())) {
            _ if !request.has_conditions() => OnConflict::Replace,
            Some((ino, Some(version))) => OnConflict::Only(ino, version),
            Some((_, None)) => OnConflict::Replace, // it is being written, and has no version
            None => OnConflict::Fail,
        };
        let kept = file.keep(key.clone(), on_conflict).await.map_err(|problem| {
            match on_conflict != OnConflict::Replace && problem.status() == StatusCode::CONFLICT {
                true => failed(),
                false => problem,
            }
        })?;
        let status = if is_new { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
        let mut response = status.into_response();
        if let Some(time) = time_of(request) {
            let set = SetAttributes { mtime: Some(SetTime::To(time)), ..SetAttributes::default() };
            self.gateway.vfs.set_attributes(kept.ino, &set).await.map_err(HttpProblem::from)?;
            response.headers_mut().insert("x-oc-mtime", HeaderValue::from_static("accepted"));
        }
        if let Some(tag) = kept.etag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        Ok(response)
    }

    /// What a PUT is to replace, if the PUT is allowed.
    async fn may_put(&self, request: &DavRequest) -> Result<Option<Resource>, DavError> {
        let path = &request.path;
        let found = self.found(path).await?;
        if found.as_ref().is_some_and(Resource::is_collection) {
            return Err(DavError::not_allowed("A directory has no content of its own."));
        }
        if found.is_none() {
            self.has_parent(path).await?;
            self.unlocked_name(request, path)?;
        }
        self.unlocked(request, path.names(), false)?;
        self.conditions_hold(request, found.as_ref()).await?;
        Ok(found)
    }

    pub(super) async fn make_collection(&self, request: &DavRequest, body: Body) -> DavResult {
        let path = &request.path;
        if !body.is_end_stream() {
            let text = "A new directory is empty: send no body.";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(HttpProblem::new(status, "body", text).into());
        }
        let there = || DavError::not_allowed("There is something of this name already.");
        let (Some((_, name)), None) = (path.key().split(), self.found(path).await?) else {
            return Err(there());
        };
        self.has_parent(path).await?;
        self.unlocked_name(request, path)?;
        self.unlocked(request, path.names(), false)?;
        self.conditions_hold(request, None).await?;
        let (parent, _) = self.gateway.place(path.key()).await?;
        match self.gateway.vfs.mkdir(self.files.owner(), parent, name, 0o777).await {
            Err(Error::Exists) => Err(there()),
            made => {
                made.map_err(HttpProblem::from)?;
                Ok(StatusCode::CREATED.into_response())
            }
        }
    }

    pub(super) async fn delete(&self, request: &DavRequest) -> DavResult {
        let path = &request.path;
        let found = self.gateway.resource(path).await?;
        let _changing = self.locks.changes(path.names());
        self.unlocked_name(request, path)?;
        self.unlocked(request, path.names(), true)?;
        self.conditions_hold(request, Some(&found)).await?;
        let place = self.place(path).await?;
        let mut failures = Failures::new(path);
        self.files.remove(&place, true, &mut |step| failures.note(&step)).await?;
        if failures.count == 0 {
            self.locks.gone(path.names());
        }
        Ok(failures.answer(StatusCode::NO_CONTENT))
    }

    /// A name and what it names now. The root is refused: it can be neither removed nor replaced.
    pub(super) async fn place(&self, path: &DavPath) -> Result<Place, DavError> {
        if path.is_root() {
            let text = "The root of the vault can be neither removed, nor moved, nor replaced.";
            return Err(HttpProblem::new(StatusCode::FORBIDDEN, "root", text).into());
        }
        let (parent, name) = self.gateway.place(path.key()).await?;
        let there = match self.gateway.vfs.lookup(parent, name).await {
            Ok(there) => Some(*there),
            Err(Error::NotFound) => None,
            Err(error) => return Err(HttpProblem::from(error).into()),
        };
        Ok(Place::of(parent, name, there))
    }
}

/// The file's mtime at its source, as ownCloud clients and rclone send it.
fn time_of(request: &DavRequest) -> Option<Timestamp> {
    let seconds = request.headers.get("x-oc-mtime")?.to_str().ok()?;
    let (seconds, nanos) = (seconds.split('.').next()?.parse().ok()?, 0);
    Some(Timestamp { seconds, nanos })
}

/// The parts of a tree that could not be changed, while the rest was.
pub(super) struct Failures {
    above: Vec<Vec<u8>>,
    found: String,
    count: usize,
}

impl Failures {
    pub(super) fn new(path: &DavPath) -> Self {
        let above = path.above().unwrap_or_default().to_vec();
        Self { above, found: String::new(), count: 0 }
    }

    pub(super) fn note(&mut self, step: &TreeStep<'_>) -> ControlFlow<()> {
        if let TreeStep::Failed(path, error) = step {
            self.count += 1;
            if self.count <= FAILURES_MAX {
                let names = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec);
                let names: Vec<_> = self.above.iter().cloned().chain(names).collect();
                let status = match error {
                    files::Error::Vfs(Error::NotFound) => "404 Not Found",
                    _ => "409 Conflict",
                };
                let href = text(&href(&names, false));
                let _ = writeln!(
                    self.found,
                    "<D:response><D:href>{href}</D:href><D:status>HTTP/1.1 {status}</D:status></D:response>"
                );
            }
        }
        ControlFlow::Continue(())
    }

    /// 207 if there are any, otherwise the given status.
    pub(super) fn answer(self, otherwise: StatusCode) -> Response {
        if self.count == 0 {
            return otherwise.into_response();
        }
        multistatus(&self.found)
    }
}

/// For tree work in which any failure fails the whole.
pub(super) fn all_or_nothing(
    failed: &mut bool,
) -> impl FnMut(TreeStep<'_>) -> ControlFlow<()> + Send {
    move |step| match step {
        TreeStep::Failed(..) => {
            *failed = true;
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    }
}
