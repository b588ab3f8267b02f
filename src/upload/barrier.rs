//! Durability on this machine (J2, J6), and the packs that may leave staging after it (C4).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::barrier_round::{Adopt, Rounds};
use super::error::{Error, Result};
use super::staging::Staging;
use super::steps::StepObserver;
use crate::log::{Journal, Receipt};
use crate::os::{self, PipelineStep};
use crate::types::Seq;

/// How long anything stays unsynced at most (J2).
pub const SYNC_EVERY: Duration = Duration::from_secs(5);
/// How long to wait before retrying what had no room.
const FULL_AGAIN: Duration = Duration::from_secs(1);

/// fsync for the whole vault. Cheap to clone; all clones share it. Its task ends with `stop`, or when the last clone is
/// dropped.
#[derive(Clone)]
pub struct Barrier {
    inner: Arc<Inner>,
    task: Arc<Task>,
}

struct Inner {
    rounds: Arc<Rounds>,
    every: Duration,
    /// Whoever holds the permit makes the round; the others find it made (group commit).
    turn: Arc<Semaphore>,
    /// Held while packs leave.
    leaving: Semaphore,
    /// Notified when the journal, or the durable part of it, moved: the task looks again.
    noted: Notify,
}

/// Ends the task when the last clone goes.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Barrier {
    /// Starts the task that syncs every `every` (`SYNC_EVERY`) while anything is unsynced. Must be called within a runtime.
    pub fn start(
        staging: Staging,
        journal: Arc<Journal>,
        adopt: Adopt,
        every: Duration,
        steps: StepObserver,
    ) -> Self {
        let inner = Arc::new(Inner {
            rounds: Arc::new(Rounds::new(staging.area, journal, adopt, steps)),
            every,
            turn: Arc::new(Semaphore::new(1)),
            leaving: Semaphore::new(1),
            noted: Notify::new(),
        });
        let task = tokio::spawn(watch(inner.clone()));
        Self { inner, task: Arc::new(Task(task)) }
    }

    /// Makes everything up to `upto` survive a loss of power (J2). Concurrent callers share a round.
    ///
    /// # Errors
    /// `Poisoned`, or the failure itself: it is never retried as if it could succeed (J6). `Full`: nothing is promised and
    /// nothing has failed; the task tries again by itself.
    pub async fn sync(&self, upto: Seq) -> Result<()> {
        Inner::sync(&self.inner, upto).await
    }

    /// As `sync`, for everything that was appended.
    #[cfg(test)]
    pub async fn sync_all(&self) -> Result<()> {
        self.sync(self.inner.rounds.journal.appended()).await
    }

    /// The last round when a vault is closed: afterwards notes of what is confirmed are durable too, packs that may leave
    /// have left, and the task has ended.
    pub async fn finish(&self) -> Result<()> {
        Inner::sync_now(&self.inner).await?;
        Inner::release(&self.inner).await;
        self.task.0.abort();
        Ok(())
    }

    /// Watches up to where everything is durable here. It also fires when only more of that is durably noted as confirmed.
    /// The index flushes after it (J4).
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Seq> {
        self.inner.rounds.durable.subscribe()
    }

    /// Why no change is accepted any more (J6); `None` while changes are.
    #[must_use]
    pub fn poisoned(&self) -> Option<String> {
        let rounds = &self.inner.rounds;
        let reason = rounds.area.poisoned().or_else(|| rounds.journal.poisoned())?;
        // From now on changes without content must fail, too: the task may not have noticed yet.
        rounds.journal.poison(&reason);
        Some(reason)
    }

    /// Ends the task; `sync` still works.
    #[cfg(test)]
    pub fn stop(&self) {
        self.task.0.abort();
    }

    /// J6: nothing is accepted any more, as after a failed write: the task that made it durable, or sent it, has ended.
    pub(super) fn give_up(&self, reason: &str) {
        self.inner.rounds.poison(reason);
    }

    /// C5: only a receipt makes anything sent. Notes it in the journal; the note is durable with the next round.
    pub(super) fn note(&self, receipt: &Receipt) -> Result<()> {
        let inner = &self.inner;
        let noted = inner.rounds.journal.note_confirmed(receipt);
        noted.map_err(|error| inner.rounds.poisoned_by(&error))?;
        inner.rounds.area.table.lock().confirmed(receipt.upto());
        inner.rounds.steps.done(PipelineStep::Noted);
        inner.noted.notify_one();
        Ok(())
    }
}

impl std::fmt::Debug for Barrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Barrier").field("durable", &*self.inner.rounds.durable.borrow()).finish()
    }
}

async fn watch(inner: Arc<Inner>) {
    if let Err(panicked) = os::watched("making changes durable", run(inner.clone())).await {
        inner.rounds.poison(&panicked.to_string());
    }
}

async fn run(inner: Arc<Inner>) {
    let mut appended = inner.rounds.journal.subscribe();
    let mut waiting = inner.rounds.area.room.subscribe_waiting();
    let mut due: Option<Instant> = None;
    while inner.rounds.area.poisoned().is_none() {
        let changed = inner.rounds.area.changed.notified();
        appended.mark_unchanged();
        Inner::release(&inner).await;
        let has_tails = inner.write_tails().await;
        let dead = inner.rounds.area.table.lock().has_dead();
        if !dead && !inner.rounds.journal.unsynced() {
            due = None;
            tokio::select! {
                biased;
                () = tokio::time::sleep(FULL_AGAIN), if has_tails => (),
                gone = appended.changed() => if gone.is_err() { return },
                () = inner.noted.notified() => (),
                () = changed => (),
            }
            continue;
        }
        let at = *due.get_or_insert_with(|| Instant::now() + inner.every);
        // Somebody waits for room, and a round would let packs leave: make it now.
        let pressed = *waiting.borrow_and_update() > 0 && (dead || inner.rounds.would_release());
        if pressed || Instant::now() >= at {
            due = None;
            match Inner::sync_now(&inner).await {
                Ok(()) if !(pressed && inner.rounds.is_in_vain()) => (),
                // There is no room to note what is durable, confirmed or dropped.
                Ok(()) | Err(Error::Full) => tokio::time::sleep(FULL_AGAIN.min(inner.every)).await,
                Err(_) => return, // poisoned; the next change gets the error
            }
            continue;
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(FULL_AGAIN), if has_tails => (),
            () = tokio::time::sleep_until(at) => (),
            _ = waiting.changed() => (),
            () = inner.noted.notified() => (),
            () = changed => (),
        }
    }
    // J6: a failed write to a pack ends changes without content, too.
    if let Some(reason) = inner.rounds.area.poisoned() {
        inner.rounds.journal.poison(&reason);
    }
}

impl Inner {
    async fn sync(self: &Arc<Self>, upto: Seq) -> Result<()> {
        if *self.rounds.durable.borrow() >= upto {
            return Ok(());
        }
        let turn = self.turn.clone().acquire_owned().await.map_err(|_| Error::Stopped)?;
        if *self.rounds.durable.borrow() >= upto {
            return Ok(());
        }
        self.round(turn).await
    }

    async fn sync_now(self: &Arc<Self>) -> Result<()> {
        let turn = self.turn.clone().acquire_owned().await.map_err(|_| Error::Stopped)?;
        let dead = self.rounds.area.table.lock().has_dead();
        if dead || self.rounds.journal.unsynced() { self.round(turn).await } else { Ok(()) }
    }

    /// The permit belongs to the round, not to its caller: even if the caller stops waiting, the next round begins only
    /// after this one has ended (V5).
    async fn round(self: &Arc<Self>, turn: OwnedSemaphorePermit) -> Result<()> {
        let inner = self.clone();
        let round = move || {
            let _turn = turn;
            let done = os::watched_here("the barrier", || inner.rounds.make());
            let made = done.unwrap_or_else(|panicked| {
                inner.rounds.poison(&panicked.to_string());
                Err(Error::Poisoned(panicked.to_string()))
            });
            if made.is_ok() && inner.rounds.lets_leave() {
                inner.noted.notify_one();
            }
            made
        };
        // An error: the runtime is shutting down.
        os::blocking_here(round).await.unwrap_or(Err(Error::Stopped))
    }

    /// Writes what waits for room on the disk. Returns whether anything still waits.
    async fn write_tails(self: &Arc<Self>) -> bool {
        if !self.rounds.area.tails.any() {
            return false;
        }
        let inner = self.clone();
        let write = move || {
            let written = os::watched_here("writing what waited for room", || {
                inner.rounds.area.write_tails()
            });
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "writing what waited for room"),
                // It is not known how far a tail was written.
                Err(panicked) => inner.rounds.poison(&panicked.to_string()),
            }
        };
        // An error: the runtime is shutting down.
        let _ = os::blocking(write).await;
        self.rounds.area.tails.any()
    }

    /// C4: gives the packs that nothing needs here any more to the cache. One call at a time, so that when this returns,
    /// the packs that an earlier call took have left, too.
    async fn release(self: &Arc<Self>) {
        let Ok(_alone) = self.leaving.acquire().await else { return };
        let settled = self.rounds.settled();
        let leaving = self.rounds.area.table.lock().leave(settled);
        if leaving.is_empty() {
            return;
        }
        let inner = self.clone();
        let let_go = move || {
            let done = os::watched_here("giving packs to the cache", || {
                for (pack, keep) in leaving {
                    inner.rounds.let_go(pack, keep);
                }
            });
            if let Err(panicked) = done {
                // These packs would be neither here nor in the cache, and their room never freed.
                inner.rounds.poison(&panicked.to_string());
            }
        };
        // An error: the runtime is shutting down.
        let _ = os::blocking(let_go).await;
    }
}
