//! Zeros ahead of the end of an open pack. Writing over them changes neither the length of the file nor its place on disk,
//! so an fsync needs no commit of the file system itself, which is most of what an fsync of a growing file costs. The zeros
//! count in the budget like all bytes on disk (J8). A crash may leave them: a pack without a good footer is cut behind what
//! is referred to (J7).

use std::io;
use std::ops::RangeInclusive;

use super::area::StagingArea;
use super::reserve::RoomAhead;
use crate::os::{DiskFile, is_full};
use crate::types::{KIB, MIB};

/// The bounds of how many zeros are written ahead, once fewer than `LOW` are left. Within them it is the length of the pack,
/// so that few are wasted on a short one, which may be closed soon.
const AHEAD: RangeInclusive<u64> = LEAST..=8 * LEAST;
const LOW: u64 = LEAST / 4;
const LEAST: u64 = if cfg!(test) { 4 * KIB } else { 32 * KIB }; // tests look at every byte, often
/// If the disk has less free than this, nothing is written ahead: others may need it.
const ENOUGH_FREE: u64 = 64 * MIB;

/// The zeros ahead of one open pack.
#[derive(Debug, Default)]
pub(super) struct ZerosAhead {
    /// Length of the file with the zeros; 0 if there are none.
    upto: u64,
    is_over: bool,
    /// The room that they take.
    room: Option<RoomAhead>,
}

impl ZerosAhead {
    /// The file was cut for want of room: there are no zeros any more, and no more will be written.
    pub(super) fn end(&mut self) {
        *self = Self { upto: 0, is_over: true, room: None };
    }

    /// Leaves the file as it is, until recovery decides about it.
    pub(super) fn stay(&mut self) {
        if let Some(room) = self.room.take() {
            room.stay();
        }
    }

    /// Writes more zeros behind byte `end` of the pack, if few are left and there is room.
    pub(super) fn extend(
        &mut self,
        area: &StagingArea,
        file: &dyn DiskFile,
        end: u64,
    ) -> io::Result<()> {
        let left = self.upto.saturating_sub(end);
        if let Some(room) = &mut self.room {
            room.are_left(left);
        }
        if self.is_over || left >= LOW {
            return Ok(());
        }
        if area.disk.free()? < ENOUGH_FREE {
            self.is_over = true;
            return Ok(());
        }
        let (from, to) = (self.upto.max(end), end + end.clamp(*AHEAD.start(), *AHEAD.end()));
        let room = self.room.get_or_insert_with(|| RoomAhead::none(area.room.clone()));
        if !room.grow(to - from) {
            return Ok(()); // the next write may find some
        }
        let zeros = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
        // Some of them may be written even if this fails.
        self.upto = to;
        match file.write_at(&zeros, from) {
            Err(error) if is_full(&error) => {
                self.is_over = true;
                Ok(())
            }
            other => other,
        }
    }

    /// Cuts the zeros off a pack that is `length` bytes long.
    pub(super) fn cut(&mut self, file: Option<&dyn DiskFile>, length: u64) -> io::Result<()> {
        if let Some(file) = file.filter(|_| self.upto > length) {
            file.set_length(length)?;
        }
        self.end();
        Ok(())
    }
}
