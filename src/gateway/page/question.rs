//! The question before something is done with several entries: a page of its own, which script shows as a dialog.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::chosen_entries::ChosenEntry;
use super::document::page;
use super::folder_field::folder_field;
use super::page_request::PageRequest;
use super::place::PagePlace;
use super::show::count;
use super::trail::trail;
use crate::gateway::HttpProblem;
use crate::gateway::errors::Result;
use crate::gateway::metadata::FileKind;
use crate::gateway::query::Query;

/// What can be done with the chosen entries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ChosenAction {
    Download,
    Move,
    Delete,
}

impl ChosenAction {
    /// The `action` of a form; by default the one that changes nothing.
    pub(super) fn of(form: &Query) -> Result<Self> {
        let words = [("download", Self::Download), ("move", Self::Move), ("delete", Self::Delete)];
        form.word("action", &words, Self::Download)
    }

    fn title(self) -> &'static str {
        match self {
            Self::Download => "Download what is chosen",
            Self::Move => "Move what is chosen",
            Self::Delete => "Delete what is chosen",
        }
    }
}

/// The page that asks. `problem`: the error of the last attempt.
pub(super) async fn question(
    asked: &PageRequest,
    place: &PagePlace,
    action: ChosenAction,
    entries: &[ChosenEntry],
    problem: Option<&HttpProblem>,
) -> Result<Response> {
    let code = problem.map_or(StatusCode::OK, HttpProblem::status);
    let body = match action {
        ChosenAction::Download => downloads(asked, entries).await,
        ChosenAction::Move => relocation(asked, place, entries),
        ChosenAction::Delete => deletion(asked, place, entries),
    };
    let main = html! {
        div id="view" data-view="item" {
            div.bar { (trail(&asked.session, place)) }
            section.card.item id="item" aria-labelledby="title" {
                h1 id="title" tabindex="-1" { (action.title()) }
                @if let Some(problem) = problem { p.notice.bad role="alert" { (problem.message()) } }
                (body)
                p.leave { a.button href=(place.link()) { "Back to the files" } }
            }
        }
    };
    let title = format!("{} · s3vault", action.title());
    Ok(page(code, &title, Some(&asked.session), main))
}

fn list(entries: &[ChosenEntry]) -> Markup {
    html! {
        ul.entries {
            @for entry in entries {
                li data-name=(entry.word()) {
                    b { (entry.shown()) }
                    @if let Some(why) = &entry.why { " " span.why { (why.message()) } }
                }
            }
        }
    }
}

fn names(entries: &[ChosenEntry]) -> Markup {
    html! { @for entry in entries { input type="hidden" name="name" value=(entry.word()); } }
}

fn relocation(asked: &PageRequest, place: &PagePlace, entries: &[ChosenEntry]) -> Markup {
    let action = format!("/page/chosen/move?{}", place.form(&asked.session));
    html! {
        (list(entries))
        div.do {
            form method="post" action=(action) data-form="chosen" {
                (names(entries))
                (folder_field(&asked.session, place))
                button.main type="submit" { "Move them" }
            }
        }
    }
}

fn deletion(asked: &PageRequest, place: &PagePlace, entries: &[ChosenEntry]) -> Markup {
    let action = format!("/page/chosen/delete?{}", place.form(&asked.session));
    html! {
        (list(entries))
        div.do {
            form method="post" action=(action) data-form="chosen" {
                (names(entries))
                p {
                    "Folders go with all that is in them. What is deleted will be gone on every machine. Earlier versions bring it back, as long \
                     as the vault keeps old states."
                }
                button.bad type="submit" { "Delete them" }
            }
        }
    }
}

/// A link for each file. Script downloads one after the other, and never asks for this page.
async fn downloads(asked: &PageRequest, entries: &[ChosenEntry]) -> Markup {
    let mut files = Vec::new();
    for entry in entries {
        let found = asked.state.gateway.inspect(&entry.key).await;
        if found.is_ok_and(|(found, _)| FileKind::of(found.attributes.mode) == FileKind::File) {
            files.push(entry);
        }
    }
    let others = entries.len() - files.len();
    html! {
        ul.entries {
            @for file in &files {
                li { a href=(file.key.url()) download=(String::from_utf8_lossy(file.key.name())) { (file.shown()) } }
            }
        }
        @if others > 0 {
            p.hint { (count(others as u64, "other entry is", "other entries are")) " no file: folders are not downloaded." }
        }
    }
}
