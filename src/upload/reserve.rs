//! Room in staging: the budget, what is promised, and what the disk has left (J8).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::{Error, Result};
use crate::log::{JournalRoom, RoomClass};
use crate::os::Disk;
use crate::types::{GIB, KIB, MIB};

/// Limits of the staging area.
#[derive(Clone, Copy, Debug)]
pub struct StagingLimits {
    /// Bytes that staging and the journal may take on disk, including the reserve that is kept back.
    pub budget: u64,
    /// Bytes of the file system that stay free.
    pub free_floor: u64,
    /// How long a reservation waits for room before it is refused with `Full`.
    pub wait: Duration,
}

impl Default for StagingLimits {
    fn default() -> Self {
        Self { budget: 10 * GIB, free_floor: GIB, wait: Duration::from_secs(30) }
    }
}

/// Reserve that writes may not take, for the journal. One half is for changes, so that what is written can be published when
/// staging is full; the other for what frees room (unlink, truncate) and what must go on (barriers, receipts). At most an
/// eighth of the budget.
const KEPT_BACK: u64 = 32 * MIB;
/// Disk space that the journal takes ahead of its end, so that it has room whoever fills the disk: enough for some ten
/// thousand transactions. At most a sixteenth of the budget.
const KEPT_AHEAD: u64 = 8 * MIB;
/// Free bytes of the disk that even the journal leaves alone, for the file system.
const LAST_FLOOR: u64 = 16 * MIB;
/// How often the disk is asked for its free bytes, at most.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Bytes of header, tag and footer entry for one reservation (a name is up to 255 bytes).
const FIXED_COST: u64 = KIB;

/// Upper bound for what `plain` bytes of plaintext take in staging: tags (1/1024), padding of a pack that holds one file
/// (Padmé: under 12 %), header and footer entry. Valid for extents of 16 KiB and up, and for one small one.
#[must_use]
pub fn cost(plain: u64) -> u64 {
    plain.saturating_add(plain / 8).saturating_add(FIXED_COST)
}

/// The accounts of the staging area. Shared by staging and its reservations.
#[derive(Debug)]
pub(super) struct StagingRoom {
    limits: StagingLimits,
    disk: Arc<dyn Disk>,
    accounts: Mutex<Accounts>,
    /// How many reservations wait; while any does, the uploader releases packs at once.
    waiting: watch::Sender<usize>,
    freed: tokio::sync::Notify,
}

#[derive(Debug, Default)]
struct Accounts {
    used: u64,
    reserved: u64,
    /// Bytes of the budget that others (the index) take.
    beside: u64,
    measured: Option<Measured>,
}

#[derive(Debug)]
struct Measured {
    at: Instant,
    /// The highest `used + reserved` that the disk allowed then.
    ceiling: u64,
}

impl StagingRoom {
    pub(super) fn new(disk: Arc<dyn Disk>, limits: StagingLimits, used: u64) -> Arc<Self> {
        let accounts = Mutex::new(Accounts { used, ..Accounts::default() });
        let (waiting, _) = watch::channel(0);
        Arc::new(Self { limits, disk, accounts, waiting, freed: tokio::sync::Notify::new() })
    }

    pub(super) fn budget(&self) -> u64 {
        self.limits.budget
    }

    pub(super) fn wait(&self) -> Duration {
        self.limits.wait
    }

    /// Bytes in packs and journal, and bytes promised.
    pub(super) fn taken(&self) -> (u64, u64) {
        let accounts = self.accounts.lock();
        (accounts.used, accounts.reserved)
    }

    pub(super) fn takes_beside(&self, bytes: u64) {
        let before = std::mem::replace(&mut self.accounts.lock().beside, bytes);
        if bytes < before {
            self.wake();
        }
    }

    pub(super) fn beside(&self) -> u64 {
        self.accounts.lock().beside
    }

    pub(super) fn subscribe_waiting(&self) -> watch::Receiver<usize> {
        self.waiting.subscribe()
    }

    /// Counts growth of a pack or the journal.
    pub(super) fn grew(&self, bytes: u64) {
        self.accounts.lock().used += bytes;
    }

    /// Takes room for zeros ahead of a pack's end, only while half of the budget is free: so they never stand in the way of
    /// writes.
    fn take_ahead(&self, bytes: u64) -> bool {
        let mut accounts = self.accounts.lock();
        let taken = accounts.used + accounts.reserved + accounts.beside;
        let fits = taken.saturating_add(bytes) <= self.limits.budget / 2
            && self.fits(&mut accounts, bytes, None).unwrap_or(false);
        accounts.used += if fits { bytes } else { 0 };
        fits
    }

    /// The disk turned out to be full: forgets the last measurement.
    pub(super) fn met_full_disk(&self) {
        self.accounts.lock().measured = None;
    }

    /// Counts that a pack left or was cut.
    pub(super) fn shrank(&self, bytes: u64) {
        let mut accounts = self.accounts.lock();
        accounts.used = accounts.used.saturating_sub(bytes);
        accounts.measured = None;
        drop(accounts);
        self.wake();
    }

    fn unreserve(&self, bytes: u64) {
        let mut accounts = self.accounts.lock();
        accounts.reserved = accounts.reserved.saturating_sub(bytes);
        drop(accounts);
        self.wake();
    }

    fn wake(&self) {
        if *self.waiting.borrow() > 0 {
            self.freed.notify_waiters();
        }
    }

    fn kept_back(&self) -> u64 {
        KEPT_BACK.min(self.limits.budget / 8)
    }

    /// The bound of `used + reserved`, and the bytes that must stay free on the disk: for writes (`None`), and for each class
    /// of the journal's records.
    fn bounds(&self, need: Option<RoomClass>) -> (u64, u64) {
        let StagingLimits { budget, free_floor, .. } = self.limits;
        let kept = self.kept_back();
        match need {
            None => (budget - kept, free_floor),
            Some(RoomClass::Change) => (budget - kept / 2, free_floor.saturating_sub(kept / 2)),
            Some(RoomClass::FreesRoom | RoomClass::Upkeep) => (budget, LAST_FLOOR.min(free_floor)),
        }
    }

    /// Whether there is room for `bytes` more.
    fn fits(&self, accounts: &mut Accounts, bytes: u64, need: Option<RoomClass>) -> Result<bool> {
        let (budget, floor) = self.bounds(need);
        let wanted = accounts.used.saturating_add(accounts.reserved).saturating_add(bytes);
        let beside = match need {
            None | Some(RoomClass::Change) => accounts.beside,
            Some(RoomClass::FreesRoom | RoomClass::Upkeep) => 0,
        };
        if wanted.saturating_add(beside) > budget {
            return Ok(false);
        }
        if accounts.measured.as_ref().is_none_or(|m| m.at.elapsed() > MEASURE_EVERY) {
            // statvfs of a local disk only reads memory: short enough to be under the lock.
            let free = self.disk.free().map_err(Error::io("asking for the disk's free space"))?;
            // What is reserved is not on the disk yet; what is used is already missing from `free`.
            let ceiling = accounts.used.saturating_add(free);
            accounts.measured = Some(Measured { at: Instant::now(), ceiling });
        }
        let ceiling = accounts.measured.as_ref().map_or(0, |m| m.ceiling.saturating_sub(floor));
        Ok(wanted <= ceiling)
    }

    pub(super) fn admit(self: &Arc<Self>, bytes: u64) -> Result<Option<Reservation>> {
        let mut accounts = self.accounts.lock();
        if !self.fits(&mut accounts, bytes, None)? {
            return Ok(None);
        }
        accounts.reserved += bytes;
        Ok(Some(Reservation { room: self.clone(), bytes }))
    }

    /// Waits for room until the deadline of the limits.
    pub(super) async fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation> {
        if let Some(reservation) = self.admit(bytes)? {
            return Ok(reservation);
        }
        if bytes > self.bounds(None).0 {
            return Err(Error::Full); // there could never be so much
        }
        let _waiting = Waiting::new(&self.waiting);
        let deadline = Instant::now() + self.limits.wait;
        loop {
            let freed = self.freed.notified();
            if let Some(reservation) = self.admit(bytes)? {
                return Ok(reservation);
            }
            // Others may free disk space without telling, so look once a second.
            let look = Instant::now() + MEASURE_EVERY;
            if tokio::time::timeout_at(look.min(deadline), freed).await.is_err()
                && Instant::now() >= deadline
            {
                return self.admit(bytes)?.ok_or(Error::Full);
            }
        }
    }
}

/// The journal shares the accounts of the packs (J8).
impl JournalRoom for StagingRoom {
    fn kept_ahead(&self) -> u64 {
        KEPT_AHEAD.min(self.limits.budget / 16)
    }

    fn take(&self, bytes: u64, need: RoomClass) -> bool {
        let mut accounts = self.accounts.lock();
        let fits = self.fits(&mut accounts, bytes, Some(need)).unwrap_or_else(|error| {
            tracing::warn!(%error, "no more room for the journal");
            false
        });
        accounts.used += if fits { bytes } else { 0 };
        fits
    }

    fn found(&self, bytes: u64) {
        self.grew(bytes);
    }

    fn give_back(&self, bytes: u64) {
        self.shrank(bytes);
    }
}

/// Disk space that a pack's file takes beyond the pack's end. Counted in the budget like all else, and given back on drop.
#[derive(Debug)]
pub(super) struct RoomAhead {
    room: Arc<StagingRoom>,
    bytes: u64,
}

impl RoomAhead {
    pub(super) fn none(room: Arc<StagingRoom>) -> Self {
        Self { room, bytes: 0 }
    }

    /// Takes `bytes` more, if there is room for them.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        let fits = self.room.take_ahead(bytes);
        self.bytes += if fits { bytes } else { 0 };
        fits
    }

    /// Only `left` of them remain: the others have become bytes of the pack, and are counted as such.
    pub(super) fn are_left(&mut self, left: u64) {
        let over = self.bytes.saturating_sub(left);
        self.bytes -= over;
        let mut accounts = self.room.accounts.lock();
        accounts.used = accounts.used.saturating_sub(over);
    }

    /// Leaves them on disk and counted, although nothing tracks them any more.
    pub(super) fn stay(mut self) {
        self.bytes = 0;
    }
}

impl Drop for RoomAhead {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.shrank(self.bytes);
        }
    }
}

/// Counts as a waiter while it lives, so a cancelled wait is no longer counted.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|n| *n += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

/// Room promised to a write; given back when dropped, which is right once the bytes are in a pack (they count there).
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    room: Arc<StagingRoom>,
    /// On disk, overhead included.
    bytes: u64,
}

impl Reservation {
    /// Bytes of staging promised, overhead included.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes another reservation into this one.
    pub fn absorb(&mut self, mut other: Reservation) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Splits off what was promised for `plain` bytes of plaintext, or all if that is less: to drop, or to hand on.
    pub fn split(&mut self, plain: u64) -> Reservation {
        let bytes = cost(plain).min(self.bytes);
        self.bytes -= bytes;
        Reservation { room: self.room.clone(), bytes }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.unreserve(self.bytes);
        }
    }
}
