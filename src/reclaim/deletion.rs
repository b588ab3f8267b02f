//! Freeze, receipt, delete (K5): the one place that deletes a vault's data.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::place::Reclaimer;
use super::promised::Promised;
use super::runs::Pace;
use super::{Error, Result};
use crate::os::{self, PipelineStep};
use crate::records::{Horizon, Pin};
use crate::types::{CommitNo, PackId, Timestamp, with_causes};
use crate::upload::pack_object;

/// How many objects are frozen for one receipt, at most.
const BATCH: usize = 10_000;
/// How many names one request has, at most (S3's limit).
const AT_ONCE: usize = 1000;
/// How long the receipt may take while nothing gets to the bucket.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a background deletion waits for uploads to end before each request, at most.
const GIVES_WAY: Duration = Duration::from_secs(600);

/// Why a batch was not deleted to its end.
pub(super) enum EndedEarly {
    /// The store refuses; what it says.
    Refused(String),
    /// Somebody waits for a run, and nobody waits for this one.
    Wanted,
}

/// Objects that are deleted together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    packs: Vec<(PackId, u64)>,
    others: Vec<(String, u64)>,
}

impl Batch {
    pub(super) fn push_pack(&mut self, pack: PackId, bytes: u64) {
        self.packs.push((pack, bytes));
    }

    pub(super) fn push(&mut self, name: String, bytes: u64) {
        self.others.push((name, bytes));
    }

    pub(super) fn is_full(&self) -> bool {
        self.packs.len() + self.others.len() >= BATCH
    }

    pub(super) fn lengths(&self) -> impl Iterator<Item = u64> + '_ {
        let packs = self.packs.iter().map(|(_, bytes)| *bytes);
        packs.chain(self.others.iter().map(|(_, bytes)| *bytes))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.others.is_empty()
    }
}

impl Reclaimer {
    /// Deletes those objects of a batch that nothing on this machine needs, and calls `went` with the bytes of each. Returns
    /// why it ended early, if it did.
    pub(super) async fn delete(
        &self,
        promised: &Promised,
        batch: Batch,
        pace: Pace,
        mut went: impl FnMut(u64),
    ) -> Result<Option<EndedEarly>> {
        let packs: Vec<_> = batch.packs.iter().map(|(pack, _)| *pack).collect();
        let frozen: std::collections::HashSet<_> =
            self.staging.freeze(&packs, self.uploader.confirmed()).into_iter().collect();
        os::reached(PipelineStep::Frozen);
        let packs = batch.packs.into_iter().filter(|(pack, _)| frozen.contains(pack));
        let packs = packs.map(|(pack, bytes)| (pack_object(pack), bytes));
        let all: Vec<_> = packs.chain(batch.others).collect();
        if all.is_empty() {
            return Ok(None);
        }
        let result = async {
            self.put_horizon(promised, None).await?;
            os::reached(PipelineStep::DeletionProven);
            for some in all.chunks(AT_ONCE) {
                if pace == Pace::Background {
                    let _ = self.runs.unless_wanted(pace, self.uploads_end()).await;
                }
                if self.runs.gives_way(pace) {
                    return Ok(Some(EndedEarly::Wanted));
                }
                let began = Instant::now();
                let names: Vec<_> = some.iter().map(|(name, _)| name.clone()).collect();
                if let Err(error) = self.bucket.delete(&names).await {
                    return Ok(Some(EndedEarly::Refused(with_causes(&error))));
                }
                os::reached(PipelineStep::Deleted);
                some.iter().for_each(|(_, bytes)| went(*bytes));
                if pace == Pace::Background {
                    let rest = sleep(pace.rest_after(began.elapsed()));
                    let _ = self.runs.unless_wanted(pace, rest).await;
                }
            }
            Ok(None)
        };
        let result = result.await;
        self.staging.thaw();
        result
    }

    /// Puts the horizon, with how far deletion has come, removes ended snapshots, and returns when that is in the bucket.
    /// This proves that nobody else has written since the batch was frozen, and that the snapshots are those by which it was
    /// judged.
    pub(super) async fn put_horizon(
        &self,
        promised: &Promised,
        emptied: Option<CommitNo>,
    ) -> Result<()> {
        let put = self.index.change(|draft| {
            let before = draft.horizon()?;
            let before = before.map_or((CommitNo(0), CommitNo(0)), |h| (h.commit, h.emptied));
            let is_ended = |name: &Vec<u8>| promised.ended_pins.contains(name);
            let (ended, kept): (Vec<_>, Vec<_>) =
                draft.pins()?.into_iter().partition(|(name, _)| is_ended(name));
            if kept != promised.pins || draft.retention()? != promised.retention {
                return Err(Error::PromisesChanged);
            }
            for (name, _) in ended {
                draft.delete_pin(&name)?;
            }
            draft.put_horizon(&Horizon {
                commit: before.0.max(promised.from),
                emptied: emptied.map_or(before.1, |emptied| before.1.max(emptied)),
                time: Timestamp::now(),
            });
            draft.frees_room();
            Ok(())
        });
        let ((), seq) = put.await?;
        self.horizons.fetch_add(1, Relaxed);
        self.uploader.sync_while_moving(seq, PATIENCE, || {}).await?;
        Ok(())
    }

    /// Waits for uploads to end, up to `GIVES_WAY`.
    async fn uploads_end(&self) {
        let until = Instant::now() + GIVES_WAY;
        let is_sending = || {
            let usage = self.staging.usage();
            usage.unsent_packs > usage.open_packs
        };
        while is_sending() && Instant::now() < until {
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// The snapshots' names, for people.
pub(super) fn names_of(pins: &[(Vec<u8>, Pin)]) -> Vec<String> {
    pins.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
}
