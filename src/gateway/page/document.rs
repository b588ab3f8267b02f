//! What is around every page.

use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::account;
use super::assets::URLS;
use crate::gateway::Session;

/// Nothing from elsewhere, nothing inline, in nobody's frame. `blob:` is for pictures alone: a preview is made of bytes
/// whose kind script has looked at.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob:; \
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
                    // What script says: there from the beginning, or nothing is read out.
                    p.said id="said" role="status" {}
                    (main)
                }
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
