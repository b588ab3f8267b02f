//! Goes over the objects of each kind, page by page, and judges them (K4).

use super::Result;
use super::deletion::{Batch, EndedEarly, names_of};
use super::fate::{Age, COMMITS_KEPT, PackFate, PackJudge};
use super::place::{ReclaimPlan, Reclaimer, Tell};
use super::promised::Promised;
use super::reclaimed::{ObjectTally, Reclaimed, SparsePack};
use crate::checkpoint::{Pins, manifest_name, pack_row};
use crate::log::parse_commit_name;
use crate::store::{Listed, Lister};
use crate::types::{CommitNo, Generation, PackId, PageId};
use crate::upload::pack_object;

/// The kinds of objects that are deleted, as they are counted.
#[derive(Clone, Copy)]
enum Kind {
    Packs,
    Checkpoints,
    Commits,
    Others,
}

/// One run over all objects.
pub(super) struct Sweep<'a> {
    at: &'a Reclaimer,
    promised: &'a Promised,
    plan: ReclaimPlan,
    tell: Tell<'a>,
    /// The results so far. Once the store has refused, nothing more is tried.
    report: Reclaimed,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(
        at: &'a Reclaimer,
        promised: &'a Promised,
        plan: ReclaimPlan,
        tell: Tell<'a>,
    ) -> Self {
        let report = Reclaimed {
            dry_run: plan.dry_run,
            oldest: promised.from.0,
            trouble: promised.trouble.clone(),
            ..Reclaimed::default()
        };
        Self { at, promised, plan, tell, report }
    }

    /// Goes over all kinds. Objects that let an old state be opened go before those that it needs.
    pub(super) async fn run(mut self) -> Result<Reclaimed> {
        let mut manifests = Batch::default();
        for object in &self.promised.expired_manifests {
            manifests.push(manifest_name(object.number), object.length);
        }
        self.carry_out(manifests, Kind::Checkpoints).await?;
        self.listed("page/", Kind::Checkpoints, Self::page_goes).await?;
        self.listed("log/", Kind::Commits, Self::commit_goes).await?;
        self.packs().await?;
        self.listed("superblock/", Kind::Others, Self::superblock_goes).await?;
        self.listed("probe/", Kind::Others, Self::probe_goes).await?;
        let ended_early = self.report.refused.is_some() || self.report.gave_way;
        let is_done = !self.plan.dry_run && !ended_early;
        if is_done && self.report.packs.objects > 0 {
            self.at.put_horizon(self.promised, Some(self.promised.from)).await?;
        } else if is_done && !self.promised.ended_pins.is_empty() && self.report.gone().objects == 0
        {
            self.at.put_horizon(self.promised, None).await?;
        }
        self.report.keep_worst();
        Ok(self.report)
    }

    /// Whether this run is to end because somebody waits for another and nobody for this one. The next run finds what this one
    /// leaves.
    fn gives_way(&mut self) -> bool {
        self.report.gave_way |= self.at.runs.gives_way(self.plan.pace);
        self.report.gave_way
    }

    async fn packs(&mut self) -> Result<()> {
        let (pins, names) = (self.promised.pinned(), names_of(&self.promised.pins));
        let promise =
            PackJudge { from: self.promised.from, pins: &pins, retention: self.promised.retention };
        let mut lister = Lister::of(&self.at.bucket, "pack/");
        let mut batch = Batch::default();
        while let Some((objects, now)) = lister.next().await? {
            let mut blocks = Pins::new();
            for object in objects {
                if self.gives_way() {
                    return Ok(());
                }
                let Some(pack) = pack_of(&object.name) else { continue };
                let row = pack_row(&self.promised.base, pack, &mut blocks).await?;
                let mut fate = promise.fate(row.as_ref(), Age { modified: object.modified, now });
                if self.promised.referred.contains(&pack) {
                    fate = PackFate::Live;
                }
                self.note(fate, &object, &names);
                if let Some(row) = row.filter(|row| row.references > 0) {
                    self.report.weigh(SparsePack::of(pack, object.length, &row));
                }
                if fate == PackFate::Goes {
                    batch.push_pack(pack, object.length);
                }
            }
            if batch.is_full() {
                self.carry_out(std::mem::take(&mut batch), Kind::Packs).await?;
            }
            (self.tell)(&self.report);
        }
        self.carry_out(batch, Kind::Packs).await
    }

    fn note(&mut self, fate: PackFate, object: &Listed, names: &[String]) {
        let report = &mut self.report;
        match fate {
            PackFate::Goes => {}
            PackFate::Live => report.live.count(object.length),
            PackFate::Retained => report.retained.count(object.length),
            PackFate::Young => report.young.count(object.length),
            PackFate::Pinned(only) => {
                report.pinned.count(object.length);
                if let Some(name) = only.and_then(|only| names.get(only)) {
                    *report.alone.entry(name.clone()).or_default() += object.length;
                }
            }
        }
    }

    /// Goes over the objects below a prefix whose judgement needs no look-up.
    async fn listed(
        &mut self,
        prefix: &str,
        kind: Kind,
        goes: fn(&Self, &Listed, Age) -> bool,
    ) -> Result<()> {
        let mut lister = Lister::of(&self.at.bucket, prefix);
        let mut batch = Batch::default();
        while let Some((objects, now)) = lister.next().await? {
            if self.gives_way() {
                return Ok(());
            }
            for object in objects {
                if goes(self, &object, Age { modified: object.modified, now }) {
                    batch.push(object.name, object.length);
                }
            }
            if batch.is_full() {
                self.carry_out(std::mem::take(&mut batch), kind).await?;
            }
            (self.tell)(&self.report);
        }
        self.carry_out(batch, kind).await
    }

    fn page_goes(&self, object: &Listed, age: Age) -> bool {
        let Some((number, id)) = page_of(&object.name) else { return false };
        number <= self.promised.newest
            && age.is_over(self.promised.retention)
            && !self.promised.named.contains(&(number, id))
    }

    fn commit_goes(&self, object: &Listed, age: Age) -> bool {
        let Some(number) = parse_commit_name(&object.name) else { return false };
        number <= self.promised.from
            && number < self.promised.in_history
            && age.is_over(COMMITS_KEPT.max(self.promised.retention))
    }

    fn superblock_goes(&self, object: &Listed, _: Age) -> bool {
        let number = object.name.strip_prefix("superblock/").and_then(|n| n.parse().ok());
        number.is_some_and(|number: Generation| number < self.at.generation.get())
    }

    fn probe_goes(&self, _: &Listed, age: Age) -> bool {
        age.is_over(self.promised.retention.max(COMMITS_KEPT))
    }

    async fn carry_out(&mut self, batch: Batch, kind: Kind) -> Result<()> {
        if batch.is_empty() || self.report.refused.is_some() || self.gives_way() {
            return Ok(());
        }
        let mut gone = ObjectTally::default();
        if self.plan.dry_run {
            batch.lengths().for_each(|bytes| gone.count(bytes));
        } else {
            let went = |bytes| gone.count(bytes);
            let deleted = self.at.delete(self.promised, batch, self.plan.pace, went);
            match deleted.await? {
                Some(EndedEarly::Refused(why)) => self.report.refused = Some(why),
                Some(EndedEarly::Wanted) => self.report.gave_way = true,
                None => {}
            }
        }
        let place = match kind {
            Kind::Packs => &mut self.report.packs,
            Kind::Checkpoints => &mut self.report.checkpoints,
            Kind::Commits => &mut self.report.commits,
            Kind::Others => &mut self.report.others,
        };
        *place += gone;
        (self.tell)(&self.report);
        Ok(())
    }
}

fn pack_of(name: &str) -> Option<PackId> {
    let id: PackId = name.rsplit_once('/')?.1.parse().ok()?;
    (pack_object(id) == name).then_some(id)
}

fn page_of(name: &str) -> Option<(CommitNo, PageId)> {
    let (number, id) = name.strip_prefix("page/")?.split_once('/')?;
    Some((number.parse().ok()?, id.parse().ok()?))
}
