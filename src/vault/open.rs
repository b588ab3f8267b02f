//! Opening a vault: the local index is brought up to the log in the bucket (O1, O2).

use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::budgets::Shares;
use super::state_dir::StateDir;
use super::survey::{Survey, Surveyed, Surveyor, fits_base, fits_journal};
use super::{Error, Result, Unlocked, VaultOptions};
use crate::cache::Cache;
use crate::checkpoint::{Base, Manifest, newest};
use crate::crypto::Keys;
use crate::index::{self, Index, IndexOptions, Point};
use crate::log::{self, Chain, Inspection, Journal, Seen};
use crate::store::Bucket;
use crate::types::Generation;

/// Whether this machine has changes of a vault that the bucket may lack. Nobody may have the vault open here.
pub fn has_unsent(unlocked: &Unlocked, state_dir: &Path) -> bool {
    unsent_changes(unlocked, state_dir) > 0
}

/// How many transactions this machine's journal holds that the bucket may lack. Nobody may write the vault here meanwhile. A
/// journal that cannot be read counts as one: a writer finds out.
pub(super) fn unsent_changes(unlocked: &Unlocked, state_dir: &Path) -> u64 {
    let journal = StateDir { root: state_dir.to_owned() }.journal();
    if !journal.exists() {
        return 0;
    }
    Journal::inspect(&journal, &unlocked.keys)
        .map_or(1, |found| found.map_or(0, |found| found.unsent.len() as u64))
}

/// What all attempts at opening share.
pub(super) struct OpenContext<'a> {
    pub options: &'a VaultOptions,
    pub state_dir: &'a StateDir,
    pub cache: &'a Cache,
    pub chain: Chain,
    /// What the user should know, from any attempt.
    pub warnings: Mutex<Vec<String>>,
    /// Where the index is.
    pub index_dir: PathBuf,
    /// The newest superblock that was verified.
    pub generation: Generation,
    /// Whether the bucket may have gone back (O2).
    pub accept_rollback: bool,
    /// The head that a caller who reopens the vault knows; `None`: use what this machine remembers.
    pub known: Option<Seen>,
}

impl OpenContext<'_> {
    pub(super) fn keys(&self) -> &Keys {
        &self.options.unlocked.keys
    }

    pub(super) fn bucket(&self) -> &Bucket {
        &self.options.bucket
    }

    pub(super) async fn newest_manifest(&self) -> Result<Option<Manifest>> {
        let newest = newest(self.bucket(), self.keys()).await?;
        if let Some(manifest) = &newest.manifest
            && manifest.generation > self.generation
        {
            return Err(Error::OldSuperblock);
        }
        Ok(newest.manifest)
    }

    /// The last commit that this machine saw of the vault. If the file does not open, that may hide that the bucket
    /// went back: it is ignored only when that is accepted.
    fn seen(&self) -> Result<Option<Seen>> {
        if self.known.is_some() {
            return Ok(self.known);
        }
        let dir = &self.options.machine.data_dir;
        let source = match Seen::load(dir, self.keys()) {
            Err(source @ (log::Error::Seal { .. } | log::Error::Records(_))) => source,
            other => return Ok(other?),
        };
        let path = Seen::path(dir, self.keys());
        if !self.accept_rollback {
            return Err(Error::Forgotten { path, source });
        }
        tracing::warn!(path = %path.display(), error = %source, "begun anew, as --accept-rollback says");
        let warning = format!(
            "{} was damaged and is begun anew: whether the bucket went back before this mount is not known",
            path.display()
        );
        self.warn(warning);
        Ok(None)
    }

    /// Notes something for the user, once, whatever becomes of this try.
    pub(super) fn warn(&self, warning: String) {
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    pub(super) fn base(&self, manifest: Option<Manifest>) -> Base {
        let (keys, cache) = (self.keys().clone(), self.cache.clone());
        manifest.map_or_else(Base::empty, |manifest| Base::new(manifest, keys, cache))
    }

    /// The local index, if its point fits this journal, this log and this base; otherwise a new one.
    fn index(&self, base: &Base, journal: Option<&Inspection>, afresh: bool) -> Result<Index> {
        let dir = &self.index_dir;
        let open = || {
            let (keys, base) = (self.keys().clone(), base.clone());
            let memory = Shares::of(self.options.memory).index;
            Index::open(IndexOptions { dir: dir.clone(), keys, base, memory })
        };
        if !afresh && dir.exists() {
            let clean = journal
                .is_some_and(|journal| journal.clean || journal.boot == self.options.machine.boot);
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
        Index::wipe(dir).map_err(Error::io("the local index cannot be deleted"))?;
        let index = open()?;
        index.begin_at_base();
        Ok(index)
    }

    /// Brings the index up to the head of the log, and returns both (O1, O2, W1).
    pub(super) async fn survey(
        &self,
        journal: Option<&Inspection>,
        afresh: bool,
    ) -> Result<(Index, Survey)> {
        let manifest = self.newest_manifest().await?;
        let base = self.base(manifest.clone());
        let seen = self.seen()?;
        let generation = self.generation;
        if seen.is_some_and(|seen| seen.generation > generation) && !self.accept_rollback {
            return Err(Error::OldSuperblock);
        }
        let surveyor =
            Surveyor { chain: &self.chain, manifest: manifest.as_ref(), journal, seen, generation };
        for afresh in [afresh, true] {
            let index = self.index(&base, journal, afresh)?;
            let read = surveyor.read(&index, self.accept_rollback).await;
            let read = read.and_then(|outcome| {
                // It may have been trimmed for an older base than this one (J9): this trims it.
                if matches!(outcome, Surveyed::Done(_)) {
                    index.rebase(base.clone())?;
                }
                Ok(outcome)
            });
            match read {
                Ok(Surveyed::Done(survey)) => return Ok((index, *survey)),
                Ok(Surveyed::IndexIsForeign) => {}
                Err(Error::Index(index::Error::Damaged(why))) if !afresh => {
                    tracing::warn!(why, "the local index is damaged; it is made anew");
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::IndexDoesNotFit)
    }
}
