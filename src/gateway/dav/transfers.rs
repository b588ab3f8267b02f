//! `COPY` and `MOVE`. A tree comes to its place whole: a copy is made under a name of its own, which nobody else has, and
//! then gets its place in one step; what was there is removed after that.

use axum::http::{HeaderValue, StatusCode};
use axum::response::IntoResponse;

use super::changes::{Failures, all_or_nothing, unheard};
use super::conditions::failed;
use super::error::{DavError, DavResult};
use super::path::DavPath;
use super::service::{DavRequest, DavService, Depth};
use crate::crypto::random;
use crate::files::{Files, Found, Place, dress};
use crate::gateway::HttpProblem;
use crate::gateway::metadata::hex;
use crate::os;
use crate::types::InodeNo;
use crate::vfs::{Error, RenameMode};

/// What is to be copied or moved, and where to.
struct Transfer {
    from: Place,
    to: Place,
}

impl DavService {
    pub(super) async fn copy(&self, request: &DavRequest) -> DavResult {
        let depth = request.depth()?;
        if depth == Depth::One {
            return Err(DavError::bad_request("A copy's Depth is 0 or infinity."));
        }
        let transfer = self.transfer(request, false).await?;
        let is_new = transfer.to.there.is_none();
        let (parent, name) = transfer.to.names()?;
        let source = found(&transfer.from)?;
        if !source.is_directory() && !transfer.to.is_directory() {
            let mut failed = false;
            let mut on = all_or_nothing(&mut failed);
            self.files.copy(&source, &transfer.to, true, &mut on).await?;
            return Ok(done(is_new));
        }
        let mut aside = CopyAside::new(&self.files, parent);
        match depth {
            Depth::Zero if source.is_directory() => {
                let vfs = self.files.vfs();
                let made = vfs.mkdir(self.files.owner(), parent, &aside.name, 0o777).await;
                let made = made.map_err(HttpProblem::from)?.ino;
                let dressed = dress(vfs, vfs, &source.attributes, made).await;
                dressed.map_err(HttpProblem::from)?;
            }
            _ => {
                let place = Place::of(parent, &aside.name, None);
                let mut failed = false;
                let copied = {
                    let mut on = all_or_nothing(&mut failed);
                    self.files.copy(&source, &place, true, &mut on).await
                };
                if failed {
                    let text = "Something below could not be copied; nothing was changed.";
                    return Err(HttpProblem::conflict("not_copied", text).into());
                }
                copied?;
            }
        }
        let vfs = self.files.vfs();
        let mode = if is_new { RenameMode::NoReplace } else { RenameMode::Exchange };
        let put = vfs.rename((parent, &aside.name), (parent, name), mode).await;
        put.map_err(HttpProblem::from)?;
        if is_new {
            aside.is_gone = true;
        } else {
            aside.remove().await?;
        }
        Ok(done(is_new))
    }

    pub(super) async fn rename(&self, request: &DavRequest) -> DavResult {
        if request.depth()? != Depth::Infinity {
            return Err(DavError::bad_request("A move's Depth is infinity."));
        }
        let transfer = self.transfer(request, true).await?;
        let Transfer { from, to } = &transfer;
        let vfs = self.files.vfs();
        let (source, place) = (from.names()?, to.names()?);
        let is_new = to.there.is_none();
        let in_one_step = !from.is_directory() && !to.is_directory();
        let mode = match (is_new, in_one_step) {
            (true, _) => RenameMode::NoReplace,
            (false, true) => RenameMode::Replace,
            (false, false) => RenameMode::Exchange,
        };
        match vfs.rename(source, place, mode).await {
            Err(Error::Invalid) => return Err(DavError::into_itself()),
            moved => moved.map_err(HttpProblem::from)?,
        }
        self.locks.gone(request.path.names());
        let mut failures = Failures::new(&request.path);
        match mode {
            // What was there has the other name now.
            RenameMode::Exchange => {
                let old = Place::of(source.0, source.1, to.there);
                self.files.remove(&old, true, &mut |step| failures.note(&step)).await?;
            }
            // Of two names of one file, rename(2) keeps both.
            RenameMode::Replace if same(from, to) => {
                vfs.unlink(source.0, source.1).await.map_err(HttpProblem::from)?;
            }
            _ => {}
        }
        Ok(failures.answer(if is_new { StatusCode::CREATED } else { StatusCode::NO_CONTENT }))
    }

    /// What the two have in common: where to, whether that is so, and whether it may be.
    async fn transfer(&self, request: &DavRequest, moves: bool) -> Result<Transfer, DavError> {
        let path = &request.path;
        let target = DavPath::of_destination(&request.uri, &request.headers);
        let Some(target) = target.transpose()? else {
            return Err(DavError::bad_request("The header Destination says where to."));
        };
        let overwrites = match request.headers.get("overwrite").map(HeaderValue::as_bytes) {
            None | Some(b"T" | b"t") => true,
            Some(b"F" | b"f") => false,
            Some(_) => return Err(DavError::bad_request("The header Overwrite is T or F.")),
        };
        let found = self.gateway.resource(path).await?;
        let (from, to) = (path.names(), target.names());
        if from.starts_with(to) || to.starts_with(from) && (moves || found.is_collection()) {
            return Err(DavError::into_itself());
        }
        self.has_parent(&target).await?;
        let there = self.found(&target).await?;
        if there.is_some() && !overwrites {
            return Err(failed().into());
        }
        if moves {
            self.unlocked_name(request, path)?;
            self.unlocked(request, from, true)?;
        }
        if there.is_none() {
            self.unlocked_name(request, &target)?;
        }
        self.unlocked(request, to, true)?;
        self.conditions_hold(request, Some(&found)).await?;
        let (from, to) = (self.place(path).await?, self.place(&target).await?);
        Ok(Transfer { from, to })
    }
}

fn same(from: &Place, to: &Place) -> bool {
    let ino = |place: &Place| place.there.map(|there| there.ino);
    ino(from) == ino(to)
}

fn found(place: &Place) -> Result<Found, DavError> {
    let (_, name) = place.names()?;
    let attributes = place.there.ok_or(Error::NotFound).map_err(HttpProblem::from)?;
    Ok(Found { attributes, name: name.to_vec() })
}

fn done(is_new: bool) -> axum::response::Response {
    if is_new { StatusCode::CREATED } else { StatusCode::NO_CONTENT }.into_response()
}

/// A tree under a name of its own, on its way in or out. It goes with the request that made it, also if the client goes away.
struct CopyAside {
    files: Files,
    parent: InodeNo,
    name: Vec<u8>,
    is_gone: bool,
}

impl CopyAside {
    fn new(files: &Files, parent: InodeNo) -> Self {
        let name = format!(".s3vault-new-{}", hex(&random::<8>())).into_bytes();
        Self { files: files.clone(), parent, name, is_gone: false }
    }

    async fn remove(&mut self) -> Result<(), DavError> {
        self.is_gone = true;
        remove(&self.files, self.parent, &self.name).await
    }
}

impl Drop for CopyAside {
    fn drop(&mut self) {
        if self.is_gone {
            return;
        }
        let (files, parent, name) = (self.files.clone(), self.parent, self.name.clone());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(os::watched("removing half a copy", async move {
            if let Err(error) = remove(&files, parent, &name).await {
                tracing::warn!(?error, "half a copy stays");
            }
        }));
    }
}

async fn remove(files: &Files, parent: InodeNo, name: &[u8]) -> Result<(), DavError> {
    let there = match files.vfs().lookup(parent, name).await {
        Ok(there) => *there,
        Err(Error::NotFound) => return Ok(()),
        Err(error) => return Err(HttpProblem::from(error).into()),
    };
    let place = Place::of(parent, name, Some(there));
    files.remove(&place, true, &mut unheard()).await?;
    Ok(())
}
