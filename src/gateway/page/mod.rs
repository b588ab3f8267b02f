//! The page for people: made on the server, usable without script, better with it. It loads nothing from elsewhere,
//! and no text of a file or of a name can become a part of it.

mod assets;
mod browse;
mod document;
mod forms;
mod login;
mod show;
mod visitor;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::Gateway;

pub(super) use login::login;

/// The page and what its forms post to.
pub(super) fn router() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/", get(browse::browse))
        .route("/page/upload", post(forms::upload))
        .route("/page/delete", post(forms::delete))
}

/// Style, script and icon.
pub(super) fn assets() -> Router {
    Router::new()
        .route("/page/style.css", get(assets::style))
        .route("/page/script.js", get(assets::script))
        .route("/page/icon.svg", get(assets::icon))
}
