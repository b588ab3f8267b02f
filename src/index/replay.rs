//! Taking in what the journal or the log already holds: a replay, commits of the log, and what a receipt confirms.

use super::change::POSTPONED_MAX;
use super::layers::Layers;
use super::memtable::{DeltaRecord, SeenInodes};
use super::{Index, Point, Result, Totals};
use crate::checkpoint::Pins;
use crate::log::{ChainedCommit, Journaled, Receipt};
use crate::records::{Change, Transaction};
use crate::types::{Hash, JournalId, Seq};

impl Index {
    /// Takes in changes that the journal or the log already holds; `then` moves the point. Nobody else changes the map meanwhile:
    /// this is a mount, or a reader, whose look-ups wait only while the changes enter the memtable (W5).
    fn take_in(&self, changes: Vec<Change>, then: impl FnOnce(&mut Layers)) -> Result<()> {
        let weight = self.0.layers.read().weigh(&changes, SeenInodes::new(), &Pins::new());
        let weight = self.0.watched(weight)?;
        let bytes = {
            let mut layers = self.0.layers.write();
            layers.apply(changes, weight);
            then(&mut layers);
            layers.active.bytes()
        };
        self.make_room(bytes)
    }

    /// Starts from the base alone, as an empty index does (O1).
    pub fn begin_at_base(&self) {
        let mut layers = self.0.layers.write();
        layers.point = layers.base.manifest().map_or_else(Point::default, |manifest| Point {
            base: manifest.commit,
            base_hash: manifest.commit_hash,
            commit: manifest.commit,
            commit_hash: manifest.commit_hash,
            inodes: Totals::of(manifest).inodes,
            bytes: Totals::of(manifest).bytes,
            ..Point::default()
        });
    }

    /// Replays transactions that are in the journal already.
    pub fn replay(&self, transactions: &[Journaled]) -> Result<()> {
        for journaled in transactions {
            let changes = Transaction::decode(&journaled.bytes)?.changes;
            self.take_in(changes, |layers| layers.reached(journaled.seq, journaled.hash))?;
        }
        Ok(())
    }

    /// Sets the journal of the replay, and notes that everything up to `seq` of it is here. If the index already reaches beyond
    /// that, this stays known: should the journal's tail be dropped one day, the index is not kept (J4).
    pub fn set_journal(&self, journal: JournalId, seq: Seq) {
        let mut layers = self.0.layers.write();
        if layers.point.journal != journal {
            layers.point.journal = journal;
            layers.point.seq = Seq(0);
            layers.point.hash = Hash::ZERO;
        }
        layers.reached(seq, Hash::ZERO);
    }

    /// Applies a commit from the log. The caller then replays what the journal has beyond the log, so it does not matter which of
    /// the commit's transactions were here already (J4).
    pub fn apply_commit(&self, link: &ChainedCommit) -> Result<()> {
        let changes = link.content.changes()?;
        self.take_in(changes, |layers| {
            let count = layers.point.count;
            layers.committed(link.number, link.hash, count);
            let totals = layers.totals();
            layers.marks.applied(link.number, totals);
        })
    }

    /// As [`Index::apply_commit`], for an index that others are reading (W5). While this disk is full, it takes in nothing that
    /// memory has no room for. After a panic in the middle the index is damaged and has to be made anew.
    pub fn follow_commit(&self, link: &ChainedCommit) -> Result<()> {
        if self.0.layers.read().active.bytes() >= POSTPONED_MAX {
            self.drain()?; // `Full`, or there is room again
        }
        self.0.whole("taking in a commit", || self.apply_commit(link))
    }

    /// Swaps what this index and `other`, of the same vault, show, at one moment (W5). Blocks.
    pub fn change_places(&self, other: &Self) {
        self.0.change_places(&other.0);
    }

    /// Notes that a commit of this journal is in the log: the records of its header apply now, and the counts say what a
    /// checkpoint of it will cover.
    pub fn confirmed(&self, receipt: &Receipt) {
        // All of the commit is in the journal; holding this lock means that it is in the layers too.
        let _applied = self.0.append.lock();
        let mut layers = self.0.layers.write();
        let count = layers.point.count;
        for Change { key, value } in receipt.records().iter().cloned() {
            layers.active.insert(key, DeltaRecord { count, value });
        }
        // Every transaction of this journal since the mount raised the count by one.
        let behind = layers.point.seq.0.saturating_sub(receipt.upto().0);
        layers.committed(receipt.number(), receipt.hash(), count.saturating_sub(behind));
        layers.marks.committed(receipt.number(), receipt.upto());
    }
}
