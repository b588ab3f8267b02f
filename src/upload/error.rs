//! What goes wrong between this machine's disk and the bucket.

use std::io;

use crate::types::PackId;

/// Why staging, barrier or uploader refuse. None of these loses anything that was accepted before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Until the deadline there was no room in staging, or less than the floor free on its disk
    /// (ENOSPC).
    #[error("no room for more: the staging area is full (uploads do not keep up), or the disk is")]
    Full,
    /// An earlier write or fsync failed: no more changes until reopened (J6; EIO).
    #[error("stopped after a failure of the local disk: {0}")]
    Poisoned(String),
    /// The local disk failed.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// A transaction refers to a pack that was dropped because nothing referred to it.
    #[error("pack {0} is gone: nothing referred to it")]
    Gone(PackId),
    /// A staged pack ends before the range asked for.
    #[error("staged pack {pack} ends at {length}, {wanted} bytes were asked for")]
    Short {
        /// The pack.
        pack: PackId,
        /// Its length in staging, in bytes.
        length: u64,
        /// Where the range asked for ends.
        wanted: u64,
    },
    /// Another writer has taken over (W3).
    #[error("another machine has taken over this vault")]
    Fenced,
    /// The deadline passed before everything was in the bucket.
    #[error("not yet in the bucket: {missing}")]
    Unfinished {
        /// What is missing, and what the store last said.
        missing: String,
    },
    /// The uploader was stopped.
    #[error("the uploader was stopped")]
    Stopped,
}

impl Error {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// What this room's functions return.
pub type Result<T> = std::result::Result<T, Error>;
