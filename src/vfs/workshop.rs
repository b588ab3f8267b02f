//! Directories in which something is made, or put aside, that takes more than one transaction. Whoever asked for it
//! then moves it into its place by one rename. A workshop is removed with all that is in it when its user is done or
//! gives up; after a crash the next mount does that, by an orphan record that the transaction which makes the workshop
//! puts (V3).
//!
//! It has a name, so that a program which does not know such records leaves a directory that people can see, rather
//! than one that nobody finds and that takes room for ever.

use std::collections::HashSet;

use parking_lot::Mutex;

use super::namespace::Made;
use super::remove::REMOVAL_WAIT;
use super::{Caller, Error, RenameMode, Result, TreeRemoval, Vfs};
use crate::os;
use crate::types::InodeNo;

/// Only its owner may look into it.
const MODE: u32 = libc::S_IFDIR | 0o700;

/// The workshops in use.
#[derive(Default)]
pub(super) struct Workshops(Mutex<HashSet<InodeNo>>);

/// A directory to work in. If it is dropped, the background removes it.
pub struct Workshop {
    vfs: Vfs,
    place: (InodeNo, Vec<u8>),
    /// As made by the last run of its transaction.
    ino: Mutex<Option<InodeNo>>,
}

impl Vfs {
    /// Makes a workshop in `parent`, so that what is made in it inherits the same as there.
    pub async fn workshop(&self, caller: &Caller, parent: InodeNo) -> Result<Workshop> {
        let name = format!(".s3vault-new-{:016x}", u64::from_ne_bytes(os::random())).into_bytes();
        let place = (parent, name);
        let workshop = Workshop { vfs: self.clone(), place, ino: Mutex::new(None) };
        let name = &workshop.place.1;
        let is_made_as = |ino| workshop.is_made_as(ino);
        let made = Made::Workshop(&is_made_as);
        drop(self.make(caller, parent, name, MODE, made, None).await?);
        Ok(workshop)
    }

    /// Removes a workshop that is not in use, if it is where it was made. If not, somebody moved it: it stays.
    pub(super) async fn remove_workshop(
        &self,
        ino: InodeNo,
        (parent, name): (InodeNo, &[u8]),
    ) -> Result<()> {
        if self.inner.workshops.0.lock().contains(&ino) {
            return Ok(());
        }
        let is_there =
            self.read(|view| Ok(view.entry(parent, name)?.is_some_and(|there| there.ino == ino)));
        if is_there.await? {
            let mut removal = TreeRemoval::new(self, (parent, name), ino);
            while let Some((_, done)) = removal.next().await? {
                match done {
                    // Somebody else removed it first.
                    Ok(()) | Err(Error::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.tidy(|draft| {
            if draft.orphan(ino)?.is_some_and(|orphan| orphan.tree_name().is_some()) {
                draft.delete_orphan(ino);
            }
            Ok(())
        })
        .await
    }
}

impl Workshop {
    /// The inode of the directory.
    pub fn ino(&self) -> Result<InodeNo> {
        self.ino.lock().ok_or(Error::Stale)
    }

    /// Called under the append lock, before anybody can see the directory: so that nobody removes it as unused.
    fn is_made_as(&self, ino: InodeNo) {
        let mut live = self.vfs.inner.workshops.0.lock();
        if let Some(before) = self.ino.lock().replace(ino) {
            live.remove(&before);
        }
        live.insert(ino);
    }

    /// Removes the workshop with all that is in it. What takes long continues in the background.
    pub async fn end(self) {
        let Some(ino) = self.let_go() else { return };
        let begun = self.vfs.inner.left_over.begin();
        let removed = self.vfs.remove_workshop(ino, (self.place.0, &self.place.1));
        match tokio::time::timeout(REMOVAL_WAIT, removed).await {
            Ok(Ok(())) => begun.done(),
            Ok(Err(error)) => {
                tracing::warn!(%error, ino = ino.0, "what was made aside stays for now");
            }
            Err(_elapsed) => {}
        }
    }

    fn let_go(&self) -> Option<InodeNo> {
        let ino = self.ino.lock().take()?;
        self.vfs.inner.workshops.0.lock().remove(&ino);
        Some(ino)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        if self.let_go().is_some() {
            self.vfs.inner.left_over.set();
        }
    }
}

/// Where to make something that may replace something else: in its place, or if that is taken, in a workshop.
pub struct Replacing {
    vfs: Vfs,
    place: (InodeNo, Vec<u8>),
    workshop: Option<Workshop>,
}

impl Vfs {
    /// Prepares to make something that is neither file nor directory. `is_taken`: something has the name already.
    pub async fn replacing(
        &self,
        caller: &Caller,
        (parent, name): (InodeNo, &[u8]),
        is_taken: bool,
    ) -> Result<Replacing> {
        let workshop = if is_taken { Some(self.workshop(caller, parent).await?) } else { None };
        Ok(Replacing { vfs: self.clone(), place: (parent, name.to_vec()), workshop })
    }
}

impl Replacing {
    /// The directory and the name with which to make it.
    pub fn names(&self) -> Result<(InodeNo, &[u8])> {
        let parent = self.workshop.as_ref().map_or(Ok(self.place.0), Workshop::ino)?;
        Ok((parent, &self.place.1))
    }

    /// It has been made: moves it into its place in one step.
    pub async fn done(self) -> Result<()> {
        let Self { vfs, place: (parent, name), workshop } = self;
        if let Some(workshop) = workshop {
            let from = (workshop.ino()?, &name[..]);
            vfs.rename(from, (parent, &name), RenameMode::Replace).await?;
            workshop.end().await;
        }
        Ok(())
    }
}
