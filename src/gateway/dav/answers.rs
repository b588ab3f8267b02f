//! What WebDAV answers consist of: the list of methods, and XML documents.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// The methods that WebDAV knows here.
pub(super) const METHODS: &str =
    "OPTIONS, GET, HEAD, PUT, DELETE, PROPFIND, PROPPATCH, MKCOL, COPY, MOVE, LOCK, UNLOCK";
/// Opens an answer about several resources or properties.
pub(super) const OPENS: &str =
    "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:multistatus xmlns:D=\"DAV:\">\n";
/// Closes it.
pub(super) const CLOSES: &str = "</D:multistatus>\n";

/// An XML document with this status, 207 or another.
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
