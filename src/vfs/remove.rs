//! Removing names, inodes, and extents beyond an end, in transactions of bounded size (rule V3).

use std::time::Duration;

use futures_util::FutureExt;

use crate::content::{File, extents};
use crate::index::{Draft, View};
use crate::records::{Inode, Orphan};
use crate::types::{Extent, InodeNo, Timestamp};

use super::departing::AT_ONCE;
use super::leaving::Leaving;
use super::publish::edit;
use super::xattr::Bare;
use super::{Error, Result, Vfs};

/// The most extent records that one transaction removes: some 100 KiB of keys, far below the limit of 4 MiB.
#[cfg(not(test))]
pub(super) const STEP: usize = 4096;
#[cfg(test)]
pub(super) const STEP: usize = 4;

/// How long a caller waits for the rest of the work after its removal or truncation is journaled: pages of the map may
/// have to be fetched.
pub(super) const REMOVAL_WAIT: Duration = Duration::from_secs(5);

/// What has become of an inode that lost a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has other names.
    Named,
    /// It is gone.
    Gone,
    /// It is an orphan, because somebody holds it, or it is too large to remove in one transaction.
    Orphan,
}

/// Removes one name of an inode that is not a directory. The caller deletes the entry.
pub(super) fn drop_name(
    draft: &mut Draft<'_>,
    leaving: &Leaving<'_>,
    bare: &Bare,
    ino: InodeNo,
    now: Timestamp,
) -> Result<Fate> {
    // An entry without an inode is damage, and removing the entry mends it.
    let Some(mut inode) = draft.inode(ino)? else { return Ok(Fate::Gone) };
    inode.nlink = inode.nlink.saturating_sub(1);
    inode.ctime = now;
    if inode.nlink > 0 {
        draft.put_inode(ino, &inode);
        return Ok(Fate::Named);
    }
    drop_inode(draft, leaving, bare, ino, &inode)
}

/// Removes the only name of a directory, which must be empty. The caller deletes the entry.
pub(super) fn drop_directory(
    draft: &mut Draft<'_>,
    leaving: &Leaving<'_>,
    bare: &Bare,
    ino: InodeNo,
    now: Timestamp,
) -> Result<Fate> {
    if !draft.is_empty_dir(ino)? {
        return Err(Error::NotEmpty);
    }
    let Some(inode) = draft.inode(ino)? else { return Ok(Fate::Gone) };
    drop_inode(draft, leaving, bare, ino, &Inode { nlink: 0, ctime: now, ..inode })
}

/// Removes an inode that has lost its last name, or makes it an orphan.
fn drop_inode(
    draft: &mut Draft<'_>,
    leaving: &Leaving<'_>,
    bare: &Bare,
    ino: InodeNo,
    inode: &Inode,
) -> Result<Fate> {
    if leaving.claim(ino) && erase(draft, bare, ino, inode)? {
        // It was a workshop's orphan record.
        if inode.is_dir() && draft.orphan(ino)?.is_some() {
            draft.delete_orphan(ino);
        }
        return Ok(Fate::Gone);
    }
    leaving.stays(ino);
    draft.put_inode(ino, inode);
    draft.put_orphan(ino, &Orphan::UNNAMED);
    Ok(Fate::Orphan)
}

/// Deletes an inode with all its records, or takes one step towards it. Returns `true` when it is gone.
fn erase(draft: &mut Draft<'_>, bare: &Bare, ino: InodeNo, inode: &Inode) -> Result<bool> {
    // A file that was truncated to nothing may still have extents that a trim has not reached.
    let has_extents = inode.size > 0 || inode.allocated > 0;
    if inode.is_file() && inode.extent.is_none() && has_extents {
        let first = draft.extents_from(ino, inode, 0, STEP + 1)?;
        for (offset, _) in first.iter().take(STEP) {
            draft.delete_extent(ino, *offset);
        }
        if first.len() > STEP {
            return Ok(false);
        }
    }
    if !bare.contains(ino) {
        for name in draft.xattrs(ino)? {
            draft.delete_xattr(ino, &name);
        }
    }
    draft.delete_inode(ino);
    Ok(true)
}

/// Sets the file's size, and removes extents beyond it. Returns `true` when all of them are gone; otherwise an orphan
/// record says from which offset on the rest is to be removed. The caller puts the inode.
pub(super) fn cut(
    draft: &mut Draft<'_>,
    ino: InodeNo,
    inode: &mut Inode,
    size: u64,
) -> Result<bool> {
    if size >= inode.size {
        inode.size = size;
        return Ok(true);
    }
    draft.frees_room();
    if inode.extent.is_some() {
        edit(draft, ino, inode, size..inode.size, |old| {
            let ends_beyond = |(offset, extent): &(u64, Extent)| offset + extent.length > size;
            if old.iter().all(ends_beyond) { extents::truncate(old, size) } else { Vec::new() }
        })?;
        inode.size = size;
        return Ok(true);
    }
    let beyond = overlapping_from(draft, ino, inode, size, STEP + 1)?;
    let is_last = beyond.len() <= STEP;
    drop_extents(draft, ino, inode, &beyond[..beyond.len().min(STEP)], size);
    // An unlinked file keeps its orphan record: it says that everything goes with the last close.
    if !is_last && draft.orphan(ino)?.is_none_or(|orphan| orphan.from.is_some()) {
        draft.put_orphan(ino, &Orphan::beyond(size));
    }
    inode.size = size;
    Ok(is_last)
}

/// Extents that end beyond `offset`, at most `limit` after the first.
pub(super) fn overlapping_from(
    view: &View<'_>,
    ino: InodeNo,
    inode: &Inode,
    offset: u64,
    limit: usize,
) -> Result<Vec<(u64, Extent)>> {
    let mut found = view.extents(ino, inode, offset..offset.saturating_add(1))?;
    let next = found.last().map_or(offset, |(offset, _)| offset + 1).max(offset);
    let rest = view.extents_from(ino, inode, next, limit)?;
    found.extend(rest);
    Ok(found)
}

fn drop_extents(
    draft: &mut Draft<'_>,
    ino: InodeNo,
    inode: &mut Inode,
    beyond: &[(u64, Extent)],
    size: u64,
) {
    for edit in extents::truncate(beyond, size) {
        match edit {
            extents::Edit::Put(offset, extent) => draft.put_extent(ino, offset, &extent),
            extents::Edit::Delete(offset) => draft.delete_extent(ino, offset),
        }
    }
    let gone: u64 = beyond
        .iter()
        .map(|(offset, extent)| (offset + extent.length - size).min(extent.length))
        .sum();
    inode.allocated = inode.allocated.saturating_sub(gone);
}

impl Vfs {
    /// The offset from which extents of `ino` are still to be removed, if a truncation is under way.
    pub(super) fn trim_from(&self, ino: InodeNo) -> Option<u64> {
        self.inner.trims.lock().get(&ino).copied()
    }

    /// Finishes the truncation of `ino`, if one is under way. The caller holds the file's publishing turn.
    pub(super) async fn finish_trim(&self, ino: InodeNo) -> Result<()> {
        while let Some(from) = self.trim_from(ino) {
            self.trim(ino, from).await?;
        }
        Ok(())
    }

    /// As `finish_trim`, when nobody waits for it: takes the turn for one step at a time, never across the network.
    pub(super) async fn trim_aside(&self, file: &File) -> Result<()> {
        let ino = file.ino();
        while let Some(from) = self.trim_from(ino) {
            // Fetches the pages that the next step needs.
            self.read(|view| {
                let inode = view.inode(ino)?.unwrap_or_default();
                Ok(view.extents_from(ino, &inode, from, STEP + 1).map(drop)?)
            })
            .await?;
            let _turn = file.turn().await;
            if self.trim_from(ino) == Some(from) {
                match self.trim(ino, from).now_or_never() {
                    Some(done) => done?,
                    // The pages were evicted again: memory is short.
                    None => return Err(Error::PushedOut),
                }
            }
        }
        Ok(())
    }

    /// One step of a truncation. After the last step it is no longer under way.
    async fn trim(&self, ino: InodeNo, from: u64) -> Result<()> {
        let is_done = self
            .tidy(|draft| {
                draft.frees_room();
                // The inode may have been removed meanwhile, but nobody else removes these extents.
                let (mut inode, is_there) = match draft.inode(ino)? {
                    Some(inode) => (inode, true),
                    None => (Inode::default(), false),
                };
                let beyond = draft.extents_from(ino, &inode, from, STEP + 1)?;
                let is_last = beyond.len() <= STEP;
                let step = &beyond[..beyond.len().min(STEP)];
                drop_extents(draft, ino, &mut inode, step, from);
                if is_there {
                    draft.put_inode(ino, &inode);
                }
                // A record without an offset is of a later unlink: the inode is to be removed, so the record stays.
                if is_last && draft.orphan(ino)?.is_some_and(|orphan| orphan.from.is_some()) {
                    draft.delete_orphan(ino);
                }
                Ok(is_last)
            })
            .await?;
        if is_done {
            self.inner.trims.lock().remove(&ino);
        }
        Ok(())
    }

    /// Removes orphans that nobody holds: many by one transaction, and a very large one step by step.
    pub(super) async fn remove_orphans(&self, mut inos: &[InodeNo]) -> Result<()> {
        while !inos.is_empty() {
            let leaving = Leaving::new(&self.inner.holds);
            let (done, changed) = self
                .tidy(|draft| {
                    draft.frees_room();
                    leaving.again();
                    let (mut done, mut changed) = (0, Vec::new());
                    for &ino in inos.iter().take(AT_ONCE) {
                        if draft.records() >= STEP {
                            break;
                        }
                        let step = self.erase_orphan(draft, &leaving, ino)?;
                        changed.extend(step.map(|_| ino));
                        if step == Some(false) {
                            break; // the next transaction goes on with this one
                        }
                        done += 1;
                    }
                    Ok((done, changed))
                })
                .await?;
            for file in changed.iter().filter_map(|ino| self.inner.content.known(*ino)) {
                file.discard();
            }
            inos = &inos[done..];
        }
        Ok(())
    }

    /// Removes an orphan, or takes one step towards it. Returns `true` when it is gone, and `None` if it is not this
    /// caller's to remove.
    fn erase_orphan(
        &self,
        draft: &mut Draft<'_>,
        leaving: &Leaving<'_>,
        ino: InodeNo,
    ) -> Result<Option<bool>> {
        if draft.orphan(ino)?.is_none_or(|orphan| orphan.from.is_some()) {
            return Ok(None); // somebody else removed it
        }
        if !leaving.claim(ino) {
            // Whoever holds it removes it on letting go, even a caller that only wanted to look.
            self.inner.holds.unlinked(ino);
            return Ok(None);
        }
        let is_gone = match draft.inode(ino)? {
            Some(inode) => erase(draft, &self.inner.bare, ino, &inode)?,
            None => true,
        };
        if is_gone {
            draft.delete_orphan(ino);
        }
        Ok(Some(is_gone))
    }

    /// What is left to do after a transaction that took a name from `ino`.
    pub(super) async fn after_drop(&self, ino: InodeNo, fate: Fate) {
        match fate {
            Fate::Named => {}
            Fate::Gone => {
                if let Some(file) = self.inner.content.known(ino) {
                    file.discard();
                }
            }
            Fate::Orphan => {
                if !self.inner.holds.is_unlinked(ino) {
                    // It was too large for one transaction, or was let go meanwhile.
                    self.finish_orphan(ino).await;
                }
            }
        }
    }

    /// As [`Vfs::finish_orphans`], for one.
    pub(super) async fn finish_orphan(&self, ino: InodeNo) {
        self.finish_orphans(&[ino]).await;
    }

    /// As `remove_orphans`, for a caller whose own change is done: it waits a little, and the rest goes on in the
    /// background, or at the next mount.
    pub(super) async fn finish_orphans(&self, inos: &[InodeNo]) {
        let begun = self.inner.left_over.begin();
        match tokio::time::timeout(REMOVAL_WAIT, self.remove_orphans(inos)).await {
            Ok(Ok(())) => begun.done(),
            Ok(Err(error)) => {
                let ino = inos.first().map(|ino| ino.0);
                tracing::warn!(%error, ino, all = inos.len(), "unlinked files stay for now");
            }
            Err(_elapsed) => {}
        }
    }
}
