//! What a transaction that takes the last name of an inode does about those who hold it (rule V3).

use parking_lot::Mutex;

use super::holds::Holds;
use crate::types::InodeNo;

/// Inodes that a transaction removes, or takes the last name of. An inode that nobody holds leaves: until this is
/// dropped, nobody can hold it. An inode that is held stays for its holders, and the holds know that before the append.
/// This lives until the transaction has been applied or has failed.
pub(super) struct Leaving<'a> {
    holds: &'a Holds,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    leaving: Vec<InodeNo>,
    /// The inode that loses its name and stays.
    stays: Option<InodeNo>,
    /// Whether the holds were told.
    is_losing: bool,
}

impl<'a> Leaving<'a> {
    pub(super) fn new(holds: &'a Holds) -> Self {
        Self { holds, state: Mutex::default() }
    }

    /// The transaction is computed (again): undoes what an earlier run did.
    pub(super) fn again(&self) {
        let before = std::mem::take(&mut *self.state.lock());
        self.undo(&before);
    }

    /// Call under the append lock. Returns `true` if nobody holds the inode; from then on nobody can.
    pub(super) fn claim(&self, ino: InodeNo) -> bool {
        let is_free = self.holds.begin_leaving(ino);
        if is_free {
            self.state.lock().leaving.push(ino);
        }
        is_free
    }

    /// The inode becomes an orphan.
    pub(super) fn stays(&self, ino: InodeNo) {
        self.state.lock().stays = Some(ino);
    }

    /// Call under the append lock, when only the append itself can still fail: the holds must know before anybody can
    /// see that the inode has no name.
    pub(super) fn begin(&self) {
        let mut state = self.state.lock();
        let Some(ino) = state.stays else { return };
        self.holds.begin_losing(ino);
        state.is_losing = true;
    }

    /// The transaction was applied. If nobody holds the inode by now, the caller removes it.
    pub(super) fn landed(self) {
        let state = std::mem::take(&mut *self.state.lock());
        if let Some(ino) = state.stays {
            self.holds.unlinked(ino);
        }
        self.undo(&state);
    }

    fn undo(&self, state: &State) {
        if let Some(ino) = state.stays.filter(|_| state.is_losing) {
            self.holds.end_losing(ino);
        }
        self.holds.end_leaving(&state.leaving);
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.again();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Error;
    use super::super::holds::Holder;
    use super::*;

    const INO: InodeNo = InodeNo(7);

    #[test]
    fn v3_what_is_held_cannot_leave_and_what_leaves_cannot_be_held() {
        for by in [Holder::Handle, Holder::Kernel] {
            let holds = Holds::default();
            holds.hold(INO, by).unwrap();
            let leaving = Leaving::new(&holds);
            assert!(!leaving.claim(INO));
            assert!(holds.unlinked(INO));
            assert!(holds.let_go(INO, by, 1), "the last one removes it");
            assert!(leaving.claim(INO));
            assert!(matches!(holds.hold(INO, by), Err(Error::Stale)));
            drop(leaving);
            holds.hold(INO, by).unwrap();
            assert!(!holds.let_go(INO, by, 1));
            assert!(!holds.unlinked(INO), "let go meanwhile: the caller removes it");
        }
    }

    #[test]
    fn v3_a_transaction_that_fails_or_runs_again_takes_back_what_it_said() {
        let holds = Holds::default();
        holds.hold(INO, Holder::Kernel).unwrap();
        let (one, other) = (Leaving::new(&holds), Leaving::new(&holds));
        for leaving in [&one, &other] {
            leaving.stays(INO);
            leaving.begin();
        }
        one.again();
        assert!(holds.is_unlinked(INO), "the other one says so, too");
        drop(one);
        other.landed();
        assert!(holds.is_unlinked(INO));
        assert!(holds.let_go(INO, Holder::Kernel, 1));
        let leaving = Leaving::new(&holds);
        holds.hold(INO, Holder::Kernel).unwrap();
        leaving.stays(INO);
        leaving.begin();
        drop(leaving);
        assert!(!holds.let_go(INO, Holder::Kernel, 1), "it has its name still");
        let leaving = Leaving::new(&holds);
        assert!(leaving.claim(INO));
        leaving.again();
        holds.hold(INO, Holder::Kernel).unwrap();
    }

    #[test]
    fn v3_who_holds_it_while_its_name_goes_removes_it() {
        let holds = Holds::default();
        holds.hold(INO, Holder::Kernel).unwrap();
        let leaving = Leaving::new(&holds);
        leaving.stays(INO);
        leaving.begin();
        assert!(!holds.let_go(INO, Holder::Kernel, 1), "its name is there still");
        holds.hold(INO, Holder::Handle).unwrap();
        assert!(holds.is_unlinked(INO), "when the name is gone it can be opened");
        leaving.landed();
        assert!(holds.is_unlinked(INO));
        assert!(holds.let_go(INO, Holder::Handle, 1));
        holds.hold(INO, Holder::Kernel).unwrap();
        let leaving = Leaving::new(&holds);
        leaving.stays(INO);
        leaving.begin();
        assert!(!holds.let_go(INO, Holder::Kernel, 1));
        leaving.landed();
        assert!(!holds.is_unlinked(INO), "nobody holds it: who took the name removes it");
    }

    #[tokio::test]
    async fn who_waits_for_an_inode_to_have_left_goes_on_then() {
        let holds = Holds::default();
        holds.left(INO).await;
        let leaving = Leaving::new(&holds);
        assert!(leaving.claim(INO));
        let both = futures_util::future::join(holds.left(INO), async { drop(leaving) });
        both.await;
    }
}
