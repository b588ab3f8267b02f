//! Recovery after a crash: packs that were never closed, and packs that lost their end (J7).

use std::collections::HashMap;
use std::sync::Arc;

use super::error::{Error, Result};
use super::pack::Stage;
use super::pack_names::parse_name;
use super::referred_parts::ReferredParts;
use super::staging::Staging;
use super::unwritten::UnwrittenTail;
use crate::os::{self, PipelineStep};
use crate::types::PackId;

/// Checks and makes footers. Implemented by the vault, which has the keys; this room has none.
pub trait Footers {
    /// Whether the pack (`length` bytes, readable by `staging.read`) ends in a footer that opens.
    fn is_good(&self, staging: &Staging, pack: PackId, length: u64) -> bool;
    /// The sealed footer for a pack whose last extent ends at `end`.
    fn make(&self, pack: PackId, end: u64) -> Vec<u8>;
}

/// What recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Packs that were whole, and stay as they are.
    pub whole: u64,
    /// Packs that were cut after their last needed extent and closed.
    pub mended: u64,
    /// Packs that were removed, as nothing referred to them.
    pub removed: u64,
}

impl Staging {
    /// J7: called after `open`, once it is decided that the journal goes on. `referred` has, for each pack here that the
    /// journal's transactions refer to, the parts that they need. Packs without a good footer are cut behind the last of these
    /// parts and closed; packs that nothing refers to are removed. May be interrupted and repeated.
    ///
    /// # Errors
    /// `Short` if a pack lacks an extent that is needed: J3 should have found that record bad.
    pub fn recover(
        &self,
        referred: &HashMap<PackId, ReferredParts>,
        footers: &dyn Footers,
    ) -> Result<Recovered> {
        let mut done = Recovered::default();
        let disk = &self.area.disk;
        let listed = disk.list().map_err(Error::io("listing the staging directory"))?;
        for (name, length) in listed {
            let Some((pack, renamed)) = parse_name(&name) else { continue };
            let stage = self.area.table.lock().get(pack).map(|pack| pack.stage);
            if stage == Some(Stage::Dropped) {
                continue; // it goes with the next barrier, which makes its note durable
            }
            let Some(parts) = referred.get(&pack) else {
                self.forget_found(pack, &name, length)?;
                os::reached(PipelineStep::PackForgotten);
                done.removed += 1;
                continue;
            };
            let end = parts.end();
            if length < end {
                return Err(Error::Short { pack, length, wanted: end });
            }
            if footers.is_good(self, pack, length) {
                let tail = UnwrittenTail {
                    file: Some(self.area.open_file(pack, renamed).map_err(Error::io("a pack"))?),
                    written: length,
                    closes: true,
                    renamed,
                    parts: Some(Arc::new(parts.clone())),
                    ..UnwrittenTail::default()
                };
                self.area.write_or_keep(pack, tail)?;
                done.whole += 1;
            } else {
                self.mend((pack, renamed), length, parts, footers)?;
                done.mended += 1;
            }
            os::reached(PipelineStep::PackRecovered);
        }
        self.area.changed.notify_waiters();
        Ok(done)
    }

    /// Cuts a pack after its last needed extent, and closes it.
    fn mend(
        &self,
        (pack, renamed): (PackId, bool),
        length: u64,
        parts: &ReferredParts,
        footers: &dyn Footers,
    ) -> Result<()> {
        let (what, end) = ("cutting a pack found in staging", parts.end());
        let footer = footers.make(pack, end);
        let file = self.area.open_file(pack, renamed).map_err(Error::io(what))?;
        // First the cut, then the footer: a crash in between leaves a pack without a footer, as it was found.
        file.set_length(end).map_err(Error::io(what))?;
        self.area.room.shrank(length - end);
        self.area.table.lock().set_length(pack, end);
        // On a full disk the footer and the rename wait for room.
        let tail = UnwrittenTail {
            file: Some(file),
            written: end,
            bytes: footer,
            closes: true,
            renamed,
            parts: Some(Arc::new(parts.clone())),
            ..UnwrittenTail::default()
        };
        self.area.write_or_keep(pack, tail)
    }

    fn forget_found(&self, pack: PackId, name: &str, length: u64) -> Result<()> {
        tracing::info!(%pack, length, "a pack that nothing refers to is removed from staging");
        self.area.disk.remove(name).map_err(Error::io("removing a pack from staging"))?;
        self.area.table.lock().remove(pack);
        self.area.room.shrank(length);
        Ok(())
    }
}
