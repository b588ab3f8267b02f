//! What is promised (K4): which manifests count, which pages they name, and what the log after the newest one refers to.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::fate::Age;
use super::place::{ReclaimPlan, Reclaimer};
use super::runs::Pace;
use super::{Error, Result};
use crate::checkpoint::{Base, ListedManifest, Manifest, manifest_name, manifests};
use crate::log::{Chain, DamageError};
use crate::records::{HISTORY_RUN, Pin, Tag, Transaction, extent_of};
use crate::types::{CommitNo, PackId, PageId, Timestamp};

/// What objects are judged by.
pub(super) struct Promised {
    /// The pages of N, the newest manifest, with the pack table.
    pub(super) base: Base,
    /// N: its commit.
    pub(super) newest: CommitNo,
    /// R: states from this commit on are promised; 0: all are.
    pub(super) from: CommitNo,
    pub(super) retention: Duration,
    /// The snapshots that count.
    pub(super) pins: Vec<(Vec<u8>, Pin)>,
    /// Names of the snapshots that have ended.
    pub(super) ended_pins: Vec<Vec<u8>>,
    /// The pages of all manifests that stay.
    pub(super) named: HashSet<(CommitNo, PageId)>,
    /// Manifests that are to be deleted.
    pub(super) expired_manifests: Vec<ListedManifest>,
    /// Packs that commits after N refer to.
    pub(super) referred: HashSet<PackId>,
    /// Commits below this number are in `history`.
    pub(super) in_history: CommitNo,
    /// What the user should know.
    pub(super) trouble: Vec<String>,
}

impl Promised {
    /// Reads manifests, pins, and the log after the newest manifest. `None`: there is no checkpoint, so nothing is old. In
    /// a dry run a checkpoint from before this writer's claim will do, as nothing is deleted by it.
    ///
    /// # Errors
    /// Also [`Error::Wanted`], if nobody waits for this run and somebody waits for another.
    pub(super) async fn make(at: &Reclaimer, plan: ReclaimPlan) -> Result<Option<Self>> {
        let (retention, all_pins) =
            at.index.read(|view| Ok::<_, Error>((view.retention()?, view.pins()?))).await?;
        let (listed, now) = manifests(&at.bucket).await?;
        let time = Timestamp::of_store(now);
        let (pins, ended): (Vec<_>, Vec<_>) =
            all_pins.into_iter().partition(|(_, pin)| pin.is_kept(time));
        let base = at.index.base();
        let Some(manifest) = base.manifest() else { return Ok(None) };
        let (newest, hash) = (manifest.commit, manifest.commit_hash);
        if newest < at.claim && !plan.dry_run {
            return Err(Error::OldBase);
        }
        let in_history = CommitNo(manifest.records(Tag::History) * HISTORY_RUN);
        let mut promised = Self {
            base: base.clone(),
            newest,
            from: CommitNo(0),
            retention,
            pins,
            ended_pins: ended.into_iter().map(|(name, _)| name).collect(),
            named: HashSet::new(),
            expired_manifests: Vec::new(),
            referred: HashSet::new(),
            in_history,
            trouble: Vec::new(),
        };
        promised.judge_manifests(at, listed, now, plan.pace).await?;
        promised.follow_log(at, (newest, hash), plan.pace).await?;
        Ok(Some(promised))
    }

    /// The commits of the snapshots.
    pub(super) fn pinned(&self) -> Vec<CommitNo> {
        self.pins.iter().map(|(_, pin)| pin.commit).collect()
    }

    /// Goes from the newest manifest down: those that verify count, down to the first that is older than the retention.
    async fn judge_manifests(
        &mut self,
        at: &Reclaimer,
        listed: Vec<ListedManifest>,
        now: SystemTime,
        pace: Pace,
    ) -> Result<()> {
        let pinned: HashSet<_> = self.pinned().into_iter().collect();
        let (mut earliest, mut any, mut old) = (None::<SystemTime>, false, false);
        for object in listed.into_iter().rev() {
            let number = object.number;
            let is_pinned = pinned.contains(&number);
            if old && !is_pinned {
                self.expired_manifests.push(object);
                continue;
            }
            at.goes_on(pace)?;
            let Some(manifest) = self.opened(at, &object).await? else { continue };
            let age = Age { modified: object.modified, now };
            // Its writer had slept, and its pages may be gone: no promise begins at it. But in a bucket that was copied all
            // dates are new, so it stays until R is beyond it, with those of its pages that are there. (Two of this
            // writer's own may have the same second.)
            let has_slept = earliest.is_some_and(|earliest| object.modified >= earliest)
                && age.modified > SystemTime::UNIX_EPOCH;
            let is_own = number >= at.claim;
            if has_slept && !is_own && !is_pinned {
                self.named.extend(manifest.pages.iter().map(|page| (page.number, page.id)));
                continue;
            }
            if !any && number != self.newest {
                return Err(Error::OldBase);
            }
            any = true;
            earliest = Some(earliest.map_or(age.modified, |e| e.min(age.modified)));
            self.named.extend(manifest.pages.iter().map(|page| (page.number, page.id)));
            if !old && age.is_over(self.retention) {
                (old, self.from) = (true, number);
            }
        }
        if any { Ok(()) } else { Err(Error::OldBase) }
    }

    /// Opens a manifest. One that does not verify is nobody's base: it is left alone, and reported.
    async fn opened(
        &mut self,
        at: &Reclaimer,
        object: &ListedManifest,
    ) -> Result<Option<Manifest>> {
        match object.open(&at.bucket, &at.keys).await {
            Ok(manifest) => Ok(Some(manifest)),
            Err(error) if error.is_damage() => {
                self.trouble.push(format!("{}: {error}", manifest_name(object.number)));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Notes what commits after the newest manifest refer to, as its pack table does not know that.
    async fn follow_log(
        &mut self,
        at: &Reclaimer,
        anchor: (CommitNo, crate::types::Hash),
        pace: Pace,
    ) -> Result<()> {
        let referred = &mut self.referred;
        let chain = Chain::new(at.bucket.clone(), at.keys.clone());
        let mut see = |key: &[u8], value: Option<&[u8]>| {
            let extent = value.map(|value| extent_of(key, value)).transpose()?.flatten();
            referred.extend(extent.map(|extent| extent.reference.pack));
            Ok::<_, Error>(())
        };
        let followed = chain.follow(anchor, |link| {
            at.goes_on(pace)?;
            for change in &link.content.header.records {
                see(&change.key, change.value.as_deref())?;
            }
            for bytes in &link.content.transactions {
                Transaction::visit(bytes, &mut see)?;
            }
            Ok::<_, Error>(())
        });
        followed.await?;
        Ok(())
    }
}
