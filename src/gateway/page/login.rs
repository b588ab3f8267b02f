//! The log-in form.

use axum::http::StatusCode;
use axum::response::Response;
use maud::html;

use super::document::page;

/// The form that posts `token` to `/login`. `csrf`: the word in its action; `failed`: what was wrong with the last
/// attempt.
pub(crate) fn login(csrf: &str, failed: Option<&str>) -> Response {
    let status = if failed.is_some() { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
    let main = html! {
        section.card.login aria-labelledby="title" {
            h1 id="title" { "Log in" }
            p.hint {
                "With an access token of this service. One is made on its machine by "
                code { "s3vault serve token add NAME --write" } "."
            }
            @if let Some(failed) = failed { p.notice.bad role="alert" { (failed) } }
            form method="post" action={ "/login?csrf=" (csrf) } {
                label for="token" { "Access token" }
                input id="token" name="token" type="password" autocomplete="current-password"
                    required autofocus spellcheck="false" autocapitalize="off";
                button.main type="submit" { "Log in" }
            }
        }
    };
    page(status, "Log in · s3vault", None, main)
}
