//! The page for people: rendered on the server, usable without script, better with it. It loads nothing from other
//! sites, and all text of names and files is escaped.
//!
//! Every view and form works by itself; script shows the same answers in place (`script/`).

mod account;
mod actions;
mod answer;
mod assets;
mod browse;
mod changes;
mod chosen;
mod chosen_entries;
mod directory_view;
mod document;
mod folder_field;
mod history;
mod icons;
mod item;
mod login;
mod outcome;
mod page_request;
mod place;
mod question;
mod restore;
mod show;
mod snapshots;
mod trail;
mod visitor;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::Gateway;
use super::past::OpenPasts;

pub(super) use login::login;

/// The most bytes of a form without files.
const FORM_MAX: usize = 16 << 10;

/// What the views and forms work with.
struct PageState {
    gateway: Arc<Gateway>,
    pasts: OpenPasts,
}

/// The page, and the targets of its forms.
pub(super) fn router(gateway: Arc<Gateway>) -> Router<Arc<Gateway>> {
    let state = Arc::new(PageState { pasts: OpenPasts::new(gateway.clone()), gateway });
    Router::new()
        .route("/", get(browse::browse))
        .route("/page/upload", post(actions::upload))
        .route("/page/folder", post(actions::make_folder))
        .route("/page/move", post(actions::rename))
        .route("/page/delete", post(actions::delete))
        .route("/page/chosen", post(chosen::ask))
        .route("/page/chosen/delete", post(chosen::delete))
        .route("/page/chosen/move", post(chosen::relocate))
        .route("/page/history", get(history::history))
        .route("/page/look", get(history::look))
        .route("/page/past", get(history::download))
        .route("/page/restore", post(restore::restore))
        .route("/page/snapshots", get(snapshots::list).post(snapshots::make))
        .route("/page/snapshots/delete", post(snapshots::delete))
        .with_state(state)
}

/// Style sheets, scripts and icon.
pub(super) fn assets() -> Router {
    Router::new().route(assets::ROUTE, get(assets::asset))
}
