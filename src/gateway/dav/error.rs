//! Errors of WebDAV, as its clients are told of them.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::answers::{METHODS, xml_response};
use super::locks::{LockRefusal, Names};
use super::path::href;
use super::xml::{XmlError, text};
use crate::files;
use crate::gateway::HttpProblem;

/// Why a request is refused.
#[derive(Debug)]
pub(super) enum DavError {
    /// An error that the API has, too.
    Problem(HttpProblem),
    /// 405.
    NotAllowed(HttpProblem),
    /// 423: the lock at this path stands in the way.
    Locked(Names),
    /// 403: a listing of depth infinity.
    InfiniteDepth,
}

/// What the handlers return.
pub(super) type DavResult = Result<Response, DavError>;

impl From<HttpProblem> for DavError {
    fn from(problem: HttpProblem) -> Self {
        Self::Problem(problem)
    }
}

impl From<XmlError> for DavError {
    fn from(error: XmlError) -> Self {
        Self::Problem(HttpProblem::bad_request(format!(
            "In the body, {error}. Nothing was changed."
        )))
    }
}

impl From<files::Error> for DavError {
    fn from(error: files::Error) -> Self {
        match error {
            files::Error::Vfs(error) => Self::Problem(error.into()),
            files::Error::SameFile | files::Error::IntoItself => Self::into_itself(),
            other => {
                tracing::error!(error = %other, "a request by WebDAV failed");
                let text = "The vault could not do this; the daemon's log says why.";
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Self::Problem(HttpProblem::new(status, "internal", text))
            }
        }
    }
}

impl From<LockRefusal> for DavError {
    fn from(refusal: LockRefusal) -> Self {
        match refusal {
            LockRefusal::Locked(root) => Self::Locked(root),
            LockRefusal::Many => Self::Problem(HttpProblem::unavailable(
                "There are too many locks. Release some, or wait until they end by themselves.",
                60,
            )),
            LockRefusal::Unknown => Self::Problem(HttpProblem::conflict(
                "no_such_lock",
                "There is no such lock here (any more). Nothing was changed.",
            )),
            LockRefusal::NotHolder => Self::Problem(HttpProblem::new(
                StatusCode::FORBIDDEN,
                "not_the_holder",
                "The lock was made with another token. Nothing was changed.",
            )),
        }
    }
}

impl DavError {
    /// 403: source and target of a copy or move are the same, or one is inside the other.
    pub(super) fn into_itself() -> Self {
        let text = "Nothing can be copied or moved onto itself, or above or below itself. Nothing was changed.";
        Self::Problem(HttpProblem::new(StatusCode::FORBIDDEN, "into_itself", text))
    }

    /// 405.
    pub(super) fn not_allowed(text: &str) -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::NotAllowed(HttpProblem::new(status, "method_not_allowed", text))
    }

    pub(super) fn bad_request(text: &str) -> Self {
        Self::Problem(HttpProblem::bad_request(text))
    }
}

fn condition(status: StatusCode, element: &str) -> Response {
    let document = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:error xmlns:D=\"DAV:\">{element}</D:error>\n"
    );
    xml_response(status, document)
}

impl IntoResponse for DavError {
    fn into_response(self) -> Response {
        match self {
            Self::Problem(problem) => problem.into_response(),
            Self::NotAllowed(problem) => {
                let mut response = problem.into_response();
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(METHODS));
                response
            }
            Self::Locked(root) => {
                let root = text(&href(&root, false));
                let element = format!(
                    "<D:lock-token-submitted><D:href>{root}</D:href></D:lock-token-submitted>"
                );
                condition(StatusCode::LOCKED, &element)
            }
            Self::InfiniteDepth => condition(StatusCode::FORBIDDEN, "<D:propfind-finite-depth/>"),
        }
    }
}
