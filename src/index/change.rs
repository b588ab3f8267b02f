//! The index's door: reading, changing under the one append lock, and moving the base.
//!
//! Lock order: `append`, then `drain`, then `layers`. Journal and staging take their own below.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use super::draft::Numbers;
use super::drainer::Drainer;
use super::layers::Layers;
use super::table::Table;
use super::{Draft, Error, Point, Result, Totals, View};
use crate::checkpoint::{Base, Pins};
use crate::crypto::Keys;
use crate::log::{ChainedCommit, Journal, Journaled, Receipt, RoomClass};
use crate::records::{Change, Transaction};
use crate::types::{CommitNo, Hash, JournalId, Seq};

/// The memory layer is written to sled in one batch when it is this long, in bytes.
const DRAIN_AT: usize = 512 << 10;
/// Above this, whoever changes something waits until it is written: the memory is bounded. Until a batch is whole, sled
/// keeps every version of every node that it made: 15 times the batch.
const DRAIN_NOW: usize = 2 << 20;

/// With as much as this in memory, because the disk is full, only changes that free room are taken.
const POSTPONED_MAX: usize = 8 << 20;

/// What an index is made of.
pub struct IndexOptions {
    /// The directory of the database.
    pub dir: PathBuf,
    /// The vault's keys.
    pub keys: Keys,
    /// The newest checkpoint, or an empty one.
    pub base: Base,
}

/// The map of the vault on this machine. A clone is another handle to the same.
#[derive(Clone)]
pub struct Index(pub(super) Arc<Inner>, Arc<Drainer>);

pub(super) struct Inner {
    keys: Keys,
    /// Computed and appended under this one lock (`PROTOCOL.md`, "One map").
    pub(super) append: Mutex<Numbers>,
    drain: Mutex<()>,
    pub(super) layers: RwLock<Layers>,
    pub(super) table: Arc<Table>,
    journal: OnceLock<Arc<Journal>>,
    read_only: RwLock<Option<String>>,
}

impl Index {
    /// Opens what is there.
    ///
    /// # Errors
    /// [`Error::Damaged`]: wipe it and open it again; nothing is lost.
    pub fn open(options: IndexOptions) -> Result<Self> {
        let IndexOptions { dir, keys, base } = options;
        let table = Arc::new(Table::open(&dir, keys.clone())?);
        let point = table.point()?.unwrap_or_default();
        let layers = Layers::new(table.clone(), base, point)?;
        let inner = Inner {
            keys,
            append: Mutex::default(),
            drain: Mutex::default(),
            layers: RwLock::new(layers),
            table,
            journal: OnceLock::new(),
            read_only: RwLock::new(None),
        };
        let inner = Arc::new(inner);
        let drainer = Drainer::start(&inner);
        Ok(Self(inner, Arc::new(drainer)))
    }

    /// Deletes the database in `dir` (J4).
    pub fn wipe(dir: &std::path::Path) -> std::io::Result<()> {
        Table::wipe(dir)
    }

    /// The point that it has reached.
    pub fn point(&self) -> Point {
        self.0.layers.read().point.clone()
    }

    /// How much the map holds.
    pub fn totals(&self) -> Totals {
        self.0.layers.read().totals()
    }

    /// The commit of the base.
    pub fn base_commit(&self) -> CommitNo {
        self.0.layers.read().base.manifest().map_or(CommitNo(0), |manifest| manifest.commit)
    }

    /// The base itself.
    pub fn base(&self) -> Base {
        self.0.layers.read().base.clone()
    }

    /// From now on changes are appended to this journal. Once.
    pub fn attach(&self, journal: Arc<Journal>) {
        {
            let mut layers = self.0.layers.write();
            layers.point.journal = journal.id();
            layers.point.seq = layers.point.seq.max(journal.appended());
        }
        let _ = self.0.journal.set(journal);
    }

    /// Refuses all changes from now on, for this reason. The first reason stays.
    pub fn make_read_only(&self, reason: &str) {
        self.0.make_read_only(reason);
    }

    /// Why changes are refused, if they are.
    pub fn read_only(&self) -> Option<String> {
        self.0.read_only.read().clone()
    }

    /// Looks things up in one consistent state. `f` is run again whenever a page had to be
    /// fetched: it must have no effects. Ready at the first poll if all pages are here.
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

    /// Changes the map: computes a transaction and appends it to the journal under one lock,
    /// then applies it. What it needs from elsewhere is fetched outside the lock, and `f` run
    /// again: it must have no effects but on its draft. When `f` fails nothing has happened;
    /// when it puts nothing, nothing is appended. The count is that of the last transaction.
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
                        let (changes, given) = draft.finish();
                        let is_full =
                            need == RoomClass::Change && layers.active.bytes() >= POSTPONED_MAX;
                        drop(layers);
                        if is_full {
                            self.drain()?; // `Full`, or there is room again
                        }
                        let seq = self.append(changes, need, &pins)?;
                        *numbers = given;
                        return Ok((value, seq));
                    }
                    Some(miss) => (miss, layers.base.clone()),
                }
            };
            base.fetch(&miss, &mut pins).await.map_err(Error::from)?;
        }
    }

    /// Under the append lock: journal first, then the layers (J1). Whatever can fail does so before the journal has it.
    fn append(&self, changes: Vec<Change>, need: RoomClass, pins: &Pins) -> Result<Seq> {
        let Some(journal) = self.0.journal.get() else {
            return Err(Error::ReadOnly("it was opened for reading".into()));
        };
        if changes.is_empty() {
            return Ok(journal.appended());
        }
        let weight = self.0.layers.read().weigh(&changes, pins);
        let weight = self.0.watched(weight)?;
        let transaction = Transaction::new(changes);
        let (seq, hash) = journal.append_for(&transaction, need)?;
        let bytes = {
            let mut layers = self.0.layers.write();
            layers.apply(transaction.changes, weight);
            layers.reached(seq, hash);
            layers.active.bytes()
        };
        // The change holds, also if the index has made itself read-only over this.
        drop(self.make_room(bytes));
        Ok(seq)
    }

    /// Takes in what journal or log have already; `then` moves the point.
    fn take_in(&self, changes: Vec<Change>, then: impl FnOnce(&mut Layers)) -> Result<()> {
        let applied = {
            let mut layers = self.0.layers.write();
            layers.weigh(&changes, &Pins::new()).map(|weight| {
                layers.apply(changes, weight);
                then(&mut layers);
                layers.active.bytes()
            })
        };
        self.make_room(self.0.watched(applied)?)
    }

    fn make_room(&self, bytes: usize) -> Result<()> {
        if bytes >= DRAIN_NOW {
            match self.drain() {
                // The journal has it; whoever changes something is told before the layer is too large.
                Err(error) if error.is_full() => {}
                other => other?,
            }
        } else if bytes >= DRAIN_AT {
            self.1.wake();
        }
        Ok(())
    }

    /// Applies transactions that are in the journal already: a replay.
    pub fn replay(&self, transactions: &[Journaled]) -> Result<()> {
        for journaled in transactions {
            let changes = Transaction::decode(&journaled.bytes)?.changes;
            self.take_in(changes, |layers| layers.reached(journaled.seq, journaled.hash))?;
        }
        Ok(())
    }

    /// Says of which journal the replay is, and that everything up to `seq` of it is here. What is here beyond that
    /// stays known: should its tail be dropped one day, the index is not kept (J4).
    pub fn set_journal(&self, journal: JournalId, seq: Seq) {
        let mut layers = self.0.layers.write();
        if layers.point.journal != journal {
            layers.point.journal = journal;
            layers.point.seq = Seq(0);
            layers.point.hash = Hash::ZERO;
        }
        layers.reached(seq, Hash::ZERO);
    }

    /// Applies a commit from the log. The caller replays what the journal has beyond the log
    /// after it: so it does not matter which of its transactions were here already (J4).
    pub fn apply_commit(&self, link: &ChainedCommit) -> Result<()> {
        let changes = link.content.changes()?;
        self.take_in(changes, |layers| {
            let count = layers.point.count;
            layers.committed(link.number, link.hash, count);
        })
    }

    /// That a commit of this journal is in the log: its header's records apply now, and the
    /// counts say what a checkpoint of it will cover.
    pub fn confirmed(&self, receipt: &Receipt) {
        // What is in the commit is in the journal; under this lock it is in the layers too.
        let _applied = self.0.append.lock();
        let mut layers = self.0.layers.write();
        let count = layers.point.count;
        for Change { key, value } in receipt.records().iter().cloned() {
            layers.active.insert(key, super::layers::Slot { count, value });
        }
        // Every transaction of this journal since the mount counted one.
        let behind = layers.point.seq.0.saturating_sub(receipt.upto().0);
        layers.committed(receipt.number(), receipt.hash(), count.saturating_sub(behind));
    }

    /// Writes the memory layer to sled, in one batch with its point (J4).
    pub fn drain(&self) -> Result<()> {
        self.0.drain()
    }

    /// As [`Index::drain`], the point also when no record changed: the journal has changed under the records.
    pub fn persist_point(&self) -> Result<()> {
        match self.0.store(true) {
            // Then the records are not there either: at worst the index is made anew (J4).
            Err(error) if error.is_full() => Ok(()),
            other => other,
        }
    }

    /// Makes everything durable in sled; the transaction up to which a journal can go (J5). Blocks.
    pub fn flush(&self) -> Result<Seq> {
        let seq = self.point().seq;
        self.drain()?;
        self.0.watched(self.0.table.flush())?;
        Ok(seq)
    }

    /// Moves to a newer base, then drops the records that it covers (J9). The point that names the new base is durable
    /// before the first of them goes: over another base, what is left says nothing. Blocks for as long as it takes to
    /// read the records in sled; look-ups go on meanwhile. Also for an index that was opened over a newer base than
    /// its point names.
    pub fn rebase(&self, base: Base) -> Result<()> {
        let Some((commit, hash)) = base.manifest().map(|m| (m.commit, m.commit_hash)) else {
            return Ok(());
        };
        let switched = self.0.store_with(true, |layers| {
            if commit > layers.point.commit || commit <= layers.point.base {
                return None;
            }
            layers.base = base;
            layers.point.base = commit;
            layers.point.base_hash = hash;
            let covered = layers.counts.get(&commit).copied();
            layers.counts = layers.counts.split_off(&commit);
            Some(covered)
        });
        let covered = match switched {
            // The next checkpoint, or mount, finds room: all is right over the old base too.
            Err(error) if error.is_full() => {
                tracing::info!(commit = commit.0, "the disk is full: the base stays what it was");
                return Ok(());
            }
            other => other?,
        };
        // Of a commit that the index did not see, it does not know what it covers: all stays, and is right.
        let Some(Some(count)) = covered else { return Ok(()) };
        let dropped = match self.0.watched(self.0.table.flush()) {
            Err(error) if error.is_full() => 0,
            other => {
                other.and_then(|()| self.0.watched(self.0.table.drop_covered(count, commit)))?
            }
        };
        tracing::debug!(commit = commit.0, dropped, "the base moved");
        Ok(())
    }

    /// Starts from its base alone: what an empty index does (O1).
    pub fn begin_at_base(&self) {
        let mut layers = self.0.layers.write();
        layers.point = layers.base.manifest().map_or_else(Point::default, |manifest| Point {
            base: manifest.commit,
            base_hash: manifest.commit_hash,
            commit: manifest.commit,
            commit_hash: manifest.commit_hash,
            inodes: manifest.records(2),
            bytes: manifest.live_bytes,
            ..Point::default()
        });
    }
}

/// What tests do to the database.
#[cfg(test)]
impl Index {
    /// Puts bytes where a record is.
    pub(crate) fn spoil(&self, key: &crate::records::Key, bytes: &[u8]) {
        self.0.table.spoil(&key.encode(), bytes);
    }

    /// Says that there is no such record, under a good seal.
    pub(crate) fn lie(&self, key: &crate::records::Key) {
        let mut memory = super::layers::Memory::default();
        memory.insert(key.encode(), super::layers::Slot { count: 1, value: None });
        self.0.table.apply(&memory, &std::collections::BTreeMap::default(), &self.point()).unwrap();
    }

    /// From now on every call of sled fails, or panics.
    pub(crate) fn fail(&self, panics: bool) {
        self.0.table.fail_from_now(panics);
    }

    /// How many records sled has.
    pub(crate) fn rows(&self) -> usize {
        (2..=6).map(|tag| self.0.table.scan_table(tag).unwrap().count()).sum()
    }
}

impl Inner {
    /// Writes the memory layer to sled, in one batch with its point (J4).
    pub(super) fn drain(&self) -> Result<()> {
        self.store(false)
    }

    /// As [`Inner::drain`]; `point`: also when only that has changed.
    fn store(&self, point: bool) -> Result<()> {
        self.store_with(point, |_| Some(())).map(drop)
    }

    /// As [`Inner::store`]; `first` comes in the same moment, unless there is nothing to store, or no room for it. With
    /// `None` from it nothing is stored.
    fn store_with<T>(
        &self,
        point: bool,
        first: impl FnOnce(&mut Layers) -> Option<T>,
    ) -> Result<Option<T>> {
        let _one = self.drain.lock();
        let bytes = {
            let layers = self.layers.read();
            if layers.active.is_empty() && layers.new_counts.is_empty() && !point {
                return Ok(None);
            }
            layers.active.bytes() + DRAIN_AT // what comes until it is taken
        };
        // sled does not survive a full disk: it is not led there. Not under the lock of the layers: it may take a moment.
        self.table.take_room(bytes as u64)?;
        let (memory, counts, point, made) = {
            let mut layers = self.layers.write();
            if layers.draining.is_some() {
                return Err(Error::Damaged("what was to be written before is not in it".into()));
            }
            let Some(made) = first(&mut layers) else { return Ok(None) };
            let memory = Arc::new(std::mem::take(&mut layers.active));
            layers.draining = Some(memory.clone());
            let counts = std::mem::take(&mut layers.new_counts);
            (memory, counts, layers.point.clone(), made)
        };
        // On failure the layer stays where readers find it, no point is stored any more, and nothing more is accepted.
        self.watched(self.table.apply(&memory, &counts, &point))?;
        self.layers.write().draining = None;
        Ok(Some(made))
    }

    /// Refuses all changes from now on, for this reason. The first reason stays.
    fn make_read_only(&self, reason: &str) {
        let mut read_only = self.read_only.write();
        if read_only.is_none() {
            tracing::warn!(reason, "the vault is read-only from now on");
            *read_only = Some(reason.to_owned());
        }
    }

    /// While mounted, an error of sled makes the mount read-only, with the reason, and the next mount makes the index
    /// anew (J4).
    fn damaged(&self, reason: &str) {
        self.make_read_only(reason);
        self.table.condemn(reason);
    }

    fn watched<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error @ Error::Damaged(_)) = &result {
            self.damaged(&error.to_string());
        }
        result
    }
}
