//! What is around every page.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::assets::URLS;
use super::visitor::may_write;
use crate::gateway::Session;

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A whole page. `session`: of whoever is logged in.
pub(super) fn page(
    status: StatusCode,
    title: &str,
    session: Option<&Session>,
    main: Markup,
) -> Response {
    let text = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" type="image/svg+xml" href=(URLS.icon);
                link rel="stylesheet" href=(URLS.style);
                script src=(URLS.script) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the files" }
                header.top {
                    a.brand href="/" { img src=(URLS.icon) alt="" width="28" height="28"; "s3vault" }
                    @if let Some(session) = session { (who(session)) }
                }
                main id="main" { (main) }
            }
        }
    };
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        // Not `no-referrer`: then a browser says no origin of a form that is posted, which is refused.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, Html(text.into_string())).into_response()
}

fn who(session: &Session) -> Markup {
    html! {
        @match &session.name {
            Some(name) => {
                form.who method="post" action={ "/logout?csrf=" (session.csrf) } {
                    span { (name) @if !may_write(session) { " · read-only" } }
                    button.quiet type="submit" { "Log out" }
                }
            }
            None => p.who { span { "open to everybody on this machine" } },
        }
    }
}
