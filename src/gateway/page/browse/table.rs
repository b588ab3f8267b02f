//! The list of a directory's entries, or of search results.

use maud::{Markup, html};

use super::choice;
use crate::gateway::listing::ListingPage;
use crate::gateway::metadata::{FileInfo, FileKind, FileState};
use crate::gateway::order::Sort;
use crate::gateway::page::directory_view::DirectoryView;
use crate::gateway::page::icons::icon;
use crate::gateway::page::show::{minute, size};
use crate::gateway::s3_key::{FILES, escape};

/// `may_change`: whether the chosen entries can be changed, which works without script.
pub(super) fn table(view: &DirectoryView, found: &ListingPage, may_change: bool) -> Markup {
    let columns = [
        ("Name", Sort::Name, "name"),
        ("Size", Sort::Size, "size"),
        ("Changed", Sort::Time, "time"),
    ];
    let is_now = view.place.at.is_none();
    html! {
        section id="files" aria-label="Files" tabindex="-1" {
            @if found.files.is_empty() {
                p.empty {
                    @if !view.search.is_empty() { "Nothing here has such a name." }
                    @else if is_now { "Nothing is here yet." }
                    @else { "Nothing was here." }
                }
            } @else {
                table {
                    thead {
                        tr {
                            th.pick scope="col" hidden[!may_change] { span.hidden { "Chosen" } }
                            @for (label, sort, word) in columns { (column(view, label, sort, word)) }
                            @if is_now { th.state scope="col" { "State" } }
                            th.act scope="col" { span.hidden { "Actions" } }
                        }
                    }
                    tbody { @for file in &found.files { (row(view, file, may_change)) } }
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

/// A column header: a link that sorts by the column.
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

/// The URL of the view at a cursor.
fn link(view: &DirectoryView, cursor: Option<&str>) -> String {
    let sort = match view.sort {
        Some(Sort::Size) => "size",
        Some(Sort::Time) => "time",
        Some(Sort::Name) | None => "name",
    };
    let order = if view.is_descending { "desc" } else { "asc" };
    let name = match view.search.is_empty() {
        true => String::new(),
        false => format!("&name={}", escape(&view.search)),
    };
    let cursor = cursor.map(|cursor| format!("&cursor={}", escape(cursor.as_bytes())));
    let cursor = cursor.unwrap_or_default();
    format!("{}&sort={sort}&order={order}{name}{cursor}", view.place.link())
}

fn row(view: &DirectoryView, file: &FileInfo, may_change: bool) -> Markup {
    // A search result is shown with its path from this directory.
    let above = &view.place.path;
    let shown = match (view.search.is_empty(), above.is_empty()) {
        (true, _) => file.file_name.as_str(),
        (false, true) => file.s3_key.as_str(),
        (false, false) => file.s3_key.get(above.len() + 1..).unwrap_or(&file.s3_key),
    };
    // The part of the URL below `/files/` is the escaped path, which is right even if the path is not UTF-8.
    let path = file.href.strip_prefix(FILES).unwrap_or_default();
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let at = view.place.at.map(|at| format!("&at={at}")).unwrap_or_default();
    let item = format!("/?path={directory}&file={name}{at}");
    let content = match view.place.at {
        None => file.href.clone(),
        Some(_) => format!("/page/past?path={directory}&name={name}{at}"),
    };
    let (state, word) = match file.state {
        FileState::Durable => ("durable", "In the bucket"),
        FileState::Uploading => ("uploading", "Uploading"),
    };
    let is_now = view.place.at.is_none();
    let from_here = path.strip_prefix(escape(above).as_str()).unwrap_or(path);
    let from_here = from_here.strip_prefix('/').unwrap_or(from_here);
    html! {
        tr data-state=[is_now.then_some(state)] data-key=(path) {
            td.pick hidden[!may_change] { (choice::tick(from_here, &file.file_name)) }
            th.name scope="row" {
                (icon(file.kind, file.file_name.as_bytes()))
                @match file.kind {
                    FileKind::Directory => a.directory data-main href={ "/?path=" (path) (at) } { (shown) },
                    FileKind::File => a.file data-main data-open href=(item) { (shown) },
                    FileKind::Symlink => a.other data-main data-open href=(item) title="A symlink; this service follows none" { (shown) },
                    FileKind::Other => a.other data-main data-open href=(item) title="A device, fifo or socket" { (shown) },
                }
            }
            td.size { @if file.kind == FileKind::File { (size(file.size)) } }
            td.time { time datetime=(file.modified) { (minute(&file.modified)) } }
            @if is_now { td.state { span class={ "badge " (state) } { (word) } } }
            td.act {
                @if file.kind == FileKind::File {
                    a.get href=(content) download=(file.file_name) title="Download" {
                        span.hidden { "Download " (file.file_name) }
                    }
                }
                a.more data-open href=(item) title="More" { span.hidden { "More about " (file.file_name) } }
            }
        }
    }
}
