//! Whether local data that is not in the bucket yet is whole (J3), and what happens if it is not.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::aside;
use super::aside::Aside;
use super::open::OpenContext;
use super::{Error, Result};
use crate::content::extent_opens;
use crate::log::{self, Inspection, Journal};
use crate::os;
use crate::store;
use crate::types::{PackId, Reference, Seq};
use crate::upload::{Staging, pack_object};

/// The state of an extent in staging.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StagedAs {
    Whole,
    /// All of its bytes are there, but they do not open.
    Changed,
    /// Some of its bytes are missing.
    Missing,
}

impl OpenContext<'_> {
    /// Inspects the journal as far as it is whole; `None` if there is none. Changes nothing, except that if damage is
    /// accepted, a copy is kept.
    ///
    /// # Errors
    /// [`Error::Unsent`] if something that was durable is not there.
    pub(super) fn inspect_journal(&self) -> Result<Option<Inspection>> {
        let dir = self.state_dir.journal();
        let (path, why) = match Journal::inspect(&dir, self.keys()) {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {
                let packs = packs_in(&self.state_dir.staging())?;
                match (Journal::has_start(&dir, self.keys())?, packs) {
                    (Some(true), _) | (None, 0) => return Ok(None),
                    (Some(false), _) => (first_file(&dir), "is no journal any more".to_owned()),
                    (None, packs) => {
                        (dir.clone(), format!("has no journal, but there are {packs} packs of one"))
                    }
                }
            }
            Err(log::Error::Damaged { segment, offset }) => {
                let why = format!("is damaged at byte {offset}, before its last barrier");
                (self.segment(segment), why)
            }
            Err(error) => return Err(error.into()),
        };
        self.accept(path, why)?;
        Ok(Journal::inspect_up_to_damage(&dir, self.keys())?)
    }

    /// Refuses the mount, unless damage is accepted: then it copies what is here, and adds a warning.
    fn accept(&self, path: PathBuf, why: String) -> Result<()> {
        if !self.options.accept_damage {
            return Err(Error::Unsent { path, why });
        }
        let kept = aside::keep_copy(&self.state_dir.root)
            .map_err(Error::io("what is damaged cannot be copied"))?;
        tracing::warn!(path = %path.display(), why, kept = %kept.display(), "given up, as --accept-damage says");
        self.warn(format!(
            "{} {why}: changes that were not in the bucket yet are given up, as --accept-damage says; a copy of what was \
             here is in {}", path.display(), kept.display()
        ));
        Ok(())
    }

    /// Opens staging, and returns the packs in it that are whole. A pack that this disk damaged is taken from the bucket, if
    /// it was sent before.
    pub(super) async fn whole_staging(
        &self,
        found: Option<&Inspection>,
        confirmed: Seq,
    ) -> Result<(Staging, HashSet<PackId>)> {
        let staging = self.open_staging()?;
        let mut whole = HashSet::new();
        let Some(found) = found else { return Ok((staging, whole)) };
        let (state_dir, keys) = (&self.state_dir.root, self.keys());
        let aside = Aside { state_dir, keys, found, confirmed }.set_aside_before()?;
        let mut is_changed = false;
        for (pack, references) in unsent_references(found, confirmed) {
            // The process ended after its packs were removed and before this journal was: it will be removed, too.
            if aside.is_some() {
                whole.insert(pack);
                continue;
            }
            if references.iter().all(|reference| self.look(&staging, reference) == StagedAs::Whole)
            {
                whole.insert(pack);
                continue;
            }
            let sent = match self.bucket().get(&pack_object(pack), None).await {
                Err(store::Error::NotFound { .. }) => continue,
                sent => sent?,
            };
            let opens = |reference: &&Reference| {
                let end = reference.offset.saturating_add(reference.sealed_length);
                let sealed = range_of(&sent, reference.offset, end);
                sealed.is_some_and(|sealed| extent_opens(self.keys(), reference, sealed))
            };
            if references.iter().all(opens) {
                let dir = self.state_dir.staging();
                let replaced = os::replace(&dir.join(format!("{pack}.pack")), &sent);
                replaced.map_err(Error::io("a damaged pack cannot be replaced"))?;
                // Its file, if it was never closed.
                drop(os::remove(&dir.join(format!("{pack}.open"))));
                tracing::warn!(%pack, "a pack was damaged in staging, and is taken from the bucket, where it is whole");
                whole.insert(pack);
                is_changed = true;
            }
        }
        let staging = if is_changed { self.open_staging()? } else { staging };
        Ok((staging, whole))
    }

    /// J3: an unconfirmed record is bad if an extent that it refers to is not in staging or does not open.
    pub(super) fn check_staged(
        &self,
        staging: &Staging,
        found: &mut Inspection,
        confirmed: Seq,
        whole: &HashSet<PackId>,
    ) -> Result<()> {
        let (mut is_accepted, mut changed) = (false, HashSet::new());
        // Dropping records may also drop a note that a pack was dropped: then references to that pack are checked again.
        while let Some((seq, pack, how)) =
            self.first_bad(staging, found, confirmed, (whole, &changed))
        {
            tracing::warn!(seq = seq.0, %pack, "an extent of an unsent change is not in staging, or does not open");
            if seq > found.durable {
                found.drop_from(seq)?;
                continue;
            }
            if !is_accepted {
                let (path, why) = self.what_is_wrong(pack, how, found);
                self.accept(path, why)?;
            }
            is_accepted = true;
            match how {
                StagedAs::Missing => found.give_up_from(seq),
                _ => _ = changed.insert(pack),
            }
        }
        Ok(())
    }

    /// The file of a pack that is damaged in staging, and what is wrong with it.
    fn what_is_wrong(&self, pack: PackId, how: StagedAs, found: &Inspection) -> (PathBuf, String) {
        let file = |kind| self.state_dir.staging().join(format!("{pack}.{kind}"));
        let (closed, open) = (file("pack"), file("open"));
        let is_there = closed.exists() || open.exists();
        let path = if closed.exists() || !open.exists() { closed } else { open };
        let why = match (how, found.end()) {
            (StagedAs::Missing, _) if is_there => "is cut".into(),
            // A journal that is cut may have said, in the part that is lost, that the pack was dropped.
            (StagedAs::Missing, Some(end)) => {
                let segment = self.segment(end.segment);
                format!(
                    "is missing, or else {} is cut, which ends at byte {}",
                    segment.display(),
                    end.offset
                )
            }
            (StagedAs::Missing, None) => "is missing".into(),
            _ => "is damaged: what of it does not open cannot be read".into(),
        };
        (path, why)
    }

    /// The path of a journal segment.
    fn segment(&self, number: u64) -> PathBuf {
        self.state_dir.journal().join(format!("{number:016x}"))
    }

    fn first_bad(
        &self,
        staging: &Staging,
        found: &Inspection,
        confirmed: Seq,
        (whole, changed): (&HashSet<PackId>, &HashSet<PackId>),
    ) -> Option<(Seq, PackId, StagedAs)> {
        let dropped: HashSet<_> = found.dropped().map(|dropped| dropped.pack).collect();
        for tx in found.unsent.iter().filter(|tx| tx.seq > confirmed) {
            let is_good = |pack: &PackId| dropped.contains(pack) || whole.contains(pack);
            for reference in tx.staged.iter().filter(|reference| !is_good(&reference.pack)) {
                match self.look(staging, reference) {
                    StagedAs::Whole => {}
                    // Accepted: all of its bytes are there.
                    StagedAs::Changed
                        if tx.seq <= found.durable && changed.contains(&reference.pack) => {}
                    how => return Some((tx.seq, reference.pack, how)),
                }
            }
        }
        None
    }

    fn look(&self, staging: &Staging, reference: &Reference) -> StagedAs {
        let end = reference.offset + reference.sealed_length;
        if staging.length(reference.pack).is_none_or(|length| length < end) {
            return StagedAs::Missing;
        }
        match staging.read(reference.pack, reference.offset..end) {
            Ok(Some(sealed)) if extent_opens(self.keys(), reference, &sealed) => StagedAs::Whole,
            _ => StagedAs::Changed,
        }
    }
}

/// What unsent changes refer to in staging, by pack.
fn unsent_references(found: &Inspection, confirmed: Seq) -> BTreeMap<PackId, Vec<&Reference>> {
    let dropped: HashSet<_> = found.dropped().map(|dropped| dropped.pack).collect();
    let mut packs: BTreeMap<PackId, Vec<&Reference>> = BTreeMap::new();
    for tx in found.unsent.iter().filter(|tx| tx.seq > confirmed) {
        for reference in tx.staged.iter().filter(|r| !dropped.contains(&r.pack)) {
            packs.entry(reference.pack).or_default().push(reference);
        }
    }
    packs
}

fn range_of(bytes: &[u8], from: u64, to: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(from).ok()?..usize::try_from(to).ok()?)
}

/// How many packs are in staging. Without a journal there should be none: they leave before it goes, or are set aside before
/// (W1).
fn packs_in(staging: &Path) -> Result<usize> {
    let there = names(staging).map_err(Error::io("staging cannot be listed"))?;
    let is_pack = |name: &&OsString| {
        Path::new(name).extension().is_some_and(|kind| kind == "pack" || kind == "open")
    };
    Ok(there.iter().filter(is_pack).count())
}

/// The names in a directory, which may not exist.
fn names(dir: &Path) -> io::Result<BTreeSet<OsString>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        entries => entries?.map(|entry| Ok(entry?.file_name())).collect(),
    }
}

/// The first segment of what should be a journal.
fn first_file(dir: &Path) -> PathBuf {
    names(dir).ok().and_then(|names| Some(dir.join(names.first()?))).unwrap_or_else(|| dir.into())
}
