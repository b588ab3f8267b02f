//! Renaming: replacing the target, refusing to, or exchanging the two.

use crate::index::Draft;
use crate::records::{Entry, Inode};
use crate::types::{InodeNo, Timestamp};

use super::invalidate::Invalidation;
use super::leaving::Leaving;
use super::namespace::{changed, is_above, named, unnamed};
use super::publish::{PendingWrites, publish_into};
use super::remove::{Fate, drop_directory, drop_name};
use super::xattr::Bare;
use super::{Error, Result, Vfs, checked_name, directory};

/// The flags of renameat2(2) that are supported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RenameMode {
    /// Replaces what has the new name.
    #[default]
    Replace,
    /// Fails if something has the new name (`RENAME_NOREPLACE`).
    NoReplace,
    /// Both names exist, and swap what they refer to (`RENAME_EXCHANGE`).
    Exchange,
}

/// The outcome of the transaction.
enum Renamed {
    /// Another change moved the names between the look and the transaction: try again.
    Again,
    /// Both names refer to one file: nothing happens (rename(2)), and nothing is published.
    Nothing,
    /// Done; what was replaced, and what became of it.
    Moved(Option<(InodeNo, Fate)>),
}

/// A name in a directory.
type Dentry<'a> = (InodeNo, &'a [u8]);

impl Vfs {
    /// `rename`, in one transaction with the unpublished writes of the files that it moves (V2).
    pub async fn rename(&self, from: Dentry<'_>, to: Dentry<'_>, mode: RenameMode) -> Result<()> {
        let aside = if mode == RenameMode::Exchange { from } else { to };
        self.rename_three(from, to, aside, mode).await
    }

    /// As an exchange, but what `to` referred to gets the third name, which must be free, and `from` is removed.
    pub async fn rename_aside(
        &self,
        from: Dentry<'_>,
        to: Dentry<'_>,
        aside: Dentry<'_>,
    ) -> Result<()> {
        checked_name(aside.1)?;
        self.rename_three(from, to, aside, RenameMode::Exchange).await
    }

    async fn rename_three(
        &self,
        from: Dentry<'_>,
        to: Dentry<'_>,
        aside: Dentry<'_>,
        mode: RenameMode,
    ) -> Result<()> {
        checked_name(from.1)?;
        checked_name(to.1)?;
        self.writable()?;
        let slot = self.invalidation_slot().await?;
        loop {
            let (source, target) = self
                .read(|view| {
                    let ino = |place: Dentry<'_>| -> Result<Option<InodeNo>> {
                        Ok(view.entry(place.0, place.1)?.map(|entry| entry.ino))
                    };
                    Ok((ino(from)?, ino(to)?))
                })
                .await?;
            let exchanged = target.filter(|_| mode == RenameMode::Exchange);
            let pending = self.pending_of(source, exchanged).await?;
            let outcome = self
                .change_leaving(|draft, leaving| {
                    let mut step =
                        Renaming { draft, from, to, now: Timestamp::now(), pending: &pending };
                    if step.is_other(source, exchanged)? {
                        return Ok(Renamed::Again);
                    }
                    match mode {
                        RenameMode::Exchange => step.exchange(aside),
                        _ => step.replace(mode, leaving, &self.inner.bare),
                    }
                })
                .await?;
            match outcome {
                // The sealed writes belong to files that these names no longer refer to: they stay unpublished.
                Renamed::Again => continue,
                Renamed::Nothing => {}
                Renamed::Moved(replaced) => {
                    let moved = [source, exchanged];
                    let telling = slot.tell(|| {
                        let mut changes = renamed(from, to, replaced, moved);
                        if aside != from && aside != to {
                            changes.extend(named(aside.0, aside.1));
                        }
                        changes
                    });
                    pending.into_iter().for_each(PendingWrites::landed);
                    if let Some((ino, fate)) = replaced {
                        self.after_drop(ino, fate).await;
                    }
                    telling.notified().await;
                }
            }
            return Ok(());
        }
    }

    /// The unpublished writes of both, sealed in the order of their inode numbers.
    async fn pending_of(
        &self,
        a: Option<InodeNo>,
        b: Option<InodeNo>,
    ) -> Result<Vec<PendingWrites>> {
        let mut inodes: Vec<InodeNo> = a.into_iter().chain(b).collect();
        inodes.sort();
        inodes.dedup();
        let mut pending = Vec::new();
        for ino in inodes {
            pending.extend(self.pending(ino).await?);
        }
        Ok(pending)
    }
}

/// What the kernel is told of a rename.
fn renamed(
    from: Dentry<'_>,
    to: Dentry<'_>,
    replaced: Option<(InodeNo, Fate)>,
    moved: [Option<InodeNo>; 2],
) -> Vec<Invalidation> {
    let mut changes = named(from.0, from.1);
    match replaced {
        Some(replaced) => changes.extend(unnamed(to.0, to.1, replaced)),
        None => changes.extend(named(to.0, to.1)),
    }
    changes.extend(moved.into_iter().flatten().map(Invalidation::Attributes));
    changes
}

/// One rename in its transaction.
struct Renaming<'a, 'd> {
    draft: &'a mut Draft<'d>,
    from: Dentry<'a>,
    to: Dentry<'a>,
    now: Timestamp,
    pending: &'a [PendingWrites],
}

impl Renaming<'_, '_> {
    /// Whether the names now refer to other inodes than those whose writes were sealed.
    fn is_other(&self, source: Option<InodeNo>, exchanged: Option<InodeNo>) -> Result<bool> {
        let now_at = |place: Dentry<'_>| -> Result<Option<InodeNo>> {
            Ok(self.draft.entry(place.0, place.1)?.map(|entry| entry.ino))
        };
        Ok(now_at(self.from)? != source || (exchanged.is_some() && now_at(self.to)? != exchanged))
    }

    fn replace(&mut self, mode: RenameMode, leaving: &Leaving<'_>, bare: &Bare) -> Result<Renamed> {
        let (from, to) = (self.from, self.to);
        let mut old_dir = directory(self.draft, from.0)?;
        let source = self.draft.entry(from.0, from.1)?.ok_or(Error::NotFound)?;
        directory(self.draft, to.0)?;
        let target = self.draft.entry(to.0, to.1)?;
        let is_dir = source.kind == libc::S_IFDIR;
        if is_dir && from.0 != to.0 && is_above(self.draft, source.ino, to.0)? {
            return Err(Error::Invalid);
        }
        let mut replaced = None;
        let mut loses_dir = false;
        if let Some(target) = &target {
            if mode == RenameMode::NoReplace {
                return Err(Error::Exists);
            }
            if target.ino == source.ino {
                return Ok(Renamed::Nothing);
            }
            self.draft.frees_room();
            replaced = Some((target.ino, self.drop_target(is_dir, target, leaving, bare)?));
            loses_dir = target.kind == libc::S_IFDIR;
        }
        self.draft.delete_entry(from.0, from.1);
        self.put(to, &source);
        self.moved(source.ino, to.0)?;
        if from.0 == to.0 {
            old_dir.nlink = relinked(&old_dir, false, loses_dir);
            changed(self.draft, from.0, &mut old_dir, self.now);
        } else {
            old_dir.nlink = relinked(&old_dir, false, is_dir);
            changed(self.draft, from.0, &mut old_dir, self.now);
            let mut new_dir = directory(self.draft, to.0)?;
            new_dir.nlink = relinked(&new_dir, is_dir, loses_dir);
            changed(self.draft, to.0, &mut new_dir, self.now);
        }
        Ok(Renamed::Moved(replaced))
    }

    fn drop_target(
        &mut self,
        is_dir: bool,
        target: &Entry,
        leaving: &Leaving<'_>,
        bare: &Bare,
    ) -> Result<Fate> {
        match (is_dir, target.kind == libc::S_IFDIR) {
            (true, false) => Err(Error::NotDirectory),
            (false, true) => Err(Error::IsDirectory),
            (true, true) => drop_directory(self.draft, leaving, bare, target.ino, self.now),
            (false, false) => drop_name(self.draft, leaving, bare, target.ino, self.now),
        }
    }

    /// Exchanges the names; what `to` referred to gets the name `aside`.
    fn exchange(&mut self, aside: Dentry<'_>) -> Result<Renamed> {
        let (from, to) = (self.from, self.to);
        directory(self.draft, from.0)?;
        let a = self.draft.entry(from.0, from.1)?.ok_or(Error::NotFound)?;
        directory(self.draft, to.0)?;
        let b = self.draft.entry(to.0, to.1)?.ok_or(Error::NotFound)?;
        if a.ino == b.ino {
            return Ok(Renamed::Nothing);
        }
        directory(self.draft, aside.0)?;
        if aside != from && self.draft.entry(aside.0, aside.1)?.is_some() {
            return Err(Error::Exists);
        }
        let is_dir = |entry: &Entry| entry.kind == libc::S_IFDIR;
        if from.0 != to.0 && is_dir(&a) && is_above(self.draft, a.ino, to.0)?
            || aside.0 != to.0 && is_dir(&b) && is_above(self.draft, b.ino, aside.0)?
        {
            return Err(Error::Invalid);
        }
        if aside != from {
            self.draft.delete_entry(from.0, from.1);
        }
        self.put(to, &a);
        self.put(aside, &b);
        self.moved(a.ino, to.0)?;
        self.moved(b.ino, aside.0)?;
        // One after the other, as they may be the same directory.
        for (dir, gains, loses) in [
            (from.0, false, is_dir(&a)),
            (to.0, is_dir(&a), is_dir(&b)),
            (aside.0, is_dir(&b), false),
        ] {
            let mut changing = directory(self.draft, dir)?;
            changing.nlink = relinked(&changing, gains, loses);
            changed(self.draft, dir, &mut changing, self.now);
        }
        Ok(Renamed::Moved(None))
    }

    fn put(&mut self, place: Dentry<'_>, what: &Entry) {
        let entry = Entry { name: place.1.to_vec(), ino: what.ino, kind: what.kind };
        self.draft.put_entry(place.0, &entry);
    }

    /// The inode has a new name in `dir`: sets its ctime and a directory's `..`, and publishes its writes.
    fn moved(&mut self, ino: InodeNo, dir: InodeNo) -> Result<()> {
        let mut inode: Inode = self.draft.inode(ino)?.ok_or(Error::NotFound)?;
        let pending = self.pending.iter().find(|pending| pending.file.ino() == ino);
        if let Some(pending) = pending {
            publish_into(self.draft, ino, &mut inode, &pending.publication)?;
        }
        if inode.is_dir() {
            inode.parent = dir;
        }
        inode.ctime = self.now;
        self.draft.put_inode(ino, &inode);
        Ok(())
    }
}

/// A directory's link count after it gained or lost a subdirectory.
fn relinked(dir: &Inode, gains: bool, loses: bool) -> u32 {
    dir.nlink.saturating_add(gains.into()).saturating_sub(loses.into())
}
