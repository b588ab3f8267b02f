//! What callers are told of a file's unpublished writes, and what they publish.

use std::sync::Arc;
use tokio::time::Instant;

use super::replaced::Question;
use super::staged_extent::StagedExtent;
use crate::types::{Extent, Timestamp};

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Took {
    /// Its beginning is taken: all of it, unless it alone replaces more than a part of a transaction.
    Bytes {
        /// So many bytes.
        count: usize,
        /// The file's unpublished writes have reached a limit: publish them before the reply (V1).
        must_publish: bool,
    },
    /// Nothing is taken: ask the map first.
    Ask(Question),
    /// Nothing is taken: publish what is unpublished first.
    Publish,
}

/// What of a file is not published yet.
#[derive(Clone, Copy, Debug)]
pub struct Unpublished {
    /// Bytes of content in it, about.
    pub bytes: u64,
    /// Where the last unpublished piece ends: the file's size is at least this, in bytes.
    pub end: u64,
    /// The time of the last write.
    pub mtime: Option<Timestamp>,
    /// When the first of them was written.
    pub since: Instant,
    /// A limit of V1 is reached.
    pub must_publish: bool,
}

/// Everything unpublished of one inode at one moment, sealed and in staging. No other publication of this inode
/// is made while it lives. Either give it back to `File::published` after the transaction was appended, or drop
/// it: then all stays unpublished.
#[must_use]
pub struct Publication {
    /// The pieces by file offset: sorted, disjoint. `extents::publish` makes edits of them.
    pub pieces: Vec<(u64, Extent)>,
    /// The file's size is at least this, in bytes: the end of the last piece; 0 without pieces.
    pub end: u64,
    /// The new mtime (and ctime), if a write came since the last publication.
    pub mtime: Option<Timestamp>,
    /// That of the file's buffer when it was sealed.
    pub(super) version: u64,
    /// Its bytes, as the buffer counts them.
    pub(super) staged: u64,
    /// Published records that it takes the place of, at most.
    pub(super) replaced: u64,
    pub(super) is_large: bool,
    pub(super) sealed: Instant,
    /// The packs stay in staging until the transaction says that it refers to them (C4).
    pub(super) holds: Vec<Arc<StagedExtent>>,
    pub(super) turn: Option<Turn>,
}

/// A file's publishing turn: while it lives, nobody else publishes or cuts the file.
#[must_use]
pub struct Turn {
    /// Only kept.
    _guard: tokio::sync::OwnedMutexGuard<()>,
}

impl Turn {
    pub(super) fn new(guard: tokio::sync::OwnedMutexGuard<()>) -> Self {
        Self { _guard: guard }
    }
}

impl Publication {
    /// Whether it takes so much of a transaction that nothing else should be in it.
    pub fn is_large(&self) -> bool {
        self.is_large
    }

    /// Whether nothing was unpublished.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.mtime.is_none()
    }
}
