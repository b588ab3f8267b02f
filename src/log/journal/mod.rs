//! The journal: the transactions of this machine in order. They are appended before any reply (J1), durable after a barrier (J2),
//! and removed once the bucket has them (J5).

mod barriers;
mod frame;
#[cfg(feature = "testing")]
mod fuzzing;
mod inspect;
mod preallocation;
mod read;
mod segment;
mod state;
#[cfg(test)]
mod tests;
mod write;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

pub use self::frame::{DroppedPack, NotedCommit};
pub use self::inspect::{Damage, Inspection, UnsentTx};
pub use self::preallocation::{JournalRoom, RoomClass};
pub use self::state::Mark;
#[cfg(feature = "testing")]
pub(in crate::log) use fuzzing::fuzzed;

use self::frame::JournalRecord;
use self::preallocation::Preallocation;
use self::segment::Segment;
use self::state::{Cursor, JournalState};
use super::{Error, Result};
use crate::crypto::{self, Keys};
use crate::log::Receipt;
use crate::os::{self, Disk, PipelineStep};
use crate::records::Transaction;
use crate::types::{CommitNo, Hash, JournalId, PackId, Seq};

/// Must learn of each reference to a pack before it is journaled: staging (C4, K5).
pub trait PackWatcher: Send + Sync {
    /// Called under the append lock, just before transaction `seq` is written. On an error it is not written. Returns which of
    /// the packs are in staging: they stay there until the transaction is confirmed. The others are in the bucket.
    fn appending(&self, seq: Seq, packs: &[PackId]) -> Result<Vec<PackId>>;

    /// Transaction `seq`, of `bytes` bytes, was written. `changed` are its records that can refer to packs, each with the pack
    /// that it refers to now. Called under the append lock too.
    fn appended(&self, _seq: Seq, _bytes: usize, _changed: &[(&[u8], Option<PackId>)]) {}
}

/// A transaction, read back for a commit or a replay.
#[derive(Clone, Debug)]
pub struct Journaled {
    /// Its count.
    pub seq: Seq,
    /// Its encoded bytes.
    pub bytes: Bytes,
    /// SHA-256 of them.
    pub hash: Hash,
}

/// The most packs in one record of dropped packs.
pub const DROPPED_AT_ONCE: usize = 4096;

/// What a journal needs.
pub struct JournalOptions {
    /// Seals the records.
    pub keys: Keys,
    /// The boot id of the machine (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// The journal's directory.
    pub disk: Arc<dyn Disk>,
    /// Told of references to packs before they are journaled.
    pub watcher: Option<Arc<dyn PackWatcher>>,
    /// Where the disk space that the journal takes is counted (J8). `None`: it is not counted, and nothing is kept back.
    pub room: Option<Arc<dyn JournalRoom>>,
}

/// The journal of a vault that this machine writes. It has one lock, held for one write(2).
pub struct Journal {
    id: JournalId,
    options: JournalOptions,
    preallocation: Preallocation,
    state: Mutex<JournalState>,
    cursor: Mutex<Cursor>,
    appended: watch::Sender<Seq>,
}

impl Journal {
    /// Reads the journal in `dir` and changes nothing; `None`: there is none.
    pub fn inspect(dir: &Path, keys: &Keys) -> Result<Option<Inspection>> {
        inspect::inspect(dir, keys, false)
    }

    /// As [`Journal::inspect`], but accepts damage: it returns what comes before.
    pub fn inspect_up_to_damage(dir: &Path, keys: &Keys) -> Result<Option<Inspection>> {
        inspect::inspect(dir, keys, true)
    }

    /// Whether any file begins as a journal's does; `None` if there is no file.
    pub fn has_start(dir: &Path, keys: &Keys) -> Result<Option<bool>> {
        inspect::has_start(dir, keys)
    }

    /// How often the journal in this directory was inspected.
    #[cfg(test)]
    pub fn inspections(dir: &Path) -> usize {
        inspect::INSPECTED.lock().iter().filter(|inspected| *inspected == dir).count()
    }

    /// A new, empty journal with a fresh id, in a directory that holds no other journal any more. `noted` is the head of the log,
    /// which holds nothing of this journal.
    pub fn create(options: JournalOptions, noted: NotedCommit) -> Result<Self> {
        let id = JournalId(crypto::random());
        let state = JournalState::new(VecDeque::new(), noted.upto, noted, noted.upto);
        let journal = Self::new(id, options, state);
        journal.roll(&mut journal.state.lock(), 1)?;
        Ok(journal)
    }

    /// Continues an inspected journal: drops its torn tail, if it has one.
    pub fn resume(options: JournalOptions, found: &Inspection) -> Result<Self> {
        let failed = || Error::io("the journal's torn tail cannot be dropped");
        let disk = &*options.disk;
        for number in segment::numbers(disk).map_err(failed())? {
            // After the torn tail, or left over from a removal.
            if !found.segments.iter().any(|whole| whole.number == number) {
                disk.remove(&segment::name(number)).map_err(failed())?;
            }
        }
        let mut segments = VecDeque::new();
        for whole in &found.segments {
            let segment = Segment::found(disk, whole.number, whole.first, whole.end);
            segments.push_back(segment.map_err(failed())?);
        }
        let state = JournalState::new(segments, found.last, found.noted, found.durable);
        let journal = Self::new(found.journal, options, state);
        {
            let mut state = journal.state.lock();
            journal.preallocation.found(&mut state.segments.iter());
            state.roll_at = journal.preallocation.segment_bytes();
            state.owed.boot = true;
            journal.pay(&mut state)?;
        }
        Ok(journal)
    }

    fn new(id: JournalId, options: JournalOptions, state: JournalState) -> Self {
        let preallocation = Preallocation(options.room.clone());
        let cursor = Cursor { seq: Seq(0), segment: 0, offset: 0 };
        let appended = watch::Sender::new(state.seq);
        let (state, cursor) = (Mutex::new(state), Mutex::new(cursor));
        Self { id, options, preallocation, state, cursor, appended }
    }

    /// The journal's id.
    pub fn id(&self) -> JournalId {
        self.id
    }

    /// As [`Journal::append_for`], for an ordinary change.
    #[cfg(test)]
    pub fn append(&self, transaction: &Transaction) -> Result<(Seq, Hash)> {
        self.append_for(transaction, RoomClass::Change)
    }

    /// Appends a transaction, which then survives the death of the process. Returns its count and its hash.
    ///
    /// # Errors
    /// [`records::Error::TooLarge`](crate::records::Error); [`Error::Full`] when `class` has no room (nothing was written);
    /// [`Error::Poisoned`] after any other failed write.
    pub fn append_for(&self, transaction: &Transaction, class: RoomClass) -> Result<(Seq, Hash)> {
        let bytes = transaction.encode()?;
        let hash = Transaction::hash_of(&bytes);
        let changed = transaction.packs()?;
        let packs = distinct(&changed);
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Poisoned("the vault was released".into()));
        }
        let seq = state.seq.next();
        let staged = match &self.options.watcher {
            Some(watcher) if !packs.is_empty() => watcher.appending(seq, &packs)?,
            _ => Vec::new(),
        };
        let length = bytes.len();
        self.write(&mut state, &JournalRecord::Transaction { staged, bytes: bytes.into() }, class)?;
        os::reached(PipelineStep::TransactionJournaled);
        state.seq = seq;
        if let Some(watcher) = &self.options.watcher {
            watcher.appended(seq, length, &changed);
        }
        // Under the lock, so that the count never goes back.
        self.appended.send_replace(seq);
        Ok((seq, hash))
    }

    /// The count of the last transaction.
    pub fn appended(&self) -> Seq {
        *self.appended.borrow()
    }

    /// A receiver that sees the count of every append.
    pub fn subscribe(&self) -> watch::Receiver<Seq> {
        self.appended.subscribe()
    }

    /// Everything up to here survives the loss of power.
    pub fn durable(&self) -> Seq {
        self.state.lock().durable
    }

    /// Whether a barrier would make anything durable.
    pub fn unsynced(&self) -> bool {
        let state = self.state.lock();
        (state.unsynced || state.owed.note.is_some()) && state.poison.is_none()
    }

    /// The last commit that is known to be in the bucket.
    pub fn noted(&self) -> NotedCommit {
        let state = self.state.lock();
        state.owed.note.unwrap_or(state.noted)
    }

    /// As [`Journal::noted`], but only what is durable: C4 may rely on it.
    pub fn durable_noted(&self) -> NotedCommit {
        self.state.lock().durable_noted
    }

    /// Why nothing more can be appended, if so (J6).
    pub fn poisoned(&self) -> Option<String> {
        self.state.lock().poison.clone()
    }

    /// Refuses all further appends (J6).
    pub fn poison(&self, reason: &str) {
        let mut state = self.state.lock();
        if state.poison.is_some() {
            return;
        }
        state.poison = Some(reason.to_owned());
        drop(state);
        // Logged after the poison is set and the lock released: the log may be on a slow disk.
        tracing::error!(reason, "no more changes until the vault is mounted again");
    }

    /// Notes what a receipt confirmed (C5, J5); where there is no room for that now, as soon as there is.
    pub fn note_confirmed(&self, receipt: &Receipt) -> Result<()> {
        self.note(receipt.into())
    }

    /// As [`Journal::note_confirmed`], of what the survey found by its hash in the verified log (W1), which ends with this commit.
    pub fn note_found(&self, upto: Seq, number: CommitNo, hash: Hash) -> Result<()> {
        self.note(NotedCommit { upto, number, hash })
    }

    fn note(&self, noted: NotedCommit) -> Result<()> {
        let mut state = self.state.lock();
        state.owed.note = Some(noted);
        self.pay(&mut state)
    }

    /// Notes that these packs, at most [`DROPPED_AT_ONCE`], never go to the bucket: all or none. They may be deleted once a
    /// barrier marked after this is written.
    ///
    /// # Errors
    /// [`Error::Full`], although this may use all that is kept back; then nothing is noted.
    pub fn note_dropped(&self, packs: &[DroppedPack]) -> Result<()> {
        self.write(
            &mut self.state.lock(),
            &JournalRecord::Dropped(packs.to_vec()),
            RoomClass::Upkeep,
        )
    }

    /// The last transaction's count, after which none is accepted: a release follows (W1), if nothing is unsent.
    pub fn close_to_appends(&self) -> Seq {
        let mut state = self.state.lock();
        state.closed = true;
        state.seq
    }

    /// Accepts transactions again, if the release was not written after all.
    pub fn reopen_to_appends(&self) {
        self.state.lock().closed = false;
    }

    /// Whether it has segments that may be removed.
    pub fn is_trimmable(&self) -> bool {
        let state = self.state.lock();
        state.segments.get(1).is_some_and(|s| s.first <= state.durable_noted.upto.next())
    }

    /// Removes the segments whose transactions the bucket has and the index has flushed (J5), oldest first. If a crash leaves
    /// some, the note in a later segment tells that they are done with. Blocks.
    pub fn trim(&self, flushed: Seq) -> Result<()> {
        let mut done_with = VecDeque::new();
        {
            let mut state = self.state.lock();
            let keep_from = flushed.min(state.durable_noted.upto);
            while state.segments.len() > 1 && state.segments[1].first <= keep_from.next() {
                done_with.extend(state.segments.pop_front());
            }
        }
        if done_with.is_empty() {
            return Ok(());
        }
        while let Some(segment) = done_with.pop_front() {
            if let Err(error) = self.options.disk.remove(&segment::name(segment.number)) {
                // It and those after it stay, so that the next call tries again, and what is on the disk has no gap.
                done_with.push_front(segment);
                let mut state = self.state.lock();
                done_with.into_iter().rev().for_each(|left| state.segments.push_front(left));
                return Err(Error::io("an old journal segment")(error));
            }
            os::reached(PipelineStep::SegmentRemoved);
            self.preallocation.give_back(segment.room);
        }
        let synced = self.options.disk.sync_dir();
        synced.map_err(|error| self.failed("an fsync of the journal failed", error))
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
