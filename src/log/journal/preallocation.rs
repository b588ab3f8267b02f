//! Room for the journal (J8). What the journal takes of the disk is counted with staging. It takes some room ahead of its
//! end; how much of that a record may use depends on what the record is for.

use std::sync::Arc;

use super::segment::{SEGMENT_BYTES, Segment};
use crate::log::{Error, Result};
use crate::os::is_full;
use crate::types::{KIB, MIB};

/// What a record of the journal is for: this decides how much of the room that is kept back it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomClass {
    /// A change like any other: it uses nothing of what is kept back.
    Change,
    /// A change that frees room: it may use most of what is kept back.
    FreesRoom,
    /// What must go on for anything to go on: barriers, and notes of what the bucket has.
    Upkeep,
}

/// Where the journal's bytes on the disk are counted, beside those of staging (J8).
pub trait JournalRoom: Send + Sync {
    /// How much of the disk the journal takes ahead of its end, so that it is there whoever fills the disk.
    fn kept_ahead(&self) -> u64;
    /// Counts so many bytes more, if `class` may have them, and returns whether it may. Does not wait.
    fn take(&self, bytes: u64, class: RoomClass) -> bool;
    /// Counts so many bytes that are there already.
    fn found(&self, bytes: u64);
    /// These are free again.
    fn give_back(&self, bytes: u64);
}

/// The room that the journal takes ahead of its end, in the accounts of a [`JournalRoom`] if there is one.
pub(super) struct Preallocation(pub(super) Option<Arc<dyn JournalRoom>>);

impl Preallocation {
    fn ahead(&self) -> u64 {
        self.0.as_ref().map_or(0, |room| room.kept_ahead())
    }

    /// A segment is followed by the next once it is this long: so small that what is done with goes soon where there
    /// is little room.
    pub(super) fn segment_bytes(&self) -> u64 {
        #[cfg(test)]
        if crate::os::Simulated::is_here() {
            return 8 * KIB;
        }
        match &self.0 {
            Some(room) => (2 * room.kept_ahead()).clamp(MIB, SEGMENT_BYTES),
            None => SEGMENT_BYTES,
        }
    }

    /// Takes room up to byte `wanted` of the segment, if the accounts and the disk have it.
    fn extend(&self, segment: &mut Segment, wanted: u64, class: RoomClass) -> Result<()> {
        let more = wanted.saturating_sub(segment.room);
        if more == 0 || self.0.as_ref().is_some_and(|room| !room.take(more, class)) {
            return Ok(());
        }
        segment.extend(wanted).or_else(|error| {
            self.give_back(more);
            if is_full(&error) {
                return Ok(());
            }
            Err(Error::Io { what: "room for the journal cannot be taken".into(), source: error })
        })
    }

    /// Takes room for `length` bytes more and for what is kept ahead, if there is any.
    fn take_ahead(&self, segment: &mut Segment, length: u64, class: RoomClass) -> Result<()> {
        let wanted = segment.end + length + self.ahead();
        if segment.room >= wanted {
            return Ok(());
        }
        let step = match self.ahead() {
            0 => MIB,
            ahead => (ahead / 8).clamp(64 * KIB, MIB),
        };
        self.extend(segment, wanted.next_multiple_of(step), class)
    }

    /// Makes sure that the disk has room for `length` bytes more, and for what is kept back from `class`.
    ///
    /// # Errors
    /// [`Error::Full`]: nothing was written.
    pub(super) fn ensure(
        &self,
        segment: &mut Segment,
        length: u64,
        class: RoomClass,
    ) -> Result<()> {
        self.take_ahead(segment, length, class)?;
        let kept = match class {
            RoomClass::Change => self.ahead(),
            RoomClass::FreesRoom => self.ahead() / 8,
            RoomClass::Upkeep => 0,
        };
        if segment.room >= segment.end + length + kept { Ok(()) } else { Err(Error::Full) }
    }

    /// Takes room for a segment that begins: all that is kept ahead; for the first segment, what there is.
    pub(super) fn begin(&self, segment: &mut Segment, is_first: bool) -> Result<()> {
        self.found(&mut std::iter::once(&*segment));
        let taken = self.take_ahead(segment, 0, RoomClass::Upkeep);
        if taken.is_ok() && (is_first || segment.room >= segment.end + self.ahead()) {
            return Ok(());
        }
        self.give_back(segment.room);
        taken.and(Err(Error::Full))
    }

    /// Cuts a segment after its last record; returns whether that worked.
    pub(super) fn cut(&self, segment: &mut Segment) -> bool {
        let had = segment.room;
        let cut = segment.cut().is_ok();
        self.give_back(had - segment.room);
        cut
    }

    /// Counts what segments that are there take.
    pub(super) fn found(&self, segments: &mut dyn Iterator<Item = &Segment>) {
        if let Some(room) = &self.0 {
            room.found(segments.map(|segment| segment.room).sum());
        }
    }

    pub(super) fn give_back(&self, bytes: u64) {
        if let Some(room) = &self.0 {
            room.give_back(bytes);
        }
    }
}
