//! Continues with the local data: the journal, staging, and the index at the journal's end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::aside;
use super::budgets::disk_budget;
use super::open::OpenContext;
use super::survey::Survey;
use super::this_machine::make_private;
use super::{Error, Result};
use crate::content::FooterKeys;
use crate::index::Index;
use crate::log::{Inspection, Journal, JournalOptions, NotedCommit};
use crate::os::{self, Directory, PipelineStep};
use crate::types::{PackId, Seq};
use crate::upload::{ReferredParts, Staging, StagingLimits};

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

    /// Returns the journal to write from now on, with the index brought to its end.
    pub(super) fn go_on(
        &self,
        found: Option<Inspection>,
        staging: &Staging,
        index: &Index,
        survey: &Survey,
    ) -> Result<Arc<Journal>> {
        let disk = Directory::open(&self.state_dir.journal())
            .map_err(Error::io("the journal's directory cannot be opened or made"))?;
        let options = JournalOptions {
            keys: self.keys().clone(),
            boot: self.options.machine.boot.clone(),
            disk: Arc::new(disk),
            watcher: Some(Arc::new(staging.clone())),
            room: Some(staging.journal_room()),
        };
        if let Some(torn) = found.as_ref().and_then(|found| found.torn) {
            tracing::warn!(
                segment = torn.segment,
                offset = torn.offset,
                "a torn tail of the journal is dropped"
            );
            self.warn(
                "the last changes before a crash were not completely written and are dropped"
                    .to_owned(),
            );
        }
        let unsent = found.filter(|found| found.unsent.iter().any(|tx| tx.seq > survey.confirmed));
        let journal = match unsent {
            None => self.begin_journal(options, staging, index, survey)?,
            Some(found) => self.resume_journal(options, &found, staging, index, survey)?,
        };
        index.attach(journal.clone());
        index.persist_point()?;
        Ok(journal)
    }

    /// Begins a new journal, which notes the head of the log: nothing is unsent.
    fn begin_journal(
        &self,
        options: JournalOptions,
        staging: &Staging,
        index: &Index,
        survey: &Survey,
    ) -> Result<Arc<Journal>> {
        // In this order, each step durable: packs without a journal are damage (J3).
        staging.recover(&HashMap::new(), &self.footers())?;
        os::sync_dir(&self.state_dir.staging()).map_err(Error::io("an fsync of staging failed"))?;
        aside::remove_files(&self.state_dir.journal())
            .map_err(Error::io("the old journal cannot be removed"))?;
        let noted = NotedCommit::head(survey.head.number, survey.head.hash);
        let journal = Arc::new(Journal::create(options, noted)?);
        os::reached(PipelineStep::JournalBegun);
        index.set_journal(journal.id(), Seq(0));
        Ok(journal)
    }

    /// Continues the same journal, with the packs that it refers to, and replays it into the index: something is unsent.
    fn resume_journal(
        &self,
        options: JournalOptions,
        found: &Inspection,
        staging: &Staging,
        index: &Index,
        survey: &Survey,
    ) -> Result<Arc<Journal>> {
        let dropped: Vec<_> = found.dropped().collect();
        staging.restore_dropped(&dropped);
        let dropped: HashSet<_> = dropped.into_iter().map(|dropped| dropped.pack).collect();
        let mut referred: HashMap<PackId, ReferredParts> = HashMap::new();
        for tx in found.unsent.iter().filter(|tx| tx.seq > survey.confirmed) {
            let staged = || tx.staged.iter().filter(|r| !dropped.contains(&r.pack));
            let packs: Vec<_> = staged().map(|reference| reference.pack).collect();
            staging.appending(tx.seq, &packs)?;
            for reference in staged() {
                let part = reference.offset..reference.offset + reference.sealed_length;
                referred.entry(reference.pack).or_default().add(part);
            }
        }
        staging.recover(&referred, &self.footers())?;
        let journal = Arc::new(Journal::resume(options, found)?);
        os::reached(PipelineStep::JournalResumed);
        if survey.confirmed > found.noted.upto() {
            journal.note_found(survey.confirmed, survey.head.number, survey.head.hash)?;
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
        Ok(journal)
    }

    fn footers(&self) -> FooterKeys {
        FooterKeys(self.keys().clone())
    }
}
