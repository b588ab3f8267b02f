//! Deletion in the bucket, in the background and by hand: when it is due, and its results (K4, K5).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::Result;
use super::checkpointer::Checkpointer;
use super::rewriting::Rewriting;
use crate::index::Index;
use crate::reclaim::{self, Pace, ReclaimPlan, Reclaimed, Reclaimer, RunUnderWay};
use crate::types::{CommitNo, OldStatesStatus, with_causes};

/// How long after the mount the first run in the background may begin.
const FIRST: Duration = Duration::from_secs(300);
/// The pause between background runs is the retention, but at least `SHORTEST` and at most `LONGEST`.
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The pause is at least this many times as long as the run before it took.
const REST: u32 = 20;
/// The pause after a run that gave way to somebody.
const AFTER_GIVING_WAY: Duration = Duration::from_secs(60);
/// How often an idle mount looks, at most, for old objects that are still to go.
const OWED: Duration = Duration::from_hours(1);
/// With a retention up to this, a run by hand waits until the checkpoint it just made is old enough.
const WAITED_FOR: Duration = Duration::from_secs(5);
/// Below this retention a checkpoint is made for the sake of deletion; above, the regular ones do (K1).
const CHECKPOINTS_BELOW: Duration = LONGEST;

/// Deletion in an open vault.
pub(super) struct Reclaiming {
    reclaimer: Reclaimer,
    rewriting: Rewriting,
    checkpointer: Arc<Checkpointer>,
    index: Index,
    state: Mutex<ReclaimState>,
    /// Something is to be deleted once it is old enough, although nothing changes (K8).
    owes: AtomicBool,
    /// Notified when a run ends.
    pub(super) ended: Notify,
}

/// How deletion fares.
#[derive(Clone, Debug, Default)]
struct ReclaimState {
    /// For `status`.
    told: OldStatesStatus,
    /// The head as of the last complete run: while it stays the same, nothing new can have died.
    seen: Option<CommitNo>,
}

impl Reclaiming {
    pub(super) fn new(
        reclaimer: Reclaimer,
        rewriting: Rewriting,
        checkpointer: Arc<Checkpointer>,
    ) -> Arc<Self> {
        let index = reclaimer.index.clone();
        let (state, owes, ended) = (Mutex::default(), AtomicBool::default(), Notify::new());
        Arc::new(Self { reclaimer, rewriting, checkpointer, index, state, owes, ended })
    }

    /// The status of deletion.
    pub(super) fn status(&self) -> OldStatesStatus {
        self.state.lock().told.clone()
    }

    /// One run, by hand if the pace is full. A background run ends after its current step when somebody waits for a run.
    pub(super) async fn run(
        &self,
        plan: ReclaimPlan,
        tell: &(dyn Fn(&Reclaimed) + Send + Sync),
    ) -> Result<Reclaimed> {
        let retention = self.retention().await?;
        let by_hand = plan.pace == Pace::Full;
        if !by_hand && retention < CHECKPOINTS_BELOW {
            // Before the run takes its turn, as this may take long.
            self.checkpointer.checkpoint_if_changed().await?;
        }
        let one = self.reclaimer.runs.begin(plan.pace).await;
        if by_hand {
            // So that what was just removed is in the checkpoint.
            self.reclaimer.settle().await?;
        }
        if by_hand && !plan.dry_run {
            if !self.has_seen_all() {
                self.checkpointer.checkpoint_if_changed().await?;
            }
            if retention <= WAITED_FOR {
                // Until the checkpoint is older than the retention, by a clock that counts in seconds.
                sleep(retention + Duration::from_secs(1)).await;
            }
        }
        let (head, horizons) = (self.checkpointer.head(), self.horizons());
        let changes = self.checkpointer.changes();
        let sees_all = changes == 0 || self.has_seen_all();
        self.state.lock().told.running = true;
        let done = self.alone(plan, &one, tell).await;
        let mut state = self.state.lock();
        state.told.running = false;
        match &done {
            Ok(report) if plan.dry_run => tracing::debug!(?report, "what would be deleted"),
            Ok(report) => {
                let gone = report.gone();
                tracing::info!(
                    objects = gone.objects,
                    bytes = gone.bytes,
                    "old objects were deleted"
                );
                // The run's own horizons let nothing die, and do not count as changes: an idle mount comes to rest.
                let own = self.horizons() - horizons;
                let is_alone = sees_all && self.checkpointer.changes() == changes + own;
                let seen = if is_alone { self.checkpointer.head() } else { head };
                // What no checkpoint covers, this run could not see die.
                state.seen = (sees_all && !report.leaves_something()).then_some(seen);
                take(&mut state.told, report);
            }
            Err(error) => state.told.trouble = Some(with_causes(error)),
        }
        drop(state);
        self.ended.notify_one();
        done
    }

    /// Deletes what may go, and then rewrites packs that are mostly dead.
    async fn alone(
        &self,
        plan: ReclaimPlan,
        one: &RunUnderWay<'_>,
        tell: &(dyn Fn(&Reclaimed) + Send + Sync),
    ) -> Result<Reclaimed> {
        let mut done = self.reclaimer.run(plan, one, tell).await;
        if !plan.dry_run && matches!(done, Err(reclaim::Error::OldBase)) {
            // No checkpoint was made since the claim, or the disk had no room to move to it.
            self.checkpointer.checkpoint().await?;
            done = self.reclaimer.run(plan, one, tell).await;
        }
        let mut report = done?;
        if !plan.dry_run && !report.gave_way {
            let runs = &self.reclaimer.runs;
            let (bytes, ended) = self.rewriting.run(&report.worst, plan.pace, runs).await;
            report.rewritten = bytes;
            report.gave_way = runs.gives_way(plan.pace);
            // What was deleted stays deleted and is reported, even if this fails.
            report.trouble.extend(ended.err().map(|error| with_causes(&error)));
        }
        Ok(report)
    }

    fn horizons(&self) -> u64 {
        self.reclaimer.horizons.load(Relaxed)
    }

    /// Whether nothing has changed since a run that left nothing to delete.
    fn has_seen_all(&self) -> bool {
        self.state.lock().seen == Some(self.checkpointer.head())
    }

    /// Whether nothing can have died since the mount, or since the last run.
    pub(super) fn is_idle(&self) -> bool {
        self.checkpointer.head() == self.reclaimer.claim || self.has_seen_all()
    }

    /// Sets whether a mount that changes nothing must delete all the same.
    pub(super) fn owes(&self, owes: bool) {
        self.owes.store(owes, Relaxed);
    }

    async fn retention(&self) -> Result<Duration> {
        Ok(self.index.read(|view| view.retention()).await?)
    }

    /// Runs in the background, for as long as the vault is open.
    pub(super) async fn watch(self: Arc<Self>) {
        let (mut pause, mut last) = (FIRST, Instant::now());
        loop {
            sleep(pause).await;
            let retention = self.retention().await.unwrap_or(LONGEST);
            pause = retention.clamp(SHORTEST, LONGEST);
            // A mount that changes nothing deletes nothing, and makes no request for it.
            let owes = self.owes.load(Relaxed) && last.elapsed() >= OWED;
            if self.is_idle() && !owes || self.index.read_only().is_some() {
                continue;
            }
            last = Instant::now();
            let began = Instant::now();
            let plan = ReclaimPlan { dry_run: false, pace: Pace::Background };
            let done = self.run(plan, &|_| {}).await;
            pause = pause.max(began.elapsed() * REST).min(LONGEST);
            match done {
                Ok(report) if report.gave_way => pause = AFTER_GIVING_WAY,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = %with_causes(&error), "old objects were not deleted; later again");
                }
            }
        }
    }
}

/// Puts a run's results into the status.
fn take(status: &mut OldStatesStatus, report: &Reclaimed) {
    let gone = report.gone();
    status.runs += 1;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    status.last_run = now.ok().map(|now| now.as_secs());
    status.deleted_objects += gone.objects;
    status.deleted_bytes += gone.bytes;
    status.refused_runs += u64::from(report.refused.is_some());
    if let (None, Some(refused)) = (&status.trouble, &report.refused) {
        tracing::warn!(
            refused,
            "the store did not let old objects be deleted; it is tried again, and this is not said again"
        );
    }
    if report.gave_way {
        return; // it has not seen all
    }
    status.retained_bytes = report.retained.bytes;
    status.pinned_bytes = report.pinned.bytes;
    status.sparse_bytes = report.sparse.bytes;
    status.trouble.clone_from(&report.refused);
}
