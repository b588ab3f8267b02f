//! The staging area: packs that are not yet known to be in the bucket. The packs here are the upload queue.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use super::area::StagingArea;
use super::error::{Error, Result};
use super::open_pack::{OpenPack, PackHold};
use super::pack::{Stage, StagedState};
use super::pack_names::{open_name, parse_name};
use super::pack_table::PackTable;
use super::reserve::{Reservation, StagingLimits, StagingRoom, cost};
use super::unwritten::UnwrittenTail;
use crate::log::{DroppedPack, JournalRoom, PackWatcher};
use crate::os::{self, Directory, Disk, PipelineStep, is_full};
use crate::types::{PackId, Seq};

/// What staging holds, for `status` and `statfs`, in bytes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StagingUsage {
    /// The budget.
    pub budget: u64,
    /// Bytes of all packs here, and of the journal.
    pub used: u64,
    /// Bytes promised to writes that are not sealed yet.
    pub reserved: u64,
    /// Bytes of the budget that others (the index) take.
    pub beside: u64,
    /// Packs that are not confirmed to be in the bucket, open ones included.
    pub unsent_packs: u64,
    /// Bytes of the unsent packs.
    pub unsent_bytes: u64,
    /// How many of the unsent packs still take extents.
    pub open_packs: u64,
}

/// The staging area. Cheap to clone; all clones share it.
#[derive(Clone, Debug)]
pub struct Staging {
    pub(super) area: Arc<StagingArea>,
}

#[cfg(test)]
impl Staging {
    /// Returns a test for whether nothing uses it any more, once all clones are dropped.
    pub fn ending(&self) -> impl Fn() -> bool + use<> {
        let area = Arc::downgrade(&self.area);
        move || area.strong_count() == 0
    }
}

impl PackWatcher for Staging {
    fn appending(&self, seq: Seq, packs: &[PackId]) -> crate::log::Result<Vec<PackId>> {
        Self::appending(self, seq, packs).map_err(|error| match error {
            Error::Gone(pack) => crate::log::Error::Removed(pack),
            Error::Full => crate::log::Error::Full,
            error => crate::log::Error::Poisoned(error.to_string()),
        })
    }

    fn appended(&self, seq: Seq, bytes: usize, changed: &[(&[u8], Option<PackId>)]) {
        let died = self.area.table.lock().appended(seq, bytes, changed);
        // Whoever waits for room gets this pack's at once; otherwise it can wait for the next barrier.
        if died && *self.area.room.subscribe_waiting().borrow() > 0 {
            self.area.changed.notify_waiters();
        }
    }
}

impl Staging {
    /// Opens or makes the directory (0700) and lists what is there. Changes and sends nothing.
    pub fn open(dir: &Path, limits: StagingLimits) -> Result<Self> {
        let disk = Directory::open(dir).map_err(Error::io("opening the staging directory"))?;
        Self::over(Arc::new(disk), limits)
    }

    /// As `open`, over any disk.
    pub fn over(disk: Arc<dyn Disk>, limits: StagingLimits) -> Result<Self> {
        let mut table = PackTable::default();
        let mut used = 0;
        for (name, length) in disk.list().map_err(Error::io("listing the staging directory"))? {
            let Some((pack, renamed)) = parse_name(&name) else {
                tracing::warn!("a file in staging that is not a pack is left alone");
                continue;
            };
            table.found(pack, length, renamed);
            used += length;
        }
        let room = StagingRoom::new(disk.clone(), limits, used);
        Ok(Self { area: Arc::new(StagingArea::new(disk, table, room)) })
    }

    /// Makes a new pack, `<id>.open`.
    pub fn create(&self, pack: PackId) -> Result<OpenPack> {
        self.area.check()?;
        let made = os::before(PipelineStep::PackMake, || self.area.disk.create(&open_name(pack)));
        let file = match made {
            Err(error) if is_full(&error) => None,
            created => Some(created.map_err(|e| self.area.fail("making a pack in staging", e))?),
        };
        os::reached(PipelineStep::PackMade);
        self.area.table.lock().created(pack, file.clone());
        if file.is_none() {
            self.area.keep_tail(pack, UnwrittenTail::default());
            self.area.room.met_full_disk();
        }
        Ok(OpenPack::new(self.area.clone(), pack, file))
    }

    /// Promises room for `plain` bytes of plaintext, with the overhead of seal, footer and padding (J8). Ready at the first
    /// poll if there is room. Otherwise it waits for room, and returns `Full` at the deadline.
    pub async fn reserve(&self, plain: u64) -> Result<Reservation> {
        if let Some(reservation) = self.try_reserve(plain)? {
            return Ok(reservation);
        }
        let mut poison = self.area.subscribe_poison();
        tokio::select! {
            biased;
            reserved = self.area.room.reserve(cost(plain)) => reserved,
            _ = poison.wait_for(Option::is_some) => self.try_reserve(plain)?.ok_or(Error::Full),
        }
    }

    /// How long `reserve` waits.
    pub fn wait(&self) -> Duration {
        self.area.room.wait()
    }

    /// As `reserve`, but `None` instead of waiting.
    pub fn try_reserve(&self, plain: u64) -> Result<Option<Reservation>> {
        self.area.check()?;
        self.area.room.admit(cost(plain))
    }

    /// Sets how many bytes of the budget others (the index) take. Writes and changes have that much less room; what frees
    /// room or must go on does not (J8).
    pub fn takes_beside(&self, bytes: u64) {
        self.area.room.takes_beside(bytes);
    }

    /// The journal's room: counted in the same accounts, with the reserve kept back for it (J8).
    #[must_use]
    pub fn journal_room(&self) -> Arc<dyn JournalRoom> {
        self.area.room.clone()
    }

    /// How many reservations wait for room. While any does, unpublished writes should be published and shared packs closed:
    /// a pack can leave only after it is referred to.
    #[must_use]
    pub fn waiting(&self) -> watch::Receiver<usize> {
        self.area.room.subscribe_waiting()
    }

    /// Reads from a pack, open or closed; `None` if it is not here. The bytes are not checked: the caller opens the seal.
    pub fn read(&self, pack: PackId, range: Range<u64>) -> Result<Option<Bytes>> {
        // At most what is there: a wrong length must not decide how much memory is taken.
        let length = range.end.min(self.area.readable(pack)).saturating_sub(range.start);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        Ok(self.area.read_into(pack, range, &mut bytes)?.then(|| bytes.into()))
    }

    /// Keeps the pack here while an unpublished write refers to it.
    pub fn hold(&self, pack: PackId) -> PackHold {
        if !self.area.table.lock().hold(pack) {
            tracing::debug!(%pack, "a hold on a pack that is not in staging");
        }
        PackHold::new(self.area.clone(), pack)
    }

    /// Whether the pack is here.
    #[must_use]
    pub fn contains(&self, pack: PackId) -> bool {
        self.area.table.lock().get(pack).is_some()
    }

    /// How far a pack is on its way; `None` if it is not here (any more).
    #[must_use]
    pub fn state_of(&self, pack: PackId) -> Option<StagedState> {
        let table = self.area.table.lock();
        table.get(pack).map(|pack| match pack.stage {
            Stage::Open | Stage::Closed | Stage::Dropped => StagedState::Waits,
            _ => StagedState::IsSent,
        })
    }

    /// Whether the pack is gone, or going, unsent, because nothing refers to it any more. A caller with a reference to it
    /// found that earlier. Forgotten after thousands of other drops.
    #[must_use]
    pub fn was_dropped(&self, pack: PackId) -> bool {
        self.area.table.lock().was_dropped(pack)
    }

    /// Takes over what a continued journal says of dropped packs (J3). To be called before `recover`.
    pub fn restore_dropped(&self, packs: &[DroppedPack]) {
        self.area.table.lock().restore_dropped(packs);
    }

    /// How many bytes of the pack are here (used by J3).
    #[must_use]
    pub fn length(&self, pack: PackId) -> Option<u64> {
        self.area.table.lock().get(pack).map(|entry| entry.length)
    }

    /// All packs here with their lengths.
    #[cfg(test)]
    #[must_use]
    pub fn packs(&self) -> Vec<(PackId, u64)> {
        self.area.table.lock().iter().map(|(id, pack)| (id, pack.length)).collect()
    }

    /// C4, K5: called under the append lock for a transaction that is about to be appended and refers to these packs.
    /// Returns which of them are here. They stay until the transaction is confirmed, so if a crash loses one, the
    /// transaction is bad (J3); the others are in the bucket. The vault also calls it for each unconfirmed transaction that
    /// it finds in the journal. After an error (`Gone`, `Full`, `Poisoned`) the transaction must not be appended.
    pub fn appending(&self, seq: Seq, packs: &[PackId]) -> Result<Vec<PackId>> {
        self.area.check()?;
        if packs.is_empty() {
            return Ok(Vec::new());
        }
        if self.area.tails.hold_extents_of(packs) {
            return Err(Error::Full); // J1: they are not in staging yet
        }
        self.area.table.lock().appending(seq, packs)
    }

    /// K5: a deletion begins. Packs that appends refer to are remembered until [`Staging::end_deletion`].
    pub fn begin_deletion(&self) {
        self.area.table.lock().freezer.begin();
    }

    /// K5: freezes those of `packs` that nothing on this machine can need once everything up to `confirmed` is in the
    /// bucket, and returns them. Appends that refer to a frozen pack fail until `thaw`.
    #[must_use]
    pub fn freeze(&self, packs: &[PackId], confirmed: Seq) -> Vec<PackId> {
        self.area.table.lock().freeze(packs, confirmed)
    }

    /// Ends the freeze: the packs are gone from the bucket, or stay there.
    pub fn thaw(&self) {
        self.area.table.lock().freezer.thaw();
    }

    /// K5: the deletion is over or given up.
    pub fn end_deletion(&self) {
        self.area.table.lock().freezer.end();
    }

    /// Why nothing is accepted any more (J6).
    #[cfg(test)]
    pub fn poisoned(&self) -> Option<String> {
        self.area.poisoned()
    }

    /// J6: nothing is accepted any more.
    #[cfg(test)]
    pub fn poison(&self, reason: &str) {
        self.area.poison(reason);
    }

    /// For `status`.
    #[must_use]
    pub fn usage(&self) -> StagingUsage {
        let (used, reserved) = self.area.room.taken();
        let mut usage = StagingUsage {
            budget: self.area.room.budget(),
            used,
            reserved,
            beside: self.area.room.beside(),
            ..StagingUsage::default()
        };
        for (_, pack) in self.area.table.lock().iter() {
            if pack.is_unsent() {
                usage.unsent_packs += 1;
                usage.unsent_bytes += pack.length;
            }
            usage.open_packs += u64::from(pack.stage == Stage::Open);
        }
        usage
    }
}

#[cfg(test)]
mod tests;
