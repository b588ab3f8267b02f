//! The door's one verb: a run from the first look to the last deletion.

use std::time::Duration;

use super::place::{ReclaimPlan, Reclaimer, Tell};
use super::promised::Promised;
use super::reclaimed::Reclaimed;
use super::runs::RunUnderWay;
use super::sweep::Sweep;
use super::{Error, Result};
use crate::upload::Staging;

/// How often a run begins again because what is promised changed.
const TRIES: usize = 4;
/// How long what was written before may take to get to the bucket while nothing moves.
const PATIENCE: Duration = Duration::from_secs(60);

/// While it lives, what appends refer to is kept in mind.
struct UnderWay<'a>(&'a Staging);

impl<'a> UnderWay<'a> {
    fn begin(staging: &'a Staging) -> Self {
        staging.begin_deletion();
        Self(staging)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.end_deletion();
    }
}

impl Reclaimer {
    /// Deletes what no promised state needs (K4, K5), as of the newest checkpoint. In the background it ends after its step
    /// when somebody waits for a run, and says so in the report.
    ///
    /// # Errors
    /// See [`Error`]. What the store refuses to delete is none, but told in the report.
    pub async fn run(
        &self,
        plan: ReclaimPlan,
        _one: &RunUnderWay<'_>,
        tell: Tell<'_>,
    ) -> Result<Reclaimed> {
        let mut tries = 0;
        loop {
            match self.once(plan, tell).await {
                Err(Error::PromisesChanged) if tries < TRIES => tries += 1,
                other => return other,
            }
        }
    }

    /// Returns when everything appended before is in the bucket.
    ///
    /// # Errors
    /// It is not, and nothing has moved for a minute.
    pub async fn settle(&self) -> Result<()> {
        let appended = self.journal.appended();
        Ok(self.uploader.sync_while_moving(appended, PATIENCE, || {}).await?)
    }

    async fn once(&self, plan: ReclaimPlan, tell: Tell<'_>) -> Result<Reclaimed> {
        let _under_way = UnderWay::begin(&self.staging);
        let nothing = Reclaimed { dry_run: plan.dry_run, ..Reclaimed::default() };
        let gave_way = Reclaimed { gave_way: true, ..nothing.clone() };
        match self.runs.unless_wanted(plan.pace, self.settle()).await {
            Some(settled) => settled?,
            None => return Ok(gave_way),
        }
        let promised = match Promised::make(self, plan).await {
            Ok(Some(promised)) => promised,
            Ok(None) => return Ok(nothing),
            Err(Error::Wanted) => return Ok(gave_way),
            Err(error) => return Err(error),
        };
        Sweep::new(self, &promised, plan, tell).run().await
    }
}
