//! What can go wrong with a checkpoint.

use crate::{cache, crypto, log, records, store};

/// Shorthand for this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the checkpoints, with its cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A page, a manifest or a commit is not what it must be, or the store failed.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// A page could not be fetched.
    #[error(transparent)]
    Cache(#[from] cache::Error),
}

impl Error {
    /// Whether the store does not answer, rather than something being broken or missing.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Log(error) => error.is_transient(),
            Self::Cache(error) => error.is_transient(),
        }
    }

    /// An object or record that opens but is not what it must be.
    pub(super) fn malformed(what: impl Into<String>, why: impl ToString) -> Self {
        log::Error::malformed(what, why).into()
    }

    /// A seal that does not open.
    pub(super) fn seal(what: impl Into<String>) -> impl FnOnce(crypto::Error) -> Self {
        let of_log = log::Error::seal(what);
        move |source| of_log(source).into()
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Log(error.into())
    }
}

impl From<records::Error> for Error {
    fn from(error: records::Error) -> Self {
        Self::Log(error.into())
    }
}

impl log::DamageError for Error {
    fn is_damage(&self) -> bool {
        matches!(self, Self::Log(error) if error.is_damage())
    }
}
