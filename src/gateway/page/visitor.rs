//! Who looks at the page.

use crate::gateway::errors::Result;
use crate::gateway::s3_key::S3Key;
use crate::gateway::{Access, HttpProblem, Session};

/// Whether the page shows what changes anything.
pub(super) fn may_write(session: &Session) -> bool {
    session.access >= Access::Write
}

impl Session {
    /// Refuses a path beyond what their token is good for: what a form's body names, the gate has not seen.
    pub(super) fn check(&self, key: &S3Key) -> Result<()> {
        if self.may_see(key) { Ok(()) } else { Err(HttpProblem::out_of_scope()) }
    }

    /// What alone it is good for, if that is not the whole vault.
    pub(super) fn limit(&self) -> Option<S3Key> {
        self.only.as_ref().map(|scope| scope.key().clone())
    }
}
