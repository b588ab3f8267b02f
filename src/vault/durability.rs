//! What `fsync` means in an open vault, for the vfs, which knows neither disk nor bucket.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout_at;

use crate::store::Bucket;
use crate::types::{PackId, Patience, Seq};
use crate::upload::{self, Barrier, StagedState, Staging, Uploader, pack_object};
use crate::vfs::{self, Durability, DurabilityError, PackProgress};

/// How long an fsync with `--fsync bucket` waits without any progress before it fails: longer than one request with its
/// retries. While bytes get to the bucket it waits on: a slow link is no error.
pub(super) const BUCKET_FSYNC: Duration = Duration::from_secs(120);
/// How much later the caller's own deadline is, so that this wait fails first and can say why.
const LATER: Duration = Duration::from_secs(5);

/// `fsync` in a mount that writes.
pub(super) struct WriterDurability {
    pub(super) barrier: Barrier,
    pub(super) uploader: Arc<Uploader>,
    pub(super) staging: Staging,
    pub(super) bucket: Bucket,
    /// For waits for the bucket ([`BUCKET_FSYNC`]): in the kernel, one fsync of a file may wait for another.
    pub(super) patience: Patience,
}

#[async_trait]
impl Durability for WriterDurability {
    async fn fsync(&self, upto: Seq) -> Result<(), DurabilityError> {
        self.barrier.sync(upto).await.map_err(|error| match error {
            upload::Error::Full => DurabilityError::Full,
            error => DurabilityError::Failed(error.into()),
        })
    }

    async fn bucket(&self, upto: Seq) -> Result<(), DurabilityError> {
        let moves = || vfs::extend_deadline(BUCKET_FSYNC + LATER);
        // Only whether it grows matters.
        let progress = || self.uploader.confirmed().0 + self.uploader.carried();
        loop {
            let before = progress();
            let wait = self.uploader.sync_while_moving(upto, BUCKET_FSYNC, moves);
            let done = match self.patience.until(before) {
                None => wait.await,
                Some(until) => match timeout_at(until, wait).await {
                    Ok(done) => done,
                    Err(_) if progress() > before => continue,
                    Err(_) => Err(self.uploader.unfinished()),
                },
            };
            if matches!(done, Err(upload::Error::Unfinished { .. })) {
                self.patience.in_vain(progress());
            }
            return done.map_err(|error| DurabilityError::Failed(error.into()));
        }
    }

    /// Free space of the store; while the store takes nothing, what staging can still hold.
    fn free(&self) -> Option<u64> {
        if self.uploader.status().trouble.is_empty() {
            return self.bucket.free();
        }
        let usage = self.staging.usage();
        Some(usage.budget.saturating_sub(usage.used + usage.reserved + usage.beside))
    }

    fn carried(&self) -> u64 {
        self.uploader.carried()
    }

    fn pack_progress(&self, pack: PackId) -> PackProgress {
        match self.staging.state_of(pack) {
            Some(StagedState::Waits) => PackProgress::Here,
            Some(StagedState::IsSent) => PackProgress::Sending,
            None => PackProgress::InBucket,
        }
    }

    fn pack_key(&self, pack: PackId) -> String {
        self.bucket.key_of(&pack_object(pack))
    }
}

/// A reader has nothing to make durable.
pub(super) struct ReaderDurability(pub(super) Bucket);

#[async_trait]
impl Durability for ReaderDurability {
    async fn fsync(&self, _: Seq) -> Result<(), DurabilityError> {
        Ok(())
    }
    async fn bucket(&self, _: Seq) -> Result<(), DurabilityError> {
        Ok(())
    }
    fn free(&self) -> Option<u64> {
        self.0.free()
    }
    fn carried(&self) -> u64 {
        0
    }
    fn pack_progress(&self, _: PackId) -> PackProgress {
        PackProgress::InBucket
    }
    fn pack_key(&self, pack: PackId) -> String {
        self.0.key_of(&pack_object(pack))
    }
}
