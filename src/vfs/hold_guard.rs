//! A hold on an inode that is released unless the operation succeeds.

use parking_lot::Mutex;

use super::Result;
use super::holds::{Holder, Holds};
use super::left_over::LeftOver;
use crate::types::InodeNo;

/// The hold on an inode that a transaction creates or names: taken under the append lock, so that no unlink comes
/// between. Dropped, it releases the hold; if it was the last one on an inode without names, the background removes
/// that.
pub(super) struct HoldGuard<'a> {
    holds: &'a Holds,
    left_over: &'a LeftOver,
    by: Holder,
    ino: Mutex<Option<InodeNo>>,
}

impl<'a> HoldGuard<'a> {
    pub(super) fn new(holds: &'a Holds, left_over: &'a LeftOver, by: Holder) -> Self {
        Self { holds, left_over, by, ino: Mutex::new(None) }
    }

    /// Takes over an existing hold.
    pub(super) fn taking_over(mut self, ino: InodeNo) -> Self {
        *self.ino.get_mut() = Some(ino);
        self
    }

    /// Holds `ino`, and releases what an earlier run of the transaction held.
    pub(super) fn hold(&self, ino: InodeNo) -> Result<()> {
        let mut held = self.ino.lock();
        if let Some(before) = held.take() {
            self.let_go(before);
        }
        self.holds.hold(ino, self.by)?;
        *held = Some(ino);
        Ok(())
    }

    /// The hold is now the caller's.
    pub(super) fn keep(mut self) {
        self.ino.get_mut().take();
    }

    fn let_go(&self, ino: InodeNo) {
        if self.holds.let_go(ino, self.by, 1) {
            self.left_over.set();
        }
    }
}

impl Drop for HoldGuard<'_> {
    fn drop(&mut self) {
        if let Some(ino) = self.ino.get_mut().take() {
            self.let_go(ino);
        }
    }
}
