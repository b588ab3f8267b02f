//! The vfs over the real modules below it (journal, index, staging, content), and a store in memory.

#![allow(clippy::cast_possible_truncation, reason = "sizes of tests")]

mod background;
mod invalidate;
mod known_to_kernel;
mod many;
mod model;
mod namespace;
mod random;
mod rules;
mod seek;
mod unnamed;
mod workshops;

use crate::log::{Ground, NOTHING_NOTED};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::cache::{Budgets, Cache};
use crate::checkpoint::Base;
use crate::content::Limits;
use crate::index::{IndexMemory, IndexOptions};
use crate::log::{Journal, PackWatcher};
use crate::types::{MIB, PackId};
use crate::upload::{Staging, StagingLimits};

pub(super) const ALICE: Caller = Caller { uid: 1000, gid: 100, pid: 1, umask: 0o022 };
const NO_FLAGS: OpenFlags =
    OpenFlags { read: false, write: false, truncate: false, exclusive: false, no_atime: false };
pub(super) const READ: OpenFlags = OpenFlags { read: true, ..NO_FLAGS };
pub(super) const WRITE: OpenFlags = OpenFlags { read: true, write: true, ..NO_FLAGS };

/// How a mount ends before the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reopen {
    /// Everything is published, then closed.
    Clean,
    /// The daemon dies: what was only in its memory is lost.
    Kill,
}

/// A vault on this machine. More ways to end a mount belong in `reopen`.
pub(crate) struct World {
    ground: Ground,
    cache: Cache,
    pub(super) staging: Staging,
    pub(super) journal: Arc<Journal>,
    pub(super) durable: Arc<Durable>,
    options: VfsOptions,
    limits: Limits,
    vfs: Option<Vfs>,
}

impl Deref for World {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

/// Records what `fsync` asks for, and returns what a test sets.
#[derive(Debug, Default)]
pub(super) struct Durable {
    pub(super) local: AtomicU64,
    pub(super) bucket: AtomicU64,
    /// What `free` returns, in bytes; 0 stands for no known limit.
    pub(super) free: AtomicU64,
    /// What the store has taken; each look at it adds `moves`.
    pub(super) carried: AtomicU64,
    pub(super) moves: AtomicU64,
}

#[async_trait]
impl Durability for Durable {
    async fn fsync(&self, upto: Seq) -> std::result::Result<(), DurabilityError> {
        self.local.fetch_max(upto.0, Ordering::SeqCst);
        Ok(())
    }

    async fn bucket(&self, upto: Seq) -> std::result::Result<(), DurabilityError> {
        self.bucket.fetch_max(upto.0, Ordering::SeqCst);
        Ok(())
    }

    fn free(&self) -> Option<u64> {
        Some(self.free.load(Ordering::SeqCst)).filter(|free| *free > 0)
    }

    fn carried(&self) -> u64 {
        self.carried.fetch_add(self.moves.load(Ordering::SeqCst), Ordering::SeqCst)
    }

    fn pack_progress(&self, _: PackId) -> PackProgress {
        PackProgress::Here
    }

    fn pack_key(&self, pack: PackId) -> String {
        pack.to_string()
    }
}

struct Watch(Staging);

impl PackWatcher for Watch {
    fn appending(&self, seq: Seq, packs: &[PackId]) -> crate::log::Result<Vec<PackId>> {
        self.0.appending(seq, packs).map_err(|error| crate::log::Error::Poisoned(error.to_string()))
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(VfsOptions::default(), 1 << 30).await
    }

    pub(crate) async fn with(options: VfsOptions, staging_budget: u64) -> Self {
        Self::limited(options, staging_budget, Limits::default()).await
    }

    /// A world whose transactions take only this much of a publication (V1).
    pub(super) async fn of_small_transactions(records: u64) -> Self {
        let limits = Limits { records, ..Limits::default() };
        Self::limited(VfsOptions::default(), 1 << 30, limits).await
    }

    async fn limited(options: VfsOptions, staging_budget: u64, content: Limits) -> Self {
        let ground = Ground::new(Duration::from_secs(30));
        let dir = &ground.dir;
        let budgets = Budgets { memory: 8 * MIB, disk: 64 * MIB };
        let cache = Cache::open(&dir.path().join("cache"), ground.bucket.clone(), budgets).unwrap();
        let limits = StagingLimits {
            budget: staging_budget,
            free_floor: 0,
            wait: Duration::from_millis(50),
        };
        let staging = Staging::open(&dir.path().join("staging"), limits).unwrap();
        let watcher = Arc::new(Watch(staging.clone()));
        let journal =
            Journal::create(ground.journal_options(Some(watcher)), NOTHING_NOTED).unwrap();
        let journal = Arc::new(journal);
        let durable = Arc::default();
        let limits = content;
        let mut world =
            Self { ground, cache, staging, journal, durable, options, limits, vfs: None };
        world.open().await;
        let root = Inode {
            mode: libc::S_IFDIR | 0o755,
            nlink: 2,
            parent: InodeNo::ROOT,
            ..Inode::default()
        };
        let make = |draft: &mut Draft<'_>| -> Result<()> {
            draft.put_inode(InodeNo::ROOT, &root);
            Ok(())
        };
        world.vfs().change(make).await.unwrap();
        world
    }

    async fn open(&mut self) {
        let index = self.index().await;
        let from = index.point().seq;
        index.replay(&self.journal.read_after(from, usize::MAX).unwrap()).unwrap();
        index.attach(self.journal.clone());
        let (cache, staging) = (self.cache.clone(), self.staging.clone());
        let content = Content::new(self.keys.clone(), cache, staging, self.limits);
        let journaled = self.journal.appended();
        let durable = self.durable.clone();
        let vfs = Vfs::new(index, content, durable, self.options, journaled);
        vfs.recover().await.unwrap();
        self.vfs = Some(vfs);
    }

    /// sled's own threads may keep the database open for a moment after the index is dropped.
    async fn index(&self) -> Index {
        let begun = std::time::Instant::now();
        loop {
            let options = IndexOptions {
                dir: self.dir.path().join("index"),
                keys: self.keys.clone(),
                base: Base::empty(),
                memory: IndexMemory::of(0),
            };
            match Index::open(options) {
                Ok(index) => return index,
                Err(error) => assert!(begun.elapsed().as_secs() < 60, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn vfs(&self) -> &Vfs {
        self.vfs.as_ref().unwrap()
    }

    /// How many inodes are held by handles or the kernel.
    pub(crate) fn held(&self) -> usize {
        self.vfs().inner.holds.len()
    }

    /// Ends the mount, and mounts again.
    pub(super) async fn reopen(&mut self, how: Reopen) {
        if how == Reopen::Clean {
            self.vfs().publish_all().await.unwrap();
        }
        self.vfs = None;
        self.open().await;
        self.vfs().finish_recovery().await.unwrap();
    }

    /// The length of the longest transaction so far, in bytes.
    pub(super) fn longest(&self) -> usize {
        let all = self.journal.read_after(Seq(0), usize::MAX).unwrap();
        all.iter().map(|journaled| journaled.bytes.len()).max().unwrap_or(0)
    }

    /// The number of transactions so far.
    pub(crate) fn transactions(&self) -> u64 {
        self.journal.appended().0
    }

    /// The last transaction that was asked to be in the bucket.
    pub(crate) fn asked_of_the_bucket(&self) -> u64 {
        self.durable.bucket.load(Ordering::SeqCst)
    }

    /// Bytes that staging holds or has reserved.
    pub(crate) fn staged(&self) -> u64 {
        let usage = self.staging.usage();
        usage.used + usage.reserved
    }

    pub(super) async fn file(&self, name: &str, data: &[u8]) -> InodeNo {
        let vfs = self.vfs();
        let made = vfs.create(&ALICE, InodeNo::ROOT, name.as_bytes(), 0o644, WRITE).await;
        let (seen, handle) = made.unwrap();
        vfs.write(handle, WriteAt::Offset(0), data).await.unwrap();
        vfs.flush(handle).await.unwrap();
        vfs.release(handle).await.unwrap();
        seen.ino
    }

    pub(super) async fn bytes(&self, ino: InodeNo) -> Vec<u8> {
        let vfs = self.vfs();
        let handle = vfs.open(ino, READ).await.unwrap();
        let bytes = vfs.read_data(handle, 0, u32::MAX).await.unwrap();
        vfs.release(handle).await.unwrap();
        bytes.to_vec()
    }
}
