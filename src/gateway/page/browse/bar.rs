//! What stands above the list: the search, and what can be done here.

use maud::{Markup, html};

use crate::gateway::Session;
use crate::gateway::page::directory_view::DirectoryView;
use crate::gateway::page::place::PagePlace;
use crate::gateway::s3_key::escape;

pub(super) fn search(view: &DirectoryView) -> Markup {
    html! {
        form.search role="search" method="get" action="/" {
            input type="hidden" name="path" value=(String::from_utf8_lossy(&view.place.path));
            @if let Some(at) = view.place.at { input type="hidden" name="at" value=(at); }
            label.hidden for="name" { "Find files below here by name" }
            input id="name" type="search" name="name" placeholder="Find by name"
                value=(String::from_utf8_lossy(&view.search));
            button.quiet type="submit" { "Find" }
        }
    }
}

/// What can be done with the directory as a whole.
pub(super) fn tools(session: &Session, place: &PagePlace, may_change: bool) -> Markup {
    html! {
        @if may_change { (upload(session, place)) }
        div.tools {
            @if may_change { (new_folder(session, place)) }
            @if place.at.is_none() { (look_back(session, place)) }
        }
    }
}

fn upload(session: &Session, place: &PagePlace) -> Markup {
    let path = escape(&place.path);
    html! {
        form.card.upload id="upload" method="post" enctype="multipart/form-data"
            action={ "/page/upload?" (place.form(session)) }
            data-url={ "/upload/?directory=" (path) } data-folders={ "/page/folder?" (place.form(session)) }
            data-path=(path) data-csrf=(session.csrf) {
            label for="file" { "Add files" }
            p.hint { "They are encrypted on this machine before anything leaves it. A name that is taken gets a number." }
            div.row {
                input id="file" name="file" type="file" multiple required;
                button.main type="submit" { "Upload" }
            }
        }
    }
}

fn new_folder(session: &Session, place: &PagePlace) -> Markup {
    html! {
        details.menu id="new-folder" {
            summary.button { "New folder" }
            form.panel method="post" action={ "/page/folder?" (place.form(session)) } data-form="folder" {
                label for="folder-name" { "Name of the folder" }
                input id="folder-name" name="name" required maxlength="255" autocomplete="off";
                button.main type="submit" { "Make it" }
            }
        }
    }
}

fn look_back(session: &Session, place: &PagePlace) -> Markup {
    html! {
        details.menu id="look-back" {
            summary.button { "Earlier states" }
            form.panel method="get" action="/page/look" data-look=(escape(&place.path)) {
                input type="hidden" name="path" value=(String::from_utf8_lossy(&place.path));
                label for="look-time" { "This folder as it was at" span data-zone { " (UTC)" } }
                input id="look-time" name="time" type="datetime-local" required;
                button.main type="submit" { "Look" }
                @if session.limit().is_none() { p { a href="/page/snapshots" { "Snapshots" } } }
            }
        }
    }
}
