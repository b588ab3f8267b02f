//! What the pipeline's tasks share: whether to go on, how they fare, how long to pause.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::barrier::Barrier;
use super::bodies::Bodies;
use super::pipeline::{Hooks, UploadLimits};
use super::staging::Staging;
use super::steps::Steps;
use super::wire::Wire;
use crate::log::Journal;
use crate::os;
use crate::store::Bucket;
use crate::types::{CommitNo, PackId, Seq};

/// Why the pipeline does nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Told to.
    Asked,
    /// Another writer has this commit (W3).
    Fenced(CommitNo),
    /// The local disk failed (J6), or a task of the pipeline did.
    Failed(String),
}

/// What the tasks of one uploader share.
pub(super) struct Shared {
    pub(super) staging: Staging,
    pub(super) journal: Arc<Journal>,
    pub(super) bucket: Bucket,
    pub(super) barrier: Barrier,
    pub(super) hooks: Hooks,
    pub(super) limits: UploadLimits,
    pub(super) steps: Steps,
    pub(super) stop: watch::Sender<Option<Stop>>,
    /// Every transaction up to this one is in the log.
    pub(super) confirmed: watch::Sender<Seq>,
    /// Somebody waits for everything up to this one.
    pub(super) wanted: watch::Sender<Seq>,
    pub(super) packs_health: Health,
    pub(super) commits_health: Health,
    /// Packs that the store took wrongly in this process.
    pub(super) broken: Mutex<HashSet<PackId>>,
    pub(super) bodies: Arc<Bodies>,
    /// A leaf: nothing is locked under it.
    pub(super) wire: Mutex<Wire>,
    sending: AtomicI64,
}

impl Shared {
    pub(super) fn new(
        (staging, journal, bucket, barrier): (Staging, Arc<Journal>, Bucket, Barrier),
        hooks: Hooks,
        limits: UploadLimits,
        steps: Steps,
        confirmed: Seq,
    ) -> Self {
        Self {
            staging,
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
            bodies: Bodies::new(limits.parallel, limits.bytes),
            wire: Mutex::default(),
            sending: AtomicI64::new(0),
        }
    }

    /// Whether the tasks must end. A poisoned disk may give other bytes than were written: nothing of it is sent.
    pub(super) fn halted(&self) -> bool {
        if self.stop.borrow().is_none()
            && let Some(reason) = self.barrier.poisoned()
        {
            self.stop_for(&reason);
        }
        self.stop.borrow().is_some()
    }

    pub(super) fn stop_for(&self, reason: &str) {
        self.stop_with(Stop::Failed(reason.to_owned()));
    }

    /// A task that cannot begin again ended by a panic: nothing more would be sent, so nothing more is accepted.
    pub(super) fn give_up(&self, panicked: os::Panicked) {
        let reason = panicked.to_string();
        self.barrier.give_up(&reason);
        self.stop_for(&reason);
    }

    /// The first reason stays.
    pub(super) fn stop_with(&self, why: Stop) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(why);
            first
        });
    }

    pub(super) fn note_sending(&self, change: i64) {
        self.sending.fetch_add(change, Ordering::Relaxed);
    }

    /// How far the way to the bucket has come: what is confirmed, and the bytes that moved. While commits fail, packs
    /// that go on moving bring nobody further.
    pub(super) fn progress(&self) -> (Seq, u64) {
        let is_failing = self.commits_health.trouble().is_some();
        let moved = if is_failing { 0 } else { self.wire.lock().carried() };
        (*self.confirmed.borrow(), moved)
    }

    pub(super) fn sending(&self) -> u64 {
        u64::try_from(self.sending.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// What went wrong, for `status`: cleared by the next success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The last error, with its causes.
    pub error: String,
    /// Since when nothing succeeded.
    pub since: SystemTime,
    /// Attempts that failed since then.
    pub attempts: u64,
}

#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<Trouble>>);

impl Health {
    pub(super) fn succeeded(&self) {
        *self.0.lock() = None;
    }

    pub(super) fn failed(&self, error: String) {
        let mut trouble = self.0.lock();
        let (since, attempts) = match &*trouble {
            Some(before) => (before.since, before.attempts + 1),
            None => (SystemTime::now(), 1),
        };
        *trouble = Some(Trouble { error, since, attempts });
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.0.lock().clone()
    }
}

/// Pauses that grow while the store fails, and end with its first success.
#[derive(Debug)]
pub(super) struct Pace {
    first: Duration,
    longest: Duration,
    pause: Option<Duration>,
    until: Option<Instant>,
}

impl Pace {
    pub(super) fn new(limits: &UploadLimits) -> Self {
        Self { first: limits.pause, longest: limits.pause_max, pause: None, until: None }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.pause.is_some()
    }

    /// Whether an attempt may be made now.
    pub(super) fn is_due(&self) -> bool {
        self.until.is_none_or(|until| Instant::now() >= until)
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn succeeded(&mut self) {
        (self.pause, self.until) = (None, None);
    }

    /// Ends the pause; the next one is as long as it would have been.
    pub(super) fn hurry(&mut self) {
        self.until = None;
    }

    /// Answers how long to pause. What fails while a pause lasts was begun before it: one failure, not several.
    pub(super) fn failed(&mut self) -> Duration {
        if let (Some(pause), false) = (self.pause, self.is_due()) {
            return pause;
        }
        let pause = self.pause.map_or(self.first, |pause| (pause * 2).min(self.longest));
        self.pause = Some(pause);
        self.until = Some(Instant::now() + pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_once_for_all_that_fails_together() {
        let limits = UploadLimits {
            pause: Duration::from_millis(1),
            pause_max: Duration::from_millis(3),
            ..UploadLimits::default()
        };
        let mut pace = Pace::new(&limits);
        assert!(pace.is_due() && !pace.is_failing());
        let pause = |pace: &mut Pace| {
            let pause = pace.failed();
            assert_eq!(pace.failed(), pause, "begun before the pause");
            std::thread::sleep(pause);
            pause.as_millis()
        };
        assert_eq!([pause(&mut pace), pause(&mut pace), pause(&mut pace)], [1, 2, 3]);
        pace.failed();
        pace.hurry();
        assert!(pace.is_due() && pace.is_failing());
        pace.succeeded();
        assert!(!pace.is_failing());
    }
}
