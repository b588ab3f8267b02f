//! What can go wrong in the index.

use crate::{checkpoint, log, records};

/// Shorthand for this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the index, with its cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A page of the base is not here. The view remembers which one; [`super::Index::read`] fetches it and runs the
    /// closure again, so callers never see this error.
    #[error("a page of the map is not here")]
    Miss,
    /// The mount was asked to be read-only, or something made it read-only.
    #[error("the vault is read-only: {0}")]
    ReadOnly(String),
    /// sled failed, or a record in it does not open: the index has to be made anew.
    #[error("the local index is damaged ({0}); it is made anew at the next mount, nothing is lost")]
    Damaged(String),
    /// The journal refused the change, or holds something that is no record.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// A page of the base could not be fetched.
    #[error(transparent)]
    Base(#[from] checkpoint::Error),
}

impl Error {
    /// Whether the only trouble is that the disk has no room (J8).
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Log(log::Error::Full))
    }

    /// Whether a change was refused because a pack that it refers to is gone, or about to be (J3, K5). Nothing happened.
    pub fn is_about_a_gone_pack(&self) -> bool {
        matches!(self, Self::Log(log::Error::Removed(_)))
    }

    /// Whether the store does not answer, rather than something being broken or missing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Log(error) => error.is_transient(),
            Self::Base(error) => error.is_transient(),
            Self::Miss | Self::ReadOnly(_) | Self::Damaged(_) => false,
        }
    }
}

impl From<records::Error> for Error {
    fn from(error: records::Error) -> Self {
        Self::Log(error.into())
    }
}

impl From<sled::Error> for Error {
    fn from(error: sled::Error) -> Self {
        Self::Damaged(error.to_string())
    }
}
