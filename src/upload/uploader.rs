//! The uploader: packs in parallel, then commits in order (C1). When idle it sends nothing and never wakes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::barrier::Barrier;
use super::error::{Error, Result};
use super::health::Trouble;
use super::pipeline::{Hooks, Pipeline, StopReason, UploadLimits};
use super::staging::{Staging, StagingUsage};
use super::steps::StepObserver;
use super::{commits, send};
use crate::log::{Committer, Journal};
use crate::os;
use crate::store::Bucket;
use crate::types::{CommitNo, Seq};

/// How often `sync_while_moving` looks for progress.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the uploader works on.
pub struct Parts {
    /// Packs.
    pub staging: Staging,
    /// Transactions.
    pub journal: Arc<Journal>,
    /// The log's end, claimed.
    pub committer: Committer,
    /// Where packs and commits go.
    pub bucket: Bucket,
    /// Notes what is confirmed, and lets packs leave.
    pub barrier: Barrier,
}

/// The state of the pipeline, for `status`.
#[derive(Clone, Debug)]
pub struct UploadStatus {
    /// Packs and bytes here and unsent.
    pub staging: StagingUsage,
    /// Packs on the wire.
    #[allow(dead_code, reason = "tests wait for it")]
    pub sending: u64,
    /// Bytes that the other end has taken: as long as this grows, the link works.
    pub carried: u64,
    /// The last transaction of the journal.
    pub appended: Seq,
    /// The last transaction that is in the bucket.
    pub confirmed: Seq,
    /// Current trouble with packs and with commits; both are retried forever.
    pub trouble: Vec<Trouble>,
    /// Another writer has written this commit: nothing more is sent (W3).
    pub fenced: Option<CommitNo>,
    /// The local disk failed: nothing more is accepted or sent (J6).
    pub poisoned: Option<String>,
}

impl UploadStatus {
    /// Transactions that are not in the bucket.
    #[must_use]
    pub fn unsent_transactions(&self) -> u64 {
        self.appended.0.saturating_sub(self.confirmed.0)
    }

    /// What is not in the bucket yet, and why, in words.
    #[must_use]
    pub fn missing(&self) -> String {
        let StagingUsage { unsent_packs, unsent_bytes, .. } = self.staging;
        let changes = self.unsent_transactions();
        let mut text = format!("{changes} changes, {unsent_bytes} bytes in {unsent_packs} packs");
        for trouble in &self.trouble {
            text = format!("{text}; {}", trouble.error);
        }
        text
    }
}

/// The running pipeline. Dropping it ends its tasks; everything unsent stays where it is.
pub struct Uploader {
    staging: Staging,
    pipeline: Arc<Pipeline>,
    packs: JoinHandle<()>,
    /// Taken by the first call of `stop`.
    commits: Mutex<Option<JoinHandle<Option<Committer>>>>,
}

impl Uploader {
    /// Starts sending. Must be called within a runtime.
    #[must_use]
    pub fn start(parts: Parts, hooks: Hooks, limits: UploadLimits, steps: StepObserver) -> Self {
        let Parts { staging, journal, committer, bucket, barrier } = parts;
        let places = (staging.area.clone(), journal, bucket, barrier);
        let pipeline = Arc::new(Pipeline::new(places, hooks, limits, steps, committer.upto()));
        let packs = {
            let pipeline = pipeline.clone();
            tokio::spawn(async move {
                let ended = os::watched("sending packs", send::run(pipeline.clone())).await;
                ended.unwrap_or_else(|panicked| pipeline.give_up(panicked));
            })
        };
        let commits = {
            let pipeline = pipeline.clone();
            tokio::spawn(async move {
                let run = commits::run(pipeline.clone(), committer);
                let ended = os::watched("writing commits", run).await;
                ended.unwrap_or_else(|panicked| {
                    pipeline.give_up(panicked);
                    None
                })
            })
        };
        Self { staging, pipeline, packs, commits: Mutex::new(Some(commits)) }
    }

    /// Waits until every transaction up to `upto` is in the bucket; no commit lingers meanwhile.
    ///
    /// # Errors
    /// `Unfinished` at the deadline, naming what is missing; `Fenced`, `Poisoned`, `Stopped` if it never will be.
    pub async fn sync(&self, upto: Seq, deadline: Duration) -> Result<()> {
        self.want(upto);
        self.wait(upto, Instant::now() + deadline).await
    }

    /// Commits up to `upto` do not linger, and pauses after failures of the store end now.
    fn want(&self, upto: Seq) {
        self.pipeline.wanted.send_modify(|wanted| *wanted = upto.max(*wanted));
    }

    async fn wait(&self, upto: Seq, until: Instant) -> Result<()> {
        let mut confirmed = self.pipeline.confirmed.subscribe();
        let mut stop = self.pipeline.stop.subscribe();
        loop {
            if *confirmed.borrow_and_update() >= upto {
                return Ok(());
            }
            self.pipeline.halted(); // notices a poisoned disk
            let stopped = stop.borrow_and_update().clone();
            match stopped {
                None => (),
                Some(StopReason::Asked) => return Err(Error::Stopped),
                Some(StopReason::Fenced(_)) => return Err(Error::Fenced),
                Some(StopReason::Failed(reason)) => return Err(Error::Poisoned(reason)),
            }
            tokio::select! {
                biased;
                _ = confirmed.changed() => (),
                _ = stop.changed() => (),
                () = tokio::time::sleep_until(until) => {
                    return Err(self.unfinished());
                }
            }
        }
    }

    /// The error that the bucket does not have everything yet, naming what is missing.
    pub fn unfinished(&self) -> Error {
        Error::Unfinished { missing: self.status().missing() }
    }

    /// As `sync`, but the deadline counts from the last progress: a slow link is no error. `moves` is called at the
    /// start, and whenever more has reached the bucket.
    pub async fn sync_while_moving(
        &self,
        upto: Seq,
        patience: Duration,
        moves: impl Fn() + Send,
    ) -> Result<()> {
        self.want(upto);
        let look = (patience / 8).min(LOOK_EVERY);
        let (mut reached, mut since) = ((Seq(0), 0), Instant::now());
        loop {
            let now = self.pipeline.progress();
            if now.0 > reached.0 || now.1 > reached.1 {
                reached = (now.0.max(reached.0), now.1.max(reached.1));
                since = Instant::now();
                moves();
            }
            match self.wait(upto, Instant::now() + look).await {
                Err(Error::Unfinished { .. }) if since.elapsed() < patience => {}
                done => return done,
            }
        }
    }

    /// Waits until everything that was appended is in the bucket.
    #[cfg(test)]
    pub async fn finish(&self, deadline: Duration) -> Result<()> {
        self.sync(self.pipeline.journal.appended(), deadline).await
    }

    /// The last transaction up to which all are in the bucket.
    #[must_use]
    pub fn confirmed(&self) -> Seq {
        *self.pipeline.confirmed.borrow()
    }

    /// Bytes of packs and commits that the other end has taken. It only grows: bytes that are lost and sent again count
    /// once.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.pipeline.in_flight.lock().carried()
    }

    /// For `status`.
    #[must_use]
    pub fn status(&self) -> UploadStatus {
        let pipeline = &self.pipeline;
        let troubles = [pipeline.packs_health.trouble(), pipeline.commits_health.trouble()];
        let fenced = match &*pipeline.stop.borrow() {
            Some(StopReason::Fenced(found)) => Some(*found),
            _ => None,
        };
        let failed = match &*pipeline.stop.borrow() {
            Some(StopReason::Failed(reason)) => Some(reason.clone()),
            _ => None,
        };
        UploadStatus {
            staging: self.staging.usage(),
            sending: pipeline.sending(),
            carried: self.carried(),
            appended: pipeline.journal.appended(),
            confirmed: self.confirmed(),
            trouble: troubles.into_iter().flatten().collect(),
            fenced,
            poisoned: failed.or_else(|| pipeline.barrier.poisoned()),
        }
    }

    /// Stops: waiting callers get an error, and requests on the wire are cut off. The first call returns the committer,
    /// for a release if nothing is unsent; later calls return `None`.
    pub async fn stop(&self) -> Option<Committer> {
        self.pipeline.stop_with(StopReason::Asked);
        self.packs.abort();
        let commits = self.commits.lock().take();
        commits?.await.ok().flatten()
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.packs.abort();
        if let Some(commits) = self.commits.get_mut() {
            commits.abort();
        }
    }
}

impl std::fmt::Debug for Uploader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uploader").field("confirmed", &self.confirmed()).finish_non_exhaustive()
    }
}
