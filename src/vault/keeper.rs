//! Housekeeping while mounted: the journal is trimmed (J5), and the machine remembers the head (O2).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::crypto::Keys;
use crate::index::{self, Index};
use crate::log::{self, Journal, Receipt, Seen};
use crate::types::{CommitNo, Generation, Hash, Seq};

/// Remembers what this machine saw of the vault; on each commit.
pub(super) struct Memory {
    dir: PathBuf,
    keys: Keys,
    generation: Generation,
    /// What is to be remembered and is not yet.
    wanted: Mutex<Option<Seen>>,
    /// The last that was; held while it is written, so that an older one never comes after a newer.
    written: Mutex<CommitNo>,
}

impl Memory {
    pub(super) fn new(dir: PathBuf, keys: Keys, generation: Generation) -> Arc<Self> {
        let (wanted, written) = (Mutex::new(None), Mutex::new(CommitNo(0)));
        Arc::new(Self { dir, keys, generation, wanted, written })
    }

    /// Remembers now. A failure is told in the log and tried again with the next commit: a rollback of
    /// one commit might go unnoticed until then.
    pub(super) fn remember(&self, number: CommitNo, hash: Hash) {
        self.want(number, hash);
        self.write();
    }

    /// Remembers in a moment: the one task that commits does not wait for this disk.
    pub(super) fn confirmed(self: &Arc<Self>, receipt: &Receipt) {
        if !self.want(receipt.number(), receipt.hash()) {
            return; // the one that is under way takes the newest
        }
        let memory = self.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || memory.write())),
            Err(_) => memory.write(),
        }
    }

    /// Whether nothing was wanted before.
    fn want(&self, number: CommitNo, hash: Hash) -> bool {
        let seen = Seen { number, hash, generation: self.generation };
        self.wanted.lock().replace(seen).is_none()
    }

    fn write(&self) {
        let mut written = self.written.lock();
        let Some(seen) = self.wanted.lock().take() else { return };
        if seen.number < *written {
            return;
        }
        match seen.store(&self.dir, &self.keys) {
            Ok(()) => *written = seen.number,
            Err(error) => {
                tracing::warn!(%error, "the head of the log is not remembered on this machine");
            }
        }
    }
}

/// What could not be done is tried again after this.
const TRIM_AGAIN: Duration = Duration::from_secs(5);

/// J5: after each barrier, segments of the journal go that the bucket has and the index has
/// flushed. Ends with the barrier.
pub(super) async fn trim(journal: Arc<Journal>, index: Index, mut durable: watch::Receiver<Seq>) {
    let mut is_owed = false;
    loop {
        // Nobody tells that a disk has room again, and while the journal is full there are no changes that would.
        let told = match is_owed {
            true => timeout(TRIM_AGAIN, durable.changed()).await.unwrap_or(Ok(())),
            false => durable.changed().await,
        };
        if told.is_err() {
            return;
        }
        is_owed = false;
        if !journal.is_trimmable() {
            continue;
        }
        let (journal, index) = (journal.clone(), index.clone());
        let done = tokio::task::spawn_blocking(move || {
            let flushed = index.flush()?;
            Ok::<_, index::Error>(journal.trim(flushed)?)
        });
        match done.await {
            Ok(Ok(())) => {}
            Ok(Err(index::Error::Log(log::Error::Full))) => is_owed = true,
            Ok(Err(error)) => tracing::warn!(%error, "the journal is not trimmed"),
            Err(panic) => tracing::error!(%panic, "trimming the journal"),
        }
    }
}
