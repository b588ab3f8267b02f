//! The interval map of a file's unpublished pieces: disjoint, by offset. No I/O.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::in_memory;
use super::staged_extent::StagedExtent;
use crate::types::MIB;

/// The most bytes in one buffer. Longer runs are several buffers side by side, so that an append moves little memory.
pub(super) const BUFFER_MAX: u64 = MIB;

/// Where the bytes of a piece are.
#[derive(Debug)]
pub(super) enum PieceBytes {
    /// In memory, not sealed yet.
    Buffer(Vec<u8>),
    /// In the stream's open extent, beginning at its byte `skip`.
    Streaming { skip: u64, length: u64 },
    /// In a sealed extent, beginning at byte `skip` of its plaintext.
    Sealed { extent: Arc<StagedExtent>, skip: u64, length: u64 },
}

/// A piece, and the file's version when its bytes were sealed (0 and meaningless in a buffer).
#[derive(Debug)]
pub(super) struct Piece {
    pub bytes: PieceBytes,
    pub version: u64,
}

impl Piece {
    pub(super) fn buffer(bytes: &[u8]) -> Self {
        Self { bytes: PieceBytes::Buffer(bytes.to_vec()), version: 0 }
    }

    pub(super) fn length(&self) -> u64 {
        match &self.bytes {
            PieceBytes::Buffer(bytes) => bytes.len() as u64,
            PieceBytes::Streaming { length, .. } | PieceBytes::Sealed { length, .. } => *length,
        }
    }

    /// Keeps the first `at` bytes and returns the rest.
    fn split_off(&mut self, at: u64) -> Self {
        let rest = match &mut self.bytes {
            PieceBytes::Buffer(bytes) => {
                let rest = bytes.split_off(in_memory(at));
                bytes.shrink_to_fit();
                PieceBytes::Buffer(rest)
            }
            PieceBytes::Streaming { skip, length } => {
                let rest = PieceBytes::Streaming { skip: *skip + at, length: *length - at };
                *length = at;
                rest
            }
            PieceBytes::Sealed { extent, skip, length } => {
                let (skip, rest) = (*skip + at, *length - at);
                *length = at;
                PieceBytes::Sealed { extent: extent.clone(), skip, length: rest }
            }
        };
        Self { bytes: rest, version: self.version }
    }
}

/// The pieces of one file.
#[derive(Debug, Default)]
pub(super) struct PieceMap {
    map: BTreeMap<u64, Piece>,
    /// How many bytes are in buffers, and in how many.
    buffered: u64,
    buffers: u64,
}

impl PieceMap {
    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    pub(super) fn count(&self) -> u64 {
        self.map.len() as u64
    }

    /// Bytes in buffers.
    pub(super) fn buffered(&self) -> u64 {
        self.buffered
    }

    /// The number of buffers.
    pub(super) fn buffers(&self) -> u64 {
        self.buffers
    }

    /// Where the last piece ends; 0 without pieces.
    pub(super) fn end(&self) -> u64 {
        self.map.last_key_value().map_or(0, |(offset, piece)| offset + piece.length())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Piece)> {
        self.map.iter().map(|(offset, piece)| (*offset, piece))
    }

    /// The pieces that overlap `range`, unclipped.
    pub(super) fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &Piece)> {
        let first = self.before(range.start).map_or(range.start, |(offset, _)| offset);
        let from = first..range.end.max(first);
        let pieces = self.map.range(from).map(|(offset, piece)| (*offset, piece));
        pieces.filter(move |(offset, piece)| offset + piece.length() > range.start)
    }

    /// The last piece that begins at or before `offset`.
    fn before(&self, offset: u64) -> Option<(u64, &Piece)> {
        self.map.range(..=offset).next_back().map(|(offset, piece)| (*offset, piece))
    }

    fn add(&mut self, offset: u64, piece: Piece) {
        if let PieceBytes::Buffer(bytes) = &piece.bytes {
            self.buffered += bytes.len() as u64;
            self.buffers += 1;
        }
        let before = self.map.insert(offset, piece);
        debug_assert!(before.is_none(), "two pieces at {offset}");
    }

    fn remove(&mut self, offset: u64) -> Option<Piece> {
        let piece = self.map.remove(&offset)?;
        if let PieceBytes::Buffer(bytes) = &piece.bytes {
            self.buffered -= bytes.len() as u64;
            self.buffers -= 1;
        }
        Some(piece)
    }

    /// Drops the bytes of `range`, and cuts pieces that reach into it.
    pub(super) fn carve(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.split(range.start);
        self.split(range.end);
        while let Some((&offset, _)) = self.map.range(range.clone()).next() {
            self.remove(offset);
        }
    }

    /// Splits the piece, if any, that has `offset` inside it.
    pub(super) fn split(&mut self, offset: u64) {
        if let Some((at, piece)) = self.before(offset)
            && at < offset
            && at + piece.length() > offset
            && let Some(mut head) = self.remove(at)
        {
            let tail = head.split_off(offset - at);
            self.add(at, head);
            self.add(offset, tail);
        }
    }

    /// Puts a piece in, in place of whatever was there.
    pub(super) fn put(&mut self, offset: u64, piece: Piece) {
        self.carve(offset..offset + piece.length());
        self.add(offset, piece);
    }

    /// Takes bytes into buffers: overwrites a buffer, extends the one before, or makes a new one.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        if let Some((&at, Piece { bytes: PieceBytes::Buffer(buffer), .. })) =
            self.map.range_mut(..=offset).next_back()
        {
            let here = at + buffer.len() as u64;
            if end <= here {
                buffer[in_memory(offset - at)..in_memory(end - at)].copy_from_slice(bytes);
                return;
            }
            if offset <= here && end - at <= BUFFER_MAX {
                self.carve(here..end);
                if let Some(Piece { bytes: PieceBytes::Buffer(buffer), .. }) = self.map.get_mut(&at)
                {
                    buffer.truncate(in_memory(offset - at));
                    buffer.extend_from_slice(bytes);
                    self.buffered += end - here;
                }
                return;
            }
        }
        self.put(offset, Piece::buffer(bytes));
    }

    /// Where the run of buffers that ends exactly at `offset` begins; `offset` itself if there is none.
    pub(super) fn run_before(&self, offset: u64) -> u64 {
        let mut start = offset;
        for (at, piece) in self.map.range(..offset).rev() {
            if at + piece.length() != start || !matches!(piece.bytes, PieceBytes::Buffer(_)) {
                break;
            }
            start = *at;
        }
        start
    }

    /// Takes out the buffer that begins at `offset`.
    pub(super) fn take_buffer(&mut self, offset: u64) -> Option<Vec<u8>> {
        if !matches!(self.map.get(&offset)?.bytes, PieceBytes::Buffer(_)) {
            return None;
        }
        match self.remove(offset)?.bytes {
            PieceBytes::Buffer(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The stream took `length` bytes at `offset` of the file, at byte `skip` of its open extent.
    pub(super) fn streamed(&mut self, offset: u64, skip: u64, length: u64) {
        self.carve(offset..offset + length);
        if let Some((
            &at,
            Piece { bytes: PieceBytes::Streaming { skip: first, length: before }, .. },
        )) = self.map.range_mut(..offset).next_back()
            && at + *before == offset
            && *first + *before == skip
        {
            *before += length;
            return;
        }
        self.add(offset, Piece { bytes: PieceBytes::Streaming { skip, length }, version: 0 });
    }

    /// The stream's open extent, which covers `range`, is now sealed as `extent`.
    pub(super) fn extent_done(
        &mut self,
        range: Range<u64>,
        extent: &Arc<StagedExtent>,
        version: u64,
    ) {
        for (_, piece) in self.map.range_mut(range) {
            if let PieceBytes::Streaming { skip, length } = piece.bytes {
                piece.bytes = PieceBytes::Sealed { extent: extent.clone(), skip, length };
                piece.version = version;
            }
        }
    }

    /// The first run of adjacent buffers, of at most `most` bytes (but at least one buffer): its offset and the
    /// buffers.
    pub(super) fn first_run(&self, from: u64, most: u64) -> Option<(u64, Vec<&[u8]>)> {
        let (mut start, mut end, mut run) = (0, 0, Vec::new());
        for (offset, piece) in self.map.range(from..) {
            match &piece.bytes {
                PieceBytes::Buffer(bytes) if run.is_empty() => {
                    (start, end) = (*offset, offset + bytes.len() as u64);
                    run.push(bytes.as_slice());
                }
                PieceBytes::Buffer(bytes)
                    if *offset == end && end + bytes.len() as u64 - start <= most =>
                {
                    end += bytes.len() as u64;
                    run.push(bytes.as_slice());
                }
                _ if run.is_empty() => {}
                _ => break,
            }
        }
        (!run.is_empty()).then_some((start, run))
    }

    /// Drops the sealed pieces up to this version.
    pub(super) fn drop_sealed(&mut self, version: u64) {
        self.map
            .retain(|_, p| !matches!(p.bytes, PieceBytes::Sealed { .. }) || p.version > version);
    }
}
