//! The unpublished state of one inode. Every function is called under the file's lock.

use std::ops::Range;

use tokio::time::Instant;

use super::footer::Origin;
use super::overlay::Overlay;
use super::publication::{Publication, Took, Unpublished};
use super::replaced::{Answers, Replaced, Weighed};
use super::staging_writer::StagingWriter;
use super::write_buffer::WriteBuffer;
use super::{Error, Limits, Result, in_memory};
use crate::types::{KIB, MIB, Timestamp};
use crate::upload::Reservation;

/// The unpublished state of one inode.
pub(super) struct Writes {
    buffer: WriteBuffer,
    /// Counts the published records that its pieces replace.
    replaced: Replaced,
    /// The time of the last write, and the version that it made.
    mtime: Option<(u64, Timestamp)>,
    /// When the first unpublished write came, if there is one.
    since: Option<Instant>,
    /// Room in staging for the buffers and for the end of the open extent.
    room: Option<Reservation>,
    /// The memory charged to the budget for buffers.
    charged: u64,
    /// Why the way to staging broke: bytes that were taken are lost, so nothing of this file is published any more
    /// (J6).
    broken: Option<String>,
}

impl Writes {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            buffer: WriteBuffer::default(),
            replaced: Replaced::new(limits.records),
            mtime: None,
            since: None,
            room: None,
            charged: 0,
            broken: None,
        }
    }

    /// Takes bytes if one transaction can publish them together with what is unpublished already. Otherwise returns
    /// what the caller has to do first.
    pub(super) fn take_weighed(
        &mut self,
        to: &StagingWriter,
        who: &Origin,
        room: &mut Reservation,
        (offset, data): (u64, &[u8]),
        answers: &Answers,
    ) -> Result<Took> {
        self.check()?;
        // A publication has failed: nothing is added to it before it succeeds.
        if self.is_dirty() && self.must_publish(&to.limits) {
            return Ok(Took::Publish);
        }
        let range = offset..offset + data.len() as u64;
        let end = match self.replaced.take(self.buffer.pieces().count(), range, answers) {
            Weighed::Taken(end) => end,
            Weighed::Ask(question) => return Ok(Took::Ask(question)),
            Weighed::Publish => return Ok(Took::Publish),
        };
        let now = &data[..in_memory(end - offset)];
        self.write(to, who, room.split(now.len() as u64), offset, now)?;
        Ok(Took::Bytes { count: now.len(), must_publish: self.must_publish(&to.limits) })
    }

    /// Takes bytes, written now.
    pub(super) fn write(
        &mut self,
        to: &StagingWriter,
        who: &Origin,
        room: Reservation,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        self.check()?;
        self.keep(room);
        let now = Timestamp::now();
        self.since.get_or_insert_with(Instant::now);
        let taken = self.buffer.write(to, who, offset, data);
        self.mtime = Some((self.buffer.version(), now));
        self.settle(to, taken)
    }

    /// Seals buffers early to free their memory, and the stream too if it takes most of it.
    pub(super) fn spill(&mut self, to: &StagingWriter, who: &Origin) -> Result<()> {
        self.check()?;
        let spilled = self.buffer.spill(to, who);
        self.settle(to, spilled)
    }

    /// Seals everything, and returns what to publish.
    pub(super) fn seal(&mut self, to: &StagingWriter, who: &Origin) -> Result<Publication> {
        self.check()?;
        let sealed = self.buffer.seal(to, who);
        self.settle(to, sealed)?;
        let count = self.buffer.pieces().count();
        let (pieces, holds) = self.buffer.extents();
        Ok(Publication {
            pieces,
            end: self.buffer.pieces().end(),
            mtime: self.mtime.map(|(_, time)| time),
            version: self.buffer.version(),
            staged: self.buffer.staged(),
            is_large: self.replaced.weight(count) > to.limits.records / 4,
            replaced: self.replaced.sealed(),
            sealed: Instant::now(),
            holds,
            turn: None,
        })
    }

    /// The transaction with this publication was appended.
    pub(super) fn published(&mut self, to: &StagingWriter, publication: &Publication) {
        self.buffer.published(publication.version, publication.staged);
        let (sum, is_left) = (publication.replaced, !self.buffer.pieces().is_empty());
        self.replaced.published(sum, &publication.pieces, is_left);
        self.mtime = self.mtime.filter(|(version, _)| *version > publication.version);
        self.since = self.since.map(|since| since.max(publication.sealed));
        _ = self.settle(to, Ok(()));
    }

    /// The map may have up to `more` records more of the file, after a change that is no publication.
    pub(super) fn records_changed(&mut self, more: u64) {
        self.replaced.changed(more, !self.buffer.pieces().is_empty());
    }

    /// The map now has the file cut to `size`.
    pub(super) fn truncated(&mut self, to: &StagingWriter, size: u64) {
        self.buffer.truncate(size);
        self.records_changed(0);
        _ = self.settle(to, Ok(()));
    }

    /// The inode is gone: drops everything.
    pub(super) fn discard(&mut self, to: &StagingWriter) {
        self.buffer.clear();
        self.mtime = None;
        self.records_changed(0);
        _ = self.settle(to, Ok(()));
    }

    /// The pieces of `range`, with their bytes.
    pub(super) fn overlay(&mut self, to: &StagingWriter, range: &Range<u64>) -> Result<Overlay> {
        self.buffer.overlay(to, range)
    }

    /// The pieces of `range`, without their bytes.
    pub(super) fn ranges(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.buffer.ranges(range)
    }

    pub(super) fn unpublished(&self, limits: &Limits) -> Option<Unpublished> {
        let since = self.since?;
        let mtime = self.mtime.map(|(_, time)| time);
        Some(Unpublished {
            bytes: self.buffer.length(),
            end: self.buffer.pieces().end(),
            mtime,
            since,
            must_publish: self.must_publish(limits),
        })
    }

    /// Whether so much is unpublished that it must be published (V1).
    pub(super) fn must_publish(&self, limits: &Limits) -> bool {
        self.buffer.length() >= limits.unpublished
            || self.replaced.weight(self.buffer.pieces().count()) >= limits.records
    }

    /// Whether anything is unpublished.
    pub(super) fn is_dirty(&self) -> bool {
        self.since.is_some()
    }

    /// About how much memory it takes.
    pub(super) fn charged(&self) -> u64 {
        self.charged
    }

    fn check(&self) -> Result<()> {
        match &self.broken {
            Some(reason) => Err(Error::broken(reason)),
            None => Ok(()),
        }
    }

    fn keep(&mut self, room: Reservation) {
        match &mut self.room {
            Some(mine) => mine.absorb(room),
            none => *none = Some(room),
        }
    }

    /// Call after every change: brings the memory charged and the room reserved in staging down to what is needed. A
    /// failure on the way to staging breaks the file: nothing of it can be sealed any more, nor does staging take more.
    fn settle(&mut self, to: &StagingWriter, done: Result<()>) -> Result<()> {
        if let Err(error) = &done {
            self.broken = Some(error.to_string());
        }
        let charge = self.buffer.memory();
        to.budget.charge(self.charged, charge);
        self.charged = charge;
        self.release_room();
        if self.buffer.pieces().is_empty() && self.mtime.is_none() {
            self.since = None;
        }
        done
    }

    /// Gives back room that was reserved for bytes that are in staging by now.
    fn release_room(&mut self) {
        let Some(needed) = self.buffer.room_needed() else {
            self.room = None;
            return;
        };
        // In steps of more than 1 MiB, as each costs a lock.
        if let Some(room) = &mut self.room
            && let Some(excess) = room.bytes().checked_sub(needed).filter(|excess| *excess > MIB)
        {
            drop(room.split(excess / 9 * 8 - KIB));
        }
    }
}
