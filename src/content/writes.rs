//! What of one inode is not published yet. Every function is called under the file's lock.

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
    /// The published records that its pieces take the place of.
    replaced: Replaced,
    /// When it was last written, and at which version.
    mtime: Option<(u64, Timestamp)>,
    /// When the first unpublished write came.
    since: Option<Instant>,
    /// Room in staging for what is in buffers and for the open extent's end.
    room: Option<Reservation>,
    /// What it takes of the memory for buffers.
    charged: u64,
    /// The stream broke: bytes that were taken are lost, so nothing of this file is published any more (J6).
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

    /// Takes bytes if one transaction can publish them with what is unpublished already; else says what the caller
    /// does first.
    pub(super) fn take_weighed(
        &mut self,
        to: &StagingWriter,
        who: &Origin,
        room: &mut Reservation,
        (offset, data): (u64, &[u8]),
        answers: &Answers,
    ) -> Result<Took> {
        self.check()?;
        // A publication that failed: what it could not take does not grow.
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

    /// Seals buffers early, to give their memory back; the stream too where it takes most of it.
    pub(super) fn spill(&mut self, to: &StagingWriter, who: &Origin) -> Result<()> {
        self.check()?;
        let spilled = self.buffer.spill(to, who);
        self.settle(to, spilled)
    }

    /// Seals everything, and says what to publish.
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

    /// The map may have so many more records of the file, by a change that is no publication.
    pub(super) fn records_changed(&mut self, more: u64) {
        self.replaced.changed(more, !self.buffer.pieces().is_empty());
    }

    /// The file was cut to `size` in the map.
    pub(super) fn truncated(&mut self, to: &StagingWriter, size: u64) {
        self.buffer.truncate(size);
        self.records_changed(0);
        _ = self.settle(to, Ok(()));
    }

    /// Nothing of it is wanted any more.
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

    /// V1: too much of it is unpublished.
    pub(super) fn must_publish(&self, limits: &Limits) -> bool {
        self.buffer.length() >= limits.unpublished
            || self.replaced.weight(self.buffer.pieces().count()) >= limits.records
    }

    /// Whether anything is unpublished.
    pub(super) fn is_dirty(&self) -> bool {
        self.since.is_some()
    }

    /// Memory that it takes, about.
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

    /// After every change: brings what is charged of memory, and reserved in staging, down to what is needed. A failure
    /// on the way to staging breaks the stream: nothing of the file can be sealed any more, nor does staging take more.
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

    /// Gives back what was reserved for what is in staging now.
    fn release_room(&mut self) {
        let Some(needed) = self.buffer.room_needed() else {
            self.room = None;
            return;
        };
        // In steps: each costs a lock.
        if let Some(room) = &mut self.room
            && let Some(excess) = room.bytes().checked_sub(needed).filter(|excess| *excess > MIB)
        {
            drop(room.split(excess / 9 * 8 - KIB));
        }
    }
}
