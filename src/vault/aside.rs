//! Setting aside changes that cannot go on, because another machine wrote the vault meanwhile (W1, step 3).
//! Nothing is lost: `recover` (W4, [`super::past`]) copies the files from here into the vault.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Error, Result};
use crate::crypto::{Keys, Place};
use crate::index::{self, Index};
use crate::log::{Inspection, Journal};
use crate::os::{self, PipelineStep};
use crate::records::{Change, Key, Transaction, encode_value};
use crate::types::{InodeNo, PackId, Seq};

pub(super) const PLACE: Place = Place::Local("set aside", 0);

/// Name of the directory in a state directory.
pub(super) const SET_ASIDE: &str = "set-aside";
/// Prefix of the names of folders with copies of damaged files.
const DAMAGED: &str = "damaged";

/// Whether a folder in it is complete, and holds changes that `recover` can bring back.
pub(super) fn is_recoverable(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    !name.starts_with(DAMAGED) && folder.join("records").exists() && !name.ends_with(".new")
}

/// What is to be set aside.
pub(super) struct Aside<'a> {
    pub state_dir: &'a Path,
    pub keys: &'a Keys,
    pub found: &'a Inspection,
    /// Transactions after this one are unsent.
    pub confirmed: Seq,
}

impl Aside<'_> {
    /// Copies, by hard links, the journal and the packs of its unsent transactions into a folder of their own, with
    /// the resulting records of the files they touch. Returns the folder, which is durable. Removing the originals is
    /// left to the caller, packs first.
    pub(super) async fn set_aside(&self, index: Option<&Index>) -> Result<PathBuf> {
        let parent = self.state_dir.join(SET_ASIDE);
        let name = self.found.journal.to_string();
        let journal = self.state_dir.join("journal");
        let failed = || Error::io("what was not uploaded cannot be set aside");
        if let Some(folder) = self.set_aside_before()? {
            return Ok(folder);
        }
        let folder = free_name(&parent.join(format!("{name}-{}", self.confirmed)));
        let making = parent.join(format!("{name}.new"));
        if making.exists() {
            fs::remove_dir_all(&making).map_err(failed())?;
        }
        for part in ["journal", "staging"] {
            super::this_machine::make_private(&making.join(part))?;
        }
        link_all(&journal, &making.join("journal"), |_| true).map_err(failed())?;
        let packs = self.packs();
        let wanted = |name: &str| packs.iter().any(|pack| name.starts_with(&pack.to_string()));
        let staging = self.state_dir.join("staging");
        link_all(&staging, &making.join("staging"), wanted).map_err(failed())?;
        os::reached(PipelineStep::AsideLinked);
        let records = self.records(index).await?;
        let sealed = self.keys.seal(PLACE, &encode_value(&records));
        os::create_durably(&making.join("records"), &sealed[..]).map_err(failed())?;
        os::reached(PipelineStep::AsideRecorded);
        os::sync_tree(&making).map_err(failed())?;
        os::reached(PipelineStep::AsideSynced);
        os::rename(&making, &folder).map_err(failed())?;
        os::reached(PipelineStep::AsideNamed);
        os::sync_dir(&parent).map_err(failed())?;
        Ok(folder)
    }

    /// A folder that already holds all of it, because the process ended before the journal was removed. Its files are
    /// hard links to the journal's, so they are recognised by their inodes.
    pub(super) fn set_aside_before(&self) -> Result<Option<PathBuf>> {
        self.folder_of_all().map_err(Error::io("what was set aside cannot be looked at"))
    }

    fn folder_of_all(&self) -> std::io::Result<Option<PathBuf>> {
        let (parent, name) = (self.state_dir.join(SET_ASIDE), self.found.journal.to_string());
        let journal = self.state_dir.join("journal");
        let entries = match fs::read_dir(&parent) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut packs = self.packs();
        self.found.dropped().for_each(|dropped| _ = packs.remove(&dropped.pack));
        for entry in entries {
            let (folder, prefix) = (entry?.path(), format!("{name}-"));
            let is_of_it =
                folder.file_name().is_some_and(|n| n.as_bytes().starts_with(prefix.as_bytes()));
            let there = folder.join("staging");
            let has_pack = |pack: &PackId| {
                ["open", "pack"].iter().any(|end| there.join(format!("{pack}.{end}")).exists())
            };
            if is_of_it
                && folder.join("records").exists()
                && has_links_to_all(&journal, &folder.join("journal"))?
                && packs.iter().all(has_pack)
            {
                return Ok(Some(folder));
            }
        }
        Ok(None)
    }

    fn unsent(&self) -> impl Iterator<Item = &crate::log::UnsentTx> {
        self.found.unsent.iter().filter(|tx| tx.seq > self.confirmed)
    }

    fn packs(&self) -> BTreeSet<PackId> {
        self.unsent().flat_map(|tx| tx.staged.iter().map(|reference| reference.pack)).collect()
    }

    /// The records that the unsent transactions put, and all other records of the same files that the index still
    /// has.
    async fn records(&self, index: Option<&Index>) -> Result<Vec<Change>> {
        let mut records = BTreeMap::new();
        let mut files = BTreeSet::new();
        let journal = self.state_dir.join("journal");
        let mut after = self.confirmed;
        loop {
            let part = Journal::read_found(&journal, self.keys, self.found, after)?;
            let Some(last) = part.last() else { break };
            after = last.seq;
            for journaled in &part {
                for Change { key, value } in Transaction::decode(&journaled.bytes)?.changes {
                    if let Key::Inode(ino) | Key::Extent(ino, _) | Key::Xattr(ino, _) =
                        Key::decode(&key)?
                    {
                        files.insert(ino);
                    }
                    records.insert(key, value);
                }
            }
        }
        if let Some(index) = index {
            for ino in files {
                for (key, value) in whole_file(index, ino).await? {
                    records.entry(key).or_insert(Some(value));
                }
            }
        }
        Ok(records.into_iter().map(|(key, value)| Change { key, value }).collect())
    }
}

async fn whole_file(index: &Index, ino: InodeNo) -> Result<Vec<(Vec<u8>, bytes::Bytes)>> {
    let found = index.read(|view| {
        let mut rows = Vec::new();
        if let Some(inode) = view.inode(ino)? {
            rows.push((Key::Inode(ino).encode(), encode_value(&inode)));
            for (offset, extent) in view.extents_from(ino, &inode, 0, usize::MAX)? {
                rows.push((Key::Extent(ino, offset).encode(), encode_value(&extent)));
            }
        }
        Ok::<_, index::Error>(rows)
    });
    Ok(found.await?)
}

/// Copies journal and staging as they are, durably, before anything in them is given up. Packs are hard links: what
/// is given up of them goes under its own name only.
pub(super) fn keep_copy(state_dir: &Path) -> std::io::Result<PathBuf> {
    let parent = state_dir.join(SET_ASIDE);
    let folder = free_name(&parent.join(DAMAGED));
    for part in ["journal", "staging"] {
        os::make_private(&folder.join(part))?;
    }
    let (journal, staging) = (state_dir.join("journal"), state_dir.join("staging"));
    if journal.exists() {
        for entry in fs::read_dir(journal)? {
            let entry = entry?;
            let content = fs::read(entry.path())?;
            os::create_durably(&folder.join("journal").join(entry.file_name()), &content)?;
        }
    }
    if staging.exists() {
        link_all(&staging, &folder.join("staging"), |_| true)?;
    }
    os::sync_tree(&folder)?;
    os::sync_dir(&parent)?;
    Ok(folder)
}

fn link_all(from: &Path, to: &Path, wanted: impl Fn(&str) -> bool) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&wanted) {
            os::link(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Whether each file of `from` is also in `to`: the same file, not a copy.
fn has_links_to_all(from: &Path, to: &Path) -> std::io::Result<bool> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (here, there) = (entry.metadata()?, to.join(entry.file_name()).metadata());
        if !there.is_ok_and(|there| (there.dev(), there.ino()) == (here.dev(), here.ino())) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `wanted`, or the first free name derived from it.
fn free_name(wanted: &Path) -> PathBuf {
    let mut name = wanted.to_owned();
    for n in 2.. {
        if !name.exists() {
            break;
        }
        name.set_file_name(format!("{}.{n}", wanted.file_name().unwrap_or_default().display()));
    }
    name
}

/// Removes the files of a directory, last first: a crash leaves the beginning of a journal, which is a valid journal.
pub(super) fn remove_files(dir: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    for file in files.iter().rev() {
        os::remove(file)?;
        os::reached(PipelineStep::OldJournalRemoved);
    }
    os::sync_dir(dir)
}
