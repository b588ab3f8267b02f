//! Who answers which path.

use std::sync::Arc;

use axum::Router;

use super::{Gateway, Problem};

/// Everything that needs a [`super::Session`]: `/upload/`, `/download/`, `/files/`, `/openapi.json` and the page.
pub fn router(gateway: Arc<Gateway>) -> Router {
    Router::new().fallback(unknown).with_state(gateway)
}

async fn unknown() -> Problem {
    Problem::not_found("Nothing is served under this path; what is: /openapi.json.")
}

/// What needs no session: the style and script of the page.
pub fn public() -> Router {
    Router::new()
}
