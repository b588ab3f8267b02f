//! What was here goes on: the journal as far as it is sound (J3), staging, and the index at the journal's end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::aside;
use super::budgets::disk_budget;
use super::open::OpenContext;
use super::survey::Survey;
use super::this_machine::make_private;
use super::{Error, Result};
use crate::content::{FooterKeys, extent_opens};
use crate::index::Index;
use crate::log::{Inspection, Journal, JournalOptions, NotedCommit};
use crate::os::{self, Directory, PipelineStep};
use crate::types::{PackId, Reference, Seq};
use crate::upload::{Staging, StagingLimits};

impl OpenContext<'_> {
    pub(super) fn open_staging(&self) -> Result<Staging> {
        let budget = disk_budget(&self.state_dir.root, self.options.cache_size) / 2;
        let mut limits = StagingLimits { budget, ..StagingLimits::default() };
        if let Ok(space) = crate::os::space(&self.state_dir.root) {
            limits.free_floor = crate::os::keep_free(space.total);
        }
        make_private(&self.state_dir.staging())?;
        Ok(Staging::open(&self.state_dir.staging(), limits)?)
    }

    /// J3: an unconfirmed record is bad if an extent that it refers to is not in staging;
    /// measured, and after an unclean reboot opened.
    pub(super) fn check_staged(
        &self,
        staging: &Staging,
        found: &mut Inspection,
        confirmed: Seq,
    ) -> Result<()> {
        // A note that a pack was dropped may go with what is dropped: then what refers to it is looked at again.
        while let Some(bad) = self.first_bad(staging, found, confirmed) {
            found.drop_from(bad)?;
        }
        Ok(())
    }

    fn first_bad(&self, staging: &Staging, found: &Inspection, confirmed: Seq) -> Option<Seq> {
        let open = !found.clean && found.boot != self.options.machine.boot;
        let dropped: HashSet<_> = found.dropped().map(|dropped| dropped.pack).collect();
        for tx in found.unsent.iter().filter(|tx| tx.seq > confirmed) {
            for reference in tx.staged.iter().filter(|r| !dropped.contains(&r.pack)) {
                let end = reference.offset + reference.sealed_length;
                let there = staging.length(reference.pack).is_some_and(|length| length >= end);
                let whole = there && (!open || self.opens(staging, reference));
                if !whole {
                    tracing::warn!(seq = tx.seq.0, pack = %reference.pack, "an extent of an unsent change is not in staging");
                    return Some(tx.seq);
                }
            }
        }
        None
    }

    fn opens(&self, staging: &Staging, reference: &Reference) -> bool {
        let range = reference.offset..reference.offset + reference.sealed_length;
        let Ok(Some(sealed)) = staging.read(reference.pack, range) else { return false };
        extent_opens(self.keys(), reference, &sealed)
    }

    /// The journal that is written from now on, with the index at its end.
    pub(super) fn go_on(
        &self,
        found: Option<Inspection>,
        staging: &Staging,
        index: &Index,
        survey: &Survey,
        warnings: &mut Vec<String>,
    ) -> Result<Arc<Journal>> {
        let dir = self.state_dir.journal();
        let disk = Directory::open(&dir)
            .map_err(Error::io("the journal's directory cannot be opened or made"))?;
        let options = JournalOptions {
            keys: self.keys().clone(),
            boot: self.options.machine.boot.clone(),
            disk: Arc::new(disk),
            watcher: Some(Arc::new(staging.clone())),
            room: Some(staging.journal_room()),
        };
        let head = (survey.head.number, survey.head.hash);
        if let Some(torn) = found.as_ref().and_then(|found| found.torn) {
            tracing::warn!(
                segment = torn.segment,
                offset = torn.offset,
                "a torn tail of the journal is dropped"
            );
            warnings.push(
                "the last changes before a crash were not completely written and are dropped"
                    .into(),
            );
        }
        let unsent = found.filter(|found| found.unsent.iter().any(|tx| tx.seq > survey.confirmed));
        let Some(found) = unsent else {
            aside::remove_files(&dir).map_err(Error::io("the old journal cannot be removed"))?;
            staging.recover(&HashMap::new(), &self.footers())?;
            let noted = NotedCommit { upto: Seq(0), number: head.0, hash: head.1 };
            let journal = Arc::new(Journal::create(options, noted)?);
            os::reached(PipelineStep::JournalBegun);
            index.set_journal(journal.id(), Seq(0));
            index.attach(journal.clone());
            index.persist_point()?;
            return Ok(journal);
        };
        let dropped: Vec<_> = found.dropped().collect();
        staging.restore_dropped(&dropped);
        let dropped: HashSet<_> = dropped.into_iter().map(|dropped| dropped.pack).collect();
        let mut referred: HashMap<PackId, u64> = HashMap::new();
        for tx in found.unsent.iter().filter(|tx| tx.seq > survey.confirmed) {
            let staged = || tx.staged.iter().filter(|r| !dropped.contains(&r.pack));
            let packs: Vec<_> = staged().map(|reference| reference.pack).collect();
            staging.appending(tx.seq, &packs)?;
            for reference in staged() {
                let end = referred.entry(reference.pack).or_default();
                *end = (*end).max(reference.offset + reference.sealed_length);
            }
        }
        staging.recover(&referred, &self.footers())?;
        let journal = Arc::new(Journal::resume(options, &found)?);
        os::reached(PipelineStep::JournalResumed);
        if survey.confirmed > found.noted.upto {
            let (number, hash) = head;
            journal.note_confirmed(NotedCommit { upto: survey.confirmed, number, hash })?;
        }
        index.set_journal(journal.id(), survey.confirmed);
        let mut after = survey.confirmed;
        loop {
            let part = journal.read_after(after, 4 << 20)?;
            let Some(last) = part.last() else { break };
            after = last.seq;
            index.replay(&part)?;
        }
        os::reached(PipelineStep::JournalReplayed);
        index.attach(journal.clone());
        index.persist_point()?;
        Ok(journal)
    }

    fn footers(&self) -> FooterKeys {
        FooterKeys(self.keys().clone())
    }
}
