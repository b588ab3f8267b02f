//! Reading small files one after the other.

use super::*;
use crate::types::InodeNo;

/// Small files with inode numbers from 100 on, each in a pack of its own, as if written days apart.
fn apart(world: &World, count: u64) -> Vec<(InodeNo, Extent)> {
    let one = |number| (InodeNo(number), world.lone(&noise(number, 4096)).remove(0).1);
    (100..100 + count).map(one).collect()
}

/// Reads file `at` as a mount does; `files` stands for the map.
async fn read_one(world: &World, files: &[(InodeNo, Extent)], at: usize) {
    let (ino, extent) = &files[at];
    let list = [(0, extent.clone())];
    let read = world.read(&list, 0..4096);
    let ahead = async {
        let Some(look) = world.content.look_ahead(*ino, extent) else { return };
        let found: Vec<_> =
            files.iter().filter(|(ino, _)| look.range.contains(ino)).cloned().collect();
        world.content.fetch_ahead(&look, &found, look.range.end);
    };
    let (read, ()) = tokio::join!(read, ahead);
    assert_eq!(read.unwrap(), noise(ino.0, 4096));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_lie_apart_are_fetched_ahead_each_once() {
    let world = World::new();
    let files = apart(&world, 300);
    for at in 0..6 {
        read_one(&world, &files, at).await;
    }
    world.settled().await;
    let usage = world.reader().cache.usage();
    assert_eq!(usage.fetches, 300, "{usage:?}");
    for at in 6..files.len() {
        read_one(&world, &files, at).await;
    }
    assert_eq!(world.reader().cache.usage().fetches, 300, "each was there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_file_brings_no_other_and_neither_do_files_that_were_not_made_together() {
    let world = World::new();
    let mut files = apart(&world, 8);
    for (n, (ino, _)) in (0..).zip(&mut files) {
        ino.0 += n * 100_000;
    }
    for (n, (ino, extent)) in (100..).zip(&files) {
        assert_eq!(world.read(&[(0, extent.clone())], 0..4096).await.unwrap(), noise(n, 4096));
        assert_eq!(world.content.look_ahead(*ino, extent), None);
    }
    assert_eq!(world.reader().cache.usage().fetches, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_here_is_not_fetched_and_nothing_is_where_nobody_may_read_ahead() {
    let mut world = World::new();
    let files = apart(&world, 100);
    for at in 0..files.len() {
        read_one(&world, &files, at).await;
    }
    world.settled().await;
    world.restart();
    for at in 0..files.len() {
        read_one(&world, &files, at).await;
    }
    assert_eq!(world.reader().cache.usage().fetches, 0, "all of it is on the disk");

    let world = World::new();
    world.content.limit_read_ahead(Some(0));
    let files = apart(&world, 100);
    for at in 0..20 {
        read_one(&world, &files, at).await;
    }
    assert_eq!(world.reader().cache.usage().fetches, 20);
}
