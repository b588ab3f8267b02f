//! An open vault: its rooms, its status, and waiting until everything is in the bucket.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::budgets::{BlockShare, disk_budget};
use super::checkpointer::Checkpointer;
use super::disk_space;
use super::following::Following;
use super::head_recorder::HeadRecorder;
use super::index_room::IndexRoom;
use super::key_changer::KeyChanger;
use super::reclaiming::Reclaiming;
use super::renewing::Renewing;
use super::this_machine::MachineLock;
use super::unsent_ages::UnsentAges;
use super::{Result, VaultOptions};
use crate::cache::Cache;
use crate::content::Content;
use crate::index::Index;
use crate::log::{Committer, Head, Journal};
use crate::os;
use crate::types::{
    AsOf, OldStatesStatus, Progress, StoreLimits, Timestamp, VaultStatus, VaultTraffic,
};
use crate::upload::{Barrier, Staging, Trouble, Uploader};
use crate::vfs::{Periodic, Vfs};

/// An open vault.
pub struct Vault {
    pub(super) options: Arc<VaultOptions>,
    pub(super) vfs: Vfs,
    pub(super) content: Content,
    pub(super) index: Index,
    pub(super) cache: Cache,
    pub(super) blocks: BlockShare,
    pub(super) head: Arc<Mutex<Head>>,
    pub(super) as_of: Option<AsOf>,
    pub(super) warnings: Vec<String>,
    /// How many changes in this machine's journal the bucket lacks, and so a reader does not show. 0 in a writer.
    pub(super) unsent_not_shown: u64,
    pub(super) ages: UnsentAges,
    pub(super) writer: Option<Writer>,
    /// Set in a reader that follows what others write.
    pub(super) following: Option<Following>,
    /// The last field, so dropped last: once another process can have the vault, nothing of ours runs any more.
    pub(super) _lock: MachineLock,
}

/// What only a writer has.
pub(super) struct Writer {
    pub(super) journal: Arc<Journal>,
    pub(super) staging: Staging,
    pub(super) barrier: Barrier,
    pub(super) uploader: Arc<Uploader>,
    pub(super) checkpointer: Arc<Checkpointer>,
    pub(super) reclaiming: Arc<Reclaiming>,
    pub(super) recorder: Arc<HeadRecorder>,
    pub(super) keys: Arc<KeyChanger>,
    pub(super) renewing: Arc<Renewing>,
    pub(super) index_room: Arc<IndexRoom>,
    pub(super) tasks: Vec<JoinHandle<()>>,
    pub(super) periodic: Mutex<Option<Periodic>>,
    /// Held by whoever closes the vault.
    pub(super) ending: tokio::sync::Mutex<Ending>,
}

/// How far the vault is closed.
#[derive(Default)]
pub(super) enum Ending {
    /// Changes are taken and sent.
    #[default]
    Open,
    /// Everything is in the bucket, and no change is taken. The committer is to release the claim.
    Sent(Option<Box<Committer>>),
    /// The claim is released.
    Released,
    /// The release is noted in the journal on this machine, too.
    Closed,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The warning of a reader when objects that its state needs are gone.
const GONE: &str = "parts of the state that this mount shows are not in the bucket any more: it is older than the retention, and was \
     deleted there. What it still shows is right, the rest fails with EIO; unmount it, and mount it again to see the vault as it \
     is now";

/// The same, for a reader that moves on by itself.
const GONE_FOR_NOW: &str = "parts of the state that this mount shows are not in the bucket any more. What it still shows is right, the rest fails with \
     EIO; it moves on to the vault as it is now when it is used. If this stays, `s3vault check` says what is missing";

impl Vault {
    /// The vault as a file system.
    pub fn vfs(&self) -> Vfs {
        self.vfs.clone()
    }

    /// Adjusts the memory for decrypted blocks and kept buffers to `resident`, the process's resident bytes: it shrinks when
    /// that is too much. Returns whether it shrank. Short, no I/O.
    pub fn give_way(&self, resident: u64) -> bool {
        let Some(bytes) = self.blocks.next(resident) else { return false };
        let before = self.cache.usage().block_bytes;
        self.cache.limit_blocks(bytes);
        os::Buffers::shared().keep(BlockShare::kept_beside(bytes));
        bytes < before
    }

    /// Applies new limits on requests, bandwidth and read-ahead.
    ///
    /// # Errors
    /// The store refuses objects of this class or with these tags, or does not answer; nothing was changed.
    pub async fn limit(&self, limits: &StoreLimits) -> Result<()> {
        let before = self.options.bucket.limited_to();
        if (&before.storage_class, &before.tags) != (&limits.storage_class, &limits.tags) {
            self.options.try_put_as(limits).await?;
        }
        self.options.bucket.limit(limits);
        self.content.limit_read_ahead(limits.read_ahead);
        Ok(())
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    #[cfg(test)]
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// How it was opened.
    pub fn options(&self) -> &VaultOptions {
        &self.options
    }

    /// What is on its way to the bucket. No I/O, does not block.
    pub fn progress(&self) -> Progress {
        let Some(writer) = &self.writer else { return Progress::default() };
        let usage = writer.staging.usage();
        let uploads = writer.uploader.status();
        let trouble = uploads.trouble.first().map(Trouble::describe);
        // A request is retried for 30 s before it counts as failed; this reports it sooner.
        let failing = || self.options.bucket.puts_fail();
        let trouble = trouble.or_else(|| uploads.poisoned.clone()).or_else(failing);
        Progress {
            unsent_bytes: usage.unsent_bytes,
            unsent_packs: usage.unsent_packs,
            unsent_changes: uploads.unsent_transactions(),
            moved_bytes: uploads.carried,
            unpublished_files: self.content.unpublished().len() as u64,
            fenced: uploads.fenced.is_some(),
            oldest_unsent_seconds: self.ages.oldest(uploads.appended, uploads.confirmed),
            trouble,
        }
    }

    /// The state of everything. Asks no store, does not block.
    pub fn status(&self) -> VaultStatus {
        let head = *self.head.lock();
        let totals = self.index.totals();
        let (cache, asked) = (self.cache.usage(), self.options.bucket.requests());
        let mut warnings = self.warnings.clone();
        warnings.extend(self.options.bucket.quirks());
        warnings.extend(self.options.bucket.refuses_credentials());
        warnings.extend(self.options.bucket.reads_fail().map(|why| {
            format!("the store does not answer: {why}; what is not on this disk waits for it")
        }));
        warnings.extend(os::panics());
        let followed = self.following.as_ref().map(Following::lacked);
        match followed {
            None if self.writer.is_none() && cache.lacking > 0 => warnings.push(GONE.to_owned()),
            Some(before) if cache.lacking > before => warnings.push(GONE_FOR_NOW.to_owned()),
            _ => {}
        }
        let (mut staging, mut index_disk, mut old_states) = ((0, 0), 0, OldStatesStatus::default());
        let mut renewal = None;
        if self.writer.is_none() {
            warnings.extend(self.damage());
        }
        if let Some(writer) = &self.writer {
            let usage = writer.staging.usage();
            staging = (usage.used, usage.budget);
            index_disk = writer.index_room.taken();
            old_states = writer.reclaiming.status();
            renewal = writer.renewing.status();
            warnings.extend(writer.renewing.unfinished());
            warnings.extend(writer.checkpointer.trouble());
            warnings.extend(disk_space::warning(&self.options.state_dir));
        }
        VaultStatus {
            progress: self.progress(),
            head: head.number,
            fingerprint: head.hash,
            head_time: Timestamp::from(head.seen),
            as_of: self.as_of.clone(),
            read_only: self.index.read_only().or_else(|| self.poisoned()),
            following: self.following.as_ref().map(Following::status),
            inodes: totals.inodes,
            bytes: totals.bytes,
            staging,
            cache_disk: cache.disk_bytes,
            index_disk,
            disk_budget: disk_budget(&self.options.state_dir, self.options.cache_size),
            old_states,
            renewal,
            unsent_not_shown: self.unsent_not_shown,
            traffic: VaultTraffic {
                memory_hits: cache.block_hits,
                memory_misses: cache.block_misses,
                fetches: cache.fetches,
                requests: self.options.bucket.ended(),
                put_bytes: asked.bytes_put,
                got_bytes: asked.bytes_got,
                today: self.options.bucket.today(),
            },
            warnings,
        }
    }

    /// The warning of a reader whose index is damaged (J4): its reason for being read-only says nothing about that.
    fn damage(&self) -> Option<String> {
        let how = match self.following {
            Some(_) => "it is made anew while the mount is used",
            None => "mount it again, and it is made anew",
        };
        let text = format!(
            "the local index is damaged, and what it should tell cannot be read (EIO); {how}; nothing is lost"
        );
        self.index.is_damaged().then_some(text)
    }

    fn poisoned(&self) -> Option<String> {
        self.writer.as_ref()?.barrier.poisoned()
    }

    /// Waits until everything written before the call is in the bucket.
    ///
    /// # Errors
    /// [`crate::upload::Error::Unfinished`] at the deadline, naming what is missing; whatever else makes it impossible.
    pub async fn sync(&self, deadline: Duration) -> Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        self.vfs.publish_all().await?;
        let upto = writer.journal.appended();
        // Closed after `appended` is read, so no pack that `upto` needs stays open.
        self.content.close_packs()?;
        Ok(writer.uploader.sync(upto, deadline).await?)
    }

    /// Makes a checkpoint of what is in the bucket now.
    #[cfg(any(test, feature = "testing"))]
    pub async fn checkpoint(&self) -> Result<()> {
        match &self.writer {
            Some(writer) => writer.checkpointer.checkpoint().await.map(drop),
            None => Ok(()),
        }
    }
}
