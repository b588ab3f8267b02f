//! Open files: handles, and how often each inode is open.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::content::File;
use crate::types::InodeNo;

use super::{Error, Result};

/// Names an open file until its release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "they are independent, as the flags of open(2) are"
)]
pub struct OpenFlags {
    /// For reading.
    pub read: bool,
    /// For writing.
    pub write: bool,
    /// Cut to nothing (`O_TRUNC`).
    pub truncate: bool,
    /// With `create`: fails if the name is there (`O_EXCL`).
    pub exclusive: bool,
    /// Reads leave the atime alone (`O_NOATIME`; who may ask for it, the kernel has checked).
    pub no_atime: bool,
}

impl OpenFlags {
    /// From the flags of open(2).
    pub fn from_bits(flags: i32) -> Self {
        let mode = flags & libc::O_ACCMODE;
        Self {
            read: mode != libc::O_WRONLY,
            write: mode == libc::O_WRONLY || mode == libc::O_RDWR,
            truncate: flags & libc::O_TRUNC != 0,
            exclusive: flags & libc::O_EXCL != 0,
            no_atime: flags & libc::O_NOATIME != 0,
        }
    }
}

/// One open file.
pub(super) struct Handle {
    pub(super) file: Arc<File>,
    pub(super) flags: OpenFlags,
}

/// The tables of this mount.
#[derive(Default)]
pub(super) struct Handles {
    next: AtomicU64,
    open: Mutex<HashMap<HandleId, Arc<Handle>>>,
    inodes: Mutex<Inodes>,
}

#[derive(Default)]
struct Inodes {
    open: HashMap<InodeNo, Opened>,
    /// A transaction that removes them is under way: they can no longer be opened.
    leaving: HashSet<InodeNo>,
}

#[derive(Default)]
struct Opened {
    count: u64,
    /// It has no name any more; the last close removes it (rule V3).
    unlinked: bool,
}

impl Handles {
    /// A handle for a file that is held already.
    pub(super) fn insert(&self, file: Arc<File>, flags: OpenFlags) -> HandleId {
        let id = HandleId(self.next.fetch_add(1, Ordering::Relaxed) + 1);
        self.open.lock().insert(id, Arc::new(Handle { file, flags }));
        id
    }

    pub(super) fn get(&self, id: HandleId) -> Result<Arc<Handle>> {
        self.open.lock().get(&id).cloned().ok_or(Error::BadHandle)
    }

    pub(super) fn remove(&self, id: HandleId) -> Result<Arc<Handle>> {
        self.open.lock().remove(&id).ok_or(Error::BadHandle)
    }

    /// Counts one more opening: from here on an unlink leaves the inode until the last release.
    pub(super) fn hold(&self, ino: InodeNo) -> Result<()> {
        let mut inodes = self.inodes.lock();
        if inodes.leaving.contains(&ino) {
            return Err(Error::Stale);
        }
        inodes.open.entry(ino).or_default().count += 1;
        Ok(())
    }

    /// Takes a `hold` back; `true` if it was the last and the inode is to be removed.
    pub(super) fn release(&self, ino: InodeNo) -> bool {
        let mut inodes = self.inodes.lock();
        let Entry::Occupied(mut opened) = inodes.open.entry(ino) else { return false };
        opened.get_mut().count -= 1;
        opened.get().count == 0 && opened.remove().unlinked
    }

    /// Its last name is gone. `true` if it is still open; else it was closed meanwhile and is to be removed now.
    pub(super) fn unlinked(&self, ino: InodeNo) -> bool {
        match self.inodes.lock().open.get_mut(&ino) {
            Some(opened) => {
                opened.unlinked = true;
                true
            }
            None => false,
        }
    }

    /// It gets a name: its last close leaves it.
    pub(super) fn named(&self, ino: InodeNo) {
        if let Some(opened) = self.inodes.lock().open.get_mut(&ino) {
            opened.unlinked = false;
        }
    }

    /// Whether it is open and has no name.
    pub(super) fn is_unlinked(&self, ino: InodeNo) -> bool {
        self.inodes.lock().open.get(&ino).is_some_and(|opened| opened.unlinked)
    }

    /// Asked under the append lock by a transaction that takes an inode's last name: `true` if nobody has it open,
    /// and then nobody can open it until [`Leaving`] is dropped.
    fn leave(&self, ino: InodeNo) -> bool {
        let mut inodes = self.inodes.lock();
        let free = !inodes.open.contains_key(&ino);
        if free {
            inodes.leaving.insert(ino);
        }
        free
    }

    fn stay(&self, ino: InodeNo) {
        self.inodes.lock().leaving.remove(&ino);
    }
}

/// The inode that a transaction removes, if any. Lives until the transaction has been applied or has failed.
pub(super) struct Leaving<'a> {
    handles: &'a Handles,
    ino: Mutex<Option<InodeNo>>,
}

impl<'a> Leaving<'a> {
    pub(super) fn new(handles: &'a Handles) -> Self {
        Self { handles, ino: Mutex::new(None) }
    }

    /// See [`Handles::leave`]. A transaction that runs again gives up what it claimed before.
    pub(super) fn claim(&self, ino: InodeNo) -> bool {
        let mut claimed = self.ino.lock();
        if let Some(before) = claimed.take() {
            self.handles.stay(before);
        }
        let free = self.handles.leave(ino);
        if free {
            *claimed = Some(ino);
        }
        free
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let Some(ino) = self.ino.get_mut().take() {
            self.handles.stay(ino);
        }
    }
}

/// The hold on an inode that a transaction makes and the caller opens: taken under the append lock, so that no
/// unlink comes between.
pub(super) struct Held<'a> {
    handles: &'a Handles,
    ino: Mutex<Option<InodeNo>>,
}

impl<'a> Held<'a> {
    pub(super) fn new(handles: &'a Handles) -> Self {
        Self { handles, ino: Mutex::new(None) }
    }

    /// Holds `ino` instead of what an earlier run of the transaction held.
    pub(super) fn hold(&self, ino: InodeNo) -> Result<()> {
        let mut held = self.ino.lock();
        if let Some(before) = held.take() {
            self.handles.release(before);
        }
        self.handles.hold(ino)?;
        *held = Some(ino);
        Ok(())
    }

    /// The hold is the caller's now, who opens the file.
    pub(super) fn keep(mut self) {
        self.ino.get_mut().take();
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(ino) = self.ino.get_mut().take() {
            self.handles.release(ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v3_what_is_open_cannot_leave_and_what_leaves_cannot_be_opened() {
        let handles = Handles::default();
        let ino = InodeNo(7);
        handles.hold(ino).unwrap();
        let leaving = Leaving::new(&handles);
        assert!(!leaving.claim(ino));
        assert!(handles.unlinked(ino));
        assert!(handles.release(ino), "the last release removes it");
        assert!(leaving.claim(ino));
        assert!(matches!(handles.hold(ino), Err(Error::Stale)));
        drop(leaving);
        handles.hold(ino).unwrap();
        assert!(!handles.release(ino));
        assert!(!handles.unlinked(ino), "closed meanwhile: the caller removes it");
    }
}
