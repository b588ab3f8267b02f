//! Choosing several entries: a check box in each row, and what can be done with the ticked ones.

use maud::{Markup, html};

use crate::gateway::Session;
use crate::gateway::page::place::PagePlace;

/// The form that the check boxes belong to. Without script it leads to a question. A visitor who may not write can only
/// download, one file after the other. That needs script, so only script shows them the form.
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
            // Script updates this as boxes are ticked.
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

/// The check box of a row. `path`: relative to the directory shown, percent-encoded.
pub(super) fn tick(path: &str, name: &str) -> Markup {
    html! {
        label {
            input type="checkbox" form="chosen" name="name" value=(path) autocomplete="off";
            span.hidden { "Choose " (name) }
        }
    }
}
