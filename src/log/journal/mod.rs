//! The journal: the transactions of this machine in order, appended before any reply (J1),
//! durable after a barrier (J2), removed once the bucket has them (J5).

mod frame;
#[cfg(test)]
mod full_tests;
mod inspect;
mod read;
#[cfg(test)]
mod read_tests;
mod room;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

pub use self::frame::{DroppedPack, NotedCommit};
pub use self::inspect::{Damage, Inspection, UnsentTx};
pub use self::room::{JournalRoom, Need};

use self::frame::{BarrierMark, Record, Start};
use self::room::Share;
use self::segment::{HEADER, Segment};
use super::{Disk, Error, Result};
use crate::crypto::{self, Keys};
use crate::os::is_full;
use crate::records::Transaction;
use crate::types::{Hash, JournalId, KIB, PackId, Seq};

/// Who must know of a reference to a pack before it is journaled: staging (C4, K5).
pub trait PackWatcher: Send + Sync {
    /// Called under the append lock, just before transaction `seq` is written. An error: it is
    /// not written. Answers which of the packs are in staging: they stay there until the
    /// transaction is confirmed; the others are in the bucket.
    fn appending(&self, seq: Seq, packs: &[PackId]) -> Result<Vec<PackId>>;

    /// Transaction `seq`, of so many bytes, was written: its records that can refer to packs, and what each refers to
    /// now. Under the append lock too.
    fn appended(&self, _seq: Seq, _bytes: usize, _changed: &[(&[u8], Option<PackId>)]) {}
}

/// A transaction as read back for a commit or a replay.
#[derive(Clone, Debug)]
pub struct Journaled {
    /// Its count.
    pub seq: Seq,
    /// Its encoded bytes.
    pub bytes: Bytes,
    /// SHA-256 of them.
    pub hash: Hash,
    /// The packs that it refers to.
    #[allow(dead_code, reason = "tests compare it")]
    pub packs: Vec<PackId>,
}

/// Packs in one record that says that they are dropped.
pub const DROPPED_AT_ONCE: usize = 4096;

/// After a segment could not be made, the next is tried so many bytes later.
const ROLL_AGAIN: u64 = 64 * KIB;

/// What a journal needs beside its directory.
pub struct JournalOptions {
    /// Seals the records.
    pub keys: Keys,
    /// The boot id of the machine (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// Makes files durable.
    pub disk: Arc<dyn Disk>,
    /// Told of references before they are journaled.
    pub watcher: Option<Arc<dyn PackWatcher>>,
    /// Where what it takes of the disk is counted (J8); `None`: nowhere, and nothing is kept back.
    pub room: Option<Arc<dyn JournalRoom>>,
}

/// The journal of a vault that this machine writes. One lock, held for one write(2).
pub struct Journal {
    dir: PathBuf,
    id: JournalId,
    options: JournalOptions,
    share: Share,
    inner: Mutex<Inner>,
    cursor: Mutex<Cursor>,
    appended: watch::Sender<Seq>,
}

/// What a barrier will cover: [`Journal::mark`].
#[must_use]
pub struct Mark {
    segments: Vec<Segment>,
    sync_dir: bool,
    place: BarrierMark,
    noted: NotedCommit,
}

impl Mark {
    /// The last transaction that it covers.
    #[cfg(test)]
    pub fn upto(&self) -> Seq {
        self.place.upto
    }
}

struct Inner {
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    seq: Seq,
    noted: NotedCommit,
    /// The note that the last barrier covers: what C4 and J5 may rely on.
    durable_noted: NotedCommit,
    durable: Seq,
    /// Segments before this number are durable as a whole.
    first_unsynced: u64,
    dir_unsynced: bool,
    /// Whether anything but barriers was written since the last one.
    unsynced: bool,
    poison: Option<String>,
    closed: bool,
    owed: Owed,
    /// The last segment is followed by the next once it is this long.
    roll_at: u64,
}

/// What is written as soon as there is room again: nothing was promised by it.
#[derive(Default)]
struct Owed {
    boot: bool,
    note: Option<NotedCommit>,
}

impl Inner {
    /// At the end of these segments; nothing is known to be durable beyond what is given.
    fn new(segments: VecDeque<Segment>, seq: Seq, noted: NotedCommit, durable: Seq) -> Self {
        let first_unsynced = segments.front().map_or(0, |segment| segment.number);
        Self {
            segments,
            seq,
            noted,
            durable_noted: noted,
            durable,
            first_unsynced,
            dir_unsynced: true,
            unsynced: true,
            poison: None,
            closed: false,
            owed: Owed::default(),
            roll_at: 0,
        }
    }
}

/// Where the reader of unsent transactions is.
#[derive(Clone, Copy)]
struct Cursor {
    seq: Seq,
    segment: u64,
    offset: u64,
}

impl Journal {
    /// Reads what is there; changes nothing. `None`: no journal.
    pub fn inspect(dir: &Path, keys: &Keys) -> Result<Option<Inspection>> {
        inspect::inspect(dir, keys)
    }

    /// A new, empty journal with a fresh id; whatever the directory holds must have gone.
    /// `noted` is the head of the log, which holds nothing of this journal.
    pub fn create(dir: &Path, options: JournalOptions, noted: NotedCommit) -> Result<Self> {
        let id = JournalId(crypto::random());
        crate::os::make_private(dir)
            .map_err(Error::io("the journal's directory cannot be made"))?;
        let inner = Inner::new(VecDeque::new(), noted.upto, noted, noted.upto);
        let journal = Self::new(dir, id, options, inner);
        journal.roll(&mut journal.inner.lock(), 1)?;
        Ok(journal)
    }

    /// Goes on with an inspected journal: drops its torn tail, if it has one.
    pub fn resume(dir: &Path, options: JournalOptions, found: &Inspection) -> Result<Self> {
        let failed = || Error::io("the journal's torn tail cannot be dropped");
        for (number, ..) in segment::list(dir).map_err(failed())? {
            // Behind the torn tail, or left over from a removal.
            if !found.segments.iter().any(|whole| whole.number == number) {
                fs::remove_file(segment::path(dir, number)).map_err(failed())?;
            }
        }
        let mut segments = VecDeque::new();
        for whole in &found.segments {
            let path = segment::path(dir, whole.number);
            let segment = Segment::found(path, whole.number, whole.first, whole.end);
            segments.push_back(segment.map_err(failed())?);
        }
        let inner = Inner::new(segments, found.last, found.noted, found.durable);
        let journal = Self::new(dir, found.journal, options, inner);
        {
            let mut inner = journal.inner.lock();
            journal.share.found(&mut inner.segments.iter());
            inner.roll_at = journal.share.segment_bytes();
            inner.owed.boot = true;
            journal.pay(&mut inner)?;
        }
        Ok(journal)
    }

    fn new(dir: &Path, id: JournalId, options: JournalOptions, inner: Inner) -> Self {
        let share = Share(options.room.clone());
        let cursor = Cursor { seq: Seq(0), segment: 0, offset: 0 };
        let appended = watch::Sender::new(inner.seq);
        let (inner, cursor) = (Mutex::new(inner), Mutex::new(cursor));
        Self { dir: dir.to_owned(), id, options, share, inner, cursor, appended }
    }

    /// The journal's id.
    pub fn id(&self) -> JournalId {
        self.id
    }

    /// As [`Journal::append_for`], a change like any other.
    #[cfg(test)]
    pub fn append(&self, transaction: &Transaction) -> Result<(Seq, Hash)> {
        self.append_for(transaction, Need::Change)
    }

    /// Appends a transaction; after that it survives the death of the process. Its count, and
    /// the hash that it is known by.
    ///
    /// # Errors
    /// [`records::Error::TooLarge`](crate::records::Error); [`Error::Full`] when there is no room for what `need` says (nothing was
    /// written); [`Error::Poisoned`] after any other failed write.
    pub fn append_for(&self, transaction: &Transaction, need: Need) -> Result<(Seq, Hash)> {
        let bytes = transaction.encode()?;
        let hash = Transaction::hash_of(&bytes);
        let changed = transaction.packs()?;
        let packs = distinct(&changed);
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(Error::Poisoned("the vault was released".into()));
        }
        let seq = inner.seq.next();
        let staged = match &self.options.watcher {
            Some(watcher) if !packs.is_empty() => watcher.appending(seq, &packs)?,
            _ => Vec::new(),
        };
        let length = bytes.len();
        self.write(&mut inner, &Record::Transaction { staged, bytes: bytes.into() }, need)?;
        inner.seq = seq;
        if let Some(watcher) = &self.options.watcher {
            watcher.appended(seq, length, &changed);
        }
        // Under the lock, so that it never goes back.
        self.appended.send_replace(seq);
        Ok((seq, hash))
    }

    /// The count of the last transaction.
    pub fn appended(&self) -> Seq {
        *self.appended.borrow()
    }

    /// Tells of every append.
    pub fn subscribe(&self) -> watch::Receiver<Seq> {
        self.appended.subscribe()
    }

    /// Up to here everything survives the loss of power.
    pub fn durable(&self) -> Seq {
        self.inner.lock().durable
    }

    /// Whether there is anything that a barrier would make durable.
    pub fn unsynced(&self) -> bool {
        let inner = self.inner.lock();
        (inner.unsynced || inner.owed.note.is_some()) && inner.poison.is_none()
    }

    /// The last commit that is known to be in the bucket.
    pub fn noted(&self) -> NotedCommit {
        let inner = self.inner.lock();
        inner.owed.note.unwrap_or(inner.noted)
    }

    /// As [`Journal::noted`], as far as it is durable: what C4 may rely on.
    pub fn durable_noted(&self) -> NotedCommit {
        self.inner.lock().durable_noted
    }

    /// Why nothing can be appended any more, if so (J6).
    pub fn poisoned(&self) -> Option<String> {
        self.inner.lock().poison.clone()
    }

    /// Refuses all further appends (J6).
    pub fn poison(&self, reason: &str) {
        let mut inner = self.inner.lock();
        if inner.poison.is_none() {
            tracing::error!(reason, "no more changes until the vault is mounted again");
            inner.poison = Some(reason.to_owned());
        }
    }

    /// What a barrier made now would cover. Taken before the packs are fsynced: a transaction
    /// that comes between is not covered, for its packs may not be.
    ///
    /// # Errors
    /// [`Error::Poisoned`].
    pub fn mark(&self) -> Result<Mark> {
        let mut inner = self.inner.lock();
        self.pay(&mut inner)?;
        let from = inner.first_unsynced;
        let segments = inner.segments.iter().filter(|s| s.number >= from).cloned().collect();
        let Some(last) = inner.segments.back() else {
            return Err(Error::Poisoned("the journal has no segment".into()));
        };
        let place = BarrierMark { upto: inner.seq, segment: last.number, offset: last.end };
        Ok(Mark { segments, sync_dir: inner.dir_unsynced, place, noted: inner.noted })
    }

    /// J2, the journal's half: fsyncs it, then appends a barrier. The packs that transactions up
    /// to the mark refer to must have been synced since it was taken. Blocks.
    ///
    /// # Errors
    /// A failed fsync poisons: it is never retried as if it could succeed (J6). [`Error::Full`]: there is
    /// no room to say that it is durable; nothing is promised, and the next barrier may.
    pub fn sync_data(&self, mark: Mark) -> Result<Seq> {
        let Mark { segments: files, sync_dir, place: mark, noted } = mark;
        for segment in &files {
            let synced = self.options.disk.sync_file(&segment.file, &segment.path);
            synced.map_err(|error| self.failed("an fsync of the journal failed", error))?;
        }
        if sync_dir {
            let synced = self.options.disk.sync_dir(&self.dir);
            synced.map_err(|error| self.failed("an fsync of the journal failed", error))?;
        }
        let mut inner = self.inner.lock();
        self.pay(&mut inner)?;
        // What was written while the fsync ran is not covered by it, nor is what is owed and had no room before.
        let more = inner
            .segments
            .back()
            .is_some_and(|last| (last.number, last.end) != (mark.segment, mark.offset));
        self.write(&mut inner, &Record::Barrier(mark), Need::Upkeep)?;
        inner.unsynced = more || inner.segments.back().is_some_and(|s| s.number != mark.segment);
        inner.first_unsynced = inner.first_unsynced.max(mark.segment);
        if sync_dir && inner.segments.back().is_some_and(|last| last.number == mark.segment) {
            inner.dir_unsynced = false;
        }
        inner.durable = inner.durable.max(mark.upto);
        inner.durable_noted = noted;
        Ok(mark.upto)
    }

    /// Notes that a receipt confirmed the transactions up to `noted.upto` (J5); where there is no room for
    /// that now, as soon as there is.
    pub fn note_confirmed(&self, noted: NotedCommit) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.owed.note = Some(noted);
        self.pay(&mut inner)
    }

    /// Notes that these packs, at most [`DROPPED_AT_ONCE`], never get into the bucket, all or none. They may go once a
    /// barrier that was marked after this is there.
    ///
    /// # Errors
    /// [`Error::Full`], though this may use all that is kept back; nothing is noted.
    pub fn note_dropped(&self, packs: &[DroppedPack]) -> Result<()> {
        self.write(&mut self.inner.lock(), &Record::Dropped(packs.to_vec()), Need::Upkeep)
    }

    /// The last transaction's count, after which none is accepted: a release follows (W1).
    ///
    /// # Errors
    /// None of its own; when something is unsent the caller must not release.
    pub fn close_to_appends(&self) -> Seq {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.seq
    }

    /// Accepts transactions again, when the release was not written after all.
    pub fn reopen_to_appends(&self) {
        self.inner.lock().closed = false;
    }

    /// Marks a clean unmount: the next mount need not suspect the disk. The packs must have been
    /// synced, after the last append. Blocks.
    pub fn mark_clean(&self) -> Result<()> {
        self.sync_data(self.mark()?)?;
        let mut inner = self.inner.lock();
        self.write(&mut inner, &Record::Clean, Need::Upkeep)?;
        let Some(last) = inner.segments.back().cloned() else { return Ok(()) };
        drop(inner);
        let synced = self.options.disk.sync_file(&last.file, &last.path);
        synced.map_err(|error| self.failed("an fsync of the journal failed", error))
    }

    /// Whether it has segments that may be done with.
    pub fn is_trimmable(&self) -> bool {
        let inner = self.inner.lock();
        inner.segments.get(1).is_some_and(|s| s.first <= inner.durable_noted.upto.next())
    }

    /// Removes the segments whose transactions the bucket has and the index has flushed (J5), the oldest first: what
    /// a crash leaves of them is told by the note that a later one has. Blocks.
    pub fn trim(&self, flushed: Seq) -> Result<()> {
        let mut done_with = Vec::new();
        {
            let mut inner = self.inner.lock();
            let keep_from = flushed.min(inner.durable_noted.upto);
            while inner.segments.len() > 1 && inner.segments[1].first <= keep_from.next() {
                done_with.extend(inner.segments.pop_front());
            }
        }
        for segment in &done_with {
            fs::remove_file(&segment.path).map_err(Error::io("an old journal segment"))?;
            self.share.give_back(segment.room);
        }
        if done_with.is_empty() {
            return Ok(());
        }
        let synced = self.options.disk.sync_dir(&self.dir);
        synced.map_err(|error| self.failed("an fsync of the journal failed", error))
    }

    fn check(&self, inner: &Inner) -> Result<()> {
        match &inner.poison {
            Some(reason) => Err(Error::Poisoned(reason.clone())),
            None => Ok(()),
        }
    }

    fn failed(&self, what: &str, error: std::io::Error) -> Error {
        self.poison(&format!("{what}: {error}"));
        Error::Io { what: what.into(), source: error }
    }

    fn write(&self, inner: &mut Inner, record: &Record, need: Need) -> Result<()> {
        self.pay(inner)?;
        self.write_next(inner, record, need)
    }

    /// Writes what is owed, as far as there is room for it.
    fn pay(&self, inner: &mut Inner) -> Result<()> {
        self.check(inner)?;
        if inner.owed.boot {
            let boot = Record::Boot(self.options.boot.clone());
            inner.owed.boot = !self.written(inner, &boot)?;
        }
        if let Some(noted) = inner.owed.note
            && self.written(inner, &Record::Confirmed(noted))?
        {
            inner.noted = noted;
            inner.owed.note = None;
        }
        Ok(())
    }

    /// Whether there was room for it.
    fn written(&self, inner: &mut Inner, record: &Record) -> Result<bool> {
        match self.write_next(inner, record, Need::Upkeep) {
            Err(Error::Full) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Writes it into the last segment, or, where that is long enough, into the next.
    fn write_next(&self, inner: &mut Inner, record: &Record, need: Need) -> Result<()> {
        if let Some((number, end)) = inner.segments.back().map(|last| (last.number, last.end))
            && end >= inner.roll_at
            && let Err(error) = self.roll(inner, number + 1)
        {
            // It goes on in this one; the next is tried again some records later.
            tracing::warn!(error = &error as &dyn std::error::Error, "no new journal segment");
            inner.roll_at = end + ROLL_AGAIN;
        }
        self.write_here(inner, record, need)
    }

    fn write_here(&self, inner: &mut Inner, record: &Record, need: Need) -> Result<()> {
        let Some(segment) = inner.segments.back_mut() else {
            return Err(Error::Poisoned("the journal has no segment".into()));
        };
        let frame = frame::seal(&self.options.keys, self.id, segment.number, segment.end, record);
        self.share.ensure(segment, frame.len() as u64, need)?;
        if let Err(source) = segment.append(&frame) {
            // What is there of it would be in the way of what comes next.
            if is_full(&source) && self.share.cut(segment) {
                return Err(Error::Full);
            }
            let what = "a write to the journal failed";
            tracing::error!(error = %source, "{what}");
            inner.poison = Some(format!("{what}: {source}"));
            return Err(Error::Io { what: what.into(), source });
        }
        if !matches!(record, Record::Barrier(_)) {
            inner.unsynced = true;
        }
        Ok(())
    }

    /// Begins the next segment. It is part of the journal once its header and Start are written, no sooner.
    fn roll(&self, inner: &mut Inner, number: u64) -> Result<()> {
        let first = inner.seq.next();
        let start = Start { first, noted: inner.noted, boot: self.options.boot.clone() };
        let record = Record::Start(start);
        let frame = frame::seal(&self.options.keys, self.id, number, HEADER, &record);
        let full_or = |source| match is_full(&source) {
            true => Error::Full,
            false => Error::Io { what: "a new journal segment".into(), source },
        };
        let is_first = inner.segments.is_empty();
        let begin = || -> Result<Segment> {
            let mut segment =
                Segment::make(&self.dir, self.id, number, first, &frame).map_err(full_or)?;
            self.share.begin(&mut segment, is_first)?;
            segment.name().map_err(full_or).inspect_err(|_| self.share.give_back(segment.room))?;
            Ok(segment)
        };
        let segment = begin().inspect_err(|_| Segment::unmake(&self.dir))?;
        if let Some(last) = inner.segments.back_mut() {
            // Room that it does not need any more; left where it is should that fail.
            self.share.cut(last);
        }
        inner.segments.push_back(segment);
        inner.roll_at = self.share.segment_bytes();
        inner.dir_unsynced = true;
        inner.unsynced = true;
        Ok(())
    }
}

fn distinct(changed: &[(&[u8], Option<PackId>)]) -> Vec<PackId> {
    let mut packs: Vec<_> = changed.iter().filter_map(|(_, pack)| *pack).collect();
    packs.sort_unstable();
    packs.dedup();
    packs
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("id", &self.id).finish_non_exhaustive()
    }
}
