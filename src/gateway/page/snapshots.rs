//! The snapshots, and the banner above a view of a past state.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Serialize;

use super::PageState;
use super::answer::{FormDone, fields, text};
use super::document::page;
use super::page_request::PageRequest;
use super::place::PagePlace;
use super::show::when;
use super::visitor::may_write;
use crate::gateway::errors::Result;
use crate::gateway::metadata::rfc3339;
use crate::gateway::past::{PastChange, SnapshotNote};
use crate::gateway::s3_key::escape;
use crate::gateway::{HttpProblem, Session};

/// The URL of the list.
const HERE: &str = "/page/snapshots";
/// How long a snapshot may be kept: the word in the form, days, and what people read.
const SPANS: [(&str, Option<u64>, &str); 5] = [
    ("", None, "until it is deleted"),
    ("1d", Some(1), "for a day"),
    ("7d", Some(7), "for a week"),
    ("30d", Some(30), "for 30 days"),
    ("365d", Some(365), "for a year"),
];

/// The list as JSON.
#[derive(Serialize)]
struct SnapshotList {
    snapshots: Vec<SnapshotJson>,
}

#[derive(Serialize)]
struct SnapshotJson {
    name: String,
    commit: u64,
    created: String,
    ends: Option<String>,
}

impl From<&SnapshotNote> for SnapshotJson {
    fn from(note: &SnapshotNote) -> Self {
        Self {
            name: name(note),
            commit: note.commit,
            created: rfc3339(note.created),
            ends: note.ends.map(rfc3339),
        }
    }
}

fn name(note: &SnapshotNote) -> String {
    String::from_utf8_lossy(&note.name).into_owned()
}

/// `GET /page/snapshots`; JSON if the client accepts it.
pub(super) async fn list(asked: PageRequest) -> Result<Response> {
    let query = asked.query(&["done"])?;
    if asked.wants_json() {
        let found = asked.state.gateway.past.snapshots().await?;
        let snapshots = found.iter().map(SnapshotJson::from).collect();
        return Ok(Json(SnapshotList { snapshots }).into_response());
    }
    let words = [("kept", Some("The snapshot is made.")), ("deleted", Some("Deleted."))];
    let done = query.word("done", &words, None)?;
    Ok(show(&asked, done, None).await)
}

/// `POST /page/snapshots?csrf=WORD`; `name`, and `keep`: how long (a word of `SPANS`).
pub(super) async fn make(asked: PageRequest, body: Body) -> Result<Response> {
    asked.query(&["csrf"])?;
    let done = async {
        let form = fields(body, &["name", "keep"]).await?;
        let name = text(&form, "name");
        let days = SPANS.map(|(word, days, _)| (word, days));
        let span = form.word("keep", &days, None)?.map(|days| Duration::from_hours(24 * days));
        let shown = String::from_utf8_lossy(&name).into_owned();
        asked.state.pasts.change(PastChange::Keep { name, span }).await?;
        Ok(done("kept", format!("Made the snapshot {shown}.")))
    };
    came_of(&asked, done.await).await
}

/// `POST /page/snapshots/delete?name=NAME&csrf=WORD`.
pub(super) async fn delete(asked: PageRequest) -> Result<Response> {
    let query = asked.query(&["name", "csrf"])?;
    let done = async {
        let name = query.bytes("name").unwrap_or_default().to_vec();
        let shown = String::from_utf8_lossy(&name).into_owned();
        asked.state.pasts.change(PastChange::Delete { name }).await?;
        Ok(done("deleted", format!("Deleted the snapshot {shown}.")))
    };
    came_of(&asked, done.await).await
}

fn done(done: &'static str, message: String) -> FormDone {
    FormDone { done, message, href: format!("{HERE}?"), key: String::new() }
}

async fn came_of(asked: &PageRequest, done: Result<FormDone>) -> Result<Response> {
    match asked.finished(done) {
        Err(problem) => Ok(show(asked, None, Some(&problem)).await),
        finished => finished,
    }
}

async fn show(
    asked: &PageRequest,
    done: Option<&'static str>,
    problem: Option<&HttpProblem>,
) -> Response {
    let session = &asked.session;
    let found = asked.state.gateway.past.snapshots().await;
    let wrong = problem.or(found.as_ref().err());
    let code = wrong.map_or(StatusCode::OK, HttpProblem::status);
    let main = html! {
        @if let Some(done) = done { p.notice.good role="status" { (done) } }
        div id="view" data-view="snapshots" {
            section.card.item id="item" aria-labelledby="title" {
                h1 id="title" tabindex="-1" { "Snapshots" }
                @if let Some(problem) = wrong { p.notice.bad role="alert" { (problem.message()) } }
                p.hint {
                    "States of the whole vault that are kept under a name, however old they get. On the vault's machine one is made by "
                    code { "s3vault snapshot create NAME" } "."
                }
                @if may_write(session) { div.do { (form(session)) } }
                @match &found {
                    Ok(found) if found.is_empty() => p.empty { "There are no snapshots." },
                    Ok(found) => (table(session, found)),
                    Err(_) => {},
                }
                p { a.button href="/" { "Back to the files" } }
            }
        }
    };
    page(code, "Snapshots · s3vault", Some(session), main)
}

fn form(session: &Session) -> Markup {
    html! {
        details.menu id="new-snapshot" {
            summary.button { "New snapshot" }
            form.panel method="post" action={ (HERE) "?csrf=" (session.csrf) } data-form="keep" {
                label for="snapshot-name" { "Name of the snapshot" }
                input id="snapshot-name" name="name" required maxlength="255" autocomplete="off" spellcheck="false";
                label for="snapshot-keep" { "Kept" }
                select id="snapshot-keep" name="keep" {
                    @for (word, _, label) in SPANS { option value=(word) { (label) } }
                }
                p.hint { "What is on its way to the bucket is waited for: it is in the snapshot." }
                button.main type="submit" { "Make it" }
            }
        }
    }
}

fn table(session: &Session, found: &[SnapshotNote]) -> Markup {
    let browse =
        |note: &SnapshotNote| PagePlace { at: Some(note.commit), ..PagePlace::default() }.link();
    let may_change = may_write(session);
    html! {
        table.versions {
            thead {
                tr {
                    th scope="col" { "Name" }
                    th scope="col" { "Made" }
                    th scope="col" { "Kept until" }
                    @if may_change { th.act scope="col" { span.hidden { "Actions" } } }
                }
            }
            tbody {
                @for note in found {
                    tr {
                        th.name scope="row" { a data-main href=(browse(note)) { (name(note)) } }
                        td { span.narrow { "made " } (when(note.created)) }
                        td { span.narrow { "kept until " } @match note.ends { Some(ends) => (when(ends)), None => "it is deleted" } }
                        @if may_change { td.act { (deletion(session, note)) } }
                    }
                }
            }
        }
    }
}

fn deletion(session: &Session, note: &SnapshotNote) -> Markup {
    html! {
        details.menu.right {
            summary { "Delete" span.hidden { " the snapshot " (name(note)) } }
            form.panel method="post" data-form="unkeep"
                action={ (HERE) "/delete?name=" (escape(&note.name)) "&csrf=" (session.csrf) } {
                p { "Delete the snapshot " b { (name(note)) } "? The files of now stay. What only it holds is deleted from the bucket, and does not come back." }
                button.bad type="submit" { "Delete it" }
            }
        }
    }
}

/// The notice that says which past state is shown, with a link back.
pub(super) async fn banner(
    state: &PageState,
    session: &Session,
    place: &PagePlace,
    commit: u64,
) -> Markup {
    let time = state.pasts.at(commit).await.ok().map(|past| past.as_of.time);
    // A visitor who sees only a part of the vault is not told the names of snapshots, only the commit.
    let named = match session.limit() {
        None => state.gateway.past.snapshots().await.unwrap_or_default(),
        Some(_) => Vec::new(),
    };
    let named = named.iter().find(|note| note.commit == commit).map(name);
    html! {
        p.notice.past {
            span {
                b { "As it was" }
                @if let Some(time) = time { " on " (when(time)) }
                @match &named {
                    Some(name) => { " · snapshot " b { (name) } }
                    None => { " · commit " (commit) }
                }
                ". Nothing can be changed here; files can be downloaded, and restored."
            }
            a.button href=(place.as_of(None).link()) { "Back to now" }
        }
    }
}
