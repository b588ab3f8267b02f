//! Work without a caller, and whom it must not delay.

use futures_util::FutureExt;

use super::rules::{extents_of, open_new, scattered, write};
use super::*;
use crate::records::Orphan;
use crate::types::{EXTENT_MAX, KIB};
use crate::vfs::periodic::Publisher;
use crate::vfs::remove::{STEP, cut};

/// Longer than anything here takes, unless it waits for ever.
const SOON: Duration = Duration::from_secs(60);

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.unwrap_or_else(|_| panic!("{what}: it waits"))
}

#[tokio::test]
async fn v1_a_publication_that_waits_keeps_no_other_file_waiting() {
    let world = World::new().await;
    let (a, in_a) = open_new(&world, "a").await;
    let (b, in_b) = open_new(&world, "b").await;
    write(&world, in_a, 0, b"of a").await;
    write(&world, in_b, 0, b"of b").await;
    let is_published = |ino| world.vfs().inner.content.file(ino).unpublished().is_none();
    let mut publisher = Publisher::default();
    // As if a page of the map that the publication of `a` needs did not come.
    let turn = world.vfs().inner.content.file(a).turn().await;
    publisher.begin(world.vfs(), Duration::ZERO);
    assert_eq!((is_published(a), is_published(b)), (false, true));
    // The same at the next tick, with the first still waiting.
    write(&world, in_b, 4, b", more").await;
    publisher.begin(world.vfs(), Duration::ZERO);
    assert_eq!((is_published(a), is_published(b)), (false, true));
    drop(turn);
    assert_eq!(in_time("a", publisher.next()).await, Some(a));
    assert!(is_published(a));
    assert_eq!(publisher.next().await, None, "it was begun once");
}

/// A file of 70 pieces with a hole after the 40th.
async fn pieces(world: &World, name: &str) -> (InodeNo, HandleId) {
    let (ino, handle) = open_new(world, name).await;
    for part in 0..70_u64 {
        let offset = (part + u64::from(part >= 40)) * 1000;
        write(world, handle, offset, &[part as u8 + 1; 1000]).await;
        world.vfs().flush(handle).await.unwrap();
    }
    assert_eq!(extents_of(world, ino).await.len(), 70);
    (ino, handle)
}

#[tokio::test]
async fn a_file_of_many_pieces_is_written_anew_in_the_background() {
    let mut world = World::new().await;
    let (ino, _) = pieces(&world, "f").await;
    let (before, seen) = (world.bytes(ino).await, world.vfs().attributes(ino).await.unwrap());
    world.vfs().defragment(Duration::ZERO).await;
    // Each run has as many records as one transaction removes.
    let left = extents_of(&world, ino).await;
    assert_eq!(left.len(), 40_usize.div_ceil(STEP) + 30_usize.div_ceil(STEP), "{left:?}");
    assert!(left.contains(&41_000), "the hole stays");
    assert_eq!(world.vfs().attributes(ino).await.unwrap().mtime, seen.mtime);
    world.reopen(Reopen::Kill).await;
    assert!(world.bytes(ino).await == before);
}

#[tokio::test]
async fn a_rewrite_keeps_nobody_waiting_and_gives_way_to_what_comes_between() {
    let world = World::new().await;
    let (ino, handle) = pieces(&world, "f").await;
    let vfs = world.vfs();
    let mut expected = world.bytes(ino).await;
    let runs = vfs.runs(ino, 0..EXTENT_MAX).await.unwrap();
    let mut copies = Vec::new();
    for run in &runs {
        copies.push(vfs.copy_run(ino, run).await.unwrap());
    }
    // Between the copying and the putting: a close, which publishes something in the first run.
    write(&world, handle, 500, b"closed").await;
    in_time("close", vfs.flush(handle)).await.unwrap();
    expected[500..506].copy_from_slice(b"closed");
    // And an unpublished write, which lies over whatever is published.
    write(&world, handle, 4_500, b"unpublished").await;
    expected[4_500..4_511].copy_from_slice(b"unpublished");
    let mut put = Vec::new();
    for (run, copied) in runs.iter().zip(&copies) {
        put.push(vfs.put_run(ino, run, copied).await.unwrap());
    }
    assert!(!put[0] && put[1..].iter().all(|put| *put), "{put:?}");
    assert!(world.bytes(ino).await == expected);
    vfs.flush(handle).await.unwrap();
    drop(world);

    // A truncation removes what was copied.
    let mut world = World::new().await;
    let (ino, _) = pieces(&world, "g").await;
    let mut expected = world.bytes(ino).await;
    let set = SetAttributes { size: Some(70_500), ..SetAttributes::default() };
    for run in &world.vfs().runs(ino, 0..EXTENT_MAX).await.unwrap() {
        let copied = world.vfs().copy_run(ino, run).await.unwrap();
        world.vfs().set_attributes(ino, &set).await.unwrap();
        let is_put = world.vfs().put_run(ino, run, &copied).await.unwrap();
        assert_eq!(is_put, !run.ends_after(70_500), "{run:?}");
    }
    expected.truncate(70_500);
    assert!(world.bytes(ino).await == expected);
    world.reopen(Reopen::Kill).await;
    assert!(world.bytes(ino).await == expected);
}

/// A file as if the daemon had died after the first transaction of a truncation to 64 KiB.
async fn half_cut(world: &mut World) -> (InodeNo, HandleId) {
    let (ino, _) = scattered(world, "f", STEP as u64 * 3).await;
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
    (ino, world.vfs().open(ino, WRITE).await.unwrap())
}

#[tokio::test]
async fn v3_what_stays_below_the_cut_does_not_wait_for_the_rest_of_it() {
    let mut world = World::new().await;
    let (ino, handle) = half_cut(&mut world).await;
    let before = world.transactions();
    write(&world, handle, 10, b"below").await;
    world.vfs().flush(handle).await.unwrap();
    assert_eq!(world.transactions(), before + 1, "its own");
    assert_eq!(world.vfs().orphans().await.unwrap().len(), 1);
    // A shorter truncation goes on from there.
    let set = SetAttributes { size: Some(50), ..SetAttributes::default() };
    world.vfs().set_attributes(ino, &set).await.unwrap();
    world.vfs().finish_recovery().await.unwrap();
    assert!(world.vfs().orphans().await.unwrap().is_empty());
    assert!(extents_of(&world, ino).await.iter().all(|offset| *offset < 50));
    let mut expected = vec![1; 50];
    expected[10..15].copy_from_slice(b"below");
    assert!(world.bytes(ino).await == expected);
}

#[tokio::test]
async fn v3_the_rest_of_a_cut_is_taken_away_without_a_caller() {
    let mut world = World::new().await;
    let (ino, _) = half_cut(&mut world).await;
    let periodic = world.vfs().start(&tokio::runtime::Handle::current());
    in_time("the rest of a cut", async {
        while !world.vfs().orphans().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(extents_of(&world, ino).await, [0]);
    drop(periodic);
}

/// Waits until no orphan is left.
pub(super) async fn none_left(world: &World) {
    in_time("a removal", async {
        while !world.vfs().orphans().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn v3_an_open_that_is_given_up_keeps_nothing_that_was_removed_meanwhile() {
    let world = World::new().await;
    let vfs = world.vfs();
    let periodic = vfs.start(&tokio::runtime::Handle::current());
    let ino = world.file("f", b"x").await;
    {
        let mut opening = Box::pin(vfs.open_and(ino, READ, std::future::pending::<Result<()>>()));
        assert!((&mut opening).now_or_never().is_none());
        vfs.unlink(InodeNo::ROOT, b"f").await.unwrap();
        assert_eq!(vfs.orphans().await.unwrap().len(), 1, "it may be opened still");
    }
    none_left(&world).await;
    drop(periodic);
}

#[tokio::test]
async fn v3_a_release_that_is_given_up_lets_go_all_the_same() {
    let world = World::new().await;
    let vfs = world.vfs();
    let periodic = vfs.start(&tokio::runtime::Handle::current());
    for removed_meanwhile in [false, true] {
        let (ino, handle) = open_new(&world, "f").await;
        write(&world, handle, 0, b"unpublished").await;
        let turn = vfs.inner.content.file(ino).turn().await;
        let mut releasing = Box::pin(vfs.release(handle));
        assert!((&mut releasing).now_or_never().is_none());
        if removed_meanwhile {
            vfs.unlink(InodeNo::ROOT, b"f").await.unwrap();
            assert_eq!(vfs.orphans().await.unwrap().len(), 1, "its release goes on");
        }
        drop((releasing, turn));
        assert_eq!(vfs.inner.holds.len(), 0);
        if !removed_meanwhile {
            vfs.unlink(InodeNo::ROOT, b"f").await.unwrap();
        }
        none_left(&world).await;
    }
    drop(periodic);
}

#[test]
fn v3_what_is_begun_and_given_up_is_left_over() {
    let left_over = super::super::left_over::LeftOver::default();
    left_over.begin().done();
    assert!(!left_over.take());
    drop(left_over.begin());
    assert!(left_over.take());
}

/// A truncation to nothing whose rest is trimmed later, and then the file goes, too.
#[tokio::test]
async fn v3_a_file_that_was_cut_to_nothing_and_removed_leaves_no_extent() {
    let mut world = World::new().await;
    let (ino, _held) = scattered(&world, "f", STEP as u64 * 2).await;
    let half = |draft: &mut Draft<'_>| -> Result<()> {
        let mut inode = draft.inode(ino)?.unwrap();
        assert!(!cut(draft, ino, &mut inode, 0)?, "there is more than a step");
        draft.put_inode(ino, &inode);
        Ok(())
    };
    world.vfs().change(half).await.unwrap();
    world.vfs().unlink(InodeNo::ROOT, b"f").await.unwrap();
    assert!(!extents_of(&world, ino).await.is_empty());
    world.reopen(Reopen::Kill).await;
    world.vfs().finish_recovery().await.unwrap();
    assert!(world.vfs().orphans().await.unwrap().is_empty());
    assert!(extents_of(&world, ino).await.is_empty());
}
