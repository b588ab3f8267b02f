//! Makes a checkpoint (rules K1, K2): writes the pages first and the manifest last, then reads the manifest back.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::base::Base;
use super::build_context::BuildContext;
use super::changes::{Changed, Gathered, PinChanges, history_begins, packs_begin};
use super::kept_rows::rows_to_drop;
use super::manifest::Manifest;
use super::merge::{Merge, Merged};
use super::page::Sizes;
use super::page_io::PageIo;
use super::{Error, Result};
use crate::log::{self, CommitContent, LogEnd, open_object};
use crate::os::{self, PipelineStep};
use crate::store;
use crate::types::{CommitNo, Hash, MIB};

/// A commit, opened, with the hash of its sealed bytes.
#[derive(Clone, Debug)]
pub struct SourcedCommit {
    /// SHA-256 of the sealed bytes.
    pub hash: Hash,
    /// What it holds.
    pub content: CommitContent,
}

/// Where commits are read from: the disk cache, or else the bucket. A build may ask for the same commit several times.
#[async_trait]
pub trait CommitSource: Send + Sync {
    /// The confirmed commit of this number, its seal and number verified.
    async fn get(&self, number: CommitNo) -> Result<SourcedCommit>;
}

/// What happened since the last checkpoint, or since the vault was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct SinceCheckpoint {
    /// Commits.
    pub commits: u64,
    /// Transactions in those commits; none means that the map did not change.
    pub transactions: u64,
    /// Sealed bytes of the commits.
    pub log_bytes: u64,
    /// Sealed bytes of the checkpoint's pages.
    pub checkpoint_bytes: u64,
    /// The time since the checkpoint, or since the first commit.
    pub age: Duration,
    /// The commit as of which the checkpoint is; 0 if there is none.
    pub commit: CommitNo,
}

impl SinceCheckpoint {
    /// Whether a checkpoint is due (rule K1). It is due at `log_max` bytes of log at the latest, however large the
    /// checkpoint is, because the index has to keep what changed since.
    pub fn is_due(&self, log_max: u64) -> bool {
        let log_limit = (self.checkpoint_bytes / 4).min(log_max).max(8 * MIB);
        let daily = self.age >= Duration::from_hours(24) && self.transactions > 0;
        self.log_bytes > log_limit || self.commits >= 1024 || daily
    }
}

/// Makes the checkpoint as of commit `upto`, from the pages of `previous` and the commits after it, and returns its verified
/// manifest. It holds in memory `sizes.pass` bytes of changes, one commit, a few pages, and 48 bytes for each pack that the
/// commits mention.
///
/// An interrupted build leaves only pages that no manifest names; the previous checkpoint stays as it was.
///
/// # Errors
/// A commit or page that is not what it must be, or an error of the store. Then there is no new checkpoint.
pub async fn build(
    previous: &Base,
    commits: &dyn CommitSource,
    upto: CommitNo,
    context: &BuildContext<'_>,
) -> Result<Manifest> {
    let before = previous.manifest();
    if let Some(manifest) = before.filter(|manifest| manifest.commit >= upto) {
        return Ok(manifest.clone());
    }
    let (pages, tables) = before.map_or((&[][..], &[][..]), |m| (&m.pages[..], &m.tables[..]));
    let merge = Merge::new(PageIo::new(context, upto), pages, tables, context.sizes);
    let (merged, commit_hash, recent) =
        merge_all(merge, previous, commits, upto, context.sizes).await?;
    let live_bytes = before.map_or(0, |manifest| manifest.live_bytes);
    let live_bytes = live_bytes.checked_add_signed(merged.live);
    let manifest = Manifest {
        commit: upto,
        commit_hash,
        generation: context.generation,
        time: context.time,
        tables: merged.tables,
        live_bytes: live_bytes
            .ok_or_else(|| Error::malformed("the table of packs", "it does not add up"))?,
        pages: merged.pages,
        recent: recent.concat(),
    };
    publish(manifest.trimmed(), context).await
}

async fn merge_all(
    mut merge: Merge<'_>,
    previous: &Base,
    commits: &dyn CommitSource,
    upto: CommitNo,
    sizes: Sizes,
) -> Result<(Merged, Hash, Vec<[u8; 16]>)> {
    let (mut history, mut pins) = (BTreeMap::new(), PinChanges::new());
    let mut from = Vec::new();
    let (hash, recent) = loop {
        let mut gathered = Gathered::new(from, sizes.pass);
        let end = gather(&mut gathered, (&mut history, &mut pins), previous, commits, upto).await?;
        let peak = gathered.peak();
        let (changes, until) = gathered.into_parts();
        tracing::debug!(records = changes.len(), bytes = peak, "a pass over the commits");
        let limit = until.clone().unwrap_or_else(packs_begin);
        merge.pass(changes, Some(&limit)).await?;
        match until {
            Some(next) => from = next,
            None => break end,
        }
    };
    let mut packs = rows_to_drop(previous, &pins).await?;
    packs.extend(merge.take_packs());
    merge.pass(packs, Some(&history_begins())).await?;
    merge.pass(history, None).await?;
    Ok((merge.finish().await?, hash, recent))
}

/// One pass over the commits. Returns the hash of the last one, and the hashes since the last multiple of 256.
async fn gather(
    gathered: &mut Gathered,
    (history, pins): (&mut BTreeMap<Vec<u8>, Changed>, &mut PinChanges),
    previous: &Base,
    commits: &dyn CommitSource,
    upto: CommitNo,
) -> Result<(Hash, Vec<[u8; 16]>)> {
    let before = previous.manifest();
    let mut recent = before.map_or_else(Vec::new, Manifest::recent_hashes);
    let mut number = before.map_or(CommitNo(0), |manifest| manifest.commit);
    let mut hash = before.map_or(Hash::ZERO, |manifest| manifest.commit_hash);
    while number < upto {
        number = number.next();
        // A commit that is on this machine is not awaited: this lets others use the thread in between.
        tokio::task::yield_now().await;
        let commit = commits.get(number).await?;
        let header = &commit.content.header;
        if header.number != number || header.previous != hash {
            return Err(log::Error::Fork { number }.into());
        }
        hash = commit.hash;
        LogEnd::note(&mut recent, number, &hash);
        gathered.take(&commit.content, history, pins)?;
    }
    Ok((hash, recent))
}

/// Writes the manifest, reads it back and verifies it: from then on it counts (rule K2).
async fn publish(manifest: Manifest, context: &BuildContext<'_>) -> Result<Manifest> {
    let name = manifest.name();
    let sealed = manifest.seal(context.keys)?;
    let taken = match context.bucket.put_new(&name, sealed.clone()).await {
        Ok(_) => false,
        // An earlier build of the same number got this far before its process ended.
        Err(store::Error::Exists { .. }) => true,
        Err(error) => return Err(error.into()),
    };
    os::reached(PipelineStep::ManifestPut);
    let open = |there: &Bytes| {
        if !taken && *there != sealed {
            return Err(Error::malformed(&name, "the bucket does not hold what was written"));
        }
        Manifest::open(context.keys, manifest.commit, there)
    };
    let verified = open_object(context.bucket, &name, None, open).await?;
    if verified.commit_hash != manifest.commit_hash {
        return Err(Error::malformed(name, "it is as of another commit of this number"));
    }
    os::reached(PipelineStep::CheckpointMade);
    Ok(verified)
}
