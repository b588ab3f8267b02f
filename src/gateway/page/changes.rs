//! The changes that the forms make in the vault.

use std::ops::ControlFlow;

use axum::http::StatusCode;

use super::place::PagePlace;
use super::show::count;
use crate::files::{self, Files, Place, TreeStep};
use crate::gateway::errors::Result;
use crate::gateway::query::Query;
use crate::gateway::s3_key::S3Key;
use crate::gateway::{Gateway, HttpProblem};
use crate::vfs::{Error, RenameMode};

/// The target folder of a form: `folder`, or the directory that the form is for.
pub(super) fn folder(form: &Query, place: &PagePlace) -> Result<S3Key> {
    match form.bytes("folder") {
        None => place.directory(),
        // The form shows names that are not UTF-8 lossily; such a path comes back unchanged.
        Some(shown) if shown == String::from_utf8_lossy(&place.path).as_bytes() => {
            place.directory()
        }
        Some(other) => {
            let path = other.trim_ascii();
            S3Key::parse_directory(path.strip_prefix(b"/").unwrap_or(path))
        }
    }
}

pub(super) fn no_folder() -> HttpProblem {
    HttpProblem::not_found(
        "There is no folder of this path. Nothing was changed; make the folder first.",
    )
}

/// Moves it to a name that must be free.
pub(super) async fn move_to(gateway: &Gateway, source: &S3Key, target: &S3Key) -> Result<()> {
    if target == source {
        let text = "It has this name, in this folder, already. Nothing was changed.";
        return Err(HttpProblem::conflict("exists", text));
    }
    if target.names().starts_with(source.names()) {
        let text = "A folder cannot be moved into itself. Nothing was changed.";
        return Err(HttpProblem::conflict("into_itself", text));
    }
    let (from, name) = gateway.place(source).await?;
    let (to, new_name) = gateway.place(target).await.map_err(|problem| match problem.status() {
        StatusCode::NOT_FOUND => no_folder(),
        _ => problem,
    })?;
    match gateway.vfs.rename((from, name), (to, new_name), RenameMode::NoReplace).await {
        Err(Error::Exists) => {
            let text = "There is something of this name in that folder. Nothing was changed; choose another name.";
            Err(HttpProblem::conflict("exists", text))
        }
        moved => Ok(moved?),
    }
}

/// Deletes it, and if it is a directory, everything below it.
pub(super) async fn remove_tree(gateway: &Gateway, key: &S3Key) -> Result<()> {
    let (parent, name) = gateway.place(key).await?;
    let there = *gateway.vfs.lookup(parent, name).await?;
    let files = Files::new(gateway.vfs.clone(), gateway.owner);
    let mut failed = 0_u64;
    let mut on = |step: TreeStep<'_>| {
        failed += u64::from(matches!(step, TreeStep::Failed(..)));
        ControlFlow::Continue(())
    };
    let removed = files.remove(&Place::of(parent, name, Some(there)), true, &mut on).await;
    match removed {
        Ok(_) if failed == 0 => Ok(()),
        Ok(_) => {
            let text = format!(
                "{} could not be deleted, or came meanwhile; all else that was in the folder is deleted.",
                count(failed, "thing", "things")
            );
            Err(HttpProblem::conflict("not_deleted", text))
        }
        Err(files::Error::Vfs(error)) => Err(error.into()),
        Err(error) => {
            tracing::error!(%error, "a folder was not deleted");
            Err(HttpProblem::internal())
        }
    }
}
