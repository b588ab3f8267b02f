//! The map as one closure sees it: typed look-ups over all layers. None of them waits.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use bytes::Bytes;

use super::layers::{Layers, Lookup};
use super::memtable::{Memtable, SeenInodes};
use super::range_merge::{MergeStep, RangeMerge};
use super::{Error, Result, Totals};
use crate::checkpoint::{Miss, Pins};
use crate::crypto::Keys;
use crate::records::{Entry, Inode, Key, MetaKey, Orphan, Tag, WriterClaim, Xattr, decode_value};
use crate::types::{EXTENT_MAX, Extent, InodeNo, NameHash};

/// A consistent state of the map. A look-up that needs a page which is not here fails with [`Error::Miss`]. The caller passes
/// that on with `?`, and runs again when the page is here.
pub struct View<'a> {
    layers: &'a Layers,
    pins: &'a Pins,
    keys: &'a Keys,
    miss: RefCell<Option<Miss>>,
    damage: RefCell<Option<String>>,
    /// What a draft has put so far; `None` as a value: deleted. Empty in a plain view.
    pub(super) drafted: BTreeMap<Vec<u8>, Option<Bytes>>,
    /// The inodes that a draft saw in the map, so that they are not looked up again. `None` in a plain view.
    pub(super) seen: Option<RefCell<SeenInodes>>,
}

const FIRST_HASH: NameHash = NameHash([0; 16]);
/// How far before a range, in bytes, to look for the extent that reaches into it.
const LOOK_BACK: [u64; 3] = [64 << 10, 1 << 20, EXTENT_MAX];

impl<'a> View<'a> {
    pub(super) fn new(layers: &'a Layers, pins: &'a Pins, keys: &'a Keys) -> Self {
        Self {
            layers,
            pins,
            keys,
            miss: RefCell::default(),
            damage: RefCell::default(),
            drafted: BTreeMap::new(),
            seen: None,
        }
    }

    /// Passes a layer's result on, and remembers if it says that sled is damaged.
    fn heard<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(error @ Error::Damaged(_)) = &result {
            self.damage.borrow_mut().get_or_insert(error.to_string());
        }
        result
    }

    pub(super) fn take_damage(&self) -> Option<String> {
        self.damage.borrow_mut().take()
    }

    pub(super) fn take_miss(&self) -> Option<Miss> {
        self.miss.borrow_mut().take()
    }

    /// The encoded value under a key.
    pub fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        let key = key.encode();
        if let Some(value) = self.drafted.get(&key) {
            return Ok(value.clone());
        }
        let value = match self.heard(self.layers.look(&key, self.pins))? {
            Lookup::Value(value) => Some(value),
            Lookup::Absent => None,
            Lookup::Miss(miss) => return Err(self.missed(miss)),
        };
        if let (Some(seen), Some(Tag::Inode)) = (&self.seen, Tag::of(&key)) {
            seen.borrow_mut().insert(key, value.clone());
        }
        Ok(value)
    }

    /// Whether the map is known to have no such record. Ignores what was drafted, and says no if a page is not here.
    pub(super) fn is_absent(&self, key: &[u8]) -> bool {
        matches!(self.heard(self.layers.look(key, self.pins)), Ok(Lookup::Absent))
    }

    fn missed(&self, miss: Miss) -> Error {
        self.miss.borrow_mut().get_or_insert(miss);
        Error::Miss
    }

    pub(super) fn typed<T: for<'b> minicbor::Decode<'b, ()>>(
        &self,
        table: &str,
        key: &Key,
    ) -> Result<Option<T>> {
        let value = self.get(key)?;
        Ok(value.map(|value| decode_value(table, &value)).transpose()?)
    }

    /// An inode's attributes.
    pub fn inode(&self, ino: InodeNo) -> Result<Option<Inode>> {
        self.typed("inode", &Key::Inode(ino))
    }

    /// An inode's attributes, if no page has to be fetched to know them.
    pub fn try_inode_cached(&self, ino: InodeNo) -> Result<Option<Inode>> {
        let key = Key::Inode(ino).encode();
        let value = match self.drafted.get(&key) {
            Some(value) => value.clone(),
            None => match self.heard(self.layers.look(&key, self.pins))? {
                Lookup::Value(value) => Some(value),
                Lookup::Absent | Lookup::Miss(_) => None,
            },
        };
        Ok(value.map(|value| decode_value("inode", &value)).transpose()?)
    }

    /// What a name in a directory refers to.
    pub fn entry(&self, parent: InodeNo, name: &[u8]) -> Result<Option<Entry>> {
        self.typed("entry", &Key::Entry(parent, self.name_hash(parent, name)))
    }

    /// `H`: a name's place in its directory.
    pub fn name_hash(&self, parent: InodeNo, name: &[u8]) -> NameHash {
        self.keys.name_hash(parent, name)
    }

    /// Up to `limit` entries after `after`, in the order of H.
    pub fn entries(
        &self,
        parent: InodeNo,
        after: Option<NameHash>,
        limit: usize,
    ) -> Result<Vec<(NameHash, Entry)>> {
        let from = match after {
            None => Key::Entry(parent, FIRST_HASH).encode(),
            Some(after) => {
                let mut key = Key::Entry(parent, after).encode();
                key.push(0);
                key
            }
        };
        let to = Key::Entry(InodeNo(parent.0.saturating_add(1)), FIRST_HASH).encode();
        let rows = self.range(&from, &to, limit)?;
        rows.into_iter()
            .map(|(key, value)| match Key::decode(&key)? {
                Key::Entry(_, hash) => Ok((hash, decode_value("entry", &value)?)),
                _ => Err(stray()),
            })
            .collect()
    }

    /// Whether a directory has no entries.
    pub fn is_empty_dir(&self, parent: InodeNo) -> Result<bool> {
        Ok(self.entries(parent, None, 1)?.is_empty())
    }

    /// The extents of a file that overlap `range`, whole, in order. If the file's only extent lies in its `inode`, it is at
    /// offset 0. The caller has looked the inode up already, so this does not do it again.
    pub fn extents(
        &self,
        ino: InodeNo,
        inode: &Inode,
        range: Range<u64>,
    ) -> Result<Vec<(u64, Extent)>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(extent) = &inode.extent {
            let overlaps = range.start < extent.length;
            return Ok(overlaps.then(|| (0, extent.clone())).into_iter().collect());
        }
        // Extents do not overlap, and none is longer than EXTENT_MAX: at most one reaches in from before, the last that
        // begins there. Most often it begins where the range does, or at a window boundary: a look-up of each finds it. A
        // scan would go over the tombstones of what a rewritten window was before, thousands of them.
        let window = range.start - range.start % EXTENT_MAX;
        for guess in [range.start, window] {
            let Some(first) = self.typed::<Extent>("extent", &Key::Extent(ino, guess))? else {
                continue;
            };
            let next = guess.saturating_add(first.length);
            if next <= range.start {
                continue;
            }
            let mut found = vec![(guess, first)];
            if next < range.end {
                let (from, to) = (Key::Extent(ino, next), Key::Extent(ino, range.end));
                found.append(&mut self.extent_records(&from.encode(), &to.encode(), usize::MAX)?);
            }
            return Ok(found);
        }
        // Otherwise it looks nearby first: EXTENT_MAX can hold thousands of small pieces.
        let (mut found, mut end) = (Vec::new(), range.end);
        for back in LOOK_BACK {
            let begin = range.start.saturating_sub(back);
            let (from, to) = (Key::Extent(ino, begin).encode(), Key::Extent(ino, end).encode());
            let mut earlier = self.extent_records(&from, &to, usize::MAX)?;
            earlier.append(&mut found);
            (found, end) = (earlier, begin);
            if begin == 0 || found.first().is_some_and(|(offset, _)| *offset <= range.start) {
                break;
            }
        }
        found.retain(|(offset, extent)| offset.saturating_add(extent.length) > range.start);
        Ok(found)
    }

    /// The extents that lie in the inodes of `range` (those of small files), in order, and the inode number below which the
    /// list is complete. Only the first inode's page is fetched if it is not here; the list ends at the next one that is
    /// missing.
    pub fn extents_in_inodes(
        &self,
        range: Range<InodeNo>,
    ) -> Result<(Vec<(InodeNo, Extent)>, InodeNo)> {
        let mut found = Vec::new();
        for ino in (range.start.0..range.end.0).map(InodeNo) {
            match self.heard(self.layers.look(&Key::Inode(ino).encode(), self.pins))? {
                Lookup::Value(value) => {
                    let inode: Inode = decode_value("inode", &value)?;
                    found.extend(inode.extent.map(|extent| (ino, extent)));
                }
                Lookup::Absent => {}
                Lookup::Miss(miss) if ino == range.start => return Err(self.missed(miss)),
                Lookup::Miss(_) => return Ok((found, ino)),
            }
        }
        Ok((found, range.end))
    }

    /// Up to `limit` extents of a file that begin at or after `from`, in order; `inode` as for [`View::extents`].
    pub fn extents_from(
        &self,
        ino: InodeNo,
        inode: &Inode,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Extent)>> {
        if let Some(extent) = &inode.extent {
            let is_asked_for = from == 0 && limit > 0;
            return Ok(is_asked_for.then(|| (0, extent.clone())).into_iter().collect());
        }
        let from = Key::Extent(ino, from).encode();
        let to = Key::Extent(InodeNo(ino.0.saturating_add(1)), 0).encode();
        self.extent_records(&from, &to, limit)
    }

    /// Up to `limit` extent records that begin in `range`, in order; for a file whose extents are records.
    pub fn extents_within(
        &self,
        ino: InodeNo,
        range: Range<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, Extent)>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let (from, to) = (Key::Extent(ino, range.start), Key::Extent(ino, range.end));
        self.extent_records(&from.encode(), &to.encode(), limit)
    }

    fn extent_records(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(u64, Extent)>> {
        let rows = self.range(from, to, limit)?;
        rows.into_iter()
            .map(|(key, value)| match Key::decode(&key)? {
                Key::Extent(_, offset) => Ok((offset, decode_value("extent", &value)?)),
                _ => Err(stray()),
            })
            .collect()
    }

    /// An extended attribute.
    pub fn xattr(&self, ino: InodeNo, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let key = Key::Xattr(ino, self.name_hash(ino, name));
        Ok(self.typed::<Xattr>("xattr", &key)?.map(|xattr| xattr.value))
    }

    /// Whether an inode has extended attributes. Reads one of them at most: they can be hundreds of MiB.
    pub fn has_xattrs(&self, ino: InodeNo) -> Result<bool> {
        let from = Key::Xattr(ino, FIRST_HASH).encode();
        let to = Key::Xattr(InodeNo(ino.0.saturating_add(1)), FIRST_HASH).encode();
        Ok(!self.range(&from, &to, 1)?.is_empty())
    }

    /// The names of an inode's extended attributes.
    pub fn xattrs(&self, ino: InodeNo) -> Result<Vec<Vec<u8>>> {
        let from = Key::Xattr(ino, FIRST_HASH).encode();
        let to = Key::Xattr(InodeNo(ino.0.saturating_add(1)), FIRST_HASH).encode();
        let rows = self.range(&from, &to, usize::MAX)?;
        rows.into_iter()
            .map(|(_, value)| Ok(decode_value::<Xattr>("xattr", &value)?.name))
            .collect()
    }

    /// The work that is left to do on an inode, if any.
    pub fn orphan(&self, ino: InodeNo) -> Result<Option<Orphan>> {
        self.typed("orphan", &Key::Orphan(ino))
    }

    /// All inodes with work left to do. There are few; this scans the whole table.
    pub fn orphans(&self) -> Result<Vec<(InodeNo, Orphan)>> {
        let mut found = BTreeMap::new();
        if self.layers.base.records(Tag::Orphan) > 0 {
            let (from, to) = (Tag::Orphan.begin(), Tag::Orphan.end());
            let mut scan = self.layers.base.range(Bound::Included(&from), Bound::Excluded(&to));
            while let Some((key, value)) = scan.next(self.pins).map_err(|miss| self.missed(miss))? {
                found.insert(key.to_vec(), Some(value));
            }
        }
        for row in self.heard(self.layers.sled.scan_table(Tag::Orphan))? {
            let (key, record) = self.heard(row)?;
            found.insert(key, record.value);
        }
        let memtables = self.layers.draining.as_deref().into_iter().chain([&self.layers.active]);
        for (key, record) in memtables.flat_map(Memtable::iter) {
            if Tag::of(key) == Some(Tag::Orphan) {
                found.insert(key.clone(), record.value.clone());
            }
        }
        let live = found.into_iter().filter_map(|(key, value)| Some((key, value?)));
        live.map(|(key, value)| match Key::decode(&key)? {
            Key::Orphan(ino) => Ok((ino, decode_value("orphan", &value)?)),
            _ => Err(stray()),
        })
        .collect()
    }

    /// Whether no commit known to be in the bucket holds the last change of a record (C5). A record that comes from a page is
    /// not unsent.
    pub fn is_unsent(&self, key: &Key) -> Result<bool> {
        self.heard(self.layers.is_unsent(&key.encode()))
    }

    /// Whose claim the vault has.
    pub fn writer(&self) -> Result<Option<WriterClaim>> {
        self.typed("meta", &Key::Meta(MetaKey::Writer))
    }

    /// How much the map holds.
    pub fn stats(&self) -> Totals {
        self.layers.totals()
    }

    pub(super) fn range(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Bytes)>> {
        let mut merge =
            self.heard(RangeMerge::new(self.layers, &self.drafted, self.pins, from, to))?;
        let mut found = Vec::new();
        while found.len() < limit {
            match self.heard(merge.step())? {
                MergeStep::Record(key, value) => found.push((key, value)),
                MergeStep::Miss(miss) => return Err(self.missed(miss)),
                MergeStep::End => break,
            }
        }
        Ok(found)
    }

    /// The lowest inode number that was never reserved, as far as this view knows.
    pub(super) fn inode_bound(&self) -> Result<u64> {
        Ok(self.typed::<u64>("meta", &Key::Meta(MetaKey::NextInode))?.unwrap_or(2))
    }
}

fn stray() -> Error {
    Error::Damaged("a record is in the wrong table".into())
}
