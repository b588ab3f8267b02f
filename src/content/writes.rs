//! What of one inode is not published yet. Every function is called under the file's lock.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::budget::Budget;
use super::file::{Message, Publication, Took, Unpublished};
use super::overlay::{Overlay, OverlayPiece, Source};
use super::packer::{Origin, Packer};
use super::pieces::{Data, Piece, Pieces};
use super::replaced::{Answers, Replaced, Weighed};
use super::stream::{OpenExtent, seal_alone};
use super::{Error, Limits, Result};
use crate::crypto::Keys;
use crate::types::{EXTENT_MAX, Extent, KIB, MIB, Timestamp};
use crate::upload::{Reservation, Staging};

/// Up to here a file is only a buffer; what runs on beyond it streams (`DESIGN.md`, "In the bucket").
pub(super) const STREAM_MIN: u64 = MIB;
/// A stream that was not written to is ended when this much was written elsewhere in the file, so that there can be
/// another.
const STREAM_PATIENCE: u64 = 4 * MIB;
/// Memory of a piece beside its bytes.
const PIECE_MEMORY: u64 = 128;

/// What files need to seal.
pub(super) struct Sealing {
    pub keys: Keys,
    pub staging: Staging,
    pub packer: Packer,
    pub budget: Budget,
    pub limits: Limits,
}

impl Sealing {
    /// Seals up to `EXTENT_MAX` bytes that are in memory as one extent: into the shared pack, or, where they would have
    /// been a stream if they had come in order, into one of their own.
    pub(super) fn seal(
        &self,
        who: &Origin,
        offset: u64,
        parts: &[&[u8]],
        length: u64,
    ) -> Result<Arc<Message>> {
        if length <= STREAM_MIN {
            Ok(Arc::new(self.packer.add(who, offset, parts)?))
        } else {
            seal_alone(&self.keys, &self.staging, who, offset, parts)
        }
    }
}

/// The stream of a file.
struct Stream {
    extent: OpenExtent,
    /// Bytes written elsewhere since it was last written to.
    elsewhere: u64,
}

/// The unpublished state of one inode.
pub(super) struct Writes {
    pieces: Pieces,
    /// The published records that they take the place of.
    replaced: Replaced,
    stream: Option<Stream>,
    /// Counts every change, so that what a publication holds can be told from what came after it.
    version: u64,
    /// When it was last written, and at which version.
    mtime: Option<(u64, Timestamp)>,
    since: Option<Instant>,
    /// Plaintext bytes in staging, or streaming there, that no transaction refers to yet.
    staged: u64,
    /// Room in staging for what is in buffers and for the open extent's end.
    room: Option<Reservation>,
    charged: u64,
    /// The stream broke: bytes that were taken are lost, so nothing of this file is published any more (J6).
    broken: Option<String>,
}

impl Writes {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            pieces: Pieces::default(),
            replaced: Replaced::new(limits.records),
            stream: None,
            version: 0,
            mtime: None,
            since: None,
            staged: 0,
            room: None,
            charged: 0,
            broken: None,
        }
    }

    /// Takes bytes if one transaction can publish them with what is unpublished already, or says what is to be done
    /// before.
    pub(super) fn take_weighed(
        &mut self,
        to: &Sealing,
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
        let end = match self.replaced.take(self.pieces.count(), range, answers) {
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
        to: &Sealing,
        who: &Origin,
        room: Reservation,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        self.check()?;
        self.keep(room);
        self.version += 1;
        self.mtime = Some((self.version, Timestamp::now()));
        self.since.get_or_insert_with(Instant::now);
        let taken = self.take(to, who, offset, data);
        self.settle(to, taken)
    }

    /// Into the stream, if it goes on there, or begins there; else into buffers.
    fn take(&mut self, to: &Sealing, who: &Origin, offset: u64, data: &[u8]) -> Result<()> {
        let length = data.len() as u64;
        if let Some(stream) = &mut self.stream {
            let at = stream.extent.range().end;
            if offset <= at && at < offset + length {
                // What comes late, or again, is laid over it as a buffer.
                let (again, next) = data.split_at(in_memory(at - offset));
                if !again.is_empty() {
                    self.pieces.write(offset, again);
                }
                let rest = self.feed(to, who, next)?;
                self.feed_buffers(to, who)?;
                return match rest.len() as u64 {
                    0 => Ok(()),
                    left => self.take(to, who, offset + length - left, rest),
                };
            }
            stream.elsewhere += length;
            if stream.elsewhere > STREAM_PATIENCE {
                self.end_stream(to, who)?;
            }
        }
        let mut start = self.pieces.run_before(offset);
        let window = start.next_multiple_of(EXTENT_MAX);
        if window - start < STREAM_MIN {
            // Too little for a pack of its own: it stays a buffer, and the stream begins with the window.
            start = window;
        }
        if self.stream.is_some() || offset + length <= start + STREAM_MIN {
            self.pieces.write(offset, data);
            return Ok(());
        }
        if offset < start {
            let (head, rest) = data.split_at(in_memory(start - offset));
            self.pieces.write(offset, head);
            return self.take(to, who, start, rest);
        }
        self.pieces.split(start);
        let extent = OpenExtent::begin(&to.keys, &to.staging, start)?;
        self.stream = Some(Stream { extent, elsewhere: 0 });
        // A buffer that is there already would be fed before these bytes.
        self.pieces.carve(offset..offset + length);
        self.feed_buffers(to, who)?;
        self.take(to, who, offset, data)
    }

    /// Feeds the stream the buffers that it reaches: writes may arrive a little out of order.
    fn feed_buffers(&mut self, to: &Sealing, who: &Origin) -> Result<()> {
        while let Some(at) = self.stream.as_ref().map(|stream| stream.extent.range().end)
            && let Some(buffer) = self.pieces.take_buffer(at)
        {
            let rest = self.feed(to, who, &buffer)?;
            if !rest.is_empty() {
                self.pieces.write(at + (buffer.len() - rest.len()) as u64, rest);
            }
        }
        Ok(())
    }

    /// Feeds the stream, and ends it when its extent is full: the next begins as this one did, so a file's short end
    /// goes into the shared pack. Answers what it did not take.
    fn feed<'a>(&mut self, to: &Sealing, who: &Origin, data: &'a [u8]) -> Result<&'a [u8]> {
        let Some(stream) = &mut self.stream else { return Ok(data) };
        stream.elsewhere = 0;
        let extent = &mut stream.extent;
        let (now, later) = data.split_at(data.len().min(in_memory(extent.room())));
        let length = now.len() as u64;
        self.pieces.streamed(extent.range().end, extent.length(), length);
        self.staged += length;
        extent.push(now)?;
        if extent.room() == 0 {
            self.end_stream(to, who)?;
        }
        Ok(later)
    }

    /// The open extent becomes a message.
    fn end_stream(&mut self, to: &Sealing, who: &Origin) -> Result<()> {
        if let Some(Stream { extent, .. }) = self.stream.take() {
            let range = extent.range();
            let message = extent.finish(&to.keys, who)?;
            self.pieces.extent_done(range, &message, self.version);
        }
        Ok(())
    }

    /// Seals every buffer.
    fn seal_buffers(&mut self, to: &Sealing, who: &Origin) -> Result<()> {
        let mut from = 0;
        while let Some((offset, run)) = self.pieces.first_run(from, EXTENT_MAX) {
            let length: usize = run.iter().map(|part| part.len()).sum();
            let length = length as u64;
            let message = to.seal(who, offset, &run, length)?;
            let data = Data::Sealed { message, skip: 0, length };
            self.pieces.put(offset, Piece { data, version: self.version });
            self.staged += length;
            from = offset + length;
        }
        Ok(())
    }

    /// Seals buffers early, to give their memory back; the stream too where it takes most of it.
    pub(super) fn spill(&mut self, to: &Sealing, who: &Origin) -> Result<()> {
        self.check()?;
        let spilled = if self.pieces.buffered() < self.stream_memory() {
            self.end_stream(to, who)
        } else {
            Ok(())
        };
        let spilled = spilled.and_then(|()| self.seal_buffers(to, who));
        self.settle(to, spilled)
    }

    /// Seals everything, and says what to publish.
    pub(super) fn seal(&mut self, to: &Sealing, who: &Origin) -> Result<Publication> {
        self.check()?;
        let sealed = self.end_stream(to, who).and_then(|()| self.seal_buffers(to, who));
        self.settle(to, sealed)?;
        let mut publication = Publication {
            pieces: Vec::with_capacity(in_memory(self.pieces.count())),
            end: self.pieces.end(),
            mtime: self.mtime.map(|(_, time)| time),
            version: self.version,
            staged: self.staged,
            is_large: self.replaced.weight(self.pieces.count()) > to.limits.records / 4,
            replaced: self.replaced.sealed(),
            sealed: Instant::now(),
            holds: Vec::new(),
            turn: None,
        };
        for (offset, piece) in self.pieces.iter() {
            // Nothing else is left.
            if let Data::Sealed { message, skip, length } = &piece.data {
                publication.pieces.push((offset, message.extent(*skip, *length)));
                publication.holds.push(message.clone());
            }
        }
        Ok(publication)
    }

    /// The publication's transaction was appended.
    pub(super) fn published(&mut self, to: &Sealing, publication: &Publication) {
        self.pieces.drop_sealed(publication.version);
        let (sum, is_left) = (publication.replaced, !self.pieces.is_empty());
        self.replaced.published(sum, &publication.pieces, is_left);
        self.mtime = self.mtime.filter(|(version, _)| *version > publication.version);
        self.staged = self.staged.saturating_sub(publication.staged);
        self.since = self.since.map(|since| since.max(publication.sealed));
        _ = self.settle(to, Ok(()));
    }

    /// The map has up to so many more records of the file, by what is no publication.
    pub(super) fn records_changed(&mut self, more: u64) {
        self.replaced.changed(more, !self.pieces.is_empty());
    }

    /// The file was cut to `size` in the map.
    pub(super) fn truncated(&mut self, to: &Sealing, size: u64) {
        self.version += 1;
        self.pieces.carve(size..u64::MAX);
        self.records_changed(0);
        _ = self.settle(to, Ok(()));
    }

    /// Nothing of it is wanted any more.
    pub(super) fn discard(&mut self, to: &Sealing) {
        self.version += 1;
        self.pieces = Pieces::default();
        (self.stream, self.mtime, self.staged) = (None, None, 0);
        self.records_changed(0);
        _ = self.settle(to, Ok(()));
    }

    /// The pieces of `range`.
    pub(super) fn overlay(&mut self, to: &Sealing, range: &Range<u64>) -> Result<Overlay> {
        let mut overlay = Overlay { pieces: Vec::new() };
        for (offset, piece) in self.pieces.overlapping(range.clone()) {
            let start = range.start.max(offset);
            let (from, until) = (start - offset, range.end.min(offset + piece.length()) - offset);
            let source = match &piece.data {
                Data::Buffer(bytes) => {
                    let part = &bytes[in_memory(from)..in_memory(until)];
                    Source::Bytes(Bytes::copy_from_slice(part))
                }
                Data::Sealed { message, skip, .. } => Source::Sealed {
                    extent: message.extent(skip + from, until - from),
                    hold: message.clone(),
                },
                Data::Streaming { skip, .. } => {
                    let stream = self.stream.as_mut().ok_or_else(|| broken("its stream ended"))?;
                    Source::Bytes(stream.extent.read(
                        &to.keys,
                        &to.staging,
                        skip + from..skip + until,
                    )?)
                }
            };
            overlay.pieces.push(OverlayPiece { offset: start, source });
        }
        Ok(overlay)
    }

    pub(super) fn ranges(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let clip = |(offset, piece): (u64, &Piece)| {
            offset.max(range.start)..(offset + piece.length()).min(range.end)
        };
        self.pieces.overlapping(range.clone()).map(clip).collect()
    }

    pub(super) fn unpublished(&self, limits: &Limits) -> Option<Unpublished> {
        let since = self.since?;
        let mtime = self.mtime.map(|(_, time)| time);
        Some(Unpublished {
            bytes: self.staged + self.pieces.buffered(),
            end: self.pieces.end(),
            mtime,
            since,
            must_publish: self.must_publish(limits),
        })
    }

    /// V1: too much of it is unpublished.
    pub(super) fn must_publish(&self, limits: &Limits) -> bool {
        self.staged + self.pieces.buffered() >= limits.unpublished
            || self.replaced.weight(self.pieces.count()) >= limits.records
    }

    /// Whether anything is unpublished.
    pub(super) fn is_dirty(&self) -> bool {
        self.since.is_some()
    }

    /// Memory that it takes, about.
    pub(super) fn charged(&self) -> u64 {
        self.charged
    }

    fn stream_memory(&self) -> u64 {
        self.stream.as_ref().map_or(0, |stream| stream.extent.memory())
    }

    fn check(&self) -> Result<()> {
        match &self.broken {
            Some(reason) => Err(broken(reason)),
            None => Ok(()),
        }
    }

    fn keep(&mut self, room: Reservation) {
        match &mut self.room {
            Some(mine) => mine.absorb(room),
            none => *none = Some(room),
        }
    }

    /// After every change: what it takes of memory and of staging's room is what it needs. A failure on the way to
    /// staging leaves the stream in pieces: nothing of the file can be sealed any more, nor can staging take more.
    fn settle(&mut self, to: &Sealing, done: Result<()>) -> Result<()> {
        if let Err(error) = &done {
            self.broken = Some(error.to_string());
        }
        let charge =
            self.pieces.buffered() + self.pieces.count() * PIECE_MEMORY + self.stream_memory();
        to.budget.charge(self.charged, charge);
        self.charged = charge;
        self.release_room();
        if self.pieces.is_empty() && self.mtime.is_none() {
            self.since = None;
        }
        done
    }

    /// What is in staging counts there; the rest of the open extent, and the padding of its pack, are still to come.
    fn release_room(&mut self) {
        let extent = self.stream.as_ref().map(|s| s.extent.length() / 8 + 256 * KIB);
        let buffered = self.pieces.buffered();
        if buffered == 0 && extent.is_none() {
            self.room = None;
        } else if let Some(room) = &mut self.room {
            let needed = buffered / 8 * 9 + self.pieces.buffers() * KIB + extent.unwrap_or(0) + KIB;
            // In steps: each costs a lock.
            if let Some(excess) = room.bytes().checked_sub(needed).filter(|excess| *excess > MIB) {
                drop(room.split(excess / 9 * 8 - KIB));
            }
        }
    }
}

impl Message {
    pub(super) fn extent(&self, skip: u64, length: u64) -> Extent {
        Extent { skip, length, reference: self.reference.clone() }
    }
}

fn broken(reason: &str) -> Error {
    Error::Staging(crate::upload::Error::Poisoned(reason.to_owned()))
}

fn in_memory(bytes: u64) -> usize {
    // A distance inside bytes that are in memory: it fits.
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
