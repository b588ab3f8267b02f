//! A large directory on a machine that has nothing of it locally.

use super::*;
use crate::store::{Fault, On, Verb};
use crate::vfs::{DirEntry, TreeRemoval};

const ENTRIES: usize = 4000;
/// How many requests may fetch it when they are brought together. (One after the other there are
/// 19.)
const TOGETHER: usize = 12;

/// Makes a directory `d` with `ENTRIES` files, in pages of a checkpoint.
async fn large_directory(world: &World) {
    let vault = world.open("a").await;
    let vfs = vault.vfs();
    let dir = vfs.mkdir(&USER, InodeNo::ROOT, b"d", 0o755).await.unwrap().ino;
    for n in 0..ENTRIES {
        let mode = libc::S_IFREG | 0o644;
        vfs.mknod(&USER, dir, format!("{n}").as_bytes(), mode, 0).await.unwrap();
    }
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    vault.close(LONG).await.unwrap();
}

/// How often the bucket was asked for an object.
fn gets(world: &World) -> usize {
    let asked = world.faulty.take_requests();
    asked.iter().filter(|request| request.verb == Verb::Get).count()
}

/// Lists a directory with all attributes, as the kernel does.
async fn listed(vfs: &Vfs, dir: InodeNo) -> Vec<DirEntry> {
    let (mut cookie, mut found) = (0, Vec::new());
    loop {
        let part = vfs.read_dir_plus(dir, cookie, 128).await.unwrap();
        let Some(last) = part.last() else { return found };
        cookie = last.cookie;
        found.extend(part);
    }
}

/// Names are in no order, so their inodes lie all over the map; still no part of it is fetched
/// twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_on_a_new_machine_has_all_attributes_and_fetches_each_part_once() {
    let world = World::new().await;
    large_directory(&world).await;
    let vault = world.open("b").await;
    let vfs = vault.vfs();
    let dir = vfs.lookup(InodeNo::ROOT, b"d").await.unwrap().ino;
    gets(&world);
    let found = listed(&vfs, dir).await;
    assert_eq!(found.len(), ENTRIES + 2);
    assert!(found.iter().all(|entry| entry.attributes.is_some()));
    let gets = gets(&world);
    assert!(gets <= TOGETHER, "{gets} requests");
    vault.close(LONG).await.unwrap();
}

/// If the store refuses requests that were brought together, inodes are looked up singly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_whose_first_requests_fail_goes_on() {
    let world = World::new().await;
    large_directory(&world).await;
    let vault = world.open("b").await;
    let vfs = vault.vfs();
    let dir = vfs.lookup(InodeNo::ROOT, b"d").await.unwrap().ino;
    let names = vfs.read_dir(dir, 0, ENTRIES + 2).await.unwrap();
    world.faulty.inject(On::next(Verb::Get, "page/").after(2).times(3), Fault::Breaks);
    let found = listed(&vfs, dir).await;
    let cookies = |list: &[DirEntry]| list.iter().map(|entry| entry.cookie).collect::<Vec<_>>();
    assert_eq!(cookies(&found), cookies(&names));
    vault.close(LONG).await.unwrap();
}

/// Like `rm -r`, without a mount.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_directory_is_removed_on_a_new_machine() {
    let world = World::new().await;
    large_directory(&world).await;
    let vault = world.open("b").await;
    let vfs = vault.vfs();
    let dir = vfs.lookup(InodeNo::ROOT, b"d").await.unwrap().ino;
    gets(&world);
    let mut removal = TreeRemoval::new(&vfs, (InodeNo::ROOT, b"d"), dir);
    let mut removed = 0;
    while let Some((_, done)) = removal.next().await.unwrap() {
        done.unwrap();
        removed += 1;
    }
    assert_eq!(removed, ENTRIES + 1);
    let gets = gets(&world);
    assert!(gets <= TOGETHER, "{gets} requests");
    vault.close(LONG).await.unwrap();
}

/// Like `find -ls` where the kernel asks for names only: each name is looked up as it comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_looked_up_next_is_asked_for_beside_what_is_waited_for() {
    let world = World::new().await;
    large_directory(&world).await;
    let vault = world.open("b").await;
    let vfs = vault.vfs();
    let dir = vfs.lookup(InodeNo::ROOT, b"d").await.unwrap().ino;
    let names = vfs.read_dir(dir, 0, ENTRIES + 2).await.unwrap();
    let slowly = Fault::Delays(Duration::from_millis(100));
    world.faulty.inject(On::next(Verb::Get, "page/").always(), slowly);
    gets(&world);
    let mut most = 0;
    for entry in names.iter().skip(2).take(200) {
        vfs.lookup(dir, &entry.name).await.unwrap();
        most = most.max(gets(&world));
    }
    // One at a time, except from the third on.
    assert!(most > 1, "{most} requests at once");
    vault.close(LONG).await.unwrap();
}
