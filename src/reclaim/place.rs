//! Where deletion works, and what is asked of it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::reclaimed::Reclaimed;
use super::runs::{Pace, Runs};
use super::{Error, Result};
use crate::crypto::Keys;
use crate::index::Index;
use crate::log::Journal;
use crate::store::Bucket;
use crate::types::{CommitNo, CurrentGeneration};
use crate::upload::{Staging, Uploader};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct ReclaimPlan {
    /// Nothing is deleted or written; what would be is told.
    pub dry_run: bool,
    /// How fast.
    pub pace: Pace,
}

impl Reclaimer {
    /// # Errors
    /// [`Error::Wanted`]: a run of this pace should end.
    pub(super) fn goes_on(&self, pace: Pace) -> Result<()> {
        if self.runs.gives_way(pace) { Err(Error::Wanted) } else { Ok(()) }
    }
}

/// Hears how far a run has come.
pub(super) type Tell<'a> = &'a (dyn Fn(&Reclaimed) + Send + Sync);

/// What deletes in the bucket of an open vault that this process writes.
pub struct Reclaimer {
    /// Where.
    pub bucket: Bucket,
    /// The vault's keys.
    pub keys: Keys,
    /// The commit of this writer's claim: only a checkpoint since then counts (K4).
    pub claim: CommitNo,
    /// The superblock that counts.
    pub generation: CurrentGeneration,
    /// The map.
    pub index: Index,
    /// What is here, and must stay.
    pub staging: Staging,
    /// What was appended.
    pub journal: Arc<Journal>,
    /// Brings receipts.
    pub uploader: Arc<Uploader>,
    /// Who waits for a run.
    pub runs: Arc<Runs>,
    /// Transactions that deletion itself has put: of these alone nothing can have died.
    pub horizons: AtomicU64,
}
