//! The directory view: the entries, the state of the vault, and the forms that change it; now or as of a commit.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;

use super::PageState;
use super::chosen_entries::CHOSEN_MAX;
use super::directory_view::DirectoryView;
use super::document::page;
use super::page_request::PageRequest;
use super::place::PagePlace;
use super::trail::trail;
use super::visitor::may_write;
use super::{item, snapshots};
use crate::gateway::errors::Result;
use crate::gateway::listing::{self, ListingPage, ListingQuery};
use crate::gateway::order::{Order, Sort};
use crate::gateway::query::Query;
use crate::gateway::s3_key::S3Key;
use crate::gateway::{Gateway, HttpProblem, Session};

mod bar;
mod choice;
mod status_line;
mod table;

/// Rows per page: as many as can be chosen at once.
const ROWS: usize = CHOSEN_MAX;

/// `GET /`.
pub(super) async fn browse(asked: PageRequest) -> Result<Response> {
    let (state, session) = (&asked.state, &asked.session);
    let known = ["path", "name", "sort", "order", "cursor", "done", "file", "at"];
    let query = asked.query(&known)?;
    if let (Some(limit), None) = (session.limit(), query.bytes("path")) {
        return Ok(Redirect::to(&home(&state.gateway, &limit).await).into_response());
    }
    let place = PagePlace::of(&query, "file")?;
    let done = done(&query)?;
    if place.name.is_some() {
        return item::show(state, session, &place, done).await;
    }
    let view = DirectoryView {
        place,
        search: query.bytes("name").unwrap_or_default().to_vec(),
        sort: Some(listing::sort(&query)?),
        is_descending: listing::is_descending(&query)?,
        cursor: query.bytes("cursor").map(<[u8]>::to_vec),
        done,
    };
    show(state, session, &view, None).await
}

/// The message about what a form did; the redirect after a form names it by a word.
fn done(query: &Query) -> Result<Option<&'static str>> {
    let words = [
        ("uploaded", Some("Uploaded.")),
        ("deleted", Some("Deleted.")),
        ("made", Some("The folder is there.")),
        ("moved", Some("Moved.")),
        ("restored", Some("Restored.")),
    ];
    query.word("done", &words, None)
}

/// The start page for a token that sees only a part of the vault.
async fn home(gateway: &Gateway, limit: &S3Key) -> String {
    match gateway.vfs.directory_at(limit.names()).await {
        Ok(_) => PagePlace { path: limit.bytes(), ..PagePlace::default() }.link(),
        Err(_) => PagePlace::of_key(limit).link(),
    }
}

/// The view's page. `problem`: the error of a form, if it failed.
pub(super) async fn show(
    state: &PageState,
    session: &Session,
    view: &DirectoryView,
    problem: Option<&HttpProblem>,
) -> Result<Response> {
    let found = find(state, view).await;
    let code = match (problem, &found) {
        (Some(problem), _) | (None, Err(problem)) => problem.status(),
        (None, Ok(_)) => StatusCode::OK,
    };
    let title = match view.place.path.is_empty() {
        true => "s3vault".to_owned(),
        false => format!("{} · s3vault", view.place.title()),
    };
    let is_now = view.place.at.is_none();
    let was = match (view.place.at, &found) {
        (Some(commit), Ok(_)) => Some(snapshots::banner(state, session, &view.place, commit).await),
        _ => None,
    };
    let may_write = may_write(session) && is_now;
    let may_change = may_write && view.search.is_empty();
    let main = html! {
        @if let Some(problem) = problem { p.notice.bad role="alert" { (problem.message()) } }
        @if let Some(done) = view.done.filter(|_| problem.is_none()) {
            p.notice.good role="status" { (done) }
        }
        @if is_now { (status_line::show(session, &state.gateway.vault.status())) }
        div id="view" data-view="files" {
            h1.hidden id="title" tabindex="-1" { (view.place.title()) }
            @if let Some(was) = was { (was) }
            div.bar {
                (trail(session, &view.place))
                (bar::search(view))
            }
            @if view.search.is_empty() { (bar::tools(session, &view.place, may_change)) }
            @match &found {
                Ok(found) => {
                    (choice::choice(session, &view.place, may_write, found.files.is_empty()))
                    (table::table(view, found, may_write))
                }
                Err(problem) => p.notice.bad role="alert" { (problem.message()) },
            }
        }
    };
    Ok(page(code, &title, Some(session), main))
}

async fn find(state: &PageState, view: &DirectoryView) -> Result<ListingPage> {
    let is_search = !view.search.is_empty();
    let key = view.place.directory()?;
    let past = match view.place.at {
        Some(commit) => Some(state.pasts.at(commit).await?),
        None => None,
    };
    let gateway = past.as_ref().map_or(&state.gateway, |past| &past.gateway);
    // Listing a missing directory yields nothing, but a person wants to be told.
    gateway.vfs.directory_at(key.names()).await.map_err(|error| {
        match HttpProblem::from(error) {
            problem if problem.status() == StatusCode::NOT_FOUND => {
                HttpProblem::not_found(match past {
                    Some(_) => "There was no such folder then.",
                    None => "There is no such folder (any more).",
                })
            }
            problem => problem,
        }
    })?;
    let mut prefix = view.place.path.clone();
    if !prefix.is_empty() {
        prefix.push(b'/');
    }
    let order = Order {
        sort: view.sort.unwrap_or(Sort::Name),
        is_descending: view.is_descending,
        directories_first: !is_search,
    };
    let wanted = ListingQuery {
        prefix,
        name: view.search.to_ascii_lowercase(),
        order,
        is_recursive: is_search,
        cursor: view.cursor.clone(),
        limit: ROWS,
    };
    listing::page(gateway, &wanted).await
}
