//! One inode's contents: the door that vfs uses.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::reader::PerFile;
use super::{Overlay, Result};
use crate::types::{Extent, InodeNo, Reference, Timestamp};
use crate::upload::{PackHold, Reservation};

/// A sealed message that an unpublished write refers to; its pack stays in staging as long as this lives (C4).
#[derive(Debug)]
pub struct Message {
    pub(super) reference: Reference,
    pub(super) hold: PackHold,
}

/// The contents of one inode, shared by all of its handles.
pub struct File {
    ino: InodeNo,
    #[allow(dead_code, reason = "read-ahead is being built")]
    pub(super) reads: PerFile,
}

/// What a write asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// Nothing.
    Buffered,
    /// The file's unpublished writes have reached a limit: publish them before the reply (V1).
    Publish,
}

/// What of a file is not published yet.
#[derive(Clone, Copy, Debug)]
pub struct Unpublished {
    /// Where the last unpublished piece ends: the file's size is at least this, in bytes.
    pub end: u64,
    /// The time of the last write; `None` when only a background rewrite is unpublished.
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
    pub(super) version: u64,
    pub(super) holds: Vec<Arc<Message>>,
    pub(super) turn: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Publication {
    /// Nothing was unpublished.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.mtime.is_none()
    }
}

impl File {
    /// The inode.
    pub fn ino(&self) -> InodeNo {
        self.ino
    }

    /// The name by which it was opened or made, for the footers of packs (salvage); kept in memory only.
    pub fn note_name(&self, _name: &[u8]) {
        todo!()
    }

    /// `room`, then `write_in`. Ready at the first poll unless staging is full: then it waits (backpressure), and
    /// fails with `Full` at staging's deadline. Hold no lock that a publication of this file needs meanwhile.
    pub async fn write(&self, offset: u64, data: &[u8]) -> Result<Written> {
        let room = self.room(data.len()).await?;
        self.write_in(room, offset, data)
    }

    /// Reserves room in staging for a write of `length` bytes. No lock is held while it waits.
    pub async fn room(&self, _length: usize) -> Result<Reservation> {
        todo!()
    }

    /// Takes the bytes: into a buffer, or the stream. Seen by every overlay from here on.
    pub fn write_in(&self, _room: Reservation, _offset: u64, _data: &[u8]) -> Result<Written> {
        todo!()
    }

    /// The unpublished pieces of a range. Take it *before* reading the index: pieces leave the overlay only after
    /// the index has them.
    pub fn overlay(&self, _range: Range<u64>) -> Result<Overlay> {
        todo!()
    }

    /// What is unpublished, if anything is. Quick: one lock of this file's.
    pub fn unpublished(&self) -> Option<Unpublished> {
        todo!()
    }

    /// Seals all that is unpublished into packs in staging, by `write(2)` (J1), and says what to publish. Waits
    /// only while another publication of this inode lives; of several files, seal in the order of their numbers.
    pub async fn seal(&self) -> Result<Publication> {
        todo!()
    }

    /// The transaction with this publication was appended: its pieces leave the overlay, those that were
    /// overwritten since stay.
    pub fn published(&self, _publication: Publication) {
        todo!()
    }

    /// As `published`, when the same transaction cut the file to `size`: what was written beyond it since the
    /// publication was sealed goes too.
    pub fn published_truncated(&self, _publication: Publication, _size: u64) {
        todo!()
    }

    /// The inode is gone: buffers, reservations, holds and an unfinished stream are dropped.
    pub fn discard(&self) {
        todo!()
    }

    /// The background rewrite of a fragmented window (`extents::fragmented`): `data` was read with an overlay of
    /// this `version` and is put in as if written, without a new mtime. `false`, and nothing done, if the file was
    /// written since. The caller publishes, and lets nothing else change the file's records meanwhile.
    pub fn rewrite(
        &self,
        _room: Reservation,
        _offset: u64,
        _data: &[u8],
        _version: u64,
    ) -> Result<bool> {
        todo!()
    }
}
