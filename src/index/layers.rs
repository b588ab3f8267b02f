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

/// The whole map. One lock guards it, which is never held across network I/O.
pub(super) struct Layers {
    /// What changes go into.
    pub active: Memtable,
    /// Being written to sled; readers need it until it is there.
    pub draining: Option<Arc<Memtable>>,
    pub sled: Arc<SledDelta>,
    pub base: Base,
    /// What all layers together hold.
    pub point: Point,
    /// By commit, the count that it reaches: those not yet stored in sled.
    pub new_counts: BTreeMap<CommitNo, u64>,
    /// The same for all commits since the base.
    pub counts: BTreeMap<CommitNo, u64>,
    /// The totals after the last transactions, and so as of their commits.
    pub marks: TotalsMarks,
}

/// The result of a look-up.
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

    /// The last change of a record since the base, if it has changed.
    fn changed(&self, key: &[u8]) -> Result<Option<DeltaRecord>> {
        let newest = self.active.get(key).or_else(|| self.draining.as_ref()?.get(key));
        match newest {
            Some(record) => Ok(Some(record.clone())),
            None => self.sled.get(key),
        }
    }

    /// Whether no commit known to be in the bucket holds the last change of a record (C5): the record's count is beyond
    /// what the last confirmed commit reaches.
    pub(super) fn is_unsent(&self, key: &[u8]) -> Result<bool> {
        let Some(record) = self.changed(key)? else { return Ok(false) };
        let reached = self.counts.last_key_value().map_or(0, |(_, reached)| *reached);
        Ok(record.count > reached)
    }

    /// Takes in a transaction, with all of its records under one count. It cannot fail: whatever could is in `weight`
    /// ([`Layers::weigh`]), which is found before the journal has the transaction. So the point always matches the records.
    pub(super) fn apply(&mut self, changes: Vec<Change>, weight: Weight) {
        Totals { inodes: self.point.inodes, bytes: self.point.bytes } = self.totals().and(weight);
        self.point.count += 1;
        for Change { key, value } in changes {
            self.active.insert(key, DeltaRecord { count: self.point.count, value });
        }
    }

    /// Notes that the records of this journal transaction, and of all before it, are here. The point never goes back: a
    /// replay may apply transactions whose successors are here already.
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

    /// How changes alter the totals. Where only a page that is not here could tell the old value, a change counts as none.
    /// A commit's transactions come as one list, in which a record can be put several times. Inodes in `seen`, which the
    /// map still holds as they were seen, are not looked up again.
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

    /// Notes the totals after this transaction, when everything up to it is here, and nothing else.
    pub(super) fn mark(&mut self, seq: Seq) {
        self.marks.put(seq, self.totals());
    }

    /// Corrects the totals by those that a checkpoint gives for `commit`.
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
