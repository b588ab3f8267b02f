//! Opening a vault, in the order of W1 and O1.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::aside::{self, Aside};
use super::machine::make_private;
use super::survey::{Outcome, Survey, Surveyor, fits_base, fits_journal};
use super::{Error, Options, Result};
use crate::cache::{Budgets, Cache};
use crate::checkpoint::{Base, Manifest, newest};
use crate::content::{Content, FooterKeys, Limits};
use crate::crypto::{Keys, Place};
use crate::index::{self, Index, IndexOptions, Point};
use crate::log::{
    self, Chain, CommitError, Committer, Inspection, Journal, JournalOptions, LogEnd, NotedCommit,
    RealDisk, Receipt, Seen,
};
use crate::os::{boot_id, read_small, replace};
use crate::records::Claimant;
use crate::store::{Bucket, Conditional};
use crate::types::{GIB, InodeNo, MIB, PackId, Seq};
use crate::upload::{Staging, StagingLimits};

/// How often two writers may race for the claim before we give up.
const CLAIM_TRIES: usize = 5;

/// Where things lie on this machine.
pub(super) struct Places {
    pub root: PathBuf,
}

impl Places {
    pub(super) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }
    pub(super) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }
    pub(super) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }
    /// A reader has an index of its own: the writer's is at a point of the journal, which a reader does not see.
    pub(super) fn index(&self, read_only: bool) -> PathBuf {
        self.root.join(if read_only { "index-reader" } else { "index" })
    }
}

/// A writer's rooms, opened and claimed; nothing runs yet.
pub(super) struct Opened {
    pub index: Index,
    pub journal: Arc<Journal>,
    pub staging: Staging,
    pub committer: Committer,
    pub survey: Survey,
    pub claim: Receipt,
    pub warnings: Vec<String>,
}

/// What is common to all attempts at opening.
pub(super) struct Opener<'a> {
    pub options: &'a Options,
    pub places: &'a Places,
    pub cache: &'a Cache,
    pub chain: Chain,
    /// What the user should know, from whatever attempt.
    pub warnings: Mutex<Vec<String>>,
}

/// The shares of the memory budget: caches, write buffers, and what is on the wire. sled, the
/// index's memory layer and the process itself take about 80 MiB that are not in these.
pub(super) struct Shares {
    pub cache: u64,
    pub buffers: u64,
    pub wire: u64,
}

impl Shares {
    pub(super) fn of(memory: u64) -> Self {
        let memory = memory.max(64 * MIB);
        Self { cache: memory / 16 * 5, buffers: memory / 8, wire: memory / 4 }
    }
}

/// Cache and staging in all: 20 GiB, or a fifth of what is free, if less.
pub(super) fn disk_budget(dir: &Path, asked: Option<u64>) -> u64 {
    asked
        .unwrap_or_else(|| (20 * GIB).min(crate::os::free_bytes(dir).unwrap_or(100 * GIB) / 5))
        .max(64 * MIB)
}

impl Opener<'_> {
    fn keys(&self) -> &Keys {
        &self.options.unlocked.keys
    }

    fn bucket(&self) -> &Bucket {
        &self.options.bucket
    }

    /// Rule W6, once on each machine: is there one winner among parallel conditional puts?
    pub(super) async fn check_conditional_puts(&self) -> Result<Option<String>> {
        const SINGLE: &str = "the store does not honour conditional puts: only one machine may ever write \
                              this vault (--single-machine)";
        let single = self.options.single_machine;
        let marker = self.options.machine.data_dir.join(format!("{}.probed", self.keys().vault()));
        let known = read_small(&marker, 64).unwrap_or_else(|error| {
            tracing::warn!(%error, "what is known of the store's conditional puts cannot be read");
            None
        });
        let found = match known.as_deref() {
            Some(b"ignored") => Conditional::Ignored,
            Some(b"refused") => Conditional::Refused,
            // Who says that one machine alone writes here may have a reason that is younger than this.
            Some(b"not disproved") if !single => Conditional::NotDisproved,
            // Missing or damaged: it is found out again.
            _ => {
                let found = self.bucket().probe_conditional().await?;
                let word = match found {
                    Conditional::NotDisproved => "not disproved",
                    Conditional::Ignored => "ignored",
                    Conditional::Refused => "refused",
                };
                if let Err(error) = replace(&marker, word.as_bytes()) {
                    tracing::warn!(%error, "the result of a probe is not remembered; the next mount probes again");
                }
                found
            }
        };
        match found {
            Conditional::NotDisproved => return Ok(None),
            _ if !single => return Err(Error::NoConditionalPuts),
            Conditional::Ignored => {}
            Conditional::Refused => self.bucket().do_without_conditions(),
        }
        Ok(Some(SINGLE.into()))
    }

    pub(super) async fn newest_manifest(&self) -> Result<Option<Manifest>> {
        let newest = newest(self.bucket(), self.keys()).await?;
        if let Some(manifest) = &newest.manifest
            && manifest.generation > self.options.unlocked.generation
        {
            return Err(Error::OldSuperblock);
        }
        Ok(newest.manifest)
    }

    /// What this machine saw of the vault. A file that does not open may hide that the bucket went back, so it
    /// counts for nothing only when that is accepted.
    fn seen(&self) -> Result<Option<Seen>> {
        let dir = &self.options.machine.data_dir;
        let source = match Seen::load(dir, self.keys()) {
            Err(source @ (log::Error::Seal { .. } | log::Error::Records(_))) => source,
            other => return Ok(other?),
        };
        let path = Seen::path(dir, self.keys());
        if !self.options.accept_rollback {
            return Err(Error::Forgotten { path, source });
        }
        tracing::warn!(path = %path.display(), error = %source, "begun anew, as --accept-rollback says");
        let warning = format!(
            "{} was damaged and is begun anew: whether the bucket went back before this mount is not known",
            path.display()
        );
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
        Ok(None)
    }

    pub(super) fn base(&self, manifest: Option<Manifest>) -> Base {
        let (keys, cache) = (self.keys().clone(), self.cache.clone());
        manifest.map_or_else(Base::empty, |manifest| Base::new(manifest, keys, cache))
    }

    /// The index, if it is at a point of this journal and of this log, over this base; else a new one.
    fn index(&self, base: &Base, journal: Option<&Inspection>, afresh: bool) -> Result<Index> {
        let dir = self.places.index(self.options.read_only);
        let open = || {
            let (keys, base) = (self.keys().clone(), base.clone());
            Index::open(IndexOptions { dir: dir.clone(), keys, base })
        };
        if !afresh && dir.exists() {
            let clean = journal.is_some_and(|journal| journal.clean || journal.boot == boot_id());
            let fits = |point: &Point| {
                fits_journal(point, journal, clean) && fits_base(point, base.manifest())
            };
            match open() {
                Ok(index) if fits(&index.point()) => return Ok(index),
                Ok(_) => {
                    tracing::info!(
                        "the local index is of another journal or base; it is made anew"
                    );
                }
                Err(error) => tracing::warn!(%error, "the local index is made anew"),
            }
        }
        Index::wipe(&dir).map_err(Error::io("the local index cannot be deleted"))?;
        let index = open()?;
        index.begin_at_base();
        Ok(index)
    }

    /// The index brought up to the head of the log, and what the log says (O1, O2, W1).
    pub(super) async fn survey(
        &self,
        journal: Option<&Inspection>,
        afresh: bool,
    ) -> Result<(Index, Survey)> {
        let manifest = self.newest_manifest().await?;
        let base = self.base(manifest.clone());
        let seen = self.seen()?;
        let generation = self.options.unlocked.generation;
        if seen.is_some_and(|seen| seen.generation > generation) && !self.options.accept_rollback {
            return Err(Error::OldSuperblock);
        }
        let surveyor =
            Surveyor { chain: &self.chain, manifest: manifest.as_ref(), journal, seen, generation };
        for afresh in [afresh, true] {
            let index = self.index(&base, journal, afresh)?;
            let read = surveyor.read(&index, self.options.accept_rollback).await;
            let read = read.and_then(|outcome| {
                // It may lie over a newer base than it was trimmed for (J9).
                if matches!(outcome, Outcome::Done(_)) {
                    index.rebase(base.clone())?;
                }
                Ok(outcome)
            });
            match read {
                Ok(Outcome::Done(survey)) => return Ok((index, *survey)),
                Ok(Outcome::IndexIsForeign) => {}
                Err(Error::Index(index::Error::Damaged(why))) if !afresh => {
                    tracing::warn!(why, "the local index is damaged; it is made anew");
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unreachable)
    }

    /// A writer (W1): reads, decides, claims. Nothing is sent before the claim, and nothing
    /// local is changed before the journal is known to be whole (J3).
    pub(super) async fn writer(&self) -> Result<Opened> {
        let mut index_was_damaged = false;
        for _ in 0..CLAIM_TRIES {
            match self.try_claim().await {
                Ok(Some(opened)) => return Ok(opened),
                Ok(None) => {}
                // That is noted: the next try begins with an empty index, as the next mount would (J4).
                Err(Error::Index(index::Error::Damaged(why))) if !index_was_damaged => {
                    tracing::warn!(why, "the local index is damaged; it is made anew");
                    index_was_damaged = true;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Contended)
    }

    async fn try_claim(&self) -> Result<Option<Opened>> {
        let mut warnings = Vec::new();
        let mut journal = Journal::inspect(&self.places.journal(), self.keys())?;
        let (mut index, mut survey) = self.survey(journal.as_ref(), false).await?;
        self.may_write(&survey)?;
        let staging = self.open_staging()?;
        if let Some(found) = &mut journal {
            self.check_staged(&staging, found, survey.confirmed)?;
            // The index was judged by the journal as it was before: it may hold what is dropped now (J4).
            if index.point().journal == found.journal && index.point().seq > found.last {
                tracing::info!("the local index is ahead of the journal; it is made anew");
                drop(index);
                (index, survey) = self.survey(Some(found), true).await?;
            }
        }
        let unsent = |found: &Inspection| found.unsent.iter().any(|tx| tx.seq > survey.confirmed);
        if let Some(found) = journal.take_if(|found| !survey.continues && unsent(found)) {
            let confirmed = survey.confirmed;
            let (state_dir, keys) = (&self.places.root, self.keys());
            let aside = Aside { state_dir, keys, found: &found, confirmed };
            let folder = aside.set_aside(Some(&index)).await?;
            tracing::warn!(folder = %folder.display(), "unsent changes are set aside");
            warnings.push(format!(
                "another machine wrote this vault while changes of this one were not uploaded; they \
                 are kept in {}", folder.display()
            ));
            drop(index);
            (index, survey) = self.survey(None, true).await?;
        }
        let journal = self.go_on(journal, &staging, &index, &survey, &mut warnings)?;
        let end = LogEnd {
            head: survey.head,
            recent: survey.recent.clone(),
            generation: self.options.unlocked.generation,
            // Of the journal that goes on, which may be a new one: then nothing of it is in the log.
            upto: journal.noted().upto,
        };
        let mut committer = Committer::new(self.bucket().clone(), self.keys().clone(), end);
        // What every mount looks at first: damage in it is met while the index can still be made anew.
        let first = index.read(|view| view.inode(InodeNo::ROOT).and(view.orphans().map(drop)));
        first.await.map_err(Error::from)?;
        let Some(claim) = self.claim(&mut committer, &journal).await? else { return Ok(None) };
        index.confirmed(&claim);
        let opened = Opened { index, journal, staging, committer, survey, claim, warnings };
        Ok(Some(opened))
    }

    /// Rule W2.
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

    fn open_staging(&self) -> Result<Staging> {
        let budget = disk_budget(&self.places.root, self.options.cache_size) / 2;
        let mut limits = StagingLimits { budget, ..StagingLimits::default() };
        if let Ok(space) = crate::os::space(&self.places.root) {
            limits.free_floor = crate::os::keep_free(space.total);
        }
        make_private(&self.places.staging())?;
        Ok(Staging::open(&self.places.staging(), limits)?)
    }

    /// J3: an unconfirmed record is bad if an extent that it refers to is not in staging;
    /// measured, and after an unclean reboot opened.
    fn check_staged(
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
        let open = !found.clean && found.boot != boot_id();
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

    fn opens(&self, staging: &Staging, reference: &crate::types::Reference) -> bool {
        let range = reference.offset..reference.offset + reference.sealed_length;
        let Ok(Some(sealed)) = staging.read(reference.pack, range) else { return false };
        sealed.starts_with(&reference.salt)
            && self.keys().open(Place::Extent(reference.extent), &sealed).is_ok()
    }

    /// The journal that is written from now on, with the index at its end.
    fn go_on(
        &self,
        found: Option<Inspection>,
        staging: &Staging,
        index: &Index,
        survey: &Survey,
        warnings: &mut Vec<String>,
    ) -> Result<Arc<Journal>> {
        let options = JournalOptions {
            keys: self.keys().clone(),
            boot: boot_id(),
            disk: Arc::new(RealDisk),
            watcher: Some(Arc::new(staging.clone())),
            room: Some(staging.journal_room()),
        };
        let dir = self.places.journal();
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
            let journal = Arc::new(Journal::create(&dir, options, noted)?);
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
        let journal = Arc::new(Journal::resume(&dir, options, &found)?);
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
        index.attach(journal.clone());
        index.persist_point()?;
        Ok(journal)
    }

    fn footers(&self) -> FooterKeys {
        FooterKeys(self.keys().clone())
    }

    /// W1, step 4. `None`: somebody else wrote meanwhile; decide again by W2.
    async fn claim(&self, committer: &mut Committer, journal: &Journal) -> Result<Option<Receipt>> {
        let claimant = Claimant {
            machine: self.options.machine.id.clone(),
            host: self.options.machine.host.clone(),
            journal: journal.id(),
        };
        let mut tries = 0;
        loop {
            match committer.claim(&claimant).await {
                Ok(receipt) => return Ok(Some(receipt)),
                Err(CommitError::Fenced { .. }) => return Ok(None),
                Err(CommitError::Again { cause, .. }) => {
                    tries += 1;
                    if tries >= 4 {
                        return Err(cause.map_or(Error::Contended, Error::Store));
                    }
                }
                Err(CommitError::Log(error)) => return Err(error.into()),
            }
        }
    }
}

/// The shares of the disk budget: staging has half at most, so the cache may have all of it.
pub(super) fn open_cache(options: &Options, places: &Places) -> Result<Cache> {
    let disk = disk_budget(&places.root, options.cache_size);
    let memory = Shares::of(options.memory).cache;
    make_private(&places.cache())?;
    let budgets = Budgets { memory, disk: disk / 2 };
    Cache::open(&places.cache(), options.bucket.clone(), budgets)
        .map_err(|error| Error::Local(error.to_string()))
}

/// The bytes of files, over these rooms.
pub(super) fn open_content(
    options: &Options,
    cache: &Cache,
    staging: &Staging,
    budget: u64,
) -> Content {
    let shares = Shares::of(options.memory);
    let limits = Limits { buffers: shares.buffers, unpublished: budget / 4, ..Limits::default() };
    Content::new(options.unlocked.keys.clone(), cache.clone(), staging.clone(), limits)
}
