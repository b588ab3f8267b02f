//! Makes checkpoints when they are due, while the vault is used (K1), and moves the index onto them (J9).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::budgets::Shares;
use super::{Error, Result};
use crate::cache::Cache;
use crate::checkpoint::{
    self, Base, BuildContext, CommitSource, SinceCheckpoint, Sizes, SourcedCommit, build,
};
use crate::crypto::{self, FIRST_EPOCH, Keys};
use crate::index::Index;
use crate::log::{COMMIT_MAX, Receipt, commit_name, open_commit, open_object, parse_commit_name};
use crate::os;
use crate::os::ProcessTally;
use crate::store::Bucket;
use crate::types::{CommitNo, CurrentGeneration, KeyEpoch, Timestamp};

/// How long after a failed checkpoint the next may begin; twice as long after each further one, up to `AGAIN_MAX`. Each failure
/// leaves pages that no manifest names.
const AGAIN: Duration = Duration::from_secs(300);
const AGAIN_MAX: Duration = Duration::from_hours(6);
/// How often it is looked whether changes have waited for a day.
const LOOK: Duration = Duration::from_hours(1);

/// What checkpoints are made from, and when the next is due.
pub(super) struct Checkpointer {
    pub keys: Keys,
    pub bucket: Bucket,
    pub cache: Cache,
    pub index: Index,
    pub generation: CurrentGeneration,
    /// Pages that an epoch before this one sealed are not shared (K8).
    oldest: Mutex<KeyEpoch>,
    shares: Shares,
    state: Mutex<State>,
    /// Notified when a checkpoint may be due.
    changed: Notify,
    /// Held while a checkpoint is made: one at a time.
    one: tokio::sync::Mutex<()>,
}

struct State {
    since: SinceCheckpoint,
    began: SystemTime,
    head: CommitNo,
    failed: Option<String>,
}

impl Checkpointer {
    pub(super) fn new(
        (keys, bucket, cache): (Keys, Bucket, Cache),
        index: Index,
        generation: CurrentGeneration,
        shares: Shares,
        (since, head): (SinceCheckpoint, CommitNo),
    ) -> Arc<Self> {
        let began = SystemTime::from(Timestamp::now()) - since.age;
        let state = Mutex::new(State { since, began, head, failed: None });
        let (changed, one) = (Notify::new(), tokio::sync::Mutex::default());
        let oldest = Mutex::new(FIRST_EPOCH);
        Arc::new(Self {
            keys,
            bucket,
            cache,
            index,
            generation,
            oldest,
            shares,
            state,
            changed,
            one,
        })
    }

    /// From now on a checkpoint refers to no page that an epoch before `oldest` sealed (K8).
    pub(super) fn renew(&self, oldest: KeyEpoch) {
        *self.oldest.lock() = oldest;
    }

    /// Notes that a commit is in the bucket.
    pub(super) fn confirmed(&self, receipt: &Receipt) {
        let mut state = self.state.lock();
        state.head = receipt.number();
        state.since.commits += 1;
        state.since.transactions += receipt.size().transactions;
        state.since.log_bytes += receipt.size().sealed;
        if self.is_due(&mut state) {
            self.changed.notify_one();
        }
    }

    /// As if the last checkpoint had been made this much earlier.
    #[cfg(test)]
    pub(super) fn grow_older(&self, by: Duration) {
        self.state.lock().began -= by;
    }

    fn is_due(&self, state: &mut State) -> bool {
        state.since.age = Timestamp::from(state.began).age();
        state.since.is_due(self.shares.log)
    }

    /// The error of the last attempt, if it failed.
    pub(super) fn trouble(&self) -> Option<String> {
        self.state.lock().failed.clone()
    }

    /// Makes checkpoints as they become due, also when nothing more is written. A failed one is tried again later: only the length
    /// of the log depends on it.
    pub(super) async fn run(self: Arc<Self>) {
        let mut pause = AGAIN;
        loop {
            if !self.is_due(&mut self.state.lock()) {
                let _ = timeout(LOOK, self.changed.notified()).await;
                continue;
            }
            let Err(error) = self.checkpoint().await else {
                pause = AGAIN;
                continue;
            };
            tracing::warn!(%error, "a checkpoint could not be made; the log goes on");
            ProcessTally::FailedCheckpoints.add(1);
            self.state.lock().failed = Some(error.to_string());
            sleep(pause).await;
            pause = (pause * 2).min(AGAIN_MAX);
        }
    }

    /// The last confirmed commit.
    pub(super) fn head(&self) -> CommitNo {
        self.state.lock().head
    }

    /// Confirmed transactions since the last checkpoint.
    pub(super) fn changes(&self) -> u64 {
        self.state.lock().since.transactions
    }

    /// Makes a checkpoint if the map has changed since the last.
    pub(super) async fn checkpoint_if_changed(&self) -> Result<()> {
        let is_changed = self.state.lock().since.transactions > 0;
        if is_changed { self.checkpoint().await.map(drop) } else { Ok(()) }
    }

    /// Makes a checkpoint as of the last confirmed commit, unless the last one is of this very map. Returns its commit.
    pub(super) async fn checkpoint_as_of_head(&self) -> Result<CommitNo> {
        // Not the index's base: on a full disk that stays behind (J8).
        let SinceCheckpoint { transactions, commit, .. } = self.state.lock().since;
        if transactions == 0 && commit > CommitNo(0) { Ok(commit) } else { self.checkpoint().await }
    }

    /// Makes a checkpoint as of the last confirmed commit, and returns its number.
    pub(super) async fn checkpoint(&self) -> Result<CommitNo> {
        let _one = self.one.lock().await;
        let (upto, before) = {
            let state = self.state.lock();
            (state.head, state.since)
        };
        let base = self.index.base();
        let context = BuildContext {
            keys: &self.keys,
            bucket: &self.bucket,
            cache: &self.cache,
            generation: self.generation.get(),
            time: Timestamp::now(),
            oldest: *self.oldest.lock(),
            sizes: Sizes { pass: self.shares.pass, ..Sizes::default() },
        };
        let commits = self.commits(self.index.base_commit()).await?;
        let manifest = build(&base, &commits, upto, &context).await?;
        let (made, pages) = (manifest.commit, manifest.page_bytes());
        let base = Base::new(manifest, self.keys.clone(), self.cache.clone());
        let index = self.index.clone();
        let rebase = move || os::watched_here("moving to a newer base", || index.rebase(base));
        let rebased = os::blocking(rebase).await;
        let rebased = rebased.map_err(|ended| Error::Local(ended.to_string()))?;
        rebased.map_err(|panicked| Error::Local(panicked.to_string()))??;
        let mut state = self.state.lock();
        state.since.commits -= before.commits;
        state.since.transactions -= before.transactions;
        state.since.log_bytes -= before.log_bytes;
        state.since.checkpoint_bytes = pages;
        state.began = Timestamp::now().into();
        state.since.age = Duration::ZERO;
        state.since.commit = made;
        state.failed = None;
        ProcessTally::Checkpoints.add(1);
        tracing::info!(commit = upto.0, pages, "a checkpoint was made");
        Ok(made)
    }

    async fn commits(&self, after: CommitNo) -> Result<Commits<'_>> {
        let (listed, _) = self.bucket.list_after("log/", &commit_name(after)).await?;
        let lengths = listed
            .iter()
            .filter_map(|object| Some((parse_commit_name(&object.name)?, object.length)))
            .collect();
        Ok(Commits { at: self, lengths })
    }
}

/// Commits from the disk cache, or else from the bucket: a build reads them several times.
struct Commits<'a> {
    at: &'a Checkpointer,
    lengths: BTreeMap<CommitNo, u64>,
}

#[async_trait]
impl CommitSource for Commits<'_> {
    async fn get(&self, number: CommitNo) -> checkpoint::Result<SourcedCommit> {
        let name = commit_name(number);
        let open = |sealed: &Bytes| {
            let content = open_commit(&self.at.keys, number, sealed)?;
            Ok((sealed.clone(), SourcedCommit { hash: crypto::sha256(sealed), content }))
        };
        let length = self.lengths.get(&number).filter(|length| **length <= COMMIT_MAX as u64);
        if let Some(length) = length {
            let cached = self.at.cache.sealed(&name, 0..*length).await;
            match cached.map_err(checkpoint::Error::from).and_then(|sealed| open(&sealed)) {
                Ok((_, commit)) => return Ok(commit),
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    tracing::warn!(object = name, %error, "the local copy is bad: fetching it again");
                    self.at.cache.forget(&name);
                }
            }
        }
        let (sealed, commit) = open_object(&self.at.bucket, &name, None, open).await?;
        self.at.cache.insert_whole(&name, sealed);
        Ok(commit)
    }
}
