//! What all handles of one index share: the layers, the locks around them, and the way from the memtable to sled.
//!
//! Lock order: `append`, then `drain`, then `layers`. Journal and staging take their own locks below these.

use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use super::bring_pace::BringPace;
use super::draft::Numbers;
use super::layers::Layers;
use super::sled_delta::SledDelta;
use super::{Error, Result};
use crate::crypto::Keys;
use crate::log::Journal;
use crate::os;

/// The memtable is written to sled in one batch once it takes this many bytes.
pub(super) const DRAIN_AT: usize = 512 << 10;

pub(super) struct Inner {
    pub(super) keys: Keys,
    /// The append lock: a change is computed and appended under it (`PROTOCOL.md`, "One map").
    pub(super) append: Mutex<Numbers>,
    drain: Mutex<()>,
    pub(super) layers: RwLock<Layers>,
    /// The same as `layers.sled`, for callers that do not lock the layers. A leaf lock.
    sled: Mutex<Arc<SledDelta>>,
    pub(super) journal: OnceLock<Arc<Journal>>,
    /// Bytes of the memtable above which a change waits.
    pub(super) memtable: usize,
    pub(super) pace: BringPace,
    read_only: RwLock<Option<String>>,
}

impl Inner {
    pub(super) fn new(keys: Keys, layers: Layers, memtable: usize) -> Self {
        Self {
            keys,
            append: Mutex::default(),
            drain: Mutex::default(),
            sled: Mutex::new(layers.sled.clone()),
            layers: RwLock::new(layers),
            journal: OnceLock::new(),
            memtable,
            pace: BringPace::default(),
            read_only: RwLock::new(None),
        }
    }

    /// The delta on disk.
    pub(super) fn sled(&self) -> Arc<SledDelta> {
        self.sled.lock().clone()
    }

    /// Swaps what this index and `other` show, at one moment (W5). Waits while either is being written to sled.
    pub(super) fn change_places(&self, other: &Self) {
        let _nothing_is_written = (self.drain.lock(), other.drain.lock());
        let (mut ours, mut theirs) = (self.layers.write(), other.layers.write());
        std::mem::swap(&mut *ours, &mut *theirs);
        std::mem::swap(&mut *self.sled.lock(), &mut *other.sled.lock());
    }

    /// Looks through the rows of sled (`row_filter.rs`), unless `goes_on` says no. A failure shows, and is handled, where somebody
    /// needs the row.
    pub(super) fn learn_rows(&self, goes_on: impl Fn() -> bool) {
        let sled = self.sled();
        // Not when it has changed places: whoever has it now may close it at any time.
        drop(sled.learn_rows(|| goes_on() && Arc::ptr_eq(&self.sled(), &sled)));
    }

    /// Writes the memtable to sled, in one batch with its point (J4).
    pub(super) fn drain(&self) -> Result<()> {
        self.store(false)
    }

    /// As [`Inner::drain`]; with `point`, it stores the point even if nothing else has changed.
    pub(super) fn store(&self, point: bool) -> Result<()> {
        self.store_with(point, |_| Some(())).map(drop)
    }

    /// As [`Inner::store`]. `first` runs under the same lock of the layers, unless there is nothing to store or no room for
    /// it. If it returns `None`, nothing is stored.
    pub(super) fn store_with<T>(
        &self,
        point: bool,
        first: impl FnOnce(&mut Layers) -> Option<T>,
    ) -> Result<Option<T>> {
        let _one = self.drain.lock();
        self.whole("writing the index", || self.store_alone(point, first))
    }

    /// Runs `work`, which must be done as a whole or not at all. After a panic in the middle the layers may be in any state,
    /// so the index counts as damaged (J4). That is noted here, because most callers write the memtable on behalf of others
    /// and would not report it.
    pub(super) fn whole<T>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        os::watched_here(what, work).unwrap_or_else(|panicked| {
            let error = Error::Damaged(panicked.to_string());
            self.damaged(&error.to_string());
            Err(error)
        })
    }

    fn store_alone<T>(
        &self,
        point: bool,
        first: impl FnOnce(&mut Layers) -> Option<T>,
    ) -> Result<Option<T>> {
        let bytes = {
            let layers = self.layers.read();
            if layers.active.is_empty() && layers.new_counts.is_empty() && !point {
                return Ok(None);
            }
            layers.active.bytes() + DRAIN_AT // what arrives until the memtable is taken
        };
        // sled does not survive a full disk, so room is taken first. Not under the lock of the layers: it may take a moment.
        let sled = self.sled();
        sled.db().take_room(bytes as u64)?;
        let (memtable, counts, point, made) = {
            let mut layers = self.layers.write();
            if layers.draining.is_some() {
                return Err(Error::Damaged("what was to be written before is not in it".into()));
            }
            let Some(made) = first(&mut layers) else { return Ok(None) };
            let memtable = Arc::new(std::mem::take(&mut layers.active));
            layers.draining = Some(memtable.clone());
            let counts = std::mem::take(&mut layers.new_counts);
            (memtable, counts, layers.point.clone(), made)
        };
        // On failure the memtable stays where readers find it, no later point is stored, and no more changes are accepted.
        self.watched(sled.apply(&memtable, &counts, &point))?;
        self.layers.write().draining = None;
        Ok(Some(made))
    }

    /// Refuses all changes from now on, with this reason. The first reason stays.
    pub(super) fn make_read_only(&self, reason: &str) {
        let mut read_only = self.read_only.write();
        if read_only.is_some() {
            return;
        }
        *read_only = Some(reason.to_owned());
        drop(read_only);
        tracing::warn!(reason, "the vault is read-only from now on");
    }

    /// Why changes are refused, if they are.
    pub(super) fn read_only(&self) -> Option<String> {
        self.read_only.read().clone()
    }

    /// Whether changes are refused.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only.read().is_some()
    }

    /// Reacts to an error of sled: the mount becomes read-only, with the reason, and the next mount makes the index anew
    /// (J4).
    pub(super) fn damaged(&self, reason: &str) {
        self.make_read_only(reason);
        self.sled().db().condemn(reason);
    }

    /// Passes a result of sled on. If it says that sled is damaged, [`Inner::damaged`] notes it.
    pub(super) fn watched<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error @ Error::Damaged(_)) = &result {
            self.damaged(&error.to_string());
        }
        result
    }
}
