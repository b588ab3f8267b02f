//! Who keeps an inode without names: the handles that are open, and the kernel, which may come back to whatever it was
//! told of until it forgets it (rule V3).

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::types::InodeNo;

use super::remove::LeftOver;
use super::{Error, Result};

/// Who.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// An open file, once for each handle.
    Handle,
    /// The kernel, once for each time that it was told.
    Kernel,
}

/// How often each inode is held. A leaf: taken under the index's locks, nothing is taken under it.
#[derive(Default)]
pub(super) struct Holders {
    table: Mutex<Table>,
    /// Some inode is no longer leaving.
    left: Notify,
}

#[derive(Default)]
struct Table {
    held: HashMap<InodeNo, Counts>,
    /// Those of them that have no name any more: whoever lets go last removes them.
    unlinked: HashSet<InodeNo>,
    /// Transactions under way take their last name, and leave them to who holds them then: so far whoever lets go last
    /// removes nothing, and the next one who holds them may find the name still.
    losing: HashMap<InodeNo, u32>,
    /// A transaction that removes them is under way, or several that try: nobody can hold them.
    leaving: HashMap<InodeNo, u32>,
}

/// Small, as the kernel may know millions.
#[derive(Default)]
struct Counts {
    handles: u32,
    /// At its end it stays there: until the mount ends it is known.
    lookups: u32,
}

impl Counts {
    fn add(&mut self, by: Holder) {
        let count = match by {
            Holder::Handle => &mut self.handles,
            Holder::Kernel => &mut self.lookups,
        };
        *count = count.saturating_add(1);
    }

    /// `true` when nobody is left.
    fn take(&mut self, by: Holder, times: u64) -> bool {
        let count = match by {
            Holder::Handle => &mut self.handles,
            Holder::Kernel => &mut self.lookups,
        };
        if *count != u32::MAX {
            *count = count.saturating_sub(u32::try_from(times).unwrap_or(u32::MAX));
        }
        self.handles == 0 && self.lookups == 0
    }
}

impl Table {
    /// Nobody holds it any more; whether it has no name either.
    fn gone(&mut self, ino: InodeNo) -> bool {
        // A kernel that forgets a million inodes takes no memory for them here.
        let (used, room) = (self.held.len(), self.held.capacity());
        if room > 4096 && used < room / 8 {
            self.held.shrink_to(used * 2);
        }
        self.unlinked.remove(&ino)
    }

    fn mark(&mut self, ino: InodeNo) -> bool {
        let is_held = self.held.contains_key(&ino);
        if is_held {
            self.unlinked.insert(ino);
        }
        is_held
    }
}

impl Holders {
    /// Counts one more: from here on an unlink leaves the inode until it is let go. [`Error::Stale`]: a transaction
    /// that removes it is under way.
    pub(super) fn hold(&self, ino: InodeNo, by: Holder) -> Result<()> {
        let mut table = self.table.lock();
        if table.leaving.contains_key(&ino) {
            return Err(Error::Stale);
        }
        table.held.entry(ino).or_default().add(by);
        Ok(())
    }

    /// Takes `hold`s back; `true` if nobody is left and the inode is to be removed.
    pub(super) fn let_go(&self, ino: InodeNo, by: Holder, times: u64) -> bool {
        let mut table = self.table.lock();
        let Entry::Occupied(mut counts) = table.held.entry(ino) else { return false };
        if !counts.get_mut().take(by, times) {
            return false;
        }
        counts.remove();
        table.gone(ino)
    }

    /// The kernel knows nothing any more. Returns what is to be removed.
    pub(super) fn let_all_go(&self, by: Holder) -> Vec<InodeNo> {
        let mut table = self.table.lock();
        let mut gone = Vec::new();
        table.held.retain(|ino, counts| {
            match by {
                Holder::Handle => counts.handles = 0,
                Holder::Kernel => counts.lookups = 0,
            }
            let is_held = counts.handles > 0 || counts.lookups > 0;
            if !is_held {
                gone.push(*ino);
            }
            is_held
        });
        gone.retain(|ino| table.gone(*ino));
        gone
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

    /// How many inodes are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.lock().held.len()
    }
}

/// What a transaction that takes away the last name of an inode does with it: nobody holds it, and then nobody can
/// until this is dropped; or it stays for those who hold it, who know from before the append on. Lives until the
/// transaction has been applied or has failed.
pub(super) struct Leaving<'a> {
    holders: &'a Holders,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    leaving: Option<InodeNo>,
    /// It is to stay.
    stays: Option<InodeNo>,
    /// The table knows that.
    is_losing: bool,
}

impl<'a> Leaving<'a> {
    pub(super) fn new(holders: &'a Holders) -> Self {
        Self { holders, state: Mutex::default() }
    }

    /// The transaction is computed (again): what came of it before counts no more.
    pub(super) fn again(&self) {
        let before = std::mem::take(&mut *self.state.lock());
        self.undo(&before);
    }

    /// Under the append lock: `true` if nobody holds the inode, and then nobody can.
    pub(super) fn claim(&self, ino: InodeNo) -> bool {
        let is_free = {
            let mut table = self.holders.table.lock();
            let is_free = !table.held.contains_key(&ino);
            if is_free {
                *table.leaving.entry(ino).or_default() += 1;
            }
            is_free
        };
        if is_free {
            self.state.lock().leaving = Some(ino);
        }
        is_free
    }

    /// It becomes an orphan.
    pub(super) fn stays(&self, ino: InodeNo) {
        self.state.lock().stays = Some(ino);
    }

    /// Under the append lock, when nothing can go wrong any more but the append: those who hold it know before anybody
    /// can see that it has no name.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        let Some(ino) = state.stays else { return };
        *self.holders.table.lock().losing.entry(ino).or_default() += 1;
        state.is_losing = true;
    }

    /// The transaction was applied. If nobody holds the inode any more, the caller removes it.
    pub(super) fn landed(self) {
        let state = std::mem::take(&mut *self.state.lock());
        if let Some(ino) = state.stays {
            self.holders.table.lock().mark(ino);
        }
        self.undo(&state);
    }

    fn undo(&self, state: &State) {
        let mut table = self.holders.table.lock();
        if let Some(ino) = state.stays.filter(|_| state.is_losing) {
            take_one(&mut table.losing, ino);
        }
        let Some(ino) = state.leaving else { return };
        take_one(&mut table.leaving, ino);
        drop(table);
        self.holders.left.notify_waiters();
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

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.again();
    }
}

/// The hold on an inode that a transaction makes or gives a name: taken under the append lock, so that no unlink comes
/// between. Given up, it is let go; whoever let go last without a caller that waits leaves the removal to the background.
pub(super) struct Held<'a> {
    holders: &'a Holders,
    left_over: &'a LeftOver,
    by: Holder,
    ino: Mutex<Option<InodeNo>>,
}

impl<'a> Held<'a> {
    pub(super) fn new(holders: &'a Holders, left_over: &'a LeftOver, by: Holder) -> Self {
        Self { holders, left_over, by, ino: Mutex::new(None) }
    }

    /// Takes over a hold that there is.
    pub(super) fn taking_over(mut self, ino: InodeNo) -> Self {
        *self.ino.get_mut() = Some(ino);
        self
    }

    /// Holds `ino` instead of what an earlier run of the transaction held.
    pub(super) fn hold(&self, ino: InodeNo) -> Result<()> {
        let mut held = self.ino.lock();
        if let Some(before) = held.take() {
            self.let_go(before);
        }
        self.holders.hold(ino, self.by)?;
        *held = Some(ino);
        Ok(())
    }

    /// The hold is the caller's now.
    pub(super) fn keep(mut self) {
        self.ino.get_mut().take();
    }

    fn let_go(&self, ino: InodeNo) {
        if self.holders.let_go(ino, self.by, 1) {
            self.left_over.set();
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(ino) = self.ino.get_mut().take() {
            self.let_go(ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: InodeNo = InodeNo(7);

    #[test]
    fn v3_what_is_held_cannot_leave_and_what_leaves_cannot_be_held() {
        for by in [Holder::Handle, Holder::Kernel] {
            let holders = Holders::default();
            holders.hold(INO, by).unwrap();
            let leaving = Leaving::new(&holders);
            assert!(!leaving.claim(INO));
            assert!(holders.unlinked(INO));
            assert!(holders.let_go(INO, by, 1), "the last one removes it");
            assert!(leaving.claim(INO));
            assert!(matches!(holders.hold(INO, by), Err(Error::Stale)));
            drop(leaving);
            holders.hold(INO, by).unwrap();
            assert!(!holders.let_go(INO, by, 1));
            assert!(!holders.unlinked(INO), "let go meanwhile: the caller removes it");
        }
    }

    #[test]
    fn v3_handles_and_the_kernel_both_keep_it() {
        let holders = Holders::default();
        for by in [Holder::Handle, Holder::Kernel, Holder::Kernel, Holder::Kernel] {
            holders.hold(INO, by).unwrap();
        }
        assert!(holders.unlinked(INO) && holders.is_unlinked(INO));
        assert!(!holders.let_go(INO, Holder::Kernel, 2));
        assert!(!holders.let_go(INO, Holder::Handle, 1));
        assert!(holders.let_go(INO, Holder::Kernel, 1));
        assert!(!holders.is_unlinked(INO) && holders.len() == 0);
        holders.hold(INO, Holder::Kernel).unwrap();
        holders.hold(INO, Holder::Handle).unwrap();
        assert!(holders.let_all_go(Holder::Kernel).is_empty(), "it is open");
        assert!(holders.unlinked(INO) && holders.let_go(INO, Holder::Handle, 1));
        holders.hold(INO, Holder::Kernel).unwrap();
        assert!(holders.unlinked(INO));
        assert_eq!(holders.let_all_go(Holder::Kernel), [INO]);
    }

    #[test]
    fn v3_a_transaction_that_fails_or_runs_again_takes_back_what_it_said() {
        let holders = Holders::default();
        holders.hold(INO, Holder::Kernel).unwrap();
        let (one, other) = (Leaving::new(&holders), Leaving::new(&holders));
        for leaving in [&one, &other] {
            leaving.stays(INO);
            leaving.begin();
        }
        one.again();
        assert!(holders.is_unlinked(INO), "the other one says so, too");
        drop(one);
        other.landed();
        assert!(holders.is_unlinked(INO));
        assert!(holders.let_go(INO, Holder::Kernel, 1));
        let leaving = Leaving::new(&holders);
        holders.hold(INO, Holder::Kernel).unwrap();
        leaving.stays(INO);
        leaving.begin();
        drop(leaving);
        assert!(!holders.let_go(INO, Holder::Kernel, 1), "it has its name still");
        let leaving = Leaving::new(&holders);
        assert!(leaving.claim(INO));
        leaving.again();
        holders.hold(INO, Holder::Kernel).unwrap();
    }

    #[test]
    fn v3_who_holds_it_while_its_name_goes_removes_it() {
        let holders = Holders::default();
        holders.hold(INO, Holder::Kernel).unwrap();
        let leaving = Leaving::new(&holders);
        leaving.stays(INO);
        leaving.begin();
        assert!(!holders.let_go(INO, Holder::Kernel, 1), "its name is there still");
        holders.hold(INO, Holder::Handle).unwrap();
        assert!(holders.is_unlinked(INO), "when the name is gone it can be opened");
        leaving.landed();
        assert!(holders.is_unlinked(INO));
        assert!(holders.let_go(INO, Holder::Handle, 1));
        holders.hold(INO, Holder::Kernel).unwrap();
        let leaving = Leaving::new(&holders);
        leaving.stays(INO);
        leaving.begin();
        assert!(!holders.let_go(INO, Holder::Kernel, 1));
        leaving.landed();
        assert!(!holders.is_unlinked(INO), "nobody holds it: who took the name removes it");
    }

    #[tokio::test]
    async fn who_waits_for_an_inode_to_have_left_goes_on_then() {
        let holders = Holders::default();
        holders.left(INO).await;
        let leaving = Leaving::new(&holders);
        assert!(leaving.claim(INO));
        let both = futures_util::future::join(holders.left(INO), async { drop(leaving) });
        both.await;
    }
}
