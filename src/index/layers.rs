//! The layers of the map, newest first, and how changes enter them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::table::Table;
use super::{Point, Result};
use crate::checkpoint::{Base, Found, Miss, Pins};
use crate::records::{Change, Inode, decode_value};
use crate::types::{CommitNo, Hash, Seq};

/// A record that changed since the base: its last change's count, its value or `None` if it
/// was deleted.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub count: u64,
    pub value: Option<Bytes>,
}

/// Records that changed a moment ago, not yet in sled. The journal has them.
#[derive(Default)]
pub(super) struct Memory {
    map: BTreeMap<Vec<u8>, Slot>,
    bytes: usize,
}

/// What a record costs in memory beside its key and value.
const SLOT_OVERHEAD: usize = 96;

impl Memory {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Slot> {
        self.map.get(key)
    }

    pub(super) fn insert(&mut self, key: Vec<u8>, slot: Slot) {
        let size = |slot: &Slot| slot.value.as_ref().map_or(0, Bytes::len);
        self.bytes += size(&slot);
        let key_bytes = key.len();
        match self.map.insert(key, slot) {
            Some(old) => self.bytes -= size(&old),
            None => self.bytes += SLOT_OVERHEAD + key_bytes,
        }
    }

    pub(super) fn range<'a>(
        &'a self,
        from: &[u8],
    ) -> impl Iterator<Item = (&'a Vec<u8>, &'a Slot)> + use<'a> {
        self.map.range(from.to_vec()..)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Vec<u8>, &Slot)> {
        self.map.iter()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

/// How much the map holds; for statfs(2), not exact after another machine wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files, directories and the like.
    pub inodes: u64,
    /// Bytes of content that the files' extents hold.
    pub bytes: u64,
}

/// What a transaction adds to the totals.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    inodes: i64,
    bytes: i64,
}

/// The whole map. Behind one lock, which is never held across I/O on the network.
pub(super) struct Layers {
    pub active: Memory,
    /// Being written to sled; readers need it until it is there.
    pub draining: Option<Arc<Memory>>,
    pub table: Arc<Table>,
    pub base: Base,
    /// What all layers together hold.
    pub point: Point,
    /// The counts that commits reach, of those not yet stored.
    pub new_counts: BTreeMap<CommitNo, u64>,
    /// All of them since the base.
    pub counts: BTreeMap<CommitNo, u64>,
}

/// A record, a page that is needed to tell, or none.
pub(super) enum Looked {
    Value(Bytes),
    Absent,
    Miss(Miss),
}

impl Layers {
    pub(super) fn new(table: Arc<Table>, base: Base, point: Point) -> Result<Self> {
        let counts = table.counts()?;
        Ok(Self {
            active: Memory::default(),
            draining: None,
            table,
            base,
            point,
            new_counts: BTreeMap::new(),
            counts,
        })
    }

    pub(super) fn look(&self, key: &[u8], pins: &Pins) -> Result<Looked> {
        Ok(match self.slot(key)? {
            Some(Slot { value: Some(value), .. }) => Looked::Value(value),
            Some(Slot { value: None, .. }) => Looked::Absent,
            None => match self.base.get(key, pins) {
                Ok(Found::Value(value)) => Looked::Value(value),
                Ok(Found::Absent) => Looked::Absent,
                Err(miss) => Looked::Miss(miss),
            },
        })
    }

    /// What changed of a record since the base.
    fn slot(&self, key: &[u8]) -> Result<Option<Slot>> {
        let newest = self.active.get(key).or_else(|| self.draining.as_ref()?.get(key));
        match newest {
            Some(slot) => Ok(Some(slot.clone())),
            None => self.table.get(key),
        }
    }

    /// Whether no commit that is known to be in the bucket holds the last change of a record (C5): its count is
    /// beyond what the last confirmed commit reaches.
    pub(super) fn is_unsent(&self, key: &[u8]) -> Result<bool> {
        let Some(slot) = self.slot(key)? else { return Ok(false) };
        let reached = self.counts.last_key_value().map_or(0, |(_, reached)| *reached);
        Ok(slot.count > reached)
    }

    /// Takes in a transaction: all of its records under one count. Cannot fail: what could is in its `weight`
    /// ([`Layers::weigh`]), found before the journal has the transaction. So the point is that of the records.
    pub(super) fn apply(&mut self, changes: Vec<Change>, weight: Weight) {
        self.point.inodes = self.point.inodes.saturating_add_signed(weight.inodes);
        self.point.bytes = self.point.bytes.saturating_add_signed(weight.bytes);
        self.point.count += 1;
        for Change { key, value } in changes {
            self.active.insert(key, Slot { count: self.point.count, value });
        }
    }

    /// That the records of this transaction of the journal, and of all before it, are here. Never goes back: a replay
    /// goes over some again, while those of later ones are here already.
    pub(super) fn reached(&mut self, seq: Seq, hash: Hash) {
        if seq > self.point.seq {
            self.point.seq = seq;
            self.point.hash = hash;
        }
    }

    /// That the records up to `count` are in commit `number`.
    pub(super) fn committed(&mut self, number: CommitNo, hash: Hash, count: u64) {
        self.point.commit = number;
        self.point.commit_hash = hash;
        self.new_counts.insert(number, count);
        self.counts.insert(number, count);
    }

    /// What changes do to the totals. What a page that is not here would tell is taken to be unchanged. A commit's
    /// transactions come as one here, in which a record can be put several times.
    pub(super) fn weigh(&self, changes: &[Change], pins: &Pins) -> Result<Weight> {
        let mut here: HashMap<&[u8], Option<i64>> = HashMap::new();
        let mut weight = Weight::default();
        for change in changes.iter().filter(|change| change.key.first() == Some(&2)) {
            let new = change.value.as_deref().map(parse).transpose()?;
            let old = match here.insert(&change.key, new) {
                Some(old) => old,
                None => match self.look(&change.key, pins)? {
                    Looked::Value(value) => Some(parse(&value)?),
                    Looked::Absent => None,
                    Looked::Miss(_) => new,
                },
            };
            weight.inodes += i64::from(new.is_some()) - i64::from(old.is_some());
            let (new, old) = (new.unwrap_or(0), old.unwrap_or(0));
            weight.bytes = weight.bytes.saturating_add(new.saturating_sub(old));
        }
        Ok(weight)
    }

    pub(super) fn totals(&self) -> Totals {
        Totals { inodes: self.point.inodes, bytes: self.point.bytes }
    }
}

/// The bytes that a file's extents hold. Not its size: a few sparse files would overflow the sum.
fn parse(value: &[u8]) -> Result<i64> {
    let inode: Inode = decode_value("inode", value)?;
    Ok(i64::try_from(inode.allocated).unwrap_or(0))
}
