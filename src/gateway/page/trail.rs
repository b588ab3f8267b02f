//! The breadcrumb trail.

use maud::{Markup, html};

use super::place::PagePlace;
use crate::gateway::Session;

/// The directories above, each a link, and the current place.
pub(super) fn trail(session: &Session, place: &PagePlace) -> Markup {
    // For a visitor who sees only a part of the vault, the trail starts there.
    let limit = session.limit().map(|limit| limit.bytes()).unwrap_or_default();
    let here = match &place.name {
        Some(name) if place.path.is_empty() => name.clone(),
        Some(name) => [&place.path[..], b"/", name].concat(),
        None => place.path.clone(),
    };
    let mut above = Vec::new();
    let mut end = 0;
    for name in here.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        end += name.len();
        let target = &here[..end.min(here.len())];
        if target.len() >= limit.len() {
            above.push((target, String::from_utf8_lossy(name)));
        }
        end += 1;
    }
    let link = |path: &[u8]| PagePlace { path: path.to_vec(), name: None, at: place.at }.link();
    let at_root = here.is_empty();
    html! {
        nav.trail aria-label="Where you are" {
            ol {
                @if limit.is_empty() {
                    li { a href=(link(b"")) aria-current=[at_root.then_some("page")] { "Vault" } }
                }
                @for (target, name) in &above {
                    li {
                        @if target.len() == here.len() {
                            @match place.name {
                                Some(_) => span aria-current="page" { (name) },
                                None => a href=(link(target)) aria-current="page" { (name) },
                            }
                        } @else {
                            a href=(link(target)) { (name) }
                        }
                    }
                }
            }
        }
    }
}
