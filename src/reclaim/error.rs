//! What can go wrong with a deletion. In any case, only what nothing needs is gone.

use crate::{checkpoint, index, log, records, store, upload};

/// Shorthand for this room.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a deletion ended early. The next one finds what this one left.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no checkpoint since this writer's claim, or the index does not lie over the newest one (J9: the disk had
    /// no room for the move, or another one was just made).
    #[error("there is no new checkpoint to judge by; nothing was deleted, and it is tried again")]
    OldBase,
    /// Snapshots were made or ended meanwhile, or the retention was changed, several times.
    #[error(
        "snapshots or the retention changed while old objects were looked for; what was not deleted goes next time"
    )]
    PromisesChanged,
    /// Somebody waits for a run, and nobody waits for this one.
    #[error("old objects are looked for later, as somebody asks for it now")]
    Wanted,
    /// The index: a change or a look-up failed.
    #[error(transparent)]
    Index(#[from] index::Error),
    /// The log, the manifests, or the store.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// What must be in the bucket first is not there yet.
    #[error(transparent)]
    Upload(#[from] upload::Error),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        Self::Checkpoint(error.into())
    }
}

impl From<log::Error> for Error {
    fn from(error: log::Error) -> Self {
        Self::Checkpoint(error.into())
    }
}

impl From<records::Error> for Error {
    fn from(error: records::Error) -> Self {
        Self::Checkpoint(error.into())
    }
}
