//! The records in sled: keys through a PRF, values sealed, one batch with the point (J4).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::layers::{Memory, Slot};
use super::{Error, Point, Result};
use crate::crypto::{self, IndexKeys, IndexSession, Keys};
use crate::log;
use crate::os;
use crate::records::{Key, decode_value, encode_value};
use crate::types::{CommitNo, InodeNo, MIB};

/// sled's own cache: small, since what is hot lies in the layer above it or was just read.
const SLED_CACHE: u64 = 8 * MIB;

/// Rounds of collection after a batch. Each frees up to 8 bags of 64 (crossbeam-epoch); a batch fills some hundreds.
const COLLECTIONS: usize = 128;

/// sled takes the disk in pieces of 512 KiB, several for a batch; nothing is written when less than this is to be had.
const BATCH_FLOOR: u64 = 8 * MIB;
/// What sled writes for each byte of a batch, at most.
const BATCH_FACTOR: u64 = 4;

/// Rows that go before the disk is asked for its room again.
const ROOM_EVERY: usize = 1024;

/// Keys of the table that are not of the map; no map's tag is this high.
const POINT: &[u8] = b"\xff point";
const COUNTS: u8 = 0xfd;

/// The sled database of one vault on this machine. Whatever sled does to a damaged file, a panic included, comes out of
/// here as [`Error::Damaged`].
pub(super) struct Table {
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
    dir: PathBuf,
    /// Its file: room is taken for it, nothing is written to it.
    file: Option<fs::File>,
    condemned: AtomicBool,
    keys: Keys,
    numbers: IndexKeys,
    session: IndexSession,
    #[cfg(test)]
    fault: parking_lot::Mutex<Option<Fault>>,
}

/// What sled does from now on.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Fails,
    Panics,
}

/// A record of the delta: its key in the map, and its slot.
pub(super) type Row = (Vec<u8>, Slot);

impl Table {
    /// Opens the database, or says why it cannot be used: then it is deleted and made anew.
    pub(super) fn open(dir: &Path, keys: Keys) -> Result<Self> {
        if note_of(dir).exists() {
            return Err(Error::Damaged("it was found to be when it was last used".into()));
        }
        let opened = catch_unwind(AssertUnwindSafe(|| {
            sled::Config::new()
                .path(dir)
                .cache_capacity(SLED_CACHE)
                .flush_every_ms(None)
                .mode(sled::Mode::HighThroughput)
                .open()
        }));
        let db = Some(opened.map_err(|_| Error::Damaged("sled cannot open it".into()))??);
        let numbers = keys.index();
        let session = numbers.session(crypto::random());
        let file = fs::File::options().write(true).open(dir.join("db"));
        let file = file.inspect_err(
            |error| tracing::warn!(%error, "no room is taken ahead for the local index"),
        );
        let file = file.ok();
        let (dir, condemned) = (dir.to_owned(), AtomicBool::new(false));
        #[cfg(not(test))]
        return Ok(Self { db, dir, file, condemned, keys, numbers, session });
        #[cfg(test)]
        Ok(Self {
            db,
            dir,
            file,
            condemned,
            keys,
            numbers,
            session,
            fault: parking_lot::Mutex::default(),
        })
    }

    /// Sees to it that the disk has room for a batch of so many bytes, with all that sled makes of it.
    ///
    /// # Errors
    /// [`log::Error::Full`]: sled does not survive a full disk, and is not led there (J8).
    pub(super) fn take_room(&self, bytes: u64) -> Result<()> {
        let wanted = BATCH_FLOOR + BATCH_FACTOR * bytes;
        let taken = match &self.file {
            // sled writes behind the end of its file, or where something was before.
            Some(file) => {
                file.metadata().and_then(|file_is| os::take_room(file, file_is.len(), wanted))
            }
            None => Ok(false),
        };
        match taken {
            Ok(true) => Ok(()),
            Ok(false) if os::free_bytes(&self.dir).is_ok_and(|free| free >= wanted) => Ok(()),
            Ok(false) => Err(Error::Log(log::Error::Full)),
            Err(error) => {
                if !os::is_full(&error) {
                    tracing::warn!(%error, "room for the local index cannot be taken");
                }
                Err(Error::Log(log::Error::Full))
            }
        }
    }

    /// Deletes the database's files, and then the note that they are damaged, if there is one.
    pub(super) fn wipe(dir: &Path) -> io::Result<()> {
        if_there(fs::remove_dir_all(dir))?;
        if let Some(parent) = dir.parent().filter(|parent| parent.is_dir()) {
            os::sync_dir(parent)?;
        }
        if_there(fs::remove_file(note_of(dir)))
    }

    /// Notes that what is here is damaged, so that the next mount makes it anew (J4).
    pub(super) fn condemn(&self, reason: &str) {
        if self.condemned.swap(true, Ordering::Relaxed) {
            return;
        }
        let Err(error) = os::replace(&note_of(&self.dir), reason.as_bytes()) else { return };
        // On a full disk: a database without its file is empty, and so not at a point of any journal.
        match fs::remove_file(self.dir.join("db")) {
            Ok(()) => {
                tracing::warn!(%error, "the note of it cannot be written: the index is removed at once");
            }
            Err(cause) => tracing::error!(
                %error, %cause,
                "the local index is damaged, and that cannot be noted: delete its directory before the next mount"
            ),
        }
    }

    /// Asks sled; a panic of it is an error.
    fn guarded<T>(&self, ask: impl FnOnce(&sled::Db) -> Result<T>) -> Result<T> {
        let Some(db) = &self.db else { return Err(Error::Damaged("it is closed".into())) };
        let asked = AssertUnwindSafe(|| {
            #[cfg(test)]
            self.fail()?;
            ask(db)
        });
        catch_unwind(asked).unwrap_or_else(|_| Err(Error::Damaged("sled could not go on".into())))
    }

    #[cfg(test)]
    fn fail(&self) -> Result<()> {
        let fault = *self.fault.lock();
        match fault {
            None => Ok(()),
            Some(Fault::Fails) => Err(sled::Error::Unsupported("a test says so".into()).into()),
            Some(Fault::Panics) => panic!("a test says so"),
        }
    }

    #[cfg(test)]
    pub(super) fn fail_from_now(&self, panics: bool) {
        *self.fault.lock() = Some(if panics { Fault::Panics } else { Fault::Fails });
    }

    #[cfg(test)]
    pub(super) fn spoil(&self, key: &[u8], bytes: &[u8]) {
        let name = self.name(key).unwrap();
        self.guarded(|db| Ok(db.insert(name, bytes)?)).unwrap();
    }

    fn rows(&self, begin: impl FnOnce(&sled::Db) -> sled::Iter) -> Result<Rows<'_>> {
        let rows = self.guarded(|db| Ok(begin(db)))?;
        Ok(Rows { table: self, rows: Some(rows) })
    }

    /// The point stored with the records; `None` in a new database.
    pub(super) fn point(&self) -> Result<Option<Point>> {
        let Some(sealed) = self.guarded(|db| Ok(db.get(POINT)?))? else { return Ok(None) };
        let plain = self.unseal(POINT, &sealed)?;
        Ok(Some(decode_value("the index", &plain)?))
    }

    /// The counts that commits reach, as stored.
    pub(super) fn counts(&self) -> Result<BTreeMap<CommitNo, u64>> {
        let mut counts = BTreeMap::new();
        for row in self.rows(|db| db.scan_prefix([COUNTS]))? {
            let (name, sealed) = row?;
            let plain = self.unseal(&name, &sealed)?;
            let number: [u8; 8] = name[1..].try_into().map_err(|_| bad("a count"))?;
            let count: [u8; 8] = plain.as_slice().try_into().map_err(|_| bad("a count"))?;
            counts.insert(CommitNo(u64::from_be_bytes(number)), u64::from_be_bytes(count));
        }
        Ok(counts)
    }

    /// The slot of a key of the map.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Slot>> {
        let name = self.name(key)?;
        let Some(sealed) = self.guarded(|db| Ok(db.get(&name)?))? else { return Ok(None) };
        self.row(&name, &sealed).map(|(_, slot)| Some(slot))
    }

    /// The rows of `from..to`, in the map's order, as long as they share `from`'s table and inode; of a key without
    /// an inode, all of its table, in no order.
    pub(super) fn scan<'a>(
        &'a self,
        from: &[u8],
        to: &[u8],
    ) -> Result<impl Iterator<Item = Result<Row>> + use<'a>> {
        let name = self.name(from)?;
        let prefix = name[..name.len().min(if has_inode(from) { 17 } else { 1 })].to_vec();
        let start = if has_inode(from) { name } else { prefix.clone() };
        // Known by their names: no row beyond the end is opened.
        let is_of_one = has_inode(from) && from.get(..9) == to.get(..9);
        let end = is_of_one.then(|| [&prefix, &to[9..]].concat());
        let rows = self.rows(|db| db.range(start..))?.take_while(move |row| match row {
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

    /// All rows of a table, in no order.
    pub(super) fn scan_table(&self, tag: u8) -> Result<impl Iterator<Item = Result<Row>> + '_> {
        Ok(self.rows(|db| db.scan_prefix([tag]))?.map(|row| {
            let (name, sealed) = row?;
            self.row(&name, &sealed)
        }))
    }

    /// One batch: the records, the counts and the point (J4).
    pub(super) fn apply(
        &self,
        memory: &Memory,
        counts: &BTreeMap<CommitNo, u64>,
        point: &Point,
    ) -> Result<()> {
        let mut batch = sled::Batch::default();
        for (key, slot) in memory.iter() {
            let name = self.name(key)?;
            let sealed = self.seal(&name, &plain_row(key, slot));
            batch.insert(name, sealed);
        }
        for (number, count) in counts {
            let mut name = vec![COUNTS];
            name.extend_from_slice(&number.0.to_be_bytes());
            let sealed = self.seal(&name, &count.to_be_bytes());
            batch.insert(name, sealed);
        }
        batch.insert(POINT, self.seal(POINT, &encode_value(point)));
        self.guarded(|db| Ok(db.apply_batch(batch)?))?;
        free_garbage();
        Ok(())
    }

    /// Makes it durable; blocks.
    pub(super) fn flush(&self) -> Result<()> {
        self.take_room(0)?;
        self.guarded(|db| Ok(db.flush()?))?;
        Ok(())
    }

    /// Drops the rows that a base covers: those last changed at or before `count` (J9), and the
    /// counts of commits below it. Rows that change meanwhile stay; so does the rest once the disk has no room.
    pub(super) fn drop_covered(&self, count: u64, base: CommitNo) -> Result<usize> {
        let mut dropped = 0;
        for (n, row) in self.rows(|db| db.range(..[COUNTS]))?.enumerate() {
            if n % ROOM_EVERY == 0 && self.take_room(0).is_err() {
                return Ok(dropped);
            }
            let (name, sealed) = row?;
            let (_, slot) = self.row(&name, &sealed)?;
            if slot.count <= count {
                let swap = self.guarded(|db| {
                    Ok(db.compare_and_swap(&name, Some(&sealed), None::<&[u8]>)?)
                })?;
                dropped += usize::from(swap.is_ok());
            }
        }
        let mut end = vec![COUNTS];
        end.extend_from_slice(&base.0.to_be_bytes());
        for row in self.rows(|db| db.range([COUNTS].as_slice()..end.as_slice()))? {
            let (name, _) = row?;
            self.guarded(|db| Ok(db.remove(name)?))?;
        }
        Ok(dropped)
    }

    /// A row's name in sled: the table's tag, a PRF of the inode, the rest of the key.
    fn name(&self, key: &[u8]) -> Result<Vec<u8>> {
        let mut name = Vec::with_capacity(33);
        name.push(key.first().copied().ok_or_else(|| bad("a key"))?);
        if has_inode(key) {
            let (ino, rest) = key[1..].split_at_checked(8).ok_or_else(|| bad("a key"))?;
            let ino = u64::from_be_bytes(ino.try_into().map_err(|_| bad("a key"))?);
            name.extend_from_slice(&self.numbers.prf_ino(ino));
            name.extend_from_slice(rest);
        } else if let Key::Pin(pin) = Key::decode(key)? {
            name.extend_from_slice(&self.keys.name_hash(InodeNo(0), &pin).0);
        } else {
            name.extend_from_slice(&key[1..]);
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

impl Drop for Table {
    fn drop(&mut self) {
        // sled flushes here.
        let db = self.db.take();
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            self.condemn("sled could not go on while it was closed");
        }
    }
}

/// Rows of sled as they are. After an error there are no more.
struct Rows<'a> {
    table: &'a Table,
    rows: Option<sled::Iter>,
}

impl Iterator for Rows<'_> {
    type Item = Result<(sled::IVec, sled::IVec)>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.rows.as_mut()?;
        let next = self.table.guarded(|_| Ok(rows.next().transpose()?));
        if next.is_err() {
            self.rows = None;
        }
        next.transpose()
    }
}

/// Beside the database, where it says that it is damaged.
fn note_of(dir: &Path) -> PathBuf {
    dir.with_extension("damaged")
}

fn if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Frees what sled made garbage of: some KiB for each record of a batch, all of it kept until the batch is whole, and
/// then freed a little at each look-up: on a busy machine it would grow to hundreds of MiB.
fn free_garbage() {
    for _ in 0..COLLECTIONS {
        crossbeam_epoch::pin().flush();
    }
}

fn bad(what: &str) -> Error {
    Error::Damaged(format!("{what} in it does not open"))
}

/// Whether the keys of this table begin with an inode's number.
fn has_inode(key: &[u8]) -> bool {
    matches!(key.first(), Some(2..=6))
}

/// Count, length of the key, key, and then either 1 and the value or 0: deleted.
fn plain_row(key: &[u8], slot: &Slot) -> Vec<u8> {
    let value: &[u8] = slot.value.as_deref().unwrap_or_default();
    let mut plain = Vec::with_capacity(11 + key.len() + value.len());
    plain.extend_from_slice(&slot.count.to_be_bytes());
    plain.extend_from_slice(&u16::try_from(key.len()).unwrap_or(u16::MAX).to_be_bytes());
    plain.extend_from_slice(key);
    plain.push(u8::from(slot.value.is_some()));
    plain.extend_from_slice(value);
    plain
}

fn parse_row(plain: &[u8]) -> Option<Row> {
    let (count, rest) = plain.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (key, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    let (&present, value) = rest.split_first()?;
    let value = (present == 1).then(|| Bytes::copy_from_slice(value));
    Some((key.to_vec(), Slot { count: u64::from_be_bytes(*count), value }))
}
