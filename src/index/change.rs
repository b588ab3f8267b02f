//! The public face of the index: opening, reading, and changing under the one append lock. (Lock order: `inner.rs`.)

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::time::{Instant, timeout};

use super::bring_pace::LONG;
use super::drainer::Drainer;
use super::inner::{DRAIN_AT, Inner};
use super::layers::Layers;
use super::memtable::{Memtable, SeenInodes};
use super::sled_delta::SledDelta;
use super::{Draft, Error, Point, Result, Totals, View};
use crate::checkpoint::{Base, Pins};
use crate::crypto::Keys;
use crate::log::{Journal, RoomClass};
use crate::records::{Change, Key, Transaction};
use crate::types::{CommitNo, InodeNo, MIB, Seq};

/// Once this many bytes are in memory because the disk is full, only changes that free room are accepted.
pub(super) const POSTPONED_MAX: usize = 8 << 20;

/// How many records [`Index::bring`] looks up under one lock.
const LOOKED_AT: usize = 128;

/// What an index itself keeps in memory. The blocks of its base belong to the cache.
#[derive(Clone, Copy, Debug)]
pub struct IndexMemory {
    /// Bytes of sled rows to keep, counted as stored; decoded they take about four times as much. Small in any case: what is hot
    /// lies in the memtable, or was just read.
    pub sled: u64,
    /// Bytes of the memtable above which a change waits until it is written to sled. While a batch is being applied, sled keeps
    /// every version of every node that it makes: 15 times the batch. So no batch is longer than this, unless a single change is.
    pub memtable: usize,
}

impl IndexMemory {
    /// The index's part of a memory budget of `memory` bytes.
    pub fn of(memory: u64) -> Self {
        let memtable = usize::try_from((memory / 64).clamp(MIB, 2 * MIB)).unwrap_or(1 << 20);
        Self { sled: (memory / 32).clamp(2 * MIB, 8 * MIB), memtable }
    }
}

/// What an index needs to open.
pub struct IndexOptions {
    /// The directory of the database.
    pub dir: PathBuf,
    /// The vault's keys.
    pub keys: Keys,
    /// The newest checkpoint, or an empty one.
    pub base: Base,
    /// What the index may keep in memory.
    pub memory: IndexMemory,
}

/// The map of the vault on this machine. A clone is another handle to the same.
#[derive(Clone)]
pub struct Index(pub(super) Arc<Inner>, Arc<Drainer>);

impl Index {
    /// Opens the index in `dir`.
    ///
    /// # Errors
    /// [`Error::Damaged`]: wipe it and open it again; nothing is lost.
    pub fn open(options: IndexOptions) -> Result<Self> {
        let IndexOptions { dir, keys, base, memory } = options;
        let sled = SledDelta::open(&dir, keys.clone(), memory.sled)?;
        let point = sled.point()?.unwrap_or_default();
        let layers = Layers::new(Arc::new(sled), base, point)?;
        let inner = Arc::new(Inner::new(keys, layers, memory.memtable));
        let drainer = Drainer::start(&inner);
        Ok(Self(inner, Arc::new(drainer)))
    }

    /// Deletes the database in `dir` (J4).
    pub fn wipe(dir: &Path) -> std::io::Result<()> {
        SledDelta::wipe(dir)
    }

    /// The point that the index has reached.
    pub fn point(&self) -> Point {
        self.0.layers.read().point.clone()
    }

    /// How much the map holds.
    pub fn totals(&self) -> Totals {
        self.0.layers.read().totals()
    }

    /// A counter of the writes to the index's files: they grow only when it does. The counter keeps nothing of them open.
    pub fn writes(&self) -> Arc<AtomicU64> {
        self.0.sled().db().writes()
    }

    /// The commit of the base.
    pub fn base_commit(&self) -> CommitNo {
        self.0.layers.read().base.manifest().map_or(CommitNo(0), |manifest| manifest.commit)
    }

    /// The base itself.
    pub fn base(&self) -> Base {
        self.0.layers.read().base.clone()
    }

    /// From now on changes are appended to this journal. Call it once.
    pub fn attach(&self, journal: Arc<Journal>) {
        {
            let mut layers = self.0.layers.write();
            layers.point.journal = journal.id();
            layers.point.seq = layers.point.seq.max(journal.appended());
            let appended = layers.point.seq;
            layers.mark(appended);
        }
        let _ = self.0.journal.set(journal);
    }

    /// Refuses all changes from now on, with this reason. The first reason stays.
    pub fn make_read_only(&self, reason: &str) {
        self.0.make_read_only(reason);
    }

    /// Why changes are refused, if they are.
    pub fn read_only(&self) -> Option<String> {
        self.0.read_only()
    }

    /// Whether changes are refused. Short, no I/O.
    pub fn is_read_only(&self) -> bool {
        self.0.is_read_only()
    }

    /// Whether its records on this disk were found to be damaged, so that the next mount makes it anew (J4).
    pub fn is_damaged(&self) -> bool {
        self.0.sled().db().is_condemned()
    }

    /// Looks things up in one consistent state. `f` runs again whenever a page had to be fetched, so it must have no effects.
    /// Ready at the first poll if all pages are here.
    pub async fn read<T, E: From<Error>>(
        &self,
        f: impl Fn(&View<'_>) -> Result<T, E> + Send,
    ) -> Result<T, E> {
        let mut pins = Pins::new();
        loop {
            let (result, miss, damage) = {
                let layers = self.0.layers.read();
                let view = View::new(&layers, &pins, &self.0.keys);
                let result = f(&view);
                let miss = view.take_miss().map(|miss| (miss, layers.base.clone()));
                (result, miss, view.take_damage())
            };
            if let Some(reason) = damage {
                self.0.damaged(&reason);
            }
            let Some((miss, base)) = miss else { return result };
            base.fetch(&miss, &mut pins).await.map_err(Error::from)?;
        }
    }

    /// Fetches the records of these inodes, unless those of the first `LOOKED_AT` are all here: as many as come in a moment, with
    /// several requests at once. [`View::try_inode_cached`] then finds them for a while.
    pub async fn bring(&self, inodes: &[InodeNo]) -> Result<()> {
        let mut misses = Vec::new();
        // In parts, so that the layers are not locked for long.
        for some in inodes.chunks(LOOKED_AT) {
            let looked: Result<Vec<_>> = {
                let (layers, pins) = (self.0.layers.read(), Pins::new());
                let look = |ino: &InodeNo| layers.look(&Key::Inode(*ino).encode(), &pins);
                some.iter().map(|ino| Ok(look(ino)?.into_miss())).collect()
            };
            misses.extend(self.0.watched(looked)?.into_iter().flatten());
            if misses.is_empty() {
                return Ok(());
            }
        }
        let (pace, begun) = (&self.0.pace, Instant::now());
        match timeout(LONG, Base::fetch_all(misses, pace.bytes())).await {
            // A small fetch that came soon says nothing about larger ones.
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => pace.took(Some(begun.elapsed())),
            Ok(Err(error)) => {
                pace.took(None);
                return Err(error.into());
            }
            Err(_) => pace.took(None),
        }
        Ok(())
    }

    /// Changes the map: computes a transaction and appends it to the journal under one lock, then applies it. Pages that `f`
    /// needs are fetched outside the lock, and `f` runs again; so it must have no effects but on its draft. When `f` fails,
    /// nothing has happened; when it puts nothing, nothing is appended. The count returned is that of the last transaction.
    pub async fn change<T, E: From<Error>>(
        &self,
        f: impl Fn(&mut Draft<'_>) -> Result<T, E> + Send,
    ) -> Result<(T, Seq), E> {
        let mut pins = Pins::new();
        loop {
            let (miss, base) = {
                let mut numbers = self.0.append.lock();
                if let Some(reason) = self.read_only() {
                    return Err(Error::ReadOnly(reason).into());
                }
                let layers = self.0.layers.read();
                let mut draft = Draft::new(View::new(&layers, &pins, &self.0.keys), *numbers);
                let result = f(&mut draft);
                if let Some(reason) = draft.take_damage() {
                    drop(draft);
                    drop(layers);
                    drop(numbers);
                    self.0.damaged(&reason);
                    return Err(result.err().unwrap_or_else(|| Error::Damaged(reason).into()));
                }
                match draft.take_miss() {
                    None => {
                        let value = result?;
                        let need = draft.need();
                        let (changes, given, seen) = draft.finish();
                        let is_full =
                            need == RoomClass::Change && layers.active.bytes() >= POSTPONED_MAX;
                        drop(layers);
                        if is_full {
                            self.drain()?; // `Full`, or there is room again
                        }
                        let seq = self.append(changes, need, seen, &pins)?;
                        *numbers = given;
                        return Ok((value, seq));
                    }
                    Some(miss) => (miss, layers.base.clone()),
                }
            };
            base.fetch(&miss, &mut pins).await.map_err(Error::from)?;
        }
    }

    /// Under the append lock: journal first, then the layers (J1). Whatever can fail does so before the transaction is in the
    /// journal.
    fn append(
        &self,
        changes: Vec<Change>,
        need: RoomClass,
        seen: SeenInodes,
        pins: &Pins,
    ) -> Result<Seq> {
        let Some(journal) = self.0.journal.get() else {
            return Err(Error::ReadOnly("it was opened for reading".into()));
        };
        if changes.is_empty() {
            return Ok(journal.appended());
        }
        let weight = self.0.layers.read().weigh(&changes, seen, pins);
        let weight = self.0.watched(weight)?;
        self.make_room_for(&changes)?;
        let transaction = Transaction::new(changes);
        let taken = self.0.whole("taking in a change", || {
            let (seq, hash) = journal.append_for(&transaction, need)?;
            let mut layers = self.0.layers.write();
            layers.apply(transaction.changes, weight);
            layers.reached(seq, hash);
            layers.mark(seq);
            Ok((seq, layers.active.bytes()))
        });
        let (seq, bytes) = taken.inspect_err(|error| {
            if matches!(error, Error::Damaged(_)) {
                // The journal may have the transaction while staging does not know of it.
                journal.poison(&error.to_string());
            }
        })?;
        // The change holds even if this makes the index read-only.
        drop(self.make_room(bytes));
        Ok(seq)
    }

    /// Writes the memtable out before these changes enter it, if it would be too long with them. Otherwise a large change (a
    /// publication of thousands of pieces) would make a batch of twice the length.
    fn make_room_for(&self, changes: &[Change]) -> Result<()> {
        let here = self.0.layers.read().active.bytes();
        if here == 0 || here + Memtable::bytes_of(changes) <= self.0.memtable {
            return Ok(());
        }
        match self.drain() {
            // As in `make_room`.
            Err(error) if error.is_full() => Ok(()),
            other => other,
        }
    }

    /// Keeps the memtable, which takes `bytes` now, from growing too long.
    pub(super) fn make_room(&self, bytes: usize) -> Result<()> {
        // A simulated run is short, so its bytes count for more.
        #[cfg(test)]
        let bytes = if crate::os::Simulated::is_here() { bytes * 128 } else { bytes };
        if bytes >= self.0.memtable {
            match self.drain() {
                // The journal has the change; later changes are refused before the layer is too large.
                Err(error) if error.is_full() => {}
                other => other?,
            }
        } else if bytes >= DRAIN_AT {
            self.1.wake();
        }
        Ok(())
    }
}
