//! Reads the log to its end: what is new, what of the journal is in it, who writes (O1, O2, W1).

use super::{Error, Result};
use crate::checkpoint::{Manifest, SinceCheckpoint};
use crate::index::{self, Index};
use crate::log::{Chain, ChainedCommit, Head, Inspection, LogEnd, Seen};
use crate::records::{
    Key, MetaKey, Transaction, WriterClaim, decode_value, hash_in_history, history_place,
};
use crate::types::{CommitNo, Generation, Hash, Seq};

/// What the log tells a machine that is about to use it.
#[derive(Debug)]
pub(super) struct Survey {
    pub head: Head,
    pub recent: Vec<[u8; 16]>,
    pub writer: Option<WriterClaim>,
    /// Every transaction of the journal up to this one is in the log (W1, step 2).
    pub confirmed: Seq,
    /// Whether the unsent transactions may go on (W1, step 3).
    pub continues: bool,
    pub since: SinceCheckpoint,
}

/// The result of a survey.
#[derive(Debug)]
pub(super) enum Surveyed {
    Done(Box<Survey>),
    /// The local index is not of this log, and must be made anew (J4).
    IndexIsForeign,
}

/// What a survey works from.
pub(super) struct Surveyor<'a> {
    pub chain: &'a Chain,
    pub manifest: Option<&'a Manifest>,
    pub journal: Option<&'a Inspection>,
    pub seen: Option<Seen>,
    pub generation: Generation,
}

/// Matches the log against what the journal claims to have sent (W1).
struct OwnRun<'a> {
    journal: Option<&'a Inspection>,
    next: usize,
    confirmed: Seq,
    continues: bool,
}

impl<'a> OwnRun<'a> {
    fn new(journal: Option<&'a Inspection>) -> Self {
        let confirmed = journal.map_or(Seq(0), |journal| journal.noted.upto());
        Self { journal, next: 0, confirmed, continues: true }
    }

    /// Notes whether this commit, like all before, holds nothing but this journal's claims, releases, header records and
    /// next transactions.
    fn see(&mut self, link: &ChainedCommit) -> Result<()> {
        let Some(journal) = self.journal else { return Ok(()) };
        if link.number <= journal.noted.number() {
            self.continues &=
                link.number < journal.noted.number() || link.hash == journal.noted.hash();
            return Ok(());
        }
        for record in &link.content.header.records {
            if let (Key::Meta(MetaKey::Writer), Some(value)) =
                (Key::decode(&record.key)?, &record.value)
            {
                let claim: WriterClaim = decode_value("meta", value)?;
                self.continues &= claim.journal == journal.journal;
            }
        }
        for bytes in &link.content.transactions {
            let hash = Transaction::hash_of(bytes);
            match journal.unsent.get(self.next) {
                Some(unsent) if unsent.hash == hash => {
                    self.next += 1;
                    self.confirmed = unsent.seq;
                }
                _ => self.continues = false,
            }
        }
        Ok(())
    }
}

impl Surveyor<'_> {
    fn anchor(&self) -> (CommitNo, Hash) {
        self.manifest.map_or((CommitNo(0), Hash::ZERO), |m| (m.commit, m.commit_hash))
    }

    /// Reads the log to its end, verifies it, and brings the index up to it.
    ///
    /// # Errors
    /// [`Error::Rollback`] (O2) unless `accept_rollback`; what the chain says.
    pub(super) async fn read(&self, index: &Index, accept_rollback: bool) -> Result<Surveyed> {
        let anchor = self.anchor();
        let point = index.point();
        if point.commit < anchor.0 || point.commit == anchor.0 && point.commit_hash != anchor.1 {
            return Ok(Surveyed::IndexIsForeign);
        }
        let mut own = OwnRun::new(self.journal);
        self.before_anchor(&mut own).await?;
        let mut recent = self.manifest.map_or_else(Vec::new, Manifest::recent_hashes);
        let mut writer = None;
        let mut since = self.since();
        let mut foreign = false;
        let mut remembered = self.seen.filter(|seen| seen.number >= anchor.0);
        let check = |seen: &mut Option<Seen>, number, hash| {
            if seen.is_some_and(|seen| seen.number == number && seen.hash == hash) {
                *seen = None;
            }
        };
        check(&mut remembered, anchor.0, anchor.1);
        let head = self
            .chain
            .follow(anchor, |link| {
                if link.content.header.generation > self.generation {
                    return Err(Error::OldSuperblock);
                }
                own.see(&link)?;
                LogEnd::note(&mut recent, link.number, &link.hash);
                check(&mut remembered, link.number, link.hash);
                since.commits += 1;
                since.transactions += link.size.transactions;
                since.log_bytes += link.size.sealed;
                writer = claim_in(&link)?.or(writer.take());
                if link.number == point.commit {
                    foreign = link.hash != point.commit_hash;
                }
                if link.number > point.commit && !foreign {
                    index.apply_commit(&link)?;
                }
                Ok::<_, Error>(())
            })
            .await?;
        if let Some(seen) = remembered
            && !accept_rollback
        {
            return Err(Error::Rollback { number: seen.number });
        }
        if foreign || point.commit > head.number {
            return Ok(Surveyed::IndexIsForeign);
        }
        self.seen_before_anchor(index, accept_rollback).await?;
        let writer = match writer {
            Some(writer) => Some(writer),
            None => index.read(|view| view.writer()).await.map_err(Error::from)?,
        };
        let noted = self.journal.map_or(CommitNo(0), |journal| journal.noted.number());
        let continues = own.continues && noted <= head.number;
        let confirmed = own.confirmed;
        let survey = Survey { head, recent, writer, confirmed, continues, since };
        Ok(Surveyed::Done(Box::new(survey)))
    }

    /// Reads the commits between the one that the journal notes and the newest manifest. They matter only while
    /// something is unsent, and then all of them must still be there (W1, step 3).
    async fn before_anchor(&self, own: &mut OwnRun<'_>) -> Result<()> {
        let anchor = self.anchor();
        let Some(journal) = self.journal.filter(|journal| !journal.unsent.is_empty()) else {
            return Ok(());
        };
        let noted = (journal.noted.number(), journal.noted.hash());
        if noted.0 >= anchor.0 {
            own.continues &= noted.0 > anchor.0 || noted.1 == anchor.1;
            return Ok(());
        }
        let walked = self.chain.walk(noted, anchor.0, |link| own.see(&link)).await;
        match walked {
            Ok((_, hash)) => own.continues &= hash == anchor.1,
            Err(Error::Log(_)) => own.continues = false,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// O2 for a commit that this machine saw before the newest manifest: looks it up in `history`, or else in the log.
    async fn seen_before_anchor(&self, index: &Index, accept_rollback: bool) -> Result<()> {
        let anchor = self.anchor();
        let Some(seen) = self.seen.filter(|seen| seen.number < anchor.0 && seen.number.0 > 0)
        else {
            return Ok(());
        };
        let (key, at) = history_place(seen.number);
        let run = index.read(|view| view.get(&key)).await.map_err(Error::from)?;
        let same = if let Some(run) = run {
            hash_in_history(&run, at)?.is_some_and(|found| seen.hash.0[..16] == found)
        } else {
            let from = (seen.number, seen.hash);
            let walked = self.chain.walk(from, anchor.0, |_| Ok::<_, Error>(())).await;
            match walked {
                Ok((_, hash)) => hash == anchor.1,
                Err(Error::Log(_)) => false,
                Err(error) => return Err(error),
            }
        };
        if same || accept_rollback { Ok(()) } else { Err(Error::Rollback { number: seen.number }) }
    }

    fn since(&self) -> SinceCheckpoint {
        let Some(manifest) = self.manifest else { return SinceCheckpoint::default() };
        SinceCheckpoint {
            checkpoint_bytes: manifest.page_bytes(),
            age: manifest.time.age(),
            commit: manifest.commit,
            ..SinceCheckpoint::default()
        }
    }
}

fn claim_in(link: &ChainedCommit) -> Result<Option<WriterClaim>> {
    let key = Key::Meta(MetaKey::Writer).encode();
    let record = link.content.header.records.iter().rfind(|record| record.key == key);
    let value = record.and_then(|record| record.value.as_ref());
    Ok(value.map(|value| decode_value("meta", value)).transpose()?)
}

/// Whether the index was left at a point of this very journal (J4).
pub(super) fn fits_journal(
    point: &index::Point,
    journal: Option<&Inspection>,
    clean_boot: bool,
) -> bool {
    let Some(journal) = journal else { return false };
    let at = journal.unsent.iter().find(|tx| tx.seq == point.seq);
    clean_boot
        && point.journal == journal.journal
        && point.seq <= journal.last
        && at.is_none_or(|tx| tx.hash == point.hash)
}

/// Whether the index can lie over this base (J9). Over a newer base than it was trimmed for it is whole, if the log up
/// to that base is the same, which the survey checks. Over an older one, trimmed records would be missing.
pub(super) fn fits_base(point: &index::Point, manifest: Option<&Manifest>) -> bool {
    let (number, hash) = manifest.map_or((CommitNo(0), Hash::ZERO), |m| (m.commit, m.commit_hash));
    point.base < number || (point.base, point.base_hash) == (number, hash)
}
