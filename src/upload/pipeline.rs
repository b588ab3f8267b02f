//! What the tasks of one uploader share: where packs and commits come from and go to, the limits, and whether to go on.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::area::StagingArea;
use super::backoff::Backoff;
use super::barrier::Barrier;
use super::buffer_pool::BufferPool;
use super::health::Health;
use super::in_flight::UploadsInFlight;
use super::steps::StepObserver;
use crate::log::{Journal, Receipt};
use crate::os;
use crate::store::Bucket;
use crate::types::{CommitNo, MIB, PackId, Seq};

/// How much is on the wire at once, and how long a commit waits for more transactions.
#[derive(Clone, Copy, Debug)]
pub struct UploadLimits {
    /// Packs on the wire at once.
    pub parallel: usize,
    /// Their bytes in memory. A larger pack goes alone.
    pub bytes: u64,
    /// Bytes of transactions in one commit: more than `TRANSACTION_MAX`, at most `COMMIT_BYTES` (C1). Sealing takes several
    /// times that in memory. Transactions that must share a commit (C1) do, up to `COMMIT_BYTES`, whatever this says.
    pub commit: usize,
    /// How long after the first transaction that it can hold a commit leaves, if nobody waits for it.
    pub linger: Duration,
    /// The first pause after the store failed; it doubles. The bucket itself has retried for a whole deadline before.
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

/// Callbacks of the uploader. Its tasks call them, so they are short and do not wait.
#[derive(Clone)]
pub struct Hooks {
    /// A commit is in the bucket, and the journal has noted that.
    pub on_confirmed: Arc<dyn Fn(&Receipt) + Send + Sync>,
    /// Another writer has written this commit: nothing more is sent (W3).
    pub on_fenced: Arc<dyn Fn(CommitNo) + Send + Sync>,
}

/// Why the pipeline has stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    /// Told to.
    Asked,
    /// Another writer has this commit (W3).
    Fenced(CommitNo),
    /// The local disk failed (J6), or a task of the pipeline did.
    Failed(String),
}

/// What the tasks of one uploader share.
pub(super) struct Pipeline {
    pub(super) area: Arc<StagingArea>,
    pub(super) journal: Arc<Journal>,
    pub(super) bucket: Bucket,
    pub(super) barrier: Barrier,
    pub(super) hooks: Hooks,
    pub(super) limits: UploadLimits,
    pub(super) steps: StepObserver,
    pub(super) stop: watch::Sender<Option<StopReason>>,
    /// The last transaction up to which all are in the log.
    pub(super) confirmed: watch::Sender<Seq>,
    /// The last transaction that somebody waits for.
    pub(super) wanted: watch::Sender<Seq>,
    pub(super) packs_health: Health,
    pub(super) commits_health: Health,
    /// Packs that the store, in this process, said it took but stored differently.
    pub(super) broken: Mutex<HashSet<PackId>>,
    pub(super) buffers: Arc<BufferPool>,
    /// A leaf: nothing is locked under it.
    pub(super) in_flight: Mutex<UploadsInFlight>,
    sending: AtomicI64,
}

impl Pipeline {
    pub(super) fn new(
        (area, journal, bucket, barrier): (Arc<StagingArea>, Arc<Journal>, Bucket, Barrier),
        hooks: Hooks,
        limits: UploadLimits,
        steps: StepObserver,
        confirmed: Seq,
    ) -> Self {
        Self {
            area,
            journal,
            bucket,
            barrier,
            hooks,
            limits,
            steps,
            stop: watch::Sender::new(None),
            confirmed: watch::Sender::new(confirmed),
            wanted: watch::Sender::new(Seq(0)),
            packs_health: Health::default(),
            commits_health: Health::default(),
            broken: Mutex::default(),
            buffers: BufferPool::new(limits.parallel, limits.bytes),
            in_flight: Mutex::default(),
            sending: AtomicI64::new(0),
        }
    }

    /// The pauses of one task.
    pub(super) fn backoff(&self) -> Backoff {
        Backoff::new(self.limits.pause, self.limits.pause_max)
    }

    /// Whether the tasks must end. A poisoned disk may return other bytes than were written, so nothing more is sent.
    pub(super) fn halted(&self) -> bool {
        if self.stop.borrow().is_none()
            && let Some(reason) = self.barrier.poisoned()
        {
            self.stop_for(&reason);
        }
        self.stop.borrow().is_some()
    }

    pub(super) fn stop_for(&self, reason: &str) {
        self.stop_with(StopReason::Failed(reason.to_owned()));
    }

    /// A task that cannot be restarted has panicked: nothing more would be sent, so nothing more is accepted.
    pub(super) fn give_up(&self, panicked: os::Panicked) {
        let reason = panicked.to_string();
        self.barrier.give_up(&reason);
        self.stop_for(&reason);
    }

    /// Stops the pipeline. The first reason stays.
    pub(super) fn stop_with(&self, why: StopReason) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(why);
            first
        });
    }

    pub(super) fn note_sending(&self, change: i64) {
        self.sending.fetch_add(change, Ordering::Relaxed);
    }

    /// Progress towards the bucket: the last confirmed transaction, and the bytes that moved. While commits fail the bytes
    /// count as 0, as packs alone bring no caller further.
    pub(super) fn progress(&self) -> (Seq, u64) {
        let is_failing = self.commits_health.trouble().is_some();
        let moved = if is_failing { 0 } else { self.in_flight.lock().carried() };
        (*self.confirmed.borrow(), moved)
    }

    pub(super) fn sending(&self) -> u64 {
        u64::try_from(self.sending.load(Ordering::Relaxed)).unwrap_or(0)
    }
}
