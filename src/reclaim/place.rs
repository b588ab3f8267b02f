//! What deletion works on, and what it is asked to do.

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

/// What a run is to do.
#[derive(Clone, Copy, Debug)]
pub struct ReclaimPlan {
    /// Delete and write nothing; report what would be deleted.
    pub dry_run: bool,
    /// Its speed.
    pub pace: Pace,
}

impl Reclaimer {
    /// # Errors
    /// [`Error::Wanted`] if a run of this pace should end.
    pub(super) fn goes_on(&self, pace: Pace) -> Result<()> {
        if self.runs.gives_way(pace) { Err(Error::Wanted) } else { Ok(()) }
    }
}

/// Called with the progress of a run.
pub(super) type Tell<'a> = &'a (dyn Fn(&Reclaimed) + Send + Sync);

/// Deletes in the bucket of an open vault that this process writes.
pub struct Reclaimer {
    /// Where the objects are.
    pub bucket: Bucket,
    /// The vault's keys.
    pub keys: Keys,
    /// The commit of this writer's claim: only a checkpoint made since then counts (K4).
    pub claim: CommitNo,
    /// The generation of the superblock that counts.
    pub generation: CurrentGeneration,
    /// The map.
    pub index: Index,
    /// What is on this machine, and must stay.
    pub staging: Staging,
    /// For the last transaction appended.
    pub journal: Arc<Journal>,
    /// Waits for receipts.
    pub uploader: Arc<Uploader>,
    /// Who waits for a run.
    pub runs: Arc<Runs>,
    /// How many transactions deletion itself has put. By these alone nothing can have died.
    pub horizons: AtomicU64,
}
