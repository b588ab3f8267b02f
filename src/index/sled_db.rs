//! The sled database as something that can be damaged, panic, or meet a full disk: each becomes an error here.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Error, Result};
use crate::log;
use crate::os::{self, PipelineStep};
use crate::types::MIB;

/// Rounds of garbage collection after a batch. Each frees up to 8 bags of 64 (crossbeam-epoch); a batch fills some hundreds.
const COLLECTIONS: usize = 128;

/// sled takes the disk in pieces of 512 KiB, several for a batch. With less than this free, nothing is written.
const BATCH_FLOOR: u64 = 8 * MIB;
/// What sled writes for each byte of a batch, at most.
const BATCH_FACTOR: u64 = 4;

/// One open database. Whatever sled does to a damaged file, a panic included, is an [`Error::Damaged`] to the caller.
pub(super) struct SledDb {
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
    dir: PathBuf,
    /// The database's file: room is reserved through it, nothing is written through it.
    file: Option<fs::File>,
    condemned: AtomicBool,
    /// How often something was written, or was about to be.
    writes: Arc<AtomicU64>,
    #[cfg(test)]
    fault: parking_lot::Mutex<Option<SledFault>>,
}

/// How sled fails from now on.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SledFault {
    Fails,
    Panics,
    /// sled works, but the disk has no room for more.
    Full,
}

impl SledDb {
    /// Opens the database, which keeps `cached` bytes in memory (counted as stored). An error says why it cannot be used; the
    /// caller then deletes it and makes it anew.
    pub(super) fn open(dir: &Path, cached: u64) -> Result<Self> {
        if note_of(dir).exists() {
            return Err(Error::Damaged("it was found to be when it was last used".into()));
        }
        let opened = catch_unwind(AssertUnwindSafe(|| {
            sled::Config::new()
                .path(dir)
                .cache_capacity(cached)
                .flush_every_ms(None)
                .mode(sled::Mode::HighThroughput)
                .open()
        }));
        let db = Some(opened.map_err(|_| Error::Damaged("sled cannot open it".into()))??);
        let file = fs::File::options().write(true).open(dir.join("db"));
        let file = file.inspect_err(
            |error| tracing::warn!(%error, "no room is taken ahead for the local index"),
        );
        Ok(Self {
            db,
            dir: dir.to_owned(),
            file: file.ok(),
            condemned: AtomicBool::new(false),
            writes: Arc::default(),
            #[cfg(test)]
            fault: parking_lot::Mutex::default(),
        })
    }

    /// Reserves disk room for a batch of `bytes`, with all that sled makes of it.
    ///
    /// # Errors
    /// [`log::Error::Full`]: sled does not survive a full disk, so it must not meet one (J8).
    pub(super) fn take_room(&self, bytes: u64) -> Result<()> {
        #[cfg(test)]
        if *self.fault.lock() == Some(SledFault::Full) {
            return Err(Error::Log(log::Error::Full));
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        let wanted = BATCH_FLOOR + BATCH_FACTOR * bytes;
        let taken = match &self.file {
            // sled writes after the end of its file, or over space that it used before.
            Some(file) => {
                file.metadata().and_then(|file_is| os::take_room(file, file_is.len(), wanted))
            }
            None => Ok(false),
        };
        match taken {
            Ok(true) => Ok(()),
            Ok(false) if os::free_bytes(&self.dir).is_ok_and(|free| free >= wanted) => Ok(()),
            Ok(false) => Err(Error::Log(log::Error::Full)),
            Err(error) => {
                if !os::is_full(&error) {
                    tracing::warn!(%error, "room for the local index cannot be taken");
                }
                Err(Error::Log(log::Error::Full))
            }
        }
    }

    /// Deletes the database's files, and then the note that it is damaged, if there is one.
    pub(super) fn wipe(dir: &Path) -> io::Result<()> {
        if_there(fs::remove_dir_all(dir))?;
        if let Some(parent) = dir.parent().filter(|parent| parent.is_dir()) {
            os::sync_dir(parent)?;
        }
        if_there(fs::remove_file(note_of(dir)))
    }

    /// Whether the database was found to be damaged.
    pub(super) fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::Relaxed)
    }

    /// Notes that the database is damaged, so that the next mount makes it anew (J4).
    pub(super) fn condemn(&self, reason: &str) {
        if self.condemned.swap(true, Ordering::Relaxed) {
            return;
        }
        tracing::warn!(reason, "the local index was found to be damaged");
        let Err(error) = os::replace(&note_of(&self.dir), reason.as_bytes()) else { return };
        // When the disk is full: a database without its file is empty, so its point matches no journal.
        match fs::remove_file(self.dir.join("db")) {
            Ok(()) => {
                tracing::warn!(%error, "the note of it cannot be written: the index is removed at once");
            }
            Err(cause) => tracing::error!(
                %error, %cause,
                "the local index is damaged, and that cannot be noted: delete its directory before the next mount"
            ),
        }
    }

    /// Calls sled. A panic in it becomes an error.
    pub(super) fn guarded<T>(&self, ask: impl FnOnce(&sled::Db) -> Result<T>) -> Result<T> {
        let Some(db) = &self.db else { return Err(Error::Damaged("it is closed".into())) };
        let asked = AssertUnwindSafe(|| {
            #[cfg(test)]
            self.injected_fault()?;
            ask(db)
        });
        catch_unwind(asked).unwrap_or_else(|_| Err(Error::Damaged("sled could not go on".into())))
    }

    #[cfg(test)]
    fn injected_fault(&self) -> Result<()> {
        let fault = *self.fault.lock();
        match fault {
            None | Some(SledFault::Full) => Ok(()),
            Some(SledFault::Fails) => Err(sled::Error::Unsupported("a test says so".into()).into()),
            Some(SledFault::Panics) => panic!("a test says so"),
        }
    }

    /// From now on every call fails this way; `None`: none does.
    #[cfg(test)]
    pub(super) fn fail_from_now(&self, fault: Option<SledFault>) {
        *self.fault.lock() = fault;
    }

    /// A counter of writes: while it stays the same, the files have not grown.
    pub(super) fn writes(&self) -> Arc<AtomicU64> {
        self.writes.clone()
    }

    /// Applies one batch: after a crash all of it is there, or nothing.
    pub(super) fn apply(&self, batch: sled::Batch) -> Result<()> {
        self.guarded(|db| {
            os::before(PipelineStep::IndexWrite, || Ok(())).map_err(sled::Error::Io)?;
            Ok(db.apply_batch(batch)?)
        })?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        os::reached(PipelineStep::IndexWritten);
        self.free_garbage();
        Ok(())
    }

    /// Frees sled's garbage. Each changed record leaves some KiB of it, which sled keeps until a batch is whole and then
    /// frees a little at each look-up. On a busy machine it would grow to hundreds of MiB.
    pub(super) fn free_garbage(&self) {
        for _ in 0..COLLECTIONS {
            crossbeam_epoch::pin().flush();
        }
    }

    /// Makes all applied batches durable; blocks.
    pub(super) fn flush(&self) -> Result<()> {
        self.take_room(0)?;
        self.guarded(|db| Ok(db.flush()?))?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        os::reached(PipelineStep::IndexFlushed);
        Ok(())
    }

    /// The rows of the iterator that `begin` makes.
    pub(super) fn rows(&self, begin: impl FnOnce(&sled::Db) -> sled::Iter) -> Result<SledRows<'_>> {
        let rows = self.guarded(|db| Ok(begin(db)))?;
        Ok(SledRows { db: self, rows: Some(rows) })
    }
}

impl Drop for SledDb {
    fn drop(&mut self) {
        // sled flushes here.
        let db = self.db.take();
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            self.condemn("sled could not go on while it was closed");
        }
    }
}

/// Rows of sled as they are. After an error there are no more.
pub(super) struct SledRows<'a> {
    db: &'a SledDb,
    rows: Option<sled::Iter>,
}

impl Iterator for SledRows<'_> {
    type Item = Result<(sled::IVec, sled::IVec)>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.rows.as_mut()?;
        let next = self.db.guarded(|_| Ok(rows.next().transpose()?));
        if next.is_err() {
            self.rows = None;
        }
        next.transpose()
    }
}

/// The file beside the database that says that it is damaged.
fn note_of(dir: &Path) -> PathBuf {
    dir.with_extension("damaged")
}

fn if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
