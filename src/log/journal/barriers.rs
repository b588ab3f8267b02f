//! Barriers: making the journal durable, and recording that in it (J2).

use super::Journal;
use super::frame::{BarrierMark, JournalRecord};
use super::preallocation::RoomClass;
use super::state::Mark;
use crate::log::{Error, Result};
use crate::os::{self, PipelineStep};
use crate::types::Seq;

impl Journal {
    /// What a barrier made now would cover. Take the mark before the packs are fsynced: a transaction that comes in between
    /// is not covered, because its packs may not be durable.
    ///
    /// # Errors
    /// [`Error::Poisoned`]; or a failed write, which poisons.
    pub fn mark(&self) -> Result<Mark> {
        let mut state = self.state.lock();
        self.pay(&mut state)?;
        if let Some(last) = state.segments.back_mut()
            && let Err(error) = last.write_zeros_ahead()
            && !os::is_full(&error)
        {
            drop(state);
            return Err(self.failed("a write to the journal failed", error));
        }
        let from = state.first_unsynced;
        let segments = state.segments.iter().filter(|s| s.number >= from).cloned().collect();
        let Some(last) = state.segments.back() else {
            return Err(Error::Poisoned("the journal has no segment".into()));
        };
        let place = BarrierMark { upto: state.seq, segment: last.number, offset: last.end };
        Ok(Mark { segments, sync_dir: state.dir_unsynced, place, noted: state.noted })
    }

    /// J2 when there are no packs to wait for: fsyncs the journal up to the mark, and appends a barrier. Blocks.
    ///
    /// # Errors
    /// As [`Journal::sync_marked`] and [`Journal::append_barrier`].
    pub fn sync_data(&self, mark: Mark) -> Result<Seq> {
        self.sync_marked(&mark)?;
        self.append_barrier(mark)
    }

    /// The journal's half of J2: fsyncs it up to the mark. Blocks.
    ///
    /// # Errors
    /// A failed fsync poisons: it is never repeated as if it could succeed (J6).
    pub fn sync_marked(&self, mark: &Mark) -> Result<()> {
        for segment in &mark.segments {
            let synced = os::before(PipelineStep::JournalSync, || segment.file.sync());
            synced.map_err(|error| self.failed("an fsync of the journal failed", error))?;
        }
        if mark.sync_dir {
            let synced = self.options.disk.sync_dir();
            synced.map_err(|error| self.failed("an fsync of the journal failed", error))?;
        }
        os::reached(PipelineStep::JournalSynced);
        Ok(())
    }

    /// Records in the journal what is durable. Since the mark was taken, the journal up to it must have been synced, and so
    /// must the packs that its transactions refer to.
    ///
    /// # Errors
    /// A failed write poisons. [`Error::Full`]: there is no room for the barrier. Then nothing is promised, and the next
    /// barrier may succeed.
    pub fn append_barrier(&self, mark: Mark) -> Result<Seq> {
        let Mark { sync_dir, place: mark, noted, .. } = mark;
        let mut state = self.state.lock();
        self.pay(&mut state)?;
        // The fsync does not cover what was written while it ran, nor records that were owed because they had no room.
        let more = state
            .segments
            .back()
            .is_some_and(|last| (last.number, last.end) != (mark.segment, mark.offset));
        self.write(&mut state, &JournalRecord::Barrier(mark), RoomClass::Upkeep)?;
        state.unsynced = more || state.segments.back().is_some_and(|s| s.number != mark.segment);
        state.first_unsynced = state.first_unsynced.max(mark.segment);
        if sync_dir && state.segments.back().is_some_and(|last| last.number == mark.segment) {
            state.dir_unsynced = false;
        }
        state.durable = state.durable.max(mark.upto);
        state.durable_noted = noted;
        Ok(mark.upto)
    }

    /// Marks a clean unmount, so that the next mount need not suspect the disk. The packs must have been synced after the
    /// last append. Blocks.
    pub fn mark_clean(&self) -> Result<()> {
        self.sync_data(self.mark()?)?;
        let mut state = self.state.lock();
        self.write(&mut state, &JournalRecord::Clean, RoomClass::Upkeep)?;
        let Some(last) = state.segments.back().cloned() else { return Ok(()) };
        drop(state);
        let synced = last.file.sync();
        synced.map_err(|error| self.failed("an fsync of the journal failed", error))
    }
}
