//! `COPY` and `MOVE`. A tree appears at its target whole: a copy is made in a private workshop directory and then
//! renamed into place in one step. That same step moves whatever was there into the workshop, which is deleted with it,
//! after a crash too.

use axum::http::{HeaderValue, StatusCode};
use axum::response::IntoResponse;

use super::changes::all_or_nothing;
use super::conditions::failed;
use super::error::{DavError, DavResult};
use super::locks::ChangingPlace;
use super::path::DavPath;
use super::service::{DavRequest, DavService, Depth};
use crate::files::{Found, Place, dress};
use crate::gateway::HttpProblem;
use crate::vfs::{Error, RenameMode};

/// What is to be copied or moved, and where to.
struct Transfer<'a> {
    from: Place,
    to: Place,
    target: DavPath,
    /// What is changed by it.
    _changing: Vec<ChangingPlace<'a>>,
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
        let vfs = self.files.vfs();
        let workshop = vfs.workshop(self.files.owner(), parent).await;
        let workshop = workshop.map_err(HttpProblem::from)?;
        let aside = workshop.ino().map_err(HttpProblem::from)?;
        match depth {
            Depth::Zero if source.is_directory() => {
                let made = vfs.mkdir(self.files.owner(), aside, name, 0o777).await;
                let made = made.map_err(HttpProblem::from)?.ino;
                let dressed = dress(vfs, vfs, &source.attributes, made).await;
                dressed.map_err(HttpProblem::from)?;
            }
            _ => {
                let place = Place::of(aside, name, None);
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
        let mode = if is_new { RenameMode::NoReplace } else { RenameMode::Exchange };
        let put = vfs.rename((aside, name), (parent, name), mode).await;
        put.map_err(HttpProblem::from)?;
        self.locks.gone_below(transfer.target.names());
        workshop.end().await;
        Ok(done(is_new))
    }

    pub(super) async fn rename(&self, request: &DavRequest) -> DavResult {
        if request.depth()? != Depth::Infinity {
            return Err(DavError::bad_request("A move's Depth is infinity."));
        }
        let transfer = self.transfer(request, true).await?;
        let Transfer { from, to, .. } = &transfer;
        let vfs = self.files.vfs();
        let (source, place) = (from.names()?, to.names()?);
        let is_new = to.there.is_none();
        let in_one_step = !from.is_directory() && !to.is_directory();
        if is_new || in_one_step {
            let mode = if is_new { RenameMode::NoReplace } else { RenameMode::Replace };
            moved(vfs.rename(source, place, mode).await)?;
            // rename(2) does nothing if both names are the same file, so the source name is unlinked.
            if !is_new && same(from, to) {
                vfs.unlink(source.0, source.1).await.map_err(HttpProblem::from)?;
            }
        } else {
            // What was at the target is deleted with the workshop.
            let workshop = vfs.workshop(self.files.owner(), place.0).await;
            let workshop = workshop.map_err(HttpProblem::from)?;
            let aside = workshop.ino().map_err(HttpProblem::from)?;
            moved(vfs.rename_aside(source, place, (aside, place.1)).await)?;
            workshop.end().await;
        }
        self.locks.gone(request.path.names());
        self.locks.gone_below(transfer.target.names());
        Ok(done(is_new))
    }

    /// What both methods share: finds the source and the target, and checks that the transfer is allowed.
    async fn transfer(&self, request: &DavRequest, moves: bool) -> Result<Transfer<'_>, DavError> {
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
        let mut changing = vec![self.locks.changes(to)];
        if moves {
            changing.push(self.locks.changes(from));
            self.unlocked_name(request, path)?;
            self.unlocked(request, from, true)?;
        }
        if there.is_none() {
            self.unlocked_name(request, &target)?;
        }
        self.unlocked(request, to, true)?;
        self.conditions_hold(request, Some(&found)).await?;
        let (from, to) = (self.place(path).await?, self.place(&target).await?);
        Ok(Transfer { from, to, target, _changing: changing })
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

fn moved(outcome: Result<(), Error>) -> Result<(), DavError> {
    match outcome {
        Err(Error::Invalid) => Err(DavError::into_itself()),
        outcome => Ok(outcome.map_err(HttpProblem::from)?),
    }
}
