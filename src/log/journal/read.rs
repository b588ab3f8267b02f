//! Reads transactions back: for commits, for a replay, and for what is set aside.

use std::collections::VecDeque;
use std::path::Path;

use super::frame::{FRAME_HEADER, Frames, JournalRecord};
use super::inspect::Inspection;
use super::segment::{self, Segment};
use super::state::Cursor;
use super::{Journal, Journaled};
use crate::crypto::Keys;
use crate::log::{Error, Result};
use crate::os;
use crate::records::Transaction;
use crate::types::Seq;

/// How much [`Journal::read_found`] returns at once.
const FOUND_BYTES: usize = 4 << 20;

impl Journal {
    /// Some MiB of the transactions after `after`, from a journal that is no longer written; none at
    /// the journal's end.
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
            let file = os::open_to_read(&segment::path(dir, whole.number)).map_err(reading())?;
            let mut frames = Frames::new(keys, found.journal, whole.number, &*file, whole.end);
            let (mut at, mut seq) = (segment::HEADER, Seq(whole.first.0 - 1));
            while at < whole.end && bytes < FOUND_BYTES {
                let damaged = Error::Damaged { segment: whole.number, offset: at };
                let (record, next) = frames.at(at).map_err(reading())?.ok_or(damaged)?;
                at = next;
                let JournalRecord::Transaction { bytes: plain, .. } = record else { continue };
                seq = seq.next();
                if seq > after {
                    bytes += plain.len();
                    part.push(journaled(seq, plain));
                }
            }
        }
        Ok(part)
    }

    /// The transactions after `seq`: about `max_bytes` of them, and at least one if there is one.
    /// Nothing before the oldest segment.
    pub fn read_after(&self, seq: Seq, max_bytes: usize) -> Result<Vec<Journaled>> {
        self.read_between(seq, Seq(u64::MAX), max_bytes)
    }

    /// As [`Journal::read_after`], but up to `upto` at most. A call that goes on where the last one
    /// ended does not read the segment from its beginning again.
    pub fn read_between(&self, seq: Seq, upto: Seq, max_bytes: usize) -> Result<Vec<Journaled>> {
        let (segments, last) = {
            let state = self.state.lock();
            (state.segments.clone(), state.seq.min(upto))
        };
        let mut found = Vec::new();
        if seq >= last {
            return Ok(found);
        }
        let mut at = self.cursor_for(seq, &segments);
        let mut bytes = 0;
        let from = at.segment;
        for segment in segments.iter().filter(|s| s.number >= from) {
            // The place stays where the batch ends. Otherwise the rest of that segment would be
            // skipped.
            if at.seq >= last || bytes >= max_bytes {
                break;
            }
            if segment.number > at.segment {
                at = Cursor { seq: at.seq, segment: segment.number, offset: segment::HEADER };
            }
            let keys = &self.options.keys;
            let mut frames =
                Frames::new(keys, self.id, segment.number, &*segment.file, segment.end);
            while at.offset < segment.end && at.seq < last && bytes < max_bytes {
                let (record, next) = frames
                    .at(at.offset)
                    .map_err(Error::io("the journal cannot be read"))?
                    .ok_or(Error::Damaged { segment: segment.number, offset: at.offset })?;
                at.offset = next;
                let JournalRecord::Transaction { bytes: plain, .. } = record else { continue };
                at.seq = at.seq.next();
                if at.seq > seq {
                    bytes += plain.len() + FRAME_HEADER;
                    found.push(journaled(at.seq, plain));
                }
            }
        }
        *self.cursor.lock() = at;
        Ok(found)
    }

    /// The place from which to read to find the transaction after `seq`.
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
}

fn journaled(seq: Seq, plain: Vec<u8>) -> Journaled {
    let hash = Transaction::hash_of(&plain);
    Journaled { seq, bytes: plain.into(), hash }
}
