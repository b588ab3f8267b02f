//! The staging area: packs that are not yet known to be in the bucket. Their presence is the upload queue.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

use super::error::Result;
use crate::types::{PackId, Seq};

/// Budgets of the staging area.
#[derive(Clone, Copy, Debug)]
pub struct StagingLimits {
    /// Bytes that staging may take on disk, reserve included.
    pub budget: u64,
    /// Bytes of its file system that stay free.
    pub free_floor: u64,
    /// How long a reservation waits for room before it is refused.
    pub wait: std::time::Duration,
}

/// What staging holds, for `status` and `statfs`. Bytes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The budget.
    pub budget: u64,
    /// Bytes of all packs here.
    pub used: u64,
    /// Bytes promised to writes that are not sealed yet.
    pub reserved: u64,
    /// Packs that are not confirmed to be in the bucket (open ones included), and their bytes.
    pub unsent_packs: u64,
    pub unsent_bytes: u64,
    /// Of these, the ones that still take extents.
    pub open_packs: u64,
}

/// The staging area. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Staging {}

/// Room promised to a write: given back when dropped.
#[derive(Debug)]
#[must_use]
pub struct Reservation {}

/// Keeps a pack in staging while an unpublished write refers to it; dropping it lets go.
/// Take it before the extent is appended's result is used, drop it after the transaction that publishes it was appended.
#[derive(Debug)]
#[must_use]
pub struct PackHold {}

/// A pack that takes extents. Dropped without `close` it stays for recovery if anything refers to it, else it is removed.
#[derive(Debug)]
pub struct OpenPack {}

/// Judges and makes footers when packs are recovered: the vault has the keys, this room has not.
pub trait Footers {
    /// Whether the pack (`length` bytes, readable by `staging.read`) ends in a footer that opens.
    fn is_good(&self, staging: &Staging, pack: PackId, length: u64) -> bool;
    /// The sealed footer for a pack that now ends at `end`.
    fn make(&self, pack: PackId, end: u64) -> Vec<u8>;
}

/// The name of a pack's object in the bucket.
pub fn pack_object(pack: PackId) -> String {
    let id = pack.to_string();
    format!("pack/{}/{id}", &id[..2])
}

impl Staging {
    /// Opens or makes the directory (0700) and lists what is there. Nothing is changed, nothing is sent.
    pub fn open(_dir: &Path, _limits: StagingLimits) -> Result<Self> {
        todo!()
    }
    /// Begins a new pack, `<id>.open`.
    pub fn create(&self, _pack: PackId) -> Result<OpenPack> {
        todo!()
    }
    /// Promises room for `plain` bytes of plaintext, overhead of seal, footer and padding included (J8). Ready at
    /// the first poll when there is room; else it waits until there is, or is refused with `Full` at the deadline.
    pub async fn reserve(&self, _plain: u64) -> Result<Reservation> {
        todo!()
    }
    /// As `reserve`, but `None` instead of waiting.
    pub fn try_reserve(&self, _plain: u64) -> Result<Option<Reservation>> {
        todo!()
    }
    /// The bytes of a pack that is here, open or closed; `None` if it is not here. Not checked: the caller opens the seal.
    pub fn read(&self, _pack: PackId, _range: Range<u64>) -> Result<Option<Bytes>> {
        todo!()
    }
    /// Keeps the pack here while an unpublished write refers to it.
    pub fn hold(&self, _pack: PackId) -> PackHold {
        todo!()
    }
    /// Whether the pack is here.
    pub fn contains(&self, _pack: PackId) -> bool {
        todo!()
    }
    /// Bytes of the pack that are here (J3 measures by this).
    pub fn length(&self, _pack: PackId) -> Option<u64> {
        todo!()
    }
    /// All packs here with their lengths.
    pub fn packs(&self) -> Vec<(PackId, u64)> {
        todo!()
    }
    /// J7, after `open` and once it is decided that the journal goes on: `referred` says, for each pack that a
    /// transaction of the journal refers to, where the last extent referred to ends. Packs without a good footer are
    /// cut there and closed; packs that nothing refers to are removed.
    pub fn recover(&self, _referred: &HashMap<PackId, u64>, _footers: &dyn Footers) -> Result<()> {
        todo!()
    }
    /// A transaction that refers to these packs is about to be appended (C4). The vault calls it too for each
    /// unconfirmed transaction that it finds in the journal.
    pub fn appending(&self, _seq: Seq, _packs: &[PackId]) -> Result<()> {
        todo!()
    }
    /// For `status`.
    pub fn usage(&self) -> Usage {
        todo!()
    }
}

impl Reservation {
    /// Takes another reservation into this one.
    pub fn absorb(&mut self, _other: Reservation) {
        todo!()
    }
    /// Gives part of it back, or hands it on: a reservation of its own for up to `plain` bytes.
    pub fn split(&mut self, _plain: u64) -> Reservation {
        todo!()
    }
}

impl PackHold {
    /// The pack held.
    pub fn pack(&self) -> PackId {
        todo!()
    }
}

impl OpenPack {
    /// The pack's id.
    pub fn id(&self) -> PackId {
        todo!()
    }
    /// Bytes so far: where the next append begins.
    pub fn length(&self) -> u64 {
        todo!()
    }
    /// Appends sealed bytes by `write(2)`; answers the offset at which they begin. A failure poisons (J6).
    pub fn append(&mut self, _sealed: &[u8]) -> Result<u64> {
        todo!()
    }
    /// Appends the footer and renames to `<id>.pack`: from here on it is never appended to, and it is in the
    /// upload queue (J7).
    pub fn close(self, _footer: &[u8]) -> Result<()> {
        todo!()
    }
}
