//! The icon that shows what kind of thing a row is, with a word for those who do not see it.

use maud::{Markup, html};

use crate::gateway::metadata::FileKind;

/// The style sheet draws the icon by its class.
pub(super) fn icon(kind: FileKind, name: &[u8]) -> Markup {
    let (class, word) = match kind {
        FileKind::Directory => ("folder", "Folder"),
        FileKind::Symlink => ("link", "Symlink"),
        FileKind::Other => ("other", "Special file"),
        FileKind::File if is_picture(name) => ("picture", ""),
        FileKind::File => ("file", ""),
    };
    html! {
        span class={ "icon " (class) } aria-hidden="true" {}
        @if !word.is_empty() { span.hidden { (word) " " } }
    }
}

/// Judged by the name alone.
fn is_picture(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    let ends: [&[u8]; 7] = [b".png", b".jpg", b".jpeg", b".gif", b".webp", b".avif", b".bmp"];
    ends.iter().any(|end| name.ends_with(end))
}
