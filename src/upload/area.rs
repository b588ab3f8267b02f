//! What the parts of staging share: the disk, the pack table, the room, and whether anything is accepted.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::error::{Error, Result};
use super::pack_names::file_name;
use super::pack_table::PackTable;
use super::reserve::StagingRoom;
use super::unwritten::{UnwrittenTail, UnwrittenTails};
use crate::os::{Disk, DiskFile};
use crate::types::PackId;

/// The staging area, as its parts see it.
#[derive(Debug)]
pub(super) struct StagingArea {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) table: Mutex<PackTable>,
    pub(super) room: Arc<StagingRoom>,
    /// Notified when something can be sent, committed or released that could not before.
    pub(super) changed: Notify,
    pub(super) tails: UnwrittenTails,
    is_poisoned: AtomicBool,
    poison: watch::Sender<Option<String>>,
}

impl StagingArea {
    pub(super) fn new(disk: Arc<dyn Disk>, table: PackTable, room: Arc<StagingRoom>) -> Self {
        Self {
            disk,
            table: Mutex::new(table),
            room,
            changed: Notify::new(),
            tails: UnwrittenTails::default(),
            is_poisoned: AtomicBool::new(false),
            poison: watch::channel(None).0,
        }
    }

    /// Watches for the reason why nothing is accepted any more.
    pub(super) fn subscribe_poison(&self) -> watch::Receiver<Option<String>> {
        self.poison.subscribe()
    }

    /// Why nothing is accepted any more (J6).
    pub(super) fn poisoned(&self) -> Option<String> {
        self.poison.borrow().clone()
    }

    /// Fails if nothing is accepted any more (J6).
    pub(super) fn check(&self) -> Result<()> {
        if self.is_poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned(self.poisoned().unwrap_or_default()));
        }
        Ok(())
    }

    /// J6: from now on nothing is accepted. The first reason stays.
    pub(super) fn poison(&self, reason: &str) {
        let first = self.poison.send_if_modified(|poison| {
            let first = poison.is_none();
            poison.get_or_insert_with(|| reason.to_owned());
            self.is_poisoned.store(true, Ordering::Release);
            first
        });
        if first {
            tracing::error!(reason, "staging accepts nothing any more");
            self.changed.notify_waiters();
        }
    }

    /// A write failed: poisons, and returns the error.
    pub(super) fn fail(&self, what: &str, error: std::io::Error) -> Error {
        self.poison(&format!("{what}: {error}"));
        Error::io(what)(error)
    }

    /// The disk is full: keeps the tail in memory, to be written later even if nothing else happens.
    pub(super) fn keep_tail(&self, pack: PackId, tail: UnwrittenTail) {
        tracing::warn!(%pack, "the disk is full: a part of a pack waits in memory for room");
        self.tails.add(pack, tail);
        self.changed.notify_waiters();
    }

    pub(super) fn open_file(
        &self,
        pack: PackId,
        renamed: bool,
    ) -> std::io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&file_name(pack, renamed))
    }

    /// Removes a pack that nothing refers to, now or later. Returns whether it did.
    pub(super) fn discard_unwanted(&self, pack: PackId, even_open: bool) -> bool {
        let Some(entry) = self.table.lock().take_unwanted(pack, even_open) else { return false };
        let had_file = self.tails.of(pack).is_none_or(|tail| tail.lock().file.is_some());
        self.tails.forget(pack);
        if !had_file {
            return true;
        }
        if let Err(error) = self.disk.remove(&file_name(pack, entry.renamed)) {
            tracing::warn!(%pack, %error, "removing a pack that nothing refers to");
        }
        self.room.shrank(entry.length);
        true
    }

    /// Fills `into`, which is as long as the range. Returns whether that part of the pack is here.
    pub(super) fn read_into(
        &self,
        pack: PackId,
        range: Range<u64>,
        into: &mut [u8],
    ) -> Result<bool> {
        // Before the table: what is written while this looks is in one of the two.
        let tail = self.tails.of(pack);
        let (file, length, renamed, was_found) = {
            let table = self.table.lock();
            let Some(entry) = table.get(pack) else { return Ok(false) };
            (entry.file.clone(), entry.length, entry.renamed, entry.parts.is_some())
        };
        if range.end > length {
            if let Some(tail) = tail
                && tail.lock().read(range.clone(), into)?
            {
                return Ok(true);
            }
            // Cut after a crash behind what is unsent (J7). The rest of it is confirmed, so the bucket has it.
            if was_found {
                return Ok(false);
            }
            return Err(Error::Short { pack, length, wanted: range.end });
        }
        let file = match file {
            Some(file) => file,
            None => match self.open_file(pack, renamed) {
                Ok(file) => file,
                // It left for the cache just now.
                Err(_) if self.table.lock().has_left(pack) => return Ok(false),
                Err(e) => return Err(Error::io("opening a staged pack")(e)),
            },
        };
        file.read_at(into, range.start).map_err(Error::io("reading a staged pack"))?;
        Ok(true)
    }

    /// How much of a pack can be read.
    pub(super) fn readable(&self, pack: PackId) -> u64 {
        // In this order, as in `read_into`.
        let unwritten = self.tails.of(pack).map_or(0, |tail| tail.lock().end());
        let in_file = self.table.lock().get(pack).map_or(0, |entry| entry.length);
        unwritten.max(in_file)
    }
}
