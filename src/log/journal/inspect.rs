//! Reading a journal without changing it: what is whole, what is torn, what is damaged (J3).

use std::path::Path;

use super::frame::{DroppedPack, Frames, JournalRecord, NotedCommit};
use super::segment::{self, HEADER};
use crate::crypto::Keys;
use crate::log::{Error, Result};
use crate::os;
use crate::records::Transaction;
use crate::types::{Hash, JournalId, Reference, Seq};

/// A transaction that the journal does not know to be in the bucket.
#[derive(Clone, Debug)]
pub struct UnsentTx {
    /// Its count.
    pub seq: Seq,
    /// The hash by which commits know it.
    pub hash: Hash,
    /// Its references to packs that were in staging when it was written.
    pub staged: Vec<Reference>,
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// Where a bad record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's number.
    pub segment: u64,
    /// The byte offset in it.
    pub offset: u64,
}

/// What is in a journal.
#[derive(Debug)]
pub struct Inspection {
    /// The journal's id.
    pub journal: JournalId,
    /// The last commit that it knows to be in the bucket.
    pub noted: NotedCommit,
    /// The count of its last whole transaction.
    pub last: Seq,
    /// A barrier says that everything up to here is durable.
    pub durable: Seq,
    /// The boot of the machine on which it was last written.
    pub boot: String,
    /// Whether it ends with a clean unmount.
    pub clean: bool,
    /// What follows the noted commit, in order.
    pub unsent: Vec<UnsentTx>,
    /// The incomplete tail that a stop of the machine or the daemon left; it is dropped.
    pub torn: Option<Damage>,
    pub(super) segments: Vec<Whole>,
    /// Packs noted as dropped, and where.
    pub(super) dropped: Vec<(DroppedPack, Damage)>,
}

/// The directories of all journals inspected in this process: each inspection reads a whole journal.
#[cfg(test)]
pub(super) static INSPECTED: parking_lot::Mutex<Vec<std::path::PathBuf>> =
    parking_lot::Mutex::new(Vec::new());

/// A segment, and up to where it is whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole {
    pub number: u64,
    pub first: Seq,
    pub end: u64,
}

/// Reads a whole journal; `None` if there is none. With `gives_up`, damage before the last barrier counts as a torn tail
/// too.
///
/// # Errors
/// [`Error::Damaged`] when a record before the last barrier is bad.
pub(super) fn inspect(dir: &Path, keys: &Keys, gives_up: bool) -> Result<Option<Inspection>> {
    #[cfg(test)]
    INSPECTED.lock().push(dir.to_owned());
    let files = segment::list(dir).map_err(Error::io("the journal cannot be listed"))?;
    // The newest journal that any file names; files of another one are left over from a creation.
    let Some(journal) = files.iter().find_map(|(_, journal, _)| *journal) else {
        return Ok(None);
    };
    // Segments before a gap were left by a removal (J5). They are done with if what follows the gap confirms it.
    let after_gap = files.windows(2).rposition(|two| two[0].0 + 1 != two[1].0).map(|at| at + 1);
    if let Some(at) = after_gap
        && let Ok(state) = read_run(dir, keys, journal, &files[at..], false)
        && state.starts_after_confirmed()
    {
        tracing::info!(segments = at, "segments of the journal that a removal left");
        return Ok(Some(state));
    }
    let state = read_run(dir, keys, journal, &files, gives_up)?;
    if state.segments.is_empty() {
        return Ok(None);
    }
    if !state.starts_after_confirmed() {
        let (Some(first), durable) = (state.segments.first(), state.durable) else {
            return Ok(None);
        };
        tracing::warn!(segment = first.number, "the journal begins after changes that are nowhere");
        if durable >= first.first && !gives_up {
            return Err(Error::Damaged { segment: first.number, offset: 0 });
        }
        // Nothing says that it was ever durable, so all of it is a torn tail.
        return Ok(None);
    }
    Ok(Some(state))
}

/// Whether any segment begins with a whole record; `None` if there are no segments.
pub(super) fn has_start(dir: &Path, keys: &Keys) -> Result<Option<bool>> {
    let files = segment::list(dir).map_err(Error::io("the journal cannot be listed"))?;
    for &(number, named, length) in &files {
        let Some(journal) = named else { continue };
        let file = os::open_to_read(&segment::path(dir, number)).map_err(reading)?;
        let mut frames = Frames::new(keys, journal, number, &*file, length);
        if frames.at(HEADER).map_err(reading)?.is_some() {
            return Ok(Some(true));
        }
    }
    Ok((!files.is_empty()).then_some(false))
}

/// Reads these segments, which should follow each other, as far as they are whole.
fn read_run(
    dir: &Path,
    keys: &Keys,
    journal: JournalId,
    files: &[(u64, Option<JournalId>, u64)],
    gives_up: bool,
) -> Result<Inspection> {
    let mut state = Inspection {
        journal,
        noted: NotedCommit { upto: Seq(0), number: crate::types::CommitNo(0), hash: Hash::ZERO },
        last: Seq(0),
        durable: Seq(0),
        boot: String::new(),
        clean: false,
        unsent: Vec::new(),
        torn: None,
        segments: Vec::new(),
        dropped: Vec::new(),
    };
    let mut expected = None;
    for &(number, named, length) in files {
        let path = segment::path(dir, number);
        let file =
            os::open_to_read(&path).map_err(Error::io("a journal segment cannot be read"))?;
        let mut frames = Frames::new(keys, journal, number, &*file, length);
        let follows = expected.is_none_or(|expected| expected == number);
        expected = Some(number + 1);
        if state.torn.is_none() {
            let bad = if named == Some(journal) && follows {
                read_segment(&mut frames, number, length, &mut state)?
            } else {
                Some(0)
            };
            state.torn = bad.map(|offset| Damage { segment: number, offset });
        }
        if let Some(bad) = state.torn {
            let from = if bad.segment == number { bad.offset.max(HEADER) } else { HEADER };
            if !gives_up && frames.barrier_beyond(from).map_err(reading)? {
                return Err(Error::Damaged { segment: bad.segment, offset: bad.offset });
            }
        }
    }
    let noted = state.noted.upto;
    state.unsent.retain(|tx| tx.seq > noted);
    state.dropped.retain(|(dropped, _)| dropped.last > noted);
    Ok(state)
}

fn reading(source: std::io::Error) -> Error {
    Error::Io { what: "a journal segment cannot be read".into(), source }
}

/// Takes in one segment. Returns the offset of its first bad record, if it has one.
fn read_segment(
    frames: &mut Frames<'_>,
    number: u64,
    length: u64,
    state: &mut Inspection,
) -> Result<Option<u64>> {
    let mut at = HEADER;
    let mut first = true;
    while at < length {
        let Some((record, next)) = frames.at(at).map_err(reading)? else {
            // Zeros that were written ahead: the segment ends before them.
            let ends = !first && frames.is_zero_from(at).map_err(reading)?;
            return Ok(if ends { None } else { Some(if first { 0 } else { at }) });
        };
        match record {
            JournalRecord::Start(start) if first => {
                if state.segments.is_empty() {
                    state.last = Seq(start.first.0.saturating_sub(1));
                    state.durable = state.last;
                } else if start.first != state.last.next() {
                    return Ok(Some(0));
                }
                if start.noted.upto >= state.noted.upto {
                    state.noted = start.noted;
                }
                state.boot = start.boot;
                state.segments.push(Whole { number, first: start.first, end: next });
            }
            // Earlier versions could leave a segment without a Start. If it follows another segment, everything in Start
            // is known.
            record if first => {
                if state.segments.is_empty() {
                    return Ok(Some(0));
                }
                state.segments.push(Whole { number, first: state.last.next(), end: next });
                take(record, number, at, state)?;
            }
            record => take(record, number, at, state)?,
        }
        first = false;
        at = next;
        if let Some(whole) = state.segments.last_mut() {
            whole.end = next;
        }
    }
    Ok(if first { Some(0) } else { None })
}

fn take(record: JournalRecord, segment: u64, offset: u64, state: &mut Inspection) -> Result<()> {
    state.clean = false;
    match record {
        JournalRecord::Start(_) => {
            return Err(Error::malformed("the journal", "a segment that starts twice"));
        }
        JournalRecord::Transaction { staged, bytes } => {
            state.last = state.last.next();
            let mut references = Transaction::decode(&bytes)?.references()?;
            references.retain(|reference| staged.contains(&reference.pack));
            let hash = Transaction::hash_of(&bytes);
            state.unsent.push(UnsentTx {
                seq: state.last,
                hash,
                staged: references,
                segment,
                offset,
            });
        }
        JournalRecord::Barrier(mark) => state.durable = state.durable.max(mark.upto),
        JournalRecord::Confirmed(noted) => state.noted = noted,
        JournalRecord::Boot(id) => state.boot = id,
        JournalRecord::Clean => {
            state.clean = true;
            state.durable = state.last;
        }
        JournalRecord::Dropped(packs) => {
            let place = Damage { segment, offset };
            state.dropped.extend(packs.into_iter().map(|dropped| (dropped, place)));
        }
    }
    // Memory stays bounded by what is unsent, not by the journal's length.
    if state.unsent.len() >= 4096 && state.noted.upto >= state.unsent[2048].seq {
        let noted = state.noted.upto;
        state.unsent.retain(|tx| tx.seq > noted);
    }
    Ok(())
}

impl Inspection {
    /// Packs that never go to the bucket, as long as something that refers to them may be unsent.
    pub fn dropped(&self) -> impl Iterator<Item = DroppedPack> {
        self.dropped.iter().map(|(dropped, _)| *dropped)
    }

    /// Where the journal ends: what comes after that is not there, or is not whole.
    pub fn end(&self) -> Option<Damage> {
        let last =
            self.segments.last().map(|whole| Damage { segment: whole.number, offset: whole.end });
        self.torn.or(last)
    }

    /// Whether everything before the first segment is noted as confirmed.
    fn starts_after_confirmed(&self) -> bool {
        self.segments.first().is_some_and(|whole| whole.first <= self.noted.upto.next())
    }

    /// Drops `tx` and all that follow it, as a torn tail.
    ///
    /// # Errors
    /// [`Error::Damaged`] when a barrier says that `tx` was whole once; then nothing is dropped.
    pub fn drop_from(&mut self, tx: Seq) -> Result<()> {
        let of_it = self.unsent.iter().find(|unsent| unsent.seq == tx);
        if let Some(unsent) = of_it.filter(|unsent| unsent.seq <= self.durable) {
            return Err(Error::Damaged { segment: unsent.segment, offset: unsent.offset });
        }
        self.give_up_from(tx);
        Ok(())
    }

    /// Drops `tx` and all that follow it, whatever a barrier says.
    pub fn give_up_from(&mut self, tx: Seq) {
        let Some(index) = self.unsent.iter().position(|unsent| unsent.seq == tx) else { return };
        let (segment, offset) = (self.unsent[index].segment, self.unsent[index].offset);
        self.torn = Some(Damage { segment, offset });
        let before = |place: &Damage| (place.segment, place.offset) < (segment, offset);
        self.dropped.retain(|(_, place)| before(place));
        self.unsent.truncate(index);
        self.last = Seq(tx.0 - 1);
        self.durable = self.durable.min(self.last);
        self.segments.retain(|whole| whole.number <= segment);
        if let Some(whole) = self.segments.last_mut() {
            whole.end = offset;
        }
    }
}
