//! The index against a plain map: through memtable, sled, checkpoints and reopening.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use proptest::prelude::*;

use super::memtable::{DeltaRecord, Memtable};
use super::sled_db::SledFault;
use super::*;
use crate::cache::{Budgets, Cache};
use crate::checkpoint::{Base, BuildContext, CommitSource, Sizes, SourcedCommit, build};
use crate::crypto::{FIRST_EPOCH, Keys, MasterKey};
use crate::log::{Chain, Committer, Head, Journal, JournalOptions, LogEnd, NotedCommit};
use crate::os::{Directory, SmallDisk};
use crate::records::{Entry, Inode, Key, Tag};
use crate::store::{Bucket, Deadlines, MemoryStore};
use crate::types::{
    CommitNo, EXTENT_MAX, Extent, ExtentId, Generation, Hash, InodeNo, MIB, PackId, Reference, Seq,
    Timestamp, VaultId,
};

/// What tests do to the database.
impl Index {
    /// Puts bytes where a record is.
    pub(crate) fn spoil(&self, key: &Key, bytes: &[u8]) {
        self.0.sled.spoil(&key.encode(), bytes);
    }

    /// Says that there is no such record, under a good seal.
    pub(crate) fn lie(&self, key: &Key) {
        let mut memtable = Memtable::default();
        let deleted = DeltaRecord { count: 1, value: None };
        memtable.insert(key.encode(), deleted);
        self.0.sled.apply(&memtable, &BTreeMap::new(), &self.point()).unwrap();
    }

    /// From now on every call of sled fails, or panics.
    pub(crate) fn fail(&self, panics: bool) {
        let fault = if panics { SledFault::Panics } else { SledFault::Fails };
        self.0.sled.db().fail_from_now(Some(fault));
    }

    /// How many records sled has.
    pub(crate) fn rows(&self) -> usize {
        let tables = Tag::ALL.into_iter().filter(|tag| tag.has_inode());
        tables.map(|tag| self.0.sled.scan_table(tag).unwrap().count()).sum()
    }
}

struct World {
    dir: tempfile::TempDir,
    keys: Keys,
    bucket: Bucket,
    cache: Cache,
    journal: Arc<Journal>,
    committer: Committer,
    index: Option<Index>,
    base: Base,
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
        let keys = Keys::derive(&MasterKey::from_bytes([7; 32]), VaultId([1; 16]), FIRST_EPOCH);
        let bucket = Bucket::over(Arc::new(MemoryStore::new()), "", Deadlines::default());
        let budgets = Budgets { memory: 8 * MIB, disk: 64 * MIB };
        let cache = Cache::open(&dir.path().join("cache"), bucket.clone(), budgets).unwrap();
        let noted = NotedCommit { upto: Seq(0), number: CommitNo(0), hash: Hash::ZERO };
        let options = JournalOptions {
            keys: keys.clone(),
            boot: "boot".into(),
            disk: Arc::new(Directory::open(&dir.path().join("journal")).unwrap()),
            watcher: None,
            room: None,
        };
        let journal = Journal::create(options, noted).unwrap();
        let head =
            Head { number: CommitNo(0), hash: Hash::ZERO, seen: std::time::SystemTime::now() };
        let end = LogEnd { head, recent: Vec::new(), generation: Generation(1), upto: Seq(0) };
        let committer = Committer::new(bucket.clone(), keys.clone(), end);
        let journal = Arc::new(journal);
        let mut world =
            Self { dir, keys, bucket, cache, journal, committer, index: None, base: Base::empty() };
        world.open();
        world
    }

    fn open(&mut self) {
        self.index = None;
        let options = IndexOptions {
            dir: self.dir.path().join("index"),
            keys: self.keys.clone(),
            base: self.base.clone(),
        };
        let index = Index::open(options).unwrap();
        let from = index.point().seq;
        index.replay(&self.journal.read_after(from, usize::MAX).unwrap()).unwrap();
        index.attach(self.journal.clone());
        self.index = Some(index);
    }

    /// As after kill -9: what sled flushes when it is dropped is undone.
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

    async fn checkpoint(&mut self) {
        self.commit().await;
        let upto = self.committer.head().number;
        if upto == CommitNo(0) {
            return;
        }
        let context = BuildContext {
            keys: &self.keys,
            bucket: &self.bucket,
            cache: &self.cache,
            generation: Generation(1),
            time: Timestamp::now(),
            sizes: Sizes::default(),
        };
        let manifest = build(&self.base, &FromBucket(self), upto, &context).await.unwrap();
        self.base = Base::new(manifest, self.keys.clone(), self.cache.clone());
        self.index().rebase(self.base.clone()).unwrap();
    }
}

type Model = BTreeMap<(u64, Vec<u8>), u64>;

#[derive(Clone, Debug)]
enum Op {
    Put(u64, u8, u64),
    Delete(u64, u8),
    Drain,
    Reopen,
    Commit,
    Checkpoint,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (1..4u64, 0..20u8, 2..99u64).prop_map(|(p, n, i)| Op::Put(p, n, i)),
        4 => (1..4u64, 0..20u8).prop_map(|(p, n)| Op::Delete(p, n)),
        1 => Just(Op::Drain),
        1 => Just(Op::Reopen),
        1 => Just(Op::Commit),
        1 => Just(Op::Checkpoint),
    ]
}

async fn check(index: &Index, model: &Model) {
    for parent in 1..4u64 {
        let expected: BTreeMap<Vec<u8>, u64> = model
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
        // In steps, as readdir goes.
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
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn j9_the_layers_together_are_the_map(ops in prop::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            let mut model = Model::new();
            for op in ops {
                match op {
                    Op::Put(parent, name, ino) => {
                        let entry = Entry { name: vec![name], ino: InodeNo(ino), kind: 0 };
                        let put = |draft: &mut Draft<'_>| {
                            draft.put_entry(InodeNo(parent), &entry);
                            Ok::<_, Error>(())
                        };
                        world.index().change(put).await.unwrap();
                        model.insert((parent, vec![name]), ino);
                    }
                    Op::Delete(parent, name) => {
                        let delete = |draft: &mut Draft<'_>| {
                            draft.delete_entry(InodeNo(parent), &[name]);
                            Ok::<_, Error>(())
                        };
                        world.index().change(delete).await.unwrap();
                        model.remove(&(parent, vec![name]));
                    }
                    Op::Drain => world.index().drain().unwrap(),
                    Op::Reopen => world.open(),
                    Op::Commit => world.commit().await,
                    Op::Checkpoint => world.checkpoint().await,
                }
            }
            check(world.index(), &model).await;
            world.checkpoint().await;
            check(world.index(), &model).await;
        });
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
            // sled has it, its file does not.
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
    assert_eq!(index.0.sled.point().unwrap().unwrap().commit, before.commit, "it runs ahead");
    index.replay(&transactions).unwrap();
    drop(between);
    confirming.join().unwrap();
    assert_eq!(index.point().commit, before.commit.next());
}

#[tokio::test]
async fn j4_a_change_that_the_index_cannot_take_is_not_journaled() {
    for panics in [false, true] {
        let world = World::new();
        let put = |draft: &mut Draft<'_>| {
            draft.put_inode(InodeNo(2), &Inode::default());
            Ok::<_, Error>(())
        };
        world.index().fail(panics);
        let (before, journaled) = (world.index().point(), world.journal.appended());
        let error = world.index().change(put).await.unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{error}");
        assert_eq!(world.journal.appended(), journaled);
        assert_eq!(world.index().point(), before);
        let error = world.index().change(put).await.unwrap_err();
        assert!(matches!(error, Error::ReadOnly(_)), "{error}");
    }
}

/// The point that names the new base is stored before what it covers goes.
#[tokio::test]
async fn j9_nothing_is_dropped_for_a_base_that_the_point_does_not_name() {
    let mut world = World::new();
    let put = |draft: &mut Draft<'_>| {
        draft.put_inode(InodeNo(2), &Inode::default());
        Ok::<_, Error>(())
    };
    world.index().change(put).await.unwrap();
    world.commit().await;
    // Nothing but the point is left to be stored.
    world.index().drain().unwrap();
    world.checkpoint().await;
    let stored = world.index().0.sled.point().unwrap().unwrap();
    let manifest = world.base.manifest().unwrap();
    assert_eq!((stored.base, stored.base_hash), (manifest.commit, manifest.commit_hash));
    assert_eq!(world.index().rows(), 0);
}

#[tokio::test]
async fn j8_a_full_disk_holds_up_the_index_and_damages_nothing() {
    let disk = SmallDisk::of(64 * MIB);
    let mut world = World::in_dir(tempfile::tempdir_in(disk.path()).unwrap());
    let put = |n: u64| {
        move |draft: &mut Draft<'_>| {
            draft.put_inode(InodeNo(n), &Inode::default());
            Ok::<_, Error>(())
        }
    };
    world.index().change(put(2)).await.unwrap();
    world.index().flush().unwrap();
    world.index().change(put(3)).await.unwrap();
    disk.fill();
    // What room was taken before is used up.
    for n in 4.. {
        world.index().change(put(n)).await.unwrap();
        if world.index().drain().is_err_and(|error| error.is_full()) {
            break;
        }
    }
    let stored = world.index().0.sled.point().unwrap().unwrap();
    assert!(world.index().flush().unwrap_err().is_full());
    world.index().persist_point().unwrap();
    // The base stays what it was: a point that names another is not to be stored.
    world.checkpoint().await;
    let (before, rows) = (world.index().base_commit(), world.index().rows());
    assert!(before < world.base.manifest().unwrap().commit && rows > 0);
    assert_eq!(world.index().0.sled.point().unwrap().unwrap().seq, stored.seq);
    assert!(world.index().read_only().is_none(), "it is not damaged");
    assert!(!world.dir.path().join("index.damaged").exists());
    assert!(world.index().read(|view| view.inode(InodeNo(3))).await.unwrap().is_some());
    disk.empty();
    world.kill();
    let base = std::mem::replace(&mut world.base, Base::empty());
    world.open();
    assert!(world.index().read(|view| view.inode(InodeNo(3))).await.unwrap().is_some());
    world.index().change(put(2)).await.unwrap();
    world.base = base;
    world.checkpoint().await;
    assert!(world.index().base_commit() > before && world.index().rows() == 0);
}

/// What sled makes of a batch is known, with some to spare.
#[test]
fn j8_the_room_for_a_batch_is_what_sled_takes() {
    let world = World::new();
    let (file, sled) = (world.dir.path().join("index/db"), &world.index().0.sled);
    let length = || file.metadata().unwrap().len();
    for (n, (many, value)) in [(10_000, 20), (10_000, 20), (2000, 400)].into_iter().enumerate() {
        let mut memtable = Memtable::default();
        for m in 0..many {
            let hash = crate::crypto::sha256(format!("{n} {m}").as_bytes());
            let ino = u64::from_be_bytes(hash.0[..8].try_into().unwrap()) % 100_000;
            let slot = DeltaRecord { count: 1, value: Some(vec![7; value].into()) };
            memtable.insert(Key::Inode(InodeNo(ino)).encode(), slot);
        }
        let before = length();
        sled.apply(&memtable, &BTreeMap::new(), &Point::default()).unwrap();
        sled.db().flush().unwrap();
        let (took, bytes) = (length() - before, memtable.bytes() as u64);
        assert!(took > 0 && took < 4 * bytes, "{took} for {bytes}");
    }
}

#[test]
fn j4_a_note_of_damage_that_cannot_be_written_still_wipes() {
    let world = World::new();
    let dir = world.dir.path().join("index");
    // No file can have that name.
    std::fs::create_dir(dir.with_extension("damaged")).unwrap();
    world.index().0.sled.db().condemn("a test says so");
    assert!(!dir.join("db").exists());
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

fn piece(length: u64) -> Extent {
    let reference = Reference {
        pack: PackId([1; 16]),
        offset: 0,
        sealed_length: length + 72,
        extent: ExtentId([2; 16]),
        plain_length: length,
        codec: 0,
        salt: [0; 24],
        commitment: [0; 32],
        epoch: FIRST_EPOCH,
    };
    Extent { skip: 0, length, reference }
}

#[tokio::test]
async fn the_extents_of_a_range_are_those_that_overlap_it() {
    let world = World::new();
    let (mut pieces, mut at) = (BTreeMap::new(), 0);
    let holes = [0, 1, 0, 70_000, 3 * MIB, 0, 20 * MIB];
    let lengths = [1, 4096, 65_536, 65_537, MIB, MIB + 1, 5 * MIB, EXTENT_MAX, EXTENT_MAX - 1];
    for (n, length) in lengths.iter().cycle().take(60).enumerate() {
        at += holes[n % holes.len()];
        pieces.insert(at, piece(*length));
        at += length;
    }
    let half = pieces.keys().copied().nth(30).unwrap();
    for (from, to) in [(half, u64::MAX), (0, half)] {
        let put = |draft: &mut Draft<'_>| {
            draft.put_inode(InodeNo(2), &Inode { size: at, ..Inode::default() });
            pieces.range(from..to).for_each(|(at, piece)| draft.put_extent(InodeNo(2), *at, piece));
            Ok::<_, Error>(())
        };
        world.index().change(put).await.unwrap();
        world.index().drain().unwrap();
    }
    let edges = pieces.iter().flat_map(|(at, Extent { length, .. })| {
        [at.saturating_sub(1), *at, at + 1, at + length / 2, at + length - 1, at + length]
    });
    for (start, length) in edges.flat_map(|at| [(at, 1), (at, 4096), (at, 40 * MIB)]) {
        let range = start..start + length;
        let overlaps =
            |(at, piece): &(&u64, &Extent)| **at < range.end && **at + piece.length > start;
        let expected: Vec<_> =
            pieces.iter().filter(overlaps).map(|(at, piece)| (*at, piece.clone())).collect();
        let look = |view: &View<'_>| {
            let inode = view.inode(InodeNo(2))?.unwrap();
            view.extents(InodeNo(2), &inode, range.clone())
        };
        let read = world.index().read(look).await;
        assert_eq!(read.unwrap(), expected, "{range:?}");
    }
}

#[tokio::test]
async fn a_piece_of_a_file_of_many_is_found_without_reading_all_that_lie_before() {
    let world = World::new();
    let last = MIB - 4096..MIB;
    let seen = std::sync::Mutex::new(None);
    let look = |draft: &mut Draft<'_>| {
        let inode = Inode { size: MIB, ..Inode::default() };
        draft.put_inode(InodeNo(2), &inode);
        (0..256).for_each(|n| draft.put_extent(InodeNo(2), n * 4096, &piece(4096)));
        // Whoever reads this one notices.
        draft.put_raw(&Key::Extent(InodeNo(2), 0), b"no extent");
        let near = draft.extents(InodeNo(2), &inode, 0..4096);
        *seen.lock().unwrap() = Some((draft.extents(InodeNo(2), &inode, last.clone()), near));
        Err::<(), _>(Error::Miss)
    };
    world.index().change(look).await.unwrap_err();
    let (far, near) = seen.into_inner().unwrap().unwrap();
    assert_eq!(far.unwrap(), [(last.start, piece(4096))]);
    near.unwrap_err();
}
