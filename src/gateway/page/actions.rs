//! What the page's forms post: to upload, to make a folder, to move, to delete.

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, Request, State};
use axum::http::HeaderMap;
use axum::response::Response;

use super::PageState;
use super::answer::{FormDone, fields, text};
use super::outcome::outcome;
use super::place::{PagePlace, shown};
use super::show::count;
use super::visitor::{Who, session};
use crate::files::{self, Files, Place, TreeStep};
use crate::gateway::errors::Result;
use crate::gateway::query::Query;
use crate::gateway::s3_key::{S3Key, escape};
use crate::gateway::{Gateway, HttpProblem, listing, upload};
use crate::vfs::{Error, RenameMode};

/// `POST /page/upload?path=DIRECTORY&csrf=WORD`, multipart.
pub(super) async fn upload(
    State(state): State<Arc<PageState>>,
    RawQuery(query): RawQuery,
    who: Who,
    headers: HeaderMap,
    request: Request,
) -> Result<Response> {
    let session = session(who)?;
    let query = Query::parse(query.as_deref(), &["path", "csrf"])?;
    let place = PagePlace::of(&query, "name")?;
    let done = async {
        let kept = upload::take(&state.gateway, &place.directory()?, request).await?;
        let message = format!("Uploaded {}.", count(kept.len() as u64, "file", "files"));
        Ok(FormDone { done: "uploaded", message, href: place.link(), key: String::new() })
    };
    outcome(&state, &session, &headers, &place, done.await).await
}

/// `POST /page/folder?path=DIRECTORY&csrf=WORD`; `name` may have slashes.
pub(super) async fn make_folder(
    State(state): State<Arc<PageState>>,
    RawQuery(query): RawQuery,
    who: Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let session = session(who)?;
    let query = Query::parse(query.as_deref(), &["path", "csrf"])?;
    let place = PagePlace::of(&query, "name")?;
    let done = async {
        let form = fields(body, &["name"]).await?;
        let relative = S3Key::parse_directory(&text(&form, "name"))?;
        let mut key = place.directory()?;
        for name in relative.names() {
            key = key.join(name)?;
        }
        session.check(&key)?;
        state.gateway.make_new_directory(&key).await?;
        let message = format!("Made the folder {}.", PagePlace::of_key(&key).title());
        Ok(FormDone { done: "made", message, href: place.link(), key: escape(&key.bytes()) })
    };
    outcome(&state, &session, &headers, &place, done.await).await
}

/// `POST /page/move?path=DIRECTORY&name=NAME&csrf=WORD`; `to`: the new name, `folder`: where to. What is there is not replaced.
pub(super) async fn rename(
    State(state): State<Arc<PageState>>,
    RawQuery(query): RawQuery,
    who: Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let session = session(who)?;
    let query = Query::parse(query.as_deref(), &["path", "name", "csrf"])?;
    let place = PagePlace::of(&query, "name")?;
    let done = async {
        let form = fields(body, &["to", "folder"]).await?;
        let source = place.named()?;
        let folder = match form.bytes("folder") {
            // As the form shows it; names need not be text.
            None => place.directory()?,
            Some(shown) if shown == String::from_utf8_lossy(&place.path).as_bytes() => {
                place.directory()?
            }
            Some(other) => folder(other.trim_ascii())?,
        };
        let name = match form.bytes("to") {
            None => source.name().to_vec(),
            Some(shown) if shown == place.title().as_bytes() => source.name().to_vec(),
            Some(_) => text(&form, "to"),
        };
        let target = folder.join(&name)?;
        session.check(&target)?;
        move_to(&state.gateway, &source, &target).await?;
        let to = PagePlace::of_key(&target);
        let message = format!("Moved {} to {}.", place.title(), shown(&target));
        Ok(FormDone {
            done: "moved",
            message,
            href: to.beside().link(),
            key: escape(&target.bytes()),
        })
    };
    outcome(&state, &session, &headers, &place, done.await).await
}

fn folder(path: &[u8]) -> Result<S3Key> {
    S3Key::parse_directory(path.strip_prefix(b"/").unwrap_or(path))
}

async fn move_to(gateway: &Gateway, source: &S3Key, target: &S3Key) -> Result<()> {
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
        axum::http::StatusCode::NOT_FOUND => HttpProblem::not_found(
            "There is no folder of this path. Nothing was changed; make the folder first.",
        ),
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

/// `POST /page/delete?path=DIRECTORY&name=NAME&csrf=WORD`; with `tree=true` also a directory with all that is in it.
pub(super) async fn delete(
    State(state): State<Arc<PageState>>,
    RawQuery(query): RawQuery,
    who: Who,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    let session = session(who)?;
    let query = Query::parse(query.as_deref(), &["path", "name", "csrf"])?;
    let place = PagePlace::of(&query, "name")?;
    let done = async {
        let form = fields(body, &["tree"]).await?;
        let key = place.named()?;
        if form.flag("tree", false)? {
            remove_tree(&state.gateway, &key).await?;
        } else {
            listing::remove(&state.gateway, &key).await?;
        }
        let message = format!("Deleted {}.", place.title());
        Ok(FormDone { done: "deleted", message, href: place.beside().link(), key: String::new() })
    };
    outcome(&state, &session, &headers, &place, done.await).await
}

async fn remove_tree(gateway: &Gateway, key: &S3Key) -> Result<()> {
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
