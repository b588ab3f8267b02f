//! Housekeeping while mounted: the journal is trimmed (J5), and the machine remembers the head (O2).

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use crate::crypto::Keys;
use crate::index::Index;
use crate::log::{Journal, Receipt, Seen};
use crate::types::{CommitNo, Generation, Hash, Seq};

/// Remembers what this machine saw of the vault; on each commit.
pub(super) struct Memory {
    pub dir: PathBuf,
    pub keys: Keys,
    pub generation: Generation,
}

impl Memory {
    /// A failure is told in the log and tried again with the next commit: a rollback of one
    /// commit might go unnoticed until then.
    pub fn remember(&self, number: CommitNo, hash: Hash) {
        let seen = Seen { number, hash, generation: self.generation };
        if let Err(error) = seen.store(&self.dir, &self.keys) {
            tracing::warn!(%error, "the head of the log is not remembered on this machine");
        }
    }

    pub fn confirmed(&self, receipt: &Receipt) {
        self.remember(receipt.number(), receipt.hash());
    }
}

/// J5: after each barrier, segments of the journal go that the bucket has and the index has
/// flushed. Ends with the barrier.
pub(super) async fn trim(journal: Arc<Journal>, index: Index, mut durable: watch::Receiver<Seq>) {
    while durable.changed().await.is_ok() {
        if !journal.is_trimmable() {
            continue;
        }
        let (journal, index) = (journal.clone(), index.clone());
        let done = tokio::task::spawn_blocking(move || {
            let flushed = index.flush()?;
            Ok::<_, crate::index::Error>(journal.trim(flushed)?)
        });
        match done.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the journal is not trimmed"),
            Err(panic) => tracing::error!(%panic, "trimming the journal"),
        }
    }
}
