//! The frame around every page.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::account;
use super::assets::URLS;
use crate::gateway::Session;

/// Nothing from elsewhere, nothing inline, and no framing by others. `blob:` is allowed for images only: a preview is
/// made of bytes whose type script has checked.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A whole page. `session`: of the user who is logged in.
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
                @for url in &URLS.styles { link rel="stylesheet" href=(url); }
                @for url in URLS.scripts.iter().skip(1) { link rel="modulepreload" href=(url); }
                @if let Some(url) = URLS.scripts.first() { script type="module" src=(url) {} }
            }
            body {
                a.skip href="#main" { "Skip to the files" }
                header.top {
                    a.brand href="/" { img src=(URLS.icon) alt="" width="28" height="28"; "s3vault" }
                    @if let Some(session) = session { (account::show(session)) }
                }
                main id="main" tabindex="-1" {
                    // Script puts its messages here. The element must exist from the start, or screen readers do not
                    // announce them.
                    p.said id="said" role="status" {}
                    (main)
                }
            }
        }
    };
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        // Not `no-referrer`: with it, browsers post forms with `Origin: null`, which is refused.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, Html(text.into_string())).into_response()
}
