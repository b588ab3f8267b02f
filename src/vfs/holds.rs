//! Who keeps an inode that has no names: the handles that are open, and the kernel, which may come back to whatever it
//! was told of until it forgets it (rule V3).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::types::InodeNo;

use super::lookup_counts::LookupCounts;
use super::{Error, Result};

/// Who holds an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// An open file, once for each handle.
    Handle,
    /// The kernel, once for each time that it was told.
    Kernel,
}

/// How often each inode is held. A leaf: taken under the index's locks, nothing is taken under it.
#[derive(Default)]
pub(super) struct Holds {
    table: Mutex<HoldTable>,
    /// Some inode is no longer leaving.
    left: Notify,
}

#[derive(Default)]
struct HoldTable {
    /// Open files: once for each handle.
    handles: HashMap<InodeNo, u32>,
    /// What the kernel was told of.
    kernel: LookupCounts,
    /// Those of them that have no name any more: whoever lets go last removes them.
    unlinked: HashSet<InodeNo>,
    /// Transactions under way take their last name, and leave them to who holds them then: so far whoever lets go last
    /// removes nothing, and the next one who holds them may find the name still.
    losing: HashMap<InodeNo, u32>,
    /// A transaction that removes them is under way, or several that try: nobody can hold them.
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
    /// Counts one more: from here on an unlink leaves the inode until it is let go. [`Error::Stale`]: a transaction
    /// that removes it is under way.
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

    /// Takes `hold`s back, a handle's or so many of the kernel's; `true` if nobody is left and the inode is to be removed.
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

    /// Whether the kernel was told of it, and has not forgotten it.
    pub(super) fn is_known_to_kernel(&self, ino: InodeNo) -> bool {
        self.table.lock().kernel.has(ino)
    }

    /// What the kernel was told of, and has not forgotten.
    pub(super) fn known_to_kernel(&self) -> Vec<InodeNo> {
        self.table.lock().kernel.known().collect()
    }

    /// The kernel knows nothing any more. Returns what is to be removed.
    pub(super) fn kernel_is_gone(&self) -> Vec<InodeNo> {
        let mut table = self.table.lock();
        let HoldTable { handles, kernel, unlinked, .. } = &mut *table;
        kernel.clear();
        unlinked.extract_if(|ino| !handles.contains_key(ino)).collect()
    }

    /// It has no name. `true` if it is held, and then whoever lets go last removes it.
    pub(super) fn unlinked(&self, ino: InodeNo) -> bool {
        self.table.lock().mark(ino)
    }

    /// It gets a name: whoever lets go last leaves it.
    pub(super) fn named(&self, ino: InodeNo) {
        self.table.lock().unlinked.remove(&ino);
    }

    /// Whether it is held and has no name, or is just losing it.
    pub(super) fn is_unlinked(&self, ino: InodeNo) -> bool {
        let table = self.table.lock();
        table.unlinked.contains(&ino) || table.losing.contains_key(&ino)
    }

    /// Returns when no transaction that removes it is under way.
    pub(super) async fn left(&self, ino: InodeNo) {
        loop {
            // Made before the look: from here on it hears of every change.
            let changed = self.left.notified();
            if !self.table.lock().leaving.contains_key(&ino) {
                return;
            }
            changed.await;
        }
    }

    /// `true` if nobody holds the inode; then nobody can until [`Holds::end_leaving`].
    pub(super) fn begin_leaving(&self, ino: InodeNo) -> bool {
        let mut table = self.table.lock();
        let is_free = !table.is_held(ino);
        if is_free {
            *table.leaving.entry(ino).or_default() += 1;
        }
        is_free
    }

    /// One transaction less removes them: it has, or has failed.
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

    /// Until [`Holds::end_losing`] whoever lets go of it last removes nothing.
    pub(super) fn begin_losing(&self, ino: InodeNo) {
        *self.table.lock().losing.entry(ino).or_default() += 1;
    }

    /// One transaction less takes its last name: it has, or has failed.
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
