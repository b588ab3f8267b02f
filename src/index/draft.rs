//! A transaction in the making: a view that sees its own changes.

use std::cell::RefCell;
use std::ops::Deref;

use super::memtable::SeenInodes;
use super::{Result, View};
use crate::log::RoomClass;
use crate::records::{Change, Entry, Inode, Key, MetaKey, Orphan, Xattr, encode_value};
use crate::types::{Extent, InodeNo};

/// Inode numbers are reserved in the map in runs of this many, so that most new files write no record for it. A crash
/// loses the rest of a run.
const INODE_RUN: u64 = 1024;

/// Changes to the map that take hold together or not at all.
pub struct Draft<'a> {
    view: View<'a>,
    numbers: Numbers,
    need: RoomClass,
}

/// Inode numbers that this process may give.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    pub next: u64,
    /// `next..bound` are reserved in the map; both are 0 until the first reservation.
    pub bound: u64,
}

impl<'a> Deref for Draft<'a> {
    type Target = View<'a>;
    fn deref(&self) -> &View<'a> {
        &self.view
    }
}

impl<'a> Draft<'a> {
    pub(super) fn new(mut view: View<'a>, numbers: Numbers) -> Self {
        view.seen = Some(RefCell::default());
        Self { view, numbers, need: RoomClass::Change }
    }

    /// The changes, the inode numbers that are left, and the inodes that the draft saw.
    pub(super) fn finish(self) -> (Vec<Change>, Numbers, SeenInodes) {
        let changes = self.view.drafted.into_iter().map(|(key, value)| Change { key, value });
        (changes.collect(), self.numbers, self.view.seen.unwrap_or_default().into_inner())
    }

    /// Notes that the change takes something away: when there is no room, it may use what is kept back for that (J8).
    pub fn frees_room(&mut self) {
        self.need = RoomClass::FreesRoom;
    }

    pub(super) fn need(&self) -> RoomClass {
        self.need
    }

    pub(super) fn put<T: minicbor::Encode<()>>(&mut self, key: &Key, value: &T) {
        self.view.drafted.insert(key.encode(), Some(encode_value(value)));
    }

    /// Puts or deletes under an encoded key; the bytes need not be a record.
    #[cfg(test)]
    pub(super) fn put_encoded(&mut self, key: Vec<u8>, value: Option<bytes::Bytes>) {
        self.view.drafted.insert(key, value);
    }

    pub(super) fn delete(&mut self, key: &Key) {
        self.view.drafted.insert(key.encode(), None);
    }

    /// Puts an inode's attributes.
    pub fn put_inode(&mut self, ino: InodeNo, inode: &Inode) {
        self.put(&Key::Inode(ino), inode);
    }

    /// Deletes an inode's attributes. Its extents and xattrs are records of their own, which the caller deletes.
    pub fn delete_inode(&mut self, ino: InodeNo) {
        self.delete(&Key::Inode(ino));
    }

    /// Puts a name into a directory.
    pub fn put_entry(&mut self, parent: InodeNo, entry: &Entry) {
        let hash = self.view.name_hash(parent, &entry.name);
        self.put(&Key::Entry(parent, hash), entry);
    }

    /// Takes a name out of a directory.
    pub fn delete_entry(&mut self, parent: InodeNo, name: &[u8]) {
        let hash = self.view.name_hash(parent, name);
        self.delete(&Key::Entry(parent, hash));
    }

    /// Puts an extent: what the file's bytes from `offset` on refer to.
    pub fn put_extent(&mut self, ino: InodeNo, offset: u64, extent: &Extent) {
        self.put(&Key::Extent(ino, offset), extent);
    }

    /// Deletes the extent record that begins at `offset`. If this draft put the record itself and the map does not have
    /// it, no tombstone is left. Otherwise a file that is written and emptied piece by piece would leave thousands of
    /// them, and each look for what reaches into a range would go over them all.
    pub fn delete_extent(&mut self, ino: InodeNo, offset: u64) {
        let key = Key::Extent(ino, offset).encode();
        let is_own = matches!(self.view.drafted.get(&key), Some(Some(_)));
        if is_own && self.view.is_absent(&key) {
            self.view.drafted.remove(&key);
        } else {
            self.view.drafted.insert(key, None);
        }
    }

    /// Puts an extended attribute.
    pub fn put_xattr(&mut self, ino: InodeNo, name: &[u8], value: &[u8]) {
        let hash = self.view.name_hash(ino, name);
        let xattr = Xattr { name: name.to_vec(), value: value.to_vec() };
        self.put(&Key::Xattr(ino, hash), &xattr);
    }

    /// Deletes an extended attribute.
    pub fn delete_xattr(&mut self, ino: InodeNo, name: &[u8]) {
        let hash = self.view.name_hash(ino, name);
        self.delete(&Key::Xattr(ino, hash));
    }

    /// Notes work that is left to do on an inode.
    pub fn put_orphan(&mut self, ino: InodeNo, orphan: &Orphan) {
        self.put(&Key::Orphan(ino), orphan);
    }

    /// Notes that no work is left to do on an inode.
    pub fn delete_orphan(&mut self, ino: InodeNo) {
        self.delete(&Key::Orphan(ino));
    }

    /// An inode number that was never given before.
    pub fn new_ino(&mut self) -> Result<InodeNo> {
        if self.numbers.next >= self.numbers.bound {
            let from = self.view.inode_bound()?.max(self.numbers.bound);
            self.numbers = Numbers { next: from, bound: from + INODE_RUN };
            let bound = self.numbers.bound;
            self.put(&Key::Meta(MetaKey::NextInode), &bound);
        }
        let ino = InodeNo(self.numbers.next);
        self.numbers.next += 1;
        if let Some(seen) = &self.view.seen {
            seen.borrow_mut().insert(Key::Inode(ino).encode(), None);
        }
        Ok(ino)
    }

    /// Whether nothing was put or deleted.
    pub fn is_empty(&self) -> bool {
        self.view.drafted.is_empty()
    }

    /// How many records were put or deleted.
    pub fn records(&self) -> usize {
        self.view.drafted.len()
    }

    /// The approximate size of the transaction in bytes.
    #[cfg(test)]
    pub fn size(&self) -> usize {
        let sizes = self.view.drafted.iter();
        sizes.map(|(key, value)| key.len() + value.as_ref().map_or(0, bytes::Bytes::len) + 8).sum()
    }
}
