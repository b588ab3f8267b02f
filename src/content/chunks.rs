//! All offset arithmetic of reading: a range of a file -> pieces of extents -> chunks -> sealed
//! bytes of a pack. Pure.

use std::ops::Range;

use bytes::Bytes;

use super::overlay::{OverlayPiece, Source};
use crate::crypto::layout::{self, CHUNK};
use crate::types::{EXTENT_MAX, Extent, MIB, PackId, Reference};

/// Chunks of one fetch of read-ahead at most, and the grid within an extent at which one ends:
/// 4 MiB of plaintext.
const GRID: u64 = 256;
/// Where a fetch of read-ahead ends that the window cuts: so that fetches do not get tiny.
const FINE_GRID: u64 = 64;
/// A message up to this long lies in a pack that it shares; a longer one has a pack of its own
/// (`PROTOCOL.md`, "Settled details": streams of over 1 MiB).
const SHARED_MAX: u64 = MIB + MIB / 8;
/// What lies between two extents of a pack is fetched along if it is no more than this.
const GAP: u64 = MIB / 16;

/// Where the bytes of a piece of a file come from.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// Nothing was ever written there: this many zeros.
    Hole(u64),
    /// Written, not sealed yet.
    Plain(Bytes),
    /// Sealed, in staging or the bucket.
    Sealed(Extent),
}

impl Piece {
    #[cfg(test)]
    fn length(&self) -> u64 {
        match self {
            Self::Hole(length) => *length,
            Self::Plain(bytes) => bytes.len() as u64,
            Self::Sealed(extent) => extent.length,
        }
    }
}

/// The pieces that make up `range`, in order: the overlay over the published extents over zeros.
/// Both lists are sorted by offset; what lies outside of `range`, or under an earlier one, is left out.
pub(super) fn pieces(
    range: &Range<u64>,
    overlay: Vec<OverlayPiece>,
    published: &[(u64, Extent)],
) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(overlay.len() + 2);
    let mut at = range.start;
    for piece in overlay {
        let whole = piece.offset..piece.offset.saturating_add(piece.length());
        let part = clip(&whole, &(at..range.end));
        if part.is_empty() {
            continue;
        }
        fill(&mut pieces, at..part.start, published);
        at = part.end;
        let (from, to) = (part.start - whole.start, part.end - whole.start);
        pieces.push(match piece.source {
            // Both are at most the length of a buffer in memory.
            #[allow(clippy::cast_possible_truncation)]
            Source::Bytes(bytes) => Piece::Plain(bytes.slice(from as usize..to as usize)),
            Source::Sealed { extent, .. } => Piece::Sealed(extent.part(from, to)),
        });
    }
    fill(&mut pieces, at..range.end, published);
    pieces
}

/// Appends the pieces of `range` from the published extents alone.
fn fill(pieces: &mut Vec<Piece>, range: Range<u64>, published: &[(u64, Extent)]) {
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
            pieces.push(Piece::Hole(part.start - at));
        }
        pieces.push(Piece::Sealed(extent.part(part.start - offset, part.end - offset)));
        at = part.end;
    }
    if at < range.end {
        pieces.push(Piece::Hole(range.end - at));
    }
}

fn clip(part: &Range<u64>, to: &Range<u64>) -> Range<u64> {
    part.start.max(to.start)..part.end.min(to.end)
}

/// Can the extent be followed? Everything below relies on it. The reason if not.
pub(super) fn check(extent: &Extent) -> Result<(), &'static str> {
    let reference = &extent.reference;
    let end = extent.skip.checked_add(extent.length);
    if reference.codec != 0 {
        Err("its codec is not known to this version")
    } else if reference.plain_length == 0 || reference.plain_length > EXTENT_MAX {
        Err("its length is out of bounds")
    } else if extent.length == 0 || end.is_none_or(|end| end > reference.plain_length) {
        Err("its part is out of bounds")
    } else if reference.sealed_length != layout::sealed_length(reference.plain_length) {
        Err("its lengths contradict each other")
    } else if reference.offset.checked_add(reference.sealed_length).is_none() {
        Err("its offset is out of bounds")
    } else {
        Ok(())
    }
}

/// The chunks of the message in which the extent's part lies.
pub(super) fn chunks(extent: &Extent) -> Range<u64> {
    layout::chunks_of(&(extent.skip..extent.skip + extent.length))
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

/// A range of a pack that read-ahead fetches in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// The pack.
    pub pack: PackId,
    /// Bytes of the pack.
    pub range: Range<u64>,
    /// Where in the file it is used up.
    pub until: u64,
}

/// What to fetch for `window` of a file, in order, and how far that reaches: to the window's end,
/// or less if that would cut an extent at an odd place, or nothing is known there.
pub(super) fn segments(published: &[(u64, Extent)], window: &Range<u64>) -> (Vec<Segment>, u64) {
    let mut segments: Vec<Segment> = Vec::new();
    let mut reached = window.start;
    let first = published
        .partition_point(|(offset, extent)| offset.saturating_add(extent.length) <= window.start);
    for (offset, extent) in &published[first..] {
        let beyond = offset.checked_add(extent.length).is_none_or(|end| end > i64::MAX as u64);
        if *offset >= window.end || beyond || check(extent).is_err() {
            break;
        }
        // File offset of the message's first byte, as a difference: it may lie before the file.
        let in_message = |at: u64| at - offset + extent.skip;
        let in_file = |at: u64| at - extent.skip + offset;
        let end = offset + extent.length;
        let mut from = in_message(window.start.max(*offset)) / CHUNK;
        let last = chunks(extent).end;
        let stop = if window.end >= end {
            last
        } else {
            in_message(window.end) / CHUNK / FINE_GRID * FINE_GRID
        };
        while from < stop {
            let to = (from / GRID + 1).saturating_mul(GRID).min(stop);
            let until = if to == last { end } else { in_file((to * CHUNK).max(extent.skip)) };
            let range = in_pack(&extent.reference, &(from..to));
            push(&mut segments, Segment { pack: extent.reference.pack, range, until });
            reached = reached.max(until);
            from = to;
        }
    }
    (segments, reached)
}

/// One request for sealed bytes of a pack that a read misses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fetch {
    /// The pack.
    pub pack: PackId,
    /// Bytes of the pack.
    pub range: Range<u64>,
    /// All messages in it are small: they share the pack with others.
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

/// The fewest sensible requests for these chunks: what lies together is fetched together.
pub(super) fn fetches<'a>(
    missing: impl Iterator<Item = (&'a Reference, Range<u64>)>,
) -> Vec<Fetch> {
    let fetch = |(reference, chunks): (&Reference, Range<u64>)| Fetch {
        pack: reference.pack,
        range: in_pack(reference, &chunks),
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

/// Appends a segment, or lets the last one grow if the two lie together in one pack.
fn push(segments: &mut Vec<Segment>, new: Segment) {
    let sealed_grid = GRID * (CHUNK + layout::TAG) + layout::HEADER;
    match segments.last_mut() {
        Some(last)
            if last.pack == new.pack
                && last.range.end <= new.range.start
                && new.range.start - last.range.end <= GAP
                && new.range.end - last.range.start <= sealed_grid =>
        {
            last.range.end = new.range.end;
            last.until = new.until;
        }
        _ => segments.push(new),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::{ExtentId, KeyEpoch};

    fn extent(id: u8, offset: u64, plain: u64, skip: u64, length: u64) -> Extent {
        let reference = Reference {
            pack: PackId([id / 4; 16]),
            offset,
            sealed_length: layout::sealed_length(plain),
            extent: ExtentId([id; 16]),
            plain_length: plain,
            codec: 0,
            salt: [0; 24],
            commitment: [0; 32],
            epoch: KeyEpoch(0),
        };
        Extent { skip, length, reference }
    }

    prop_compose! {
        /// Extents of a file with random holes between them.
        fn any_file()(
            parts in prop::collection::vec((0..3_u64, 1..3_000_000_u64, 0..40_000_u64, 0..40_000_u64), 0..12)
        ) -> Vec<(u64, Extent)> {
            let mut at = 0;
            let mut list = Vec::new();
            for (id, (hole, length, skip, rest)) in (0_u8..).zip(parts) {
                at += hole * 10_000;
                list.push((at, extent(id, u64::from(id) * 20_000_000, skip + length + rest, skip, length)));
                at += length;
            }
            list
        }
    }

    /// What byte `at` of the file is: (extent, byte of its plaintext).
    fn byte(list: &[(u64, Extent)], at: u64) -> Option<(ExtentId, u64)> {
        let (offset, extent) =
            list.iter().find(|(offset, extent)| (*offset..offset + extent.length).contains(&at))?;
        Some((extent.reference.extent, at - offset + extent.skip))
    }

    proptest! {
        #[test]
        fn pieces_and_chunks_are_the_bytes_of_the_range(
            list in any_file(), start in 0..8_000_000_u64, length in 1..300_000_u64, buffered in any::<bool>(),
        ) {
            let range = start..start + length;
            let overlay = if buffered {
                let source = Source::Bytes(Bytes::from(vec![7; 1000]));
                vec![OverlayPiece { offset: start + length / 2, source }]
            } else {
                Vec::new()
            };
            let buffer = start + length / 2..start + length / 2 + if buffered { 1000 } else { 0 };
            let mut at = range.start;
            for piece in pieces(&range, overlay, &list) {
                let end = at + piece.length();
                prop_assert!(end > at);
                match piece {
                    Piece::Plain(_) => prop_assert!(buffer.contains(&at) && end <= buffer.end),
                    Piece::Hole(_) => for at in [at, end - 1] {
                        prop_assert!(byte(&list, at).is_none() && !buffer.contains(&at));
                    }
                    Piece::Sealed(extent) => {
                        prop_assert!(check(&extent).is_ok());
                        let id = extent.reference.extent;
                        for (at, plain) in [(at, extent.skip), (end - 1, extent.skip + extent.length - 1)] {
                            prop_assert_eq!(byte(&list, at), Some((id, plain)));
                            prop_assert!(!buffer.contains(&at));
                        }
                        let mut plain = extent.skip;
                        for index in chunks(&extent) {
                            let part = part_of_chunk(&extent, index);
                            prop_assert!(!part.is_empty());
                            prop_assert_eq!(index * CHUNK + part.start as u64, plain);
                            plain += part.len() as u64;
                            let sealed = in_pack(&extent.reference, &(index..index + 1));
                            let message = extent.reference.offset + extent.reference.sealed_length;
                            prop_assert!(sealed.start >= extent.reference.offset + layout::HEADER);
                            prop_assert!(sealed.end <= message && sealed.end - sealed.start > layout::TAG);
                        }
                        prop_assert_eq!(plain, extent.skip + extent.length);
                    }
                }
                at = end;
            }
            prop_assert_eq!(at, range.end);
        }

        /// Whatever chunk a reader needs in the part that was reached lies whole in one segment.
        #[test]
        fn segments_hold_every_chunk_they_reach(
            list in any_file(), start in 0..8_000_000_u64, length in 0..9_000_000_u64,
        ) {
            let window = start..start + length;
            let (segments, reached) = segments(&list, &window);
            prop_assert!(reached >= window.start && (reached <= window.end || segments.is_empty()));
            for segment in &segments {
                prop_assert!(segment.range.end - segment.range.start <= GRID * (CHUNK + 16) + 56);
                prop_assert!(segment.until <= reached);
            }
            if reached == window.start {
                return Ok(());
            }
            for piece in pieces(&(window.start..reached), Vec::new(), &list) {
                let Piece::Sealed(extent) = piece else { continue };
                for index in chunks(&extent) {
                    let sealed = in_pack(&extent.reference, &(index..index + 1));
                    prop_assert!(segments.iter().any(|segment| segment.pack == extent.reference.pack
                        && segment.range.start <= sealed.start && sealed.end <= segment.range.end));
                }
            }
        }

        #[test]
        fn damaged_records_do_not_panic(
            numbers in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 1..5),
            start in any::<u64>(), length in 1..1_000_000_u64,
        ) {
            let list: Vec<_> = numbers.iter().map(|(a, b, c, d)| {
                let plain = d % (EXTENT_MAX + 2);
                (a ^ b, extent(0, *a, plain, b % (plain + 1), c % (plain + 2)))
            }).collect();
            let range = start..start.saturating_add(length);
            for (_, extent) in &list {
                let _ = check(extent);
            }
            let sound: Vec<_> = list.into_iter().filter(|(_, extent)| check(extent).is_ok()).collect();
            pieces(&range, Vec::new(), &sound);
            segments(&sound, &range);
        }
    }

    #[test]
    fn small_extents_that_lie_together_are_fetched_together() {
        let small = layout::sealed_length(1000);
        let list: Vec<_> =
            (0..100).map(|n| (n * 1000, extent(0, n * small, 1000, 0, 1000))).collect();
        let (segments, reached) = segments(&list, &(0..100_000));
        assert_eq!((segments.len(), reached), (1, 100_000));
        assert!(segments[0].range.end <= 100 * small);
    }

    #[test]
    fn a_large_extent_is_fetched_in_pieces_of_the_grid() {
        let list = [(0, extent(0, 0, EXTENT_MAX, 0, EXTENT_MAX))];
        let (segments, reached) = segments(&list, &(MIB..EXTENT_MAX));
        assert_eq!((segments.len(), reached), (4, EXTENT_MAX));
        let (cut, reached) = super::segments(&list, &(MIB..3 * MIB + 5));
        assert_eq!((cut.len(), reached), (1, 3 * MIB));
        assert_eq!(cut[0].range.end, segments[0].range.end - 64 * 16400);
    }
}
