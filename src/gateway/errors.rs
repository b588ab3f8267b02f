//! Errors and what clients are told of them. This is the only place that decides the status of an error.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::types::cause;
use crate::vfs::{self, ErrorKind};

/// Seconds after which a store that does not answer may be asked again.
const STORE_RETRY: u32 = 30;
/// Seconds after which the mount may have caught up with earlier changes.
const BUSY_RETRY: u32 = 10;
/// Seconds after which there may be room in staging again.
const FULL_RETRY: u32 = 60;

/// The response to a request that failed: `{"error": code, "message": what happened and what to do}`.
#[derive(Clone, Debug)]
pub struct HttpProblem {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// Seconds after which the client may try again.
    retry_after: Option<u32>,
}

/// What the answering half returns.
pub(super) type Result<T> = std::result::Result<T, HttpProblem>;

/// Why a request's body ended early. The middleware returns it as the body's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More bytes than one request may have.
    #[error("the body is longer than {0} bytes")]
    TooLarge(u64),
    /// More bytes of a form than may come without the start of a part, or than the head of a part may have.
    #[error("a form goes on for {0} bytes without a part")]
    Shapeless(usize),
    /// The client sent less than the least that it must send in the stall time.
    #[error("the body did not come in time")]
    TooSlow,
    /// The token of the request was removed meanwhile, or expired.
    #[error("the token is not known any more")]
    Revoked,
}

/// The JSON body of the response.
#[derive(Serialize)]
struct ProblemBody<'a> {
    error: &'a str,
    message: &'a str,
}

impl HttpProblem {
    /// The same problem, met after a part of the request had been done already: `done` says which.
    #[must_use]
    pub fn after(self, done: &str) -> Self {
        Self { message: format!("{done} Then: {}", self.message), ..self }
    }

    /// Any error; `code` is a word of the API, `message` says what happened and what to do.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: None }
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 403: nothing can be changed, with the reason.
    pub fn read_only(reason: &str) -> Self {
        let text = format!("Nothing can be changed: the vault is read-only ({reason}).");
        Self::new(StatusCode::FORBIDDEN, "read_only", text)
    }

    /// 404: there is no such state of the past (any more).
    pub fn no_state(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_state", message)
    }

    /// 409: nothing was restored, with the reason.
    pub fn not_restored(why: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "not_restored", format!("It was not restored: {why}."))
    }

    /// 409: no snapshot was made or deleted, with the reason.
    pub fn no_snapshot(why: &str) -> Self {
        let text = format!("Nothing was changed: {why}.");
        Self::new(StatusCode::CONFLICT, "no_snapshot", text)
    }

    /// 500: the log says why.
    pub fn internal() -> Self {
        let text = "The vault could not do this; the daemon's log says why.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 409: what is there is of the wrong kind for this request.
    pub(super) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 403: outside the token's scope.
    pub(super) fn out_of_scope() -> Self {
        let text = "This token is good for a part of the vault only, and this is not within it. Name a path, or a prefix \
                    with a slash after it, within that part.";
        Self::new(StatusCode::FORBIDDEN, "out_of_scope", text)
    }

    /// 503, with the number of seconds after which to try again.
    pub fn unavailable(message: impl Into<String>, seconds: u32) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message);
        Self { retry_after: Some(seconds), ..problem }
    }

    /// Adds a `Retry-After`.
    #[must_use]
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The API's word for it.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// Whether it stops every other change, too.
    pub(super) fn is_of_all(&self) -> bool {
        let full = StatusCode::INSUFFICIENT_STORAGE;
        self.code == "read_only" || [StatusCode::SERVICE_UNAVAILABLE, full].contains(&self.status)
    }

    /// A body that ended early: by our limits, because the client went away, or because the body is malformed (then the
    /// parser's message is passed on).
    pub(super) fn of_body(error: &(dyn std::error::Error + 'static)) -> Self {
        match cause::<BodyError>(error) {
            Some(BodyError::TooLarge(limit)) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!(
                    "The body is longer than {limit} bytes, the limit of this service. Nothing was kept."
                ),
            ),
            Some(BodyError::Shapeless(limit)) => Self::bad_request(format!(
                "In {limit} bytes of the form, no part begins, or the head of a part does not end. Nothing \
                 was kept. Is the boundary in the Content-Type the one that the body uses?"
            )),
            Some(BodyError::Revoked) => Self::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "This token was removed, or its time is up. Nothing was kept.",
            ),
            Some(BodyError::TooSlow) => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "too_slow",
                "The body did not come in time. Nothing was kept; send it again.",
            ),
            None => Self::bad_request(format!("The body ended early ({error}). Nothing was kept.")),
        }
    }
}

impl From<vfs::Error> for HttpProblem {
    fn from(error: vfs::Error) -> Self {
        use vfs::Error as E;
        match &error {
            E::NotFound | E::Stale => Self::not_found("There is no such file in the vault."),
            E::Exists => Self::conflict("exists", "There is something of this name already."),
            E::NotDirectory => Self::conflict(
                "not_a_directory",
                "A part of the path is a file or a symlink, so nothing can be in it. Use another path.",
            ),
            E::IsDirectory => {
                Self::conflict("is_a_directory", "There is a directory of this name.")
            }
            E::NotEmpty => Self::conflict(
                "not_empty",
                "The directory is not empty. Delete what is in it first.",
            ),
            E::TooManyLinks => Self::conflict("too_many_links", "The file has too many names."),
            E::Invalid | E::NameTooLong => {
                Self::bad_request("The vault cannot have such a name or path.")
            }
            E::NotPermitted => {
                Self::new(StatusCode::FORBIDDEN, "forbidden", "The vault does not allow this.")
            }
            E::TooBig => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                "The file would be larger than a file can be. Nothing was kept.",
            ),
            E::Unheard => {
                tracing::warn!("a change was refused: the kernel has not heard of those before it");
                Self::unavailable(
                    "The mount of the vault is too busy to be told of changes. Nothing was changed; try again.",
                    BUSY_RETRY,
                )
            }
            _ => Self::of_kind(&error),
        }
    }
}

impl HttpProblem {
    /// Errors that are not the request's fault.
    fn of_kind(error: &vfs::Error) -> Self {
        match error.kind() {
            ErrorKind::ReadOnly(reason) => Self::read_only(&reason),
            ErrorKind::Full => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "full",
                "There is no room for what waits to be uploaded. Nothing was kept; try again when some of it is in the bucket.",
            )
            .retry_after(FULL_RETRY),
            ErrorKind::Store => {
                tracing::warn!(%error, "a request failed: the store");
                Self::unavailable(
                    "The store does not answer, and this is not in the local cache. Nothing is lost; try again later.",
                    STORE_RETRY,
                )
            }
            ErrorKind::Other => {
                tracing::error!(%error, "a request failed");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for HttpProblem {
    fn into_response(self) -> Response {
        let body = ProblemBody { error: self.code, message: &self.message };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_that_the_vault_makes() {
        let status = |error: vfs::Error| HttpProblem::from(error).status().as_u16();
        assert_eq!(status(vfs::Error::NotFound), 404);
        assert_eq!(status(vfs::Error::Stale), 404);
        for error in [vfs::Error::Exists, vfs::Error::NotDirectory, vfs::Error::IsDirectory] {
            assert_eq!(status(error), 409);
        }
        assert_eq!(status(vfs::Error::NameTooLong), 400);
        assert_eq!(status(vfs::Error::TooBig), 413);
        assert_eq!(status(vfs::Error::ReadOnly), 403);
        assert_eq!(status(vfs::Error::NoSpace), 507);
        assert_eq!(status(vfs::Error::BadHandle), 500);
        assert_eq!(status(vfs::Error::Durability(vfs::DurabilityError::Failed("no".into()))), 503);
        assert_eq!(status(vfs::Error::Unheard), 503);
    }

    #[test]
    fn a_limit_is_found_behind_the_errors_of_others() {
        let wrapped = axum::Error::new(axum::Error::new(BodyError::TooLarge(7)));
        assert_eq!(HttpProblem::of_body(&wrapped).status(), StatusCode::PAYLOAD_TOO_LARGE);
        let wrapped = axum::Error::new(BodyError::TooSlow);
        assert_eq!(HttpProblem::of_body(&wrapped).status(), StatusCode::REQUEST_TIMEOUT);
        assert_eq!(
            HttpProblem::of_body(&axum::Error::new("gone")).status(),
            StatusCode::BAD_REQUEST
        );
    }
}
