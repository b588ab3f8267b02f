//! The targets of the page's forms: upload, make a folder, move, delete.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;

use super::answer::{FormDone, fields, text};
use super::changes;
use super::outcome::outcome;
use super::page_request::PageRequest;
use super::place::{PagePlace, shown};
use super::show::count;
use crate::gateway::errors::Result;
use crate::gateway::s3_key::{S3Key, escape};
use crate::gateway::{listing, upload};

/// `POST /page/upload?path=DIRECTORY&csrf=WORD`, multipart.
pub(super) async fn upload(asked: PageRequest, request: Request) -> Result<Response> {
    let place = asked.place(&[])?;
    let done = async {
        let kept = upload::take(&asked.state.gateway, &place.directory()?, request).await?;
        let message = format!("Uploaded {}.", count(kept.len() as u64, "file", "files"));
        Ok(FormDone { done: "uploaded", message, href: place.link(), key: String::new() })
    };
    outcome(&asked, &place, done.await).await
}

/// `POST /page/folder?path=DIRECTORY&csrf=WORD`; `name` may have slashes.
pub(super) async fn make_folder(asked: PageRequest, body: Body) -> Result<Response> {
    let place = asked.place(&[])?;
    let done = async {
        let form = fields(body, &["name"]).await?;
        let relative = S3Key::parse_directory(&text(&form, "name"))?;
        let key = place.below(&relative)?;
        asked.session.check(&key)?;
        asked.state.gateway.make_new_directory(&key).await?;
        let message = format!("Made the folder {}.", PagePlace::of_key(&key).title());
        Ok(FormDone { done: "made", message, href: place.link(), key: escape(&key.bytes()) })
    };
    outcome(&asked, &place, done.await).await
}

/// `POST /page/move?path=DIRECTORY&name=NAME&csrf=WORD`; `to`: the new name, `folder`: where to. An existing target is
/// not replaced.
pub(super) async fn rename(asked: PageRequest, body: Body) -> Result<Response> {
    let place = asked.place(&["name"])?;
    let done = async {
        let form = fields(body, &["to", "folder"]).await?;
        let source = place.named()?;
        let folder = changes::folder(&form, &place)?;
        let name = match form.bytes("to") {
            None => source.name().to_vec(),
            Some(shown) if shown == place.title().as_bytes() => source.name().to_vec(),
            Some(_) => text(&form, "to"),
        };
        let target = folder.join(&name)?;
        asked.session.check(&target)?;
        changes::move_to(&asked.state.gateway, &source, &target).await?;
        let to = PagePlace::of_key(&target);
        let message = format!("Moved {} to {}.", place.title(), shown(&target));
        Ok(FormDone {
            done: "moved",
            message,
            href: to.beside().link(),
            key: escape(&target.bytes()),
        })
    };
    outcome(&asked, &place, done.await).await
}

/// `POST /page/delete?path=DIRECTORY&name=NAME&csrf=WORD`; with `tree=true` also a directory with its content.
pub(super) async fn delete(asked: PageRequest, body: Body) -> Result<Response> {
    let place = asked.place(&["name"])?;
    let done = async {
        let form = fields(body, &["tree"]).await?;
        let key = place.named()?;
        if form.flag("tree", false)? {
            changes::remove_tree(&asked.state.gateway, &key).await?;
        } else {
            listing::remove(&asked.state.gateway, &key).await?;
        }
        let message = format!("Deleted {}.", place.title());
        Ok(FormDone { done: "deleted", message, href: place.beside().link(), key: String::new() })
    };
    outcome(&asked, &place, done.await).await
}
