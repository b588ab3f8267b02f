//! The page's style sheets, scripts and icon: small files compiled into the program. Their URLs change with their
//! content, so that browsers can cache them.

use std::fmt::Write;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::crypto::sha256;
use crate::gateway::HttpProblem;

/// The scripts import each other by name, so all assets share one directory, named after the hash of all of them.
pub(super) const ROUTE: &str = "/page/assets/{word}/{name}";

const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, type, text.
type Asset = (&'static str, &'static str, &'static str);

macro_rules! assets {
    ($folder:literal, $kind:expr, $($name:literal),*) => {
        [$(($name, $kind, include_str!(concat!($folder, "/", $name)))),*]
    };
}

const STYLES: [Asset; 6] = assets!(
    "style",
    CSS,
    "base.css",
    "frame.css",
    "files.css",
    "item.css",
    "uploads.css",
    "phone.css"
);
const SCRIPTS: [Asset; 13] = assets!(
    "script",
    JAVASCRIPT,
    "main.js",
    "chosen.js",
    "dialog.js",
    "drop.js",
    "folders.js",
    "forms.js",
    "keys.js",
    "preview.js",
    "queue.js",
    "say.js",
    "show.js",
    "uploads.js",
    "view.js"
);
const ICON: Asset = ("icon.svg", "image/svg+xml", include_str!("icon.svg"));

fn all() -> impl Iterator<Item = &'static Asset> {
    STYLES.iter().chain(&SCRIPTS).chain(std::iter::once(&ICON))
}

/// The URLs of the assets.
pub(super) struct Urls {
    word: String,
    pub(super) styles: Vec<String>,
    /// The first is the entry point; the others are its imports.
    pub(super) scripts: Vec<String>,
    pub(super) icon: String,
}

pub(super) static URLS: LazyLock<Urls> = LazyLock::new(|| {
    let mut whole = String::new();
    for (name, _, text) in all() {
        // Writing into a string cannot fail.
        let _ = write!(whole, "{name} {}\n{text}", text.len());
    }
    let word = sha256(whole.as_bytes()).to_string()[..16].to_owned();
    let url = |(name, _, _): &Asset| format!("/page/assets/{word}/{name}");
    let (styles, scripts) = (STYLES.iter().map(url).collect(), SCRIPTS.iter().map(url).collect());
    Urls { styles, scripts, icon: url(&ICON), word }
});

pub(super) async fn asset(Path((word, name)): Path<(String, String)>) -> Response {
    let Some((_, kind, text)) = all().find(|(own, _, _)| *own == name) else {
        return HttpProblem::not_found("The page has no such part.").into_response();
    };
    // An older word gets this version, too, but not cached for ever.
    let keep = match word == URLS.word {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    let headers = [
        (header::CONTENT_TYPE, *kind),
        (header::CACHE_CONTROL, keep),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, *text).into_response()
}
