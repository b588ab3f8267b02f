//! The snapshots, and what stands above a view of something as it was.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Serialize;

use super::PageState;
use super::answer::wants_json;
use super::document::page;
use super::place::PagePlace;
use super::show::when;
use super::visitor::{Who, session};
use crate::gateway::errors::Result;
use crate::gateway::metadata::rfc3339;
use crate::gateway::past::SnapshotNote;
use crate::gateway::{HttpProblem, Session};

/// All of them, as JSON.
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

/// `GET /page/snapshots`; as JSON for whoever accepts it.
pub(super) async fn list(
    State(state): State<Arc<PageState>>,
    who: Who,
    headers: HeaderMap,
) -> Result<Response> {
    let session = session(who)?;
    let found = state.gateway.past.snapshots().await;
    if wants_json(&headers) {
        let snapshots = found?.iter().map(SnapshotJson::from).collect();
        return Ok(Json(SnapshotList { snapshots }).into_response());
    }
    let code = found.as_ref().err().map_or(StatusCode::OK, HttpProblem::status);
    let main = html! {
        div id="view" data-view="snapshots" {
            section.card.item id="item" aria-labelledby="title" {
                h1 id="title" tabindex="-1" { "Snapshots" }
                p.hint {
                    "States of the whole vault that are kept under a name. One is made on the vault's machine by "
                    code { "s3vault snapshot create NAME" } "."
                }
                @match &found {
                    Ok(found) if found.is_empty() => p.empty { "There are no snapshots." },
                    Ok(found) => (table(found)),
                    Err(problem) => p.notice.bad role="alert" { (problem.message()) },
                }
                p { a.button href="/" { "Back to the files" } }
            }
        }
    };
    Ok(page(code, "Snapshots · s3vault", Some(&session), main))
}

fn table(found: &[SnapshotNote]) -> Markup {
    let browse =
        |note: &SnapshotNote| PagePlace { at: Some(note.commit), ..PagePlace::default() }.link();
    html! {
        table.versions {
            thead {
                tr {
                    th scope="col" { "Name" }
                    th scope="col" { "Made" }
                    th scope="col" { "Kept until" }
                }
            }
            tbody {
                @for note in found {
                    tr {
                        th.name scope="row" { a data-main href=(browse(note)) { (name(note)) } }
                        td { span.narrow { "made " } (when(note.created)) }
                        td { span.narrow { "kept until " } @match note.ends { Some(ends) => (when(ends)), None => "it is deleted" } }
                    }
                }
            }
        }
    }
}

/// Says which state is shown, and leads back.
pub(super) async fn banner(
    state: &PageState,
    session: &Session,
    place: &PagePlace,
    commit: u64,
) -> Markup {
    let time = state.pasts.at(commit).await.ok().map(|past| past.as_of.time);
    // Their names are not for whoever sees a part only. Without them it is a commit all the same.
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
