//! Errors of reading and writing the bytes of files.

/// Why a read, a write or a seal failed. None of these loses bytes that were written before: they stay in the file's
/// buffers, or in staging, until they are published or discarded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Staging refuses: it is full (ENOSPC), poisoned (EIO, J6), or the local disk failed.
    #[error(transparent)]
    Staging(#[from] crate::upload::Error),
    /// The bucket does not answer, or does not have it (EIO).
    #[error(transparent)]
    Cache(#[from] crate::cache::Error),
    /// A message does not open, or is not the one that the reference means (EIO).
    #[error("extent {extent} does not open")]
    Seal {
        /// The extent.
        extent: crate::types::ExtentId,
    },
    /// A record of the map is unusable: its bounds are impossible, or its codec or key is unknown (EIO).
    #[error("the map's record of extent {extent} is unusable: {reason}")]
    BadExtent {
        /// The extent.
        extent: crate::types::ExtentId,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Sealed bytes in staging are shorter than what was appended (EIO).
    #[error("pack {0} in staging lacks bytes that were written to it")]
    Staged(crate::types::PackId),
    /// The pack was dropped unsent, because nothing refers to it any more: the extents that were read are old. Look
    /// again.
    #[error("what pack {0} held was removed meanwhile")]
    Removed(crate::types::PackId),
    /// The range ends beyond what a file can have (EFBIG).
    #[error("beyond the largest file")]
    TooLarge,
    /// No reply within the deadline of a read (EIO).
    #[error("no answer within the deadline")]
    Deadline,
}

/// The result of functions of this module.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The file's stream failed, and bytes that were taken are lost with it (J6).
    pub(super) fn broken(reason: &str) -> Self {
        Self::Staging(crate::upload::Error::Poisoned(reason.to_owned()))
    }

    /// Whether the store does not answer, rather than something being broken or missing.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Cache(error) => error.is_transient(),
            Self::Deadline => true,
            _ => false,
        }
    }

    /// There is no room in staging, and it was not waited for.
    pub fn full() -> Self {
        Self::Staging(crate::upload::Error::Full)
    }

    /// Whether there is no room in staging (ENOSPC), rather than something broken.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Staging(crate::upload::Error::Full))
    }
}
