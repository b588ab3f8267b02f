//! Who looks at the page.

use axum::extract::Extension;
use axum::http::StatusCode;

use crate::gateway::errors::Result;
use crate::gateway::{Access, HttpProblem, Session};

/// Who asks, as the middleware says.
pub(super) type Who = Option<Extension<Session>>;

/// A request without a session never comes through the middleware.
pub(super) fn session(who: Who) -> Result<Session> {
    let nobody =
        || HttpProblem::new(StatusCode::UNAUTHORIZED, "unauthorized", "Log in first: /login.");
    who.map(|Extension(session)| session).ok_or_else(nobody)
}

/// Whether the page shows what changes anything.
pub(super) fn may_write(session: &Session) -> bool {
    session.access >= Access::Write
}
