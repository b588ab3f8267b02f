//! Checkpoints that are made while the vault is used (K1), against a replay of the log.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::*;
use crate::checkpoint::{Base, Manifest, Pins, newest};
use crate::log::{Chain, ChainedCommit, Error as LogError};
use crate::types::{CommitNo, Hash};

/// All records after the commits up to `upto`, in the order of the map. Pack rows are only in
/// checkpoints.
async fn replayed(world: &World, keys: &Keys, upto: CommitNo) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut map = BTreeMap::new();
    let chain = Chain::new(world.bucket.clone(), keys.clone());
    let apply = |link: ChainedCommit| {
        for change in link.content.changes()? {
            match change.value {
                Some(value) => map.insert(change.key, value.to_vec()),
                None => map.remove(&change.key),
            };
        }
        Ok::<_, LogError>(())
    };
    chain.walk((CommitNo(0), Hash::ZERO), upto, apply).await.unwrap();
    map
}

/// All records of a checkpoint, except pack rows.
async fn checkpointed(base: &Base) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut map = BTreeMap::new();
    let mut pins = Pins::new();
    let mut from: Option<Vec<u8>> = None;
    loop {
        let start = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        match base.next(start, Bound::Unbounded, &pins) {
            Ok(None) => return map,
            Ok(Some((key, value))) => {
                if key[0] != 8 {
                    map.insert(key.to_vec(), value.to_vec());
                }
                from = Some(key.to_vec());
            }
            Err(miss) => base.fetch(&miss, &mut pins).await.unwrap(),
        }
    }
}

async fn manifest(world: &World, keys: &Keys) -> Manifest {
    newest(&world.bucket, keys).await.unwrap().manifest.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn k1_a_checkpoint_made_while_eight_write_equals_a_replay() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let keys = vault.options().unlocked.keys.clone();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let vfs = vault.vfs();
        writers.spawn(async move {
            for round in 0..60 {
                let name = format!("w{writer}-{}", round % 17);
                write(&vfs, &name, &bytes(round, 100 * (round % 5) + 1)).await;
                if round % 7 == 3 {
                    vfs.unlink(InodeNo::ROOT, name.as_bytes()).await.unwrap();
                }
                tokio::task::yield_now().await;
            }
        });
    }
    let mut compared = 0;
    while !writers.is_empty() {
        vault.sync(LONG).await.unwrap();
        vault.checkpoint().await.unwrap();
        let found = manifest(&world, &keys).await;
        let base = Base::new(found.clone(), keys.clone(), vault.cache().clone());
        assert_eq!(checkpointed(&base).await, replayed(&world, &keys, found.commit).await);
        compared += 1;
        while let Some(done) = writers.try_join_next() {
            done.unwrap();
        }
    }
    assert!(compared > 0);
    let model = tree(&vault).await;
    vault.close(LONG).await.unwrap();
    drop(vault);
    world.shows_elsewhere(&model).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_a_manifest_that_cannot_be_trusted_is_not_used() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let model = fill(&vault, "x").await;
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    vault.close(LONG).await.unwrap();
    drop(vault);
    let name = world.store.names().into_iter().find(|n| n.starts_with("checkpoint/")).unwrap();
    let mut damaged = world.store.peek(&name).unwrap().to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    world.store.plant(&name, damaged);
    let elsewhere = world.open("b").await;
    assert_eq!(tree(&elsewhere).await, model, "the log from its beginning is still whole");
    elsewhere.close(LONG).await.unwrap();
}

/// What a vault in use leaves in the bucket passes `check`, including its pack table (K3).
#[tokio::test(flavor = "multi_thread")]
async fn k3_check_finds_a_vault_in_use_whole_and_its_packs_counted() {
    let world = World::new().await;
    let vault = world.open("a").await;
    let unlocked = vault.options().unlocked.clone();
    for round in 0..4 {
        fill(&vault, &format!("x{round}-")).await;
        if round > 0 {
            let vfs = vault.vfs();
            let old = format!("x{}-", round - 1);
            write(&vfs, &format!("{old}5"), &bytes(round, 200_000)).await;
            vfs.unlink(InodeNo::ROOT, format!("{old}6").as_bytes()).await.unwrap();
        }
        vault.sync(LONG).await.unwrap();
        if round != 1 {
            vault.checkpoint().await.unwrap();
        }
        for read_data in [false, true] {
            let report =
                check(&world.bucket, &unlocked, read_data, None, &|_, _| ()).await.unwrap();
            assert_eq!(report.findings, [], "round {round}");
            assert!(report.packs > 0 && report.bytes > 2 << 20);
        }
    }
    vault.close(LONG).await.unwrap();
    // Each counted pack is missed when it is gone, and no other.
    let (mut missed, mut counted) = (0, 0);
    for pack in world.store.names().into_iter().filter(|name| name.starts_with("pack/")) {
        let bytes = world.store.steal(&pack).unwrap();
        let report = check(&world.bucket, &unlocked, false, None, &|_, _| ()).await.unwrap();
        let named: Vec<_> = report.findings.iter().map(|finding| &finding.object).collect();
        assert!(named.is_empty() || named == [&pack], "{named:?} instead of {pack}");
        (missed, counted) = (missed + named.len() as u64, report.packs);
        world.store.plant(&pack, bytes.to_vec());
    }
    assert_eq!(missed, counted);
}

#[tokio::test]
async fn k1_what_waited_for_a_day_gets_a_checkpoint_though_nothing_more_is_written() {
    let world = World::new().await;
    let vault = world.open("a").await;
    write(&vault.vfs(), "file", b"content").await;
    vault.sync(LONG).await.unwrap();
    let count = || world.store.names().iter().filter(|n| n.starts_with("checkpoint/")).count();
    assert_eq!(count(), 0);
    vault.writer.as_ref().unwrap().checkpointer.grow_older(Duration::from_hours(25));
    // An hour passes, in which nobody does anything.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3601)).await;
    tokio::time::resume();
    let until = std::time::Instant::now() + LONG;
    while count() == 0 {
        assert!(std::time::Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    vault.close(LONG).await.unwrap();
}

/// On a full disk the index stays on its old base (J8), though there is a newer checkpoint.
#[tokio::test]
async fn k4_a_snapshot_after_a_full_disk_is_of_the_state_that_it_names() {
    let world = World::new().await;
    let vault = world.open("a").await;
    write(&vault.vfs(), "before", b"1").await;
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    let base = vault.index().base_commit();
    vault.index().fill_disk(true);
    write(&vault.vfs(), "after", b"2").await;
    vault.sync(LONG).await.unwrap();
    vault.checkpoint().await.unwrap();
    assert_eq!(vault.index().base_commit(), base, "there was no room to move on");
    vault.index().fill_disk(false);
    let pin = vault.make_snapshot(b"now", None).await.unwrap();
    assert!(pin.commit > base, "{pin:?}");
    vault.close(LONG).await.unwrap();
}
