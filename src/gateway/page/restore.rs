//! Restores past versions.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;

use super::answer::{FormDone, fields, text};
use super::outcome::outcome;
use super::page_request::PageRequest;
use super::place::{PagePlace, shown};
use crate::gateway::errors::Result;
use crate::gateway::metadata::FileKind;
use crate::gateway::past::{BringBack, PastChange};
use crate::gateway::s3_key::{S3Key, escape};
use crate::gateway::{Gateway, HttpProblem};

/// `POST /page/restore?path=DIRECTORY&name=NAME&at=COMMIT&csrf=WORD`; `to`: the target path, by default the original
/// one.
pub(super) async fn restore(asked: PageRequest, body: Body) -> Result<Response> {
    let place = asked.place(&["name", "at"])?;
    let done = async {
        let form = fields(body, &["to"]).await?;
        let target = bring_back(&asked, &place, text(&form, "to")).await?;
        let message = format!("Restored {}.", shown(&target));
        let href = PagePlace::of_key(&target).beside().link();
        Ok(FormDone { done: "restored", message, href, key: escape(&target.bytes()) })
    };
    outcome(&asked, &place, done.await).await
}

async fn bring_back(asked: &PageRequest, place: &PagePlace, to: Vec<u8>) -> Result<S3Key> {
    let source = place.named()?;
    let commit = place.at.ok_or_else(|| {
        HttpProblem::bad_request("The parameter at says as of which commit. Nothing was changed.")
    })?;
    // The form shows names that are not UTF-8 lossily; such a path comes back unchanged.
    let is_own = to.is_empty() || to == shown(&source).as_bytes();
    let target = match is_own {
        true => source.clone(),
        false => S3Key::parse(to.strip_prefix(b"/").unwrap_or(&to))?,
    };
    asked.session.check(&target)?;
    let past = asked.state.pasts.at(commit).await?;
    let (was, _) = past.gateway.inspect(&source).await.map_err(|problem| {
        match problem.status() {
            StatusCode::NOT_FOUND => HttpProblem::not_found(
                "It was not there as of this commit. Nothing was changed; its earlier versions say when it was.",
            ),
            _ => problem,
        }
    })?;
    let kind = FileKind::of(was.attributes.mode);
    may_take_place(&asked.state.gateway, kind, &target).await?;
    let (path, to) = (source.names().to_vec(), target.names().to_vec());
    asked.state.pasts.change(PastChange::Restore(BringBack { path, commit, to })).await?;
    Ok(target)
}

/// A file may replace a file; a directory needs a free name.
async fn may_take_place(gateway: &Gateway, kind: FileKind, target: &S3Key) -> Result<()> {
    let there = match gateway.inspect(target).await {
        Err(problem) if problem.status() == StatusCode::NOT_FOUND => return Ok(()),
        there => FileKind::of(there?.0.attributes.mode),
    };
    if kind == FileKind::Directory {
        let text = "There is something of this name, and a folder is restored only to where nothing is. Nothing was \
                    changed; choose another path.";
        return Err(HttpProblem::conflict("exists", text));
    }
    if there == FileKind::Directory {
        let text = "There is a folder of this name. Nothing was changed; choose another path.";
        return Err(HttpProblem::conflict("is_a_directory", text));
    }
    Ok(())
}
