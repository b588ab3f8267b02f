//! Writing packs to the staging disk, and keeping in memory what has no room there (J8).

use std::sync::Arc;

use super::area::StagingArea;
use super::error::{Error, Result};
use super::pack_names::{closed_name, open_name};
use super::referred_parts::ReferredParts;
use super::unwritten::UnwrittenTail;
use super::zeros_ahead::ZerosAhead;
use crate::os::{self, DiskFile, PipelineStep, is_full};
use crate::types::PackId;

impl StagingArea {
    /// Appends to a pack, behind any of its bytes that still wait for the disk.
    pub(super) fn put(
        &self,
        pack: PackId,
        file: Option<&Arc<dyn DiskFile>>,
        offset: u64,
        (sealed, is_footer): (&[u8], bool),
        ahead: &mut ZerosAhead,
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
        match os::before(PipelineStep::PackWrite, || file.write_at(sealed, offset)) {
            Ok(()) => {
                os::reached(PipelineStep::PackWritten);
                let end = offset + sealed.len() as u64;
                let was_synced = self.wrote(pack, sealed.len() as u64, end);
                if is_footer || !was_synced {
                    return Ok(());
                }
                // The pack was fsynced while growing, and likely will be again.
                let written = ahead.extend(self, &*file, end);
                written.map_err(|error| self.fail("writing to a pack in staging", error))
            }
            Err(error) if is_full(&error) => {
                let cut = file.set_length(offset);
                cut.map_err(|e| self.fail("cutting a pack in staging", e))?;
                ahead.end();
                let tail = UnwrittenTail {
                    file: Some(file),
                    written: offset,
                    bytes: sealed.to_vec(),
                    has_extents: !is_footer,
                    ..UnwrittenTail::default()
                };
                self.keep_tail(pack, tail);
                self.room.met_full_disk();
                Ok(())
            }
            Err(error) => Err(self.fail("writing to a pack in staging", error)),
        }
    }

    /// The pack's file: the caller's, or the one that was made once there was room.
    fn file_of(
        &self,
        pack: PackId,
        known: Option<&Arc<dyn DiskFile>>,
    ) -> Option<Arc<dyn DiskFile>> {
        known.cloned().or_else(|| self.table.lock().get(pack).and_then(|entry| entry.file.clone()))
    }

    /// Counts written bytes. Returns whether any of the pack was fsynced before.
    fn wrote(&self, pack: PackId, bytes: u64, length: u64) -> bool {
        self.room.grew(bytes);
        self.table.lock().set_length(pack, length)
    }

    /// Closes a pack that has its footer: now, or once its tail is written.
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
        let named = os::before(PipelineStep::PackClose, || {
            self.disk.rename(&open_name(pack), &closed_name(pack))
        });
        match named {
            Ok(()) => self.closed(pack, None),
            Err(error) if is_full(&error) => {
                let file = self.file_of(pack, file);
                let rest = UnwrittenTail::default();
                let tail = UnwrittenTail { file, written: length, closes: true, ..rest };
                self.keep_tail(pack, tail);
            }
            Err(error) => return Err(self.fail("renaming a pack in staging", error)),
        }
        Ok(())
    }

    fn closed(&self, pack: PackId, parts: Option<Arc<ReferredParts>>) {
        os::reached(PipelineStep::PackClosed);
        let was_found = parts.is_some();
        self.table.lock().closed(pack, parts);
        // For a pack that was found, recovery has decided this.
        if !was_found {
            self.discard_unwanted(pack, false);
        }
        self.changed.notify_waiters();
    }

    /// Writes what waits in memory, as far as there is room. Blocks.
    pub(super) fn write_tails(&self) -> Result<()> {
        for (pack, tail) in self.tails.all() {
            self.write_tail(pack, &mut tail.lock())?;
        }
        Ok(())
    }

    fn write_tail(&self, pack: PackId, tail: &mut UnwrittenTail) -> Result<()> {
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
            self.closed(pack, tail.parts.take());
        }
        Ok(())
    }

    /// Takes a tail from recovery, and writes it now, or as soon as there is room.
    pub(super) fn write_or_keep(&self, pack: PackId, tail: UnwrittenTail) -> Result<()> {
        // A barrier that finds the pack meanwhile has its file, whatever its name is by then.
        if let Some(file) = &tail.file {
            self.table.lock().set_file(pack, file.clone());
        }
        let tail = self.tails.add(pack, tail);
        self.write_tail(pack, &mut tail.lock())
    }
}
