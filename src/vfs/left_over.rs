//! What of a removal is left to the background: the work of a caller who did not wait for its end.

use std::sync::atomic::{AtomicBool, Ordering};

/// That orphans or truncations are left to be finished in the background.
#[derive(Debug, Default)]
pub(super) struct LeftOver(AtomicBool);

impl LeftOver {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }

    /// What begins here is left over unless it is [`Begun::done`]: also when its caller gives it up in the middle.
    pub(super) fn begin(&self) -> Begun<'_> {
        Begun(Some(self))
    }
}

/// A piece of work that the background finishes if its caller does not.
#[must_use]
pub(super) struct Begun<'a>(Option<&'a LeftOver>);

impl Begun<'_> {
    pub(super) fn done(mut self) {
        self.0.take();
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(left_over) = self.0 {
            left_over.set();
        }
    }
}
