//! The directory: what is in it, how the vault is, a form to upload and one to delete each.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::document::page;
use super::show::{minute, size};
use super::visitor::{Who, may_write, session};
use crate::gateway::errors::Result;
use crate::gateway::listing::{self, ListingPage, ListingQuery};
use crate::gateway::metadata::{FileInfo, FileKind, FileState};
use crate::gateway::order::{Order, Sort};
use crate::gateway::query::Query;
use crate::gateway::s3_key::{FILES, S3Key, escape};
use crate::gateway::{Gateway, HttpProblem, Session};

mod status_line;

/// Rows of a page.
const ROWS: usize = 100;

/// What is looked at.
#[derive(Clone, Default)]
pub(super) struct DirectoryView {
    /// The directory, without a slash at its end.
    path: Vec<u8>,
    /// If anything is looked for: everywhere below the directory.
    name: Vec<u8>,
    sort: Option<Sort>,
    is_descending: bool,
    cursor: Option<Vec<u8>>,
    done: Option<&'static str>,
}

impl DirectoryView {
    /// All of a directory, from its beginning.
    pub(super) fn of(path: Vec<u8>) -> Self {
        Self { path, ..Self::default() }
    }
}

/// `GET /`.
pub(super) async fn browse(
    State(gateway): State<Arc<Gateway>>,
    RawQuery(query): RawQuery,
    who: Who,
) -> Result<Response> {
    let session = session(who)?;
    let known = ["path", "name", "sort", "order", "cursor", "done"];
    let query = Query::parse(query.as_deref(), &known)?;
    let words = [("uploaded", Some("Uploaded.")), ("deleted", Some("Deleted."))];
    let path = query.bytes("path").unwrap_or_default();
    let view = DirectoryView {
        path: path.strip_suffix(b"/").unwrap_or(path).to_vec(),
        name: query.bytes("name").unwrap_or_default().to_vec(),
        sort: Some(listing::sort(&query)?),
        is_descending: listing::is_descending(&query)?,
        cursor: query.bytes("cursor").map(<[u8]>::to_vec),
        done: query.word("done", &words, None)?,
    };
    show(&gateway, &session, &view, None).await
}

/// The page of a view; with `problem`, what a form came to.
pub(super) async fn show(
    gateway: &Arc<Gateway>,
    session: &Session,
    view: &DirectoryView,
    problem: Option<&HttpProblem>,
) -> Result<Response> {
    let found = find(gateway, view).await;
    let code = match (problem, &found) {
        (Some(problem), _) | (None, Err(problem)) => problem.status(),
        (None, Ok(_)) => StatusCode::OK,
    };
    let title = match view.path.is_empty() {
        true => "s3vault".to_owned(),
        false => format!("{} · s3vault", String::from_utf8_lossy(&view.path)),
    };
    let main = html! {
        @if let Some(problem) = problem { p.notice.bad role="alert" { (problem.message()) } }
        @if let Some(done) = view.done.filter(|_| problem.is_none()) {
            p.notice.good role="status" { (done) }
        }
        (status_line::show(&gateway.vault.status()))
        div.bar {
            (trail(&view.path))
            (search(view))
        }
        @if may_write(session) && view.name.is_empty() { (upload(session, view)) }
        @match &found {
            Ok(found) => (table(session, view, found)),
            Err(problem) => p.notice.bad role="alert" { (problem.message()) },
        }
    };
    Ok(page(code, &title, Some(session), main))
}

async fn find(gateway: &Gateway, view: &DirectoryView) -> Result<ListingPage> {
    let is_search = !view.name.is_empty();
    let key = S3Key::parse_directory(&view.path)?;
    // A listing of what is not there is empty; a person wants to know.
    gateway.vfs.directory_at(key.names()).await.map_err(|error| {
        match HttpProblem::from(error) {
            problem if problem.status() == StatusCode::NOT_FOUND => {
                HttpProblem::not_found("There is no such directory (any more).")
            }
            problem => problem,
        }
    })?;
    let mut prefix = view.path.clone();
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
        name: view.name.to_ascii_lowercase(),
        order,
        is_recursive: is_search,
        cursor: view.cursor.clone(),
        limit: ROWS,
    };
    listing::page(gateway, &wanted).await
}

/// The directories above, each a link.
fn trail(path: &[u8]) -> Markup {
    let mut above = Vec::new();
    let mut end = 0;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        end += name.len();
        above.push((&path[..end.min(path.len())], String::from_utf8_lossy(name)));
        end += 1;
    }
    html! {
        nav.trail aria-label="Directories above" {
            ol {
                li { a href="/" aria-current=[path.is_empty().then_some("page")] { "Vault" } }
                @for (target, name) in &above {
                    li {
                        a href={ "/?path=" (escape(target)) }
                            aria-current=[(target.len() == path.len()).then_some("page")] { (name) }
                    }
                }
            }
        }
    }
}

fn search(view: &DirectoryView) -> Markup {
    html! {
        form.search role="search" method="get" action="/" {
            input type="hidden" name="path" value=(String::from_utf8_lossy(&view.path));
            label.hidden for="name" { "Find files below here by name" }
            input id="name" type="search" name="name" placeholder="Find by name"
                value=(String::from_utf8_lossy(&view.name));
            button.quiet type="submit" { "Find" }
        }
    }
}

fn upload(session: &Session, view: &DirectoryView) -> Markup {
    let path = escape(&view.path);
    html! {
        form.card.upload id="upload" method="post" enctype="multipart/form-data"
            action={ "/page/upload?path=" (path) "&csrf=" (session.csrf) }
            data-url={ "/upload/?directory=" (path) } data-csrf=(session.csrf) {
            label for="file" { "Add files" }
            p.hint { "They are encrypted on this machine before anything leaves it. A name that is taken gets a number." }
            div.row {
                input id="file" name="file" type="file" multiple required;
                button.main type="submit" { "Upload" }
            }
            ul.progress id="progress" aria-live="polite" {}
        }
    }
}

fn table(session: &Session, view: &DirectoryView, found: &ListingPage) -> Markup {
    let columns = [
        ("Name", Sort::Name, "name"),
        ("Size", Sort::Size, "size"),
        ("Changed", Sort::Time, "time"),
    ];
    html! {
        section id="files" aria-label="Files" {
            @if found.files.is_empty() {
                p.empty {
                    @if view.name.is_empty() { "Nothing is here yet." } @else { "Nothing here has such a name." }
                }
            } @else {
                table {
                    thead {
                        tr {
                            @for (label, sort, word) in columns { (column(view, label, sort, word)) }
                            th.state scope="col" { "State" }
                            th.act scope="col" { span.hidden { "Actions" } }
                        }
                    }
                    tbody { @for file in &found.files { (row(session, view, file)) } }
                }
            }
            @if found.next.is_some() || view.cursor.is_some() {
                nav.pages aria-label="Pages" {
                    @if view.cursor.is_some() { a href=(link(view, None)) { "First page" } }
                    @if let Some(next) = &found.next { a href=(link(view, Some(next))) rel="next" { "Next page" } }
                }
            }
        }
    }
}

/// A column's head: a link that sorts by it.
fn column(view: &DirectoryView, label: &str, sort: Sort, word: &str) -> Markup {
    let is_own = view.sort.unwrap_or(Sort::Name) == sort;
    let turned = DirectoryView {
        sort: Some(sort),
        is_descending: is_own && !view.is_descending,
        ..view.clone()
    };
    let now = match (is_own, view.is_descending) {
        (false, _) => None,
        (true, false) => Some("ascending"),
        (true, true) => Some("descending"),
    };
    html! {
        th scope="col" class=(word) aria-sort=[now] { a href=(link(&turned, None)) { (label) } }
    }
}

/// The page of a view, at a place in it.
fn link(view: &DirectoryView, cursor: Option<&str>) -> String {
    let sort = match view.sort {
        Some(Sort::Size) => "size",
        Some(Sort::Time) => "time",
        Some(Sort::Name) | None => "name",
    };
    let order = if view.is_descending { "desc" } else { "asc" };
    let name = match view.name.is_empty() {
        true => String::new(),
        false => format!("&name={}", escape(&view.name)),
    };
    let cursor = cursor.map(|cursor| format!("&cursor={}", escape(cursor.as_bytes())));
    let (path, cursor) = (escape(&view.path), cursor.unwrap_or_default());
    format!("/?path={path}&sort={sort}&order={order}{name}{cursor}")
}

fn row(session: &Session, view: &DirectoryView, file: &FileInfo) -> Markup {
    // What was found is told by its path from here.
    let shown = match view.name.is_empty() || view.path.is_empty() {
        true if view.name.is_empty() => file.file_name.as_str(),
        true => file.s3_key.as_str(),
        false => file.s3_key.get(view.path.len() + 1..).unwrap_or(&file.s3_key),
    };
    // The part of the URL below `/files/` is the path, escaped: as it is even where it is not UTF-8.
    let path = file.href.strip_prefix(FILES).unwrap_or_default();
    let (state, word) = match file.state {
        FileState::Durable => ("durable", "In the bucket"),
        FileState::Uploading => ("uploading", "Uploading"),
    };
    html! {
        tr data-state=(state) {
            th.name scope="row" {
                @match file.kind {
                    FileKind::Directory => a.directory href={ "/?path=" (path) } { (shown) },
                    FileKind::File => a.file href=(file.href) download=(file.file_name) { (shown) },
                    FileKind::Symlink => span.other title="A symlink; this service follows none" { (shown) },
                    FileKind::Other => span.other title="A device, fifo or socket" { (shown) },
                }
            }
            td.size { @if file.kind == FileKind::File { (size(file.size)) } }
            td.time { time datetime=(file.modified) { (minute(&file.modified)) } }
            td.state { span class={ "badge " (state) } { (word) } }
            td.act { @if may_write(session) { (delete(session, file, path)) } }
        }
    }
}

/// Without script: opened, it asks; its button deletes.
fn delete(session: &Session, file: &FileInfo, path: &str) -> Markup {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    html! {
        details.delete {
            summary { "Delete" span.hidden { " " (file.file_name) } }
            form method="post"
                action={ "/page/delete?path=" (directory) "&name=" (name) "&csrf=" (session.csrf) } {
                p { "Delete " b { (file.file_name) } "? It will be gone from the vault on every machine." }
                button.bad type="submit" { "Delete it" }
            }
        }
    }
}
