//! What several entries are chosen with: a box in each row, and what can be done with all that are ticked.

use maud::{Markup, html};

use crate::gateway::Session;
use crate::gateway::page::place::PagePlace;

/// The form that the boxes belong to. Without script it leads to a question. Who may change nothing can only download,
/// one file after the other, which is done by script: it shows the form to them.
pub(super) fn choice(
    session: &Session,
    place: &PagePlace,
    may_change: bool,
    is_empty: bool,
) -> Markup {
    let action = format!("/page/chosen?{}", place.form(session));
    html! {
        form.choice id="chosen" method="post" action=(action) hidden[!may_change || is_empty] {
            label hidden { input id="choose-all" type="checkbox" autocomplete="off"; "Choose all" }
            // Said by script as it changes.
            p.count id="chosen-count" role="status" { "With what is ticked:" }
            div.row {
                button id="chosen-download" type="submit" name="action" value="download" { "Download" }
                @if may_change {
                    button id="chosen-move" type="submit" name="action" value="move" { "Move" }
                    button.warn id="chosen-delete" type="submit" name="action" value="delete" { "Delete" }
                }
            }
        }
    }
}

/// A row's box. `path`: from the directory that is shown, as a URL says it.
pub(super) fn tick(path: &str, name: &str) -> Markup {
    html! {
        label {
            input type="checkbox" form="chosen" name="name" value=(path) autocomplete="off";
            span.hidden { "Choose " (name) }
        }
    }
}
