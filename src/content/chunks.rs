//! All offset arithmetic of reading: a range of a file -> parts of extents -> chunks -> sealed bytes of a pack. Pure.

use std::ops::Range;

use bytes::Bytes;

use super::overlay::{OverlayBytes, OverlayPiece};
use super::seal;
use crate::cache::FETCH_MAX;
use crate::crypto::layout::{self, CHUNK};
use crate::types::{Extent, MIB, PackId, Reference};

/// If the window cuts an extent before the first multiple of the grid, and nothing else is to be fetched, the prefetch
/// ends at a multiple of this many chunks, so that none is tiny.
const FINE_GRID: u64 = 64;
/// Missing chunks are fetched in groups of this many, 128 KiB: a request costs more than they do, and each fetch
/// becomes a file of its own in the disk tier.
const GROUP: u64 = 8;
/// A message up to this long is in a shared pack; a longer one has a pack of its own (`PROTOCOL.md`, "Settled details":
/// streams of over 1 MiB).
pub(super) const SHARED_MAX: u64 = MIB + MIB / 8;
/// Two extents of a pack are fetched together if the gap between them is no longer than this.
const GAP: u64 = MIB / 16;

/// Where the next bytes of a range of a file come from.
#[derive(Clone, Debug)]
pub(super) enum ReadSpan {
    /// A hole: this many zeros.
    Hole(u64),
    /// Written, not sealed yet.
    Plain(Bytes),
    /// Sealed, in staging or the bucket.
    Sealed(Extent),
}

impl ReadSpan {
    #[cfg(test)]
    fn length(&self) -> u64 {
        match self {
            Self::Hole(length) => *length,
            Self::Plain(bytes) => bytes.len() as u64,
            Self::Sealed(extent) => extent.length,
        }
    }
}

/// The spans that make up `range`, in order: the overlay, below it the published extents, below those zeros. Both lists
/// are sorted by offset. What lies outside of `range`, or overlaps an earlier entry, is left out.
pub(super) fn spans(
    range: &Range<u64>,
    overlay: Vec<OverlayPiece>,
    published: &[(u64, Extent)],
) -> Vec<ReadSpan> {
    let mut spans = Vec::with_capacity(overlay.len() + 2);
    let mut at = range.start;
    for piece in overlay {
        let whole = piece.offset..piece.offset.saturating_add(piece.length());
        let part = clip(&whole, &(at..range.end));
        if part.is_empty() {
            continue;
        }
        fill(&mut spans, at..part.start, published);
        at = part.end;
        let (from, to) = (part.start - whole.start, part.end - whole.start);
        spans.push(match piece.bytes {
            // Both are at most the length of a buffer in memory.
            #[allow(clippy::cast_possible_truncation)]
            OverlayBytes::Plain(bytes) => ReadSpan::Plain(bytes.slice(from as usize..to as usize)),
            OverlayBytes::Sealed { extent, .. } => ReadSpan::Sealed(extent.part(from, to)),
        });
    }
    fill(&mut spans, at..range.end, published);
    spans
}

/// Appends the spans of `range` from the published extents alone.
fn fill(spans: &mut Vec<ReadSpan>, range: Range<u64>, published: &[(u64, Extent)]) {
    let mut at = range.start;
    let first = published
        .partition_point(|(offset, extent)| offset.saturating_add(extent.length) <= range.start);
    for (offset, extent) in &published[first..] {
        if at >= range.end || *offset >= range.end {
            break;
        }
        let part = clip(&(*offset..offset.saturating_add(extent.length)), &(at..range.end));
        if part.is_empty() {
            continue;
        }
        if at < part.start {
            spans.push(ReadSpan::Hole(part.start - at));
        }
        spans.push(ReadSpan::Sealed(extent.part(part.start - offset, part.end - offset)));
        at = part.end;
    }
    if at < range.end {
        spans.push(ReadSpan::Hole(range.end - at));
    }
}

fn clip(part: &Range<u64>, to: &Range<u64>) -> Range<u64> {
    part.start.max(to.start)..part.end.min(to.end)
}

/// Which plaintext bytes of chunk `index` belong to the extent's part.
pub(super) fn part_of_chunk(extent: &Extent, index: u64) -> Range<usize> {
    let start = index * CHUNK;
    let end = extent.skip + extent.length;
    let (from, to) = (extent.skip.saturating_sub(start), end.saturating_sub(start).min(CHUNK));
    // Both are at most `CHUNK`.
    #[allow(clippy::cast_possible_truncation)]
    (from.min(to) as usize..to as usize)
}

/// Where the sealed chunks of a message are in its pack.
pub(super) fn in_pack(reference: &Reference, chunks: &Range<u64>) -> Range<u64> {
    let within = layout::sealed_range(chunks, reference.plain_length);
    reference.offset + within.start..reference.offset + within.end
}

/// A range of a pack that read-ahead fetches with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prefetch {
    /// The pack.
    pub pack: PackId,
    /// Bytes of the pack.
    pub range: Range<u64>,
    /// The offset in the file at which a reader has used it up.
    pub until: u64,
}

/// The requests for `window` of a file, in order, and how far they reach. That is the window's end, or less if the
/// window cuts an extent off the grid, or if the extents are unknown from there on. What is cut off is fetched later,
/// in one request with what follows it; only if there is nothing else to fetch, part of it is fetched now. A prefetch
/// has at most `piece` bytes of plaintext (a power of two, at least a chunk), and ends at a multiple of that in its
/// extent.
pub(super) fn prefetches(
    published: &[(u64, Extent)],
    window: &Range<u64>,
    piece: u64,
) -> (Vec<Prefetch>, u64) {
    let grid = (piece / CHUNK).max(1);
    let fine = FINE_GRID.min(grid);
    let mut prefetches: Vec<Prefetch> = Vec::new();
    let mut reached = window.start;
    let first = published
        .partition_point(|(offset, extent)| offset.saturating_add(extent.length) <= window.start);
    for (offset, extent) in &published[first..] {
        let beyond = offset.checked_add(extent.length).is_none_or(|end| end > i64::MAX as u64);
        if *offset >= window.end || beyond || seal::flaw(extent).is_some() {
            break;
        }
        // The file offset of the message's first byte might be negative, so it only appears in these differences.
        let in_message = |at: u64| at - offset + extent.skip;
        let in_file = |at: u64| at - extent.skip + offset;
        let end = offset + extent.length;
        let mut from = in_message(window.start.max(*offset)) / CHUNK;
        let last = seal::chunks(extent).end;
        let stop = if window.end >= end {
            last
        } else {
            let cut = in_message(window.end) / CHUNK;
            let whole = cut / grid * grid;
            let alone = prefetches.is_empty() && whole <= from;
            if alone { cut / fine * fine } else { whole }
        };
        while from < stop {
            let to = (from / grid + 1).saturating_mul(grid).min(stop);
            let until = if to == last { end } else { in_file((to * CHUNK).max(extent.skip)) };
            let range = in_pack(&extent.reference, &(from..to));
            push(&mut prefetches, grid, Prefetch { pack: extent.reference.pack, range, until });
            reached = reached.max(until);
            from = to;
        }
    }
    (prefetches, reached)
}

/// One request for sealed bytes of a pack that a read lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fetch {
    /// The pack.
    pub pack: PackId,
    /// Bytes of the pack.
    pub range: Range<u64>,
    /// Whether all messages in it are small: then their packs hold other messages, too.
    pub shared: bool,
}

impl Fetch {
    /// The bytes `range` of `pack`, if this fetch brought them.
    pub(super) fn part(&self, bytes: &Bytes, pack: PackId, range: &Range<u64>) -> Option<Bytes> {
        let inside = self.pack == pack && self.range.start <= range.start;
        let from = usize::try_from(range.start.checked_sub(self.range.start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.range.start)?).ok()?;
        (inside && from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
    }
}

/// The groups of chunks in which these are fetched.
fn group(reference: &Reference, chunks: &Range<u64>) -> Range<u64> {
    let count = reference.plain_length.div_ceil(CHUNK);
    chunks.start / GROUP * GROUP..chunks.end.next_multiple_of(GROUP).min(count)
}

/// The fewest sensible requests for these chunks: neighbours are fetched together.
pub(super) fn fetches<'a>(
    missing: impl Iterator<Item = (&'a Reference, Range<u64>)>,
) -> Vec<Fetch> {
    let fetch = |(reference, chunks): (&Reference, Range<u64>)| Fetch {
        pack: reference.pack,
        range: in_pack(reference, &group(reference, &chunks)),
        shared: reference.sealed_length <= SHARED_MAX,
    };
    let mut single: Vec<_> = missing.map(fetch).collect();
    single.sort_unstable_by_key(|fetch| (fetch.pack, fetch.range.start));
    let mut fetches: Vec<Fetch> = Vec::with_capacity(single.len());
    for new in single {
        match fetches.last_mut() {
            Some(last)
                if last.pack == new.pack
                    && new.range.start <= last.range.end.saturating_add(GAP) =>
            {
                last.range.end = last.range.end.max(new.range.end);
                last.shared &= new.shared;
            }
            _ => fetches.push(new),
        }
    }
    fetches
}

/// Appends a prefetch, or extends the last one if both are close together in one pack.
fn push(prefetches: &mut Vec<Prefetch>, grid: u64, new: Prefetch) {
    let sealed_grid = grid * (CHUNK + layout::TAG) + layout::HEADER;
    match prefetches.last_mut() {
        Some(last)
            if last.pack == new.pack
                && last.range.end <= new.range.start
                && new.range.start - last.range.end <= GAP
                && new.range.end - last.range.start <= sealed_grid =>
        {
            last.range.end = new.range.end;
            last.until = new.until;
        }
        _ => prefetches.push(new),
    }
}

/// The fewest sensible requests for the content of several small files, none larger than a fetch may be.
pub(super) fn whole<'a>(extents: impl Iterator<Item = &'a Extent>) -> Vec<(PackId, Range<u64>)> {
    let all = extents.map(|extent| (&extent.reference, seal::chunks(extent)));
    let mut pieces = Vec::new();
    for fetch in fetches(all) {
        let mut from = fetch.range.start;
        while from < fetch.range.end {
            // At the same places as a fetch of the whole pack.
            let to = (from / FETCH_MAX + 1).saturating_mul(FETCH_MAX).min(fetch.range.end);
            pieces.push((fetch.pack, from..to));
            from = to;
        }
    }
    pieces
}

#[cfg(test)]
mod tests;
