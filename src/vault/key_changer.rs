//! Changes of the keys of an open vault: its superblocks, one after the other (K6, K7, K8).

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

/// How often a change is begun again because another superblock came between.
pub(super) const TRIES: usize = 5;
/// How long the way of a commit into the bucket may take while nothing moves.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who changes the keys of an open vault.
pub(super) struct KeyChanger {
    pub(super) bucket: Bucket,
    /// As it was opened; its keys know of later epochs.
    pub(super) unlocked: Unlocked,
    pub(super) data_dir: PathBuf,
    pub(super) index: Index,
    pub(super) content: Content,
    pub(super) uploader: Arc<Uploader>,
    pub(super) head: Arc<Mutex<Head>>,
    /// Held while they are changed: one change at a time.
    generation: tokio::sync::Mutex<CurrentGeneration>,
    /// As the superblock that counts has it.
    renewal: Mutex<Option<Renewal>>,
    /// There may be something to go on with.
    pub(super) changed: Notify,
}

/// What a vault changes its keys with.
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

    /// The turn to change them.
    pub(super) async fn turn(&self) -> MutexGuard<'_, CurrentGeneration> {
        self.generation.lock().await
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.unlocked.keys
    }

    /// What is to be sealed anew, or was, as the superblock has it.
    pub(super) fn renewal(&self) -> Option<Renewal> {
        *self.renewal.lock()
    }

    /// Only who has the claim writes a superblock.
    pub(super) fn is_not_fenced(&self) -> Result<()> {
        if self.uploader.status().fenced.is_some() { Err(Error::Contended) } else { Ok(()) }
    }

    /// Puts the next superblock, as it is told; `None`: it is so already. The caller settles it.
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

    /// A superblock counts.
    pub(super) fn takes(&self, generation: &CurrentGeneration, keys: &Keys, next: &Superblock) {
        generation.raise(next.generation);
        *self.renewal.lock() = next.renewal;
        let sealed = superblock::sealed(keys, next).1;
        superblock_copy::keep(&self.data_dir, next.vault, &sealed);
    }

    /// What follows once a superblock counts: no older one, and a commit that names it, so that an older one that is put
    /// back is refused (O1).
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

    /// A transaction that changes nothing, and its commit.
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
