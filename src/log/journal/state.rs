//! What the journal's lock guards, and its reader's place.

use std::collections::VecDeque;

use super::frame::{BarrierMark, NotedCommit};
use super::segment::Segment;
use crate::types::Seq;

pub(super) struct JournalState {
    /// Oldest first; the last one is written to.
    pub(super) segments: VecDeque<Segment>,
    pub(super) seq: Seq,
    pub(super) noted: NotedCommit,
    /// The note that the last barrier covers: C4 and J5 may rely on it.
    pub(super) durable_noted: NotedCommit,
    pub(super) durable: Seq,
    /// All segments below this number are durable.
    pub(super) first_unsynced: u64,
    pub(super) dir_unsynced: bool,
    /// Whether anything but barriers was written since the last one.
    pub(super) unsynced: bool,
    pub(super) poison: Option<String>,
    pub(super) closed: bool,
    pub(super) owed: Owed,
    /// The length at which the last segment is followed by the next.
    pub(super) roll_at: u64,
}

/// Records that had no room. They are written as soon as there is some; nothing has relied on them.
#[derive(Default)]
pub(super) struct Owed {
    pub(super) boot: bool,
    pub(super) note: Option<NotedCommit>,
}

impl JournalState {
    /// A journal that ends with these segments; `durable` is all that is known to be durable.
    pub(super) fn new(
        segments: VecDeque<Segment>,
        seq: Seq,
        noted: NotedCommit,
        durable: Seq,
    ) -> Self {
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
pub(super) struct Cursor {
    pub(super) seq: Seq,
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// What a barrier will cover: see [`Journal::mark`](super::Journal::mark).
#[must_use]
pub struct Mark {
    pub(super) segments: Vec<Segment>,
    pub(super) sync_dir: bool,
    pub(super) place: BarrierMark,
    pub(super) noted: NotedCommit,
}

impl Mark {
    /// The last transaction that it covers.
    #[cfg(test)]
    pub fn upto(&self) -> Seq {
        self.place.upto
    }
}
