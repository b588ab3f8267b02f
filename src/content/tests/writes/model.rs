//! Random writes, publications and truncations, and special sizes and orders.

use proptest::prelude::*;

use super::*;
use crate::crypto::layout;

#[derive(Clone, Debug)]
enum Op {
    /// At the offset; if that is `None`, where the last write ended, plus the second number.
    Write(Option<u64>, u64, usize),
    Publish,
    /// Seals, writes, and only then reports the publication.
    PublishLate(u64, usize),
    /// Seals, but the transaction fails.
    Fail,
    Truncate(u64),
    Spill,
    Rewrite,
    Check,
}

fn op(size: u64) -> impl Strategy<Value = Op> {
    let length = prop_oneof![
        3 => 1..70_000usize,
        2 => Just(128 << 10),
        2 => Just(1 << 20),
        1 => 1..3_000_000usize,
        1 => Just(4096),
    ];
    let ahead = prop_oneof![8 => Just(0u64), 1 => Just(128 << 10), 1 => 1..100_000u64];
    prop_oneof![
        12 => (ahead, length.clone()).prop_map(|(ahead, n)| Op::Write(None, ahead, n)),
        5 => (0..size, length.clone()).prop_map(|(at, n)| Op::Write(Some(at), 0, n)),
        2 => Just(Op::Publish),
        1 => (0..size, length).prop_map(|(at, n)| Op::PublishLate(at, n)),
        1 => Just(Op::Fail),
        1 => (0..size).prop_map(Op::Truncate),
        1 => Just(Op::Spill),
        1 => Just(Op::Rewrite),
        2 => Just(Op::Check),
    ]
}

fn run(ops: Vec<Op>) {
    let world = world();
    let mut inode = TestFile::new(&world, 5);
    let mut last = 0;
    for (seed, op) in ops.into_iter().enumerate() {
        let seed = seed as u64;
        match op {
            Op::Write(offset, ahead, length) => {
                let offset = offset.unwrap_or(last) + ahead;
                inode.write(offset, &noise(seed, length));
                last = offset + length as u64;
            }
            Op::Publish => inode.publish(),
            Op::PublishLate(offset, length) => {
                let publication = now(inode.file.seal()).unwrap();
                inode.write(offset, &noise(seed, length));
                inode.check(&world);
                inode.commit(&publication);
                inode.check(&world);
                inode.file.published(publication);
            }
            Op::Fail => drop(now(inode.file.seal()).unwrap()),
            Op::Truncate(size) => inode.truncate(size),
            Op::Spill => inode.file.spill().unwrap(),
            Op::Rewrite => {
                let range = 0..inode.size.min(EXTENT_MAX);
                rewrite(&world, &mut inode, range);
                inode.check(&world);
            }
            Op::Check => inode.check(&world),
        }
    }
    inode.check(&world);
    inode.publish();
    inode.check(&world);
    assert!(inode.file.unpublished().is_none());
    assert_eq!(world.staging.usage().reserved, 0, "room is given back");
    assert_eq!(world.content.buffered(), 0, "memory is given back");
}

/// Rewrites a range; unpublished writes stay over it.
fn rewrite(world: &World, inode: &mut TestFile, range: Range<u64>) {
    let read = |part: Range<u64>| std::future::ready(Ok(world.published(&inode.map, part).into()));
    let copied = now(inode.file.copy_anew(range, read)).unwrap();
    let _turn = now(inode.file.turn());
    inode.put(&copied.pieces);
}

proptest! {
    #![proptest_config(crate::types::cases(24))]

    #[test]
    fn a_file_is_what_was_written(ops in prop::collection::vec(op(6 << 20), 1..40)) {
        run(ops);
    }

    #[test]
    fn a_large_file_is_what_was_written(ops in prop::collection::vec(op(40 << 20), 1..40)) {
        run(ops);
    }
}

#[test]
fn sizes_at_the_edges() {
    let world = world();
    for (i, edge) in [0, 1, 16 * KIB, MIB, EXTENT_MAX, EXTENT_MAX + MIB].into_iter().enumerate() {
        for (j, size) in [edge.saturating_sub(1), edge, edge + 1].into_iter().enumerate() {
            let mut inode = TestFile::new(&world, (10 * i + j) as u64);
            let data = noise(size, at(size));
            for (k, part) in data.chunks(128 << 10).enumerate() {
                inode.write((k as u64) << 17, part);
            }
            inode.check(&world);
            inode.publish();
            inode.check(&world);
            let expected = size.div_ceil(EXTENT_MAX);
            assert_eq!(
                inode.map.len() as u64,
                expected,
                "{size} bytes: one extent for each 16 MiB"
            );
        }
    }
}

#[test]
fn what_a_stream_overtakes_is_not_fed_twice() {
    let world = world();
    let mut inode = TestFile::new(&world, 1);
    inode.write(1 << 20, &noise(1, 200_000));
    inode.write(0, &noise(2, 1 << 20));
    // Begins the stream, over bytes that came before.
    inode.write(1 << 20, &noise(3, 100_000));
    inode.check(&world);
    inode.publish();
    inode.check(&world);
}

#[test]
fn a_pack_of_one_file_does_not_tell_its_length() {
    let world = world();
    let mut lengths = std::collections::BTreeSet::new();
    for size in 5_000..5_100 {
        let file = world.content.file(InodeNo(1));
        _ = now(file.write(0, &noise(1, size))).unwrap();
        let publication = now(file.seal()).unwrap();
        world.content.close_packs().unwrap();
        let pack = publication.pieces[0].1.reference.pack;
        lengths.insert(world.staging.length(pack).unwrap());
        file.published(publication);
    }
    assert!(lengths.len() <= 2, "{lengths:?}");
    assert!(lengths.iter().all(|length| crate::crypto::padme(*length) == *length), "{lengths:?}");
}

/// The length of the last pack of a file that is written sequentially.
fn last_pack(world: &World, size: usize) -> u64 {
    let file = world.content.file(InodeNo(1));
    let data = noise(1, size);
    for (n, part) in data.chunks(1 << 20).enumerate() {
        _ = now(file.write((n as u64) << 20, part)).unwrap();
    }
    let publication = now(file.seal()).unwrap();
    world.content.close_packs().unwrap();
    let pack = publication.pieces.last().unwrap().1.reference.pack;
    let length = world.staging.length(pack).unwrap();
    file.published(publication);
    length
}

#[test]
fn the_packs_of_a_large_file_tell_its_class_alone() {
    let world = world();
    let whole = EXTENT_MAX as usize;
    // By Padmé, there is a class for each half MiB from 16 to 32 MiB.
    for (from, upto) in [(whole, whole + (1 << 19)), (whole + (3 << 19), whole + (4 << 19))] {
        let lengths = [from + 1, from + 100_000, upto - 1, upto];
        let lengths = lengths.map(|size| last_pack(&world, size));
        let rest = layout::sealed_length((upto - whole) as u64) + 2 * KIB;
        assert_eq!(lengths, [rest; 4]);
    }
    // A short end is in the shared pack, which is filled to a MiB at most.
    let lengths = [(1 << 19) + 1, 1 << 20].map(|rest| last_pack(&world, whole + rest));
    assert_eq!(lengths, [layout::sealed_length(MIB) + 2 * KIB; 2]);
    // A file that is published in parts is padded once for all that was written.
    let file = world.content.file(InodeNo(2));
    let mut spent = 0;
    for n in 0..24 {
        _ = now(file.write(n << 20, &noise(2, 1 << 20))).unwrap();
        if n >= 18 {
            let publication = now(file.seal()).unwrap();
            world.content.close_packs().unwrap();
            let pack = publication.pieces.last().unwrap().1.reference.pack;
            spent += world.staging.length(pack).unwrap();
            file.published(publication);
        }
    }
    assert!(spent < 10 * MIB, "{spent}");
}

#[test]
fn j7_a_mended_pack_does_not_tell_where_it_was_cut() {
    let world = world();
    let footers = FooterKeys(world.keys.clone());
    let length = |end: u64| {
        let made = crate::upload::Footers::make(&footers, PackId([1; 16]), end);
        end + made.len() as u64
    };
    let lengths: std::collections::BTreeSet<_> = (5_000..5_100).map(length).collect();
    assert!(lengths.len() <= 2, "{lengths:?}");
    assert!(lengths.iter().all(|length| crate::crypto::padme(*length) == *length), "{lengths:?}");
    // A pack of one full extent is as long as any other such pack.
    let full = layout::sealed_length(EXTENT_MAX);
    assert_eq!(length(full), last_pack(&world, EXTENT_MAX as usize));
}

#[test]
fn a_fragmented_window_becomes_one_extent_again() {
    let world = world();
    let mut inode = TestFile::new(&world, 1);
    inode.write(0, &noise(1, 3 << 20));
    inode.publish();
    for i in 0..100 {
        inode.write(i * 20_000, &noise(i, 5000));
    }
    inode.publish();
    let window = extents::fragmented(&inode.map).unwrap();
    let range = window.start..window.end.min(inode.size);

    inode.write(7, b"new");
    rewrite(&world, &mut inode, range);
    assert_eq!(inode.map.len(), 1);
    inode.check(&world);
    inode.publish();
    inode.check(&world);
    assert_eq!(extents::fragmented(&inode.map), None);
}

#[test]
fn a_stream_that_begins_shortly_before_a_window_has_no_tiny_pack() {
    for before in [1u64, 100_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1] {
        let world = world();
        let mut inode = TestFile::new(&world, 1);
        let start = EXTENT_MAX - before;
        for i in 0..40 {
            inode.write(start + (i << 17), &noise(i, 1 << 17));
        }
        inode.check(&world);
        assert_eq!(world.closed_packs().len(), usize::from(before >= 1 << 20), "{before}");
        inode.publish();
        inode.check(&world);
        assert_eq!((inode.map.len(), inode.map[1].0), (2, EXTENT_MAX), "cut at the window");
    }
}

#[test]
fn a_stream_that_begins_within_older_buffers_does_not_shift() {
    let write = |offset, length| Op::Write(offset, 0, length);
    run(vec![
        write(None, 1 << 20),
        write(None, 1),
        write(Some(1_234_316), 66_196),
        write(None, 1_420_688),
        write(None, 1 << 20),
        write(Some(2_721_199), 1 << 20),
        write(None, 1 << 20),
    ]);
}
