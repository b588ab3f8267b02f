//! The journal's rules: what survives, what is torn, what is damage.

mod full;
mod read;
mod zeros;

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::crypto::{FIRST_EPOCH, MasterKey};
use crate::os::{Directory, DiskFile};
use crate::records::{Change, Key};
use crate::types::{CommitNo, InodeNo, VaultId};

/// A disk whose file fsyncs can fail, and which counts the fsyncs of its directory.
#[derive(Debug)]
struct Failing {
    real: Directory,
    fails: Arc<AtomicBool>,
    dir_syncs: AtomicUsize,
}

#[derive(Debug)]
struct FailingFile {
    real: Arc<dyn DiskFile>,
    fails: Arc<AtomicBool>,
}

impl Failing {
    fn over(dir: &Path) -> Arc<Self> {
        let (fails, dir_syncs) = (Arc::default(), AtomicUsize::new(0));
        Arc::new(Self { real: Directory::open(dir).unwrap(), fails, dir_syncs })
    }

    fn file(&self, real: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(FailingFile { real, fails: self.fails.clone() })
    }
}

impl Disk for Failing {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.real.list()
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.real.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(Disk::open(&self.real, name)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.real.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.real.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.dir_syncs.fetch_add(1, Ordering::Relaxed);
        self.real.sync_dir()
    }
    fn free(&self) -> io::Result<u64> {
        self.real.free()
    }
    fn path(&self, name: &str) -> PathBuf {
        self.real.path(name)
    }
}

impl DiskFile for FailingFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.real.write_at(bytes, offset)
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.real.read_at(into, offset)
    }
    fn length(&self) -> io::Result<u64> {
        self.real.length()
    }
    fn allocated(&self) -> io::Result<u64> {
        self.real.allocated()
    }
    fn take_room(&self, from: u64, length: u64) -> io::Result<bool> {
        self.real.take_room(from, length)
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.real.set_length(length)
    }
    fn sync(&self) -> io::Result<()> {
        match self.fails.load(Ordering::Relaxed) {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => self.real.sync(),
        }
    }
}

/// The directory of the operating system.
pub(super) fn real(dir: &Path) -> Arc<dyn Disk> {
    Arc::new(Directory::open(dir).unwrap())
}

pub(super) fn keys() -> Keys {
    Keys::derive(&MasterKey::from_bytes([3; 32]), VaultId([1; 16]), FIRST_EPOCH)
}

pub(super) fn options(disk: Arc<dyn Disk>) -> JournalOptions {
    JournalOptions { keys: keys(), boot: "this boot".into(), disk, watcher: None, room: None }
}

pub(super) const NOTHING: NotedCommit =
    NotedCommit { upto: Seq(0), number: CommitNo(0), hash: Hash::ZERO };

pub(super) fn create(dir: &Path) -> Journal {
    Journal::create(options(real(dir)), NOTHING).unwrap()
}

pub(super) fn change(number: u64, length: usize) -> Transaction {
    Transaction::new(vec![
        Change { key: Key::Inode(InodeNo(number)).encode(), value: None },
        Change {
            key: Key::Pin(number.to_be_bytes().to_vec()).encode(),
            value: Some(vec![7; length].into()),
        },
    ])
}

fn append(journal: &Journal, count: u64) {
    for number in 0..count {
        journal.append(&change(number, 40)).unwrap();
    }
}

/// Where the next record goes.
fn end(journal: &Journal) -> u64 {
    journal.state.lock().segments.back().unwrap().end
}

fn only_segment(dir: &Path) -> std::path::PathBuf {
    segment::path(dir, 1)
}

/// All bytes of a directory's files, to check that nothing was changed.
fn image(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn j1_what_was_appended_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    append(&journal, 100);
    // No close, no sync: like kill -9.
    std::mem::forget(journal);
    let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
    assert_eq!((found.last, found.durable, found.torn), (Seq(100), Seq(0), None));
    assert_eq!(found.unsent.len(), 100);
    assert!(!found.clean);
    let journal = Journal::resume(options(real(dir.path())), &found).unwrap();
    assert_eq!(journal.appended(), Seq(100));
    let read = journal.read_after(Seq(40), usize::MAX).unwrap();
    assert_eq!(read.len(), 60);
    assert_eq!(read[0].hash, found.unsent[40].hash);
}

#[test]
fn j3_torn_tail_is_dropped_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    append(&journal, 3);
    let whole = fs::metadata(only_segment(dir.path())).unwrap().len();
    append(&journal, 1);
    let path = only_segment(dir.path());
    let bytes = fs::read(&path).unwrap();
    for cut in whole..bytes.len() as u64 {
        fs::write(&path, &bytes[..usize::try_from(cut).unwrap()]).unwrap();
        let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
        assert_eq!(found.last, Seq(3), "cut at {cut}");
        assert_eq!(found.torn.is_some(), cut > whole, "cut at {cut}");
        let journal = Journal::resume(options(real(dir.path())), &found).unwrap();
        assert_eq!(journal.append(&change(9, 40)).unwrap().0, Seq(4));
        let again = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
        assert_eq!((again.last, again.torn), (Seq(4), None));
    }
}

#[test]
fn j3_a_bad_record_before_the_barrier_is_damage_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    append(&journal, 5);
    let from = segment::HEADER;
    let to = fs::metadata(only_segment(dir.path())).unwrap().len();
    journal.sync_data(journal.mark().unwrap()).unwrap();
    append(&journal, 5);
    let end = usize::try_from(end(&journal)).unwrap();
    drop(journal);
    let path = only_segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(end); // scanning zeros takes time
    // Any byte: marker, length, seal. A changed length may swallow the rest of the file.
    for at in from..to {
        let mut damaged = bytes.clone();
        damaged[usize::try_from(at).unwrap()] ^= 0x80;
        fs::write(&path, &damaged).unwrap();
        let before = image(dir.path());
        let error = Journal::inspect(dir.path(), &keys()).unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "byte {at}: {error}");
        assert_eq!(image(dir.path()), before);
    }
}

#[test]
fn j3_a_bad_record_after_the_barrier_is_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    append(&journal, 5);
    journal.sync_data(journal.mark().unwrap()).unwrap();
    let from = end(&journal);
    append(&journal, 5);
    drop(journal);
    let file = OpenOptions::new().read(true).write(true).open(only_segment(dir.path())).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, from + 30).unwrap();
    file.write_all_at(&[byte[0] ^ 0xff], from + 30).unwrap();
    let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
    assert_eq!((found.last, found.durable), (Seq(5), Seq(5)));
    assert_eq!(found.torn, Some(Damage { segment: 1, offset: from }));
}

#[test]
fn j3_a_record_does_not_open_elsewhere_or_with_another_key() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    append(&create(one.path()), 4);
    append(&create(other.path()), 4);
    let mut bytes = fs::read(only_segment(one.path())).unwrap();
    let foreign = fs::read(only_segment(other.path())).unwrap();
    // The second half of another journal, byte for byte in the same places.
    let middle = bytes.len() / 2;
    bytes.splice(middle.., foreign[middle..].iter().copied());
    fs::write(only_segment(one.path()), bytes).unwrap();
    let found = Journal::inspect(one.path(), &keys()).unwrap().unwrap();
    assert!(found.last < Seq(4) && found.torn.is_some());
    let stranger = Keys::derive(&MasterKey::from_bytes([4; 32]), VaultId([1; 16]), FIRST_EPOCH);
    assert!(Journal::inspect(other.path(), &stranger).unwrap().is_none());
}

#[test]
fn j3_a_missing_extent_is_torn_after_the_barrier_and_damage_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    append(&journal, 2);
    journal.sync_data(journal.mark().unwrap()).unwrap();
    append(&journal, 3);
    drop(journal);
    let mut found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
    assert!(matches!(found.drop_from(Seq(2)), Err(Error::Damaged { .. })));
    found.drop_from(Seq(4)).unwrap();
    assert_eq!(found.last, Seq(3));
    let journal = Journal::resume(options(real(dir.path())), &found).unwrap();
    assert_eq!(journal.read_after(Seq(0), usize::MAX).unwrap().len(), 3);
}

#[test]
fn j3_where_damage_is_accepted_what_comes_before_it_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    append(&journal, 5);
    journal.sync_data(journal.mark().unwrap()).unwrap();
    let third = journal.read_after(Seq(2), 1).unwrap().pop().unwrap();
    drop(journal);
    let mut found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
    found.give_up_from(third.seq);
    assert_eq!((found.last, found.durable), (Seq(2), Seq(2)));
    let offset = found.torn.unwrap().offset;
    let mut bytes = fs::read(only_segment(dir.path())).unwrap();
    bytes[usize::try_from(offset).unwrap() + 20] ^= 1;
    fs::write(only_segment(dir.path()), bytes).unwrap();
    let error = Journal::inspect(dir.path(), &keys()).unwrap_err();
    assert!(matches!(error, Error::Damaged { offset: at, .. } if at == offset), "{error}");
    let found = Journal::inspect_up_to_damage(dir.path(), &keys()).unwrap().unwrap();
    assert_eq!(found.last, Seq(2));
    let journal = Journal::resume(options(real(dir.path())), &found).unwrap();
    assert_eq!(journal.read_after(Seq(0), usize::MAX).unwrap().len(), 2);
}

#[test]
fn j3_a_new_journal_is_durable_before_anything_goes_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Failing::over(dir.path());
    disk.fails.store(true, Ordering::Relaxed);
    assert!(Journal::create(options(disk.clone()), NOTHING).is_err(), "its fsync failed");
    assert!(Journal::has_start(dir.path(), &keys()).unwrap().is_none());
    disk.fails.store(false, Ordering::Relaxed);
    Journal::create(options(disk.clone()), NOTHING).unwrap();
    assert_eq!(Journal::has_start(dir.path(), &keys()).unwrap(), Some(true));
    assert_eq!(disk.dir_syncs.load(Ordering::Relaxed), 1);
}

#[test]
fn j5_segments_go_when_confirmed_durable_and_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Failing::over(dir.path());
    let journal = Journal::create(options(disk.clone()), NOTHING).unwrap();
    let count = |dir: &Path| fs::read_dir(dir).unwrap().count();
    while count(dir.path()) < 4 {
        journal.append(&change(1, 1 << 20)).unwrap();
    }
    let last = journal.appended();
    let noted = NotedCommit { upto: last, number: CommitNo(9), hash: Hash([9; 32]) };
    journal.trim(last).unwrap();
    assert_eq!(count(dir.path()), 4, "nothing is confirmed");
    journal.note(noted).unwrap();
    journal.trim(last).unwrap();
    assert_eq!(count(dir.path()), 4, "the note is not durable");
    journal.sync_data(journal.mark().unwrap()).unwrap();
    journal.trim(Seq(0)).unwrap();
    assert_eq!(count(dir.path()), 4, "the index has not flushed");
    let synced = disk.dir_syncs.load(Ordering::Relaxed);
    journal.trim(last).unwrap();
    assert_eq!(count(dir.path()), 1);
    assert_eq!(disk.dir_syncs.load(Ordering::Relaxed), synced + 1, "what is gone is gone for good");
    append(&journal, 2);
    drop(journal);
    let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
    assert_eq!((found.noted, found.last), (noted, Seq(last.0 + 2)));
    assert_eq!(found.unsent.len(), 2);
}

#[test]
fn j6_after_a_failed_fsync_nothing_is_accepted_until_reopened() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Failing::over(dir.path());
    let journal = Journal::create(options(disk.clone()), NOTHING).unwrap();
    append(&journal, 1);
    disk.fails.store(true, Ordering::Relaxed);
    assert!(journal.sync_data(journal.mark().unwrap()).is_err());
    disk.fails.store(false, Ordering::Relaxed);
    assert!(matches!(journal.mark(), Err(Error::Poisoned(_))), "it is not retried");
    assert!(matches!(journal.append(&change(1, 1)), Err(Error::Poisoned(_))));
    assert!(journal.poisoned().is_some());
    let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
    let journal = Journal::resume(options(disk), &found).unwrap();
    journal.append(&change(1, 1)).unwrap();
}

#[test]
fn a_clean_end_is_told_and_ended_by_the_next_record() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    append(&journal, 2);
    journal.close_to_appends();
    assert!(journal.append(&change(1, 1)).is_err());
    journal.mark_clean().unwrap();
    drop(journal);
    let found = Journal::inspect(dir.path(), &keys()).unwrap().unwrap();
    assert!(found.clean);
    assert_eq!(found.durable, Seq(2));
    Journal::resume(options(real(dir.path())), &found).unwrap();
    assert!(!Journal::inspect(dir.path(), &keys()).unwrap().unwrap().clean);
}

#[test]
fn reading_goes_on_across_segments_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let journal = create(dir.path());
    for number in 0..60 {
        journal.append(&change(number, 600 << 10)).unwrap();
    }
    let mut seen = Seq(0);
    while seen < journal.appended() {
        for journaled in journal.read_after(seen, 3 << 20).unwrap() {
            assert_eq!(journaled.seq, seen.next());
            seen = journaled.seq;
        }
    }
    for after in [59, 0, 30, 29, 58, 12] {
        let read = journal.read_after(Seq(after), 1).unwrap();
        assert_eq!(read[0].seq, Seq(after + 1));
    }
}
