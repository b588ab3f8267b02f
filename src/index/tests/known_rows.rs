//! Look-ups of what has not changed since the base do not ask sled. In these tests it fails whoever asks it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::*;

fn key(ino: u64) -> Vec<u8> {
    Key::Inode(InodeNo(ino)).encode()
}

/// A vault whose base has the inodes from 2 to 39. Those from 30 on changed again.
async fn world() -> World {
    let mut world = World::new();
    for ino in 2..40 {
        world.put(|draft| draft.put_inode(InodeNo(ino), &holds(1))).await;
        world.put(|draft| draft.put_entry(InodeNo(ino), &entry(ino))).await;
    }
    let base = world.build().await.unwrap();
    for ino in 30..40 {
        world.put(|draft| draft.put_inode(InodeNo(ino), &holds(2))).await;
    }
    world.index().drain().unwrap();
    world.rebase(base);
    world
}

fn entry(ino: u64) -> Entry {
    Entry { name: b"name".to_vec(), ino: InodeNo(ino), kind: 0 }
}

async fn is_read_without_sled(world: &World) {
    world.index().fail(true);
    for ino in 2..30 {
        assert!(world.inode(ino).await.is_some());
        let list = |view: &View<'_>| view.entries(InodeNo(ino), None, 10);
        assert_eq!(world.index().read(list).await.unwrap().len(), 1);
    }
    let changed = world.index().read(|view| view.inode(InodeNo(30))).await;
    assert!(matches!(changed, Err(Error::Damaged(_))), "it lies in sled");
}

#[tokio::test]
async fn what_a_base_covers_is_read_without_sled() {
    is_read_without_sled(&world().await).await;
}

#[tokio::test]
async fn a_database_that_was_there_before_is_looked_through_once() {
    let mut world = world().await;
    world.index().flush().unwrap();
    world.open();
    let begun = Instant::now();
    while world.index().0.sled().may_have(&key(2)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody looks");
        tokio::task::yield_now().await;
    }
    is_read_without_sled(&world).await;
}

#[tokio::test]
async fn what_is_written_while_the_rows_are_looked_through_is_found() {
    let world = world().await;
    let sled = world.index().0.sled();
    let is_written = AtomicBool::new(false);
    // It comes after the look has begun, and most rows lie behind.
    let goes_on = || {
        if !is_written.swap(true, Relaxed) {
            let written = std::thread::scope(|scope| {
                let all = scope.spawn(|| {
                    let mut memtable = Memtable::default();
                    for ino in 2..30 {
                        memtable.insert(key(ino), DeltaRecord { count: 999, value: None });
                    }
                    sled.apply(&memtable, &BTreeMap::new(), &world.index().point())
                });
                all.join().unwrap()
            });
            written.unwrap();
        }
        true
    };
    sled.learn_rows(goes_on).unwrap();
    for ino in 2..40 {
        assert!(sled.get(&key(ino)).unwrap().is_some(), "{ino}");
    }
    assert!(!sled.may_have(&key(50)));
}
