//! Who is logged in: the name of their token, what it allows, where, and until when.

use maud::{Markup, html};

use super::show::when;
use super::visitor::may_write;
use crate::gateway::Session;
use crate::gateway::s3_key::S3Key;
use crate::types::Timestamp;

/// The button in the page's header, and the panel that it opens.
pub(super) fn show(session: &Session) -> Markup {
    let rights = if may_write(session) { "Read and write" } else { "Read only" };
    let limit = session.limit();
    let part = limit.as_ref().map(S3Key::bytes);
    let part = part.map(|path| String::from_utf8_lossy(&path).into_owned());
    html! {
        @match &session.name {
            None => p.who { "Open to everybody on this machine" },
            Some(name) => {
                details.who.menu {
                    summary {
                        span.hidden { "Logged in as " }
                        (name)
                        @if !may_write(session) { " · read-only" }
                    }
                    div.panel {
                        dl {
                            dt { "Token" } dd { (name) }
                            dt { "Rights" } dd { (rights) }
                            dt { "Part of the vault" } dd { @match &part { Some(path) => code { (path) }, None => "All of it" } }
                            dt { "Good until" }
                            dd {
                                @match session.ends {
                                    Some(seconds) => (when(Timestamp { seconds, nanos: 0 })),
                                    None => "It is removed",
                                }
                            }
                        }
                        form method="post" action={ "/logout?csrf=" (session.csrf) } {
                            button.quiet type="submit" { "Log out" }
                        }
                    }
                }
            }
        }
    }
}
