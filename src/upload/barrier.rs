//! Durability on this machine (J2, J6), and packs that leave staging after it (C4).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::error::{Error, Result};
use super::packs::ToSync;
use super::staging::{Staging, closed_name, pack_object};
use super::steps::{Step, Steps};
use crate::log::{DROPPED_AT_ONCE, Journal, NotedCommit, Receipt};
use crate::os;
use crate::types::{PackId, Seq};

/// How long anything stays unsynced (J2).
pub const SYNC_EVERY: Duration = Duration::from_secs(5);
/// What had no room is tried again after this.
const FULL_AGAIN: Duration = Duration::from_secs(1);

/// Takes over the file of a pack that the bucket has: (object, file). It moves the file away, or fails, and then it is
/// removed.
pub type Adopt = Arc<dyn Fn(&str, &Path) -> std::io::Result<()> + Send + Sync>;

/// Up to here every transaction is confirmed, and that is durable in the journal: what C4 asks for. Made by this
/// file alone, from the journal's own note, which only a receipt moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled(Seq);

impl Settled {
    pub(super) fn upto(self) -> Seq {
        self.0
    }
}

/// fsync for the whole vault. Cheap to clone: all clones are one. Its task ends with `stop`, or when the last
/// clone is dropped.
#[derive(Clone)]
pub struct Barrier {
    inner: Arc<Inner>,
    task: Arc<Task>,
}

struct Inner {
    staging: Staging,
    journal: Arc<Journal>,
    adopt: Adopt,
    steps: Steps,
    every: Duration,
    /// Whoever holds the permit makes the round; the others find it made (group commit).
    turn: Arc<Semaphore>,
    /// Held while packs leave.
    leaving: Semaphore,
    /// The journal or what is durable of it moved: the task looks again.
    noted: Notify,
    /// The journal had no room for the last note of what is dropped.
    drops_wait: AtomicBool,
    durable: watch::Sender<Seq>,
}

/// Ends the task when the last clone goes.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Barrier {
    /// Starts the task that syncs every `every` (`SYNC_EVERY`) while anything is unsynced. Within a runtime.
    pub fn start(
        staging: Staging,
        journal: Arc<Journal>,
        adopt: Adopt,
        every: Duration,
        steps: Steps,
    ) -> Self {
        let durable = watch::Sender::new(journal.durable());
        let (turn, leaving) = (Arc::new(Semaphore::new(1)), Semaphore::new(1));
        let noted = Notify::new();
        let inner = Arc::new(Inner {
            staging,
            journal,
            adopt,
            steps,
            every,
            turn,
            leaving,
            noted,
            drops_wait: AtomicBool::new(false),
            durable,
        });
        let task = tokio::spawn(watch(inner.clone()));
        Self { inner, task: Arc::new(Task(task)) }
    }

    /// Makes everything up to `upto` survive the loss of power (J2). Concurrent callers share one round.
    ///
    /// # Errors
    /// `Poisoned`, or the failure itself: it is never retried as if it could succeed (J6). `Full`: nothing is promised,
    /// and nothing has failed; it is tried again by itself.
    pub async fn sync(&self, upto: Seq) -> Result<()> {
        Inner::sync(&self.inner, upto).await
    }

    /// As `sync`, of everything that was appended.
    #[cfg(test)]
    pub async fn sync_all(&self) -> Result<()> {
        self.sync(self.inner.journal.appended()).await
    }

    /// The last round of a vault that is closed: notes of what is confirmed are durable too, packs that may leave have
    /// left, and the task has ended.
    pub async fn finish(&self) -> Result<()> {
        Inner::sync_now(&self.inner).await?;
        Inner::release(&self.inner).await;
        self.task.0.abort();
        Ok(())
    }

    /// Tells up to where everything is durable here, also when only more of it is confirmed; the index flushes after it (J4).
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Seq> {
        self.inner.durable.subscribe()
    }

    /// Why no change is accepted any more, if so (J6).
    #[must_use]
    pub fn poisoned(&self) -> Option<String> {
        self.inner.staging.poisoned().or_else(|| self.inner.journal.poisoned())
    }

    /// Ends the task; `sync` goes on working.
    #[cfg(test)]
    pub fn stop(&self) {
        self.task.0.abort();
    }

    /// Nothing is accepted any more, as after a failed write (J6): what would make it durable, or send it, has ended.
    pub(super) fn give_up(&self, reason: &str) {
        self.inner.poison(reason);
    }

    /// C5: only a receipt says that something is sent. Noted in the journal, durable with the next round.
    pub(super) fn note(&self, receipt: &Receipt) -> Result<()> {
        let inner = &self.inner;
        let (upto, number, hash) = (receipt.upto(), receipt.number(), receipt.hash());
        let noted = inner.journal.note_confirmed(NotedCommit { upto, number, hash });
        noted.map_err(|error| inner.poisoned_by(&error))?;
        inner.staging.shared.table.lock().confirmed(upto);
        inner.steps.done(Step::Noted);
        inner.noted.notify_one();
        Ok(())
    }
}

impl std::fmt::Debug for Barrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Barrier").field("durable", &*self.inner.durable.borrow()).finish()
    }
}

async fn watch(inner: Arc<Inner>) {
    if let Err(panicked) = os::watched("making changes durable", run(inner.clone())).await {
        inner.poison(&panicked.to_string());
    }
}

async fn run(inner: Arc<Inner>) {
    let mut appended = inner.journal.subscribe();
    let mut waiting = inner.staging.waiting();
    let mut due: Option<Instant> = None;
    while inner.staging.poisoned().is_none() {
        let changed = inner.staging.shared.changed.notified();
        appended.mark_unchanged();
        Inner::release(&inner).await;
        let has_tails = inner.write_tails().await;
        let dead = inner.staging.shared.table.lock().has_dead();
        if !dead && !inner.journal.unsynced() {
            due = None;
            tokio::select! {
                () = tokio::time::sleep(FULL_AGAIN), if has_tails => (),
                gone = appended.changed() => if gone.is_err() { return },
                () = inner.noted.notified() => (),
                () = changed => (),
            }
            continue;
        }
        let at = *due.get_or_insert_with(|| Instant::now() + inner.every);
        // Somebody waits for room, and a round would let packs leave: now.
        let pressed = *waiting.borrow_and_update() > 0 && (dead || inner.would_release());
        if pressed || Instant::now() >= at {
            due = None;
            match Inner::sync_now(&inner).await {
                Ok(()) if !(pressed && inner.is_in_vain()) => (),
                // There is no room to say what is durable, what is confirmed, or what is dropped.
                Ok(()) | Err(Error::Full) => tokio::time::sleep(FULL_AGAIN.min(inner.every)).await,
                Err(_) => return, // poisoned; whoever changes something next is told
            }
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(FULL_AGAIN), if has_tails => (),
            () = tokio::time::sleep_until(at) => (),
            _ = waiting.changed() => (),
            () = inner.noted.notified() => (),
            () = changed => (),
        }
    }
    // J6: a failed write to a pack ends changes that have no content too.
    if let Some(reason) = inner.staging.poisoned() {
        inner.journal.poison(&reason);
    }
}

impl Inner {
    async fn sync(self: &Arc<Self>, upto: Seq) -> Result<()> {
        if *self.durable.borrow() >= upto {
            return Ok(());
        }
        let turn = self.turn.clone().acquire_owned().await.map_err(|_| Error::Stopped)?;
        if *self.durable.borrow() >= upto {
            return Ok(());
        }
        self.round(turn).await
    }

    async fn sync_now(self: &Arc<Self>) -> Result<()> {
        let turn = self.turn.clone().acquire_owned().await.map_err(|_| Error::Stopped)?;
        let dead = self.staging.shared.table.lock().has_dead();
        if dead || self.journal.unsynced() { self.round(turn).await } else { Ok(()) }
    }

    /// The turn is the round's, not its caller's: who does not wait for the end (V5) does not let the next one begin.
    async fn round(self: &Arc<Self>, turn: OwnedSemaphorePermit) -> Result<()> {
        let inner = self.clone();
        let round = move || {
            let _turn = turn;
            let done = os::watched_here("the barrier", || inner.round_blocking());
            done.unwrap_or_else(|panicked| {
                inner.poison(&panicked.to_string());
                Err(Error::Poisoned(panicked.to_string()))
            })
        };
        // An error: the runtime is shutting down.
        tokio::task::spawn_blocking(round).await.unwrap_or(Err(Error::Stopped))
    }

    /// Whether anything still waits for room on the disk.
    async fn write_tails(self: &Arc<Self>) -> bool {
        if !self.staging.shared.tails.any() {
            return false;
        }
        let inner = self.clone();
        let written = tokio::task::spawn_blocking(move || inner.staging.shared.write_tails()).await;
        if let Ok(Err(error)) = written {
            tracing::error!(%error, "writing what waited for room");
        }
        self.staging.shared.tails.any()
    }

    /// J2, in its order. The mark comes first: what is appended from here on is not covered by this barrier, for its
    /// packs may not be.
    fn round_blocking(&self) -> Result<()> {
        self.staging.shared.check()?;
        let doomed = self.note_dropped();
        let mark = self.journal.mark().map_err(|error| self.poisoned_by(&error))?;
        let confirmed = self.journal.noted().upto;
        let (packs, unnamed) = {
            let mut table = self.staging.shared.table.lock();
            let packs = table.to_sync(confirmed);
            let unnamed = table.any_unnamed(&packs);
            (packs, unnamed)
        };
        for pack in &packs {
            self.sync_pack(pack)?;
        }
        if unnamed {
            let synced = self.staging.shared.disk.sync_dir();
            synced.map_err(|e| self.failed("an fsync of the staging directory failed", e))?;
            self.steps.done(Step::DirectorySynced);
        }
        self.staging.shared.table.lock().synced(&packs);
        let noted = self.journal.durable_noted().upto;
        let upto = self.journal.sync_data(mark).map_err(|error| match error {
            crate::log::Error::Full => Error::Full,
            error => self.poisoned_by(&error),
        })?;
        self.steps.done(Step::BarrierWritten);
        // A note that is durable lets segments of the journal go (J5), also when nothing else is new.
        let is_noted = self.journal.durable_noted().upto > noted;
        doomed.into_iter().for_each(|pack| self.remove(pack));
        self.durable.send_if_modified(|durable| {
            let further = upto > *durable;
            *durable = upto.max(*durable);
            further || is_noted
        });
        self.noted.notify_one(); // packs may leave now
        Ok(())
    }

    /// J3, C1: what need not be sent any more is noted in the journal. Answers which packs go once the barrier that is
    /// made now says so durably: before, a loss of power could bring back a transaction that refers to them.
    fn note_dropped(&self) -> Vec<PackId> {
        let shared = &self.staging.shared;
        let dead = shared.table.lock().take_dead();
        let mut has_room = true;
        // One record each time, which is written or not: what is noted is dropped, the rest is not.
        for part in dead.chunks(DROPPED_AT_ONCE) {
            let noted = self.journal.note_dropped(part);
            let mut table = shared.table.lock();
            match noted {
                Ok(()) => table.noted_dropped(part),
                Err(crate::log::Error::Full) => {
                    table.not_dropped(part, true);
                    has_room = false;
                }
                Err(error) => {
                    tracing::warn!(%error, "packs that nothing refers to are sent all the same");
                    table.not_dropped(part, false);
                }
            }
        }
        self.drops_wait.store(!has_room, Ordering::Relaxed);
        if !dead.is_empty() {
            self.steps.done(Step::DropsNoted);
            shared.changed.notify_waiters(); // commits may go on, or packs be sent
        }
        shared.table.lock().doomed()
    }

    fn remove(&self, pack: PackId) {
        let shared = &self.staging.shared;
        if let Err(error) = shared.disk.remove(&closed_name(pack)) {
            tracing::warn!(%pack, %error, "removing a pack that nothing refers to");
        }
        if let Some(entry) = shared.table.lock().remove(pack) {
            shared.room.shrank(entry.length);
        }
        self.steps.done(Step::PackDropped);
    }

    fn sync_pack(&self, pack: &ToSync) -> Result<()> {
        let shared = &self.staging.shared;
        let file = match &pack.file {
            Some(file) => Ok(file.clone()),
            None => shared.open_file(pack.pack, pack.renamed),
        };
        let synced = file.and_then(|file| file.sync());
        if let Err(error) = synced {
            if shared.table.lock().has_left(pack.pack) {
                return Ok(()); // in this moment: its transactions are all confirmed
            }
            return Err(self.failed("an fsync of a staged pack failed", error));
        }
        self.steps.done(Step::PackSynced);
        Ok(())
    }

    fn poison(&self, reason: &str) {
        self.staging.poison(reason);
        self.journal.poison(reason);
    }

    fn failed(&self, what: &str, error: std::io::Error) -> Error {
        self.poison(&format!("{what}: {error}"));
        Error::io(what)(error)
    }

    fn poisoned_by(&self, error: &crate::log::Error) -> Error {
        let reason = self.journal.poisoned().unwrap_or_else(|| error.to_string());
        self.poison(&reason);
        Error::Poisoned(reason)
    }

    fn settled(&self) -> Settled {
        Settled(self.journal.durable_noted().upto)
    }

    /// Whether the next round would let packs leave.
    fn would_release(&self) -> bool {
        let noted = self.journal.noted().upto;
        noted > self.settled().upto() && self.staging.shared.table.lock().may_leave(noted)
    }

    /// Whether the round just made leaves things as they were, for want of room for a note: the next would too.
    fn is_in_vain(&self) -> bool {
        self.would_release() || self.drops_wait.load(Ordering::Relaxed)
    }

    /// C4: gives the packs that nothing needs here any more to the cache. One at a time, so that what a release
    /// before this one lets go has left too.
    async fn release(self: &Arc<Self>) {
        let Ok(_alone) = self.leaving.acquire().await else { return };
        let settled = self.settled();
        let leaving = self.staging.shared.table.lock().leave(settled);
        if leaving.is_empty() {
            return;
        }
        let inner = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            for (pack, keep) in leaving {
                inner.let_go(pack, keep);
            }
        });
        if let Err(panic) = done.await {
            // What it was about would be neither here nor there: its room would never be free again.
            self.poison(&format!("giving packs to the cache panicked: {panic}"));
        }
    }

    fn let_go(&self, pack: PackId, keep: bool) {
        let shared = &self.staging.shared;
        let name = closed_name(pack);
        let adopted = keep && {
            let adopted = (self.adopt)(&pack_object(pack), &shared.disk.path(&name));
            adopted
                .map_err(|error| tracing::warn!(%pack, %error, "not taken into the cache"))
                .is_ok()
        };
        if !adopted && let Err(error) = shared.disk.remove(&name) {
            tracing::warn!(%pack, %error, "removing a pack from staging");
        }
        let entry = shared.table.lock().remove(pack);
        if let Some(entry) = entry {
            shared.room.shrank(entry.length);
        }
        self.steps.done(Step::PackLeft);
    }
}
