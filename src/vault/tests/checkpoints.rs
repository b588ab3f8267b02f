//! Checkpoints that are made while the vault is used (K1), against a replay of the log.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::*;
use crate::log::{Base, Chain, Error as LogError, Link, Manifest, Pins, newest};
use crate::types::{CommitNo, Hash};

/// All records that the commits up to `upto` leave, in the order of the map. The table of packs
/// is of checkpoints alone.
async fn replayed(world: &World, keys: &Keys, upto: CommitNo) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut map = BTreeMap::new();
    let chain = Chain::new(world.bucket.clone(), keys.clone());
    let apply = |link: Link| {
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

/// All records of a checkpoint but the table of packs.
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
        let base = Base::new(found.clone(), keys.clone(), vault.cache());
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
    let elsewhere = world.open("b").await;
    assert_eq!(tree(&elsewhere).await, model);
    elsewhere.close(LONG).await.unwrap();
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
    let name = world.memory.names().into_iter().find(|n| n.starts_with("checkpoint/")).unwrap();
    let mut damaged = world.memory.peek(&name).unwrap().to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    world.memory.plant(&name, damaged);
    let elsewhere = world.open("b").await;
    assert_eq!(tree(&elsewhere).await, model, "the log from its beginning is still whole");
    elsewhere.close(LONG).await.unwrap();
}
