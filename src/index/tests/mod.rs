//! The index compared with a plain map: through memtable, sled, checkpoints and reopening.

use crate::log::{Ground, NOTHING_NOTED};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proptest::prelude::*;

use super::memtable::{DeltaRecord, Memtable};
use super::sled_db::SledFault;
use super::*;
use crate::cache::{Budgets, Cache};
use crate::checkpoint::{Base, BuildContext, CommitSource, Sizes, SourcedCommit, build};
use crate::log::{Chain, Committer, Head, Journal, LogEnd};
use crate::records::{Entry, Inode, Key, Tag};
use crate::types::{CommitNo, Extent, Generation, Hash, InodeNo, MIB, Reference, Seq, Timestamp};

/// How tests tamper with the database.
impl Index {
    /// Overwrites a record with these bytes.
    pub(crate) fn spoil(&self, key: &Key, bytes: &[u8]) {
        self.0.sled().spoil(&key.encode(), bytes);
    }

    /// Deletes a record with a valid seal: a lie.
    pub(crate) fn lie(&self, key: &Key) {
        let mut memtable = Memtable::default();
        let deleted = DeltaRecord { count: 1, value: None };
        memtable.insert(key.encode(), deleted);
        self.0.sled().apply(&memtable, &BTreeMap::new(), &self.point()).unwrap();
    }

    /// From now on every call of sled fails, or panics.
    pub(crate) fn fail(&self, panics: bool) {
        self.set_fault(Some(if panics { SledFault::Panics } else { SledFault::Fails }));
    }

    /// The disk has no room for sled, or has it again.
    pub(crate) fn fill_disk(&self, is_full: bool) {
        self.set_fault(is_full.then_some(SledFault::Full));
    }

    fn set_fault(&self, fault: Option<SledFault>) {
        self.0.sled().db().fail_from_now(fault);
    }

    /// The number of records in sled.
    pub(crate) fn rows(&self) -> usize {
        let tables = Tag::ALL.into_iter().filter(|tag| tag.has_inode());
        tables.map(|tag| self.0.sled().scan_table(tag).unwrap().count()).sum()
    }
}

mod known_rows;
mod range;
mod rebase;
mod trouble;

struct World {
    ground: Ground,
    cache: Cache,
    journal: Arc<Journal>,
    committer: Committer,
    index: Option<Index>,
    base: Base,
    /// The sizes of the pages that are built.
    sizes: Sizes,
}

impl Deref for World {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

/// Drops the index before its directory, because sled may still write there.
impl Drop for World {
    fn drop(&mut self) {
        self.index = None;
    }
}

struct FromBucket<'a>(&'a World);

#[async_trait]
impl CommitSource for FromBucket<'_> {
    async fn get(&self, number: CommitNo) -> crate::checkpoint::Result<SourcedCommit> {
        let chain = Chain::new(self.0.bucket.clone(), self.0.keys.clone());
        let sealed = chain.sealed(number).await?.unwrap();
        let content = crate::log::open_commit(&self.0.keys, number, &sealed)?;
        Ok(SourcedCommit { hash: crate::crypto::sha256(&sealed), content })
    }
}

impl World {
    fn new() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    fn in_dir(dir: tempfile::TempDir) -> Self {
        let ground = Ground::below("", Duration::from_secs(30), dir);
        let budgets = Budgets { memory: 8 * MIB, disk: 64 * MIB };
        let cache_dir = ground.dir.path().join("cache");
        let cache = Cache::open(&cache_dir, ground.bucket.clone(), budgets).unwrap();
        let journal = Journal::create(ground.journal_options(None), NOTHING_NOTED).unwrap();
        let head =
            Head { number: CommitNo(0), hash: Hash::ZERO, seen: std::time::SystemTime::now() };
        let end = LogEnd { head, recent: Vec::new(), generation: Generation(1), upto: Seq(0) };
        let committer = Committer::new(ground.bucket.clone(), ground.keys.clone(), end);
        let journal = Arc::new(journal);
        let mut world = Self {
            ground,
            cache,
            journal,
            committer,
            index: None,
            base: Base::empty(),
            sizes: Sizes::default(),
        };
        world.open();
        world
    }

    /// Opens the index and replays the journal. Returns whether the base is the one for which the index was trimmed.
    fn open(&mut self) -> bool {
        self.index = None;
        let index = self.unlocked();
        let from = index.point().seq;
        index.replay(&self.journal.read_after(from, usize::MAX).unwrap()).unwrap();
        index.attach(self.journal.clone());
        let is_the_same = index.point().base == index.base_commit();
        self.index = Some(index);
        is_the_same
    }

    /// Retries, because sled's own threads may hold the database a moment longer than the dropped index.
    fn unlocked(&self) -> Index {
        let begun = std::time::Instant::now();
        loop {
            let options = IndexOptions {
                dir: self.dir.path().join("index"),
                keys: self.keys.clone(),
                base: self.base.clone(),
                memory: IndexMemory::of(0),
            };
            match Index::open(options) {
                Ok(index) => return index,
                Err(error) => {
                    let is_held = format!("{error:?}").contains("could not acquire lock");
                    assert!(is_held && begun.elapsed().as_secs() < 60, "{error:?}");
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Simulates kill -9: undoes what sled flushes when it is dropped.
    fn kill(&mut self) {
        let (dir, at_the_kill) = (self.dir.path().join("index"), self.dir.path().join("killed"));
        std::fs::create_dir(&at_the_kill).unwrap();
        for entry in std::fs::read_dir(&dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), at_the_kill.join(entry.file_name())).unwrap();
            }
        }
        self.index = None;
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::rename(&at_the_kill, &dir).unwrap();
    }

    fn index(&self) -> &Index {
        self.index.as_ref().unwrap()
    }

    async fn commit(&mut self) {
        let transactions = self.journal.read_after(self.committer.upto(), usize::MAX).unwrap();
        if transactions.is_empty() {
            return;
        }
        self.committer.prepare(&transactions);
        let receipt = self.committer.attempt().await.unwrap();
        self.index().confirmed(&receipt);
    }

    /// Commits, and builds the checkpoint of that commit; the index keeps its base.
    async fn build(&mut self) -> Option<Base> {
        self.commit().await;
        let upto = self.committer.head().number;
        if upto == CommitNo(0) {
            return None;
        }
        let context = BuildContext {
            keys: &self.keys,
            bucket: &self.bucket,
            cache: &self.cache,
            generation: Generation(1),
            time: Timestamp::now(),
            oldest: crate::crypto::FIRST_EPOCH,
            sizes: self.sizes,
        };
        let manifest = build(&self.base, &FromBucket(self), upto, &context).await.unwrap();
        Some(Base::new(manifest, self.keys.clone(), self.cache.clone()))
    }

    fn rebase(&mut self, base: Base) {
        self.base = base;
        self.index().rebase(self.base.clone()).unwrap();
    }

    async fn checkpoint(&mut self) {
        if let Some(base) = self.build().await {
            self.rebase(base);
        }
    }

    /// Makes one change that cannot fail.
    async fn put(&self, draft: impl Fn(&mut Draft<'_>) + Sync) {
        let put = |d: &mut Draft<'_>| {
            draft(d);
            Ok::<_, Error>(())
        };
        self.index().change(put).await.unwrap();
    }

    async fn inode(&self, ino: u64) -> Option<Inode> {
        self.index().read(|view| view.inode(InodeNo(ino))).await.unwrap()
    }
}

struct Model {
    entries: BTreeMap<(u64, Vec<u8>), u64>,
    /// The bytes that each inode holds.
    inodes: BTreeMap<u64, u64>,
    /// Whether the totals are exact: replaying over a base that has the changes already does not count them.
    knows_totals: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Put(u64, u8, u64),
    Delete(u64, u8),
    PutInode(u64, u64),
    DeleteInode(u64),
    Drain,
    Flush,
    Reopen,
    Kill,
    /// Replays the whole journal once more.
    Replay,
    Commit,
    Checkpoint,
    /// Builds a checkpoint; changes go on until the index moves to it.
    Build,
    Rebase,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1..4u64, 0..20u8, 2..99u64).prop_map(|(p, n, i)| Op::Put(p, n, i)),
        4 => (1..4u64, 0..20u8).prop_map(|(p, n)| Op::Delete(p, n)),
        4 => (2..12u64, 0..1000u64).prop_map(|(ino, bytes)| Op::PutInode(ino, bytes)),
        2 => (2..12u64).prop_map(Op::DeleteInode),
        1 => Just(Op::Drain),
        1 => Just(Op::Flush),
        1 => Just(Op::Reopen),
        1 => Just(Op::Kill),
        1 => Just(Op::Replay),
        1 => Just(Op::Build),
        1 => Just(Op::Rebase),
        1 => Just(Op::Commit),
        1 => Just(Op::Checkpoint),
    ]
}

/// A file of `allocated` bytes in one extent.
fn holds(allocated: u64) -> Inode {
    let reference = Reference::made_up(1, allocated);
    let extent = Extent { skip: 0, length: allocated, reference };
    Inode { allocated, extent: (allocated > 0).then_some(extent), ..Inode::default() }
}

async fn check(index: &Index, model: &Model) {
    let totals = Totals { inodes: model.inodes.len() as u64, bytes: model.inodes.values().sum() };
    if model.knows_totals {
        assert_eq!(index.totals(), totals);
    }
    for ino in 2..12 {
        let found = index.read(|view| view.inode(InodeNo(ino))).await.unwrap();
        assert_eq!(found.map(|inode| inode.allocated), model.inodes.get(&ino).copied());
    }
    for parent in 1..4u64 {
        let expected: BTreeMap<Vec<u8>, u64> = model
            .entries
            .iter()
            .filter(|((p, _), _)| *p == parent)
            .map(|((_, name), ino)| (name.clone(), *ino))
            .collect();
        let listed =
            index.read(|view| view.entries(InodeNo(parent), None, usize::MAX)).await.unwrap();
        assert!(listed.is_sorted_by_key(|(hash, _)| *hash));
        let found: BTreeMap<_, _> =
            listed.iter().map(|(_, entry)| (entry.name.clone(), entry.ino.0)).collect();
        assert_eq!(found, expected);
        // In steps, as readdir does.
        let (mut after, mut stepped) = (None, 0);
        loop {
            let part = index.read(|view| view.entries(InodeNo(parent), after, 3)).await.unwrap();
            let Some((last, _)) = part.last() else { break };
            after = Some(*last);
            stepped += part.len();
        }
        assert_eq!(stepped, expected.len());
        for name in 0..20u8 {
            let entry = index.read(|view| view.entry(InodeNo(parent), &[name])).await.unwrap();
            assert_eq!(entry.map(|entry| entry.ino.0), expected.get([name].as_slice()).copied());
        }
    }
}

proptest! {
    #![proptest_config(crate::types::cases(24))]

    #[test]
    fn j9_the_layers_together_are_the_map(ops in prop::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            let (entries, inodes) = (BTreeMap::new(), BTreeMap::new());
            let (mut model, mut built) = (Model { entries, inodes, knows_totals: true }, None);
            for op in ops {
                match op {
                    Op::Put(parent, name, ino) => {
                        let entry = Entry { name: vec![name], ino: InodeNo(ino), kind: 0 };
                        world.put(|draft| draft.put_entry(InodeNo(parent), &entry)).await;
                        model.entries.insert((parent, vec![name]), ino);
                    }
                    Op::Delete(parent, name) => {
                        world.put(|draft| draft.delete_entry(InodeNo(parent), &[name])).await;
                        model.entries.remove(&(parent, vec![name]));
                    }
                    Op::PutInode(ino, allocated) => {
                        world.put(|draft| draft.put_inode(InodeNo(ino), &holds(allocated))).await;
                        model.inodes.insert(ino, allocated);
                    }
                    Op::DeleteInode(ino) => {
                        world.put(|draft| draft.delete_inode(InodeNo(ino))).await;
                        model.inodes.remove(&ino);
                    }
                    Op::Drain => world.index().drain().unwrap(),
                    Op::Flush => drop(world.index().flush().unwrap()),
                    Op::Reopen => model.knows_totals &= world.open(),
                    Op::Kill => {
                        world.kill();
                        model.knows_totals &= world.open();
                    }
                    Op::Replay => {
                        let all = world.journal.read_after(Seq(0), usize::MAX).unwrap();
                        world.index().replay(&all).unwrap();
                    }
                    Op::Commit => world.commit().await,
                    Op::Checkpoint => {
                        built = None;
                        world.checkpoint().await;
                    }
                    Op::Build => built = world.build().await,
                    Op::Rebase => {
                        if let Some(base) = built.take() {
                            world.rebase(base);
                        }
                    }
                }
            }
            check(world.index(), &model).await;
            world.checkpoint().await;
            check(world.index(), &model).await;
            // Changes taken in could not always be weighed; a checkpoint of this process's own commit gives the true
            // totals.
            for allocated in [700, 20] {
                world.put(|draft| draft.put_inode(InodeNo(5), &holds(allocated))).await;
                model.inodes.insert(5, allocated);
                world.checkpoint().await;
            }
            model.knows_totals = true;
            check(world.index(), &model).await;
        });
    }
}

#[tokio::test]
async fn j4_the_point_is_that_of_the_records() {
    let mut world = World::new();
    for ino in 2..50 {
        let put = |draft: &mut Draft<'_>| {
            draft.put_inode(InodeNo(ino), &Inode { size: ino, ..Inode::default() });
            Ok::<_, Error>(())
        };
        world.index().change(put).await.unwrap();
        match ino {
            20 => drop(world.index().flush().unwrap()),
            // sled has it, but its file does not.
            30 => world.index().drain().unwrap(),
            _ => {}
        }
    }
    // What was in memory is gone; the journal has it.
    world.kill();
    let options = IndexOptions {
        dir: world.dir.path().join("index"),
        keys: world.keys.clone(),
        base: Base::empty(),
        memory: IndexMemory::of(0),
    };
    let reopened = Index::open(options).unwrap();
    assert_eq!(reopened.point().seq, Seq(19));
    let found = reopened.read(|view| view.inode(InodeNo(20))).await.unwrap();
    assert_eq!(found.unwrap().size, 20);
    let lost = reopened.read(|view| view.inode(InodeNo(21))).await.unwrap();
    assert_eq!(lost, None);
    drop(reopened);
    world.open();
    let replayed = world.index().read(|view| view.inode(InodeNo(49))).await.unwrap();
    assert_eq!(replayed.unwrap().size, 49);
}

/// The transaction is in the journal and in a commit before the index has it.
#[tokio::test]
async fn j4_a_commit_is_reached_when_what_it_holds_is_here() {
    let mut world = World::new();
    let put = |draft: &mut Draft<'_>| {
        draft.put_inode(InodeNo(2), &Inode::default());
        Ok::<_, Error>(())
    };
    world.index().change(put).await.unwrap();
    world.commit().await;
    let index = world.index().clone();
    let before = index.point();
    let between = index.0.append.lock();
    let key = Key::Inode(InodeNo(3)).encode();
    let value = Some(crate::records::encode_value(&Inode::default()));
    let transaction = crate::records::Transaction::new(vec![crate::records::Change { key, value }]);
    world.journal.append(&transaction).unwrap();
    let transactions = world.journal.read_after(world.committer.upto(), usize::MAX).unwrap();
    world.committer.prepare(&transactions);
    let receipt = futures_util::FutureExt::now_or_never(world.committer.attempt());
    let receipt = receipt.expect("a store in memory is ready").unwrap();
    let confirming = {
        let index = index.clone();
        std::thread::spawn(move || index.confirmed(&receipt))
    };
    std::thread::sleep(std::time::Duration::from_millis(100));
    index.persist_point().unwrap();
    assert_eq!(index.0.sled().point().unwrap().unwrap().commit, before.commit, "it runs ahead");
    index.replay(&transactions).unwrap();
    drop(between);
    confirming.join().unwrap();
    assert_eq!(index.point().commit, before.commit.next());
}

#[tokio::test]
async fn a_failed_change_changes_nothing_and_numbers_are_never_given_twice() {
    let world = World::new();
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..3000u64 {
        let given = world
            .index()
            .change(|draft| {
                let ino = draft.new_ino()?;
                draft.put_inode(ino, &Inode::default());
                if round % 7 == 0 { Err(Error::Miss) } else { Ok(ino) }
            })
            .await;
        if let Ok((ino, _)) = given {
            assert!(ino > InodeNo::ROOT);
            assert!(seen.insert(ino));
        }
    }
    assert_eq!(world.index().totals().inodes, seen.len() as u64);
}
