//! What keeps an inode that has no names: open handles, and the kernel, which may come back to whatever it was told of
//! until it forgets it (rule V3).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::types::InodeNo;

use super::lookup_counts::LookupCounts;
use super::{Error, Result};

/// The kinds of holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// Open files: one hold for each handle.
    Handle,
    /// The kernel: one hold for each time that it was told.
    Kernel,
}

/// Counts the holds on each inode. Innermost in the lock order: taken under the index's locks; no lock is taken under
/// it.
#[derive(Default)]
pub(super) struct Holds {
    table: Mutex<HoldTable>,
    /// Notified when an inode is no longer leaving.
    left: Notify,
}

#[derive(Default)]
struct HoldTable {
    /// The open handles of each inode.
    handles: HashMap<InodeNo, u32>,
    /// How often the kernel was told of each inode.
    kernel: LookupCounts,
    /// Held inodes without names: whoever lets go last removes them.
    unlinked: HashSet<InodeNo>,
    /// Inodes whose last name is being taken by transactions, which leave them to their holders; with the number of
    /// such transactions. Until those land, letting go removes nothing, as a later holder may still find the name.
    losing: HashMap<InodeNo, u32>,
    /// Inodes that transactions remove, or try to; with their number. Nobody can take a hold on these.
    leaving: HashMap<InodeNo, u32>,
}

impl HoldTable {
    fn is_held(&self, ino: InodeNo) -> bool {
        self.handles.contains_key(&ino) || self.kernel.has(ino)
    }

    fn mark(&mut self, ino: InodeNo) -> bool {
        let is_held = self.is_held(ino);
        if is_held {
            self.unlinked.insert(ino);
        }
        is_held
    }
}

impl Holds {
    /// Adds a hold: from now on an unlink leaves the inode until it is let go. Fails with [`Error::Stale`] if a
    /// transaction that removes the inode is under way.
    pub(super) fn hold(&self, ino: InodeNo, by: Holder) -> Result<()> {
        let mut table = self.table.lock();
        if table.leaving.contains_key(&ino) {
            return Err(Error::Stale);
        }
        match by {
            Holder::Handle => *table.handles.entry(ino).or_default() += 1,
            Holder::Kernel => table.kernel.add(ino),
        }
        Ok(())
    }

    /// Releases one hold of a handle, or `times` of the kernel's. `true` if none is left and the inode is to be
    /// removed.
    pub(super) fn let_go(&self, ino: InodeNo, by: Holder, times: u64) -> bool {
        let mut table = self.table.lock();
        if !table.is_held(ino) {
            return false;
        }
        match by {
            Holder::Handle => take_one(&mut table.handles, ino),
            Holder::Kernel => table.kernel.take(ino, times),
        }
        !table.is_held(ino) && table.unlinked.remove(&ino)
    }

    /// Whether the kernel was told of the inode, and has not forgotten it.
    pub(super) fn is_known_to_kernel(&self, ino: InodeNo) -> bool {
        self.table.lock().kernel.has(ino)
    }

    /// The inodes that the kernel was told of, and has not forgotten.
    pub(super) fn known_to_kernel(&self) -> Vec<InodeNo> {
        self.table.lock().kernel.known().collect()
    }

    /// The kernel knows nothing any more. Returns the inodes that are to be removed.
    pub(super) fn kernel_is_gone(&self) -> Vec<InodeNo> {
        let mut table = self.table.lock();
        let HoldTable { handles, kernel, unlinked, .. } = &mut *table;
        kernel.clear();
        unlinked.extract_if(|ino| !handles.contains_key(ino)).collect()
    }

    /// The inode has no name. Returns whether it is held; then whoever lets go last removes it.
    pub(super) fn unlinked(&self, ino: InodeNo) -> bool {
        self.table.lock().mark(ino)
    }

    /// The inode gets a name: letting go no longer removes it.
    pub(super) fn named(&self, ino: InodeNo) {
        self.table.lock().unlinked.remove(&ino);
    }

    /// Whether it is held and has no name, or is just losing its last one.
    pub(super) fn is_unlinked(&self, ino: InodeNo) -> bool {
        let table = self.table.lock();
        table.unlinked.contains(&ino) || table.losing.contains_key(&ino)
    }

    /// Returns when no transaction that removes the inode is under way.
    pub(super) async fn left(&self, ino: InodeNo) {
        loop {
            // Made before the look, so that no change is missed.
            let changed = self.left.notified();
            if !self.table.lock().leaving.contains_key(&ino) {
                return;
            }
            changed.await;
        }
    }

    /// Returns `true` if nobody holds the inode; then nobody can, until [`Holds::end_leaving`].
    pub(super) fn begin_leaving(&self, ino: InodeNo) -> bool {
        let mut table = self.table.lock();
        let is_free = !table.is_held(ino);
        if is_free {
            *table.leaving.entry(ino).or_default() += 1;
        }
        is_free
    }

    /// A transaction that removes these has been applied or has failed.
    pub(super) fn end_leaving(&self, inos: &[InodeNo]) {
        if inos.is_empty() {
            return;
        }
        let mut table = self.table.lock();
        for ino in inos {
            take_one(&mut table.leaving, *ino);
        }
        drop(table);
        self.left.notify_waiters();
    }

    /// Until [`Holds::end_losing`], letting go of the inode removes nothing.
    pub(super) fn begin_losing(&self, ino: InodeNo) {
        *self.table.lock().losing.entry(ino).or_default() += 1;
    }

    /// A transaction that takes the last name has been applied or has failed.
    pub(super) fn end_losing(&self, ino: InodeNo) {
        take_one(&mut self.table.lock().losing, ino);
    }

    /// How many inodes are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let table = self.table.lock();
        let inodes: HashSet<_> =
            table.handles.keys().copied().chain(table.kernel.known()).collect();
        inodes.len()
    }
}

fn take_one(counts: &mut HashMap<InodeNo, u32>, ino: InodeNo) {
    if let Entry::Occupied(mut count) = counts.entry(ino) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: InodeNo = InodeNo(7);

    #[test]
    fn v3_handles_and_the_kernel_both_keep_it() {
        let holds = Holds::default();
        for by in [Holder::Handle, Holder::Kernel, Holder::Kernel, Holder::Kernel] {
            holds.hold(INO, by).unwrap();
        }
        assert!(holds.unlinked(INO) && holds.is_unlinked(INO));
        assert!(!holds.let_go(INO, Holder::Kernel, 2));
        assert!(!holds.let_go(INO, Holder::Handle, 1));
        assert!(holds.let_go(INO, Holder::Kernel, 1));
        assert!(!holds.is_unlinked(INO) && holds.len() == 0);
        holds.hold(INO, Holder::Kernel).unwrap();
        holds.hold(INO, Holder::Handle).unwrap();
        assert!(holds.kernel_is_gone().is_empty(), "it is open");
        assert!(holds.unlinked(INO) && holds.let_go(INO, Holder::Handle, 1));
        holds.hold(INO, Holder::Kernel).unwrap();
        assert!(holds.unlinked(INO));
        assert_eq!(holds.kernel_is_gone(), [INO]);
    }
}
