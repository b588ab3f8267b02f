//! A file's unpublished writes, as callers see and publish them.

use std::sync::Arc;
use tokio::time::Instant;

use super::replaced::Question;
use super::staged_extent::StagedExtent;
use crate::types::{Extent, Timestamp};

/// What became of a write.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Took {
    /// The first bytes are taken: all of them, unless this write alone replaces too many records for one transaction.
    Bytes {
        /// How many bytes.
        count: usize,
        /// The file's unpublished writes have reached a limit: publish them before the reply (V1).
        must_publish: bool,
    },
    /// Nothing is taken: ask the map first.
    Ask(Question),
    /// Nothing is taken: publish what is unpublished first.
    Publish,
}

/// The unpublished writes of a file.
#[derive(Clone, Copy, Debug)]
pub struct Unpublished {
    /// About how many bytes of content.
    pub bytes: u64,
    /// Where the last unpublished piece ends: the file's size is at least this, in bytes.
    pub end: u64,
    /// The time of the last write.
    pub mtime: Option<Timestamp>,
    /// When the oldest of them was made.
    pub since: Instant,
    /// A limit of V1 is reached.
    pub must_publish: bool,
}

/// Everything unpublished of one inode at one moment, sealed and in staging. While this lives, no other publication of
/// the inode is made. After the transaction is appended, give it back to `File::published`; if it is dropped instead,
/// all stays unpublished.
#[must_use]
pub struct Publication {
    /// The pieces by file offset: sorted, disjoint. `extents::publish` turns them into edits.
    pub pieces: Vec<(u64, Extent)>,
    /// The file's size is at least this, in bytes: the end of the last piece; 0 without pieces.
    pub end: u64,
    /// The new mtime (and ctime), if there was a write since the last publication.
    pub mtime: Option<Timestamp>,
    /// The version of the file's buffer when it was sealed.
    pub(super) version: u64,
    /// How many bytes of it are in staging, as the buffer counts them.
    pub(super) staged: u64,
    /// The most published records that it replaces.
    pub(super) replaced: u64,
    pub(super) is_large: bool,
    pub(super) sealed: Instant,
    /// Keeps the packs in staging until the transaction that refers to them is applied (C4).
    pub(super) holds: Vec<Arc<StagedExtent>>,
    pub(super) turn: Option<Turn>,
}

/// A file's publishing turn: while this lives, nobody else publishes or truncates the file.
#[must_use]
pub struct Turn {
    /// Only held, never used.
    _guard: tokio::sync::OwnedMutexGuard<()>,
}

impl Turn {
    pub(super) fn new(guard: tokio::sync::OwnedMutexGuard<()>) -> Self {
        Self { _guard: guard }
    }
}

impl Publication {
    /// Whether it takes so much of a transaction that it should have one of its own.
    pub fn is_large(&self) -> bool {
        self.is_large
    }

    /// Whether nothing was unpublished.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.mtime.is_none()
    }
}
