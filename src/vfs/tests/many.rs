//! Files with more extents than one transaction holds (V1, V2). Transactions are small in these tests; everything else
//! is as usual.

use super::rules::{extents_of, open_new, published, write};
use super::*;
use crate::types::KIB;

/// Room for 256 replaced records, or 32 pieces.
const RECORDS: u64 = 16 * KIB;
/// More than seven transactions hold.
const COUNT: u64 = 2000;
/// From the beginning of one extent to that of the next, in bytes.
const STRIDE: u64 = 16;

async fn world() -> World {
    World::of_small_transactions(RECORDS).await
}

/// A file of `COUNT` extents of one byte each, and its content.
async fn fine(world: &World, name: &str) -> (InodeNo, HandleId, Vec<u8>) {
    let (ino, handle) = open_new(world, name).await;
    let mut bytes = vec![0; (COUNT * STRIDE) as usize];
    for at in (0..COUNT * STRIDE).step_by(STRIDE as usize) {
        write(world, handle, at, b"x").await;
        bytes[at as usize] = b'x';
    }
    world.vfs().allocate(handle, 0, 0..COUNT * STRIDE).await.unwrap();
    assert_eq!(extents_of(world, ino).await.len() as u64, COUNT);
    (ino, handle, bytes)
}

/// Checks that transactions were as short as they should be, and that the content is there, also after a kill.
async fn ends_well(mut world: World, ino: InodeNo, expected: &[u8]) {
    assert!(world.longest() < RECORDS as usize, "{} bytes", world.longest());
    assert!(world.bytes(ino).await == expected);
    world.reopen(Reopen::Kill).await;
    assert!(world.bytes(ino).await == expected);
}

#[tokio::test]
async fn v1_what_replaces_more_records_than_a_transaction_holds_is_published_in_time() {
    let world = world().await;
    let (ino, handle, mut bytes) = fine(&world, "f").await;
    for at in (0..COUNT * STRIDE).step_by(10_000) {
        let part = &mut bytes[at as usize..][..10_000.min((COUNT * STRIDE - at) as usize)];
        part.fill(at as u8);
        write(&world, handle, at, part).await;
    }
    world.vfs().flush(handle).await.unwrap();
    ends_well(world, ino, &bytes).await;
}

#[tokio::test]
async fn v1_one_write_over_more_than_a_transaction_holds_goes_in_parts() {
    let world = world().await;
    let (ino, handle, mut bytes) = fine(&world, "f").await;
    write(&world, handle, 0, b"unpublished").await;
    bytes.fill(7);
    write(&world, handle, 0, &bytes).await;
    let appended = world.vfs().write(handle, WriteAt::End, &[8; 5000]).await.unwrap();
    assert_eq!(appended, 5000);
    bytes.extend([8; 5000]);
    world.vfs().fsync(handle).await.unwrap();
    ends_well(world, ino, &bytes).await;
}

#[tokio::test]
async fn v1_a_copy_over_many_records_goes_in_steps() {
    let world = world().await;
    let (ino, to, mut bytes) = fine(&world, "f").await;
    let (_, from) = open_new(&world, "g").await;
    write(&world, from, 0, &vec![9; 20_000]).await;
    write(&world, to, 3, b"unpublished").await;
    let (mut done, length) = (0, 20_000);
    while done < length {
        let copied = world.vfs().copy_range((from, done), (to, done), length - done).await.unwrap();
        assert!(copied > 0);
        done += copied;
    }
    bytes[..length as usize].fill(9);
    ends_well(world, ino, &bytes).await;
}

#[tokio::test]
async fn v2_what_else_publishes_many_records_does_so_first() {
    let root = InodeNo::ROOT;
    let keep = libc::FALLOC_FL_KEEP_SIZE;
    for what in 0..6 {
        let world = world().await;
        let (ino, handle, mut bytes) = fine(&world, "f").await;
        let (_, in_other) = open_new(&world, "g").await;
        // Most of what one transaction takes, and as much in another file.
        write(&world, handle, 0, &[5; 2900]).await;
        bytes[..2900].fill(5);
        for at in 0..25 {
            write(&world, in_other, at * 100, b"o").await;
        }
        let before = world.transactions();
        let vfs = world.vfs();
        match what {
            0 => vfs.rename((root, b"f"), (root, b"h"), RenameMode::Replace).await.unwrap(),
            1 => vfs.rename((root, b"f"), (root, b"g"), RenameMode::Exchange).await.unwrap(),
            2 => drop(vfs.link(ino, root, b"h").await.unwrap()),
            3 => {
                let set = SetAttributes { size: Some(20_000), ..SetAttributes::default() };
                vfs.set_attributes(ino, &set).await.unwrap();
                bytes.truncate(20_000);
            }
            4 => {
                vfs.allocate(handle, keep | libc::FALLOC_FL_PUNCH_HOLE, 100..1000).await.unwrap();
                bytes[100..1000].fill(0);
            }
            _ => {
                vfs.allocate(handle, libc::FALLOC_FL_ZERO_RANGE, 0..20_000).await.unwrap();
                bytes[..20_000].fill(0);
            }
        }
        assert!(world.transactions() > before + 1, "{what}: large, so by itself");
        ends_well(world, ino, &bytes).await;
    }
}

#[tokio::test]
async fn v1_pieces_far_apart_find_their_records() {
    let world = world().await;
    let (ino, handle, mut bytes) = fine(&world, "f").await;
    // Each piece lies over a few records, with many between pieces: more than one look at the map returns.
    for at in (0..COUNT * STRIDE - 100).step_by(1500) {
        write(&world, handle, at, &[6; 50]).await;
        bytes[at as usize..][..50].fill(6);
    }
    world.vfs().flush(handle).await.unwrap();
    let seen = world.vfs().attributes(ino).await.unwrap();
    let list = published(&world, ino).await;
    let held: u64 = list.iter().map(|(_, extent)| extent.length).sum();
    assert_eq!(seen.blocks, held.div_ceil(512));
    ends_well(world, ino, &bytes).await;
}

#[tokio::test]
async fn v1_a_write_is_refused_rather_than_added_to_what_cannot_be_published() {
    let world = world().await;
    let (_, handle, mut bytes) = fine(&world, "f").await;
    world.vfs().inner.index.make_read_only("planted");
    let mut refused = 0;
    for at in (0..COUNT * STRIDE).step_by(1000) {
        match world.vfs().write(handle, WriteAt::Offset(at), &[4; 1000]).await {
            Ok(_) => bytes[at as usize..][..1000].fill(4),
            Err(error) => {
                assert_eq!(error.errno(), libc::EROFS);
                refused += 1;
            }
        }
    }
    assert!(refused >= 20, "{refused}");
    let read = world.vfs().read_data(handle, 0, u32::MAX).await.unwrap();
    assert!(read == bytes, "what was accepted is there, nothing else");
}
