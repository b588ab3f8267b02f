//! Changes the keys of an open vault: writes its superblocks, one after the other (K6, K7, K8).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{MutexGuard, Notify};

use super::superblock::{self, Renewal, Superblock};
use super::{Error, Result, Unlocked, superblock_copy};
use crate::content::Content;
use crate::crypto::Keys;
use crate::index::{self, Index};
use crate::log::Head;
use crate::store::Bucket;
use crate::types::CurrentGeneration;
use crate::upload::Uploader;

/// How often a change starts over because another superblock came first.
pub(super) const TRIES: usize = 5;
/// How long a commit may take to get to the bucket while nothing moves.
const PATIENCE: Duration = Duration::from_secs(60);

/// Changes the keys of an open vault.
pub(super) struct KeyChanger {
    pub(super) bucket: Bucket,
    /// As the vault was opened; its `keys` learn of later epochs.
    pub(super) unlocked: Unlocked,
    pub(super) data_dir: PathBuf,
    pub(super) index: Index,
    pub(super) content: Content,
    pub(super) uploader: Arc<Uploader>,
    pub(super) head: Arc<Mutex<Head>>,
    /// Held during a change: one at a time.
    generation: tokio::sync::Mutex<CurrentGeneration>,
    /// As in the superblock that counts.
    renewal: Mutex<Option<Renewal>>,
    /// Notified when a rotation or renewal may have work to do.
    pub(super) changed: Notify,
}

/// The bucket, the unlocked vault and the data directory.
pub(super) type KeyParts = (Bucket, Unlocked, PathBuf);

impl KeyChanger {
    pub(super) fn new(
        (bucket, unlocked, data_dir): KeyParts,
        (index, content): (Index, Content),
        (uploader, head): (Arc<Uploader>, Arc<Mutex<Head>>),
        generation: CurrentGeneration,
    ) -> Self {
        let superblock = superblock::decode(unlocked.generation, &unlocked.sealed);
        let renewal = Mutex::new(superblock.ok().and_then(|(superblock, _)| superblock.renewal));
        let (generation, changed) = (tokio::sync::Mutex::new(generation), Notify::new());
        Self {
            bucket,
            unlocked,
            data_dir,
            index,
            content,
            uploader,
            head,
            generation,
            renewal,
            changed,
        }
    }

    /// Waits for the turn to change the keys.
    pub(super) async fn turn(&self) -> MutexGuard<'_, CurrentGeneration> {
        self.generation.lock().await
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.unlocked.keys
    }

    /// What is being sealed anew, or was, by the superblock that counts.
    pub(super) fn renewal(&self) -> Option<Renewal> {
        *self.renewal.lock()
    }

    /// Fails if fenced: only the holder of the claim writes superblocks.
    pub(super) fn is_not_fenced(&self) -> Result<()> {
        if self.uploader.status().fenced.is_some() { Err(Error::Contended) } else { Ok(()) }
    }

    /// Puts the next superblock, made by `change`; `None` if `change` finds nothing to do. The caller then calls
    /// `settle`.
    pub(super) async fn succeed(
        &self,
        generation: &CurrentGeneration,
        change: impl Fn(Superblock) -> Result<Option<Superblock>>,
    ) -> Result<Option<Superblock>> {
        for _ in 0..TRIES {
            self.is_not_fenced()?;
            let (before, generation_after) =
                superblock::newest_and_next(&self.bucket, &self.unlocked).await?;
            let Some(next) = change(before)? else { return Ok(None) };
            let next = Superblock { generation: generation_after, ..next };
            if superblock::succeed(&self.bucket, self.keys(), &next).await? {
                self.takes(generation, self.keys(), &next);
                return Ok(Some(next));
            }
        }
        Err(Error::Keys("other machines change its keys in the same moment; try again".to_owned()))
    }

    /// Notes that a superblock counts.
    pub(super) fn takes(&self, generation: &CurrentGeneration, keys: &Keys, next: &Superblock) {
        generation.raise(next.generation);
        *self.renewal.lock() = next.renewal;
        let sealed = superblock::sealed(keys, next).1;
        superblock_copy::keep(&self.data_dir, next.vault, &sealed);
    }

    /// Finishes after a superblock counts: deletes the older ones, and sends a commit that names it, so that an older
    /// one that is put back is refused (O1). Returns what went wrong.
    pub(super) async fn settle(&self, superblock: &Superblock) -> Vec<String> {
        let mut trouble = Vec::new();
        let gone = superblock::delete_before(&self.bucket, superblock.generation).await;
        if let Err(error) = gone {
            tracing::warn!(%error, "old superblocks are still there");
            trouble.push(format!(
                "the superblocks before are still in the bucket ({error}): with a copy of one, a secret that counts no \
                 more still opens the vault; `s3vault gc` deletes them when these credentials may"
            ));
        }
        if let Err(error) = self.name_in_the_log().await {
            tracing::warn!(%error, "no commit names the new superblock yet");
            trouble.push(format!(
                "the change counts, but no commit names it yet ({error}); the next that is sent does"
            ));
        }
        trouble
    }

    /// Sends a commit with a transaction that changes nothing; it names the superblock.
    pub(super) async fn name_in_the_log(&self) -> Result<()> {
        let put = self.index.change(|draft| {
            let retention = draft.retention()?;
            draft.put_retention(retention);
            draft.frees_room();
            Ok::<_, index::Error>(())
        });
        let ((), seq) = put.await?;
        self.content.close_packs()?;
        Ok(self.uploader.sync_while_moving(seq, PATIENCE, || {}).await?)
    }
}
