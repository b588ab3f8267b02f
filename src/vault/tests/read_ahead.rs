//! Read-ahead: small files come ahead of a reader that reads one after the other, wherever the map has them; of large
//! files each piece is fetched once.

use super::*;
use crate::store::{Fault, On, Verb};

const COUNT: usize = 150;

/// Writes files that are each in a pack of its own, like files written days apart.
async fn written_apart(world: &World, checkpoint: bool) {
    let vault = world.open("a").await;
    for n in 0..COUNT {
        write(&vault.vfs(), &format!("file {n}"), &bytes(n, 3000)).await;
        vault.sync(LONG).await.unwrap();
    }
    if checkpoint {
        vault.checkpoint().await.unwrap();
    }
    vault.close(LONG).await.unwrap();
}

async fn come_ahead(from_pages: bool) {
    let world = World::new().await;
    written_apart(&world, from_pages).await;
    let vault = world.open("b").await;
    let (vfs, mut packs) = (vault.vfs(), 0);
    world.faulty.take_requests();
    for n in 0..10 {
        assert_eq!(read(&vfs, format!("file {n}").as_bytes()).await, bytes(n, 3000));
    }
    let begun = std::time::Instant::now();
    while packs < COUNT {
        assert!(begun.elapsed() < LONG, "{packs} packs");
        tokio::time::sleep(Duration::from_millis(5)).await;
        let asked = world.faulty.take_requests();
        packs += asked.iter().filter(|request| request.name.starts_with("pack/")).count();
    }
    // They are at least under way: a reader waits for them, and requests nothing.
    for n in 10..COUNT {
        assert_eq!(read(&vfs, format!("file {n}").as_bytes()).await, bytes(n, 3000));
    }
    let asked = world.faulty.take_requests();
    let again: Vec<_> = asked.iter().filter(|request| request.name.starts_with("pack/")).collect();
    assert!(again.is_empty(), "{again:?}");
    vault.close(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_come_ahead_of_their_reader() {
    come_ahead(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_files_come_ahead_where_the_map_is_in_pages() {
    come_ahead(true).await;
}

/// If read-ahead fails, the reader still gets what it asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_ahead_is_asked_for_again() {
    let world = World::new().await;
    written_apart(&world, false).await;
    let vault = world.open("b").await;
    let vfs = vault.vfs();
    world.faulty.inject(On::next(Verb::Get, "pack/").after(12).times(20), Fault::Breaks);
    for n in 0..COUNT {
        assert_eq!(read(&vfs, format!("file {n}").as_bytes()).await, bytes(n, 3000));
    }
    vault.close(LONG).await.unwrap();
}

/// Many readers at the same time: each has little memory, but nothing is fetched twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_of_large_files_have_each_piece_once() {
    const READERS: usize = 6;
    const LENGTH: usize = 8 << 20;
    const REQUEST: usize = 128 << 10;
    let world = World::new().await;
    let vault = world.open("a").await;
    let content: Vec<_> = (0..READERS).map(|n| bytes(n, LENGTH)).collect();
    for (n, content) in content.iter().enumerate() {
        write(&vault.vfs(), &format!("large {n}"), content).await;
    }
    vault.close(LONG).await.unwrap();
    let vault = world.open("b").await;
    let vfs = vault.vfs();
    let mut handles = Vec::new();
    for n in 0..READERS {
        let found = vfs.lookup(InodeNo::ROOT, format!("large {n}").as_bytes()).await.unwrap();
        let flags = OpenFlags { read: true, ..OpenFlags::default() };
        handles.push(vfs.open(found.ino, flags).await.unwrap());
    }
    for at in (0..LENGTH).step_by(REQUEST) {
        for (handle, content) in handles.iter().zip(&content) {
            let got = vfs.read_data(*handle, at as u64, 128 << 10).await.unwrap();
            assert!(got == content[at..at + REQUEST], "at {at}");
        }
    }
    let usage = vault.cache().usage();
    let all = (READERS * LENGTH) as u64;
    assert!(usage.fetched_bytes < all / 100 * 103, "{usage:?}");
    for handle in handles {
        vfs.release(handle).await.unwrap();
    }
    vault.close(LONG).await.unwrap();
}
