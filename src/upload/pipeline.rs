//! The uploader: packs in parallel, then commits in order (C1). It sends nothing and wakes for nothing when idle.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::barrier::Barrier;
use super::error::{Error, Result};
use super::health::{Shared, Stop, Trouble};
use super::staging::{Staging, Usage};
use super::steps::Steps;
use super::{commits, send};
use crate::log::{Committer, Journal, Receipt};
use crate::os;
use crate::store::Bucket;
use crate::types::{CommitNo, MIB, Seq};

/// How much is on the wire, and how long a commit waits for company.
#[derive(Clone, Copy, Debug)]
pub struct UploadLimits {
    /// Packs on the wire at once.
    pub parallel: usize,
    /// Their bytes in memory. A pack larger than that goes alone.
    pub bytes: u64,
    /// Transactions in one commit at most, in bytes: at least `TRANSACTION_MAX` and one, at most `COMMIT_BYTES` (C1). Several
    /// times that in memory while it is sealed. What must be in one (C1) is, up to `COMMIT_BYTES`.
    pub commit: usize,
    /// How long after the first transaction that it can hold a commit leaves, if nobody waits for it.
    pub linger: Duration,
    /// The first pause after the store failed (the bucket itself has tried for a whole deadline before); it doubles.
    pub pause: Duration,
    /// The longest pause.
    pub pause_max: Duration,
}

impl Default for UploadLimits {
    fn default() -> Self {
        Self {
            parallel: 6,
            bytes: 102 * MIB, // six full packs: 16 MiB and their padding
            commit: 8 << 20,
            linger: Duration::from_millis(200),
            pause: Duration::from_millis(200),
            pause_max: Duration::from_secs(30),
        }
    }
}

/// How often somebody who waits as long as there is progress looks whether there is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whom the uploader tells. Called on its tasks: short, no waiting.
#[derive(Clone)]
pub struct Hooks {
    /// A commit is in the bucket, and that is noted in the journal.
    pub on_confirmed: Arc<dyn Fn(&Receipt) + Send + Sync>,
    /// Another writer has this commit: nothing more is sent (W3).
    pub on_fenced: Arc<dyn Fn(CommitNo) + Send + Sync>,
}

/// What the uploader works on.
pub struct Parts {
    /// Packs.
    pub staging: Staging,
    /// Transactions.
    pub journal: Arc<Journal>,
    /// The log's end, claimed.
    pub committer: Committer,
    /// Where to.
    pub bucket: Bucket,
    /// Notes what is confirmed, and lets packs leave.
    pub barrier: Barrier,
}

/// For `status`.
#[derive(Clone, Debug)]
pub struct Status {
    /// Packs and bytes here and unsent.
    pub staging: Usage,
    /// Packs on the wire.
    #[allow(dead_code, reason = "tests wait for it")]
    pub sending: u64,
    /// Bytes that the other end has taken: while this grows the link lives.
    pub carried: u64,
    /// The last transaction of the journal, and the last one in the bucket.
    pub appended: Seq,
    /// The last transaction that is in the bucket.
    pub confirmed: Seq,
    /// The trouble with packs, and with commits, if there is any now; both are tried again for ever.
    pub trouble: Vec<Trouble>,
    /// Another writer has this commit: nothing more is sent (W3).
    pub fenced: Option<CommitNo>,
    /// The local disk failed: nothing more is accepted or sent (J6).
    pub poisoned: Option<String>,
}

impl Status {
    /// Transactions that are not in the bucket.
    #[must_use]
    pub fn unsent_transactions(&self) -> u64 {
        self.appended.0.saturating_sub(self.confirmed.0)
    }

    /// What is not in the bucket yet, and why, in words.
    #[must_use]
    pub fn missing(&self) -> String {
        let Usage { unsent_packs, unsent_bytes, .. } = self.staging;
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
    shared: Arc<Shared>,
    packs: JoinHandle<()>,
    commits: Option<JoinHandle<Option<Committer>>>,
}

impl Uploader {
    /// Starts sending. Within a runtime.
    #[must_use]
    pub fn start(parts: Parts, hooks: Hooks, limits: UploadLimits, steps: Steps) -> Self {
        let Parts { staging, journal, committer, bucket, barrier } = parts;
        let places = (staging, journal, bucket, barrier);
        let shared = Arc::new(Shared::new(places, hooks, limits, steps, committer.upto()));
        let packs = {
            let shared = shared.clone();
            tokio::spawn(async move {
                let ended = os::watched("sending packs", send::run(shared.clone())).await;
                ended.unwrap_or_else(|panicked| shared.give_up(panicked));
            })
        };
        let commits = {
            let shared = shared.clone();
            tokio::spawn(async move {
                let run = commits::run(shared.clone(), committer);
                let ended = os::watched("writing commits", run).await;
                ended.unwrap_or_else(|panicked| {
                    shared.give_up(panicked);
                    None
                })
            })
        };
        Self { shared, packs, commits: Some(commits) }
    }

    /// Waits until every transaction up to `upto` is in the bucket; no commit lingers meanwhile.
    ///
    /// # Errors
    /// `Unfinished` at the deadline, naming what is missing; `Fenced`, `Poisoned`, `Stopped`: it never will be.
    pub async fn sync(&self, upto: Seq, deadline: Duration) -> Result<()> {
        self.want(upto);
        self.wait(upto, Instant::now() + deadline).await
    }

    /// No commit lingers until this one, and what pauses because the store failed tries again now.
    fn want(&self, upto: Seq) {
        self.shared.wanted.send_modify(|wanted| *wanted = upto.max(*wanted));
    }

    async fn wait(&self, upto: Seq, until: Instant) -> Result<()> {
        let mut confirmed = self.shared.confirmed.subscribe();
        let mut stop = self.shared.stop.subscribe();
        loop {
            if *confirmed.borrow_and_update() >= upto {
                return Ok(());
            }
            self.shared.halted(); // notices a poisoned disk
            let stopped = stop.borrow_and_update().clone();
            match stopped {
                None => (),
                Some(Stop::Asked) => return Err(Error::Stopped),
                Some(Stop::Fenced(_)) => return Err(Error::Fenced),
                Some(Stop::Failed(reason)) => return Err(Error::Poisoned(reason)),
            }
            tokio::select! {
                _ = confirmed.changed() => (),
                _ = stop.changed() => (),
                () = tokio::time::sleep_until(until) => {
                    return Err(Error::Unfinished { missing: self.status().missing() });
                }
            }
        }
    }

    /// As `sync`, but its deadline counts from the last progress: a slow link is no error. `moves` is called when it begins
    /// and whenever it has come further.
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
            let now = self.shared.progress();
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
        self.sync(self.shared.journal.appended(), deadline).await
    }

    /// Every transaction up to this one is in the bucket.
    #[must_use]
    pub fn confirmed(&self) -> Seq {
        *self.shared.confirmed.borrow()
    }

    /// Bytes of packs and commits that the other end has taken; it only grows. What is taken and lost, and sent again,
    /// counts once.
    #[must_use]
    pub fn carried(&self) -> u64 {
        self.shared.wire.lock().carried()
    }

    /// For `status`.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        let troubles = [shared.packs_health.trouble(), shared.commits_health.trouble()];
        let fenced = match &*shared.stop.borrow() {
            Some(Stop::Fenced(found)) => Some(*found),
            _ => None,
        };
        let failed = match &*shared.stop.borrow() {
            Some(Stop::Failed(reason)) => Some(reason.clone()),
            _ => None,
        };
        Status {
            staging: shared.staging.usage(),
            sending: shared.sending(),
            carried: self.carried(),
            appended: shared.journal.appended(),
            confirmed: self.confirmed(),
            trouble: troubles.into_iter().flatten().collect(),
            fenced,
            poisoned: failed.or_else(|| shared.barrier.poisoned()),
        }
    }

    /// Stops; gives the committer back, for a release if nothing is unsent. A request on the wire is cut off.
    pub async fn stop(mut self) -> Option<Committer> {
        self.shared.stop_with(Stop::Asked);
        self.packs.abort();
        match self.commits.take() {
            Some(commits) => commits.await.ok().flatten(),
            None => None,
        }
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        self.packs.abort();
        if let Some(commits) = &self.commits {
            commits.abort();
        }
    }
}

impl std::fmt::Debug for Uploader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uploader").field("confirmed", &self.confirmed()).finish_non_exhaustive()
    }
}
