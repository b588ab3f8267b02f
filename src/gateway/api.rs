//! Which function serves which path.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};

use super::{Gateway, HttpProblem, dav, download, listing, upload};

/// What `/openapi.json` returns. Its tests and schemathesis check that it describes the service exactly.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// Everything that needs a [`super::Session`]: `/upload/`, `/download/`, `/files/`, `/dav/`, `/openapi.json` and the page.
pub(super) fn router(gateway: Arc<Gateway>) -> Router {
    let upload = post(upload::post);
    let download = get(download::by_s3_key);
    let list = get(listing::list);
    let file = get(download::by_path).put(upload::put).delete(listing::delete);
    Router::new()
        .route("/upload/", upload.clone())
        .route("/upload", upload)
        .route("/download/", download.clone())
        .route("/download", download)
        .route("/files", list.clone())
        .route("/files/", list)
        .route("/files/{*path}", file)
        .route("/openapi.json", get(openapi))
        .merge(super::page::router(gateway.clone()))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        // Bodies are streamed; the middleware refuses one that is too long.
        .layer(DefaultBodyLimit::disable())
        .with_state(gateway.clone())
        .merge(dav::router(gateway))
}

/// What needs no session: the style and script of the page.
pub(super) fn public() -> Router {
    super::page::assets()
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn unknown() -> HttpProblem {
    HttpProblem::not_found("Nothing is served under this path. /openapi.json lists what is.")
}

async fn not_allowed() -> HttpProblem {
    HttpProblem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "This path does not know this method. /openapi.json lists which method each path knows.",
    )
}
