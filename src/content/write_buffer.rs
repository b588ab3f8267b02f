//! The unpublished bytes of one file: what is in buffers, what streams into a pack, and what is sealed. Here is decided
//! which of them a write becomes.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::footer::{Origin, STREAM_MIN};
use super::overlay::{Overlay, OverlayBytes, OverlayPiece};
use super::piece_map::{Piece, PieceBytes, PieceMap};
use super::staged_extent::StagedExtent;
use super::staging_writer::StagingWriter;
use super::stream::OpenExtent;
use super::{Error, Result, in_memory};
use crate::types::{EXTENT_MAX, Extent, KIB, MIB};

/// A stream that was not written to is ended when this much was written elsewhere in the file, so that there can be
/// another.
const STREAM_PATIENCE: u64 = 4 * MIB;
/// Memory of a piece beside its bytes.
const PIECE_MEMORY: u64 = 128;

/// The stream of a file.
struct Stream {
    extent: OpenExtent,
    /// Bytes written elsewhere since it was last written to.
    elsewhere: u64,
}

/// Packs that a stream filled one after the other, up to a byte of the file. What ends it is padded, so that not the length of
/// what was written shows, but its class; and then they count no more: so at most an eighth is added, however often
/// something is published.
#[derive(Clone, Copy, Default)]
struct FullPacks {
    upto: u64,
    bytes: u64,
}

impl FullPacks {
    /// What they hold just before `start`.
    fn before(self, start: u64) -> u64 {
        if self.upto == start { self.bytes } else { 0 }
    }
}

/// The unpublished bytes of one file.
#[derive(Default)]
pub(super) struct WriteBuffer {
    pieces: PieceMap,
    stream: Option<Stream>,
    full: FullPacks,
    /// Counts every change, so that what a publication holds can be told from what came after it.
    version: u64,
    /// Plaintext bytes in staging, or streaming there, that no transaction refers to yet.
    staged: u64,
}

impl WriteBuffer {
    pub(super) fn pieces(&self) -> &PieceMap {
        &self.pieces
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Bytes that are in staging, or streaming there.
    pub(super) fn staged(&self) -> u64 {
        self.staged
    }

    /// Bytes of content in it, about.
    pub(super) fn length(&self) -> u64 {
        self.staged + self.pieces.buffered()
    }

    /// Memory that it takes, about.
    pub(super) fn memory(&self) -> u64 {
        self.pieces.buffered() + self.pieces.count() * PIECE_MEMORY + self.stream_memory()
    }

    fn stream_memory(&self) -> u64 {
        self.stream.as_ref().map_or(0, |stream| stream.extent.memory())
    }

    /// Room in staging that its buffers will take, and the rest of the open extent with the padding of its pack; `None`
    /// when all of it is there already, and counts there.
    pub(super) fn room_needed(&self) -> Option<u64> {
        let extent = self.stream.as_ref().map(|stream| {
            let full = self.full.before(stream.extent.range().start);
            (stream.extent.length() + full) / 8 + 256 * KIB
        });
        let extent = extent.map(|bytes| bytes.min(EXTENT_MAX));
        let buffered = self.pieces.buffered();
        if buffered == 0 && extent.is_none() {
            return None;
        }
        Some(buffered / 8 * 9 + self.pieces.buffers() * KIB + extent.unwrap_or(0) + KIB)
    }

    /// Takes the bytes of a write.
    pub(super) fn write(
        &mut self,
        to: &StagingWriter,
        who: &Origin,
        offset: u64,
        data: &[u8],
    ) -> Result<()> {
        self.version += 1;
        self.take(to, who, offset, data)
    }

    /// Into the stream, if it goes on there, or begins there; else into buffers.
    fn take(&mut self, to: &StagingWriter, who: &Origin, offset: u64, data: &[u8]) -> Result<()> {
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
    fn feed_buffers(&mut self, to: &StagingWriter, who: &Origin) -> Result<()> {
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
    /// goes into the shared pack. Returns what the stream did not take.
    fn feed<'a>(&mut self, to: &StagingWriter, who: &Origin, data: &'a [u8]) -> Result<&'a [u8]> {
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

    /// Seals the open extent: its pack is closed.
    fn end_stream(&mut self, to: &StagingWriter, who: &Origin) -> Result<()> {
        if let Some(Stream { extent, .. }) = self.stream.take() {
            let range = extent.range();
            let (is_full, before) = (extent.room() == 0, self.full.before(range.start));
            self.full = match is_full {
                true => FullPacks { upto: range.end, bytes: before + (range.end - range.start) },
                false => FullPacks::default(),
            };
            let sealed = extent.finish(&to.keys, who, if is_full { 0 } else { before })?;
            self.pieces.extent_done(range, &sealed, self.version);
        }
        Ok(())
    }

    /// Seals every buffer.
    fn seal_buffers(&mut self, to: &StagingWriter, who: &Origin) -> Result<()> {
        let mut from = 0;
        while let Some((offset, run)) = self.pieces.first_run(from, EXTENT_MAX) {
            let length: usize = run.iter().map(|part| part.len()).sum();
            let length = length as u64;
            let before = self.full.before(offset);
            if before > 0 {
                self.full = FullPacks::default();
            }
            let extent = to.seal(who, (offset, before), &run, length)?;
            let bytes = PieceBytes::Sealed { extent, skip: 0, length };
            self.pieces.put(offset, Piece { bytes, version: self.version });
            self.staged += length;
            from = offset + length;
        }
        Ok(())
    }

    /// Seals every buffer; the stream goes on, unless it takes more memory than they do.
    pub(super) fn spill(&mut self, to: &StagingWriter, who: &Origin) -> Result<()> {
        if self.pieces.buffered() < self.stream_memory() {
            self.end_stream(to, who)?;
        }
        self.seal_buffers(to, who)
    }

    /// Seals everything.
    pub(super) fn seal(&mut self, to: &StagingWriter, who: &Origin) -> Result<()> {
        self.end_stream(to, who)?;
        self.seal_buffers(to, who)
    }

    /// The sealed pieces, by offset in the file, and what keeps their packs in staging.
    pub(super) fn extents(&self) -> (Vec<(u64, Extent)>, Vec<Arc<StagedExtent>>) {
        let sealed = self.pieces.iter().filter_map(|(offset, piece)| match &piece.bytes {
            PieceBytes::Sealed { extent, skip, length } => {
                Some(((offset, extent.part(*skip, *length)), extent.clone()))
            }
            _ => None,
        });
        sealed.unzip()
    }

    /// What was sealed at this version is published, `staged` bytes of it.
    pub(super) fn published(&mut self, version: u64, staged: u64) {
        self.pieces.drop_sealed(version);
        self.staged = self.staged.saturating_sub(staged);
    }

    /// Drops what lies at `size` and beyond.
    pub(super) fn truncate(&mut self, size: u64) {
        self.version += 1;
        self.pieces.carve(size..u64::MAX);
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self { version: self.version + 1, ..Self::default() };
    }

    /// The pieces of `range`, with their bytes.
    pub(super) fn overlay(&mut self, to: &StagingWriter, range: &Range<u64>) -> Result<Overlay> {
        let mut overlay = Overlay { pieces: Vec::new() };
        for (offset, piece) in self.pieces.overlapping(range.clone()) {
            let start = range.start.max(offset);
            let (from, until) = (start - offset, range.end.min(offset + piece.length()) - offset);
            let bytes = match &piece.bytes {
                PieceBytes::Buffer(bytes) => {
                    let part = &bytes[in_memory(from)..in_memory(until)];
                    OverlayBytes::Plain(Bytes::copy_from_slice(part))
                }
                PieceBytes::Sealed { extent, skip, .. } => OverlayBytes::Sealed {
                    extent: extent.part(skip + from, until - from),
                    hold: extent.clone(),
                },
                PieceBytes::Streaming { skip, .. } => {
                    let ended = || Error::broken("its stream ended");
                    let stream = self.stream.as_mut().ok_or_else(ended)?;
                    let range = skip + from..skip + until;
                    OverlayBytes::Plain(stream.extent.read(&to.keys, &to.staging, range)?)
                }
            };
            overlay.pieces.push(OverlayPiece { offset: start, bytes });
        }
        Ok(overlay)
    }

    /// The pieces of `range`, without their bytes.
    pub(super) fn ranges(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let clip = |(offset, piece): (u64, &Piece)| {
            offset.max(range.start)..(offset + piece.length()).min(range.end)
        };
        self.pieces.overlapping(range.clone()).map(clip).collect()
    }
}
