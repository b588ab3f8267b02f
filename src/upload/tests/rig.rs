//! The rooms around the uploader, as in a small vault.

use crate::log::{Ground, NOTHING_NOTED};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::crypto::{Keys, MasterKey};
use crate::log::{Committer, Head, Journal, JournalOptions, LogEnd, open_commit};
use crate::os::{Directory, PipelineStep};
use crate::records::Claimant;
use crate::records::{Change, Inode, Key, Transaction, encode_value};
use crate::types::{
    CommitNo, Extent, Generation, Hash, InodeNo, KeyEpoch, MIB, PackId, Reference, Seq, Timestamp,
    VaultId,
};
use crate::upload::{
    Adopt, Barrier, Hooks, OpenPack, PackHold, Parts, Staging, StagingLimits, StepObserver,
    UploadLimits, Uploader,
};

pub(super) const FOOTER: &[u8] = b"<footer>";

pub(super) fn id(n: u16) -> PackId {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&n.to_be_bytes());
    PackId(id)
}

pub(super) fn quick() -> UploadLimits {
    UploadLimits {
        parallel: 3,
        bytes: 4 * MIB,
        commit: 16 << 20,
        linger: Duration::from_millis(50),
        pause: Duration::from_millis(30),
        pause_max: Duration::from_millis(120),
    }
}

/// A transaction that puts one inode, whose content is in the first `end` bytes of each of these packs.
pub(super) fn transaction(ino: u64, packs: &[(PackId, u64)]) -> Transaction {
    let mut changes = Vec::new();
    for (n, (pack, end)) in packs.iter().enumerate() {
        let reference =
            Reference { pack: *pack, sealed_length: *end, ..Reference::made_up(1, *end) };
        let extent = Extent { skip: 0, length: *end, reference };
        let key = Key::Extent(InodeNo(ino), n as u64 * MIB).encode();
        changes.push(Change { key, value: Some(encode_value(&extent)) });
    }
    let now = Timestamp::now();
    let inode = Inode {
        mode: libc::S_IFREG | 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        rdev: 0,
        size: 0,
        allocated: 0,
        atime: now,
        mtime: now,
        ctime: now,
        created: now,
        parent: InodeNo(0),
        extent: None,
        target: None,
    };
    let key = Key::Inode(InodeNo(ino)).encode();
    changes.push(Change { key, value: Some(encode_value(&inode)) });
    Transaction::new(changes)
}

/// The rooms around the uploader. What survives a restart is in `Ground`: directory, store, keys.
pub(super) struct Rig {
    ground: Ground,
    pub(super) staging: Staging,
    pub(super) journal: Arc<Journal>,
    pub(super) barrier: Barrier,
    pub(super) steps: Arc<Mutex<Vec<PipelineStep>>>,
    watched: StepObserver,
    /// Objects that were given to the cache.
    pub(super) adopted: Arc<Mutex<Vec<String>>>,
    pub(super) fenced: Arc<Mutex<Vec<CommitNo>>>,
    pub(super) confirmed: Arc<Mutex<Vec<Seq>>>,
}

pub(super) fn keys() -> Keys {
    Keys::derive(&MasterKey::generate(), VaultId([7; 16]), KeyEpoch(1))
}

/// Options for a journal in `dir`.
pub(super) fn journal_options(keys: &Keys, staging: &Staging, dir: &Path) -> JournalOptions {
    JournalOptions {
        keys: keys.clone(),
        boot: "boot".into(),
        disk: Arc::new(Directory::open(dir).unwrap()),
        watcher: Some(Arc::new(staging.clone())),
        room: None,
    }
}

impl Deref for Rig {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        &self.ground
    }
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::with(64 * MIB, Duration::from_millis(150))
    }

    pub(super) fn with(budget: u64, sync_every: Duration) -> Self {
        Self::observed(budget, sync_every, |_| ())
    }

    /// `observer` is called after each step, in the task that made it.
    pub(super) fn observed(
        budget: u64,
        sync_every: Duration,
        observer: impl Fn(PipelineStep) + Send + Sync + 'static,
    ) -> Self {
        let limits = StagingLimits { budget, free_floor: 0, wait: Duration::from_secs(5) };
        Self::placed(tempfile::tempdir().unwrap(), limits, false, sync_every, observer)
    }

    /// In a directory of the caller's; the journal shares staging's accounts if `counts_journal`.
    pub(super) fn placed(
        dir: tempfile::TempDir,
        limits: StagingLimits,
        counts_journal: bool,
        sync_every: Duration,
        observer: impl Fn(PipelineStep) + Send + Sync + 'static,
    ) -> Self {
        let ground = Ground::below("", Duration::from_millis(500), dir);
        let dir = &ground.dir;
        let staging = Staging::open(&dir.path().join("staging"), limits).unwrap();
        let mut options = ground.journal_options(Some(Arc::new(staging.clone())));
        options.room = counts_journal.then(|| staging.journal_room());
        let journal = Journal::create(options, NOTHING_NOTED);
        let journal = Arc::new(journal.unwrap());
        let steps = Arc::new(Mutex::new(Vec::new()));
        let adopted = Arc::new(Mutex::new(Vec::new()));
        let cache = dir.path().join("cache");
        std::fs::create_dir(&cache).unwrap();
        let adopt: Adopt = {
            let adopted = adopted.clone();
            Arc::new(move |object: &str, file: &Path| {
                std::fs::rename(file, cache.join(file.file_name().unwrap()))?;
                adopted.lock().push(object.to_owned());
                Ok(())
            })
        };
        let watched = {
            let steps = steps.clone();
            StepObserver::watched(move |step| {
                steps.lock().push(step);
                observer(step);
            })
        };
        let (watching, its_journal) = (watched.clone(), journal.clone());
        let barrier = Barrier::start(staging.clone(), its_journal, adopt, sync_every, watching);
        let (fenced, confirmed) = (Arc::default(), Arc::default());
        Self { ground, staging, journal, barrier, steps, watched, adopted, fenced, confirmed }
    }

    /// A committer that has claimed the vault, at the end of an empty log.
    pub(super) async fn committer(&self) -> Committer {
        let head = Head { number: CommitNo(0), hash: Hash::ZERO, seen: SystemTime::now() };
        let (recent, generation) = (Vec::new(), Generation(1));
        let end = LogEnd { head, recent, generation, upto: Seq(0) };
        let mut committer = Committer::new(self.bucket.clone(), self.keys.clone(), end);
        let claimant =
            Claimant { machine: "machine".into(), host: "host".into(), journal: self.journal.id() };
        committer.claim(&claimant).await.unwrap();
        committer
    }

    pub(super) async fn uploader(&self, limits: UploadLimits) -> Uploader {
        let committer = self.committer().await;
        self.faulty.take_requests();
        self.start(committer, limits)
    }

    pub(super) fn start(&self, committer: Committer, limits: UploadLimits) -> Uploader {
        let (confirmed, fenced) = (self.confirmed.clone(), self.fenced.clone());
        let hooks = Hooks {
            on_confirmed: Arc::new(move |receipt| confirmed.lock().push(receipt.upto())),
            on_fenced: Arc::new(move |number| fenced.lock().push(number)),
        };
        let parts = Parts {
            staging: self.staging.clone(),
            journal: self.journal.clone(),
            committer,
            bucket: self.bucket.clone(),
            barrier: self.barrier.clone(),
        };
        Uploader::start(parts, hooks, limits, self.watched.clone())
    }

    /// An open pack with `bytes` bytes, and a hold on it.
    pub(super) fn pack(&self, n: u16, bytes: usize) -> (OpenPack, PackHold) {
        let mut pack = self.staging.create(id(n)).unwrap();
        let hold = self.staging.hold(id(n));
        pack.append(&vec![n.to_le_bytes()[0]; bytes]).unwrap();
        (pack, hold)
    }

    /// A closed pack of `bytes` bytes, published by its own transaction.
    pub(super) fn file(&self, n: u16, bytes: usize) -> Seq {
        let (pack, hold) = self.pack(n, bytes);
        let seq = self.publish(n, &[n], bytes);
        pack.close(FOOTER).unwrap();
        drop(hold);
        seq
    }

    pub(super) fn publish(&self, ino: u16, packs: &[u16], end: usize) -> Seq {
        let packs: Vec<_> = packs.iter().map(|n| (id(*n), end as u64)).collect();
        self.journal.append(&transaction(ino.into(), &packs)).unwrap().0
    }

    /// A change without content.
    pub(super) fn touch(&self, ino: u16) -> Seq {
        self.publish(ino, &[], 0)
    }

    /// For each commit in the bucket's log after the claim, in order, how many transactions it holds.
    pub(super) fn logged(&self) -> Vec<usize> {
        let names = self.store.names();
        let commits = names.iter().filter_map(|name| name.strip_prefix("log/"));
        let opened = commits.map(|number| {
            let number: CommitNo = number.parse().unwrap();
            let sealed = self.store.peek(&format!("log/{number}")).unwrap();
            open_commit(&self.keys, number, &sealed).unwrap().transactions.len()
        });
        opened.skip(1).collect() // the claim
    }

    pub(super) fn stepped(&self, step: PipelineStep) -> usize {
        self.steps.lock().iter().filter(|done| **done == step).count()
    }
}

pub(super) const SOON: Duration = Duration::from_secs(60);

/// Polls until it holds.
pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + SOON;
    while !holds() {
        assert!(std::time::Instant::now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
