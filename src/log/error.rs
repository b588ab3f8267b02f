//! What can go wrong in the log.

use std::io;

use crate::types::{CommitNo, PackId};
use crate::{crypto, records, store};

/// Shorthand for this module.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the journal or the commits, with its cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that open but are not what they must be.
    #[error(transparent)]
    Records(#[from] records::Error),
    /// A seal that does not open: changed, swapped, truncated, or of another vault.
    #[error("{what} does not open with this vault's key: it was changed or is not its own")]
    Seal {
        /// Which object or record.
        what: String,
        /// The cause.
        #[source]
        source: crypto::Error,
    },
    /// A number below the head that the bucket does not have.
    #[error("commit {missing} is missing from the log, though commit {head} is there")]
    Gap {
        /// The number that is missing.
        missing: CommitNo,
        /// The highest number in the log.
        head: CommitNo,
    },
    /// Objects above the end of the log that do not open. Nobody with the key put them there in this form, so they say
    /// nothing about who writes (C2), but they block the next commit.
    #[error(
        "{object} does not open with this vault's key, and no commit of this vault comes after it: it was put there by \
         someone without the key, or damaged in the bucket. Delete it from the bucket to go on without it{}",
        if *more > 0 { format!(" ({more} more come after it)") } else { String::new() }
    )]
    Stranger {
        /// The first of them.
        object: String,
        /// How many more are listed after it.
        more: usize,
    },
    /// A commit that does not continue the one before it.
    #[error("commit {number} does not continue the commit before it: the log was tampered with")]
    Fork {
        /// The number of the commit that does not fit.
        number: CommitNo,
    },
    /// A local file of the journal could not be written or read.
    #[error("{what}")]
    Io {
        /// What was attempted.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The journal has no room, on the disk or in the budget (ENOSPC): nothing was written (J8).
    #[error("there is no room for changes that are not in the bucket yet")]
    Full,
    /// An earlier write or fsync of the journal or of staging failed (rule J6).
    #[error("no more changes until the vault is mounted again: {0}")]
    Poisoned(String),
    /// The journal is damaged before its last barrier (rule J3).
    #[error(
        "the journal is damaged in segment {segment:016x} at byte {offset}, before its last barrier"
    )]
    Damaged {
        /// The segment.
        segment: u64,
        /// The offset of the first bad record in it.
        offset: u64,
    },
    /// A change refers to a pack that was removed because nothing had referred to it (K5).
    #[error("a change refers to pack {0}, which was removed")]
    Removed(PackId),
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// Whether the store cannot be reached, rather than something being broken or missing.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            _ => false,
        }
    }

    /// Whether bytes are not what they must be. They may have changed on the way.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Records(records::Error::Malformed { .. }) | Self::Seal { .. } => true,
            Self::Store(error) => matches!(error, store::Error::Corrupt { .. }),
            _ => false,
        }
    }

    /// An object or record that opens but is not what it must be.
    pub fn malformed(what: impl Into<String>, why: impl ToString) -> Self {
        records::Error::malformed(what, why).into()
    }

    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// A seal that does not open.
    pub fn seal(what: impl Into<String>) -> impl FnOnce(crypto::Error) -> Self {
        let what = what.into();
        move |source| Self::Seal { what, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_is_too_large_is_no_damage() {
        assert!(!Error::from(records::Error::TooLarge(1)).is_damage());
        assert!(Error::malformed("a page", "cut").is_damage());
    }
}
