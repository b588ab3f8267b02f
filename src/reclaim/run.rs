//! A whole run, from the first look to the last deletion.

use std::time::Duration;

use super::place::{ReclaimPlan, Reclaimer, Tell};
use super::promised::Promised;
use super::reclaimed::Reclaimed;
use super::runs::RunUnderWay;
use super::sweep::Sweep;
use super::{Error, Result};
use crate::upload::Staging;

/// How often a run starts over because the promises changed.
const TRIES: usize = 4;
/// How long earlier changes may take to get to the bucket while nothing moves.
const PATIENCE: Duration = Duration::from_secs(60);

/// While it lives, staging remembers what appends refer to.
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
    /// Deletes what no promised state needs (K4, K5), as of the newest checkpoint. A background run ends after its current
    /// step when somebody waits for a run, and says so in the report.
    ///
    /// # Errors
    /// See [`Error`]. If the store refuses to delete, that is no error, but in the report.
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

    /// Waits until everything appended before the call is in the bucket.
    ///
    /// # Errors
    /// It is not there, and nothing has moved for a minute.
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
