//! The contents of one inode, as vfs uses them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::footer::Origin;
use super::open_files::OpenFiles;
use super::publication::{Publication, Took, Turn, Unpublished};
use super::readahead::Readahead;
use super::replaced::Answers;
use super::staging_writer::StagingWriter;
use super::writes::Writes;
use super::{Error, Limits, Overlay, Result};
use crate::types::InodeNo;
use crate::upload::Reservation;

/// The largest file size: the largest `off_t`.
const SIZE_MAX: u64 = i64::MAX as u64;

/// The contents of one inode, shared by all of its handles.
pub struct File {
    ino: InodeNo,
    pub(super) writer: Arc<StagingWriter>,
    files: Arc<OpenFiles<File>>,
    /// One publication at a time: held from `seal` until its transaction is appended.
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<State>,
    /// Memory that the buffers take: `relieve` reads it without the lock.
    charged: AtomicU64,
    pub(super) reads: Readahead,
}

struct State {
    writes: Writes,
    name: Arc<[u8]>,
    /// Whether the table keeps the file alive.
    kept: bool,
}

impl State {
    fn new(limits: &Limits) -> Self {
        Self { writes: Writes::new(limits), name: Arc::default(), kept: false }
    }
}

impl File {
    pub(super) fn new(
        ino: InodeNo,
        writer: Arc<StagingWriter>,
        files: Arc<OpenFiles<File>>,
    ) -> Self {
        let limits = writer.limits;
        Self {
            ino,
            writer,
            files,
            turn: Arc::default(),
            state: Mutex::new(State::new(&limits)),
            charged: AtomicU64::new(0),
            reads: Readahead::default(),
        }
    }

    /// The inode.
    pub fn ino(&self) -> InodeNo {
        self.ino
    }

    /// Notes the name by which the file was opened or created. It is kept in memory, for the footers of packs
    /// (salvage).
    pub fn note_name(&self, name: &[u8]) {
        let mut state = self.state.lock();
        if *state.name != *name {
            state.name = name.into();
        }
    }

    /// Reserves room in staging for a write of `length` bytes. No lock is held while it waits.
    pub async fn room(&self, length: usize) -> Result<Reservation> {
        Ok(self.writer.staging.reserve(length as u64).await?)
    }

    /// Takes bytes into a buffer or the stream: from here on every overlay shows them. Or takes nothing, and says what
    /// the caller must do before it calls again.
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
            writes.take_weighed(&self.writer, who, room, (offset, data), answers)
        })?;
        self.relieve();
        Ok(took)
    }

    /// As `take`, for a file without published records to count: takes all of the bytes. Returns whether the file must
    /// be published.
    #[cfg(test)]
    pub(super) async fn write(&self, offset: u64, data: &[u8]) -> Result<bool> {
        let room = self.room(data.len()).await?;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= SIZE_MAX);
        end.ok_or(Error::TooLarge)?;
        let must_publish = self.change(|writes, who| {
            writes.write(&self.writer, who, room, offset, data)?;
            Ok(writes.must_publish(&self.writer.limits))
        })?;
        self.relieve();
        Ok(must_publish)
    }

    /// The unpublished pieces of a range. Take it *before* reading the index: pieces leave the overlay only after
    /// the index has them.
    pub fn overlay(&self, range: Range<u64>) -> Result<Overlay> {
        self.state.lock().writes.overlay(&self.writer, &range)
    }

    /// The range of which the reader wants the published extents for a read of `range`: that, and what it will read
    /// ahead.
    pub fn window(&self, range: Range<u64>) -> Range<u64> {
        self.reads.window(&range)
    }

    /// The ranges that an overlay of `range` covers, without their bytes (`SEEK_DATA`): sorted, disjoint.
    pub fn ranges(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.state.lock().writes.ranges(range)
    }

    /// What is unpublished, if anything is. Quick: takes only this file's lock.
    pub fn unpublished(&self) -> Option<Unpublished> {
        self.state.lock().writes.unpublished(&self.writer.limits)
    }

    /// Takes the publishing turn alone: for a change of the records that leaves the file's bytes the same.
    pub async fn turn(&self) -> Turn {
        Turn::new(self.turn.clone().lock_owned().await)
    }

    /// Seals all that is unpublished into packs in staging, by `write(2)` (J1), and returns what to publish. Waits only
    /// while another publication of this inode lives. To seal several files, take them in the order of their inode
    /// numbers.
    pub async fn seal(&self) -> Result<Publication> {
        // Two at once might append their transactions in the wrong order, and bring old bytes back.
        let turn = self.turn().await;
        let mut publication = self.change(|writes, who| writes.seal(&self.writer, who))?;
        publication.turn = Some(turn);
        Ok(publication)
    }

    /// The transaction with this publication was appended: its pieces leave the overlay, except for bytes that were
    /// overwritten since.
    pub fn published(&self, publication: Publication) {
        _ = self.change(|writes, _| {
            writes.published(&self.writer, &publication);
            Ok(())
        });
        drop(publication);
    }

    /// As `published`, but keeps the turn: the publication is empty from here on.
    pub fn published_so_far(&self, publication: &mut Publication) {
        _ = self.change(|writes, _| {
            writes.published(&self.writer, publication);
            Ok(())
        });
        publication.pieces.clear();
        publication.holds.clear();
        (publication.end, publication.mtime, publication.is_large) = (0, None, false);
        (publication.staged, publication.replaced) = (0, 0);
    }

    /// The map may have up to `more` records more of the file, after a change that is no publication. Called in the
    /// publishing turn of that change.
    pub fn records_changed(&self, more: u64) {
        _ = self.change(|writes, _| {
            writes.records_changed(more);
            Ok(())
        });
    }

    /// As `published`, for a transaction that also cut the file to `size`: bytes written beyond it since the
    /// publication was sealed are dropped too. The turn is held until the publication is dropped.
    pub fn published_truncated(&self, publication: &Publication, size: u64) {
        _ = self.change(|writes, _| {
            writes.published(&self.writer, publication);
            writes.truncated(&self.writer, size);
            Ok(())
        });
    }

    /// The inode is gone: drops buffers, reservations, holds and an unfinished stream.
    pub fn discard(&self) {
        _ = self.change(|writes, _| {
            writes.discard(&self.writer);
            Ok(())
        });
    }

    /// What the footers of packs say of the file.
    pub(super) fn origin(&self) -> Origin {
        Origin { inode: self.ino, name: self.state.lock().name.clone() }
    }

    /// Changes the unpublished state, and updates what others look at without its lock.
    fn change<T>(&self, change: impl FnOnce(&mut Writes, &Origin) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        let who = Origin { inode: self.ino, name: state.name.clone() };
        let done = change(&mut state.writes, &who);
        self.charged.store(state.writes.charged(), Ordering::Relaxed);
        let (dirty, mut released) = (state.writes.is_dirty(), None);
        if dirty && !state.kept {
            self.files.keep(self.ino);
        } else if !dirty && state.kept {
            released = self.files.release(self.ino);
        }
        state.kept = dirty;
        drop(state);
        drop(released);
        done
    }

    /// Seals the buffers into packs to free their memory; publishes nothing.
    pub(super) fn spill(&self) -> Result<()> {
        self.change(|writes, who| writes.spill(&self.writer, who))
    }

    /// While the buffers of all files exceed their budget, seals those of the files that have most.
    fn relieve(&self) {
        let budget = &self.writer.budget;
        let Some(_turn) = budget.turn_to_relieve() else { return };
        let mut files = self.files.dirty();
        files.sort_by_cached_key(|file| std::cmp::Reverse(file.charged.load(Ordering::Relaxed)));
        for file in files {
            if budget.is_relieved() {
                break;
            }
            if let Err(error) = file.spill() {
                // The file remembers the error, and its own callers get it.
                tracing::error!(ino = %file.ino, %error, "writer buffers early");
            }
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.state.get_mut().writes.discard(&self.writer);
        self.files.forget(self.ino);
    }
}
