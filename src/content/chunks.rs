//! All offset arithmetic of reading: a range of a file -> parts of extents -> chunks -> sealed bytes of a pack. Pure.

use std::ops::Range;

use bytes::Bytes;

use super::overlay::{OverlayBytes, OverlayPiece};
use super::seal;
use crate::cache::FETCH_MAX;
use crate::crypto::layout::{self, CHUNK};
use crate::types::{Extent, MIB, PackId, Reference};

/// Where the window cuts an extent before the grid, a prefetch that is alone ends at a multiple of so many chunks, so that none
/// gets tiny.
const FINE_GRID: u64 = 64;
/// What a read misses is fetched by groups of so many chunks, 128 KiB: a request costs more than they do, and whatever
/// was fetched is a file of its own in the disk tier.
const GROUP: u64 = 8;
/// A message up to this long lies in a pack that it shares; a longer one has a pack of its own
/// (`PROTOCOL.md`, "Settled details": streams of over 1 MiB).
pub(super) const SHARED_MAX: u64 = MIB + MIB / 8;
/// A gap between two extents of a pack is fetched with them if it is no longer than this.
const GAP: u64 = MIB / 16;

/// Where the next bytes of a range of a file come from.
#[derive(Clone, Debug)]
pub(super) enum ReadSpan {
    /// Nothing was ever written there: this many zeros.
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

/// The spans that make up `range`, in order: the overlay over the published extents over zeros.
/// Both lists are sorted by offset; what lies outside of `range`, or under an earlier one, is left out.
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

/// Which bytes of chunk `index`'s plaintext belong to the extent's part.
pub(super) fn part_of_chunk(extent: &Extent, index: u64) -> Range<usize> {
    let start = index * CHUNK;
    let end = extent.skip + extent.length;
    let (from, to) = (extent.skip.saturating_sub(start), end.saturating_sub(start).min(CHUNK));
    // Both are at most `CHUNK`.
    #[allow(clippy::cast_possible_truncation)]
    (from.min(to) as usize..to as usize)
}

/// Where in its pack the chunks of a message lie, sealed.
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

/// What to fetch for `window` of a file, in order, and how far that reaches: to the window's end, or less where the end
/// cuts an extent off the grid, or where nothing is known of the extents. What is cut off comes with what follows it, in
/// one request and not in two: only if there is nothing else to fetch, a part of it is fetched now. A prefetch has `piece`
/// bytes of plaintext at most (a power of two, of some chunks), and ends at a multiple of them within its extent.
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
        // File offset of the message's first byte, as a difference: it may lie before the file.
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

/// One request for sealed bytes of a pack that a read misses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fetch {
    /// The pack.
    pub pack: PackId,
    /// Bytes of the pack.
    pub range: Range<u64>,
    /// All messages in it are small: their packs hold other messages, too.
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

/// The group of chunks in which these are fetched.
fn group(reference: &Reference, chunks: &Range<u64>) -> Range<u64> {
    let count = reference.plain_length.div_ceil(CHUNK);
    chunks.start / GROUP * GROUP..chunks.end.next_multiple_of(GROUP).min(count)
}

/// The fewest sensible requests for these chunks: what lies together is fetched together.
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

/// Appends a prefetch, or extends the last one if the two lie together in one pack.
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

/// What lies in several small files, in the fewest sensible requests, none larger than a fetch may be.
pub(super) fn whole<'a>(extents: impl Iterator<Item = &'a Extent>) -> Vec<(PackId, Range<u64>)> {
    let all = extents.map(|extent| (&extent.reference, seal::chunks(extent)));
    let mut pieces = Vec::new();
    for fetch in fetches(all) {
        let mut from = fetch.range.start;
        while from < fetch.range.end {
            // Where the whole pack would be cut, if that was fetched.
            let to = (from / FETCH_MAX + 1).saturating_mul(FETCH_MAX).min(fetch.range.end);
            pieces.push((fetch.pack, from..to));
            from = to;
        }
    }
    pieces
}

#[cfg(test)]
mod tests;
