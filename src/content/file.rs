//! One inode's contents: the door that vfs uses.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::packer::Origin;
use super::readahead::PerFile;
use super::replaced::{Answers, Question};
use super::table::Table;
use super::writes::{Sealing, Writes};
use super::{Error, Limits, Overlay, Result};
use crate::types::{Extent, InodeNo, Reference, Timestamp};
use crate::upload::{PackHold, Reservation};

/// The largest file: what an `off_t` can hold.
const SIZE_MAX: u64 = i64::MAX as u64;

/// A sealed message that an unpublished write refers to; its pack stays in staging as long as this lives (C4).
#[derive(Debug)]
pub struct Message {
    pub(super) reference: Reference,
    /// Only kept.
    pub(super) _hold: PackHold,
}

/// The contents of one inode, shared by all of its handles.
pub struct File {
    ino: InodeNo,
    pub(super) sealing: Arc<Sealing>,
    table: Arc<Table>,
    /// One publication at a time: held from `seal` until its transaction was appended.
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
    /// What the eviction of buffers looks at without the lock: memory that the buffers take.
    charged: AtomicU64,
    pub(super) reads: PerFile,
}

struct State {
    writes: Writes,
    name: Arc<[u8]>,
    /// Whether the table keeps the file.
    kept: bool,
}

impl State {
    fn new(limits: &Limits) -> Self {
        Self { writes: Writes::new(limits), name: Arc::default(), kept: false }
    }
}

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
    pub(super) version: u64,
    pub(super) staged: u64,
    /// Published records that it takes the place of, at most.
    pub(super) replaced: u64,
    pub(super) is_large: bool,
    pub(super) sealed: Instant,
    /// The packs stay in staging until the transaction says that it refers to them (C4).
    pub(super) holds: Vec<Arc<Message>>,
    pub(super) turn: Option<Turn>,
}

/// A file's publishing turn: while it lives, nobody else publishes or cuts the file.
#[must_use]
pub struct Turn {
    /// Only kept.
    _guard: tokio::sync::OwnedMutexGuard<()>,
}

impl Publication {
    /// It takes so much of a transaction that nothing else should be in it.
    pub fn is_large(&self) -> bool {
        self.is_large
    }

    /// Nothing was unpublished.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.mtime.is_none()
    }
}

impl File {
    pub(super) fn new(ino: InodeNo, sealing: Arc<Sealing>, table: Arc<Table>) -> Self {
        let limits = sealing.limits;
        Self {
            ino,
            sealing,
            table,
            turn: Arc::default(),
            state: Mutex::new(State::new(&limits)),
            charged: AtomicU64::new(0),
            reads: PerFile::default(),
        }
    }

    /// The inode.
    pub fn ino(&self) -> InodeNo {
        self.ino
    }

    /// The name by which it was opened or made, for the footers of packs (salvage); kept in memory only.
    pub fn note_name(&self, name: &[u8]) {
        let mut state = self.state.lock();
        if *state.name != *name {
            state.name = name.into();
        }
    }

    /// Reserves room in staging for a write of `length` bytes. No lock is held while it waits.
    pub async fn room(&self, length: usize) -> Result<Reservation> {
        Ok(self.sealing.staging.reserve(length as u64).await?)
    }

    /// Takes bytes: into a buffer, or the stream; seen by every overlay from here on. Or says what must come first: then
    /// nothing is taken, and the caller does that and comes again.
    pub fn take(
        &self,
        room: &mut Reservation,
        offset: u64,
        data: &[u8],
        answers: &Answers,
    ) -> Result<Took> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= SIZE_MAX);
        end.ok_or(Error::TooLarge)?;
        if data.is_empty() {
            return Ok(Took::Bytes { count: 0, must_publish: false });
        }
        let took = self.change(|writes, who| {
            writes.take_weighed(&self.sealing, who, room, (offset, data), answers)
        })?;
        self.relieve();
        Ok(took)
    }

    /// Takes all of the bytes, of a file whose published records do not count; whether it must be published.
    #[cfg(test)]
    pub(super) async fn write(&self, offset: u64, data: &[u8]) -> Result<bool> {
        let room = self.room(data.len()).await?;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= SIZE_MAX);
        end.ok_or(Error::TooLarge)?;
        let must_publish = self.change(|writes, who| {
            writes.write(&self.sealing, who, room, offset, data)?;
            Ok(writes.must_publish(&self.sealing.limits))
        })?;
        self.relieve();
        Ok(must_publish)
    }

    /// The unpublished pieces of a range. Take it *before* reading the index: pieces leave the overlay only after
    /// the index has them.
    pub fn overlay(&self, range: Range<u64>) -> Result<Overlay> {
        self.state.lock().writes.overlay(&self.sealing, &range)
    }

    /// Which ranges an overlay of `range` has, without their bytes (`SEEK_DATA`): sorted, disjoint.
    pub fn ranges(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.state.lock().writes.ranges(range)
    }

    /// What is unpublished, if anything is. Quick: one lock of this file's.
    pub fn unpublished(&self) -> Option<Unpublished> {
        self.state.lock().writes.unpublished(&self.sealing.limits)
    }

    /// The publishing turn alone: for a change of the records that shows no other bytes.
    pub async fn turn(&self) -> Turn {
        Turn { _guard: self.turn.clone().lock_owned().await }
    }

    /// Seals all that is unpublished into packs in staging, by `write(2)` (J1), and says what to publish. Waits
    /// only while another publication of this inode lives; of several files, seal in the order of their numbers.
    pub async fn seal(&self) -> Result<Publication> {
        // Two at once could append their transactions the other way round, and bring old bytes back.
        let turn = self.turn().await;
        let mut publication = self.change(|writes, who| writes.seal(&self.sealing, who))?;
        publication.turn = Some(turn);
        Ok(publication)
    }

    /// The transaction with this publication was appended: its pieces leave the overlay, those that were
    /// overwritten since stay.
    pub fn published(&self, publication: Publication) {
        _ = self.change(|writes, _| {
            writes.published(&self.sealing, &publication);
            Ok(())
        });
        drop(publication);
    }

    /// As `published`, and the turn is kept: the publication is empty from here on.
    pub fn published_so_far(&self, publication: &mut Publication) {
        _ = self.change(|writes, _| {
            writes.published(&self.sealing, publication);
            Ok(())
        });
        publication.pieces.clear();
        publication.holds.clear();
        (publication.end, publication.mtime, publication.is_large) = (0, None, false);
        (publication.staged, publication.replaced) = (0, 0);
    }

    /// The map has up to so many more records of the file, by a change that is no publication. Said in the turn in which
    /// it was made.
    pub fn records_changed(&self, more: u64) {
        _ = self.change(|writes, _| {
            writes.records_changed(more);
            Ok(())
        });
    }

    /// As `published`, when the same transaction cut the file to `size`: what was written beyond it since the
    /// publication was sealed goes too. The turn goes on until the publication is dropped.
    pub fn published_truncated(&self, publication: &Publication, size: u64) {
        _ = self.change(|writes, _| {
            writes.published(&self.sealing, publication);
            writes.truncated(&self.sealing, size);
            Ok(())
        });
    }

    /// The inode is gone: buffers, reservations, holds and an unfinished stream are dropped.
    pub fn discard(&self) {
        _ = self.change(|writes, _| {
            writes.discard(&self.sealing);
            Ok(())
        });
    }

    /// Who this is, for the footers of packs.
    pub(super) fn origin(&self) -> Origin {
        Origin { inode: self.ino, name: self.state.lock().name.clone() }
    }

    /// Changes the unpublished state, and keeps what others look at without its lock in step.
    fn change<T>(&self, change: impl FnOnce(&mut Writes, &Origin) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        let who = Origin { inode: self.ino, name: state.name.clone() };
        let done = change(&mut state.writes, &who);
        self.charged.store(state.writes.charged(), Ordering::Relaxed);
        let (dirty, mut released) = (state.writes.is_dirty(), None);
        if dirty && !state.kept {
            self.table.keep(self.ino);
        } else if !dirty && state.kept {
            released = self.table.release(self.ino);
        }
        state.kept = dirty;
        drop(state);
        drop(released);
        done
    }

    /// Seals the buffers into packs, to give their memory back; nothing is published.
    pub(super) fn spill(&self) -> Result<()> {
        self.change(|writes, who| writes.spill(&self.sealing, who))
    }

    /// Where the budget for buffers is exceeded, the largest are sealed until it is not.
    fn relieve(&self) {
        let budget = &self.sealing.budget;
        let Some(_turn) = budget.turn_to_relieve() else { return };
        let mut files = self.table.dirty();
        files.sort_by_cached_key(|file| std::cmp::Reverse(file.charged.load(Ordering::Relaxed)));
        for file in files {
            if budget.is_relieved() {
                break;
            }
            if let Err(error) = file.spill() {
                // The file knows, and answers so to its own callers.
                tracing::error!(ino = %file.ino, %error, "sealing buffers early");
            }
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.state.get_mut().writes.discard(&self.sealing);
        self.table.forget(self.ino);
    }
}
