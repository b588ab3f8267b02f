//! What the visitor of the page may do.

use crate::gateway::errors::Result;
use crate::gateway::s3_key::S3Key;
use crate::gateway::{Access, HttpProblem, Session};

/// Whether the page offers changes.
pub(super) fn may_write(session: &Session) -> bool {
    session.access >= Access::Write
}

impl Session {
    /// Refuses a path outside the token's scope. The gate has checked the URL, but not the paths in a form's body.
    pub(super) fn check(&self, key: &S3Key) -> Result<()> {
        if self.may_see(key) { Ok(()) } else { Err(HttpProblem::out_of_scope()) }
    }

    /// The part of the vault that the token is limited to; `None`: all of it.
    pub(super) fn limit(&self) -> Option<S3Key> {
        self.only.as_ref().map(|scope| scope.key().clone())
    }
}
