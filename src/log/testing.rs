//! What tests of this module and of those above it build on.

use std::sync::Arc;
use std::time::Duration;

use super::{JournalOptions, NotedCommit, PackWatcher};
use crate::crypto::{FIRST_EPOCH, Keys, MasterKey, random};
use crate::os::Directory;
use crate::store::{Bucket, Deadlines, Faulty, MemoryStore};
use crate::types::{CommitNo, Hash, Seq, VaultId};

/// The note of a journal that knows of no commit.
pub(crate) const NOTHING_NOTED: NotedCommit =
    NotedCommit { upto: Seq(0), number: CommitNo(0), hash: Hash::ZERO };

/// An empty bucket in memory that can fail, the keys of a new vault, and a local directory.
pub(crate) struct Ground {
    pub(crate) dir: tempfile::TempDir,
    /// The bucket's store.
    pub(crate) store: Arc<MemoryStore>,
    /// Wraps the store, and fails when told to.
    pub(crate) faulty: Arc<Faulty>,
    pub(crate) bucket: Bucket,
    pub(crate) master: [u8; 32],
    pub(crate) keys: Keys,
}

impl Ground {
    /// With this deadline for a request.
    pub(crate) fn new(deadline: Duration) -> Self {
        Self::below("", deadline, tempfile::tempdir().unwrap())
    }

    /// With objects below a prefix, and the caller's directory.
    pub(crate) fn below(prefix: &str, deadline: Duration, dir: tempfile::TempDir) -> Self {
        let store = Arc::new(MemoryStore::new());
        let faulty = Faulty::over(store.clone());
        let bucket = Bucket::over(faulty.clone(), prefix, Deadlines::of(deadline));
        let master = random();
        let keys = Keys::derive(&MasterKey::from_bytes(master), VaultId(random()), FIRST_EPOCH);
        Self { dir, store, faulty, bucket, master, keys }
    }

    /// Options of a journal in the directory.
    pub(crate) fn journal_options(&self, watcher: Option<Arc<dyn PackWatcher>>) -> JournalOptions {
        let disk = Arc::new(Directory::open(&self.dir.path().join("journal")).unwrap());
        let (keys, boot) = (self.keys.clone(), "boot".into());
        JournalOptions { keys, boot, disk, watcher, room: None }
    }
}
