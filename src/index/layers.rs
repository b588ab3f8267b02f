//! The layers of the map, newest first, and how changes enter them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::memtable::{DeltaRecord, Memtable, SeenInodes};
use super::sled_delta::SledDelta;
use super::totals::{Totals, TotalsMarks, Weight};
use super::{Point, Result};
use crate::checkpoint::{Base, Found, Miss, Pins};
use crate::records::{Change, Inode, Tag, decode_value};
use crate::types::{CommitNo, Hash, Seq};

/// The whole map. Behind one lock, which is never held across I/O on the network.
pub(super) struct Layers {
    /// What changes go into.
    pub active: Memtable,
    /// Being written to sled; readers need it until it is there.
    pub draining: Option<Arc<Memtable>>,
    pub sled: Arc<SledDelta>,
    pub base: Base,
    /// What all layers together hold.
    pub point: Point,
    /// The counts that commits reach, of those not yet stored.
    pub new_counts: BTreeMap<CommitNo, u64>,
    /// All of them since the base.
    pub counts: BTreeMap<CommitNo, u64>,
    /// The totals after the last transactions, and so as of commits.
    pub marks: TotalsMarks,
}

/// What a look-up comes to.
pub(super) enum Lookup {
    Value(Bytes),
    /// The map has no such record.
    Absent,
    /// This page is needed to tell.
    Miss(Miss),
}

impl Lookup {
    /// The page that is needed, if one is.
    pub(super) fn into_miss(self) -> Option<Miss> {
        match self {
            Self::Miss(miss) => Some(miss),
            Self::Value(_) | Self::Absent => None,
        }
    }
}

impl Layers {
    pub(super) fn new(sled: Arc<SledDelta>, base: Base, point: Point) -> Result<Self> {
        let counts = sled.counts()?;
        Ok(Self {
            active: Memtable::default(),
            draining: None,
            sled,
            base,
            point,
            new_counts: BTreeMap::new(),
            counts,
            marks: TotalsMarks::default(),
        })
    }

    pub(super) fn look(&self, key: &[u8], pins: &Pins) -> Result<Lookup> {
        Ok(match self.changed(key)? {
            Some(DeltaRecord { value: Some(value), .. }) => Lookup::Value(value),
            Some(DeltaRecord { value: None, .. }) => Lookup::Absent,
            None => match self.base.get(key, pins) {
                Ok(Found::Value(value)) => Lookup::Value(value),
                Ok(Found::Absent) => Lookup::Absent,
                Err(miss) => Lookup::Miss(miss),
            },
        })
    }

    /// What changed of a record since the base.
    fn changed(&self, key: &[u8]) -> Result<Option<DeltaRecord>> {
        let newest = self.active.get(key).or_else(|| self.draining.as_ref()?.get(key));
        match newest {
            Some(record) => Ok(Some(record.clone())),
            None => self.sled.get(key),
        }
    }

    /// Whether no commit that is known to be in the bucket holds the last change of a record (C5): its count is
    /// beyond what the last confirmed commit reaches.
    pub(super) fn is_unsent(&self, key: &[u8]) -> Result<bool> {
        let Some(record) = self.changed(key)? else { return Ok(false) };
        let reached = self.counts.last_key_value().map_or(0, |(_, reached)| *reached);
        Ok(record.count > reached)
    }

    /// Takes in a transaction: all of its records under one count. Cannot fail: what could is in its `weight`
    /// ([`Layers::weigh`]), found before the journal has the transaction. So the point is that of the records.
    pub(super) fn apply(&mut self, changes: Vec<Change>, weight: Weight) {
        Totals { inodes: self.point.inodes, bytes: self.point.bytes } = self.totals().and(weight);
        self.point.count += 1;
        for Change { key, value } in changes {
            self.active.insert(key, DeltaRecord { count: self.point.count, value });
        }
    }

    /// Notes that the records of this transaction of the journal, and of all before it, are here. Never goes back: a replay
    /// applies some of them again, when those of later ones are here already.
    pub(super) fn reached(&mut self, seq: Seq, hash: Hash) {
        if seq > self.point.seq {
            self.point.seq = seq;
            self.point.hash = hash;
        }
    }

    /// Notes that the records up to `count` are in commit `number`.
    pub(super) fn committed(&mut self, number: CommitNo, hash: Hash, count: u64) {
        self.point.commit = number;
        self.point.commit_hash = hash;
        self.new_counts.insert(number, count);
        self.counts.insert(number, count);
    }

    /// What changes do to the totals. Where only a page that is not here could tell what was before, nothing is taken to
    /// change. A commit's transactions come here as one list, in which a record can be put several times. Inodes that were
    /// `seen` in the map, as it is still, are not looked for again.
    pub(super) fn weigh(
        &self,
        changes: &[Change],
        mut seen: SeenInodes,
        pins: &Pins,
    ) -> Result<Weight> {
        let mut here: HashMap<&[u8], Option<i64>> = HashMap::new();
        let mut weight = Weight::default();
        for change in changes.iter().filter(|change| Tag::of(&change.key) == Some(Tag::Inode)) {
            let new = change.value.as_deref().map(bytes_held).transpose()?;
            let old = match here.insert(&change.key, new) {
                Some(old) => old,
                None => match seen.remove(&change.key) {
                    Some(value) => value.as_deref().map(bytes_held).transpose()?,
                    None => match self.look(&change.key, pins)? {
                        Lookup::Value(value) => Some(bytes_held(&value)?),
                        Lookup::Absent => None,
                        Lookup::Miss(_) => new,
                    },
                },
            };
            weight.inodes += i64::from(new.is_some()) - i64::from(old.is_some());
            let (new, old) = (new.unwrap_or(0), old.unwrap_or(0));
            weight.bytes = weight.bytes.saturating_add(new.saturating_sub(old));
        }
        Ok(weight)
    }

    /// All up to this transaction is here, and nothing else.
    pub(super) fn mark(&mut self, seq: Seq) {
        self.marks.put(seq, self.totals());
    }

    /// What a checkpoint of a commit says of the totals as of that, against what they were taken for.
    pub(super) fn correct(&mut self, commit: CommitNo, are: Totals) {
        if let Some(were) = self.marks.at(commit) {
            let weight = Weight::between(were, are);
            Totals { inodes: self.point.inodes, bytes: self.point.bytes } =
                self.totals().and(weight);
            self.marks.shift(commit, weight);
        }
    }

    pub(super) fn totals(&self) -> Totals {
        Totals { inodes: self.point.inodes, bytes: self.point.bytes }
    }
}

/// The bytes that a file's extents hold. Not its size: a few sparse files would overflow the sum.
fn bytes_held(value: &[u8]) -> Result<i64> {
    let inode: Inode = decode_value("inode", value)?;
    Ok(i64::try_from(inode.allocated).unwrap_or(0))
}
