//! What goes over the wire in both directions: documents of XML.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Every method that is known here.
pub(super) const METHODS: &str =
    "OPTIONS, GET, HEAD, PUT, DELETE, PROPFIND, PROPPATCH, MKCOL, COPY, MOVE, LOCK, UNLOCK";
/// Begins an answer about several files or properties.
pub(super) const OPENS: &str =
    "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\">\n";
/// Ends it.
pub(super) const CLOSES: &str = "</D:multistatus>\n";

/// 207, or another status with a document of WebDAV.
pub(super) fn xml_response(status: StatusCode, document: impl Into<Body>) -> Response {
    let mut response = (status, document.into()).into_response();
    let kind = HeaderValue::from_static("application/xml; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// 207.
pub(super) fn multistatus(responses: &str) -> Response {
    xml_response(StatusCode::MULTI_STATUS, format!("{OPENS}{responses}{CLOSES}"))
}
