//! The staging area: packs that are not yet known to be in the bucket. Their presence is the upload queue.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::disk::{Directory, Disk, DiskFile};
use super::error::{Error, Result};
use super::packs::{Stage, Table};
use super::reserve::{Reservation, Room, StagingLimits, cost};
use super::tail::{Tail, Tails};
use crate::log::{DroppedPack, JournalRoom, PackWatcher};
use crate::os::is_full;
use crate::types::{PackId, Seq};

/// What staging holds, for `status` and `statfs`. Bytes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The budget.
    pub budget: u64,
    /// Bytes of all packs here, and of the journal.
    pub used: u64,
    /// Bytes promised to writes that are not sealed yet.
    pub reserved: u64,
    /// Packs that are not confirmed to be in the bucket, open ones included.
    pub unsent_packs: u64,
    /// Bytes of those.
    pub unsent_bytes: u64,
    /// Of these, the packs that still take extents.
    pub open_packs: u64,
}

/// The staging area. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Staging {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) table: Mutex<Table>,
    pub(super) room: Arc<Room>,
    /// Something can be sent, committed or released that could not before.
    pub(super) changed: Notify,
    pub(super) tails: Tails,
    is_poisoned: AtomicBool,
    poison: watch::Sender<Option<String>>,
}

/// Keeps a pack in staging while an unpublished write refers to it. Take it before the pack is closed; drop it after
/// the transaction that publishes the write was appended (or the write was discarded).
#[derive(Debug)]
#[must_use]
pub struct PackHold {
    shared: Arc<Shared>,
    pack: PackId,
}

/// A pack that takes extents. Dropped without `close` it stays for recovery if anything refers to it, else it is removed.
#[derive(Debug)]
pub struct OpenPack {
    shared: Arc<Shared>,
    id: PackId,
    /// `None`: there was no room for it, all of the pack waits in memory.
    file: Option<Arc<dyn DiskFile>>,
    length: u64,
    closed: bool,
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
        let died = self.shared.table.lock().appended(seq, bytes, changed);
        // Whoever waits for room gets that pack's at once; else there is time until the next barrier.
        if died && *self.shared.room.subscribe_waiting().borrow() > 0 {
            self.shared.changed.notify_waiters();
        }
    }
}

/// The name of a pack's object in the bucket.
#[must_use]
pub fn pack_object(pack: PackId) -> String {
    let id = pack.to_string();
    format!("pack/{}/{id}", &id[..2])
}

pub(super) fn open_name(pack: PackId) -> String {
    format!("{pack}.open")
}

pub(super) fn closed_name(pack: PackId) -> String {
    format!("{pack}.pack")
}

/// The pack that a file holds, and whether it was closed.
pub(super) fn parse_name(name: &str) -> Option<(PackId, bool)> {
    let (id, kind) = name.split_once('.')?;
    let closed = match kind {
        "open" => false,
        "pack" => true,
        _ => return None,
    };
    Some((id.parse().ok()?, closed))
}

impl Staging {
    /// Opens or makes the directory (0700) and lists what is there. Nothing is changed, nothing is sent.
    pub fn open(dir: &Path, limits: StagingLimits) -> Result<Self> {
        let disk = Directory::open(dir).map_err(Error::io("opening the staging directory"))?;
        Self::over(Arc::new(disk), limits)
    }

    /// As `open`, over any disk.
    pub fn over(disk: Arc<dyn Disk>, limits: StagingLimits) -> Result<Self> {
        let mut table = Table::default();
        let mut used = 0;
        for (name, length) in disk.list().map_err(Error::io("listing the staging directory"))? {
            let Some((pack, renamed)) = parse_name(&name) else {
                tracing::warn!("a file in staging that is not a pack is left alone");
                continue;
            };
            table.found(pack, length, renamed);
            used += length;
        }
        let room = Room::new(disk.clone(), limits, used);
        let shared = Shared {
            disk,
            table: Mutex::new(table),
            room,
            changed: Notify::new(),
            tails: Tails::default(),
            is_poisoned: AtomicBool::new(false),
            poison: watch::channel(None).0,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Begins a new pack, `<id>.open`.
    pub fn create(&self, pack: PackId) -> Result<OpenPack> {
        self.shared.check()?;
        let file = match self.shared.disk.create(&open_name(pack)) {
            Err(error) if is_full(&error) => None,
            created => Some(created.map_err(|e| self.shared.fail("making a pack in staging", e))?),
        };
        self.shared.table.lock().created(pack, file.clone());
        if file.is_none() {
            self.shared.tails.keep(pack, Tail::default());
            self.shared.room.met_full_disk();
        }
        Ok(OpenPack { shared: self.shared.clone(), id: pack, file, length: 0, closed: false })
    }

    /// Promises room for `plain` bytes of plaintext, overhead of seal, footer and padding included (J8). Ready at
    /// the first poll when there is room; else it waits until there is, or is refused with `Full` at the deadline.
    pub async fn reserve(&self, plain: u64) -> Result<Reservation> {
        if let Some(reservation) = self.try_reserve(plain)? {
            return Ok(reservation);
        }
        let mut poison = self.shared.poison.subscribe();
        tokio::select! {
            reserved = self.shared.room.reserve(cost(plain)) => reserved,
            _ = poison.wait_for(Option::is_some) => self.try_reserve(plain)?.ok_or(Error::Full),
        }
    }

    /// As `reserve`, but `None` instead of waiting.
    pub fn try_reserve(&self, plain: u64) -> Result<Option<Reservation>> {
        self.shared.check()?;
        self.shared.room.admit(cost(plain))
    }

    /// Where the journal is counted: in the same accounts, with what is kept back for it (J8).
    #[must_use]
    pub fn journal_room(&self) -> Arc<dyn JournalRoom> {
        self.shared.room.clone()
    }

    /// How many reservations wait for room. While it is not zero, unpublished writes should be published and shared
    /// packs closed: only what is referred to can leave.
    #[must_use]
    pub fn waiting(&self) -> watch::Receiver<usize> {
        self.shared.room.subscribe_waiting()
    }

    /// The bytes of a pack that is here, open or closed; `None` if it is not here. Not checked: the caller opens the seal.
    pub fn read(&self, pack: PackId, range: Range<u64>) -> Result<Option<Bytes>> {
        // No more than what is there: a wrong length must not decide how much memory is taken.
        let length = range.end.min(self.shared.readable(pack)).saturating_sub(range.start);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        Ok(self.read_into(pack, range, &mut bytes)?.then(|| bytes.into()))
    }

    /// Fills the buffer, which is as long as the range; whether the pack is here.
    pub(super) fn read_into(
        &self,
        pack: PackId,
        range: Range<u64>,
        into: &mut [u8],
    ) -> Result<bool> {
        let (file, length, renamed) = {
            let table = self.shared.table.lock();
            let Some(entry) = table.get(pack) else { return Ok(false) };
            (entry.file.clone(), entry.length, entry.renamed)
        };
        if range.end > length {
            if self.shared.read_tail(pack, range.clone(), into)? {
                return Ok(true);
            }
            return Err(Error::Short { pack, length, wanted: range.end });
        }
        let file = match file {
            Some(file) => file,
            None => match self.shared.open_file(pack, renamed) {
                Ok(file) => file,
                // It left for the cache in this moment.
                Err(_) if self.shared.table.lock().has_left(pack) => return Ok(false),
                Err(e) => return Err(Error::io("opening a staged pack")(e)),
            },
        };
        file.read_at(into, range.start).map_err(Error::io("reading a staged pack"))?;
        Ok(true)
    }

    /// Keeps the pack here while an unpublished write refers to it.
    pub fn hold(&self, pack: PackId) -> PackHold {
        if !self.shared.table.lock().hold(pack) {
            tracing::debug!(%pack, "a hold on a pack that is not in staging");
        }
        PackHold { shared: self.shared.clone(), pack }
    }

    /// Whether the pack is here.
    #[must_use]
    pub fn contains(&self, pack: PackId) -> bool {
        self.shared.table.lock().get(pack).is_some()
    }

    /// Whether the pack went, or goes, unsent, because nothing refers to it any more: who read that something does has
    /// read it before. Forgotten after thousands of others.
    #[must_use]
    pub fn was_dropped(&self, pack: PackId) -> bool {
        self.shared.table.lock().was_dropped(pack)
    }

    /// What a journal that goes on says of packs that were dropped (J3). Before `recover`.
    pub fn restore_dropped(&self, packs: &[DroppedPack]) {
        self.shared.table.lock().restore_dropped(packs);
    }

    /// Bytes of the pack that are here (J3 measures by this).
    #[must_use]
    pub fn length(&self, pack: PackId) -> Option<u64> {
        self.shared.table.lock().get(pack).map(|entry| entry.length)
    }

    /// All packs here with their lengths.
    #[cfg(test)]
    #[must_use]
    pub fn packs(&self) -> Vec<(PackId, u64)> {
        self.shared.table.lock().iter().map(|(id, pack)| (id, pack.length)).collect()
    }

    /// C4, K5: a transaction that refers to these packs is about to be appended; under the append lock. Answers which
    /// of them are here: these stay until the transaction is confirmed, so a crash that loses one of them makes the
    /// transaction bad (J3); the others are in the bucket. The vault calls it too for each unconfirmed transaction
    /// that it finds in the journal. An error (`Gone`, `Full`, `Poisoned`): it must not be appended.
    pub fn appending(&self, seq: Seq, packs: &[PackId]) -> Result<Vec<PackId>> {
        self.shared.check()?;
        if packs.is_empty() {
            return Ok(Vec::new());
        }
        if self.shared.tails.hold_extents_of(packs) {
            return Err(Error::Full); // J1: they are not in staging yet
        }
        self.shared.table.lock().appending(seq, packs)
    }

    /// Why nothing is accepted any more (J6).
    #[must_use]
    pub fn poisoned(&self) -> Option<String> {
        self.shared.poison.borrow().clone()
    }

    /// J6: nothing is accepted any more. The journal's failures are told here too.
    pub fn poison(&self, reason: &str) {
        self.shared.poison(reason);
    }

    /// For `status`.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let (used, reserved) = self.shared.room.taken();
        let mut usage =
            Usage { budget: self.shared.room.budget(), used, reserved, ..Usage::default() };
        for (_, pack) in self.shared.table.lock().iter() {
            if !matches!(pack.stage, Stage::InBucket | Stage::Leaving | Stage::Dropped) {
                usage.unsent_packs += 1;
                usage.unsent_bytes += pack.length;
            }
            usage.open_packs += u64::from(pack.stage == Stage::Open);
        }
        usage
    }
}

impl Shared {
    pub(super) fn check(&self) -> Result<()> {
        if self.is_poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned(self.poison.borrow().clone().unwrap_or_default()));
        }
        Ok(())
    }

    pub(super) fn poison(&self, reason: &str) {
        let first = self.poison.send_if_modified(|poison| {
            let first = poison.is_none();
            poison.get_or_insert_with(|| reason.to_owned());
            first
        });
        self.is_poisoned.store(true, Ordering::Release);
        if first {
            tracing::error!(reason, "staging accepts nothing any more");
            self.changed.notify_waiters();
        }
    }

    /// A write failed: poisons, and is the error.
    pub(super) fn fail(&self, what: &str, error: std::io::Error) -> Error {
        self.poison(&format!("{what}: {error}"));
        Error::io(what)(error)
    }

    pub(super) fn open_file(
        &self,
        pack: PackId,
        renamed: bool,
    ) -> std::io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&if renamed { closed_name(pack) } else { open_name(pack) })
    }

    /// Removes a pack if nothing refers to it, nor will.
    pub(super) fn discard_unwanted(&self, pack: PackId, even_open: bool) -> bool {
        let Some(entry) = self.table.lock().take_unwanted(pack, even_open) else { return false };
        let had_file = self.tails.of(pack).is_none_or(|tail| tail.lock().file.is_some());
        self.tails.forget(pack);
        if !had_file {
            return true;
        }
        let name = if entry.renamed { closed_name(pack) } else { open_name(pack) };
        if let Err(error) = self.disk.remove(&name) {
            tracing::warn!(%pack, %error, "removing a pack that nothing refers to");
        }
        self.room.shrank(entry.length);
        true
    }
}

impl PackHold {
    /// The pack held.
    #[cfg(test)]
    #[must_use]
    pub fn pack(&self) -> PackId {
        self.pack
    }
}

impl Drop for PackHold {
    fn drop(&mut self) {
        let may_leave = self.shared.table.lock().unhold(self.pack);
        if may_leave {
            self.shared.changed.notify_waiters();
        } else {
            self.shared.discard_unwanted(self.pack, false);
        }
    }
}

impl OpenPack {
    /// The pack's id.
    #[must_use]
    pub fn id(&self) -> PackId {
        self.id
    }

    /// Bytes so far: where the next append begins.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends sealed bytes by `write(2)`; answers the offset at which they begin. A failure poisons (J6). A full disk
    /// is none: what has no room waits in memory, and until it is written no transaction refers to it.
    pub fn append(&mut self, sealed: &[u8]) -> Result<u64> {
        self.put(sealed, false)
    }

    fn put(&mut self, sealed: &[u8], is_footer: bool) -> Result<u64> {
        self.shared.check()?;
        let offset = self.length;
        self.shared.put(self.id, self.file.as_ref(), offset, sealed, is_footer)?;
        if self.file.is_none() {
            self.file = self.shared.table.lock().get(self.id).and_then(|pack| pack.file.clone());
        }
        self.length += sealed.len() as u64;
        Ok(offset)
    }

    /// Appends the footer and renames to `<id>.pack`: from here on it is never appended to, and it is in the
    /// upload queue (J7). A pack that nothing refers to and nobody holds is removed instead.
    pub fn close(mut self, footer: &[u8]) -> Result<()> {
        self.put(footer, true)?;
        self.closed = true; // whatever comes: a failure poisons, and recovery decides about the file
        self.shared.finish(self.id, self.length, self.file.as_ref())
    }
}

impl Drop for OpenPack {
    fn drop(&mut self) {
        if self.closed || self.shared.check().is_err() {
            return;
        }
        if !self.shared.discard_unwanted(self.id, true) {
            tracing::error!(pack = %self.id, "a pack was dropped open; it is closed at the next mount");
        }
    }
}

#[cfg(test)]
#[path = "staging_tests.rs"]
mod tests;
