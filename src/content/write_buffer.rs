//! The unpublished bytes of one file: in buffers, in a stream that goes into a pack, or sealed. Decides which of these
//! the bytes of a write become.

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

/// A stream is ended when this much was written elsewhere in the file since its last bytes, so that another can begin.
const STREAM_PATIENCE: u64 = 4 * MIB;
/// Memory of a piece besides its bytes.
const PIECE_MEMORY: u64 = 128;

/// The stream of a file.
struct Stream {
    extent: OpenExtent,
    /// Bytes written elsewhere since it was last written to.
    elsewhere: u64,
}

/// The full packs that a stream has filled one after the other, up to byte `upto` of the file. The pack that ends them
/// is padded, so that the lengths of all of them show only the size class of what was written. They are not counted
/// again after that, so padding adds at most an eighth, however often something is published.
#[derive(Clone, Copy, Default)]
struct FullPacks {
    upto: u64,
    bytes: u64,
}

impl FullPacks {
    /// How many bytes in full packs end exactly at `start`.
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
    /// Counts every change, to tell what a publication holds from what came after it.
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

    /// About how many bytes of content it holds.
    pub(super) fn length(&self) -> u64 {
        self.staged + self.pieces.buffered()
    }

    /// About how much memory it takes.
    pub(super) fn memory(&self) -> u64 {
        self.pieces.buffered() + self.pieces.count() * PIECE_MEMORY + self.stream_memory()
    }

    fn stream_memory(&self) -> u64 {
        self.stream.as_ref().map_or(0, |stream| stream.extent.memory())
    }

    /// Room in staging that will still be needed: for the buffers, the rest of the open extent, and the padding of its
    /// pack. `None` if everything is in staging already, and counted there.
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

    /// Takes bytes into the stream if they continue it or begin one, otherwise into buffers.
    fn take(&mut self, to: &StagingWriter, who: &Origin, offset: u64, data: &[u8]) -> Result<()> {
        let length = data.len() as u64;
        if let Some(stream) = &mut self.stream {
            let at = stream.extent.range().end;
            if offset <= at && at < offset + length {
                // Bytes from before the stream's end become a buffer laid over it.
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
            // Too little before the next window for a pack of its own: it stays in buffers, and the stream begins with
            // the window.
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
        // A buffer that is there already would be fed in place of these newer bytes.
        self.pieces.carve(offset..offset + length);
        self.feed_buffers(to, who)?;
        self.take(to, who, offset, data)
    }

    /// Feeds the stream the buffers that it has reached, so writes may arrive a little out of order.
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

    /// Feeds the stream, and ends it when its extent is full. The next stream begins under the same conditions, so the
    /// short end of a file goes into the shared pack. Returns what the stream did not take.
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

    /// Seals the open extent and closes its pack.
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

    /// Seals every buffer. The stream goes on, unless it takes more memory than the buffers.
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

    /// The sealed pieces by file offset, and the holds that keep their packs in staging.
    pub(super) fn extents(&self) -> (Vec<(u64, Extent)>, Vec<Arc<StagedExtent>>) {
        let sealed = self.pieces.iter().filter_map(|(offset, piece)| match &piece.bytes {
            PieceBytes::Sealed { extent, skip, length } => {
                Some(((offset, extent.part(*skip, *length)), extent.clone()))
            }
            _ => None,
        });
        sealed.unzip()
    }

    /// All that was sealed up to this version is published; `staged` bytes of it were in staging.
    pub(super) fn published(&mut self, version: u64, staged: u64) {
        self.pieces.drop_sealed(version);
        self.staged = self.staged.saturating_sub(staged);
    }

    /// Drops all bytes from `size` on.
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
