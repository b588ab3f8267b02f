//! What was removed before it was sent is not sent, and no state of the bucket lacks anything because of that: random
//! operations, while the store goes and comes back, with every way to end a mount.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::log::{self, Chain};
use crate::records::extent_of;
use crate::types::{CommitNo, Hash, PackId};
use crate::upload::pack_object;
use crate::vfs::HandleId;

#[derive(Clone, Debug)]
enum Op {
    /// A file, new or rewritten from empty.
    Write {
        name: u8,
        seed: usize,
        length: usize,
    },
    /// A part of an existing file, or beyond its end.
    Patch {
        name: u8,
        seed: usize,
        at: usize,
        length: usize,
    },
    /// A copy that shares extents.
    Copy(u8, u8),
    Unlink(u8),
    Cut(u8, usize),
    /// A barrier: packs that are dead by now go.
    Fsync,
    /// The store is gone until `Back`.
    Away,
    Back,
    Sync,
    /// kill -9, and a mount with the store back.
    Kill,
    /// Everything on this machine is lost, sent or not.
    Lose,
}

fn op() -> impl Strategy<Value = Op> {
    let length = || prop_oneof![6 => 0..60_000usize, 1 => 1_100_000..1_400_000usize];
    prop_oneof![
        16 => (0..9u8, 0..99usize, length())
            .prop_map(|(name, seed, length)| Op::Write { name, seed, length }),
        6 => (0..9u8, 0..99usize, 0..80_000usize, 1..30_000usize)
            .prop_map(|(name, seed, at, length)| Op::Patch { name, seed, at, length }),
        4 => (0..9u8, 0..9u8).prop_map(|(from, to)| Op::Copy(from, to)),
        12 => (0..9u8).prop_map(Op::Unlink),
        2 => (0..9u8, 0..50_000usize).prop_map(|(name, size)| Op::Cut(name, size)),
        6 => Just(Op::Fsync),
        3 => Just(Op::Away),
        2 => Just(Op::Back),
        1 => Just(Op::Sync),
        1 => Just(Op::Kill),
        1 => Just(Op::Lose),
    ]
}

fn name(number: u8) -> String {
    format!("file-{number}")
}

async fn open(vfs: &Vfs, name: &str, read: bool) -> HandleId {
    let flags = OpenFlags { read, write: !read, ..OpenFlags::default() };
    let found = vfs.lookup(InodeNo::ROOT, name.as_bytes()).await.unwrap();
    vfs.open(found.ino, flags).await.unwrap()
}

async fn end(vfs: &Vfs, handle: HandleId) {
    vfs.flush(handle).await.unwrap();
    vfs.release(handle).await.unwrap();
}

/// Changes files, and the model accordingly.
async fn change(vfs: &Vfs, model: &mut BTreeMap<String, Vec<u8>>, op: &Op) {
    match *op {
        Op::Write { name: number, seed, length } => {
            let data = bytes(seed, length);
            write(vfs, &name(number), &data).await;
            model.insert(name(number), data);
        }
        Op::Patch { name: number, seed, at, length } => {
            let Some(file) = model.get_mut(&name(number)) else { return };
            let (data, handle) = (bytes(seed, length), open(vfs, &name(number), false).await);
            vfs.write(handle, WriteAt::Offset(at as u64), &data).await.unwrap();
            end(vfs, handle).await;
            file.resize(file.len().max(at + length), 0);
            file[at..at + length].copy_from_slice(&data);
        }
        Op::Copy(from, to) if from != to && model.contains_key(&name(from)) => {
            write(vfs, &name(to), b"").await;
            let data = model[&name(from)].clone();
            let source = open(vfs, &name(from), true).await;
            let target = open(vfs, &name(to), false).await;
            let length = data.len() as u64;
            let mut done = 0;
            while done < length {
                let left = length - done;
                done += vfs.copy_range((source, done), (target, done), left).await.unwrap();
            }
            end(vfs, source).await;
            end(vfs, target).await;
            model.insert(name(to), data);
        }
        Op::Unlink(number) => {
            let done = vfs.unlink(InodeNo::ROOT, name(number).as_bytes()).await;
            assert_eq!(done.is_ok(), model.remove(&name(number)).is_some());
        }
        Op::Cut(number, size) => {
            let Some(file) = model.get_mut(&name(number)) else { return };
            let found = vfs.lookup(InodeNo::ROOT, name(number).as_bytes()).await.unwrap();
            let set = SetAttributes { size: Some(size as u64), ..SetAttributes::default() };
            vfs.set_attributes(found.ino, &set).await.unwrap();
            file.resize(size, 0);
        }
        Op::Fsync => vfs.fsync_directory().await.unwrap(),
        _ => {}
    }
}

/// After each commit, the bucket holds every pack that something refers to then.
async fn every_commit_is_whole(world: &World) {
    let secret = MasterKey::from_bytes(world.master);
    let keys = unlock(&world.bucket, None, &secret).await.unwrap().keys;
    let put = |prefix| async move {
        let listed = world.bucket.list_all(prefix).await.unwrap().0;
        listed.into_iter().map(|o| (o.name, o.modified)).collect::<HashMap<_, _>>()
    };
    let (packs, commits) = (put("pack/").await, put("log/").await);
    let mut living: HashMap<Vec<u8>, PackId> = HashMap::new();
    let chain = Chain::new(world.bucket.clone(), keys);
    let whole = chain.follow((CommitNo(0), Hash::ZERO), |link| {
        for change in link.content.changes()? {
            living.remove(&change.key);
            if let Some(value) = &change.value
                && let Some(extent) = extent_of(&change.key, value)?
            {
                living.insert(change.key, extent.reference.pack);
            }
        }
        let at = commits[&format!("log/{}", link.number)];
        for pack in living.values() {
            let there = packs.get(&pack_object(*pack)).is_some_and(|put| *put <= at);
            assert!(there, "commit {} refers to {pack}", link.number);
        }
        Ok::<_, log::Error>(())
    });
    whole.await.unwrap();
    let secret = MasterKey::from_bytes(world.master);
    let unlocked = unlock(&world.bucket, None, &secret).await.unwrap();
    let report = check(&world.bucket, &unlocked, true, None, &|_, _| ()).await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

async fn apply(ops: Vec<Op>) {
    let world = World::new().await;
    let mut vault = world.open("a").await;
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for op in ops {
        match op {
            Op::Away => world.faulty.disappear(),
            Op::Back => world.faulty.heal(),
            Op::Sync => {
                world.faulty.heal();
                vault.sync(LONG).await.unwrap();
            }
            Op::Kill => {
                kill(vault).await;
                world.faulty.heal();
                vault = world.open("a").await;
                assert_eq!(tree(&vault).await, model);
            }
            Op::Lose => {
                kill(vault).await;
                world.faulty.heal();
                every_commit_is_whole(&world).await;
                std::fs::remove_dir_all(world.state_dir("a")).unwrap();
                vault = world.open("a").await;
                model = tree(&vault).await;
            }
            change_of_files => change(&vault.vfs(), &mut model, &change_of_files).await,
        }
    }
    world.faulty.heal();
    vault.sync(LONG).await.unwrap();
    assert_eq!(tree(&vault).await, model);
    vault.checkpoint().await.unwrap();
    vault.close(LONG).await.unwrap();
    drop(vault);
    every_commit_is_whole(&world).await;
    world.shows_elsewhere(&model).await;
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20, ..crate::types::cases(12) })]

    #[test]
    fn c1_nothing_is_missing_for_what_was_removed_before_it_was_sent(
        ops in prop::collection::vec(op(), 50..120),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(apply(ops));
    }
}

/// Fifty files are written while the store is away, and all but one removed: the packs of the others are never put,
/// and neither a kill nor the loss of the index changes that.
#[tokio::test(flavor = "multi_thread")]
async fn j3_what_was_dropped_is_not_missed_after_a_kill() {
    let world = World::new().await;
    let vault = world.open("a").await;
    write(&vault.vfs(), "before", b"before").await;
    vault.sync(LONG).await.unwrap();
    world.faulty.disappear();
    let data = bytes(1, 1_200_000);
    for n in 0..20 {
        write(&vault.vfs(), &name(n), &data).await;
    }
    let unsent = || vault.progress().unsent_packs;
    assert_eq!(unsent(), 20);
    for n in 1..20 {
        vault.vfs().unlink(InodeNo::ROOT, name(n).as_bytes()).await.unwrap();
    }
    vault.vfs().fsync_directory().await.unwrap();
    // Some are on the wire, in vain: a failed one comes back and is dropped, too.
    let begun = std::time::Instant::now();
    // A pack stops counting when the journal has the note, and its file goes a moment later, when that is durable.
    let staged = || std::fs::read_dir(world.state_dir("a").join("staging")).unwrap().count();
    while unsent() > 2 || staged() > 2 {
        assert!(begun.elapsed() < LONG, "{} packs wait, {} files", unsent(), staged());
        tokio::time::sleep(Duration::from_millis(50)).await;
        vault.vfs().fsync_directory().await.unwrap();
    }
    kill(vault).await;
    world.faulty.heal();
    world.faulty.take_requests();
    let vault = world.open("a").await;
    let model: BTreeMap<_, _> = [("before".to_owned(), b"before".to_vec()), (name(0), data)].into();
    assert_eq!(tree(&vault).await, model);
    vault.close(LONG).await.unwrap();
    drop(vault);
    let packs = world.store.names().iter().filter(|name| name.starts_with("pack/")).count();
    assert!(packs <= 3, "{packs} packs were sent");
    every_commit_is_whole(&world).await;
    world.shows_elsewhere(&model).await;
}
