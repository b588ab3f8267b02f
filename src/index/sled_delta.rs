//! The delta on disk: the records that changed since the base, in sled. Names go through a PRF, values are sealed,
//! and each batch includes the point (J4).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use bytes::Bytes;

use super::memtable::{DeltaRecord, Memtable};
use super::row_filter::KnownRows;
use super::sled_db::SledDb;
use super::{Error, Point, Result};
use crate::crypto::{self, IndexKeys, IndexSession, Keys};
use crate::records::{Key, Tag, decode_value, encode_value};
use crate::types::{CommitNo, InodeNo, NameHash};

/// How many rows are dropped before disk room is reserved again.
const ROOM_EVERY: usize = 1024;

/// Names of rows that are not records; no table's tag is as high.
const POINT: &[u8] = b"\xff point";
const COUNTS: &[u8] = &[0xfd];

/// Bytes of a name up to the end of the inode's PRF, in the tables that have one.
const INODE_PREFIX: usize = Tag::WIDTH + size_of::<[u8; 16]>();
/// The longest name: that of an entry or an xattr.
const NAME_MAX: usize = INODE_PREFIX + size_of::<NameHash>();

/// The delta of one vault on this machine.
pub(super) struct SledDelta {
    db: SledDb,
    known: KnownRows,
    keys: Keys,
    numbers: IndexKeys,
    session: IndexSession,
}

/// A record of the delta with its key in the map.
pub(super) type Row = (Vec<u8>, DeltaRecord);

impl SledDelta {
    /// Opens the delta. An error says why it cannot be used; the caller then deletes it and makes it anew.
    pub(super) fn open(dir: &Path, keys: Keys, cached: u64) -> Result<Self> {
        let db = SledDb::open(dir, cached)?;
        let is_new = db.guarded(|db| Ok(db.get(POINT)?))?.is_none();
        let known = if is_new { KnownRows::none() } else { KnownRows::unknown() };
        let numbers = keys.index();
        let session = numbers.session(crypto::random());
        Ok(Self { db, known, keys, numbers, session })
    }

    /// Deletes it (J4).
    pub(super) fn wipe(dir: &Path) -> io::Result<()> {
        SledDb::wipe(dir)
    }

    /// The database below.
    pub(super) fn db(&self) -> &SledDb {
        &self.db
    }

    /// Looks through the names of all rows, so that look-ups need not ask sled for what it has not. Ends early once
    /// `goes_on` says no. Blocks.
    pub(super) fn learn_rows(&self, goes_on: impl Fn() -> bool) -> Result<()> {
        let look = self.known.look_through();
        for row in self.db.rows(|db| db.range(..COUNTS))? {
            if !goes_on() {
                return Ok(());
            }
            let (name, _) = row?;
            ways_to(&name).for_each(|way| look.add(way));
        }
        look.ended();
        Ok(())
    }

    /// Whether a look-up of this key asks sled.
    #[cfg(test)]
    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        self.known.may_have(&self.name(key).unwrap())
    }

    /// Overwrites a record with these bytes.
    #[cfg(test)]
    pub(super) fn spoil(&self, key: &[u8], bytes: &[u8]) {
        let name = self.name(key).unwrap();
        self.db.guarded(|db| Ok(db.insert(name, bytes)?)).unwrap();
    }

    /// The point stored with the records; `None` in a new database.
    pub(super) fn point(&self) -> Result<Option<Point>> {
        let Some(sealed) = self.db.guarded(|db| Ok(db.get(POINT)?))? else { return Ok(None) };
        let plain = self.unseal(POINT, &sealed)?;
        Ok(Some(decode_value("the index", &plain)?))
    }

    /// The counts that commits reach, as stored.
    pub(super) fn counts(&self) -> Result<BTreeMap<CommitNo, u64>> {
        let mut counts = BTreeMap::new();
        for row in self.db.rows(|db| db.scan_prefix(COUNTS))? {
            let (name, sealed) = row?;
            let plain = self.unseal(&name, &sealed)?;
            let number: [u8; 8] = name[COUNTS.len()..].try_into().map_err(|_| bad("a count"))?;
            let count: [u8; 8] = plain.as_slice().try_into().map_err(|_| bad("a count"))?;
            counts.insert(CommitNo(u64::from_be_bytes(number)), u64::from_be_bytes(count));
        }
        Ok(counts)
    }

    /// The last change of a record since the base, if sled has it.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<DeltaRecord>> {
        let name = self.name(key)?;
        if !self.known.may_have(&name) {
            return Ok(None);
        }
        let Some(sealed) = self.db.guarded(|db| Ok(db.get(&name)?))? else { return Ok(None) };
        self.row(&name, &sealed).map(|(_, record)| Some(record))
    }

    /// The changed records from `from` to at least `to`, in the map's order, as far as they share the table and inode
    /// of `from`. If `from` has no inode: all changed records of the table, in no order.
    pub(super) fn scan<'a>(
        &'a self,
        from: &[u8],
        to: &[u8],
    ) -> Result<impl Iterator<Item = Result<Row>> + use<'a>> {
        let name = self.name(from)?;
        let prefix = name[..if has_inode(from) { INODE_PREFIX } else { Tag::WIDTH }].to_vec();
        let start = if has_inode(from) { name } else { prefix.clone() };
        // Rows are told apart by name: no row beyond the end is opened.
        let is_of_one =
            has_inode(from) && from.get(..Key::INODE_PREFIX) == to.get(..Key::INODE_PREFIX);
        let end = is_of_one.then(|| [&prefix, &to[Key::INODE_PREFIX..]].concat());
        let may_be_some = !has_inode(from) || self.known.may_have(&prefix);
        let rows = may_be_some.then(|| self.db.rows(|db| db.range(start..))).transpose()?;
        let rows = rows.into_iter().flatten().take_while(move |row| match row {
            Ok((name, _)) => {
                name.starts_with(&prefix) && end.as_ref().is_none_or(|end| **name < **end)
            }
            Err(_) => true,
        });
        Ok(rows.map(|row| {
            let (name, sealed) = row?;
            self.row(&name, &sealed)
        }))
    }

    /// All changed records of a table, in no order.
    pub(super) fn scan_table(&self, tag: Tag) -> Result<impl Iterator<Item = Result<Row>> + '_> {
        Ok(self.db.rows(|db| db.scan_prefix(tag.begin()))?.map(|row| {
            let (name, sealed) = row?;
            self.row(&name, &sealed)
        }))
    }

    /// Applies one batch: the records, the counts and the point (J4).
    pub(super) fn apply(
        &self,
        memtable: &Memtable,
        counts: &BTreeMap<CommitNo, u64>,
        point: &Point,
    ) -> Result<()> {
        let mut batch = sled::Batch::default();
        let adding = self.known.adding();
        for (key, record) in memtable.iter() {
            let name = self.name(key)?;
            ways_to(&name).for_each(|way| adding.add(way));
            let sealed = self.seal(&name, &plain_row(key, record));
            batch.insert(name, sealed);
        }
        for (number, count) in counts {
            let mut name = COUNTS.to_vec();
            name.extend_from_slice(&number.0.to_be_bytes());
            let sealed = self.seal(&name, &count.to_be_bytes());
            batch.insert(name, sealed);
        }
        batch.insert(POINT, self.seal(POINT, &encode_value(point)));
        let applied = self.db.apply(batch);
        drop(adding);
        applied
    }

    /// Drops the rows that a base covers: those last changed at or before `count` (J9), and the counts of commits
    /// below it. Rows that change meanwhile stay. When the disk has no room, it stops early and the rest stays too.
    pub(super) fn drop_covered(&self, count: u64, base: CommitNo) -> Result<usize> {
        let mut dropped = 0;
        let look = self.known.look_through();
        for (n, row) in self.db.rows(|db| db.range(..COUNTS))?.enumerate() {
            if n % ROOM_EVERY == 0 {
                if self.db.take_room(0).is_err() {
                    return Ok(dropped);
                }
                self.db.free_garbage();
            }
            let (name, sealed) = row?;
            let (_, record) = self.row(&name, &sealed)?;
            if record.count <= count {
                let swap = self.db.guarded(|db| {
                    Ok(db.compare_and_swap(&name, Some(&sealed), None::<&[u8]>)?)
                })?;
                dropped += usize::from(swap.is_ok());
            } else {
                ways_to(&name).for_each(|way| look.add(way));
            }
        }
        look.ended();
        let mut end = COUNTS.to_vec();
        end.extend_from_slice(&base.0.to_be_bytes());
        for row in self.db.rows(|db| db.range(COUNTS..end.as_slice()))? {
            let (name, _) = row?;
            self.db.guarded(|db| Ok(db.remove(name)?))?;
        }
        Ok(dropped)
    }

    /// A record's key in sled, its *name*: the table's tag, a PRF of the inode number, and the rest of the map's key.
    fn name(&self, key: &[u8]) -> Result<Vec<u8>> {
        let mut name = Vec::with_capacity(NAME_MAX);
        name.push(key.first().copied().ok_or_else(|| bad("a key"))?);
        if has_inode(key) {
            let (ino, rest) =
                key[Tag::WIDTH..].split_at_checked(Key::INO_WIDTH).ok_or_else(|| bad("a key"))?;
            let ino = u64::from_be_bytes(ino.try_into().map_err(|_| bad("a key"))?);
            name.extend_from_slice(&self.numbers.prf_ino(ino));
            name.extend_from_slice(rest);
        } else if let Key::Pin(pin) = Key::decode(key)? {
            name.extend_from_slice(&self.keys.name_hash(InodeNo(0), &pin).0);
        } else {
            name.extend_from_slice(&key[Tag::WIDTH..]);
        }
        Ok(name)
    }

    fn seal(&self, name: &[u8], plain: &[u8]) -> Vec<u8> {
        self.session.seal(name, plain)
    }

    fn unseal(&self, name: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        self.session.open(name, sealed).map_err(|error| bad(&error.to_string()))
    }

    fn row(&self, name: &[u8], sealed: &[u8]) -> Result<Row> {
        let plain = self.unseal(name, sealed)?;
        parse_row(&plain).ok_or_else(|| bad("a record"))
    }
}

fn bad(what: &str) -> Error {
    Error::Damaged(format!("{what} in it does not open"))
}

/// What a look-up or a scan may ask for to come to a row: its name, and the start that the rows of one inode share.
fn ways_to(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let shared = name.get(..INODE_PREFIX).filter(|shared| has_inode(name) && *shared != name);
    [name].into_iter().chain(shared)
}

/// Whether keys of this key's table begin with an inode number.
fn has_inode(key: &[u8]) -> bool {
    Tag::of(key).is_some_and(Tag::has_inode)
}

/// The plaintext of a row: count, length of the key, key, then 1 and the value, or 0 if deleted.
fn plain_row(key: &[u8], record: &DeltaRecord) -> Vec<u8> {
    let value: &[u8] = record.value.as_deref().unwrap_or_default();
    let mut plain = Vec::with_capacity(11 + key.len() + value.len());
    plain.extend_from_slice(&record.count.to_be_bytes());
    plain.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
    plain.extend_from_slice(key);
    plain.push(u8::from(record.value.is_some()));
    plain.extend_from_slice(value);
    plain
}

pub(super) fn parse_row(plain: &[u8]) -> Option<Row> {
    let (count, rest) = plain.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (key, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    let (&present, value) = rest.split_first()?;
    let value = (present == 1).then(|| Bytes::copy_from_slice(value));
    Some((key.to_vec(), DeltaRecord { count: u64::from_be_bytes(*count), value }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::{FIRST_EPOCH, MasterKey};
    use crate::types::VaultId;

    proptest! {
        #![proptest_config(crate::types::cases(256))]
        #[test]
        fn rows_read_back(
            key in prop::collection::vec(any::<u8>(), 0..300),
            count: u64,
            value in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
        ) {
            let record = DeltaRecord { count, value: value.map(Bytes::from) };
            let plain = plain_row(&key, &record);
            prop_assert_eq!(parse_row(&plain), Some((key, record)));
        }

        #[test]
        fn arbitrary_rows_do_not_panic(plain in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_row(&plain);
        }
    }

    /// So a range within one inode is a range of rows; rows of other inodes lie before or after all of it.
    #[test]
    fn names_keep_the_order_within_an_inode() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::derive(&MasterKey::from_bytes([7; 32]), VaultId([1; 16]), FIRST_EPOCH);
        let sled = SledDelta::open(dir.path(), keys, 2 << 20).unwrap();
        let name = |key: Key| sled.name(&key.encode()).unwrap();
        let offsets = [0, 1, 255, 256, u64::MAX - 1, u64::MAX];
        for ino in [1, 2, 255, 256, u64::MAX].map(InodeNo) {
            let names = offsets.map(|offset| name(Key::Extent(ino, offset)));
            assert!(names.is_sorted());
            let prefix = &names[0][..INODE_PREFIX];
            assert!(names.iter().all(|name| name.starts_with(prefix)));
            assert!(!name(Key::Extent(InodeNo(ino.0 ^ 1), 0)).starts_with(prefix));
            assert_ne!(name(Key::Inode(ino)).get(Tag::WIDTH..), Some(&ino.0.to_be_bytes()[..]));
        }
        for bad in [&b""[..], &[Tag::Extent.byte()], &[Tag::Extent.byte(), 1, 2]] {
            assert!(matches!(sled.name(bad), Err(Error::Damaged(_))), "{bad:?}");
        }
    }
}
