//! Moving the base while changes go on; and whether a record's last change is known to be in the bucket.

use super::*;

fn of_size(size: u64) -> Inode {
    Inode { size, ..Inode::default() }
}

fn count_of(world: &World, ino: u64) -> Option<u64> {
    let key = Key::Inode(InodeNo(ino)).encode();
    world.index().0.sled().get(&key).unwrap().map(|record| record.count)
}

#[tokio::test]
async fn j9_what_changes_while_a_checkpoint_is_built_stays() {
    let mut world = World::new();
    for ino in 2..8 {
        world.put(|draft| draft.put_inode(InodeNo(ino), &of_size(1))).await;
    }
    let base = world.build().await.unwrap();
    // When the base moves, some changes are in sled and some in memory.
    world.put(|draft| draft.put_inode(InodeNo(2), &of_size(2))).await;
    world.put(|draft| draft.delete_inode(InodeNo(3))).await;
    world.index().drain().unwrap();
    world.put(|draft| draft.put_inode(InodeNo(4), &of_size(2))).await;
    world.put(|draft| draft.delete_inode(InodeNo(5))).await;
    world.rebase(base);
    let sizes = |world: &World| {
        let index = world.index().clone();
        async move {
            let mut sizes = Vec::new();
            for ino in 2..8 {
                let inode = index.read(|view| view.inode(InodeNo(ino))).await.unwrap();
                sizes.push(inode.map(|inode| inode.size));
            }
            sizes
        }
    };
    let expected = [Some(2), None, Some(2), None, Some(1), Some(1)];
    assert_eq!(sizes(&world).await, expected);
    assert_eq!(world.index().rows(), 4, "what is in the base is in sled no more");
    // Tombstones stay too: they hide what this base has.
    world.index().flush().unwrap();
    world.kill();
    world.open();
    assert_eq!(sizes(&world).await, expected);
    world.checkpoint().await;
    assert_eq!((world.index().rows(), sizes(&world).await), (0, expected.to_vec()));
}

/// An index that takes in changes over missing pages cannot weigh all of them; a checkpoint of its own gives the true
/// totals.
#[tokio::test]
async fn j9_the_totals_are_right_after_a_checkpoint_whatever_was_taken_in() {
    let mut world = World::new();
    for ino in 2..50 {
        world.put(|draft| draft.put_inode(InodeNo(ino), &holds(ino))).await;
    }
    world.checkpoint().await;
    let covered = world.committer.upto();
    for ino in 2..20 {
        world.put(|draft| draft.delete_inode(InodeNo(ino))).await;
        world.put(|draft| draft.put_inode(InodeNo(ino + 20), &holds(1000))).await;
    }
    world.commit().await;
    let exact = world.index().totals();
    // A machine that has nothing: neither the index nor a page.
    world.index = None;
    let budgets = Budgets { memory: 8 * MIB, disk: 64 * MIB };
    let cold = world.dir.path().join("cold");
    world.cache = Cache::open(&cold, world.bucket.clone(), budgets).unwrap();
    let manifest = world.base.manifest().unwrap().clone();
    world.base = Base::new(manifest, world.keys.clone(), world.cache.clone());
    let options = IndexOptions {
        dir: world.dir.path().join("another index"),
        keys: world.keys.clone(),
        base: world.base.clone(),
        memory: IndexMemory::of(0),
    };
    let index = Index::open(options).unwrap();
    index.begin_at_base();
    index.replay(&world.journal.read_after(covered, usize::MAX).unwrap()).unwrap();
    assert_ne!(index.totals(), exact, "all pages are here");
    index.attach(world.journal.clone());
    world.index = Some(index);
    world.put(|draft| draft.put_inode(InodeNo(60), &holds(7))).await;
    let base = world.build().await.unwrap();
    // The checkpoint does not include what comes meanwhile.
    world.put(|draft| draft.put_inode(InodeNo(61), &holds(70))).await;
    world.rebase(base);
    let right = Totals { inodes: exact.inodes + 2, bytes: exact.bytes + 77 };
    assert_eq!(world.index().totals(), right);
    world.checkpoint().await;
    assert_eq!(world.index().totals(), right);
}

#[tokio::test]
async fn j9_each_commit_knows_the_count_that_it_reaches() {
    let mut world = World::new();
    let mut bases = Vec::new();
    for ino in 2..5 {
        world.put(|draft| draft.put_inode(InodeNo(ino), &of_size(1))).await;
        bases.push(world.build().await.unwrap());
    }
    world.index().drain().unwrap();
    let counts = |world: &World| {
        let kept = world.index().0.sled().counts().unwrap();
        assert_eq!(kept, world.index().0.layers.read().counts, "in memory as in sled");
        kept.into_iter().map(|(number, count)| (number.0, count)).collect::<Vec<_>>()
    };
    assert_eq!(counts(&world), [(1, 1), (2, 2), (3, 3)]);
    world.rebase(bases[1].clone());
    assert_eq!(counts(&world), [(2, 2), (3, 3)]);
    assert_eq!([2, 3, 4].map(|ino| count_of(&world, ino)), [None, None, Some(3)]);
    // An older base, or an empty one, is not accepted.
    world.index().rebase(bases[0].clone()).unwrap();
    world.index().rebase(Base::empty()).unwrap();
    assert_eq!(world.index().base_commit(), CommitNo(2));
    world.rebase(bases[2].clone());
    assert_eq!((counts(&world), world.index().rows()), (vec![(3, 3)], 0));
}

#[tokio::test]
async fn j9_a_base_beyond_the_point_is_not_taken() {
    let mut world = World::new();
    world.put(|draft| draft.put_inode(InodeNo(2), &of_size(1))).await;
    let base = world.build().await.unwrap();
    world.index().0.layers.write().point.commit = CommitNo(0);
    world.index().rebase(base).unwrap();
    assert_eq!(world.index().base_commit(), CommitNo(0));
    assert!(world.inode(2).await.is_some());
}

#[tokio::test]
async fn c5_a_record_is_unsent_until_a_commit_holds_its_last_change() {
    let mut world = World::new();
    let key = Key::Inode(InodeNo(2));
    let put = |world: &World, size| {
        let index = world.index().clone();
        async move {
            let put = |draft: &mut Draft<'_>| {
                draft.put_inode(InodeNo(2), &of_size(size));
                Ok::<_, Error>(())
            };
            index.change(put).await.unwrap();
        }
    };
    let is_unsent = |world: &World| {
        let (index, key) = (world.index().clone(), key.clone());
        async move { index.read(|view| view.is_unsent(&key)).await.unwrap() }
    };
    assert!(!is_unsent(&world).await, "there is none");
    put(&world, 1).await;
    assert!(is_unsent(&world).await);
    world.index().drain().unwrap();
    assert!(is_unsent(&world).await);
    // A change made after the commit was prepared, and before it is confirmed, is not in it.
    let transactions = world.journal.read_after(world.committer.upto(), usize::MAX).unwrap();
    world.committer.prepare(&transactions);
    let receipt = world.committer.attempt().await.unwrap();
    put(&world, 2).await;
    world.index().confirmed(&receipt);
    assert!(is_unsent(&world).await);
    world.commit().await;
    assert!(!is_unsent(&world).await);
    world.checkpoint().await;
    assert!(!is_unsent(&world).await, "it is in the base alone");
    put(&world, 3).await;
    assert!(is_unsent(&world).await);
}

/// A replay applies some transactions again when later ones are here already.
#[tokio::test]
async fn j4_a_replay_does_not_take_the_point_back() {
    let world = World::new();
    for size in 0..6 {
        world.put(|draft| draft.put_inode(InodeNo(2), &of_size(size))).await;
    }
    let before = world.index().point();
    let all = world.journal.read_after(Seq(0), usize::MAX).unwrap();
    world.index().replay(&all[..3]).unwrap();
    assert_eq!(world.inode(2).await.unwrap().size, 2);
    let during = world.index().point();
    assert_eq!((during.seq, during.hash), (before.seq, before.hash));
    world.index().replay(&all[3..]).unwrap();
    assert_eq!(world.inode(2).await.unwrap().size, 5);
    // Another journal starts with its own point.
    world.index().set_journal(crate::types::JournalId([9; 16]), Seq(1));
    let point = world.index().point();
    assert_eq!((point.journal, point.seq), (crate::types::JournalId([9; 16]), Seq(1)));
}

#[tokio::test]
async fn numbers_are_never_given_twice_although_the_index_is_lost() {
    let mut world = World::new();
    let mut last = InodeNo::ROOT;
    for round in 0..6 {
        for _ in 0..300 {
            let (ino, _) = world.index().change(|draft| draft.new_ino()).await.unwrap();
            assert!(ino > last, "{ino:?} after {last:?}");
            last = ino;
        }
        match round {
            0 => {
                world.open();
            }
            1 => world.checkpoint().await,
            2 => {
                world.kill();
                world.open();
            }
            3 => {
                world.index = None;
                Index::wipe(&world.dir.path().join("index")).unwrap();
                world.open();
            }
            _ => world.index().drain().unwrap(),
        }
    }
}

#[tokio::test]
async fn j9_rebase_drops_what_the_base_covers() {
    let mut world = World::new();
    for ino in 2..200 {
        let inode = Inode { size: ino, ..Inode::default() };
        world
            .index()
            .change(|draft| {
                draft.put_inode(InodeNo(ino), &inode);
                Ok::<_, Error>(())
            })
            .await
            .unwrap();
    }
    world.checkpoint().await;
    let late = Inode { size: 7, ..Inode::default() };
    world
        .index()
        .change(|draft| {
            draft.put_inode(InodeNo(5), &late);
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    world.index().drain().unwrap();
    let rows = world.index().0.layers.read().sled.scan_table(Tag::Inode).unwrap().count();
    assert_eq!(rows, 1, "only what changed since the base is in sled");
    for ino in 2..200 {
        let found = world.index().read(|view| view.inode(InodeNo(ino))).await.unwrap().unwrap();
        assert_eq!(found.size, if ino == 5 { 7 } else { ino });
    }
}

/// The point that names the new base is stored before the records that it covers are dropped.
#[tokio::test]
async fn j9_nothing_is_dropped_for_a_base_that_the_point_does_not_name() {
    let mut world = World::new();
    let put = |draft: &mut Draft<'_>| {
        draft.put_inode(InodeNo(2), &Inode::default());
        Ok::<_, Error>(())
    };
    world.index().change(put).await.unwrap();
    world.commit().await;
    // Then only the point is left to be stored.
    world.index().drain().unwrap();
    world.checkpoint().await;
    let stored = world.index().0.sled().point().unwrap().unwrap();
    let manifest = world.base.manifest().unwrap();
    assert_eq!((stored.base, stored.base_hash), (manifest.commit, manifest.commit_hash));
    assert_eq!(world.index().rows(), 0);
}
