//! Checkpoints over a store in memory, compared with a model that is a `BTreeMap`.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // small numbers

mod base;
mod build;
mod bytes;
mod interrupted;
mod older;
mod packs;

use crate::log::Ground;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::bytes::Bytes;
use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::pack_rows::pack_share_of;
use super::*;
use crate::cache::{Budgets, Cache};
use crate::crypto::{self};
use crate::log::{CommitContent, CommitHeader, seal_commit};
use crate::records::{Change, Entry, Inode, Key, Tag, Transaction, encode_value};
use crate::types::{
    CommitNo, Extent, Generation, Hash, InodeNo, KIB, KeyEpoch, MIB, NameHash, PackId, Reference,
    Timestamp,
};

/// A vault in memory, and what it must hold.
pub(super) struct World {
    ground: Ground,
    pub(super) sizes: Sizes,
    pub(super) log: Log,
    /// The map, without the table of packs.
    pub(super) model: BTreeMap<Vec<u8>, Bytes>,
    /// The table of packs, computed from scans of the whole map.
    pub(super) packs: BTreeMap<PackId, PackInfo>,
}

impl Deref for World {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

/// The commits, and how often they were read.
#[derive(Default)]
pub(super) struct Log {
    pub(super) commits: Vec<SourcedCommit>,
    pub(super) reads: AtomicU64,
}

#[async_trait]
impl CommitSource for Log {
    async fn get(&self, number: CommitNo) -> Result<SourcedCommit> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let commit = self.commits.get(number.0 as usize - 1).cloned();
        commit.ok_or_else(|| Error::malformed("a test", "it asks for a commit that is not there"))
    }
}

/// Small sizes, so that few records make many blocks and pages.
pub(super) const SMALL: Sizes = Sizes { block: 400, page: 3000, pass: 20_000 };

impl World {
    pub(super) fn new(sizes: Sizes) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ground = Ground::below("vault/", Duration::from_millis(300), dir);
        let (log, model, packs) = Default::default();
        Self { ground, sizes, log, model, packs }
    }

    /// A cache in a directory of its own: nothing is on this machine.
    pub(super) fn cold(&self) -> Cache {
        self.cold_of(8 * MIB)
    }

    /// An empty cache with this much memory.
    pub(super) fn cold_of(&self, memory: u64) -> Cache {
        let dir = self.dir.path().join(crypto::random::<4>().map(|b| format!("{b:x}")).concat());
        let budgets = Budgets { memory, disk: 64 * MIB };
        Cache::open(&dir, self.bucket.clone(), budgets).unwrap()
    }

    pub(super) fn head(&self) -> CommitNo {
        CommitNo(self.log.commits.len() as u64)
    }

    /// Adds a commit of these transactions, with these header records.
    pub(super) fn commit(&mut self, records: Vec<Change>, transactions: Vec<Vec<Change>>) {
        let number = self.head().next();
        self.apply(&records, number);
        for changes in &transactions {
            self.apply(changes, number);
        }
        let header = CommitHeader {
            vault: self.keys.vault(),
            number,
            previous: self.log.commits.last().map_or(Hash::ZERO, |commit| commit.hash),
            claim: CommitNo(1),
            generation: Generation(1),
            time: Timestamp::default(),
            records,
        };
        let encode = |changes| Transaction::new(changes).encode().unwrap();
        let content =
            CommitContent { header, transactions: transactions.into_iter().map(encode).collect() };
        let hash = crypto::sha256(&seal_commit(&self.keys, &content));
        self.log.commits.push(SourcedCommit { hash, content });
    }

    fn apply(&mut self, changes: &[Change], commit: CommitNo) {
        for change in changes {
            match &change.value {
                Some(value) => self.model.insert(change.key.clone(), value.clone()),
                None => self.model.remove(&change.key),
            };
        }
        let mut now: BTreeMap<PackId, PackInfo> = BTreeMap::new();
        for (key, value) in &self.model {
            let Some((pack, bytes)) = pack_share_of(key, value).unwrap() else { continue };
            let row = now.entry(pack).or_default();
            row.references += 1;
            row.live += bytes;
        }
        for (&pack, row) in &now {
            let birth = self.packs.get(&pack).map_or(commit, |old| old.birth);
            self.packs.insert(pack, PackInfo { birth, ..row.clone() });
        }
        for (pack, row) in &mut self.packs {
            if !now.contains_key(pack) {
                let death = Some(row.death.unwrap_or(commit));
                *row = PackInfo { references: 0, live: 0, birth: row.birth, death };
            }
        }
    }

    /// All that a checkpoint made now must hold.
    pub(super) fn expected(&self) -> BTreeMap<Vec<u8>, Bytes> {
        let rows = self.packs.iter().map(|(id, row)| (Key::Pack(*id).encode(), encode_value(row)));
        self.model.clone().into_iter().chain(rows).collect()
    }

    pub(super) async fn try_build(&self, previous: &Base, cache: &Cache) -> Result<Base> {
        self.try_build_since(previous, cache, crate::crypto::FIRST_EPOCH).await
    }

    pub(super) async fn try_build_since(
        &self,
        previous: &Base,
        cache: &Cache,
        oldest: KeyEpoch,
    ) -> Result<Base> {
        let context = BuildContext {
            keys: &self.keys,
            bucket: &self.bucket,
            cache,
            generation: Generation(1),
            time: Timestamp { seconds: 1, nanos: 0 },
            oldest,
            sizes: self.sizes,
        };
        let manifest = build(previous, &self.log, self.head(), &context).await?;
        Ok(Base::new(manifest, self.keys.clone(), cache.clone()))
    }

    pub(super) async fn build(&self, previous: &Base) -> Base {
        self.try_build(previous, &self.cold()).await.unwrap()
    }

    /// The bucket's newest base, on a machine that has nothing.
    pub(super) async fn newest(&self) -> Base {
        self.newest_in(self.cold()).await
    }

    /// The newest map, read through this cache.
    pub(super) async fn newest_in(&self, cache: Cache) -> Base {
        match newest(&self.bucket, &self.keys).await.unwrap().manifest {
            Some(manifest) => Base::new(manifest, self.keys.clone(), cache),
            None => Base::empty(),
        }
    }
}

/// Looks up a key, fetching what is missing.
pub(super) async fn get(base: &Base, key: &[u8]) -> Result<Option<Bytes>> {
    let mut pins = Pins::new();
    loop {
        match base.get(key, &pins) {
            Ok(Found::Value(value)) => return Ok(Some(value)),
            Ok(Found::Absent) => return Ok(None),
            Err(miss) => base.fetch(&miss, &mut pins).await?,
        }
    }
}

/// Collects a scan, fetching what is missing.
pub(super) async fn collect(base: &Base, mut scan: Scan) -> Result<Vec<(Bytes, Bytes)>> {
    let (mut pins, mut found) = (Pins::new(), Vec::new());
    loop {
        match scan.next(&pins) {
            Ok(Some(record)) => found.push(record),
            Ok(None) => return Ok(found),
            Err(miss) => base.fetch(&miss, &mut pins).await?,
        }
    }
}

/// The whole map of a base.
pub(super) async fn all(base: &Base) -> BTreeMap<Vec<u8>, Bytes> {
    let scan = base.range(std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let records = collect(base, scan).await.unwrap();
    let count = records.len();
    let map: BTreeMap<_, _> = records.into_iter().map(|(k, v)| (k.to_vec(), v)).collect();
    assert_eq!(map.len(), count, "a key came twice");
    map
}

pub(super) fn put(key: &Key, value: Bytes) -> Change {
    Change { key: key.encode(), value: Some(value) }
}

pub(super) fn delete(key: &Key) -> Change {
    Change { key: key.encode(), value: None }
}

/// `length` bytes in the pack numbered `pack`.
pub(super) fn extent(pack: u8, length: u64) -> Extent {
    Extent { skip: 0, length, reference: Reference::made_up(pack, length) }
}

pub(super) fn file(extent: Option<Extent>) -> Bytes {
    encode_value(&Inode { mode: libc::S_IFREG | 0o644, extent, ..Inode::default() })
}

/// A random change of a small vault: keys collide often.
pub(super) fn random_change(rng: &mut StdRng) -> Change {
    let ino = InodeNo(rng.random_range(1..60));
    let hash = NameHash([rng.random_range(0..30); 16]);
    let part = |rng: &mut StdRng| extent(rng.random_range(0..12), rng.random_range(1..50));
    let (key, value) = match rng.random_range(0..10) {
        0..4 => {
            let extent = rng.random_bool(0.5).then(|| part(rng));
            (Key::Inode(ino), file(extent))
        }
        4..7 => {
            let name = vec![b'n'; rng.random_range(1..200)];
            (Key::Entry(ino, hash), encode_value(&Entry { name, ino, kind: libc::S_IFREG }))
        }
        7..9 => (Key::Extent(ino, rng.random_range(0..5) * MIB), encode_value(&part(rng))),
        // Now and then a record larger than a block.
        _ => {
            let most = if rng.random_bool(0.1) { 40 * KIB } else { 99 };
            let length = rng.random_range(0..most);
            (Key::Xattr(ino, hash), vec![b'x'; length as usize].into())
        }
    };
    if rng.random_bool(0.35) { delete(&key) } else { put(&key, value) }
}

/// A commit of random transactions.
pub(super) fn random_commit(world: &mut World, rng: &mut StdRng) {
    let mut transactions = Vec::new();
    for _ in 0..rng.random_range(0..5) {
        let changes = (0..rng.random_range(1..12)).map(|_| random_change(rng));
        let changes: BTreeMap<_, _> = changes.map(|change| (change.key.clone(), change)).collect();
        transactions.push(changes.into_values().collect());
    }
    let number = world.head().next();
    let history = number
        .0
        .is_multiple_of(4)
        .then(|| put(&Key::History(number.0 / 4), Bytes::copy_from_slice(&number.0.to_be_bytes())));
    world.commit(history.into_iter().collect(), transactions);
}

pub(super) fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}
