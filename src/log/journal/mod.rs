//! The journal: the transactions of this machine in order, appended before any reply (J1),
//! durable after a barrier (J2), removed once the bucket has them (J5).

mod frame;
mod inspect;
#[cfg(test)]
mod read_tests;
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

use self::frame::{BarrierMark, FRAME_HEADER, Frames, Record, Start};
use self::segment::{SEGMENT_BYTES, Segment};
use super::{Disk, Error, Result, Transaction};
use crate::crypto::{self, Keys};
use crate::types::{Hash, JournalId, PackId, Seq};

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
    pub packs: Vec<PackId>,
}

/// Packs in one record that says that they are dropped.
const DROPPED_AT_ONCE: usize = 4096;

/// How much [`Journal::read_found`] returns at once.
const FOUND_BYTES: usize = 4 << 20;

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
}

/// The journal of a vault that this machine writes. One lock, held for one write(2).
pub struct Journal {
    dir: PathBuf,
    id: JournalId,
    options: JournalOptions,
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
        let inner = Inner {
            segments: VecDeque::new(),
            seq: noted.upto,
            noted,
            durable_noted: noted,
            durable: noted.upto,
            first_unsynced: 1,
            dir_unsynced: true,
            unsynced: true,
            poison: None,
            closed: false,
        };
        let journal = Self::new(dir, id, options, inner);
        journal.roll(&mut journal.inner.lock(), 1)?;
        Ok(journal)
    }

    /// The transactions after `after` of a journal that is not written any more; some MiB of
    /// them, none at its end.
    pub fn read_found(
        dir: &Path,
        keys: &Keys,
        found: &Inspection,
        after: Seq,
    ) -> Result<Vec<Journaled>> {
        let reading = || Error::io("the journal cannot be read");
        let mut part = Vec::new();
        let mut bytes = 0;
        let from = found.segments.iter().rposition(|whole| whole.first <= after.next());
        for whole in found.segments.iter().skip(from.unwrap_or(0)) {
            let file = fs::File::open(segment::path(dir, whole.number)).map_err(reading())?;
            let mut frames = Frames::new(keys, found.journal, whole.number, &file, whole.end);
            let (mut at, mut seq) = (segment::HEADER, Seq(whole.first.0 - 1));
            while at < whole.end && bytes < FOUND_BYTES {
                let damaged = Error::Damaged { segment: whole.number, offset: at };
                let (record, next) = frames.at(at).map_err(reading())?.ok_or(damaged)?;
                at = next;
                let Record::Transaction { bytes: plain, .. } = record else { continue };
                seq = seq.next();
                if seq > after {
                    bytes += plain.len();
                    part.push(journaled(seq, plain)?);
                }
            }
        }
        Ok(part)
    }

    /// Goes on with an inspected journal: drops its torn tail, if it has one.
    pub fn resume(dir: &Path, options: JournalOptions, found: &Inspection) -> Result<Self> {
        let failed = || Error::io("the journal's torn tail cannot be dropped");
        let last = found.segments.last().map_or(0, |whole| whole.number);
        for (number, ..) in segment::list(dir).map_err(failed())? {
            if number > last {
                fs::remove_file(segment::path(dir, number)).map_err(failed())?;
            }
        }
        let mut segments = VecDeque::new();
        for whole in &found.segments {
            let path = segment::path(dir, whole.number);
            let file =
                fs::OpenOptions::new().read(true).write(true).open(&path).map_err(failed())?;
            if file.metadata().map_err(failed())?.len() != whole.end {
                file.set_len(whole.end).map_err(failed())?;
            }
            segments.push_back(Segment {
                number: whole.number,
                first: whole.first,
                file: Arc::new(file),
                path,
                end: whole.end,
                room: 0,
            });
        }
        let first_unsynced = segments.front().map_or(0, |segment| segment.number);
        let inner = Inner {
            segments,
            seq: found.last,
            noted: found.noted,
            durable_noted: found.noted,
            durable: found.durable,
            first_unsynced,
            dir_unsynced: true,
            unsynced: true,
            poison: None,
            closed: false,
        };
        let boot = Record::Boot(options.boot.clone());
        let journal = Self::new(dir, found.journal, options, inner);
        journal.write(&mut journal.inner.lock(), &boot)?;
        Ok(journal)
    }

    fn new(dir: &Path, id: JournalId, options: JournalOptions, inner: Inner) -> Self {
        let cursor = Cursor { seq: Seq(0), segment: 0, offset: 0 };
        let appended = watch::Sender::new(inner.seq);
        let (inner, cursor) = (Mutex::new(inner), Mutex::new(cursor));
        Self { dir: dir.to_owned(), id, options, inner, cursor, appended }
    }

    /// The journal's id.
    pub fn id(&self) -> JournalId {
        self.id
    }

    /// Appends a transaction; after that it survives the death of the process. Its count, and
    /// the hash that it is known by.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Io`] when the disk is full (nothing was written);
    /// [`Error::Poisoned`] after any other failed write.
    pub fn append(&self, transaction: &Transaction) -> Result<(Seq, Hash)> {
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
        self.write(&mut inner, &Record::Transaction { staged, bytes: bytes.into() })?;
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
        inner.unsynced && inner.poison.is_none()
    }

    /// The last commit that the journal knows to be in the bucket.
    pub fn noted(&self) -> NotedCommit {
        self.inner.lock().noted
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
        let inner = self.inner.lock();
        self.check(&inner)?;
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
    /// A failed fsync poisons: it is never retried as if it could succeed (J6).
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
        // What was written while the fsync ran is not covered by it.
        let more = inner
            .segments
            .back()
            .is_some_and(|last| (last.number, last.end) != (mark.segment, mark.offset));
        self.write(&mut inner, &Record::Barrier(mark))?;
        inner.unsynced = more || inner.segments.back().is_some_and(|s| s.number != mark.segment);
        inner.first_unsynced = inner.first_unsynced.max(mark.segment);
        if sync_dir && inner.segments.back().is_some_and(|last| last.number == mark.segment) {
            inner.dir_unsynced = false;
        }
        inner.durable = inner.durable.max(mark.upto);
        inner.durable_noted = noted;
        Ok(mark.upto)
    }

    /// Notes that a receipt confirmed the transactions up to `noted.upto` (J5).
    pub fn note_confirmed(&self, noted: NotedCommit) -> Result<()> {
        let mut inner = self.inner.lock();
        self.write(&mut inner, &Record::Confirmed(noted))?;
        inner.noted = noted;
        Ok(())
    }

    /// Notes that these packs never get into the bucket. They may go once a barrier that was marked after this is there.
    pub fn note_dropped(&self, packs: &[DroppedPack]) -> Result<()> {
        let mut inner = self.inner.lock();
        let mut parts = packs.chunks(DROPPED_AT_ONCE);
        parts.try_for_each(|part| self.write(&mut inner, &Record::Dropped(part.to_vec())))
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
        self.write(&mut inner, &Record::Clean)?;
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

    /// Removes the segments whose transactions the bucket has and the index has flushed (J5).
    pub fn trim(&self, flushed: Seq) -> Result<()> {
        let mut inner = self.inner.lock();
        let keep_from = flushed.min(inner.durable_noted.upto);
        while inner.segments.len() > 1 && inner.segments[1].first <= keep_from.next() {
            let path = inner.segments[0].path.clone();
            fs::remove_file(path).map_err(Error::io("an old journal segment"))?;
            inner.segments.pop_front();
        }
        Ok(())
    }

    /// The transactions after `seq`, about `max_bytes` of them and at least one if there is one.
    /// Not before the oldest segment.
    pub fn read_after(&self, seq: Seq, max_bytes: usize) -> Result<Vec<Journaled>> {
        self.read_between(seq, Seq(u64::MAX), max_bytes)
    }

    /// As [`Journal::read_after`], up to `upto` at most. Whoever goes on where the last call ended
    /// reads on from there: what it does not want yet is not read twice.
    pub fn read_between(&self, seq: Seq, upto: Seq, max_bytes: usize) -> Result<Vec<Journaled>> {
        let (segments, last) = {
            let inner = self.inner.lock();
            (inner.segments.clone(), inner.seq.min(upto))
        };
        let mut found = Vec::new();
        if seq >= last {
            return Ok(found);
        }
        let mut at = self.cursor_for(seq, &segments);
        let mut bytes = 0;
        let from = at.segment;
        for segment in segments.iter().filter(|s| s.number >= from) {
            // The place stays where the batch ends, or the rest of that segment would be skipped.
            if at.seq >= last || bytes >= max_bytes {
                break;
            }
            if segment.number > at.segment {
                at = Cursor { seq: at.seq, segment: segment.number, offset: segment::HEADER };
            }
            let keys = &self.options.keys;
            let mut frames = Frames::new(keys, self.id, segment.number, &segment.file, segment.end);
            while at.offset < segment.end && at.seq < last && bytes < max_bytes {
                let (record, next) = frames
                    .at(at.offset)
                    .map_err(Error::io("the journal cannot be read"))?
                    .ok_or(Error::Damaged { segment: segment.number, offset: at.offset })?;
                at.offset = next;
                let Record::Transaction { bytes: plain, .. } = record else { continue };
                at.seq = at.seq.next();
                if at.seq > seq {
                    bytes += plain.len() + FRAME_HEADER;
                    found.push(journaled(at.seq, plain)?);
                }
            }
        }
        *self.cursor.lock() = at;
        Ok(found)
    }

    /// The place from which to read on to find the transaction after `seq`.
    fn cursor_for(&self, seq: Seq, segments: &VecDeque<Segment>) -> Cursor {
        let cursor = *self.cursor.lock();
        if cursor.segment > 0 && cursor.seq <= seq {
            let holder = segments.iter().rfind(|s| s.first <= seq.next());
            if holder.is_none_or(|holder| holder.number <= cursor.segment) {
                return cursor;
            }
        }
        let from = segments.iter().rfind(|s| s.first <= seq.next()).or(segments.front());
        from.map_or(cursor, |segment| Cursor {
            seq: Seq(segment.first.0 - 1),
            segment: segment.number,
            offset: segment::HEADER,
        })
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

    fn write(&self, inner: &mut Inner, record: &Record) -> Result<()> {
        self.check(inner)?;
        if let Some(full) = inner.segments.back().filter(|s| s.end >= SEGMENT_BYTES) {
            let next = full.number + 1;
            self.roll(inner, next)?;
        }
        self.write_here(inner, record)
    }

    fn write_here(&self, inner: &mut Inner, record: &Record) -> Result<()> {
        let Some(segment) = inner.segments.back_mut() else {
            return Err(Error::Poisoned("the journal has no segment".into()));
        };
        let frame = frame::seal(&self.options.keys, self.id, segment.number, segment.end, record);
        segment
            .ensure_room(frame.len() as u64)
            .map_err(Error::io("there is no room for the journal"))?;
        if let Err(source) = segment.append(&frame) {
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

    fn roll(&self, inner: &mut Inner, number: u64) -> Result<()> {
        let first = inner.seq.next();
        let start = Start { first, noted: inner.noted, boot: self.options.boot.clone() };
        let segment = Segment::create(&self.dir, self.id, number, first)
            .map_err(Error::io("a new journal segment"))?;
        inner.segments.push_back(segment);
        inner.dir_unsynced = true;
        self.write_here(inner, &Record::Start(start))
    }
}

fn distinct(changed: &[(&[u8], Option<PackId>)]) -> Vec<PackId> {
    let mut packs: Vec<_> = changed.iter().filter_map(|(_, pack)| *pack).collect();
    packs.sort_unstable();
    packs.dedup();
    packs
}

fn journaled(seq: Seq, plain: Vec<u8>) -> Result<Journaled> {
    let hash = Transaction::hash_of(&plain);
    let packs = distinct(&Transaction::decode(&plain)?.packs()?);
    Ok(Journaled { seq, bytes: plain.into(), hash, packs })
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("id", &self.id).finish_non_exhaustive()
    }
}
