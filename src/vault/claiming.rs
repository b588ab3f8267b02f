//! Opening a vault for writing: who may (W2), what goes on and what is set aside, and the claim (W1).

use std::sync::Arc;

use super::aside::Aside;
use super::open::OpenContext;
use super::survey::Survey;
use super::{Error, Result};
use crate::checkpoint::{MANIFESTS, manifest_name};
use crate::index::{self, Index};
use crate::log::{CommitError, Committer, Inspection, Journal, LogEnd, Receipt};
use crate::os::{self, PipelineStep};
use crate::records::Claimant;
use crate::types::InodeNo;
use crate::upload::Staging;

/// How often two writers may race for the claim before we give up.
const CLAIM_TRIES: usize = 5;
/// How often the put of one claim is made before the mount fails with its cause.
const PUT_TRIES: u32 = 4;

/// A writer's rooms, opened and claimed; nothing runs yet.
pub(super) struct Claimed {
    pub index: Index,
    pub journal: Arc<Journal>,
    pub staging: Staging,
    pub committer: Committer,
    pub survey: Survey,
    pub claim: Receipt,
    /// For the user; taken from the context when the vault is open, so that no try to claim it loses one.
    pub warnings: Vec<String>,
}

/// A warning: what was fsynced there is not lost, but nothing here would show that it is missing.
const ELSEWHERE: &str = "this machine wrote this vault last, from another state directory, and did not end cleanly there: what \
     had not been uploaded is not part of what is mounted here. It lies in that directory; the next mount with it sets it \
     aside, and `s3vault recover` brings it back. If that directory is lost, so is this";

impl OpenContext<'_> {
    /// Opens for writing (W1): reads, decides, claims. Nothing is sent before the claim, and nothing local changes before the
    /// journal is known to be whole (J3). `found` is what the first look at the journal found.
    pub(super) async fn writer(&self, found: Option<Inspection>) -> Result<Claimed> {
        let mut first = Some(found);
        let mut index_was_damaged = false;
        for _ in 0..CLAIM_TRIES {
            // A try that failed may have changed the journal.
            let found = match first.take() {
                Some(found) => found,
                None => self.inspect_journal()?,
            };
            match self.try_claim(found).await {
                Ok(Some(opened)) => return Ok(opened),
                Ok(None) => {}
                // The damage is noted: the next try begins with an empty index, as the next mount would (J4).
                Err(Error::Index(index::Error::Damaged(why))) if !index_was_damaged => {
                    tracing::warn!(why, "the local index is damaged; it is made anew");
                    index_was_damaged = true;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Contended)
    }

    async fn try_claim(&self, mut journal: Option<Inspection>) -> Result<Option<Claimed>> {
        let (mut index, mut survey) = self.survey(journal.as_ref(), false).await?;
        self.may_write(&survey)?;
        if self.is_elsewhere(&survey, journal.as_ref(), &index) {
            self.warn(ELSEWHERE.to_owned());
        }
        let (staging, whole) = self.whole_staging(journal.as_ref(), survey.confirmed).await?;
        if let Some(found) = &mut journal {
            self.check_staged(&staging, found, survey.confirmed, &whole)?;
            // The index was checked against the journal as it was before: it may hold changes that are dropped now (J4).
            if index.point().journal == found.journal && index.point().seq > found.last {
                tracing::info!("the local index is ahead of the journal; it is made anew");
                drop(index);
                (index, survey) = self.survey(Some(found), true).await?;
            }
        }
        let unsent = |found: &Inspection| found.unsent.iter().any(|tx| tx.seq > survey.confirmed);
        if let Some(found) = journal.take_if(|found| !survey.continues && unsent(found)) {
            let confirmed = survey.confirmed;
            let (state_dir, keys) = (&self.state_dir.root, self.keys());
            let aside = Aside { state_dir, keys, found: &found, confirmed };
            let folder = aside.set_aside(Some(&index)).await?;
            tracing::warn!(folder = %folder.display(), "unsent changes are set aside");
            let who = match self.wrote_last(&survey) {
                true => "this machine wrote this vault from another state directory",
                false => "another machine wrote this vault",
            };
            self.warn(format!(
                "{who} while changes from here were not uploaded; they are kept in {}; `s3vault recover` brings them back, \
                 as long as the state before them is kept",
                folder.display()
            ));
            drop(index);
            (index, survey) = self.survey(None, true).await?;
        }
        let journal = self.go_on(journal, &staging, &index, &survey)?;
        let end = LogEnd {
            head: survey.head,
            recent: survey.recent.clone(),
            generation: self.options.unlocked.generation,
            // From the journal in use, which may be new: then nothing of it is in the log.
            upto: journal.noted().upto(),
        };
        let mut committer = Committer::new(self.bucket().clone(), self.keys().clone(), end);
        // Reads what every mount looks at first, so that damage there is met while the index can still be made anew.
        let first = index.read(|view| view.inode(InodeNo::ROOT).and(view.orphans().map(drop)));
        first.await.map_err(Error::from)?;
        let Some(claim) = self.claim(&mut committer, &journal).await? else { return Ok(None) };
        index.confirmed(&claim);
        if self.base_is_old(&index).await? {
            return Ok(None);
        }
        let opened =
            Claimed { index, journal, staging, committer, survey, claim, warnings: Vec::new() };
        Ok(Some(opened))
    }

    /// K5: whether a newer checkpoint was made since the survey. Its maker may have deleted by it before our claim, and a
    /// deletion whose horizon was confirmed before may still go on.
    async fn base_is_old(&self, index: &Index) -> Result<bool> {
        let (listed, _) =
            self.bucket().list_after(MANIFESTS, &manifest_name(index.base_commit())).await?;
        if listed.is_empty() {
            return Ok(false);
        }
        let newest = self.newest_manifest().await?;
        Ok(newest.is_some_and(|newest| newest.commit > index.base_commit()))
    }

    /// Checks W2: another machine's claim that is not released is respected, unless `take_over`.
    fn may_write(&self, survey: &Survey) -> Result<()> {
        match &survey.writer {
            Some(writer)
                if writer.released.is_none()
                    && writer.machine != self.options.machine.id
                    && !self.options.take_over =>
            {
                Err(Error::OtherWriter { host: writer.host.clone(), claimed: writer.claimed })
            }
            _ => Ok(()),
        }
    }

    /// Whether this machine claimed the vault last.
    fn wrote_last(&self, survey: &Survey) -> bool {
        survey.writer.as_ref().is_some_and(|writer| writer.machine == self.options.machine.id)
    }

    /// W2: whether this machine wrote the vault last and did not release it, but from another state directory, or from one
    /// that was lost. Then neither the journal that made the claim nor a later one is here.
    fn is_elsewhere(&self, survey: &Survey, here: Option<&Inspection>, index: &Index) -> bool {
        let Some(writer) = &survey.writer else { return false };
        self.wrote_last(survey)
            && writer.released.is_none()
            && index.point().journal != writer.journal
            && here.is_none_or(|found| {
                found.journal != writer.journal && found.noted.number() < writer.epoch
            })
    }

    /// W1, step 4. `None`: somebody else wrote meanwhile, so decide again by W2.
    async fn claim(&self, committer: &mut Committer, journal: &Journal) -> Result<Option<Receipt>> {
        let claimant = Claimant {
            machine: self.options.machine.id.clone(),
            host: self.options.machine.host.clone(),
            journal: journal.id(),
        };
        let mut tries = 0;
        loop {
            match committer.claim(&claimant).await {
                Ok(receipt) => {
                    os::reached(PipelineStep::Claimed);
                    return Ok(Some(receipt));
                }
                Err(CommitError::Fenced { .. }) => return Ok(None),
                Err(CommitError::Again { cause, .. }) => {
                    tries += 1;
                    if tries >= PUT_TRIES {
                        return Err(cause.map_or(Error::Contended, Error::Store));
                    }
                }
                Err(CommitError::Log(error)) => return Err(error.into()),
            }
        }
    }
}
