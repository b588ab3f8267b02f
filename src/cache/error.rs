//! What goes wrong with a fetch.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::store;

/// An error of the cache. Cheap to clone: all who wait for a range get the same one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The bucket did not answer, or not as it must.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The cache's directory cannot be used.
    #[error("the cache directory {path}")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// Why.
        #[source]
        cause: Arc<io::Error>,
    },
    /// The object has fewer bytes than the range that was asked for.
    #[error("{object} has {length} bytes, of which {}..{} were asked for", range.start, range.end)]
    Short {
        /// The object's name.
        object: String,
        /// The object's length in bytes.
        length: u64,
        /// The range in bytes.
        range: Range<u64>,
    },
    /// An earlier request waited for a whole deadline in vain, and nothing has come since. So this caller did not
    /// wait as long.
    #[error("the store has not answered for a while")]
    Down,
    /// The task that fetched it ended without an answer (the daemon is stopping).
    #[error("the fetch was stopped")]
    Stopped,
}

impl Error {
    /// Whether the same may work later, rather than something being broken or missing.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::Down | Self::Stopped => true,
            Self::Directory { .. } | Self::Short { .. } => false,
        }
    }

    /// Whether asking again at once is pointless.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Store(cause) if !cause.is_transient())
    }

    /// Whether the bucket has no such object.
    #[cfg(test)]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Store(store::Error::NotFound { .. }))
    }
}

/// Results of the cache.
pub type Result<T> = std::result::Result<T, Error>;
