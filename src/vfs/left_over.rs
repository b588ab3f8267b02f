//! Removals and truncations that are left to the background, because their caller did not wait for the end.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether there are orphans or truncations for the background to finish.
#[derive(Debug, Default)]
pub(super) struct LeftOver(AtomicBool);

impl LeftOver {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }

    /// Begins a piece of work: it is left over unless [`Begun::done`] is called, even if its caller gives up in the
    /// middle.
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
