//! The end of a pack that has no room on the disk because others have filled it. Nothing is lost: it waits in memory,
//! nothing refers to it yet, and it is written as soon as there is room (J8).
//!
//! It takes no more memory than was reserved before: while the disk is full nothing more is reserved.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::{Error, Result};
use super::referred_parts::ReferredParts;
use crate::os::DiskFile;
use crate::types::PackId;

/// The end of one pack.
#[derive(Debug, Default)]
pub(super) struct UnwrittenTail {
    /// `None`: there was no room for the file itself either.
    pub(super) file: Option<Arc<dyn DiskFile>>,
    /// How many bytes of the pack are in the file: the tail begins there.
    pub(super) written: u64,
    pub(super) bytes: Vec<u8>,
    /// Whether `bytes` holds extents: then no transaction may refer to the pack (J1).
    pub(super) has_extents: bool,
    /// Whether the footer is in `bytes` or was written: the pack is closed once the tail is empty.
    pub(super) closes: bool,
    pub(super) renamed: bool,
    /// Set for a pack found after a crash.
    pub(super) parts: Option<Arc<ReferredParts>>,
}

/// All tails. This lock is not held while the lock of a tail is taken.
#[derive(Debug, Default)]
pub(super) struct UnwrittenTails(Mutex<HashMap<PackId, Arc<Mutex<UnwrittenTail>>>>);

impl UnwrittenTails {
    pub(super) fn of(&self, pack: PackId) -> Option<Arc<Mutex<UnwrittenTail>>> {
        self.0.lock().get(&pack).cloned()
    }

    pub(super) fn add(&self, pack: PackId, tail: UnwrittenTail) -> Arc<Mutex<UnwrittenTail>> {
        let tail = Arc::new(Mutex::new(tail));
        self.0.lock().insert(pack, tail.clone());
        tail
    }

    pub(super) fn forget(&self, pack: PackId) {
        self.0.lock().remove(&pack);
    }

    pub(super) fn any(&self) -> bool {
        !self.0.lock().is_empty()
    }

    /// Whether any of these packs has extents that are not yet in its file, so that no transaction may refer to it.
    pub(super) fn hold_extents_of(&self, packs: &[PackId]) -> bool {
        self.any() && packs.iter().any(|pack| self.of(*pack).is_some_and(|t| t.lock().has_extents))
    }

    pub(super) fn all(&self) -> Vec<(PackId, Arc<Mutex<UnwrittenTail>>)> {
        self.0.lock().iter().map(|(pack, tail)| (*pack, tail.clone())).collect()
    }
}

impl UnwrittenTail {
    pub(super) fn end(&self) -> u64 {
        self.written + self.bytes.len() as u64
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.closes || !self.bytes.is_empty() || self.file.is_none()
    }

    /// Reads a range of the pack from the tail, and from the file what lies before it. `false` if the range ends beyond
    /// the tail.
    pub(super) fn read(&self, range: Range<u64>, into: &mut [u8]) -> Result<bool> {
        if range.end > self.end() {
            return Ok(false);
        }
        let before = self.written.clamp(range.start, range.end) - range.start;
        let (in_file, in_tail) = into.split_at_mut(usize::try_from(before).unwrap_or(usize::MAX));
        if let (Some(file), false) = (&self.file, in_file.is_empty()) {
            file.read_at(in_file, range.start).map_err(Error::io("reading a staged pack"))?;
        }
        let from =
            usize::try_from(range.start.max(self.written) - self.written).unwrap_or(usize::MAX);
        in_tail.copy_from_slice(&self.bytes[from..from + in_tail.len()]);
        Ok(true)
    }
}
