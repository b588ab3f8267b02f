//! The rules of `PROTOCOL.md` that the vfs keeps, one by one.

use super::*;
use crate::index::View;
use crate::records::Orphan;
use crate::types::Extent;
use crate::vfs::periodic::Publisher;
use crate::vfs::remove::STEP;

const KIB: u64 = crate::types::KIB;

pub(super) async fn open_new(world: &World, name: &str) -> (InodeNo, HandleId) {
    let made = world.vfs().create(&ALICE, InodeNo::ROOT, name.as_bytes(), 0o644, WRITE).await;
    let (seen, handle) = made.unwrap();
    (seen.ino, handle)
}

pub(super) async fn write(world: &World, handle: HandleId, offset: u64, data: &[u8]) {
    world.vfs().write(handle, WriteAt::Offset(offset), data).await.unwrap();
}

/// A file with `count` extents that do not touch, each published by itself.
pub(super) async fn scattered(world: &World, name: &str, count: u64) -> (InodeNo, HandleId) {
    let (ino, handle) = open_new(world, name).await;
    for part in 0..count {
        write(world, handle, part * 64 * KIB, &[part as u8 + 1; 100]).await;
        world.vfs().flush(handle).await.unwrap();
    }
    (ino, handle)
}

pub(super) async fn extents_of(world: &World, ino: InodeNo) -> Vec<u64> {
    published(world, ino).await.into_iter().map(|(offset, _)| offset).collect()
}

/// All extents of a file that are in the map, even of one that has just been removed.
pub(super) async fn published(world: &World, ino: InodeNo) -> Vec<(u64, Extent)> {
    let all = |view: &View<'_>| {
        let inode = view.inode(ino)?.unwrap_or_default();
        Ok(view.extents_from(ino, &inode, 0, usize::MAX)?)
    };
    world.vfs().read(all).await.unwrap()
}

#[tokio::test]
async fn v1_one_transaction_publishes_the_writes_of_all_handles() {
    let mut world = World::new().await;
    let (ino, first) = open_new(&world, "f").await;
    let second = world.vfs().open(ino, WRITE).await.unwrap();
    let before = world.transactions();
    write(&world, first, 0, b"first").await;
    write(&world, second, 5, b"second").await;
    assert_eq!(world.transactions(), before, "write journals nothing");
    world.vfs().flush(first).await.unwrap();
    assert_eq!(world.transactions(), before + 1);
    world.vfs().flush(second).await.unwrap();
    assert_eq!(world.transactions(), before + 1, "nothing is left to publish");
    world.reopen(Reopen::Kill).await;
    assert_eq!(world.bytes(ino).await, b"firstsecond");
}

#[tokio::test]
async fn v1_a_dead_daemon_leaves_each_file_as_it_was_at_one_moment() {
    let mut world = World::new().await;
    let ino = world.file("f", b"old content").await;
    let handle = world.vfs().open(ino, WRITE).await.unwrap();
    write(&world, handle, 0, b"NEW").await;
    write(&world, handle, 100, b"and longer").await;
    assert_eq!(world.vfs().attributes(ino).await.unwrap().size, 110);
    world.reopen(Reopen::Kill).await;
    assert_eq!(world.bytes(ino).await, b"old content");
}

#[tokio::test]
async fn v1_what_is_old_is_published_without_a_close() {
    let mut world = World::new().await;
    let (ino, handle) = open_new(&world, "f").await;
    write(&world, handle, 0, b"kept open").await;
    let mut publisher = Publisher::default();
    publisher.begin(world.vfs(), Duration::from_secs(30));
    let before = world.transactions();
    publisher.begin(world.vfs(), Duration::ZERO);
    assert_eq!(world.transactions(), before + 1);
    world.reopen(Reopen::Kill).await;
    assert_eq!(world.bytes(ino).await, b"kept open");
}

#[tokio::test]
async fn v1_a_publication_that_fails_keeps_the_writes_and_says_so_at_each_close() {
    let mut world = World::new().await;
    let (_, handle) = open_new(&world, "f").await;
    write(&world, handle, 0, b"precious").await;
    world.vfs().inner.index.make_read_only("planted");
    assert_eq!(world.vfs().flush(handle).await.unwrap_err().errno(), libc::EROFS);
    assert_eq!(world.vfs().fsync(handle).await.unwrap_err().errno(), libc::EROFS);
    let read = world.vfs().read_data(handle, 0, 100).await.unwrap();
    assert_eq!(&read[..], b"precious");
    assert_eq!(world.vfs().publish_all().await.unwrap_err().errno(), libc::EROFS);
    world.reopen(Reopen::Kill).await;
}

#[tokio::test]
async fn v2_a_rename_publishes_what_was_written() {
    let mut world = World::new().await;
    let old = world.file("f", b"old").await;
    let (new, handle) = open_new(&world, "f.tmp").await;
    write(&world, handle, 0, b"new").await;
    let before = world.transactions();
    let root = InodeNo::ROOT;
    world.vfs().rename((root, b"f.tmp"), (root, b"f"), RenameMode::Replace).await.unwrap();
    assert_eq!(world.transactions(), before + 1);
    world.reopen(Reopen::Kill).await;
    let seen = world.vfs().lookup(root, b"f").await.unwrap();
    assert_eq!((seen.ino, seen.size), (new, 3));
    assert_eq!(world.bytes(new).await, b"new");
    assert!(matches!(world.vfs().attributes(old).await, Err(Error::Stale)));
}

#[tokio::test]
async fn v2_an_exchange_publishes_both() {
    let mut world = World::new().await;
    let (a, in_a) = open_new(&world, "a").await;
    let (b, in_b) = open_new(&world, "b").await;
    write(&world, in_a, 0, b"of a").await;
    write(&world, in_b, 0, b"of b").await;
    let before = world.transactions();
    let root = InodeNo::ROOT;
    world.vfs().rename((root, b"a"), (root, b"b"), RenameMode::Exchange).await.unwrap();
    assert_eq!(world.transactions(), before + 1);
    world.reopen(Reopen::Kill).await;
    assert_eq!(world.vfs().lookup(root, b"a").await.unwrap().ino, b);
    assert_eq!(world.bytes(a).await, b"of a");
    assert_eq!(world.bytes(b).await, b"of b");
}

#[tokio::test]
async fn v2_a_rename_that_does_nothing_loses_nothing() {
    let mut world = World::new().await;
    let (ino, handle) = open_new(&world, "a").await;
    let root = InodeNo::ROOT;
    world.vfs().link(ino, root, b"b").await.unwrap();
    write(&world, handle, 0, b"written").await;
    world.vfs().rename((root, b"a"), (root, b"b"), RenameMode::Replace).await.unwrap();
    world.vfs().lookup(root, b"a").await.unwrap();
    world.vfs().flush(handle).await.unwrap();
    world.reopen(Reopen::Kill).await;
    assert_eq!(world.bytes(ino).await, b"written");
}

#[tokio::test]
async fn v2_setattr_and_link_publish_what_was_written() {
    let mut world = World::new().await;
    let (ino, handle) = open_new(&world, "f").await;
    let time = Timestamp { seconds: 1_000_000_000, nanos: 123_456_789 };
    let set = SetAttributes { mtime: Some(SetTime::To(time)), ..SetAttributes::default() };
    write(&world, handle, 0, b"one").await;
    let before = world.transactions();
    world.vfs().set_attributes(ino, &set).await.unwrap();
    assert_eq!(world.transactions(), before + 1);
    // As `cp -a` does: its close has nothing left to publish, so the time that it set stays.
    world.vfs().flush(handle).await.unwrap();
    world.vfs().release(handle).await.unwrap();
    assert_eq!(world.transactions(), before + 1);
    assert_eq!(world.vfs().attributes(ino).await.unwrap().mtime, time);

    let handle = world.vfs().open(ino, WRITE).await.unwrap();
    write(&world, handle, 3, b" two").await;
    world.vfs().link(ino, InodeNo::ROOT, b"g").await.unwrap();
    assert_eq!(world.transactions(), before + 2);
    world.reopen(Reopen::Kill).await;
    assert_eq!(world.bytes(ino).await, b"one two");
    assert_eq!(world.vfs().attributes(ino).await.unwrap().nlink, 2);
}

#[tokio::test]
async fn v2_a_truncation_publishes_what_it_leaves() {
    let mut world = World::new().await;
    let (ino, handle) = open_new(&world, "f").await;
    write(&world, handle, 0, b"long content").await;
    let set = SetAttributes { size: Some(4), ..SetAttributes::default() };
    let before = world.transactions();
    assert_eq!(world.vfs().set_attributes(ino, &set).await.unwrap().size, 4);
    assert_eq!(world.transactions(), before + 1);
    let set = SetAttributes { size: Some(8), ..SetAttributes::default() };
    world.vfs().set_attributes(ino, &set).await.unwrap();
    world.reopen(Reopen::Kill).await;
    assert_eq!(world.bytes(ino).await, b"long\0\0\0\0");
}

#[tokio::test]
async fn v2_a_truncation_takes_what_it_publishes() {
    let mut world = World::new().await;
    let ino = world.file("f", b"published").await;
    let handle = world.vfs().open(ino, WRITE).await.unwrap();
    write(&world, handle, 100, b"not published").await;
    let set = |size| SetAttributes { size: Some(size), ..SetAttributes::default() };
    world.vfs().set_attributes(ino, &set(0)).await.unwrap();
    assert!(extents_of(&world, ino).await.is_empty());
    write(&world, handle, 200, b"again").await;
    world.vfs().allocate(handle, 0, 0..300).await.unwrap();
    let bytes = world.bytes(ino).await;
    assert!(bytes.len() == 300 && bytes[..200].iter().all(|byte| *byte == 0));
    world.reopen(Reopen::Kill).await;
}

#[tokio::test]
async fn v3_an_unlinked_file_lives_until_its_last_close() {
    let mut world = World::new().await;
    let (ino, handle) = open_new(&world, "f").await;
    write(&world, handle, 0, b"still here").await;
    world.vfs().unlink(InodeNo::ROOT, b"f").await.unwrap();
    assert_eq!(world.vfs().attributes(ino).await.unwrap().nlink, 0);
    write(&world, handle, 10, b", and written to").await;
    let read = world.vfs().read_data(handle, 0, 100).await.unwrap();
    assert_eq!(&read[..], b"still here, and written to");
    assert_eq!(world.vfs().orphans().await.unwrap().len(), 1);
    world.vfs().flush(handle).await.unwrap();
    world.vfs().release(handle).await.unwrap();
    assert!(matches!(world.vfs().attributes(ino).await, Err(Error::Stale)));
    assert!(world.vfs().orphans().await.unwrap().is_empty());
    // The same, but the daemon dies before the close.
    let (ino, handle) = scattered(&world, "g", STEP as u64 * 3).await;
    world.vfs().unlink(InodeNo::ROOT, b"g").await.unwrap();
    write(&world, handle, 0, b"unpublished").await;
    world.reopen(Reopen::Kill).await;
    assert!(matches!(world.vfs().attributes(ino).await, Err(Error::Stale)));
    assert!(world.vfs().orphans().await.unwrap().is_empty());
    assert!(extents_of(&world, ino).await.is_empty());
}

#[tokio::test]
async fn v3_a_large_removal_goes_in_bounded_transactions() {
    let world = World::new().await;
    let (ino, handle) = scattered(&world, "f", STEP as u64 * 3 + 1).await;
    world.vfs().release(handle).await.unwrap();
    assert_eq!(extents_of(&world, ino).await.len(), STEP * 3 + 1);
    let before = world.transactions();
    world.vfs().unlink(InodeNo::ROOT, b"f").await.unwrap();
    assert_eq!(world.transactions(), before + 4);
    assert!(extents_of(&world, ino).await.is_empty());
    assert!(world.vfs().orphans().await.unwrap().is_empty());
}

#[tokio::test]
async fn v3_a_large_truncation_goes_in_bounded_transactions() {
    let mut world = World::new().await;
    let (ino, handle) = scattered(&world, "f", STEP as u64 * 3 + 1).await;
    let before = world.transactions();
    let set = SetAttributes { size: Some(50), ..SetAttributes::default() };
    let seen = world.vfs().set_attributes(ino, &set).await.unwrap();
    assert_eq!((seen.size, seen.blocks), (50, 1));
    assert_eq!(world.transactions(), before + 4);
    assert_eq!(extents_of(&world, ino).await, [0]);
    assert!(world.vfs().orphans().await.unwrap().is_empty());
    write(&world, handle, 640 * KIB, b"end").await;
    world.vfs().flush(handle).await.unwrap();
    world.reopen(Reopen::Kill).await;
    let bytes = world.bytes(ino).await;
    assert!(bytes[..50] == [1; 50] && bytes[50..640 * 1024].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn v3_what_would_raise_the_size_waits_for_the_rest_of_a_truncation() {
    let mut world = World::new().await;
    let (ino, _) = scattered(&world, "f", STEP as u64 * 3).await;
    // As if the daemon had died after the first transaction of a truncation.
    let half = |draft: &mut Draft<'_>| -> Result<()> {
        let mut inode = draft.inode(ino)?.unwrap();
        inode.size = 64 * KIB;
        draft.put_inode(ino, &inode);
        draft.put_orphan(ino, &Orphan::beyond(64 * KIB));
        Ok(())
    };
    world.vfs().change(half).await.unwrap();
    world.vfs = None;
    world.open().await;
    assert_eq!(world.bytes(ino).await.len() as u64, 64 * KIB, "what is beyond the end is not seen");
    // The rest is not finished yet: whoever extends the file finishes it first.
    let handle = world.vfs().open(ino, WRITE).await.unwrap();
    write(&world, handle, 700 * KIB, b"end").await;
    world.vfs().flush(handle).await.unwrap();
    let bytes = world.bytes(ino).await;
    assert!(bytes[100..700 * 1024].iter().all(|byte| *byte == 0), "what was cut off came back");
    assert!(world.vfs().orphans().await.unwrap().is_empty());
    world.vfs().release(handle).await.unwrap();
    world.reopen(Reopen::Clean).await;
    assert_eq!(extents_of(&world, ino).await, [0, 700 * KIB]);
}

#[tokio::test]
async fn v4_a_shared_copy_refers_to_what_the_map_says_now() {
    let mut world = World::new().await;
    let first: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
    let source = world.file("source", &first).await;
    let from = world.vfs().open(source, WRITE).await.unwrap();
    write(&world, from, 1000, b"newer than what is published").await;
    let (copy, to) = open_new(&world, "copy").await;
    let mut done = 0;
    while done < 200_000 {
        let copied = world.vfs().copy_range((from, done), (to, done), 200_000 - done).await;
        done += copied.unwrap();
    }
    let source_refers = published(&world, source).await;
    let copy_refers = published(&world, copy).await;
    assert_eq!(source_refers, copy_refers, "the same messages, no bytes moved");
    write(&world, from, 0, b"written after").await;
    world.vfs().release(from).await.unwrap();
    world.vfs().unlink(InodeNo::ROOT, b"source").await.unwrap();
    world.reopen(Reopen::Kill).await;
    let mut expected = first;
    expected[1000..1028].copy_from_slice(b"newer than what is published");
    assert!(world.bytes(copy).await == expected);
}
