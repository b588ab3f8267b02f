//! Every byte of a range is where the arithmetic says.

use proptest::prelude::*;

use super::super::seal::chunks;
use super::*;
use crate::types::{EXTENT_MAX, ExtentId};

fn extent(id: u8, offset: u64, plain: u64, skip: u64, length: u64) -> Extent {
    let reference = Reference {
        pack: PackId([id / 4; 16]),
        offset,
        sealed_length: layout::sealed_length(plain),
        ..Reference::made_up(id, plain)
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
    #![proptest_config(crate::types::cases(256))]
    #[test]
    fn spans_and_chunks_are_the_bytes_of_the_range(
        list in any_file(), start in 0..8_000_000_u64, length in 1..300_000_u64, buffered in any::<bool>(),
    ) {
        let range = start..start + length;
        let overlay = if buffered {
            let bytes = OverlayBytes::Plain(Bytes::from(vec![7; 1000]));
            vec![OverlayPiece { offset: start + length / 2, bytes }]
        } else {
            Vec::new()
        };
        let buffer = start + length / 2..start + length / 2 + if buffered { 1000 } else { 0 };
        let mut at = range.start;
        for span in spans(&range, overlay, &list) {
            let end = at + span.length();
            prop_assert!(end > at);
            match span {
                ReadSpan::Plain(_) => prop_assert!(buffer.contains(&at) && end <= buffer.end),
                ReadSpan::Hole(_) => for at in [at, end - 1] {
                    prop_assert!(byte(&list, at).is_none() && !buffer.contains(&at));
                }
                ReadSpan::Sealed(extent) => {
                    prop_assert_eq!(seal::flaw(&extent), None);
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

    /// Each chunk that a reader needs of the part that was reached is whole in one prefetch.
    #[test]
    fn segments_hold_every_chunk_they_reach(
        list in any_file(), start in 0..8_000_000_u64, length in 0..9_000_000_u64, halved in 0..9_u32,
    ) {
        let (window, piece) = (start..start + length, FETCH_MAX >> halved);
        let (prefetches, reached) = prefetches(&list, &window, piece);
        prop_assert!(reached >= window.start && (reached <= window.end || prefetches.is_empty()));
        for prefetch in &prefetches {
            prop_assert!(prefetch.range.end - prefetch.range.start <= piece / CHUNK * (CHUNK + 16) + 56);
            prop_assert!(prefetch.until <= reached);
        }
        if reached == window.start {
            return Ok(());
        }
        for span in spans(&(window.start..reached), Vec::new(), &list) {
            let ReadSpan::Sealed(extent) = span else { continue };
            for index in chunks(&extent) {
                let sealed = in_pack(&extent.reference, &(index..index + 1));
                prop_assert!(prefetches.iter().any(|prefetch| prefetch.pack == extent.reference.pack
                    && prefetch.range.start <= sealed.start && sealed.end <= prefetch.range.end));
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
            let _ = seal::flaw(extent);
        }
        let sound: Vec<_> = list.into_iter().filter(|(_, extent)| seal::flaw(extent).is_none()).collect();
        spans(&range, Vec::new(), &sound);
        prefetches(&sound, &range, FETCH_MAX);
    }
}

#[test]
fn small_extents_that_lie_together_are_fetched_together() {
    let small = layout::sealed_length(1000);
    let list: Vec<_> = (0..100).map(|n| (n * 1000, extent(0, n * small, 1000, 0, 1000))).collect();
    let (prefetches, reached) = prefetches(&list, &(0..100_000), FETCH_MAX);
    assert_eq!((prefetches.len(), reached), (1, 100_000));
    assert!(prefetches[0].range.end <= 100 * small);
}

#[test]
fn a_large_extent_is_fetched_in_parts_of_the_grid() {
    let list = [(0, extent(0, 0, EXTENT_MAX, 0, EXTENT_MAX))];
    let (prefetches, reached) = prefetches(&list, &(MIB..EXTENT_MAX), FETCH_MAX);
    assert_eq!((prefetches.len(), reached), (4, EXTENT_MAX));
    let (cut, reached) = super::prefetches(&list, &(MIB..3 * MIB + 5), FETCH_MAX);
    assert_eq!((cut.len(), reached), (1, 3 * MIB));
    assert_eq!(cut[0].range.end, prefetches[0].range.end - 64 * 16400);
}

/// A window that moves on by less than the grid, as memory becomes free, does not cause a request each time.
#[test]
fn what_the_window_cuts_off_is_fetched_with_what_follows() {
    let list =
        [(0, 0), (4, EXTENT_MAX)].map(|(id, at)| (at, extent(id, 0, EXTENT_MAX, 0, EXTENT_MAX)));
    for (window, count, reached) in [
        (4 * MIB..13 * MIB, 2, 12 * MIB),
        (2 * MIB..7 * MIB, 1, 4 * MIB),
        (12 * MIB..EXTENT_MAX + 3 * MIB, 1, EXTENT_MAX),
        (EXTENT_MAX..EXTENT_MAX + 3 * MIB, 1, EXTENT_MAX + 3 * MIB),
    ] {
        let (prefetches, end) = prefetches(&list, &window, FETCH_MAX);
        assert_eq!((prefetches.len(), end), (count, reached), "{window:?}");
    }
}

#[test]
fn a_missing_chunk_is_fetched_with_its_group() {
    let reference = extent(0, 7, 20 * CHUNK + 5, 0, 1).reference;
    for (missing, group) in [(3..4, 0..8), (7..9, 0..16), (8..16, 8..16), (20..21, 16..21)] {
        let fetches = fetches(std::iter::once((&reference, missing.clone())));
        let [fetch] = &fetches[..] else { panic!("one request") };
        assert_eq!(fetch.range, in_pack(&reference, &group));
        let bytes = Bytes::from(vec![0; usize::try_from(group.end * CHUNK * 2).unwrap()]);
        assert!(fetch.part(&bytes, reference.pack, &in_pack(&reference, &missing)).is_some());
    }
}
