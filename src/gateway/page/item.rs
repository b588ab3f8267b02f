//! The view of one file or folder: its facts, a preview, and what can be done with it.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::PageState;
use super::document::page;
use super::folder_field::folder_field;
use super::place::PagePlace;
use super::show::{minute, size};
use super::snapshots;
use super::trail::trail;
use super::visitor::may_write;
use crate::gateway::errors::Result;
use crate::gateway::metadata::{FileInfo, FileKind, FileState};
use crate::gateway::{HttpProblem, Session};

/// `GET /?path=DIRECTORY&file=NAME`.
pub(super) async fn show(
    state: &PageState,
    session: &Session,
    place: &PagePlace,
    done: Option<&'static str>,
) -> Result<Response> {
    let found = find(state, place).await;
    let code = found.as_ref().err().map_or(StatusCode::OK, HttpProblem::status);
    let was = match (place.at, &found) {
        (Some(commit), Ok(_)) => Some(snapshots::banner(state, session, place, commit).await),
        _ => None,
    };
    let main = html! {
        @if let Some(done) = done { p.notice.good role="status" { (done) } }
        div id="view" data-view="item" {
            @if let Some(was) = was { (was) }
            div.bar { (trail(session, place)) }
            section.card.item id="item" aria-labelledby="title" {
                h1 id="title" tabindex="-1" { (place.title()) }
                @match &found {
                    Ok(file) => (about(session, place, file)?),
                    Err(problem) => {
                        p.notice.bad role="alert" { (gone(place, problem)) }
                        @if place.at.is_none() { p { (history(place)) } }
                    }
                }
            }
        }
    };
    let title = format!("{} · s3vault", place.title());
    Ok(page(code, &title, Some(session), main))
}

fn gone(place: &PagePlace, problem: &HttpProblem) -> String {
    match (problem.status(), place.at) {
        (StatusCode::NOT_FOUND, Some(_)) => problem.message().to_owned(),
        (StatusCode::NOT_FOUND, None) => "There is nothing of this name (any more).".to_owned(),
        _ => problem.message().to_owned(),
    }
}

async fn find(state: &PageState, place: &PagePlace) -> Result<FileInfo> {
    let key = place.named()?;
    let (inspected, _) = match place.at {
        None => state.gateway.inspect(&key).await?,
        Some(commit) => state.pasts.at(commit).await?.gateway.inspect(&key).await?,
    };
    Ok(FileInfo::new(&key, &inspected))
}

fn about(session: &Session, place: &PagePlace, file: &FileInfo) -> Result<Markup> {
    let is_file = file.kind == FileKind::File;
    let is_directory = file.kind == FileKind::Directory;
    let content = place.download()?;
    let inside = place.inside()?;
    Ok(html! {
        @if is_file {
            div.preview data-preview=(content) data-size=(file.size) data-name=(file.file_name) {
                p.hint { "A preview is made by script, in this browser." }
            }
        }
        div.do {
            @if is_file {
                a.button.main href=(content) download=(file.file_name) { "Download" }
            }
            @if is_directory { a.button.main href=(inside.link()) { "Open" } }
            @if place.at.is_none() { (history(place)) }
            @match place.at {
                None if may_write(session) => {
                    (rename(session, place))
                    (delete(session, place, is_directory))
                }
                Some(_) if may_write(session) => (restore(session, place, is_directory)?),
                _ => {}
            }
        }
        (facts(place, file))
    })
}

fn history(place: &PagePlace) -> Markup {
    html! {
        a.button href={ "/page/history?" (place.parameters("name")) } { "Earlier versions" }
    }
}

fn facts(place: &PagePlace, file: &FileInfo) -> Markup {
    let kind = match file.kind {
        FileKind::File => file.content_type.as_deref().unwrap_or("File"),
        FileKind::Directory => "Folder",
        FileKind::Symlink => "Symlink (this service follows none)",
        FileKind::Other => "Device, fifo or socket",
    };
    let state = match file.state {
        FileState::Durable => "In the bucket",
        FileState::Uploading => "On its way to the bucket",
    };
    html! {
        dl.facts {
            @if file.kind == FileKind::File {
                dt { "Size" } dd { (size(file.size)) @if file.size >= 1000 { " (" (file.size) " bytes)" } }
            }
            dt { "Kind" } dd { (kind) }
            dt { "Changed" } dd { time datetime=(file.modified) { (minute(&file.modified)) " UTC" } }
            @if let Some(uploaded) = &file.uploaded_at {
                dt { "Uploaded" } dd { time datetime=(uploaded) { (minute(uploaded)) " UTC" } }
            }
            @if place.at.is_none() { dt { "State" } dd { (state) } }
            dt { "Path" } dd { code { (file.s3_key) } }
            @if let Some(sum) = &file.sha256 { dt { "SHA-256" } dd { code { (sum) } } }
        }
    }
}

fn rename(session: &Session, place: &PagePlace) -> Markup {
    html! {
        details {
            summary.button { "Rename or move" }
            form method="post" action={ "/page/move?" (place.form(session)) } data-form="move" {
                label for="move-name" { "Name" }
                input id="move-name" name="to" value=(place.title()) required maxlength="255"
                    autocomplete="off" spellcheck="false";
                (folder_field(session, place))
                button.main type="submit" { "Move it" }
            }
        }
    }
}

/// Opening it asks; its button deletes.
fn delete(session: &Session, place: &PagePlace, is_directory: bool) -> Markup {
    html! {
        details {
            summary.button.warn { "Delete" }
            form method="post" action={ "/page/delete?" (place.form(session)) } data-form="delete" {
                p {
                    "Delete " b { (place.title()) }
                    @if is_directory { " and all that is in it" }
                    "? It will be gone on every machine. Earlier versions bring it back, as long as the vault keeps old states."
                }
                @if is_directory { input type="hidden" name="tree" value="true"; }
                button.bad type="submit" { "Delete it" }
            }
        }
    }
}

/// The form that restores something as it was.
fn restore(session: &Session, place: &PagePlace, is_directory: bool) -> Result<Markup> {
    let path = place.key()?.bytes();
    Ok(html! {
        details {
            summary.button { "Restore" }
            form method="post" action={ "/page/restore?" (place.form(session)) } data-form="restore" {
                label for="restore-to" { "Restore to" }
                input id="restore-to" name="to" value=(String::from_utf8_lossy(&path)) required
                    autocomplete="off" spellcheck="false" autocapitalize="off";
                p.hint {
                    @if is_directory { "A folder is restored to where nothing is: choose a path that is not taken." }
                    @else { "A file that is there is replaced, in one step. It stays among the earlier versions." }
                }
                button.main type="submit" { "Restore it" }
            }
        }
    })
}
