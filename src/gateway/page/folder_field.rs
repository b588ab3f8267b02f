//! The input for the folder that something is moved to.

use maud::{Markup, html};

use super::place::{PagePlace, shown};
use crate::gateway::Session;

/// Starts with the current folder; script suggests existing folders.
pub(super) fn folder_field(session: &Session, place: &PagePlace) -> Markup {
    let folder = String::from_utf8_lossy(&place.path);
    let within = session.limit().map(|limit| shown(&limit) + "/").unwrap_or_default();
    html! {
        label for="move-folder" { "Folder (empty: the top of the vault)" }
        input id="move-folder" name="folder" value=(folder) list="folders" data-folders=(within)
            autocomplete="off" spellcheck="false" autocapitalize="off";
        datalist id="folders" {}
    }
}
