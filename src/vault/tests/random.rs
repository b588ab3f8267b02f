//! Thousands of random operations, with every way to end a mount between them: what was closed is there
//! again, from the journal, from a new index, and from the bucket alone.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::vfs::RenameMode;

#[derive(Clone, Debug)]
enum Op {
    Write {
        name: u8,
        seed: usize,
        length: usize,
    },
    Unlink(u8),
    Rename(u8, u8),
    Sync,
    Checkpoint,
    /// kill -9 and a mount on this machine.
    Kill,
    /// The same, with the index deleted.
    KillAndLoseIndex,
    /// Everything is sent, then the whole state directory is lost.
    LoseState,
    /// A clean unmount, and a mount on another machine.
    Elsewhere,
}

fn op() -> impl Strategy<Value = Op> {
    let length = prop_oneof![4 => 0..6000usize, 1 => 16_000..70_000usize];
    prop_oneof![
        20 => (0..12u8, 0..99usize, length)
            .prop_map(|(name, seed, length)| Op::Write { name, seed, length }),
        5 => (0..12u8).prop_map(Op::Unlink),
        5 => (0..12u8, 0..12u8).prop_map(|(from, to)| Op::Rename(from, to)),
        1 => Just(Op::Sync),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Kill),
        1 => Just(Op::KillAndLoseIndex),
        1 => Just(Op::LoseState),
        1 => Just(Op::Elsewhere),
    ]
}

fn name(number: u8) -> String {
    format!("file-{number}")
}

async fn lose(world: &World, vault: Arc<Vault>, what: &str) -> Arc<Vault> {
    kill(vault).await;
    std::fs::remove_dir_all(world.state_dir("a").join(what)).unwrap();
    world.open("a").await
}

async fn elsewhere(
    world: &World,
    vault: Arc<Vault>,
    model: &BTreeMap<String, Vec<u8>>,
) -> Arc<Vault> {
    vault.close(LONG).await.unwrap();
    drop(vault);
    let other = world.open("b").await;
    assert_eq!(&tree(&other).await, model, "on another machine");
    other.close(LONG).await.unwrap();
    drop(other);
    if let Err(error) = std::fs::remove_dir_all(world.state_dir("b")) {
        let left = walkdir::WalkDir::new(world.state_dir("b"));
        panic!("{error}: {:?}", left.into_iter().collect::<Vec<_>>());
    }
    world.open("a").await
}

async fn apply(ops: Vec<Op>) {
    let world = World::new().await;
    let mut vault = world.open("a").await;
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for op in ops {
        match op {
            Op::Write { name: number, seed, length } => {
                let data = bytes(seed, length);
                write(&vault.vfs(), &name(number), &data).await;
                model.insert(name(number), data);
                continue;
            }
            Op::Unlink(number) => {
                let done = vault.vfs().unlink(InodeNo::ROOT, name(number).as_bytes()).await;
                assert_eq!(done.is_ok(), model.remove(&name(number)).is_some());
                continue;
            }
            Op::Rename(from, to) => {
                let (from, to) = (name(from), name(to));
                let places = ((InodeNo::ROOT, from.as_bytes()), (InodeNo::ROOT, to.as_bytes()));
                let done = vault.vfs().rename(places.0, places.1, RenameMode::Replace).await;
                assert_eq!(done.is_ok(), model.contains_key(&from));
                if let Some(data) = model.remove(&from) {
                    model.insert(to, data);
                }
                continue;
            }
            Op::Sync => vault.sync(LONG).await.unwrap(),
            Op::Checkpoint => {
                vault.sync(LONG).await.unwrap();
                vault.checkpoint().await.unwrap();
            }
            Op::Kill => {
                kill(vault).await;
                vault = world.open("a").await;
            }
            Op::KillAndLoseIndex => vault = lose(&world, vault, "index").await,
            Op::LoseState => {
                vault.sync(LONG).await.unwrap();
                vault = lose(&world, vault, "").await;
            }
            Op::Elsewhere => vault = elsewhere(&world, vault, &model).await,
        }
        assert_eq!(tree(&vault).await, model);
    }
    vault = elsewhere(&world, vault, &model).await;
    vault.close(LONG).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 40, ..crate::types::cases(24) })]

    #[test]
    fn j4_every_way_to_open_it_again_shows_the_same(ops in prop::collection::vec(op(), 60..140)) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(apply(ops));
    }
}
