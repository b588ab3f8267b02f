//! What is told of a path's past.

use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use crate::types::{CommitNo, Timestamp};

/// Programs empty a file, and then write it: what is empty for so long at most was being written.
const BEING_WRITTEN: Duration = Duration::from_mins(1);

/// What happened to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It was so in the oldest state that is kept, or in this snapshot.
    Kept(Option<String>),
    /// It came to be.
    Created,
    /// What was somewhere else, or has another name too, got this one.
    Arrived,
    /// It was written, or replaced.
    Written,
    /// It was moved elsewhere.
    Left,
    /// It was deleted.
    Deleted,
}

/// A version of a path, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileVersion {
    /// The commit from which on it was so.
    pub commit: CommitNo,
    /// When that was put, by the store's clock.
    pub time: Timestamp,
    /// What happened.
    pub what: Happened,
    /// The type bits, `S_IFMT`.
    pub kind: u32,
    /// Length in bytes.
    pub size: u64,
    /// What people call the machine that wrote it, if that is known.
    pub host: Option<String>,
}

impl FileVersion {
    /// Whether the path is there from then on.
    pub fn is_there(&self) -> bool {
        !matches!(self.what, Happened::Left | Happened::Deleted)
    }
}

/// How far a look through the log has come; `Break` ends it.
pub type OnHistory<'a> = &'a mut (dyn FnMut(HistoryStep) -> ControlFlow<()> + Send);

/// What a look through the log tells.
#[derive(Clone, Debug)]
pub enum HistoryStep {
    /// A version, the oldest first.
    Version(FileVersion),
    /// More commits were read: so many of so many.
    Read {
        /// Until now.
        commits: u64,
        /// In all.
        of: u64,
    },
}

/// Tells versions, each once it is known what came next.
pub(super) struct Teller<'a> {
    tell: OnHistory<'a>,
    held: Option<FileVersion>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(tell: OnHistory<'a>) -> Self {
        Self { tell, held: None }
    }

    /// A version that follows the one before. One that was only being written is told as a part of it.
    pub(super) fn version(&mut self, mut next: FileVersion) -> ControlFlow<()> {
        match self.held.take() {
            Some(before) if is_being_written(&before, &next) => next.what = before.what,
            Some(before) => (self.tell)(HistoryStep::Version(before))?,
            None => {}
        }
        self.held = Some(next);
        ControlFlow::Continue(())
    }

    pub(super) fn read(&mut self, commits: u64, of: u64) -> ControlFlow<()> {
        (self.tell)(HistoryStep::Read { commits, of })
    }

    /// There is no other.
    pub(super) fn end(mut self) {
        if let Some(last) = self.held.take() {
            // It is the end in any case.
            let _ = (self.tell)(HistoryStep::Version(last));
        }
    }
}

fn is_being_written(before: &FileVersion, next: &FileVersion) -> bool {
    let (from, to) = (SystemTime::from(before.time), SystemTime::from(next.time));
    before.kind == libc::S_IFREG
        && before.size == 0
        && matches!(before.what, Happened::Created | Happened::Written)
        && next.what == Happened::Written
        && to.duration_since(from).unwrap_or_default() <= BEING_WRITTEN
}
