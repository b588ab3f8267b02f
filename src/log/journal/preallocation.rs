//! Disk room for the journal (J8). The journal's room is counted together with staging's. The journal reserves some room
//! ahead of its end; how much of that a record may use depends on its [`RoomClass`].

use std::sync::Arc;

use super::segment::{SEGMENT_BYTES, Segment};
use crate::log::{Error, Result};
use crate::os::is_full;
use crate::types::{KIB, MIB};

/// What a record is for, which decides how much of the reserved room it may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomClass {
    /// An ordinary change: uses none of the reserve.
    Change,
    /// A change that frees room: may use most of the reserve.
    FreesRoom,
    /// What must always go on: barriers, and notes of what the bucket has. May use all of the reserve.
    Upkeep,
}

/// Where the journal's bytes on the disk are counted, beside those of staging (J8).
pub trait JournalRoom: Send + Sync {
    /// How many bytes the journal reserves ahead of its end, so that they are there whoever fills the disk.
    fn kept_ahead(&self) -> u64;
    /// Counts `bytes` more if `class` may have them, and returns whether it may. Does not wait.
    fn take(&self, bytes: u64, class: RoomClass) -> bool;
    /// Counts `bytes` that are on the disk already.
    fn found(&self, bytes: u64);
    /// Gives `bytes` back.
    fn give_back(&self, bytes: u64);
}

/// Reserves room ahead of the journal's end, and accounts for it in a [`JournalRoom`] if there is one.
pub(super) struct Preallocation(pub(super) Option<Arc<dyn JournalRoom>>);

impl Preallocation {
    fn ahead(&self) -> u64 {
        self.0.as_ref().map_or(0, |room| room.kept_ahead())
    }

    /// The length at which a segment is followed by the next. It is small where there is little room, so that old
    /// segments go soon.
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

    /// Reserves room up to byte `wanted` of the segment, if the budget and the disk have it.
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

    /// Reserves room for `length` bytes more and for the reserve, if there is any.
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

    /// Makes sure that the disk has room for `length` bytes more, and for the part of the reserve that `class` may not
    /// use.
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

    /// Reserves room for a new segment: all of the reserve, or, for the first segment, what there is.
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

    /// Counts the room of existing segments.
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
