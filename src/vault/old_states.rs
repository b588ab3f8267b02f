//! Old states: how long they are kept, named ones (snapshots), and the deletion of what no state needs (K4).

use std::time::Duration;

use super::{Error, Result, Vault};
use crate::checkpoint::manifests;
use crate::index::{self, PINS_MAX};
use crate::reclaim::{Pace, ReclaimPlan, Reclaimed};
use crate::records::Pin;
use crate::types::{CommitNo, Timestamp};

/// How often a snapshot starts over because deletion has passed its checkpoint.
const TRIES: usize = 3;
/// How long a change may take to get to the bucket while nothing moves.
const PATIENCE: Duration = Duration::from_secs(60);

/// A snapshot, described for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its name.
    pub name: Vec<u8>,
    /// The state that it is of.
    pub pin: Pin,
}

impl Vault {
    /// Deletes in the bucket what no promised state needs any more; in a dry run, reports what that would be.
    ///
    /// # Errors
    /// What prevented it; only what nothing needs is gone.
    pub async fn reclaim(
        &self,
        dry_run: bool,
        tell: &(dyn Fn(&Reclaimed) + Send + Sync),
    ) -> Result<Reclaimed> {
        let Some(writer) = &self.writer else { return Err(Error::ReadOnlyMount) };
        if !dry_run {
            self.vfs.publish_all().await?;
            self.content.close_packs()?;
        }
        writer.reclaiming.run(ReclaimPlan { dry_run, pace: Pace::Full }, tell).await
    }

    /// Whether the vault was opened for writing.
    pub fn is_writer(&self) -> bool {
        self.writer.is_some()
    }

    /// How long old states are kept, by the store's clock.
    pub async fn retention(&self) -> Result<Duration> {
        Ok(self.index.read(|view| view.retention()).await?)
    }

    /// Sets how long old states are kept, at least a second. Returns when that is in the bucket.
    pub async fn set_retention(&self, retention: Duration) -> Result<()> {
        let put = self.index.change(|draft| {
            draft.put_retention(retention.max(Duration::from_secs(1)));
            Ok::<_, index::Error>(())
        });
        let ((), seq) = put.await?;
        self.uploaded(seq).await
    }

    /// All snapshots, ordered by name.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        let pins = self.index.read(|view| view.pins()).await?;
        Ok(pins.into_iter().map(|(name, pin)| SnapshotInfo { name, pin }).collect())
    }

    /// Names the current state. Everything written before is in it, and in the bucket when this returns. It ends after
    /// `keep`, if given.
    ///
    /// # Errors
    /// [`Error::Snapshot`]: the name is taken, or not valid for a snapshot.
    pub async fn make_snapshot(&self, name: &[u8], keep: Option<Duration>) -> Result<Pin> {
        let Some(writer) = &self.writer else { return Err(Error::ReadOnlyMount) };
        Pin::key(name).map_err(|error| Error::Snapshot(error.to_string()))?;
        self.name_is_free(name).await?;
        for _ in 0..TRIES {
            self.vfs.publish_all().await?;
            self.uploaded(writer.journal.appended()).await?;
            let commit = writer.checkpointer.checkpoint_as_of_head().await?;
            let ends = match keep {
                Some(keep) => Some(self.store_clock().await?.after(keep)),
                None => None,
            };
            let pin = Pin { commit, created: Timestamp::now(), ends };
            if let Some(seq) = self.pin(name, &pin).await? {
                self.uploaded(seq).await?;
                return Ok(pin);
            }
        }
        Err(Error::Snapshot("old states were deleted in the same moment; try again".to_owned()))
    }

    /// The store's current time: the last commit may be days old.
    async fn store_clock(&self) -> Result<Timestamp> {
        let (_, now) = manifests(&self.options().bucket).await?;
        Ok(Timestamp::of_store(now))
    }

    async fn name_is_free(&self, name: &[u8]) -> Result<()> {
        // Lists show one snapshot a line.
        if name.iter().any(u8::is_ascii_control) {
            return Err(Error::Snapshot(
                "a name of a snapshot has no control characters".to_owned(),
            ));
        }
        let taken = self.index.read(|view| view.pin(name)).await?;
        if taken.is_some() {
            return Err(Error::Snapshot("there is a snapshot of that name".to_owned()));
        }
        Ok(())
    }

    /// Puts the record of a snapshot whose manifest is verified. `None`: deletion has passed that state (K4, K5).
    async fn pin(&self, name: &[u8], pin: &Pin) -> Result<Option<crate::types::Seq>> {
        let put = self.index.change(|draft| {
            let refused = |why: &str| Err(Error::Snapshot(why.to_owned()));
            if draft.pin(name)?.is_some() {
                return refused("there is a snapshot of that name");
            }
            if draft.pins()?.len() >= PINS_MAX {
                return refused("there are 10,000 snapshots already");
            }
            let passed = draft.horizon()?.map_or(CommitNo(0), |horizon| horizon.commit);
            if passed > pin.commit {
                return Ok(false);
            }
            draft.put_pin(name, pin)?;
            Ok(true)
        });
        let (is_put, seq) = put.await?;
        Ok(is_put.then_some(seq))
    }

    /// Ends a snapshot. What only it needs goes with the next deletion.
    ///
    /// # Errors
    /// [`Error::Snapshot`]: there is no snapshot of that name.
    pub async fn delete_snapshot(&self, name: &[u8]) -> Result<()> {
        let taken = self.index.change(|draft| {
            if draft.pin(name)?.is_none() {
                return Err(Error::Snapshot("there is no snapshot of that name".to_owned()));
            }
            draft.frees_room();
            Ok(draft.delete_pin(name)?)
        });
        let ((), seq) = taken.await?;
        self.uploaded(seq).await
    }

    /// Waits until everything up to this transaction is in the bucket.
    pub(super) async fn uploaded(&self, seq: crate::types::Seq) -> Result<()> {
        let Some(writer) = &self.writer else { return Err(Error::ReadOnlyMount) };
        self.content.close_packs()?;
        Ok(writer.uploader.sync_while_moving(seq, PATIENCE, || {}).await?)
    }
}
