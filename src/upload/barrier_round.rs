//! One round of the barrier (J2): fsync packs (with their directory) and journal at the same time, then write the barrier that
//! says so; then remove what may leave staging (C4, J3). Everything here blocks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::area::StagingArea;
use super::error::{Error, Result};
use super::pack::PackToSync;
use super::pack_names::{closed_name, pack_object};
use super::settled::Settled;
use super::steps::StepObserver;
use crate::log::{DROPPED_AT_ONCE, Journal};
use crate::os::{self, PipelineStep};
use crate::types::{PackId, Seq};

/// Takes over the file of a pack that the bucket has: (object name, file). It moves the file away; if it fails, the file is
/// removed.
pub type Adopt = Arc<dyn Fn(&str, &Path) -> std::io::Result<()> + Send + Sync>;

/// What the rounds work on. The caller makes one round at a time.
pub(super) struct Rounds {
    pub(super) area: Arc<StagingArea>,
    pub(super) journal: Arc<Journal>,
    adopt: Adopt,
    pub(super) steps: StepObserver,
    /// The journal had no room for the last note of dropped packs.
    drops_wait: AtomicBool,
    /// Up to where everything is durable here.
    pub(super) durable: watch::Sender<Seq>,
}

impl Rounds {
    pub(super) fn new(
        area: Arc<StagingArea>,
        journal: Arc<Journal>,
        adopt: Adopt,
        steps: StepObserver,
    ) -> Self {
        let durable = watch::Sender::new(journal.durable());
        Self { area, journal, adopt, steps, drops_wait: AtomicBool::new(false), durable }
    }

    /// J2, in its order. The mark comes first: this barrier does not cover what is appended after it, whose packs may not be
    /// durable.
    pub(super) fn make(self: &Arc<Self>) -> Result<()> {
        self.area.check()?;
        let doomed = self.note_dropped();
        let mark = self.journal.mark().map_err(|error| self.poisoned_by(&error))?;
        let confirmed = self.journal.noted().upto();
        let (packs, unnamed) = {
            let mut table = self.area.table.lock();
            let packs: Arc<[_]> = table.to_sync(confirmed).into();
            let unnamed = table.any_unnamed(&packs);
            (packs, unnamed)
        };
        // Both run at the same time: what counts is the barrier, which comes after both.
        let journal = || self.journal.sync_marked(&mark).map_err(|error| self.poisoned_by(&error));
        if packs.is_empty() {
            journal()?;
        } else {
            let (rounds, staged) = (self.clone(), packs.clone());
            let staged = move || rounds.sync_packs(&staged, unnamed);
            let (staged, journaled) = os::at_once(staged, journal);
            staged?;
            journaled?;
        }
        self.area.table.lock().synced(&packs);
        let noted = self.journal.durable_noted().upto();
        let upto = self.journal.append_barrier(mark).map_err(|error| match error {
            crate::log::Error::Full => Error::Full,
            error => self.poisoned_by(&error),
        })?;
        self.steps.done(PipelineStep::BarrierWritten);
        // A durable note lets journal segments go (J5), even if nothing else is new.
        let is_noted = self.journal.durable_noted().upto() > noted;
        doomed.into_iter().for_each(|pack| self.remove(pack));
        self.durable.send_if_modified(|durable| {
            let further = upto > *durable;
            *durable = upto.max(*durable);
            further || is_noted
        });
        Ok(())
    }

    /// J3, C1: notes in the journal which packs need not be sent any more. Returns the packs to remove once the barrier now
    /// being made has made the notes durable: earlier, a loss of power could bring back a transaction that refers to them.
    fn note_dropped(&self) -> Vec<PackId> {
        let area = &self.area;
        let dead = area.table.lock().take_dead();
        let mut has_room = true;
        // Each part is one record, written or not: what is noted is dropped, the rest is not.
        for part in dead.chunks(DROPPED_AT_ONCE) {
            let noted = self.journal.note_dropped(part);
            let mut table = area.table.lock();
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
            self.steps.done(PipelineStep::DropsNoted);
            area.changed.notify_waiters(); // commits may go on, or packs may be sent
        }
        area.table.lock().doomed()
    }

    fn remove(&self, pack: PackId) {
        let area = &self.area;
        if let Err(error) = area.disk.remove(&closed_name(pack)) {
            tracing::warn!(%pack, %error, "removing a pack that nothing refers to");
        }
        if let Some(entry) = area.table.lock().remove(pack) {
            area.room.shrank(entry.length);
        }
        self.steps.done(PipelineStep::PackDropped);
    }

    fn sync_packs(&self, packs: &[PackToSync], unnamed: bool) -> Result<()> {
        for pack in packs {
            self.sync_pack(pack)?;
        }
        if unnamed {
            let synced = self.area.disk.sync_dir();
            synced.map_err(|e| self.failed("an fsync of the staging directory failed", e))?;
            self.steps.done(PipelineStep::DirectorySynced);
        }
        Ok(())
    }

    fn sync_pack(&self, pack: &PackToSync) -> Result<()> {
        let area = &self.area;
        let file = match &pack.file {
            Some(file) => Ok(file.clone()),
            None => area.open_file(pack.pack, pack.renamed),
        };
        let synced = file.and_then(|file| os::before(PipelineStep::PackSync, || file.sync()));
        if let Err(error) = synced {
            if area.table.lock().has_left(pack.pack) {
                return Ok(()); // it left just now: its transactions are all confirmed
            }
            return Err(self.failed("an fsync of a staged pack failed", error));
        }
        self.steps.done(PipelineStep::PackSynced);
        Ok(())
    }

    pub(super) fn poison(&self, reason: &str) {
        self.journal.poison(reason);
        self.area.poison(reason);
    }

    fn failed(&self, what: &str, error: std::io::Error) -> Error {
        self.poison(&format!("{what}: {error}"));
        Error::io(what)(error)
    }

    pub(super) fn poisoned_by(&self, error: &crate::log::Error) -> Error {
        let reason = self.journal.poisoned().unwrap_or_else(|| error.to_string());
        self.poison(&reason);
        Error::Poisoned(reason)
    }

    pub(super) fn settled(&self) -> Settled {
        Settled::of(&self.journal)
    }

    /// Whether packs may leave after what the last round made durable.
    pub(super) fn lets_leave(&self) -> bool {
        let settled = self.settled();
        self.area.table.lock().may_leave(settled.upto())
    }

    /// Whether the next round would let packs leave.
    pub(super) fn would_release(&self) -> bool {
        let noted = self.journal.noted().upto();
        noted > self.settled().upto() && self.area.table.lock().may_leave(noted)
    }

    /// Whether the last round changed nothing for want of room for a note: then the next would not either.
    pub(super) fn is_in_vain(&self) -> bool {
        self.would_release() || self.drops_wait.load(Ordering::Relaxed)
    }

    pub(super) fn let_go(&self, pack: PackId, keep: bool) {
        let area = &self.area;
        let name = closed_name(pack);
        let adopted = keep && {
            let adopted = (self.adopt)(&pack_object(pack), &area.disk.path(&name));
            adopted
                .map_err(|error| tracing::warn!(%pack, %error, "not taken into the cache"))
                .is_ok()
        };
        if !adopted && let Err(error) = area.disk.remove(&name) {
            tracing::warn!(%pack, %error, "removing a pack from staging");
        }
        let entry = area.table.lock().remove(pack);
        if let Some(entry) = entry {
            area.room.shrank(entry.length);
        }
        self.steps.done(PipelineStep::PackLeft);
    }
}
