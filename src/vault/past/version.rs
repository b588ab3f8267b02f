//! What is reported of a path's past.

use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use crate::types::{CommitNo, Timestamp};

/// Programs empty a file and then write it. A file that is empty for no longer than this counts as
/// being written.
const BEING_WRITTEN: Duration = Duration::from_mins(1);

/// What happened to a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It was so in the oldest state that is kept, or in the named snapshot.
    Kept(Option<String>),
    /// It was created.
    Created,
    /// Something that was elsewhere, or has another name too, got this name.
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
    /// The commit since which it is so.
    pub commit: CommitNo,
    /// When that commit was put, by the store's clock.
    pub time: Timestamp,
    /// What happened.
    pub what: Happened,
    /// The type bits, `S_IFMT`.
    pub kind: u32,
    /// Length in bytes.
    pub size: u64,
    /// The host name of the machine that wrote it, if known.
    pub host: Option<String>,
}

impl FileVersion {
    /// Whether the path exists from then on.
    pub fn is_there(&self) -> bool {
        !matches!(self.what, Happened::Left | Happened::Deleted)
    }
}

/// Called with the progress of a walk through the log; `Break` ends it.
pub type OnHistory<'a> = &'a mut (dyn FnMut(HistoryStep) -> ControlFlow<()> + Send);

/// A step of a walk through the log.
#[derive(Clone, Debug)]
pub enum HistoryStep {
    /// A version; the oldest comes first.
    Version(FileVersion),
    /// More commits were read.
    Read {
        /// Commits read so far.
        commits: u64,
        /// Commits to read in all.
        of: u64,
    },
}

/// Reports versions, each once it is known what came next.
pub(super) struct Teller<'a> {
    tell: OnHistory<'a>,
    held: Option<FileVersion>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(tell: OnHistory<'a>) -> Self {
        Self { tell, held: None }
    }

    /// Takes the next version. One that was only being written is merged into it.
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

    /// Reports the last version.
    pub(super) fn end(mut self) {
        if let Some(last) = self.held.take() {
            // It ends here anyway.
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
