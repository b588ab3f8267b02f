//! WebDAV below `/dav/` (RFC 4918, classes 1 and 2): the vault for clients without a mount, such as the file managers
//! of desktops and phones, rclone and davfs2. Uploads and downloads share the code of the API; the rest is here.
//!
//! Directories are collections, regular files are the other resources; symlinks and devices are not shown. A new file
//! or tree gets its name only once it is complete. Locks are kept in memory and bind WebDAV clients only.

mod answers;
mod changes;
mod conditions;
mod error;
#[cfg(feature = "testing")]
mod fuzzing;
mod lock_methods;
mod locks;
mod path;
mod propfind;
mod proppatch;
mod props;
mod service;
mod transfers;
mod xml;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Router};

use super::{Gateway, HttpProblem, Session};

use answers::METHODS;
use conditions::IfHeader;
use error::{DavError, DavResult};
use service::{DavRequest, DavService};

#[cfg(feature = "testing")]
pub(super) use fuzzing::fuzzed as dav_fuzzed;
pub(super) use path::DavPath;

/// The routes of WebDAV. One handler serves all of them.
pub(super) const ROUTES: [&str; 3] = ["/dav", "/dav/", "/dav/{*path}"];

pub(super) fn router(gateway: Arc<Gateway>) -> Router {
    let service = Arc::new(DavService::new(gateway));
    let route = |router: Router<_>, path| router.route(path, any(handle));
    ROUTES
        .into_iter()
        .fold(Router::new(), route)
        .layer(DefaultBodyLimit::disable())
        .with_state(service)
}

async fn handle(
    State(service): State<Arc<DavService>>,
    Extension(session): Extension<Session>,
    request: Request,
) -> DavResult {
    let (parts, body) = request.into_parts();
    let conditions = IfHeader::of(&parts.uri, &parts.headers)?;
    let request = DavRequest {
        path: DavPath::of_request(&parts.uri)?,
        tokens: conditions.tokens(),
        conditions,
        uri: parts.uri,
        method: parts.method,
        headers: parts.headers,
        session,
    };
    // The gate has checked the request's own path and its destination, but not the paths in `If`.
    if !request.conditions.resources().all(|path| request.session.may_see(path.key())) {
        return Err(HttpProblem::out_of_scope().into());
    }
    match request.method.as_str() {
        "OPTIONS" => Ok(options()),
        "GET" | "HEAD" => service.get(&request).await,
        "PUT" => service.put(&request, body).await,
        "DELETE" => service.delete(&request).await,
        "MKCOL" => service.make_collection(&request, body).await,
        "PROPFIND" => service.list(&request, body).await,
        "PROPPATCH" => service.patch(&request, body).await,
        "COPY" => service.copy(&request).await,
        "MOVE" => service.rename(&request).await,
        "LOCK" => service.lock(&request, body).await,
        "UNLOCK" => service.unlock(&request),
        _ => Err(DavError::not_allowed("This method is not known here.")),
    }
}

fn options() -> Response {
    let mut response = StatusCode::OK.into_response();
    let own = HeaderName::from_static;
    for (name, value) in [
        (own("dav"), "1, 2"),
        // Without this header, Windows Explorer asks for FrontPage.
        (own("ms-author-via"), "DAV"),
        (header::ALLOW, METHODS),
        (header::ACCEPT_RANGES, "bytes"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
