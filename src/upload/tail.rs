//! What of a pack waits for the disk, because others have filled it: nothing of it is lost, nothing refers to it yet,
//! and it is written as soon as there is room (J8).
//!
//! In memory it is bounded by what was reserved before: while the disk is full nothing more is.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::DiskFile;
use super::error::{Error, Result};
use super::staging::{Shared, closed_name, open_name};
use crate::os::is_full;
use crate::types::PackId;

/// The end of one pack.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// `None`: there was no room for the file itself.
    pub(super) file: Option<Arc<dyn DiskFile>>,
    /// What of the pack is in the file: the tail begins there.
    pub(super) written: u64,
    pub(super) bytes: Vec<u8>,
    /// Whether extents are in it: then no transaction may refer to the pack (J1).
    pub(super) has_extents: bool,
    /// Whether its footer is in it, or was written: it is closed once the tail is empty.
    pub(super) closes: bool,
    pub(super) renamed: bool,
    pub(super) extents_end: Option<u64>,
}

/// The tails there are. This lock is never taken before a tail's own and held.
#[derive(Debug, Default)]
pub(super) struct Tails(Mutex<HashMap<PackId, Arc<Mutex<Tail>>>>);

impl Tails {
    pub(super) fn of(&self, pack: PackId) -> Option<Arc<Mutex<Tail>>> {
        self.0.lock().get(&pack).cloned()
    }

    pub(super) fn keep(&self, pack: PackId, tail: Tail) {
        tracing::warn!(%pack, "the disk is full: a part of a pack waits in memory for room");
        self.0.lock().insert(pack, Arc::new(Mutex::new(tail)));
    }

    pub(super) fn forget(&self, pack: PackId) {
        self.0.lock().remove(&pack);
    }

    pub(super) fn any(&self) -> bool {
        !self.0.lock().is_empty()
    }

    /// Whether a transaction that refers to one of these would refer to what is not in its file.
    pub(super) fn hold_extents_of(&self, packs: &[PackId]) -> bool {
        self.any() && packs.iter().any(|pack| self.of(*pack).is_some_and(|t| t.lock().has_extents))
    }

    fn all(&self) -> Vec<(PackId, Arc<Mutex<Tail>>)> {
        self.0.lock().iter().map(|(pack, tail)| (*pack, tail.clone())).collect()
    }
}

impl Tail {
    fn end(&self) -> u64 {
        self.written + self.bytes.len() as u64
    }

    fn is_waiting(&self) -> bool {
        self.closes || !self.bytes.is_empty() || self.file.is_none()
    }
}

impl Shared {
    /// Appends to a pack, behind what of it waits for the disk.
    pub(super) fn put(
        &self,
        pack: PackId,
        file: Option<&Arc<dyn DiskFile>>,
        offset: u64,
        sealed: &[u8],
        is_footer: bool,
    ) -> Result<()> {
        if let Some(tail) = self.tails.of(pack) {
            let mut tail = tail.lock();
            if tail.is_waiting() {
                self.write_tail(pack, &mut tail)?;
            }
            if tail.is_waiting() {
                tail.bytes.extend_from_slice(sealed);
                tail.has_extents |= !is_footer;
                return Ok(());
            }
        }
        let Some(file) = self.file_of(pack, file) else {
            return Err(Error::Poisoned("a pack without a file".into()));
        };
        match file.write_at(sealed, offset) {
            Ok(()) => {
                self.wrote(pack, sealed.len() as u64, offset + sealed.len() as u64);
                Ok(())
            }
            Err(error) if is_full(&error) => {
                let cut = file.set_length(offset);
                cut.map_err(|e| self.fail("cutting a pack in staging", e))?;
                let tail = Tail {
                    file: Some(file),
                    written: offset,
                    bytes: sealed.to_vec(),
                    has_extents: !is_footer,
                    ..Tail::default()
                };
                self.tails.keep(pack, tail);
                self.room.met_full_disk();
                Ok(())
            }
            Err(error) => Err(self.fail("writing to a pack in staging", error)),
        }
    }

    /// Its file, as its owner knows it; or as it was made meanwhile, when there was room.
    fn file_of(
        &self,
        pack: PackId,
        known: Option<&Arc<dyn DiskFile>>,
    ) -> Option<Arc<dyn DiskFile>> {
        known.cloned().or_else(|| self.table.lock().get(pack).and_then(|entry| entry.file.clone()))
    }

    fn wrote(&self, pack: PackId, bytes: u64, length: u64) {
        self.room.grew(bytes);
        self.table.lock().set_length(pack, length);
    }

    /// The pack has its footer, or will have: it is closed, now or when its tail is written.
    pub(super) fn finish(
        &self,
        pack: PackId,
        length: u64,
        file: Option<&Arc<dyn DiskFile>>,
    ) -> Result<()> {
        if let Some(tail) = self.tails.of(pack) {
            let mut tail = tail.lock();
            if tail.is_waiting() {
                tail.closes = true;
                return Ok(());
            }
        }
        match self.disk.rename(&open_name(pack), &closed_name(pack)) {
            Ok(()) => self.closed(pack, None),
            Err(error) if is_full(&error) => {
                let file = self.file_of(pack, file);
                self.tails
                    .keep(pack, Tail { file, written: length, closes: true, ..Tail::default() });
            }
            Err(error) => return Err(self.fail("renaming a pack in staging", error)),
        }
        Ok(())
    }

    fn closed(&self, pack: PackId, extents_end: Option<u64>) {
        self.table.lock().closed(pack, extents_end);
        // Of one that was found, recovery has decided.
        if extents_end.is_none() {
            self.discard_unwanted(pack, false);
        }
        self.changed.notify_waiters();
    }

    /// Writes what waits, as far as there is room. Blocks.
    pub(super) fn write_tails(&self) -> Result<()> {
        for (pack, tail) in self.tails.all() {
            self.write_tail(pack, &mut tail.lock())?;
        }
        Ok(())
    }

    fn write_tail(&self, pack: PackId, tail: &mut Tail) -> Result<()> {
        if self.table.lock().get(pack).is_none() {
            self.tails.forget(pack); // it was discarded
            return Ok(());
        }
        let file = match &tail.file {
            Some(file) => file.clone(),
            None => match self.disk.create(&open_name(pack)) {
                Ok(file) => {
                    self.table.lock().set_file(pack, file.clone());
                    tail.file.insert(file).clone()
                }
                Err(error) if is_full(&error) => return Ok(()),
                Err(error) => return Err(self.fail("making a pack in staging", error)),
            },
        };
        if !tail.bytes.is_empty() {
            if let Err(error) = file.write_at(&tail.bytes, tail.written) {
                let cut = file.set_length(tail.written);
                return match cut {
                    Ok(()) if is_full(&error) => Ok(()),
                    _ => Err(self.fail("writing to a pack in staging", error)),
                };
            }
            self.wrote(pack, tail.bytes.len() as u64, tail.end());
            (tail.written, tail.bytes, tail.has_extents) = (tail.end(), Vec::new(), false);
        }
        if tail.closes && !tail.renamed {
            match self.disk.rename(&open_name(pack), &closed_name(pack)) {
                Err(error) if is_full(&error) => return Ok(()),
                done => done.map_err(|e| self.fail("renaming a pack in staging", e))?,
            }
        }
        self.tails.forget(pack);
        if std::mem::take(&mut tail.closes) {
            self.closed(pack, tail.extents_end);
        }
        Ok(())
    }

    /// As a pack's owner does: the tail is written now, or as soon as there is room.
    pub(super) fn write_or_keep(&self, pack: PackId, tail: Tail) -> Result<()> {
        self.tails.0.lock().insert(pack, Arc::new(Mutex::new(tail)));
        match self.tails.of(pack) {
            Some(tail) => self.write_tail(pack, &mut tail.lock()),
            None => Ok(()),
        }
    }

    /// Reads what lies in the tail of a pack, and before it; whether there is a tail that goes so far.
    pub(super) fn read_tail(
        &self,
        pack: PackId,
        range: Range<u64>,
        into: &mut [u8],
    ) -> Result<bool> {
        let Some(tail) = self.tails.of(pack) else { return Ok(false) };
        let tail = tail.lock();
        if range.end > tail.end() {
            return Ok(false);
        }
        let before = tail.written.clamp(range.start, range.end) - range.start;
        let (in_file, in_tail) = into.split_at_mut(usize::try_from(before).unwrap_or(usize::MAX));
        if let (Some(file), false) = (&tail.file, in_file.is_empty()) {
            file.read_at(in_file, range.start).map_err(Error::io("reading a staged pack"))?;
        }
        let from =
            usize::try_from(range.start.max(tail.written) - tail.written).unwrap_or(usize::MAX);
        in_tail.copy_from_slice(&tail.bytes[from..from + in_tail.len()]);
        Ok(true)
    }

    /// How much of a pack can be read.
    pub(super) fn readable(&self, pack: PackId) -> u64 {
        let in_file = self.table.lock().get(pack).map_or(0, |entry| entry.length);
        self.tails.of(pack).map_or(in_file, |tail| tail.lock().end().max(in_file))
    }
}
