//! Writing records at the journal's end (J1, J8).

use std::io;

use super::Journal;
use super::frame::{self, JournalRecord, Start};
use super::preallocation::RoomClass;
use super::segment::{HEADER, Segment};
use super::state::JournalState;
use crate::log::{Error, Result};
use crate::os::{self, PipelineStep, is_full};
use crate::types::KIB;

/// After a segment could not be made, the next attempt comes this many bytes later.
const ROLL_AGAIN: u64 = 64 * KIB;

impl Journal {
    fn check(&self, state: &JournalState) -> Result<()> {
        match &state.poison {
            Some(reason) => Err(Error::Poisoned(reason.clone())),
            None => Ok(()),
        }
    }

    pub(super) fn failed(&self, what: &str, error: io::Error) -> Error {
        self.poison(&format!("{what}: {error}"));
        Error::Io { what: what.into(), source: error }
    }

    pub(super) fn write(
        &self,
        state: &mut JournalState,
        record: &JournalRecord,
        class: RoomClass,
    ) -> Result<()> {
        self.pay(state)?;
        self.write_next(state, record, class)
    }

    /// Writes the owed records, as far as there is room.
    pub(super) fn pay(&self, state: &mut JournalState) -> Result<()> {
        self.check(state)?;
        if state.owed.boot {
            let boot = JournalRecord::Boot(self.options.boot.clone());
            state.owed.boot = !self.written(state, &boot)?;
        }
        if let Some(noted) = state.owed.note
            && self.written(state, &JournalRecord::Confirmed(noted))?
        {
            state.noted = noted;
            state.owed.note = None;
        }
        Ok(())
    }

    /// Writes a record that can wait; returns whether there was room.
    fn written(&self, state: &mut JournalState, record: &JournalRecord) -> Result<bool> {
        match self.write_next(state, record, RoomClass::Upkeep) {
            Err(Error::Full) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Writes a record into the last segment, or, if that is long enough, into the next.
    fn write_next(
        &self,
        state: &mut JournalState,
        record: &JournalRecord,
        class: RoomClass,
    ) -> Result<()> {
        if let Some((number, end)) = state.segments.back().map(|last| (last.number, last.end))
            && end >= state.roll_at
            && let Err(error) = self.roll(state, number + 1)
        {
            // The journal goes on in this segment, and tries again some records later.
            tracing::warn!(error = &error as &dyn std::error::Error, "no new journal segment");
            state.roll_at = end + ROLL_AGAIN;
        }
        self.write_here(state, record, class)
    }

    fn write_here(
        &self,
        state: &mut JournalState,
        record: &JournalRecord,
        class: RoomClass,
    ) -> Result<()> {
        let Some(segment) = state.segments.back_mut() else {
            return Err(Error::Poisoned("the journal has no segment".into()));
        };
        let frame = frame::seal(&self.options.keys, self.id, segment.number, segment.end, record);
        self.preallocation.ensure(segment, frame.len() as u64, class)?;
        let written = os::before(PipelineStep::JournalWrite, || segment.append(&frame));
        if let Err(source) = written {
            // A partial frame would be in the way of the next one.
            if is_full(&source) && self.preallocation.cut(segment) {
                return Err(Error::Full);
            }
            let what = "a write to the journal failed";
            tracing::error!(error = %source, "{what}");
            state.poison = Some(format!("{what}: {source}"));
            return Err(Error::Io { what: what.into(), source });
        }
        os::reached(PipelineStep::JournalWritten);
        if !matches!(record, JournalRecord::Barrier(_)) {
            state.unsynced = true;
        }
        Ok(())
    }

    /// Begins the next segment. It joins the journal only once its header and Start are written.
    pub(super) fn roll(&self, state: &mut JournalState, number: u64) -> Result<()> {
        let first = state.seq.next();
        let start = Start { first, noted: state.noted, boot: self.options.boot.clone() };
        let record = JournalRecord::Start(start);
        let frame = frame::seal(&self.options.keys, self.id, number, HEADER, &record);
        let full_or = |source| match is_full(&source) {
            true => Error::Full,
            false => Error::Io { what: "a new journal segment".into(), source },
        };
        let disk = &*self.options.disk;
        let is_first = state.segments.is_empty();
        let begin = || -> Result<Segment> {
            let make = || Segment::make(disk, self.id, number, first, &frame);
            let mut segment = os::before(PipelineStep::SegmentMake, make).map_err(full_or)?;
            os::reached(PipelineStep::SegmentMade);
            self.preallocation.begin(&mut segment, is_first)?;
            if is_first {
                // Packs without a journal would be damage (J3): none is made before the first segment is
                // durable.
                segment.file.sync().map_err(full_or)?;
            }
            segment
                .publish(disk)
                .map_err(full_or)
                .inspect_err(|_| self.preallocation.give_back(segment.room))?;
            if is_first {
                disk.sync_dir().map_err(full_or)?;
            }
            Ok(segment)
        };
        let segment = begin().inspect_err(|_| Segment::unmake(disk))?;
        os::reached(PipelineStep::SegmentNamed);
        if let Some(last) = state.segments.back_mut() {
            // Gives back room that it does not need any more. If that fails, the room stays.
            self.preallocation.cut(last);
        }
        state.segments.push_back(segment);
        state.roll_at = self.preallocation.segment_bytes();
        state.dir_unsynced = true;
        state.unsynced = true;
        Ok(())
    }
}
