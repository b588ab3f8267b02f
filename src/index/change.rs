//! The index's door: reading, changing under the one append lock, and moving the base.
//!
//! Lock order: `append`, then `drain`, then `layers`. Journal and staging take their own below.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use super::draft::Numbers;
use super::drainer::Drainer;
use super::layers::Layers;
use super::table::Table;
use super::{Draft, Error, Point, Result, Totals, View};
use crate::crypto::Keys;
use crate::log::{Base, Change, Journal, Journaled, Link, Pins, Receipt, Transaction};
use crate::types::{CommitNo, Hash, JournalId, Seq};

/// The memory layer is written to sled in one batch when it is this long, in bytes.
const DRAIN_AT: usize = 512 << 10;
/// Above this, whoever changes something waits until it is written: the memory is bounded. Until a batch is whole, sled
/// keeps every version of every node that it made: 15 times the batch.
const DRAIN_NOW: usize = 2 << 20;

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
    append: Mutex<Numbers>,
    drain: Mutex<()>,
    pub(super) layers: RwLock<Layers>,
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
        let table = Table::open(&dir, keys.clone())?;
        let point = table.point()?.unwrap_or_default();
        let layers = Layers::new(table, base, point)?;
        let inner = Inner {
            keys,
            append: Mutex::default(),
            drain: Mutex::default(),
            layers: RwLock::new(layers),
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
            let (miss, base) = {
                let layers = self.0.layers.read();
                let view = View::new(&layers, &pins, &self.0.keys);
                let result = f(&view);
                self.note_damage(&view);
                match view.take_miss() {
                    None => return result,
                    Some(miss) => (miss, layers.base.clone()),
                }
            };
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
                self.note_damage(&draft);
                match draft.take_miss() {
                    None => {
                        let value = result?;
                        let (changes, given) = draft.finish();
                        drop(layers);
                        let seq = self.append(changes, &pins)?;
                        *numbers = given;
                        return Ok((value, seq));
                    }
                    Some(miss) => (miss, layers.base.clone()),
                }
            };
            base.fetch(&miss, &mut pins).await.map_err(Error::from)?;
        }
    }

    /// Under the append lock: journal first, then the layers (J1).
    fn append(&self, changes: Vec<Change>, pins: &Pins) -> Result<Seq> {
        let Some(journal) = self.0.journal.get() else {
            return Err(Error::ReadOnly("it was opened for reading".into()));
        };
        if changes.is_empty() {
            return Ok(journal.appended());
        }
        let transaction = Transaction::new(changes);
        let (seq, hash) = journal.append(&transaction)?;
        self.take_in(transaction.changes, pins, |layers| layers.reached(seq, hash))?;
        Ok(seq)
    }

    fn take_in(
        &self,
        changes: Vec<Change>,
        pins: &Pins,
        then: impl FnOnce(&mut Layers),
    ) -> Result<()> {
        let bytes = {
            let mut layers = self.0.layers.write();
            let applied = layers.apply(changes, pins);
            then(&mut layers);
            self.0.watched(applied)?;
            layers.active.bytes()
        };
        if bytes >= DRAIN_NOW {
            self.drain()?;
        } else if bytes >= DRAIN_AT {
            self.1.wake();
        }
        Ok(())
    }

    /// Applies transactions that are in the journal already: a replay.
    pub fn replay(&self, transactions: &[Journaled]) -> Result<()> {
        for journaled in transactions {
            let changes = Transaction::decode(&journaled.bytes)?.changes;
            self.take_in(changes, &Pins::new(), |layers| {
                layers.reached(journaled.seq, journaled.hash);
            })?;
        }
        Ok(())
    }

    /// Says from which transaction of which journal the replay goes on.
    pub fn set_journal(&self, journal: JournalId, seq: Seq, hash: Hash) {
        let mut layers = self.0.layers.write();
        layers.point.journal = journal;
        layers.reached(seq, hash);
    }

    /// Applies a commit from the log. The caller replays what the journal has beyond the log
    /// after it: so it does not matter which of its transactions were here already (J4).
    pub fn apply_commit(&self, link: &Link) -> Result<()> {
        let changes = link.content.changes()?;
        self.take_in(changes, &Pins::new(), |layers| {
            let count = layers.point.count;
            layers.committed(link.number, link.hash, count);
        })
    }

    /// That a commit of this journal is in the log: its header's records apply now, and the
    /// counts say what a checkpoint of it will cover.
    pub fn confirmed(&self, receipt: &Receipt) {
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

    /// Writes the point alone, when the journal has changed under the records.
    pub fn persist_point(&self) -> Result<()> {
        self.drain()?;
        let (point, table) = {
            let layers = self.0.layers.read();
            (layers.point.clone(), layers.table.clone())
        };
        let (memory, counts) =
            (super::layers::Memory::default(), std::collections::BTreeMap::new());
        self.0.watched(table.apply(&memory, &counts, &point))
    }

    /// Makes everything durable in sled; the transaction up to which a journal can go (J5). Blocks.
    pub fn flush(&self) -> Result<Seq> {
        let seq = self.point().seq;
        self.drain()?;
        let table = self.0.layers.read().table.clone();
        self.0.watched(table.flush())?;
        Ok(seq)
    }

    /// Moves to a newer base, then drops the records that it covers (J9). Blocks for as long
    /// as it takes to read the records in sled; look-ups go on meanwhile.
    pub fn rebase(&self, base: Base) -> Result<()> {
        let Some(commit) = base.manifest().map(|manifest| manifest.commit) else {
            return Ok(());
        };
        let (count, table) = {
            let mut layers = self.0.layers.write();
            if commit > layers.point.commit || commit <= layers.point.base {
                return Ok(());
            }
            let old = layers.totals();
            layers.base = base;
            layers.point.base = commit;
            let new = layers.base_totals();
            layers.point.inodes = old.inodes.cast_signed() - new.inodes.cast_signed();
            layers.point.bytes = old.bytes.cast_signed() - new.bytes.cast_signed();
            let covered = layers.counts.get(&commit).copied().unwrap_or(0);
            layers.counts = layers.counts.split_off(&commit);
            (covered, layers.table.clone())
        };
        self.drain()?;
        let dropped = self.0.watched(table.drop_covered(count, commit))?;
        tracing::debug!(commit = commit.0, dropped, "the base moved");
        Ok(())
    }

    /// Starts from a base alone: what an empty index does (O1).
    pub fn begin_at_base(&self, number: CommitNo, hash: Hash) {
        let mut layers = self.0.layers.write();
        layers.point =
            Point { base: number, commit: number, commit_hash: hash, ..Point::default() };
    }

    fn note_damage(&self, view: &View<'_>) {
        if let Some(reason) = view.take_damage() {
            self.make_read_only(&reason);
        }
    }
}

impl Inner {
    /// Writes the memory layer to sled, in one batch with its point (J4).
    pub(super) fn drain(&self) -> Result<()> {
        let _one = self.drain.lock();
        let (memory, counts, point, table) = {
            let mut layers = self.layers.write();
            if layers.draining.is_some() {
                return Err(Error::Damaged("what was to be written before is not in it".into()));
            }
            if layers.active.is_empty() && layers.new_counts.is_empty() {
                return Ok(());
            }
            let memory = Arc::new(std::mem::take(&mut layers.active));
            layers.draining = Some(memory.clone());
            let counts = std::mem::take(&mut layers.new_counts);
            (memory, counts, layers.point.clone(), layers.table.clone())
        };
        // On failure the layer stays where readers find it, and nothing more is accepted.
        let write = AssertUnwindSafe(|| table.apply(&memory, &counts, &point));
        let written = catch_unwind(write).unwrap_or_else(|_| {
            Err(Error::Damaged("sled could not go on while it was written".into()))
        });
        self.watched(written)?;
        self.layers.write().draining = None;
        Ok(())
    }

    /// Refuses all changes from now on, for this reason. The first reason stays.
    fn make_read_only(&self, reason: &str) {
        let mut read_only = self.read_only.write();
        if read_only.is_none() {
            tracing::warn!(reason, "the vault is read-only from now on");
            *read_only = Some(reason.to_owned());
        }
    }

    /// While mounted, an error of sled makes the mount read-only, with the reason (J4).
    fn watched<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error @ Error::Damaged(_)) = &result {
            self.make_read_only(&error.to_string());
        }
        result
    }
}
