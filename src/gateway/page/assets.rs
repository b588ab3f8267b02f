//! What the page loads: three files, part of the program. Their URLs change with them, so that they can be kept.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::crypto::sha256;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
const ICON: &str = include_str!("icon.svg");

/// The URLs of style, script and icon.
pub(super) struct Urls {
    pub(super) style: String,
    pub(super) script: String,
    pub(super) icon: String,
}

pub(super) static URLS: LazyLock<Urls> = LazyLock::new(|| {
    let url = |name: &str, text: &str| {
        let hash = sha256(text.as_bytes()).to_string();
        format!("/page/{name}?{}", &hash[..16])
    };
    Urls {
        style: url("style.css", STYLE),
        script: url("script.js", SCRIPT),
        icon: url("icon.svg", ICON),
    }
});

pub(super) async fn style() -> Response {
    asset("text/css; charset=utf-8", STYLE)
}

pub(super) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", SCRIPT)
}

pub(super) async fn icon() -> Response {
    asset("image/svg+xml", ICON)
}

fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}
