//! What is gone from the map while the kernel still knows it: a removed working directory, a fifo that is open, an
//! `O_PATH` descriptor. As on a local disk it can be asked about, until the kernel forgets it.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::attr::{self, SetAttributes};
use super::{Attributes, Error, Result, Vfs};
use crate::log::Inode;
use crate::types::{InodeNo, Timestamp};

/// So many at most, some 250 bytes each. Nearly all are forgotten at once; what the kernel never knew (it went by
/// another door) stays until then.
const GHOSTS_MAX: usize = 4096;

/// Inodes that were removed, as they were at their end.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    kept: Mutex<HashMap<InodeNo, Inode>>,
}

impl Ghosts {
    fn note(&self, ino: InodeNo, mut inode: Inode) {
        // The bytes are gone; whoever holds them open has an orphan, not a ghost.
        (inode.nlink, inode.extent) = (0, None);
        let mut kept = self.kept.lock();
        if kept.len() >= GHOSTS_MAX {
            kept.clear();
        }
        kept.insert(ino, inode);
    }

    pub(super) fn get(&self, ino: InodeNo) -> Option<Inode> {
        self.kept.lock().get(&ino).cloned()
    }
}

impl Vfs {
    /// The kernel has forgotten an inode: it will not ask about it again without a look-up.
    pub fn forget(&self, ino: InodeNo) {
        self.inner.ghosts.kept.lock().remove(&ino);
    }

    /// A removal took the whole inode away.
    pub(super) fn haunts(&self, ino: InodeNo, inode: Option<Box<Inode>>) {
        if let Some(inode) = inode {
            self.inner.ghosts.note(ino, *inode);
        }
    }

    pub(super) fn ghost(&self, ino: InodeNo) -> Result<Attributes> {
        let ghost = self.inner.ghosts.get(ino).ok_or(Error::Stale)?;
        Ok(Attributes::of(ino, &ghost))
    }

    /// `chmod` and the like of what is gone: nobody will see it but who holds it.
    pub(super) fn set_ghost(&self, ino: InodeNo, set: &SetAttributes) -> Result<Attributes> {
        let mut kept = self.inner.ghosts.kept.lock();
        let ghost = kept.get_mut(&ino).ok_or(Error::Stale)?;
        attr::apply(ghost, set, Timestamp::now());
        Ok(Attributes::of(ino, ghost))
    }
}
