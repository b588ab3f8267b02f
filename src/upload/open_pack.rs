//! A pack that takes extents, and the hold that keeps a pack in staging.

use std::sync::Arc;

use super::area::StagingArea;
use super::error::Result;
use super::zeros_ahead::ZerosAhead;
use crate::os::DiskFile;
use crate::types::PackId;

/// Keeps a pack in staging while an unpublished write refers to it. Take it before the pack is closed; drop it after the
/// transaction that publishes the write was appended, or the write was discarded.
#[derive(Debug)]
#[must_use]
pub struct PackHold {
    area: Arc<StagingArea>,
    pack: PackId,
}

/// A pack that takes extents. If it is dropped without `close`, it is removed if nothing refers to it. Otherwise it
/// stays for recovery and staging is poisoned: what refers to it can only be sent after the next mount.
#[derive(Debug)]
pub struct OpenPack {
    area: Arc<StagingArea>,
    id: PackId,
    /// `None`: there was no room for the file, so the whole pack waits in memory.
    file: Option<Arc<dyn DiskFile>>,
    length: u64,
    ahead: ZerosAhead,
    closed: bool,
}

impl PackHold {
    pub(super) fn new(area: Arc<StagingArea>, pack: PackId) -> Self {
        Self { area, pack }
    }

    /// The pack held.
    #[cfg(test)]
    #[must_use]
    pub fn pack(&self) -> PackId {
        self.pack
    }
}

impl Drop for PackHold {
    fn drop(&mut self) {
        let may_leave = self.area.table.lock().unhold(self.pack);
        if may_leave {
            self.area.changed.notify_waiters();
        } else {
            self.area.discard_unwanted(self.pack, false);
        }
    }
}

impl OpenPack {
    /// A pack that was just made and is in the table.
    pub(super) fn new(area: Arc<StagingArea>, id: PackId, file: Option<Arc<dyn DiskFile>>) -> Self {
        Self { area, id, file, length: 0, ahead: ZerosAhead::default(), closed: false }
    }

    /// The pack's id.
    #[must_use]
    pub fn id(&self) -> PackId {
        self.id
    }

    /// Its length so far: where the next append begins.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends sealed bytes with `write(2)` and returns their offset. A failure poisons (J6), but a full disk does not:
    /// bytes without room wait in memory, and no transaction may refer to them before they are written.
    pub fn append(&mut self, sealed: &[u8]) -> Result<u64> {
        self.put(sealed, false)
    }

    fn put(&mut self, sealed: &[u8], is_footer: bool) -> Result<u64> {
        self.area.check()?;
        let offset = self.length;
        let (file, ahead) = (self.file.as_ref(), &mut self.ahead);
        self.area.put(self.id, file, offset, (sealed, is_footer), ahead)?;
        if self.file.is_none() {
            self.file = self.area.table.lock().get(self.id).and_then(|pack| pack.file.clone());
        }
        self.length += sealed.len() as u64;
        Ok(offset)
    }

    /// Appends the footer and renames the file to `<id>.pack`. From then on nothing is appended, and the pack is in the
    /// upload queue (J7). A pack that nothing refers to or holds is removed instead.
    pub fn close(mut self, footer: &[u8]) -> Result<()> {
        self.put(footer, true)?;
        self.closed = true; // whatever happens: a failure poisons, and recovery decides about the file
        let cut = self.ahead.cut(self.file.as_deref(), self.length);
        cut.map_err(|error| self.area.fail("cutting a pack in staging", error))?;
        self.area.finish(self.id, self.length, self.file.as_ref())
    }
}

impl Drop for OpenPack {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        if self.area.check().is_err() {
            self.ahead.stay();
        } else if !self.area.discard_unwanted(self.id, true) {
            self.ahead.stay();
            let pack = self.id;
            self.area.poison(&format!("pack {pack} was given up open; the next mount closes it"));
        }
    }
}
